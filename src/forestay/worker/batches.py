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
        self._waiting: collections.deque[tuple[Item, asyncio.Future[Answer]]] = collections.deque()
        self._arrived = asyncio.Event()

    async def put(self, item: Item) -> Answer:
        """Add one item and wait for its answer."""
        if len(self._waiting) >= MAX_WAITING:
            raise Unavailable("too much waits for the database")
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self._arrived.set()
        return await future

    async def run(self) -> None:
        """Flush for ever. A lost database is tried again: the fence of each lease makes that safe."""
        while True:
            await self._arrived.wait()
            batch = [self._waiting.popleft() for _ in range(min(self._limit, len(self._waiting)))]
            if not self._waiting:
                self._arrived.clear()
            batch = [(item, future) for item, future in batch if not future.done()]
            if batch:
                await self._settle(batch)

    async def _settle(self, batch: Sequence[tuple[Item, asyncio.Future[Answer]]]) -> None:
        """Flush and hand out the answers. An item that cannot be stored fails alone, not its neighbours with it."""
        try:
            answers = await self._flushed([item for item, _ in batch])
        except Exception as error:
            if len(batch) > 1:
                for single in batch:
                    await self._settle([single])
                return
            log.exception("worker.item_refused")
            if not batch[0][1].done():
                batch[0][1].set_exception(error)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)

    async def _flushed(self, items: Sequence[Item]) -> Sequence[Answer]:
        pause = FIRST_RETRY_SECONDS
        while True:
            try:
                return await self._flush(items)
            except Unavailable as error:
                log.warning("worker.flush_retried", reason=str(error), items=len(items))
                await self._clock.sleep(pause)
                pause = min(pause * 2, LAST_RETRY_SECONDS)
