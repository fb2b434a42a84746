"""Takes from a decoding child everything that it does not need, before it sees the file.

Limits on memory, processor time, output, open files and processes; a user of its own (when we are root); no network (a
namespace of its own when we are root, and the filter of system calls everywhere it is known); no way to open files or
start programs. What could not be taken is told at the start, so that `decode` can log it. Called by `zygote`.
"""

import contextlib
import ctypes
import dataclasses
import os
import pathlib
import resource
import signal
import sys

from forestay.media.limits import DecodeLimits
from forestay.media.opening import seccomp

FIRST_UID, UIDS = 1_100_000, 10_000  # above the users of models; one file, one user, in turn
_NEW_NETWORK, _NEW_IPC = 0x40000000, 0x08000000  # linux/sched.h
_SET_DEATH_SIGNAL = 1  # linux/prctl.h
_OPEN_FILES = 16
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_libc = ctypes.CDLL(None, use_errno=True)  # loaded here, since a child is forked for every file


@dataclasses.dataclass(frozen=True, slots=True)
class Isolation:
    """What this machine lets us take from a child."""

    network: bool  # has a network namespace of its own, with nothing in it
    user: bool  # each file is opened under another user
    calls: bool  # system calls are filtered
    memory: bool  # the limit of memory is enforced
    mapped_bytes: int = 0  # what every child has mapped before it begins

    def hold(self, limits: DecodeLimits, file_bytes: int = 0) -> None:
        """Limit the memory of this process to what it began with, the file while it is mapped, and the limit."""
        if self.memory:
            most = self.mapped_bytes + file_bytes + limits.memory_bytes
            resource.setrlimit(resource.RLIMIT_AS, (most, most))


def prepare() -> Isolation:
    """Leave the network behind and be first when memory ends, for this process and all it forks."""
    root = os.geteuid() == 0
    if sys.platform != "linux":
        return Isolation(network=False, user=root, calls=False, memory=False)
    with contextlib.suppress(OSError):  # some containers forbid it; the limit of memory still stands
        pathlib.Path("/proc/self/oom_score_adj").write_text("1000")
    alone = root and _libc.unshare(_NEW_NETWORK | _NEW_IPC) == 0
    mapped = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * _PAGE_BYTES
    return Isolation(network=alone, user=root, calls=seccomp.available(), memory=True, mapped_bytes=mapped)


def enter(number: int, file_bytes: int, limits: DecodeLimits, isolation: Isolation) -> None:
    """Give everything up, in the forked child; OSError leaves it unopened."""
    isolation.hold(limits, file_bytes)
    _set_limits(limits)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, limits.wall_seconds)  # the kernel ends us; the parent watches too
    if isolation.user:
        uid = FIRST_UID + number % UIDS
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    if sys.platform == "linux":
        _libc.prctl(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)  # after the change of user, which clears it
    if isolation.calls and not seccomp.enter(_libc):
        raise OSError("the filter of system calls was refused")


def _set_limits(limits: DecodeLimits) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_seconds, limits.cpu_seconds + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits.max_output_bytes, limits.max_output_bytes))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, _OPEN_FILES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
