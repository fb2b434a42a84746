"""One child process and everything below it: starting, listening to its lines, watching its memory, ending all of it.

It decides nothing about requests or restarts. Used by `hosts/fal_app.py`. The child leads a session of its own, so one
signal reaches the whole process group; the shim dies with its parent and when the control socket ends.
"""

import asyncio
import contextlib
import dataclasses
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence

from forestay.worker.hosts.host import Exit

LINES_PER_SECOND = 10_000  # beyond it the pipe is left full, so the child waits: no flood reaches the worker
MAX_LINE_BYTES = 65_536
MAX_CONTROL_LINE_BYTES = 8 * 1024 * 1024  # the ready message carries an openapi document
MEMORY_SECONDS = 0.25
MAX_SEEN = 70_000  # processes looked at; more than a spec may allow
KILL_ROUNDS = 20
LAST_WORDS_SECONDS = 0.1  # what the process wrote last may be read only after its end is known
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

OnLine = Callable[[bytes], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Launch:
    """How to start a child."""

    command: Sequence[str]
    cwd: pathlib.Path
    environment: Mapping[str, str]
    uid: int | None  # None: our own
    memory_bytes: int
    processes: int = 1024
    prefix: Callable[[int, int], list[str]] | None = None  # confines it; without one the child only changes its user


class Child:
    """A started process; `exit` is set once it has ended."""

    def __init__(
        self, launch: Launch, on_control: OnLine, on_output: Callable[[str, bytes], None], on_end: Callable[[], None]
    ) -> None:
        self._launch = launch
        self._on_control = on_control
        self._on_output = on_output
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[int] = self._loop.create_future()
        self._process: subprocess.Popen[bytes] | None = None
        self._transports: list[asyncio.BaseTransport] = []
        self._control: asyncio.Transport | None = None
        self._over_memory = False
        self._over_processes = False

    @property
    def pid(self) -> int:
        """The process id, which is also the id of its group and session."""
        return self._process.pid if self._process else 0

    @property
    def alive(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._process is not None and not self._ended.done()

    async def start(self) -> None:
        """Start it. Must run on the main thread: the kernel ties pdeathsig to the thread that forks."""
        ours, theirs = socket.socketpair()
        with theirs:
            prefix = self._launch.prefix(theirs.fileno(), os.getpid()) if self._launch.prefix else []
            user = None if prefix else self._launch.uid
            self._process = subprocess.Popen(  # noqa: ASYNC220 - a fork of milliseconds; a helper thread would end too soon
                [*prefix, *self._launch.command, "--control-fd", str(theirs.fileno()), "--parent", str(os.getpid())],
                cwd=self._launch.cwd,
                env=dict(self._launch.environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                user=user,
                group=user,
                extra_groups=None if user is None else [],
                umask=0o077,
            )
        threading.Thread(target=self._wait, args=(self._process,), daemon=True, name=f"wait-{self.pid}").start()
        ours.setblocking(False)  # noqa: FBT003 - the standard library's own signature
        transport, _ = await self._loop.create_unix_connection(
            lambda: _Lines(self._on_control, MAX_CONTROL_LINE_BYTES), sock=ours
        )
        self._control = transport
        self._transports.append(transport)
        for name, pipe in (("STDOUT", self._process.stdout), ("STDERR", self._process.stderr)):
            read, _ = await self._loop.connect_read_pipe(
                lambda name=name: _Lines(self._raw(name), MAX_LINE_BYTES), pipe
            )
            self._transports.append(read)
        self._watch()

    async def exited(self) -> Exit:
        """Return once it has ended."""
        code = await asyncio.shield(self._ended)
        return Exit(code, self._over_memory, self._over_processes)

    def tell(self, line: bytes) -> None:
        """Send one line over the control socket; one that has ended hears nothing."""
        if self._control is not None and not self._control.is_closing():
            self._control.write(line + b"\n")

    def processes(self) -> list[int]:
        """Return the ids of its processes."""
        return processes_of(self.pid, self._launch.uid if self._launch.prefix else None)

    def signal(self, number: int) -> None:
        """Send a signal to the leader only."""
        if self.alive:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the whole group, and whatever else is left of its session."""
        if self._process is None:
            return
        for group in {self.pid, *_groups_of_session(self.pid)}:
            try:
                os.killpg(group, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue  # nothing of that group is left
        self._kill_user()

    def _kill_user(self) -> None:
        """Kill what has left the session: with a user of its own, nothing of a model can hide."""
        if self._launch.uid is None or not self._launch.prefix:
            return
        for _ in range(KILL_ROUNDS):  # what forks while it is killed is found by the next round
            pids = _pids_of_user(self._launch.uid)
            for pid in pids:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            if not pids:
                return

    def close(self) -> None:
        """Stop listening."""
        for transport in self._transports:
            transport.close()
        self._transports.clear()

    def _raw(self, name: str) -> OnLine:
        return lambda line: self._on_output(name, line)

    def _wait(self, process: "subprocess.Popen[bytes]") -> None:
        code = process.wait()
        try:
            self._loop.call_soon_threadsafe(self._note_end, code)
        except RuntimeError:  # the loop is closed: the worker itself has ended
            return

    def _note_end(self, code: int) -> None:
        if not self._ended.done():
            self._ended.set_result(code)
            self._loop.call_later(LAST_WORDS_SECONDS, self._on_end)
        self.kill()  # what the leader left behind must not outlive it

    def _watch(self) -> None:
        """Look at memory and number of processes, more often when the limit is near."""
        if not self.alive or not sys.platform.startswith("linux"):
            return
        limit = self._launch.memory_bytes
        pids = self.processes()
        used = memory_bytes_of(pids, limit) if limit else 0
        self._over_memory = bool(limit) and used > limit
        self._over_processes = len(pids) > self._launch.processes
        if self._over_memory or self._over_processes:
            self.kill()
            return
        near = (limit and used > 0.6 * limit) or len(pids) > 0.6 * self._launch.processes
        self._loop.call_later(MEMORY_SECONDS / 5 if near else MEMORY_SECONDS, self._watch)


class _Lines(asyncio.Protocol):
    """Cuts a byte stream into bounded lines and holds the writer back when they come too fast."""

    def __init__(self, on_line: OnLine, max_line_bytes: int) -> None:
        self._on_line = on_line
        self._max = max_line_bytes
        self._buffer = bytearray()
        self._transport: asyncio.ReadTransport | None = None
        self._loop = asyncio.get_running_loop()
        self._window_ends = 0.0
        self._lines = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.ReadTransport):
            self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        *lines, rest = self._buffer.split(b"\n")
        if len(rest) > self._max:
            lines, rest = [*lines, rest[: self._max]], bytearray()
        self._buffer = bytearray(rest)
        for line in lines:
            self._on_line(bytes(line[: self._max]))
        self._hold_back(len(lines))

    def eof_received(self) -> bool:
        if self._buffer:
            self._on_line(bytes(self._buffer))
            self._buffer.clear()
        return False

    def _hold_back(self, lines: int) -> None:
        now = self._loop.time()
        if now > self._window_ends:
            self._window_ends, self._lines = now + 1.0, 0
        self._lines += lines
        if self._lines > LINES_PER_SECOND and self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
            self._loop.call_later(max(0.0, self._window_ends - now), self._resume)

    def _resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()


def processes_of(leader: int, uid: int | None) -> list[int]:
    """Return the leader, its descendants, and everything else of its own user, if it has one."""
    found = _descendants(leader)
    return found if uid is None else sorted({*found, *_pids_of_user(uid)})


def memory_bytes_of(pids: Sequence[int], limit_bytes: int) -> int:
    """Return what processes hold together. Shared pages count once where the sum matters.

    RSS first, since it costs microseconds; only when the sum of several exceeds the limit is PSS read.
    """
    total = sum(_rss_bytes(pid) for pid in pids)
    return sum(_pss_bytes(pid) for pid in pids) if total > limit_bytes and len(pids) > 1 else total


def _pids_of_user(uid: int) -> list[int]:
    found: list[int] = []
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdigit():
                with contextlib.suppress(OSError):  # ended meanwhile
                    if entry.stat().st_uid == uid and not _is_zombie(entry.name):
                        found.append(int(entry.name))
    return found


def _is_zombie(pid: str) -> bool:
    fields = _read(pathlib.Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return not fields or fields[0] in {"Z", "X"}


def _descendants(leader: int) -> list[int]:
    found = [leader]
    for pid in found:  # grows while it is walked
        for task in _tasks(pid):
            children = _read(pathlib.Path(f"/proc/{pid}/task/{task}/children")).split()
            found.extend(int(child) for child in children if len(found) < MAX_SEEN)
    return found


def _tasks(pid: int) -> list[str]:
    """Return the threads of a process; none when it ended meanwhile, also between the opening and the reading."""
    try:
        return os.listdir(f"/proc/{pid}/task")  # noqa: PTH208 - pathlib's glob lets the end of a process through
    except OSError:
        return []


def _rss_bytes(pid: int) -> int:
    fields = _read(pathlib.Path(f"/proc/{pid}/statm")).split()
    return int(fields[1]) * _PAGE_BYTES if len(fields) > 1 else 0


def _pss_bytes(pid: int) -> int:
    for line in _read(pathlib.Path(f"/proc/{pid}/smaps_rollup")).splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _groups_of_session(session: int) -> set[int]:
    groups: set[int] = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208 - as above
        fields = _read(pathlib.Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()  # name: state, parent, group, ...
        if len(fields) > 3 and int(fields[3]) == session:
            groups.add(int(fields[2]))
    return groups


def _read(path: pathlib.Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""  # ended meanwhile
