"""Files of weights inside installed packages: found without running the package, and believed only by their digest.

Called by the detectors of this folder.
"""

import hashlib
import importlib.util
import pathlib

from forestay.errors import Refused, Unavailable

_PIECE_BYTES = 1024 * 1024


def weights_in(package: str, name: str, sha256: str, extra: str = "safety") -> pathlib.Path:
    """Return the path of a package's file; Unavailable without the package, Refused for a file of another digest."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise Unavailable(f"the package {package} is not installed; install forestay[{extra}]")
    path = pathlib.Path(found.origin).parent / name
    if not path.is_file() or digest_of(path) != sha256:
        raise Refused(f"{name} of the package {package} is not the file that is expected here; reinstall it")
    return path


def digest_of(path: pathlib.Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()
