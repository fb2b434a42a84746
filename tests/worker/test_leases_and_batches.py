"""Leases are kept whatever the main loop does; batches share statements and survive a lost database."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import asynccontextmanager

from tests.conformance.memory_queue import MemoryQueueStore
from tests.worker.harness import KEY, MODEL, TENANT, WORKER, until

from forestay.chance import SystemChance
from forestay.clock import SystemClock
from forestay.errors import Unavailable
from forestay.ids import BUCKETS, ReplicaId, RequestId, RevisionId, new_request_id
from forestay.queue import answers
from forestay.queue.model import Lease, Submission
from forestay.queue.store import Held, Offer, QueueStore
from forestay.worker.batches import Batcher
from forestay.worker.lease_keeper import LeaseKeeper

Fence = tuple[RequestId, int]


async def leased(queue: MemoryQueueStore, clock: SystemClock, lease_seconds: float) -> Lease:
    """Submit and claim one request."""
    request_id = new_request_id(clock.now(), 0, SystemChance())
    await queue.submit([Submission(request_id, TENANT, KEY, MODEL, "/", b"{}", clock.now())], {})
    offer = Offer(ReplicaId("r1"), RevisionId("probe-1"), MODEL, ((0, BUCKETS),), 1, idle=True)
    return (await queue.claim(WORKER, [offer], lease_seconds))[0]


def opener(queue: QueueStore, used_on: list[int] | None = None) -> "object":
    """Return a way to the queue that notes the thread that uses it."""

    @asynccontextmanager
    async def open_queue() -> AsyncGenerator[QueueStore, None]:
        if used_on is not None:
            used_on.append(threading.get_ident())
        yield queue

    return open_queue


async def test_a_blocked_main_loop_does_not_cost_the_lease() -> None:
    """The renewal comes from a thread and loop of its own."""
    clock = SystemClock()
    queue = MemoryQueueStore(clock)
    lease = await leased(queue, clock, 0.3)
    threads: list[int] = []
    keeper = LeaseKeeper(WORKER, opener(queue, threads), 0.3)  # type: ignore[arg-type]
    lost: list[Fence] = []
    keeper.start(lost.extend)
    keeper.keep([(lease.request_id, lease.attempt)])
    clock.block(1.0)  # nothing else runs on this loop meanwhile
    assert await queue.rescue(10) == []
    assert lost == []
    assert threads != [threading.get_ident()]
    await keeper.stop()


async def test_a_lease_that_was_taken_away_is_told_on_the_main_loop() -> None:
    """And only once."""
    clock = SystemClock()
    queue = MemoryQueueStore(clock)
    lease = await leased(queue, clock, 5)
    keeper = LeaseKeeper(WORKER, opener(queue), 0.15)  # type: ignore[arg-type]
    told: list[tuple[int, Collection[Fence]]] = []
    keeper.start(lambda fences: told.append((threading.get_ident(), list(fences))))
    keeper.keep([(lease.request_id, lease.attempt)])
    await queue.cancel(lease.request_id, answers.cancelled())

    async def heard() -> bool:
        return bool(told)

    await until(heard, "the loss is told", 3)
    await asyncio.sleep(0.2)
    assert told == [(threading.get_ident(), [(lease.request_id, lease.attempt)])]
    await keeper.stop()


class Flaky(MemoryQueueStore):
    """A queue whose renewals fail for a while."""

    failures = 3

    async def renew(self, worker_id: object, leases: Sequence[Fence], lease_seconds: float) -> list[Held]:
        """Fail, then work."""
        del worker_id
        if self.failures > 0:
            self.failures -= 1
            raise Unavailable("the database is away")
        return await super().renew(WORKER, leases, lease_seconds)


async def test_a_silent_database_costs_no_attempt() -> None:
    """Renewals are tried again; nothing counts as lost until the queue says so."""
    clock = SystemClock()
    queue = Flaky(clock)
    lease = await leased(queue, clock, 5)
    keeper = LeaseKeeper(WORKER, opener(queue), 0.15)  # type: ignore[arg-type]
    lost: list[Fence] = []
    keeper.start(lost.extend)
    keeper.keep([(lease.request_id, lease.attempt)])

    async def renewed() -> bool:
        return keeper.renewals >= 2

    await until(renewed, "renewals work again", 5)
    assert lost == []
    await keeper.stop()


async def test_items_that_come_together_share_a_flush() -> None:
    """While one flush is on its way the next gathers; answers find their askers."""
    batches: list[int] = []

    async def flush(items: Sequence[int]) -> list[int]:
        batches.append(len(items))
        await asyncio.sleep(0.01)
        return [item * 2 for item in items]

    batcher = Batcher(flush, SystemClock(), limit=50)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(batcher.run())
        assert await asyncio.gather(*(batcher.put(number) for number in range(120))) == [n * 2 for n in range(120)]
        running.cancel()
    assert max(batches) <= 50
    assert len(batches) <= 4


async def test_a_flush_is_tried_again_while_the_database_is_away() -> None:
    """No item is lost to an outage."""
    tries = 0

    async def flush(items: Sequence[str]) -> list[str]:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise Unavailable("away")
        return list(items)

    batcher = Batcher(flush, SystemClock())
    async with asyncio.TaskGroup() as group:
        running = group.create_task(batcher.run())
        assert await batcher.put("kept") == "kept"
        running.cancel()
    assert tries == 3


async def test_an_item_that_cannot_be_stored_now_holds_nobody_up() -> None:
    """While one waits for a full disk to be emptied, its neighbours and whatever comes later are stored."""
    full = True

    async def flush(items: Sequence[int]) -> list[int]:
        if full and 3 in items:
            raise Unavailable("no space left on device")
        return list(items)

    batcher = Batcher(flush, SystemClock())
    async with asyncio.TaskGroup() as group:
        running = group.create_task(batcher.run())
        waiting = [group.create_task(batcher.put(number)) for number in range(6)]
        async with asyncio.timeout(5):
            await asyncio.wait([task for number, task in enumerate(waiting) if number != 3])
        assert await batcher.put(7) == 7
        assert not waiting[3].done()
        full = False
        async with asyncio.timeout(5):
            assert await waiting[3] == 3
        running.cancel()


async def test_an_item_that_cannot_be_stored_fails_alone() -> None:
    """Its neighbours in the same batch are stored all the same."""

    async def flush(items: Sequence[int]) -> list[int]:
        if 3 in items:
            raise ValueError("three cannot be stored")
        return list(items)

    batcher = Batcher(flush, SystemClock())
    async with asyncio.TaskGroup() as group:
        running = group.create_task(batcher.run())
        made = await asyncio.gather(*(batcher.put(number) for number in range(6)), return_exceptions=True)
        running.cancel()
    assert [item for item in made if not isinstance(item, BaseException)] == [0, 1, 2, 4, 5]
    assert isinstance(made[3], ValueError)
