"""Leaves everything behind that a model's process shall not have, and becomes the model's process.

    python -I -S confine.py PLAN command...      PLAN is one JSON object, see `Plan`
    python -I -S confine.py --probe UID          prints what this machine allows, as JSON

A program of the standard library alone, started by the worker with the worker's own interpreter, so that no file of the
model's decides what happens here. It decides nothing: `confinement` does. In order: die with the worker;
namespaces of network and mounts; limits; another user; no way to gain rights; then the command. Linux only.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import pathlib
import resource
import signal
import socket
import struct
import sys
import typing

NEW_MOUNTS, NEW_NETWORK, NEW_USER = 0x00020000, 0x40000000, 0x10000000  # linux/sched.h
READ_ONLY, NO_SUID, NO_DEVICES, REMOUNT, BIND, RECURSIVE, PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18  # sys/mount.h
PARENT_DEATH_SIGNAL, DROP_FROM_BOUNDING_SET, NO_NEW_PRIVILEGES = 1, 24, 38  # linux/prctl.h
GET_FLAGS, SET_FLAGS, UP = 0x8913, 0x8914, 1  # linux/sockios.h
LIMITS = {
    "core": resource.RLIMIT_CORE,
    "files": resource.RLIMIT_NOFILE,
    "file_bytes": resource.RLIMIT_FSIZE,
    "data_bytes": resource.RLIMIT_DATA,
    "processes": resource.RLIMIT_NPROC if sys.platform.startswith("linux") else resource.RLIMIT_CORE,
}


class Plan(typing.TypedDict):
    """What to leave behind."""

    parent: int  # process id of the worker
    control_fd: int  # where a failure is told
    cwd: str
    uid: int | None  # None: keep ours
    user_namespace: bool  # needed for a network of its own without root
    network: str  # none | loopback | full
    mounts: bool  # a view of the files of its own
    hide: list[list[typing.Any]]  # [folder, mode, size in bytes]: covered by an empty one
    show: list[list[typing.Any]]  # [path, writable]: shown inside what is hidden
    limits: dict[str, int]
    nice: int
    cpus: list[int]  # empty: all


class Failed(Exception):
    """A step could not be done; the message says which."""


def main(argv: list[str]) -> int:
    """Do what the plan says and run the command; returns only when something fails."""
    if argv[0] == "--probe":
        print(json.dumps(probe(int(argv[1]))), flush=True)  # noqa: T201 - its answer
        return 0
    plan = typing.cast("Plan", json.loads(argv[0]))
    try:
        confine(plan)
        os.chdir(plan["cwd"])
        os.execve(argv[1], argv[1:], os.environ)  # noqa: S606, TID251 - a program of its own: no shell, and the model's environment
    except (Failed, OSError, ValueError) as error:
        tell_failure(plan["control_fd"], f"the model's process could not be confined: {error}")
    return 1


def confine(plan: Plan) -> None:
    """Leave everything behind, in the one order in which each step is still allowed."""
    die_with(plan["parent"])
    enter_namespaces(plan)
    if plan["mounts"]:
        arrange_files(plan)
    if plan["network"] == "loopback":
        raise_loopback()
    take_limits(plan)
    drop_bounding_set()
    become(plan["uid"])
    if libc().prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        raise Failed("it may still gain rights (prctl)")


def die_with(parent: int) -> None:
    """Ask for a death signal at the worker's end; the model's shim asks again, since a change of user clears it."""
    libc().prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def enter_namespaces(plan: Plan) -> None:
    """Take a network, and a view of the files, of its own."""
    flags = NEW_MOUNTS if plan["mounts"] else 0
    flags |= NEW_NETWORK if plan["network"] != "full" else 0
    flags |= NEW_USER if plan["user_namespace"] else 0
    if not flags:
        return
    uid, gid = os.geteuid(), os.getegid()
    check(libc().unshare(flags), "namespaces")
    if plan["user_namespace"]:
        pathlib.Path("/proc/self/setgroups").write_text("deny")
        pathlib.Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        pathlib.Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


def arrange_files(plan: Plan) -> None:
    """Cover what is not the model's business, show inside it what is, and hide other processes."""
    before = os.umask(0o022)  # the way to what is shown must be open to the model's user
    mount("none", "/", "", RECURSIVE | PRIVATE, "")
    opened = [(os.open(path, os.O_PATH), path, writable) for path, writable in plan["show"]]
    for folder, mode, size in plan["hide"]:
        mount("tmpfs", folder, "tmpfs", NO_SUID | NO_DEVICES, f"mode={mode:o},size={size}")
    for descriptor, path, writable in opened:
        show(descriptor, path, writable=writable)
    for folder, mode, size in plan["hide"]:
        if mode == 0o755:  # nothing but what is shown: the cover itself is no place to write
            mount("none", folder, "", REMOUNT | READ_ONLY | NO_SUID | NO_DEVICES, f"mode={mode:o},size={size}")
    mount("proc", "/proc", "proc", NO_SUID | NO_DEVICES, "hidepid=2")
    os.umask(before)


def show(descriptor: int, path: str, *, writable: bool) -> None:
    """Bind what was opened before its folder was covered to the place where it was."""
    source = f"/proc/self/fd/{descriptor}"
    if os.path.isdir(source):  # noqa: PTH112 - a magic link: pathlib would resolve it
        pathlib.Path(path).mkdir(mode=0o755, parents=True, exist_ok=True)
    else:
        pathlib.Path(path).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        pathlib.Path(path).touch()
    mount(source, path, "", BIND | RECURSIVE, "")
    if not writable:
        mount("none", path, "", BIND | REMOUNT | READ_ONLY | NO_SUID | NO_DEVICES, "")
    os.close(descriptor)


def raise_loopback() -> None:
    """Set the loopback device of the new network up: nothing but this model is on it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        request = struct.pack("16sh22x", b"lo", 0)
        (flags,) = struct.unpack_from("h", fcntl.ioctl(handle, GET_FLAGS, request), 16)
        fcntl.ioctl(handle, SET_FLAGS, struct.pack("16sh22x", b"lo", flags | UP))


def take_limits(plan: Plan) -> None:
    """Take the limits, never above those in force."""
    for name, value in plan["limits"].items():
        _, hard = resource.getrlimit(LIMITS[name])
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(LIMITS[name], (most, most))
    if plan["nice"]:
        os.nice(plan["nice"])
    if plan["cpus"]:
        os.sched_setaffinity(0, plan["cpus"])


def drop_bounding_set() -> None:
    """Make every capability unreachable, for a root that stays root as well."""
    for capability in range(64):
        if libc().prctl(DROP_FROM_BOUNDING_SET, capability, 0, 0, 0) and ctypes.get_errno() == errno.EPERM:
            return  # without the right to drop there is nothing to drop


def become(uid: int | None) -> None:
    """Become another user for good, without groups."""
    if uid is None:
        return
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def probe(uid: int) -> dict[str, object]:
    """Try in children of this process what the machine allows; `uid` is the highest that a model may get."""
    root = os.geteuid() == 0
    return {
        "linux": sys.platform.startswith("linux"),
        "root": root,
        "network": allowed(NEW_NETWORK | (0 if root else NEW_USER)),
        "mounts": root and allowed(NEW_MOUNTS, lambda: try_view(uid)),
    }


def allowed(flags: int, then: typing.Callable[[], None] | None = None) -> bool:
    """Tell whether a child may enter these namespaces."""
    if not sys.platform.startswith("linux"):
        return False
    child = os.fork()
    if child == 0:
        try:
            check(libc().unshare(flags), "namespaces")
            if then is not None:
                then()
        except (Failed, OSError):
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def try_view(uid: int) -> None:
    """Mount what `arrange_files` mounts, and become a user, whom a container may lack (few users mapped)."""
    mount("none", "/", "", RECURSIVE | PRIVATE, "")
    mount("tmpfs", "/tmp", "tmpfs", NO_SUID | NO_DEVICES, "mode=0755,size=4096")  # noqa: S108 - in a view of its own
    mount("proc", "/proc", "proc", NO_SUID | NO_DEVICES, "hidepid=2")
    become(uid)


def mount(source: str, target: str, kind: str, flags: int, options: str) -> None:
    """Mount, as the system call of that name does."""
    words = (source.encode(), target.encode(), kind.encode() or None)
    check(libc().mount(*words, ctypes.c_ulong(flags), options.encode() or None), f"mount on {target}")


def check(result: int, what: str) -> None:
    """Raise with the system's own words."""
    if result != 0:
        raise Failed(f"{what}: {os.strerror(ctypes.get_errno())}")


_LIBC: list[typing.Any] = []


def libc() -> typing.Any:
    """Return the C library, loaded once."""
    if not _LIBC:
        _LIBC.append(ctypes.CDLL(None, use_errno=True))
    return _LIBC[0]


def tell_failure(control_fd: int, reason: str) -> None:
    """Say on the control socket why there will be no model."""
    with socket.socket(fileno=os.dup(control_fd)) as control:
        control.sendall(json.dumps({"event": "failed", "reason": reason}).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
