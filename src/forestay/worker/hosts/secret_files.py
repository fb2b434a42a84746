"""Reads declared secrets from the worker's secrets folder: one file per secret, its name the secret's name.

Called by the hosts at start. A secret's value is never logged and never part of an error.
"""

import pathlib
import re

from forestay.worker.hosts.host import StartFailed

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
MAX_SECRET_BYTES = 65_536


def read_secret(secrets_dir: str, name: str) -> str:
    """Return the secret without its last line end; StartFailed says what to do when it is not there."""
    if not _NAME.fullmatch(name) or name.startswith("FORESTAY_"):
        raise StartFailed(f"secret {name!r}: a name has letters, digits and underscores, and does not begin FORESTAY_")
    if not secrets_dir:
        raise StartFailed(f"secret {name}: this worker has no secrets folder; set FORESTAY_SECRETS_DIR")
    try:
        data = (pathlib.Path(secrets_dir) / name).read_bytes()
    except OSError:
        raise StartFailed(
            f"secret {name} cannot be read from {secrets_dir}; put its value into a file of that name"
        ) from None
    if len(data) > MAX_SECRET_BYTES or b"\0" in data:
        raise StartFailed(f"secret {name} is no text of at most {MAX_SECRET_BYTES} bytes")
    return data.decode("utf-8", errors="strict").removesuffix("\n")
