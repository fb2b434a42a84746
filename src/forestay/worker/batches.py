"""Gathers single items into batches: while one flush is on its way, the next gathers.

It decides nothing. Used wherever many attempts say the same thing to the queue (start, checking, finish, requeue), so
that they share a statement without anyone waiting for a timer.
"""

import asyncio
import collections
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from forestay.clock import Clock
from forestay.errors import Unavailable
from forestay.telemetry.logs import logger

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Waiting = tuple[Item, asyncio.Future[Answer]]
log = logger("worker")
MAX_WAITING = 100_000
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.1, 2.0


class Batcher(Generic[Item, Answer]):
    """Calls `flush` with up to `limit` items; answers come back in the items' order."""

    def __init__(
        self, flush: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]], clock: Clock, *, limit: int = 200
    ) -> None:
        self._flush = flush
        self._clock = clock
        self._limit = limit
        self._waiting: collections.deque[Waiting[Item, Answer]] = collections.deque()
        self._insisting = 0  # items that are tried again
        self._arrived = asyncio.Event()

    async def put(self, item: Item) -> Answer:
        """Add one item and wait for its answer."""
        if len(self._waiting) + self._insisting >= MAX_WAITING:
            raise Unavailable("too much waits for the database")
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self._arrived.set()
        return await future

    async def run(self) -> None:
        """Flush for ever. What the store cannot take now is tried again beside what comes after it."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._arrived.wait()
                batch = [self._waiting.popleft() for _ in range(min(self._limit, len(self._waiting)))]
                if not self._waiting:
                    self._arrived.clear()
                refused = await self._settle([(item, future) for item, future in batch if not future.done()])
                if refused:
                    group.create_task(self._insist(refused, FIRST_RETRY_SECONDS))

    async def _insist(self, batch: Sequence[Waiting[Item, Answer]], pause: float) -> None:
        """Try again for ever, in ever smaller parts: the fence of each lease makes that safe.

        A lost database comes back for all of them; one item that cannot be stored (its body is large and the object
        store is full) is soon alone with its retries.
        """
        held = len(batch)
        self._insisting += held
        try:
            while batch:
                await self._clock.sleep(pause)
                batch = await self._settle([(item, future) for item, future in batch if not future.done()])
                pause = min(pause * 2, LAST_RETRY_SECONDS)
                if len(batch) > 1:
                    break
        finally:
            self._insisting -= held
        if batch:
            middle = len(batch) // 2
            async with asyncio.TaskGroup() as group:
                group.create_task(self._insist(batch[:middle], pause))
                group.create_task(self._insist(batch[middle:], pause))

    async def _settle(self, batch: Sequence[Waiting[Item, Answer]]) -> Sequence[Waiting[Item, Answer]]:
        """Flush and hand out the answers; returns what the store cannot take now.

        An item that can never be stored fails alone, not its neighbours with it.
        """
        if not batch:
            return []
        try:
            answers = await self._flush([item for item, _ in batch])
        except Unavailable as error:
            log.warning("worker.flush_retried", reason=str(error), items=len(batch))
            return batch
        except Exception as error:
            if len(batch) > 1:
                return [left for single in batch for left in await self._settle([single])]
            log.exception("worker.item_refused")
            if not batch[0][1].done():
                batch[0][1].set_exception(error)
            return []
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)
        return []
