"""Work arriving together is done together: one commit for many submits.

It decides how arrivals are gathered into batches; what a batch does is the caller's function. At most two flushes are
in flight while the next batch gathers: with one alone all callers would wait for the same commit and be answered at the
same moment, so that process and database take turns instead of working side by side. An arrival on a quiet store is
flushed at once; under load a batch waits for as many as came before it, at most `wait_seconds`. The queue store runs
one for its submits.
"""

import asyncio
import dataclasses
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from forestay.errors import Unavailable

Item = TypeVar("Item")
Result = TypeVar("Result")
_LOOK_SECONDS = 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class BatchLimits:
    """How large and how patient a batch may be."""

    wait_seconds: float = 0.002
    max_batch: int = 500
    max_flushes: int = 2  # in flight at once
    max_waiting: int = 10_000  # arrivals beyond are refused: a full house is said, not hidden
    patience_seconds: float = 30.0  # then a caller is told that it is not known whether its item was committed


class GroupCommit(Generic[Item, Result]):
    """Gathers single items into batches for `flush`, and hands each caller its own result."""

    def __init__(
        self, flush: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Unavailable]]], limits: BatchLimits
    ) -> None:
        """`flush` may return Unavailable in the place of one item's result: that caller alone is refused."""
        self._flush = flush
        self._limits = limits
        self._arrivals: asyncio.Queue[tuple[Item, asyncio.Future[Result]]] = asyncio.Queue(limits.max_waiting)
        self._unanswered: deque[tuple[float, asyncio.Future[Result]]] = deque()  # oldest first
        self._running = False

    async def add(self, item: Item) -> Result:
        """Wait until the batch that holds `item` is flushed; raises what the flush raised.

        A caller that is cancelled leaves its item in the batch: it may be committed without anyone hearing of it.
        """
        if not self._running:
            raise Unavailable("the queue store is not running or is shutting down", retry_after_seconds=1.0)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        try:
            self._arrivals.put_nowait((item, future))
        except asyncio.QueueFull:
            raise Unavailable(
                f"{self._limits.max_waiting} submits wait to be committed; try again shortly", retry_after_seconds=1.0
            ) from None
        self._unanswered.append((loop.time() + self._limits.patience_seconds, future))
        return await future

    async def run(self) -> None:
        """Flush batches until cancelled; what still waits then is refused as Unavailable."""
        self._running = True
        last_size = 1
        batch: list[tuple[Item, asyncio.Future[Result]]] = []
        free = asyncio.Semaphore(self._limits.max_flushes)
        try:
            async with asyncio.TaskGroup() as flushes:
                flushes.create_task(self._answer_late())
                while True:
                    batch = [await self._arrivals.get()]
                    await free.acquire()
                    await self._gather(batch, last_size)
                    last_size = len(batch)
                    flushes.create_task(self._flush_batch(batch, free))
                    batch = []
        finally:
            self._running = False
            while not self._arrivals.empty():
                batch.append(self._arrivals.get_nowait())
            _fail(batch, Unavailable("the queue store is shutting down", retry_after_seconds=1.0))
            self._unanswered.clear()

    async def _answer_late(self) -> None:
        """Refuse those who have waited too long: one look a second costs less than a timer for each."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            now = asyncio.get_running_loop().time()
            while self._unanswered and (self._unanswered[0][1].done() or self._unanswered[0][0] <= now):
                _, future = self._unanswered.popleft()
                if not future.done():
                    late = Unavailable("the database did not commit in time", retry_after_seconds=5.0)
                    future.set_exception(late)

    async def _gather(self, batch: list[tuple[Item, asyncio.Future[Result]]], expected: int) -> None:
        """Take what has arrived; under load wait for about as many as last time."""
        self._take(batch)
        if len(batch) >= expected:
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._limits.wait_seconds
        while len(batch) < expected and loop.time() < deadline:
            try:
                async with asyncio.timeout_at(deadline):
                    batch.append(await self._arrivals.get())
            except TimeoutError:
                return
            self._take(batch)

    def _take(self, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        while len(batch) < self._limits.max_batch and not self._arrivals.empty():
            batch.append(self._arrivals.get_nowait())

    async def _flush_batch(self, batch: list[tuple[Item, asyncio.Future[Result]]], free: asyncio.Semaphore) -> None:
        try:
            results = await self._flush([item for item, _ in batch])
        except asyncio.CancelledError:
            _fail(batch, Unavailable("the queue store is shutting down", retry_after_seconds=1.0))
            raise
        except Exception as error:  # noqa: BLE001 - not swallowed: every caller of the batch receives it
            _fail(batch, error)
            return
        finally:
            free.release()
        for (_, future), result in zip(batch, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Unavailable):
                future.set_exception(result)
            else:
                future.set_result(result)


def _fail(batch: Sequence[tuple[object, "asyncio.Future[Result]"]], error: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
