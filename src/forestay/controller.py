"""Runs the control loops: each under its leader's lease, on its beat and on its wake-ups, each failing alone.

It decides when a loop runs again (`decide_pause`); what a loop does is its domain's business (`run_once`). Loops never
call one another: they meet in stored state. Called by the wiring of the controller process.
"""

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from typing import cast

from forestay.clock import Clock
from forestay.errors import Unavailable
from forestay.storage.leader import Leadership, LoopLeaders
from forestay.storage.valkey import Wakeups
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import LOOP_FAILURES, LOOP_RUNS, LOOP_SECONDS, Metrics

_LONGEST_PAUSE_SECONDS = 30.0
_SHORTEST_LEASE_SECONDS = 3.0
_LEASE_BEATS = 3  # a leader that misses this many beats has lost the loop

_log = logger("controller")


@dataclasses.dataclass(frozen=True, slots=True)
class Loop:
    """One loop: its name, its beat, and what may wake it earlier."""

    name: str
    every_seconds: float
    run_once: Callable[[], Awaitable[int]]  # returns how much it did
    batch: int = 0  # doing this much means that more is waiting: run again at once; 0: never
    wakes_on: tuple[str, ...] = ()  # channels
    least_seconds: float = 0.05  # between two runs, however often it is woken
    rest_factor: float = 0.0  # of its last run's duration: the least pause where that is longer
    lost: Callable[[], None] | None = None  # called on each beat on which another process leads it

    @property
    def lease_seconds(self) -> float:
        """Return how long a silent leader keeps the loop."""
        return max(_SHORTEST_LEASE_SECONDS, _LEASE_BEATS * self.every_seconds)


@dataclasses.dataclass(frozen=True, slots=True)
class ControllerPorts:
    """What running loops takes."""

    leaders: LoopLeaders
    wakeups: Wakeups
    clock: Clock
    metrics: Metrics


@dataclasses.dataclass(frozen=True, slots=True)
class Ended:
    """How the last run of a loop went."""

    did: int = 0
    failures: int = 0  # in a row
    unavailable: bool = False  # the last failure was a dependency that does not answer


def decide_pause(loop: Loop, ended: Ended) -> float:
    """Decide the seconds until the next run: the beat, none while work is left, growing pauses after defects.

    A dependency that does not answer is tried again on the beat, at most each second: it may be back at once.
    """
    if ended.failures == 0:
        return 0.0 if loop.batch and ended.did >= loop.batch else loop.every_seconds
    if ended.unavailable:
        return min(loop.every_seconds, 1.0)
    return min(_LONGEST_PAUSE_SECONDS, max(loop.every_seconds, 1.0) * 2 ** min(ended.failures - 1, 10))


def decide_least_pause(loop: Loop, pause_seconds: float, took_seconds: float) -> float:
    """Decide for how many seconds no wake-up is heard: the loop's least, or its rest after a run that took long."""
    return min(pause_seconds, max(loop.least_seconds, took_seconds * loop.rest_factor))


def decide_renewal(loop: Loop, led_at: float | None, now: float) -> bool:
    """Decide whether a run must first take or renew the lease; `led_at` and `now` monotonic, None: not the leader.

    Half of the lease may pass without a word to the database: a run that begins then renews after another third, before
    the lease ends, and an idle controller does not commit for each beat of each loop.
    """
    return led_at is None or not 0 <= now - led_at < loop.lease_seconds / 2


async def run_loops(loops: Sequence[Loop], ports: ControllerPorts, stop: asyncio.Event) -> None:
    """Run every loop until `stop`; each then ends its run and gives its lease back."""
    wakes = {loop.name: asyncio.Event() for loop in loops}
    async with asyncio.TaskGroup() as tasks:
        listener = tasks.create_task(_listen(loops, wakes, ports.wakeups))
        running = [tasks.create_task(_Runner(loop, ports, wakes[loop.name], stop).run()) for loop in loops]
        await stop.wait()
        for wake in wakes.values():
            wake.set()
        await asyncio.wait(running)
        listener.cancel()


async def _listen(loops: Sequence[Loop], wakes: dict[str, asyncio.Event], wakeups: Wakeups) -> None:
    channels = sorted({channel for loop in loops for channel in loop.wakes_on})
    if not channels:
        return
    async with wakeups.subscribe(*channels) as messages:
        async for channel, _ in messages:
            for loop in loops:
                if channel in loop.wakes_on:
                    wakes[loop.name].set()


class _Runner:
    """One loop's life in this process."""

    def __init__(self, loop: Loop, ports: ControllerPorts, wake: asyncio.Event, stop: asyncio.Event) -> None:
        self._loop = loop
        self._ports = ports
        self._wake = wake
        self._stop = stop
        self._failures = 0
        self._took = 0.0  # seconds of the last run
        self._led_at: float | None = None  # when the lease that we hold was last asked for; monotonic

    async def run(self) -> None:
        """Lead and run until told to stop."""
        leadership: Leadership | None = None
        while not self._stop.is_set():
            self._wake.clear()
            ended = Ended()
            try:
                if leadership is None or decide_renewal(self._loop, self._led_at, self._ports.clock.monotonic()):
                    leadership = await self._lead()
                if leadership is not None:
                    ended = Ended(did=await self._timed())
                self._failures = 0
            except Exception as error:  # noqa: BLE001 - a defect in one loop must not stop its neighbours
                ended = self._failed(_first_cause(error))
            await self._pause(decide_pause(self._loop, ended), woken=ended.failures == 0 and leadership is not None)
        if leadership is not None:
            with contextlib.suppress(Unavailable):  # the lease ends by itself
                await self._ports.leaders.resign(leadership)

    async def _lead(self) -> Leadership | None:
        asked_at, self._led_at = self._ports.clock.monotonic(), None
        leadership = await self._ports.leaders.lead(self._loop.name, self._loop.lease_seconds)
        self._led_at = None if leadership is None else asked_at
        if leadership is None and self._loop.lost is not None:
            self._loop.lost()
        return leadership

    async def _timed(self) -> int:
        started = self._ports.clock.monotonic()
        async with asyncio.TaskGroup() as tasks:
            renewal = tasks.create_task(self._renew())
            try:
                did = await self._loop.run_once()
            finally:
                renewal.cancel()
        self._took = self._ports.clock.monotonic() - started
        self._ports.metrics.add(LOOP_RUNS, self._loop.name)
        self._ports.metrics.observe(LOOP_SECONDS, self._took, self._loop.name)
        return did

    async def _renew(self) -> None:
        """Keep the lease through a long run; one that cannot be renewed ends by itself, and another may start."""
        while True:
            await self._ports.clock.sleep(self._loop.lease_seconds / _LEASE_BEATS)
            with contextlib.suppress(Unavailable):  # the run itself will meet the same
                await self._lead()

    def _failed(self, cause: BaseException) -> Ended:
        self._failures += 1
        self._ports.metrics.add(LOOP_FAILURES, self._loop.name)
        unavailable = isinstance(cause, Unavailable)
        if unavailable:
            _log.warning("loop.unavailable", loop=self._loop.name, reason=str(cause))
        else:
            _log.error("loop.failed", loop=self._loop.name, failures=self._failures, exc_info=cause)
        return Ended(failures=self._failures, unavailable=unavailable)

    async def _pause(self, seconds: float, *, woken: bool) -> None:
        """Wait for the beat, a wake-up (when this process leads) or the end."""
        least = decide_least_pause(self._loop, seconds, self._took)
        if await self._within(least, self._stop) or not woken:
            await self._within(seconds - least, self._stop)
            return
        await self._within(seconds - least, self._wake)  # the end wakes everybody too

    async def _within(self, seconds: float, event: asyncio.Event) -> bool:
        try:
            async with asyncio.timeout(max(seconds, 0.0)):
                await event.wait()
        except TimeoutError:
            return False
        return True


def _first_cause(error: BaseException) -> BaseException:
    """Return what a group of errors began with."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error
