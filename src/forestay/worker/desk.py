"""What a worker tells the queue about its attempts, in batches, and whom it wakes afterwards.

It decides nothing. Attempts call `start`, `checking`, `finish` and `requeue` one by one; here they share statements. A
start waits a moment before it is stored: an attempt that ends sooner needs no row of its own for having started (the
finish stands for it). Called by `worker/attempt.py`.
"""

import asyncio
from collections.abc import Iterable, Sequence

from forestay.clock import Clock
from forestay.ids import RequestId
from forestay.queue.model import Finish, Lease, Requeue
from forestay.queue.store import QueueStore
from forestay.storage.valkey import Wakeups
from forestay.worker.batches import Batcher

START_LINGER_SECONDS = 0.02
MAX_OWN_ANNOUNCEMENTS = 20_000


class Desk:
    """One worker's side of the queue."""

    def __init__(self, queue: QueueStore, wakeups: Wakeups, clock: Clock) -> None:
        self._queue = queue
        self._wakeups = wakeups
        self._clock = clock
        self._starts = Batcher(self._start, clock)
        self._checks = Batcher(self._checking, clock)
        self._finishes = Batcher(self._finish, clock)
        self._requeues = Batcher(self._requeue, clock)
        self._announced: dict[str, int] = {}

    async def start(self, lease: Lease) -> bool:
        """Note that the host works on it; False when the lease is lost."""
        await self._clock.sleep(START_LINGER_SECONDS)
        return await self._starts.put(lease)

    async def checking(self, lease: Lease) -> bool:
        """Note that its output is being judged; False when the lease is lost."""
        return await self._checks.put(lease)

    async def finish(self, item: Finish) -> bool:
        """End it; False when the fence was stale: the result is refused."""
        return await self._finishes.put(item)

    async def requeue(self, item: Requeue) -> bool:
        """Give it back; False when the fence was stale."""
        return await self._requeues.put(item)

    async def run(self) -> None:
        """Work for ever."""
        async with asyncio.TaskGroup() as group:
            for batcher in (self._starts.run, self._checks.run, self._finishes.run, self._requeues.run):
                group.create_task(batcher())

    def is_own_announcement(self, text: str) -> bool:
        """Tell whether this id on `forestay:changed` is our own word coming back, once for each time we said it."""
        count = self._announced.pop(text, 0)
        if count > 1:
            self._announced[text] = count - 1
        return count > 0

    async def _start(self, leases: Sequence[Lease]) -> Sequence[bool]:
        held = await self._queue.start(leases)
        await self._announce(request_id for request_id, _ in held)
        return [(lease.request_id, lease.attempt) in held for lease in leases]

    async def _checking(self, leases: Sequence[Lease]) -> Sequence[bool]:
        held = await self._queue.checking(leases)
        return [(lease.request_id, lease.attempt) in held for lease in leases]

    async def _finish(self, items: Sequence[Finish]) -> Sequence[bool]:
        held = await self._queue.finish(items)
        await self._announce(request_id for request_id, _ in held)
        if any(item.lease.options.webhook_url for item in items):
            await self._wakeups.publish("forestay:webhooks", "")
        return [(item.lease.request_id, item.lease.attempt) in held for item in items]

    async def _requeue(self, items: Sequence[Requeue]) -> Sequence[bool]:
        held = await self._queue.requeue(items)
        await self._announce(request_id for request_id, _ in held)
        at_once = {item.lease.model_id for item in items if item.delay_seconds <= 0}
        if at_once:
            await self._wakeups.publish("forestay:queue", " ".join(sorted(at_once)))
        return [(item.lease.request_id, item.lease.attempt) in held for item in items]

    async def _announce(self, request_ids: Iterable[RequestId]) -> None:
        texts = [request_id.hex for request_id in request_ids]
        if not texts:
            return
        if len(self._announced) > MAX_OWN_ANNOUNCEMENTS:
            self._announced.clear()  # wake-ups got lost; at worst a few of our own cost one read each
        for text in texts:
            self._announced[text] = self._announced.get(text, 0) + 1
        await self._wakeups.publish("forestay:changed", " ".join(texts))
