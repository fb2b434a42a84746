"""Keeping processes alive: start, wait until ready, watch, restart with growing pauses, stop.

It decides when a dead process is started again (`decide_restart`) and when that is called a crash loop; it knows
nothing of what the processes do or in which order they belong together (`local_platform` does). Whatever happens is
told as an event. A child dies with this process: by the kernel's signal where there is one, and by the end of the
socket pair that both hold.
"""

import asyncio
import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, cast

from forestay.clock import Clock
from forestay.errors import Unavailable
from forestay.processes import LISTEN_FDS, SUPERVISOR_FD
from forestay.storage.children import start_child

_LOOK_SECONDS = 0.05
_START_SECONDS = 60.0
_MAX_READY_BYTES = 65_536


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """Something that an operator may want to know; `name` is stable, `text` is for people."""

    name: str
    text: str
    facts: Mapping[str, object] = dataclasses.field(default_factory=dict[str, object])


Tell = Callable[[Event], None]


@dataclasses.dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How patiently dead processes are started again; seconds."""

    first_seconds: float = 0.1
    cap_seconds: float = 15.0
    forgive_seconds: float = 10.0  # each such stretch of life makes up for one earlier failure
    healthy_seconds: float = 60.0  # a life this long makes up for all of them
    crash_loop: int = 5  # failures not made up for, from which it is called a crash loop


@dataclasses.dataclass(frozen=True, slots=True)
class Restart:
    """Start it again after `delay_seconds`; `failures` is what counts against it now."""

    delay_seconds: float
    failures: int
    crash_loop: bool


def decide_restart(failures: int, lived_seconds: float, policy: RestartPolicy) -> Restart:
    """Decide the pause after a death: doubles with each failure, shrinks with each stretch of health."""
    made_up = failures if lived_seconds >= policy.healthy_seconds else int(lived_seconds / policy.forgive_seconds)
    now = max(0, failures - made_up) + 1
    delay = min(policy.cap_seconds, policy.first_seconds * 2 ** min(now - 1, 30))
    return Restart(delay, now, crash_loop=now >= policy.crash_loop)


class Supervised(Protocol):
    """A process that can be started, watched and stopped."""

    @property
    def name(self) -> str:
        """Return its name in logs, files and events."""
        ...

    @property
    def pid(self) -> int | None:
        """Return the process id of its current life."""
        ...

    async def start(self) -> None:
        """Start and wait until it serves; raises Unavailable saying why it does not."""
        ...

    def alive(self) -> bool:
        """Tell whether its current life lasts."""
        ...

    def last_words(self) -> str:
        """Return how it ended, with the end of its log."""
        ...

    async def stop(self) -> None:
        """End it in good order, then by force; harmless when it does not run."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class ChildSpec:
    """One process of ours to run."""

    name: str
    arguments: tuple[str, ...]  # after `python -m forestay`
    environment: Mapping[str, str]
    log_file: pathlib.Path
    work_dir: pathlib.Path
    listeners: Mapping[str, int] = dataclasses.field(default_factory=dict[str, int])  # name -> descriptor to inherit
    stop_seconds: float = 20.0


class ChildProcess:
    """A process of ours: `python -m forestay ...` that says when it is ready."""

    def __init__(self, spec: ChildSpec, clock: Clock) -> None:
        self._spec = spec
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None
        self.facts: Mapping[str, object] = {}  # what it said when it became ready

    @property
    def name(self) -> str:
        """Return its name."""
        return self._spec.name

    @property
    def pid(self) -> int | None:
        """Return the process id of its current life."""
        return None if self._process is None else self._process.pid

    def alive(self) -> bool:
        """Tell whether its current life lasts."""
        return self._process is not None and self._process.poll() is None

    async def start(self) -> None:
        """Start it and wait for its "ready"; raises Unavailable with its last words when it ends or stays silent."""
        ours, theirs = socket.socketpair()
        ours.settimeout(0)
        self._hang_up()
        self._line = ours
        try:
            with self._spec.log_file.open("ab") as log:
                self._process = start_child(
                    [sys.executable, "-P", "-m", "forestay", *self._spec.arguments],
                    cwd=self._spec.work_dir,
                    environment=self._environment(theirs.fileno()),
                    uid=None,
                    output=log,
                    death_signal=signal.SIGKILL,
                    pass_fds=(theirs.fileno(), *self._spec.listeners.values()),
                )
        finally:
            theirs.close()
        self.facts = await self._hear_ready(ours)

    async def stop(self) -> None:
        """Ask it to end (SIGTERM), and force it when it takes longer than its time."""
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            if not await self._ended_within(process, self._spec.stop_seconds):
                process.kill()
                await self._ended_within(process, 5.0)
        self._hang_up()

    def last_words(self) -> str:
        """Return how it ended, with the last line of its log."""
        code = None if self._process is None else self._process.poll()
        if code is None:
            how = "does not answer"
        elif code < 0:
            how = f"was ended by {signal.Signals(-code).name}"
        else:
            how = f"ended with status {code}"
        last = tail(self._spec.log_file)
        return f"{how}; see {self._spec.log_file}" + (f": {last}" if last and code != -signal.SIGKILL else "")

    def _environment(self, line: int) -> dict[str, str]:
        listen = ",".join(f"{name}={number}" for name, number in self._spec.listeners.items())
        return {**self._spec.environment, SUPERVISOR_FD: str(line), LISTEN_FDS: listen}

    async def _hear_ready(self, line: socket.socket) -> Mapping[str, object]:
        heard = b""
        deadline = self._clock.monotonic() + _START_SECONDS
        while b"\n" not in heard:
            with contextlib.suppress(BlockingIOError, ConnectionResetError):  # nothing said yet, or it died: seen below
                heard += line.recv(_MAX_READY_BYTES)
            if b"\n" in heard:
                break
            if not self.alive() or self._clock.monotonic() > deadline:
                raise Unavailable(f"{self.name} {self.last_words()}")
            await self._clock.sleep(_LOOK_SECONDS / 2)
        said = cast("dict[str, dict[str, object]]", json.loads(heard.split(b"\n", 1)[0]))
        return said["ready"]

    async def _ended_within(self, process: subprocess.Popen[bytes], seconds: float) -> bool:
        deadline = self._clock.monotonic() + seconds
        while process.poll() is None:
            if self._clock.monotonic() > deadline:
                return False
            await self._clock.sleep(_LOOK_SECONDS / 2)
        return True

    def _hang_up(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None


class EmbeddedServer(Protocol):
    """What the embedded Postgres and Valkey have in common; its calls block."""

    @property
    def pid(self) -> int | None:
        """Return its process id."""
        ...

    def start(self) -> str:
        """Start it and return its URL."""
        ...

    def alive(self) -> bool:
        """Tell whether it runs."""
        ...

    def stop(self) -> None:
        """Shut it down."""
        ...


class ServerProcess:
    """An embedded server, driven from a thread since its calls block."""

    def __init__(self, name: str, server: EmbeddedServer, log_file: pathlib.Path) -> None:
        self._name = name
        self._server = server
        self._log_file = log_file
        self.url = ""

    @property
    def name(self) -> str:
        """Return its name."""
        return self._name

    @property
    def pid(self) -> int | None:
        """Return its process id."""
        return self._server.pid

    def alive(self) -> bool:
        """Tell whether it runs."""
        return self._server.alive()

    async def start(self) -> None:
        """Start it and wait until it answers."""
        self.url = await asyncio.to_thread(self._server.start)

    async def stop(self) -> None:
        """Shut it down."""
        await asyncio.to_thread(self._server.stop)

    def last_words(self) -> str:
        """Return where to look."""
        return f"died; see {self._log_file}"


class Keeper:
    """Keeps one process alive until told to stop."""

    def __init__(
        self, process: Supervised, clock: Clock, tell: Tell, on_change: Callable[[], None], policy: RestartPolicy
    ) -> None:
        self.process = process
        self._clock = clock
        self._tell = tell
        self._on_change = on_change
        self._policy = policy
        self._stopping = asyncio.Event()
        self._done = asyncio.Event()
        self._ready = asyncio.Event()
        self._failures = 0
        self._why = ""

    async def run(self) -> None:
        """Keep it alive; returns once `stop` was asked and it has ended."""
        try:
            while not self._stopping.is_set():
                started = self._clock.monotonic()
                reason = await self._live()
                if not self._stopping.is_set():
                    await self._wait_before_restart(reason, self._clock.monotonic() - started)
        finally:
            await self.process.stop()
            self._tell(Event("process.stopped", f"{self.process.name} has stopped", {"process": self.process.name}))
            self._done.set()

    async def until_ready(self, stop: asyncio.Event, tries: int = 3) -> bool:
        """Wait until it first serves, False when `stop` came first; raises Unavailable when it died `tries` times."""
        while not self._ready.is_set():
            if stop.is_set():
                return False
            if self._failures >= tries:
                raise Unavailable(self._why)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ready.wait(), _LOOK_SECONDS)
        return True

    async def stop(self) -> None:
        """End the process and wait until it has ended."""
        self._stopping.set()
        await self._done.wait()

    async def _live(self) -> str:
        """Run one life; returns how it ended."""
        try:
            await self.process.start()
        except Unavailable as error:
            return str(error)
        self._ready.set()
        facts = {"process": self.process.name, "pid": self.process.pid}
        self._tell(Event("process.ready", f"{self.process.name} is up (pid {self.process.pid})", facts))
        self._on_change()
        while self.process.alive() and not self._stopping.is_set():
            await self._clock.sleep(_LOOK_SECONDS)
        return f"{self.process.name} {self.process.last_words()}"

    async def _wait_before_restart(self, reason: str, lived_seconds: float) -> None:
        verdict = decide_restart(self._failures, lived_seconds, self._policy)
        self._failures = verdict.failures
        self._why = reason
        name = "process.crash_loop" if verdict.crash_loop else "process.died"
        again = f"crash loop, {verdict.failures} in a row; " if verdict.crash_loop else ""
        facts = {"process": self.process.name, "failures": verdict.failures, "delay_seconds": verdict.delay_seconds}
        self._tell(Event(name, f"{reason}; {again}starting it again in {verdict.delay_seconds:g} s", facts))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), verdict.delay_seconds)


def tail(log_file: pathlib.Path, limit_bytes: int = 600) -> str:
    """Return the last line of a log, at most `limit_bytes` of it, empty when there is none."""
    try:
        with log_file.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - limit_bytes))
            lines = file.read().decode("utf-8", "replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""


def cap_logs(folder: pathlib.Path, limit_bytes: int) -> list[str]:
    """Move logs larger than the limit aside (one generation) and go on in an empty file; returns their names.

    The writers append, so truncating under them is safe; lines written between copy and cut are lost.
    """
    turned: list[str] = []
    for log_file in sorted(folder.glob("*.log")):
        if log_file.stat().st_size <= limit_bytes:
            continue
        older = log_file.with_suffix(".log.1")
        shutil.copyfile(log_file, older)  # in pieces: it may be larger than memory
        os.truncate(log_file, 0)
        turned.append(log_file.name)
    return turned


async def stop_in_order(keepers: Sequence[Sequence[Keeper]]) -> None:
    """Stop group after group; the members of one group at the same time."""
    for group in keepers:
        async with asyncio.TaskGroup() as stopping:
            for keeper in group:
                stopping.create_task(keeper.stop())
