"""Running control loops: beats, wake-ups, leadership, and failures that stay at home."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable

from hypothesis import given
from hypothesis import strategies as st

from forestay.clock import SystemClock
from forestay.controller import (
    ControllerPorts,
    Ended,
    Loop,
    decide_least_pause,
    decide_pause,
    decide_renewal,
    run_loops,
)
from forestay.errors import Unavailable
from forestay.storage.leader import Leadership, LoopLeaders
from forestay.storage.postgres import Database
from forestay.storage.valkey import LocalWakeups
from forestay.telemetry.metrics import LOOP_FAILURES, LOOP_RUNS, Metrics


async def nothing() -> int:
    """Do nothing."""
    return 0


LOOP = Loop("loop", every_seconds=2.0, run_once=nothing, batch=10)


def test_a_loop_with_work_left_runs_again_at_once() -> None:
    """A full batch means that more is waiting."""
    assert decide_pause(LOOP, Ended(did=10)) == 0.0
    assert decide_pause(LOOP, Ended(did=9)) == 2.0


def test_a_dependency_that_does_not_answer_is_tried_again_within_a_second() -> None:
    """It may be back at once, however long the beat is."""
    slow = dataclasses.replace(LOOP, every_seconds=60.0)
    assert decide_pause(slow, Ended(failures=7, unavailable=True)) == 1.0


@given(failures=st.integers(1, 1000))
def test_a_defect_makes_the_pauses_grow_to_half_a_minute(failures: int) -> None:
    """A broken loop does not fill the logs."""
    pause = decide_pause(LOOP, Ended(failures=failures))
    assert 2.0 <= pause <= 30.0
    assert pause <= decide_pause(LOOP, Ended(failures=failures + 1))


@given(every=st.floats(0.05, 7200), age=st.floats(0, 50_000))
def test_a_lease_is_renewed_in_time_and_not_for_every_beat(every: float, age: float) -> None:
    """With the renewal inside a run it never ends under its holder; a run without a lease takes it first."""
    loop = dataclasses.replace(LOOP, every_seconds=every)
    assert decide_renewal(loop, None, age)
    if not decide_renewal(loop, 100.0, 100.0 + age):
        assert age + loop.lease_seconds / 3 < loop.lease_seconds
    else:
        assert age >= loop.lease_seconds / 2 - 1e-6


@given(took=st.floats(0, 100), pause=st.floats(0, 60), rest=st.floats(0, 10))
def test_a_loop_that_is_woken_often_rests_but_never_beyond_its_beat(took: float, pause: float, rest: float) -> None:
    """The longer a run takes, the longer no wake-up is heard; a loop without such a rest has its least pause alone."""
    loop = dataclasses.replace(LOOP, rest_factor=rest)
    least = decide_least_pause(loop, pause, took)
    assert min(pause, loop.least_seconds) <= least <= pause
    assert least <= decide_least_pause(loop, pause, took * 2)
    assert decide_least_pause(dataclasses.replace(loop, rest_factor=0.0), pause, took) == min(pause, 0.05)


async def test_an_idle_loop_does_not_write_its_lease_on_each_beat(database: Database) -> None:
    """Twenty beats within half of the lease cost one write."""
    stage, done = Stage(database, "a"), asyncio.Event()
    asked = 0
    really = stage.ports.leaders.lead

    async def lead(loop: str, lease_seconds: float) -> Leadership | None:
        nonlocal asked
        asked += 1
        return await really(loop, lease_seconds)

    stage.ports.leaders.lead = lead  # type: ignore[method-assign]
    runs, run_once = counting(20, done)
    async with asyncio.TaskGroup() as group:
        group.create_task(stage.run(Loop("often", 0.01, run_once, least_seconds=0.0)))
        await done.wait()
        stage.stop.set()
    assert len(runs) >= 20
    assert asked == 1


class Stage:
    """Loops of one controller on a real database."""

    def __init__(self, database: Database, name: str, metrics: Metrics | None = None) -> None:
        self.wakeups = LocalWakeups()
        self.metrics = metrics or Metrics()
        self.ports = ControllerPorts(LoopLeaders(database, name), self.wakeups, SystemClock(), self.metrics)
        self.stop = asyncio.Event()

    async def run(self, *loops: Loop) -> None:
        """Run until the stop."""
        async with asyncio.timeout(20):
            await run_loops(loops, self.ports, self.stop)


def counting(until: int, done: asyncio.Event) -> tuple[list[int], Callable[[], Awaitable[int]]]:
    """Return a list that grows by each run, and the run; `done` is set at the `until`th."""
    runs: list[int] = []

    async def run_once() -> int:
        runs.append(len(runs))
        if len(runs) >= until:
            done.set()
        return 0

    return runs, run_once


async def test_a_loop_that_raises_is_counted_and_its_neighbour_goes_on(database: Database) -> None:
    """A defect in one loop stops no other."""
    stage = Stage(database, "one")
    _, good = counting(5, stage.stop)

    async def broken() -> int:
        raise RuntimeError("a defect")

    await stage.run(Loop("good", 0.01, good), Loop("broken", 0.01, broken))
    assert stage.metrics.value(LOOP_FAILURES, "broken") >= 1
    assert stage.metrics.value(LOOP_FAILURES, "good") == 0
    assert stage.metrics.value(LOOP_RUNS, "good") >= 5


async def test_a_wake_up_starts_a_run_before_its_beat(database: Database) -> None:
    """A loop with a long beat runs at once when its channel speaks."""
    stage = Stage(database, "one")
    first = asyncio.Event()
    runs: list[int] = []

    async def run_once() -> int:
        runs.append(1)
        (first if len(runs) == 1 else stage.stop).set()
        return 0

    async def wake() -> None:
        await first.wait()
        while not stage.stop.is_set():  # the first messages may come before the loop waits
            await stage.wakeups.publish("forestay:demand", "forestay/digits")
            await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(wake())
        await stage.run(Loop("slow", 3600.0, run_once, wakes_on=("forestay:demand",)))
    assert len(runs) == 2


async def test_only_one_controller_runs_a_loop_and_a_stopped_one_hands_it_over(database: Database) -> None:
    """The lease keeps the second out until the first resigns."""
    one, two = Stage(database, "one"), Stage(database, "two")
    running: list[str] = []
    lost: list[str] = []
    started, heard = asyncio.Event(), asyncio.Event()

    def run_as(name: str, stage: Stage) -> Callable[[], Awaitable[int]]:
        async def run_once() -> int:
            running.append(name)
            started.set()
            if running.count("one") >= 3 and lost:
                one.stop.set()
            if name == "two":
                stage.stop.set()
                heard.set()
            return 0

        return run_once

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(one.run(Loop("shared", 0.02, run_as("one", one))))
        await started.wait()
        tasks.create_task(two.run(Loop("shared", 0.02, run_as("two", two), lost=lambda: lost.append("two"))))
        await heard.wait()
    first_two = running.index("two")
    assert set(running[:first_two]) == {"one"}
    assert "one" not in running[first_two:]
    assert set(lost) == {"two"}  # told while another led, so that it shows nothing of it


async def test_a_silent_dependency_is_a_wait_and_not_a_defect(database: Database) -> None:
    """`Unavailable` from inside a task group is recognised too."""
    stage = Stage(database, "one")
    runs = 0

    async def run_once() -> int:
        nonlocal runs
        runs += 1
        if runs >= 2:
            stage.stop.set()
        raise ExceptionGroup("inner", [Unavailable("the database does not answer")])

    await stage.run(Loop("waiting", 0.01, run_once))
    assert stage.metrics.value(LOOP_FAILURES, "waiting") == 2
