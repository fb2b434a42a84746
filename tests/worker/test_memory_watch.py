"""Peak memory of a replica while a request of a profile run is at work."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence

from forestay.clock import SystemClock
from forestay.worker.memory_watch import DEVICE_PEAK, PEAK, PeakMemory, is_watched, no_devices

_HOLDS = "import sys; held = bytearray(60_000_000); print('held', flush=True); sys.stdin.read()"


def test_only_requests_of_a_profile_run_are_watched() -> None:
    """Whoever tags a request otherwise costs nothing."""
    assert is_watched({"purpose": "profile"})
    assert not is_watched({})
    assert not is_watched({"purpose": "other"})


async def test_the_most_that_was_held_is_found_also_when_it_is_given_back() -> None:
    """A child that holds sixty megabytes for a while, beside what a process holds anyway."""
    child = subprocess.Popen([sys.executable, "-c", _HOLDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: ASYNC220 - a test
    assert child.stdout is not None
    assert child.stdin is not None
    await asyncio.to_thread(child.stdout.readline)
    running = [child.pid]
    memory = PeakMemory(lambda: list(running), no_devices, SystemClock())
    memory.look()
    child.stdin.close()
    await asyncio.to_thread(child.wait)
    running.clear()
    child.stdout.close()
    found = memory.found()
    assert set(found) == {PEAK}
    assert 60_000_000 < found[PEAK] < 160_000_000


def test_devices_are_told_where_there_are_any_and_the_largest_reading_counts() -> None:
    """As last read by whoever watches the devices."""
    readings = iter([5, 9, 7])

    def devices(pids: Sequence[int]) -> int | None:
        assert pids == [os.getpid()]
        return next(readings)

    memory = PeakMemory(lambda: [os.getpid()], devices, SystemClock())
    memory.look()
    memory.look()
    assert memory.found()[DEVICE_PEAK] == 9.0


def test_without_a_process_nothing_is_told() -> None:
    """A model behind a provider holds no memory here."""
    assert PeakMemory(list, no_devices, SystemClock()).found() == {}
