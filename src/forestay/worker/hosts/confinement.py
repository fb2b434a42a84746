"""What a model's process is kept from on this machine: its user, network, files, and limits. Pure, but for the probe.

It decides, from what the machine allows and what the spec and the operator ask, how the process is confined, or that it
must not start: a network that cannot be withheld is refused, never silently given, unless the operator waives it
(`FORESTAY_ALLOW_UNISOLATED`). `confine` carries it out. Called by `hosts/fal_app.py` at each start.
"""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import zlib
from collections.abc import Callable, Sequence

from forestay.fleet.spec import ModelSpec

PROGRAM = pathlib.Path(__file__).with_name("confine.py")
PROBE_SECONDS = 20.0
FIRST_UID, UIDS = 2_000_000, 1_000_000_000  # above all users of a machine; two replicas hardly ever share one
OPEN_FILES = 65_536
FILE_BYTES = 64 * 1024**3
NICE = 5  # the platform's own processes go first
SCRATCH = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - covered, not used
SCRATCH_BYTES = 64 * 1024 * 1024  # of /tmp; the model's own TMPDIR lies on disk
DATA_SLACK_BYTES = 2 * 1024**3


@dataclasses.dataclass(frozen=True, slots=True)
class Machine:
    """What this machine allows a worker to do to its children."""

    linux: bool
    root: bool
    network: bool  # a network of their own
    mounts: bool  # a view of the files, and a user, of their own


@dataclasses.dataclass(frozen=True, slots=True)
class Places:
    """Folders and files around one replica."""

    needed: tuple[pathlib.Path, ...]  # interpreter, bundle, environment: read only
    own: tuple[pathlib.Path, ...]  # the replica's own folder, data mounts: as their permissions say
    hidden: tuple[pathlib.Path, ...]  # other models' files, secrets, sockets
    private: tuple[pathlib.Path, ...] = ()  # folders on the way to a needed one that other users may not enter
    scratch: tuple[pathlib.Path, ...] = ()  # where everyone may write: each model gets its own


@dataclasses.dataclass(frozen=True, slots=True)
class Confinement:
    """How the process is confined; `reason` says it in words."""

    uid: int | None
    user_namespace: bool
    network: str  # what it gets: none | loopback | full
    mounts: bool
    hide: tuple[tuple[str, int, int], ...]
    show: tuple[tuple[str, bool], ...]
    limits: tuple[tuple[str, int], ...]
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Unconfinable:
    """The process must not start here; `reason` says why, and what to do."""

    reason: str


def decide_confinement(
    machine: Machine, spec: ModelSpec, replica: str, places: Places, *, allow_unisolated: bool
) -> Confinement | Unconfinable:
    """Return how to confine a model here, or why it must not start."""
    asked = spec.host.network
    if asked != "full" and not machine.network and not allow_unisolated:
        return Unconfinable(
            f"host.network is {asked}, and {shortfall(machine)}; "
            "say host.network: full in the spec, or set FORESTAY_ALLOW_UNISOLATED=true"
        )
    network = asked if machine.network else "full"
    uid = uid_of(replica) if machine.root else None
    mounts = machine.mounts
    hide, show = _view(places, spec) if mounts else ((), ())
    words = [f"user {uid}" if uid is not None else "the worker's user, which is no security boundary"]
    words.append(f"network {network}" if network == asked else f"network full, not {asked}: waived by the operator")
    words.append("files: its own and the system's" if mounts else "files: whatever its user may read")
    return Confinement(
        uid=uid,
        user_namespace=network != "full" and not machine.root,
        network=network,
        mounts=mounts,
        hide=hide,
        show=show,
        limits=_limits(spec, own_user=uid is not None),
        reason="; ".join(words),
    )


def uid_of(replica: str) -> int:
    """Return the user of a replica; of its own, so that its limits are its own and nothing of it can hide."""
    return FIRST_UID + zlib.crc32(replica.encode()) % UIDS


def shortfall(machine: Machine) -> str:
    """Say what a model that asks for no network cannot be kept from here; empty when nothing has to be waived."""
    if not machine.network:
        return f"this machine cannot keep a process from the network ({_why_not(machine)})"
    if machine.root and not machine.mounts:
        return "this machine cannot give a process a user and a view of the files of its own (the container forbids it)"
    return ""


def _why_not(machine: Machine) -> str:
    if not machine.linux:
        return "only Linux has network namespaces"
    if machine.root:
        return "the container lacks CAP_SYS_ADMIN"
    return "neither root nor unprivileged user namespaces"


def _limits(spec: ModelSpec, *, own_user: bool) -> tuple[tuple[str, int], ...]:
    """Address space is not limited: torch and CUDA reserve far more of it than they use."""
    found = [("core", 0), ("files", OPEN_FILES), ("file_bytes", FILE_BYTES)]
    if own_user:  # the kernel counts a user's processes and threads, not a process's children
        found.append(("processes", spec.resources.processes))
    if spec.resources.pool.startswith("cpu"):  # behind the memory watch, for what allocates faster than it looks
        found.append(("data_bytes", 2 * spec.resources.memory_mb * 1024 * 1024 + DATA_SLACK_BYTES))
    return tuple(found)


def _view(places: Places, spec: ModelSpec) -> tuple[tuple[tuple[str, int, int], ...], tuple[tuple[str, bool], ...]]:
    """Return the folders to cover and the paths to show again inside them, outer ones first."""
    covers: dict[str, tuple[str, int, int]] = {}
    folders = {*places.scratch, *places.hidden, *places.private}
    for folder in sorted(folders, key=lambda path: len(path.parts)):
        if not any(folder.is_relative_to(cover) for cover in covers):
            mode = 0o1777 if folder in places.scratch else 0o755
            shared = folder.name == "shm"  # what processes share in memory counts towards the model's own
            size = spec.resources.memory_mb * 1024 * 1024 if shared else SCRATCH_BYTES
            covers[str(folder)] = (str(folder), mode, size)
    shown: dict[str, bool] = {}
    for path, writable in [*((item, False) for item in places.needed), *((item, True) for item in places.own)]:
        if any(path.is_relative_to(cover) for cover in covers):
            shown[str(path)] = writable
    ordered = sorted(shown.items(), key=lambda item: item[0].count("/"))
    return tuple(covers.values()), tuple(ordered)


def private_ancestors(paths: Sequence[pathlib.Path]) -> tuple[pathlib.Path, ...]:
    """Return the outermost folder above each path that other users may not enter (a home of root, say)."""
    found: set[pathlib.Path] = set()
    for path in paths:
        for parent in reversed(path.parents):
            if not parent.stat().st_mode & 0o001:
                found.add(parent)
                break
    return tuple(sorted(found))


def interpreter_folders(python: str) -> tuple[pathlib.Path, ...]:
    """Return the folders that an interpreter needs: its own, and that of each interpreter which it is a link to."""
    found: list[pathlib.Path] = []
    path = pathlib.Path(python)
    for _ in range(16):
        found.append(path.parent.parent)
        if not path.is_symlink():
            break
        path = path.parent / path.readlink()
    return tuple(dict.fromkeys(pathlib.Path(os.path.normpath(folder)) for folder in found))


def probe_machine() -> Machine:
    """Ask the machine, by trying; blocks for some milliseconds."""
    if not sys.platform.startswith("linux"):
        return Machine(linux=False, root=os.geteuid() == 0, network=False, mounts=False)
    command = [sys.executable, "-I", "-S", str(PROGRAM), "--probe", str(FIRST_UID + UIDS - 1)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=PROBE_SECONDS, check=True, env={})
    except (OSError, subprocess.SubprocessError):  # what cannot be tried cannot be relied upon
        return Machine(linux=True, root=os.geteuid() == 0, network=False, mounts=False)
    return Machine(**json.loads(done.stdout))


def launcher(confinement: Confinement, cwd: pathlib.Path, cpus: Sequence[int]) -> Callable[[int, int], list[str]]:
    """Return what makes the command in front of the model's own, from the control fd and the parent's process id."""

    def prefix(control_fd: int, parent: int) -> list[str]:
        plan = {
            "parent": parent,
            "control_fd": control_fd,
            "cwd": str(cwd),
            "uid": confinement.uid,
            "user_namespace": confinement.user_namespace,
            "network": confinement.network,
            "mounts": confinement.mounts,
            "hide": confinement.hide,
            "show": confinement.show,
            "limits": dict(confinement.limits),
            "nice": NICE,
            "cpus": list(cpus),
        }
        return [sys.executable, "-I", "-S", str(PROGRAM), json.dumps(plan)]

    return prefix


def choose_cpus(wanted: int, available: Sequence[int], uid: int) -> tuple[int, ...]:
    """Return the cores of a model that may use `wanted` of them; empty for all. Neighbours begin at different ones."""
    if not 0 < wanted < len(available):
        return ()
    ordered = sorted(available)
    start = uid % len(ordered)
    return tuple(sorted((ordered + ordered)[start : start + wanted]))
