"""Restart decisions, and keeping a process alive, without real processes."""

import asyncio
import dataclasses
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.clock import SystemClock
from forestay.errors import Unavailable
from forestay.supervisor import Event, Keeper, RestartPolicy, cap_logs, decide_restart, stop_in_order, tail

POLICY = RestartPolicy()
QUICK = RestartPolicy(first_seconds=0.001, cap_seconds=0.01)


@given(failures=st.integers(0, 1000), lived=st.floats(0, 1e6))
def test_a_restart_never_waits_longer_than_the_cap_nor_less_than_the_first_pause(failures: int, lived: float) -> None:
    """The pause is bounded whatever happened before."""
    verdict = decide_restart(failures, lived, POLICY)
    assert POLICY.first_seconds <= verdict.delay_seconds <= POLICY.cap_seconds
    assert verdict.failures >= 1


@given(failures=st.integers(0, 100), shorter=st.floats(0, 1e4), longer=st.floats(0, 1e4))
def test_a_longer_life_never_makes_the_next_pause_longer(failures: int, shorter: float, longer: float) -> None:
    """Health counts in favour."""
    shorter, longer = sorted((shorter, longer))
    assert (
        decide_restart(failures, longer, POLICY).delay_seconds
        <= decide_restart(failures, shorter, POLICY).delay_seconds
    )


def test_deaths_in_quick_succession_double_the_pause_and_become_a_crash_loop() -> None:
    """Five short lives in a row are called what they are."""
    failures, delays, loops = 0, [], []
    for _ in range(8):
        verdict = decide_restart(failures, 0.5, POLICY)
        failures = verdict.failures
        delays.append(verdict.delay_seconds)
        loops.append(verdict.crash_loop)
    assert delays == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8])
    assert loops == [False] * 4 + [True] * 4


def test_a_minute_of_health_makes_up_for_every_earlier_failure() -> None:
    """After a healthy life the next death is treated as the first."""
    assert decide_restart(30, 60.0, POLICY) == decide_restart(0, 0.0, POLICY)


class Mortal:
    """A process that dies when told, and fails its first `bad_starts` starts."""

    def __init__(self, name: str = "mortal", bad_starts: int = 0) -> None:
        self.name = name
        self.pid: int | None = None
        self.bad_starts = bad_starts
        self.lives = 0
        self.stops = 0
        self._alive = False

    async def start(self) -> None:
        """Begin a life, or fail to."""
        self.lives += 1
        if self.lives <= self.bad_starts:
            raise Unavailable(f"{self.name} ended with status 1")
        self.pid = self.lives
        self._alive = True

    def alive(self) -> bool:
        """Tell whether it lives."""
        return self._alive

    def die(self) -> None:
        """End this life."""
        self._alive = False

    def last_words(self) -> str:
        """Say how it ended."""
        return "was ended by SIGKILL"

    async def stop(self) -> None:
        """Count the stops."""
        self.stops += 1
        self._alive = False


@dataclasses.dataclass
class Stage:
    """A keeper with what it said."""

    process: Mortal
    events: list[Event] = dataclasses.field(default_factory=list)
    changes: int = 0

    def __post_init__(self) -> None:
        self.second_change = asyncio.Event()
        self.keeper = Keeper(self.process, SystemClock(), self.events.append, self._changed, QUICK)

    def _changed(self) -> None:
        self.changes += 1
        if self.changes == 2:
            self.second_change.set()


async def test_a_dead_process_is_started_again_and_its_new_pid_is_announced() -> None:
    """Death leads to a new life, told as events."""
    stage = Stage(Mortal())
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(stage.keeper.run())
        assert await stage.keeper.until_ready(asyncio.Event())
        stage.process.die()
        async with asyncio.timeout(5):
            await stage.second_change.wait()
        await stage.keeper.stop()
    assert [event.name for event in stage.events] == [
        "process.ready",
        "process.died",
        "process.ready",
        "process.stopped",
    ]
    assert stage.process.pid == 2
    assert stage.process.stops == 1


async def test_a_process_that_never_serves_is_given_up_at_the_start_with_its_last_words() -> None:
    """Three failed starts in a row end the start of the platform."""
    stage = Stage(Mortal(bad_starts=100))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(stage.keeper.run())
        with pytest.raises(Unavailable, match="mortal ended with status 1"):
            await stage.keeper.until_ready(asyncio.Event())
        await stage.keeper.stop()


async def test_waiting_for_readiness_ends_when_the_platform_is_told_to_stop() -> None:
    """A stop during the start is heard."""
    stage = Stage(Mortal(bad_starts=1))
    stop = asyncio.Event()
    stop.set()
    assert not await stage.keeper.until_ready(stop)


async def test_groups_are_stopped_one_after_the_other() -> None:
    """The order of groups is the order of ends."""
    order: list[str] = []

    class Noted(Mortal):
        async def stop(self) -> None:
            order.append(self.name)
            await super().stop()

    stages = [Stage(Noted(name)) for name in ("gateway", "worker-1", "worker-2", "postgres")]
    keepers = [stage.keeper for stage in stages]
    async with asyncio.TaskGroup() as tasks:
        for keeper in keepers:
            tasks.create_task(keeper.run())
            await keeper.until_ready(asyncio.Event())
        await stop_in_order([keepers[:1], keepers[1:3], keepers[3:]])
    assert order[0] == "gateway"
    assert set(order[1:3]) == {"worker-1", "worker-2"}
    assert order[3] == "postgres"


def test_a_log_beyond_its_limit_is_moved_aside_and_goes_on_in_an_empty_file(tmp_path: pathlib.Path) -> None:
    """One older generation is kept; a writer that appends is not disturbed."""
    log_file = tmp_path / "gateway-1.log"
    with log_file.open("ab", buffering=0) as writer:
        writer.write(b"x" * 100)
        assert cap_logs(tmp_path, 50) == ["gateway-1.log"]
        writer.write(b"after\n")
    assert log_file.read_bytes() == b"after\n"
    assert (tmp_path / "gateway-1.log.1").stat().st_size == 100
    assert tail(log_file) == "after"
    assert tail(tmp_path / "none.log") == ""
