"""Reads fal's object lifecycle headers: how long an uploaded file is kept. Pure. Called by `uploads`.

The CDN's uploads carry `X-Fal-Object-Lifecycle`, the REST ones `X-Fal-Object-Lifecycle-Preference`; the Python client
sends both alike (contract, section 1.5).
"""

from collections.abc import Mapping

import msgspec

from forestay.errors import UsageError

HEADERS = ("x-fal-object-lifecycle", "x-fal-object-lifecycle-preference")
MAX_SECONDS = 10 * 365 * 86400


class _Acl(msgspec.Struct):
    default: str = "allow"
    rules: list[object] = []


class _Lifecycle(msgspec.Struct):
    expiration_duration_seconds: float | None = None
    initial_acl: _Acl | None = None


def lifetime_seconds(headers: Mapping[str, str], default: int) -> int:
    """Return the seconds to keep a file; UsageError names the header and what it may hold.

    Access lists are refused: files here are open to whoever holds their unguessable URL, and to accept a list that
    nothing enforces would be a promise broken in silence.
    """
    name, text = next(((name, headers[name]) for name in HEADERS if headers.get(name)), ("", ""))
    if not text:
        return default
    try:
        read = msgspec.json.decode(text.encode(), type=_Lifecycle)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise UsageError(name, 'is not JSON such as {"expiration_duration_seconds": 3600}') from None
    if read.initial_acl is not None and (read.initial_acl.default != "allow" or read.initial_acl.rules):
        raise UsageError(name, "initial_acl is not supported; only files open to their URL's holders are")
    seconds = read.expiration_duration_seconds
    if seconds is None:
        return default
    if not 1 <= seconds <= MAX_SECONDS:
        raise UsageError(name, f"expiration_duration_seconds {seconds:g} is outside 1..{MAX_SECONDS}")
    return int(seconds)
