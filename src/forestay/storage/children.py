"""Child processes that die with their parent.

On Linux a child asks the kernel for a signal at its parent's death (PR_SET_PDEATHSIG). Two traps decide the shape of
this file: the kernel means the *thread* that forked, so every child starts from one thread that lives as long as the
process; and a change of uid clears the request, so it is made after it. Elsewhere a parent killed with -9 leaves its
children; the next start finds and ends them. The embedded servers and the supervisor call it.
"""

import ctypes
import hashlib
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from forestay.clock import SystemClock
from forestay.errors import Refused

_PR_SET_PDEATHSIG = 1
_EXIT_ORPHANED = 3
_LONGEST_SOCKET_FOLDER = 85  # bytes; the name of the socket follows
_forker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="forestay-forker")
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def start_child(  # noqa: PLR0913 - one child, said by name
    command: Sequence[str | Path],
    *,
    cwd: Path,
    environment: Mapping[str, str],
    uid: int | None,
    output: IO[bytes],
    death_signal: signal.Signals,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start `command` in its own session; it receives `death_signal` when this process dies.

    `uid` drops to that user and group, without supplementary groups; None keeps ours. The child inherits standard
    output and error, both into `output`, and the descriptors in `pass_fds`.
    """

    def start() -> subprocess.Popen[bytes]:
        # S606/PLW1509: the function run between fork and exec calls prctl and getppid only, both prepared before.
        return subprocess.Popen(
            [str(part) for part in command],
            cwd=cwd,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            user=uid,
            group=uid,
            extra_groups=None if uid is None else [],
            start_new_session=True,
            pass_fds=tuple(pass_fds),
            preexec_fn=_die_with_parent(os.getpid(), death_signal),  # noqa: PLW1509 - see above
        )

    return _forker.submit(start).result(timeout=30)


def _die_with_parent(parent_pid: int, death_signal: signal.Signals) -> Callable[[], None] | None:
    libc = _libc
    if libc is None:
        return None
    prctl: Callable[[int, int], int] = libc.prctl

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, int(death_signal))
        if os.getppid() != parent_pid:  # the parent died before we could ask
            os._exit(_EXIT_ORPHANED)

    return ask


def wait_until(condition: Callable[[], bool], timeout_seconds: float, every_seconds: float = 0.02) -> bool:
    """Block until `condition` holds; False when the time is over first. For threads and start-up code."""
    clock = SystemClock()
    deadline = clock.monotonic() + timeout_seconds
    while not condition():
        if clock.monotonic() >= deadline:
            return False
        clock.block(every_seconds)
    return True


def is_alive(pid: int) -> bool:
    """Tell whether a process with this id runs; a zombie does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return sys.platform != "linux"


def short_socket_folder(folder: Path, uid: int | None) -> Path:
    """Make `folder` for unix sockets, or a private short one in its stead when its path is too long for a socket.

    The kernel allows about 107 bytes for a socket's path; the substitute's name derives from the folder, so that it is
    the same at every start.
    """
    if len(os.fsencode(folder)) > _LONGEST_SOCKET_FOLDER:
        digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
        folder = Path(tempfile.gettempdir()) / f"forestay-{digest}"
    folder.mkdir(mode=0o700, exist_ok=True)
    owner = os.geteuid() if uid is None else uid
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid not in (owner, os.geteuid()):
        raise Refused(f"{folder} must be a folder of uid {owner}, it belongs to uid {facts.st_uid}; remove it")
    folder.chmod(0o700)
    os.chown(folder, owner, owner if uid is not None else -1)
    return folder
