"""What a process of ours asks of the operating system: to die with its supervisor, privacy, signals, listening sockets.

It decides nothing about what the process does. A supervised child holds one end of a socket pair: it says "ready" into
it, and its end of file means that the supervisor is gone, on every system and however it died. Called by the wiring of
each process kind and by the supervisor.
"""

import asyncio
import contextlib
import ctypes
import dataclasses
import gc
import json
import os
import pathlib
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from typing import cast

from forestay.errors import Refused, UsageError

SUPERVISOR_FD = "FORESTAY_SUPERVISOR_FD"  # set by the supervisor for its children, never by a person
LISTEN_FDS = "FORESTAY_LISTEN_FDS"  # "http=7,tls=8": sockets that the supervisor bound
EXIT_ORPHANED = 3
BACKLOG = 1024
_PR_SET_DUMPABLE = 4


class SupervisorLink:
    """The child's end of the line to its supervisor; a process started alone has none and says nothing."""

    def __init__(self, line: socket.socket | None) -> None:
        self._line = line

    def ready(self, facts: Mapping[str, object]) -> None:
        """Say that this process serves, with what the supervisor should know of it (addresses)."""
        if self._line is not None:
            with contextlib.suppress(OSError):  # the supervisor is gone; the watching thread ends us
                self._line.sendall(json.dumps({"ready": dict(facts)}).encode() + b"\n")


def attach_supervisor(environment: Mapping[str, str]) -> SupervisorLink:
    """Take up the line to the supervisor, if there is one, and end this process at once when it breaks."""
    number = environment.get(SUPERVISOR_FD, "")
    if not number:
        return SupervisorLink(None)
    line = socket.socket(fileno=int(number))
    line.set_inheritable(False)
    threading.Thread(target=_end_with, args=(line,), name="forestay-supervisor-watch", daemon=True).start()
    return SupervisorLink(line)


def _end_with(line: socket.socket) -> None:
    with contextlib.suppress(OSError):  # a reset says the same as an end of file
        while line.recv(64):
            pass
    os._exit(EXIT_ORPHANED)


def keep_memory_private() -> bool:
    """Forbid other processes of our user to read our memory and environment; False where the system cannot."""
    if sys.platform != "linux":
        return False
    return ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0


def calm_collector() -> None:
    """Keep what start-up made out of the cyclic collector's sight, and let it look less often.

    A gateway or worker makes few cycles; looking through everything that it imported takes tens of milliseconds every
    few thousand calls, which was its slowest percentile.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def stop_on_signals(loop: asyncio.AbstractEventLoop) -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set; a second signal ends the process at once with status 130."""
    stop = asyncio.Event()

    def heard() -> None:
        if stop.is_set():
            os._exit(130)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, heard)
    return stop


SPREADS = sys.platform.startswith("linux")  # elsewhere SO_REUSEPORT does not share connections out


def bind(host: str, port: int, *, what: str, spread: bool = False) -> socket.socket:
    """Bind and listen; a port in use raises UsageError naming the setting to change (`what`).

    With `spread` several sockets may listen on one port, and the kernel shares new connections out among them.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if spread and SPREADS:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise UsageError(
            what, f"cannot listen on {host}:{port}: {reason}; choose another, or 0 for a free one"
        ) from None
    listener.listen(BACKLOG)
    listener.settimeout(0)
    return listener


def inherited_listeners(environment: Mapping[str, str]) -> dict[str, socket.socket]:
    """Return the listening sockets that the supervisor bound for us, by name; empty for a process started alone."""
    found: dict[str, socket.socket] = {}
    for item in filter(None, environment.get(LISTEN_FDS, "").split(",")):
        name, _, number = item.partition("=")
        listener = socket.socket(fileno=int(number))
        listener.set_inheritable(False)
        listener.settimeout(0)
        found[name] = listener
    return found


def address_of(listener: socket.socket) -> str:
    """Return `host:port` of a listening socket, with brackets around an IPv6 address."""
    host, port = cast("tuple[str, int]", listener.getsockname()[:2])
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclasses.dataclass(frozen=True, slots=True)
class FolderLock:
    """A folder held by this process until it ends."""

    release: Callable[[], None]


def holder_of(folder: pathlib.Path) -> int:
    """Return the process that has `folder`, 0 when nobody does, -1 when it is not known which."""
    import fcntl  # noqa: PLC0415 - absent where `up` is not supported

    try:
        descriptor = os.open(folder / "lock", os.O_RDONLY)
    except FileNotFoundError:
        return 0
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        said = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        return int(said) if said.isdigit() else -1
    finally:
        os.close(descriptor)
    return 0


def lock_folder(folder: pathlib.Path) -> FolderLock:
    """Take `folder` for this process alone; Refused names the process that has it."""
    import fcntl  # noqa: PLC0415 - absent where `up` is not supported

    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        message = f"{folder} is in use by process {holder}; stop it (kill {holder}) or choose another --data-dir"
        raise Refused(message) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return FolderLock(lambda: os.close(descriptor))
