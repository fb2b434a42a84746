"""Work arriving together is done together."""

import asyncio
from collections.abc import Sequence

import pytest

from forestay.errors import Unavailable
from forestay.queue.group_commit import BatchLimits, GroupCommit


class Recorder:
    """A flush that waits until it is let through and remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.entered = asyncio.Semaphore(0)
        self.gate = asyncio.Semaphore(0)

    async def flush(self, items: Sequence[int]) -> list[int]:
        """Record a batch and double its items; a negative item makes it fail."""
        self.batches.append(list(items))
        self.entered.release()
        await self.gate.acquire()
        if any(item < 0 for item in items):
            raise Unavailable("no")
        return [item * 2 for item in items]


async def test_what_arrives_during_a_flush_shares_the_next_one() -> None:
    """The first arrival is flushed at once, the four that come meanwhile together; each gets its own result."""
    recorder = Recorder()
    commits = GroupCommit(recorder.flush, BatchLimits())
    async with asyncio.TaskGroup() as group:
        running = group.create_task(commits.run())
        await asyncio.sleep(0)
        first = group.create_task(commits.add(1))
        await recorder.entered.acquire()
        rest = [group.create_task(commits.add(n)) for n in (2, 3, 4, 5)]
        await asyncio.sleep(0)
        recorder.gate.release()
        assert await first == 2
        await recorder.entered.acquire()
        recorder.gate.release()
        assert [await task for task in rest] == [4, 6, 8, 10]
        running.cancel()
    assert recorder.batches == [[1], [2, 3, 4, 5]]


async def test_a_batch_is_never_larger_than_its_limit() -> None:
    """Seven arrivals with a limit of three need three flushes, in order."""
    recorder = Recorder()
    commits = GroupCommit(recorder.flush, BatchLimits(max_batch=3))
    for _ in range(9):
        recorder.gate.release()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(commits.run())
        await asyncio.sleep(0)
        await asyncio.gather(*(commits.add(n) for n in range(7)))
        running.cancel()
    assert [item for batch in recorder.batches for item in batch] == list(range(7))
    assert max(map(len, recorder.batches)) <= 3


async def test_a_failed_flush_fails_its_own_batch_only() -> None:
    """Callers of the failed batch hear why; the next batch goes through."""
    recorder = Recorder()
    commits = GroupCommit(recorder.flush, BatchLimits())
    recorder.gate.release()
    recorder.gate.release()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(commits.run())
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="no"):
            await commits.add(-1)
        assert await commits.add(4) == 8
        running.cancel()


async def test_a_caller_who_goes_away_does_not_disturb_the_others() -> None:
    """A cancelled caller's item stays in the batch; the others get their results."""
    recorder = Recorder()
    commits = GroupCommit(recorder.flush, BatchLimits())
    async with asyncio.TaskGroup() as group:
        running = group.create_task(commits.run())
        await asyncio.sleep(0)
        gone = group.create_task(commits.add(1))
        await recorder.entered.acquire()
        stays = group.create_task(commits.add(2))
        gone.cancel()
        recorder.gate.release()
        recorder.gate.release()
        assert await stays == 4
        running.cancel()


async def test_a_full_house_is_said() -> None:
    """Arrivals beyond the bound are refused, and so is everything before the start and after the end."""
    recorder = Recorder()
    commits = GroupCommit(recorder.flush, BatchLimits(max_waiting=2))
    with pytest.raises(Unavailable, match="not running"):
        await commits.add(0)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(commits.run())
        await asyncio.sleep(0)
        waiting = [group.create_task(_refusal(commits, 0))]
        await recorder.entered.acquire()
        waiting += [group.create_task(_refusal(commits, n)) for n in (1, 2)]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="wait to be committed"):
            await commits.add(3)
        running.cancel()
    assert [str(task.result()) for task in waiting] == ["the queue store is shutting down"] * 3


async def _refusal(commits: GroupCommit[int, int], item: int) -> Unavailable | None:
    try:
        await commits.add(item)
    except Unavailable as error:
        return error
    return None


async def test_a_caller_whose_commit_takes_too_long_is_told_and_the_rest_go_on() -> None:
    """A database that hangs does not hold callers for ever: they learn that it is not known what became of theirs."""
    recorder = Recorder()
    commits = GroupCommit(recorder.flush, BatchLimits(patience_seconds=0.0))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(commits.run())
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="in time"):
            await commits.add(1)
        recorder.gate.release()
        running.cancel()
