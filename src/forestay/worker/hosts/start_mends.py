"""What to do about a start that failed, where the model's own words name a cause that its spec can mend. Pure.

A model that runs elsewhere as it is fails here first at what its spec does not grant: a network, a package, a folder.
Its words say what failed; the field that grants it stands nowhere in them. It changes nothing and hides nothing: the
mend is added behind the words. Called by `fal_app`, and by `cli/deploying` for an app that cannot be loaded.
"""

import re

from forestay.fleet.spec import HostSpec

_NO_NETWORK = re.compile(
    r"Name or service not known|Temporary failure in name resolution|No address associated with hostname"
    r"|Network is unreachable|Failed to resolve|NameResolutionError|nodename nor servname"
    r"|We couldn't connect to|LocalEntryNotFoundError"
)
_NO_MODULE = re.compile(r"ModuleNotFoundError: No module named '([\w.]+)'")
_NO_FOLDER = re.compile(
    r"(?:FileNotFoundError|PermissionError|OSError|NotADirectoryError): .*?'(/data(?:/[^']*)?)'", re.DOTALL
)


def with_mend(reason: str, host: HostSpec) -> str:
    """Return the reason with the field of the spec that mends it behind it, where there is one."""
    mend = _mend(reason, host)
    return f"{reason}\n{mend}" if mend else reason


def _mend(reason: str, host: HostSpec) -> str:
    missing = _NO_MODULE.search(reason)
    if missing is not None:
        name = missing[1].partition(".")[0]
        return f"name the package of {name} in host.requirements, or an interpreter that has it in host.python"
    if host.network != "full" and _NO_NETWORK.search(reason):
        return (
            f"it has no network (host.network: {host.network}): put what it fetches beside it, where it travels in"
            " the bundle, or into a folder of the worker (host.data_mounts); host.network: full lets it fetch"
        )
    folder = _NO_FOLDER.search(reason)
    if folder is not None and not any(mount.rpartition(":")[2] == "/data" for mount in host.data_mounts):
        return f"{folder[1]} is not there: show it a folder of the worker by host.data_mounts (/folder:/data)"
    return ""
