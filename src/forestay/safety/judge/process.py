"""The judge's life: limits, detectors, socket, and its end when it hangs.

Decides that memory is bounded by the kernel (RLIMIT_DATA), that there are no core files, and that a detector which
works on one thing longer than `FORESTAY_JUDGE_HANG` ends the process, so that its supervisor starts it again; whoever
waited learns it as a crash. Called by the wiring of `forestay judge`.
"""

import asyncio
import contextlib
import dataclasses
import os
import pathlib
import resource
import threading
from collections.abc import AsyncGenerator, Callable, Sequence

from forestay.clock import Clock
from forestay.errors import UsageError
from forestay.safety.judge.lanes import Detector, Lane, Room
from forestay.safety.judge.server import JudgeServer, listening
from forestay.settings import Judge
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import Metrics

EXIT_HUNG = 4
_MIB = 1024 * 1024
_LOOK_SECONDS = 0.25
_STOP_SECONDS = 2.0
_LOG = logger("judge")


@dataclasses.dataclass(frozen=True, slots=True)
class JudgePorts:
    """What a judge is made of."""

    detectors: Sequence[Detector]
    settings: Judge
    clock: Clock
    metrics: Metrics
    on_loaded: Callable[[], None] = lambda: None  # called once, when every detector has been loaded


def limit_process(settings: Judge) -> None:
    """Hold this process to its memory, and to no core file; before a model is loaded."""
    limit = settings.memory_mb * _MIB
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@contextlib.asynccontextmanager
async def judging(ports: JudgePorts) -> AsyncGenerator[JudgeServer]:
    """Serve while the block runs; detectors load meanwhile, and what is asked of them waits for that."""
    settings = ports.settings
    if not settings.socket:
        raise UsageError("FORESTAY_JUDGE_SOCKET", "is not set; expected a path in a folder that only this user enters")
    room = Room(settings.held_mb * _MIB)
    loaded = _Countdown(len(ports.detectors), ports.on_loaded)
    lanes = [Lane(detector, room, ports.clock, settings.queue, loaded.one_less) for detector in ports.detectors]
    server = JudgeServer(lanes, ports.clock, ports.metrics)
    watch = Watch(lanes, ports.clock, settings.hang_seconds, _die)
    try:
        async with listening(server, pathlib.Path(settings.socket)), watch.watching():
            yield server
    finally:
        for lane in lanes:
            await asyncio.to_thread(lane.close, _STOP_SECONDS)


class _Countdown:
    """Does something once, when as many as there are have reported; from whichever thread."""

    def __init__(self, left: int, then: Callable[[], None]) -> None:
        self._left = left
        self._then = then
        self._lock = threading.Lock()

    def one_less(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left:
                return
        self._then()


class Watch:
    """A thread that ends the process when a detector, or the event loop, hangs."""

    def __init__(self, lanes: Sequence[Lane], clock: Clock, hang_seconds: float, die: Callable[[str], None]) -> None:
        self._lanes = lanes
        self._clock = clock
        self._hang_seconds = hang_seconds
        self._die = die
        self._beat = clock.monotonic()
        self._not_before = self._beat  # whatever began earlier is counted from here
        self._ended = threading.Event()

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncGenerator[None]:
        """Watch while the block runs."""
        thread = threading.Thread(target=self._look, name="judge-watch", daemon=True)
        async with asyncio.TaskGroup() as tasks:
            beating = tasks.create_task(self._keep_beating())
            thread.start()
            try:
                yield
            finally:
                beating.cancel()
                self._ended.set()
                await asyncio.to_thread(thread.join, _STOP_SECONDS)

    async def _keep_beating(self) -> None:
        while True:
            self._beat = self._clock.monotonic()
            await self._clock.sleep(_LOOK_SECONDS)

    def _look(self) -> None:
        seen = self._clock.monotonic()
        while not self._ended.wait(_LOOK_SECONDS):
            before, seen = seen, self._clock.monotonic()
            if seen - before > _LOOK_SECONDS * 8:  # we all stood still: a stopped process or machine, no hang of ours
                self._beat = self._not_before = seen
            hung = self._hanging(seen)
            if hung:
                self._die(hung)
                return

    def _hanging(self, now: float) -> str:
        if now - self._beat > self._hang_seconds:
            return "the event loop"
        for lane in self._lanes:
            since = lane.busy_since
            if since and now - max(since, self._not_before) > self._hang_seconds:
                return lane.info.detector_id
        return ""


def _die(hung: str) -> None:
    _LOG.error("judge.hung", detector=hung)
    os._exit(EXIT_HUNG)
