"""Waiting for a slot in the direct lane: whose turn it is, and for how long a busy worker is asked again."""

import asyncio

from tests.gateway.world import World, replica_of

from forestay.gateway.slots import LOOK_SECONDS, Slots
from forestay.ids import RevisionId

REVISION = RevisionId("echo-1")


async def test_a_call_outlasts_a_worker_whose_slots_queued_requests_have(world: World) -> None:
    """However often the worker has no slot, the call stays in line until its own deadline; it is no failure."""
    await world.set_replica(replica_of(None, slots=1))
    world.worker.busy = 6
    reply = await world.call("POST", "/run/acme/echo", {"prompt": "a"})
    assert reply.status == 200
    assert world.worker.busy == 0


async def test_a_call_that_never_gets_a_slot_expires_as_not_started(world: World) -> None:
    """The caller's own limit ends the waiting with a 504, and the fact says that it never ran."""
    await world.set_replica(replica_of(None, slots=1))
    world.worker.busy = 1_000
    reply = await world.call("POST", "/run/acme/echo", {"prompt": "a"}, {"X-Fal-Request-Timeout": "0.4"})
    assert (reply.status, reply.headers["x-fal-request-timeout-type"]) == (504, "user")
    await world.gateway.direct.facts.flush()
    ((outcome, attempts),) = [(str(fact.outcome), fact.attempts) for fact in world.facts.kept]
    assert (outcome, attempts) == ("expired", 0)


async def test_a_slot_that_comes_free_goes_to_the_next_in_line_at_once(world: World) -> None:
    """A worker that lends no more than is used does not keep the slots that are held from being used again."""
    await world.set_replica(replica_of(world.model.url, slots=2))
    slots = Slots(world.gateway.fleet, world.ports.clock)
    (pool,) = slots.pools_of(REVISION)
    slots.grant(pool, 1, 10.0)
    assert slots.take(REVISION, None) is pool
    slots.grant(pool, 1, 10.0)  # asked for more, and there was none
    assert slots.askable(REVISION) is None
    async with asyncio.timeout(LOOK_SECONDS / 2), asyncio.TaskGroup() as group:
        waiting = group.create_task(slots.wait(REVISION, 10.0))
        await asyncio.sleep(0)
        slots.give_back(pool)
        await waiting
    assert slots.take(REVISION, None) is pool


async def test_the_next_in_line_looks_again_when_a_busy_replica_reopens(world: World) -> None:
    """Nobody sleeps through the end of a replica's closed moment."""
    await world.set_replica(replica_of(None, slots=1))
    slots = Slots(world.gateway.fleet, world.ports.clock)
    (pool,) = slots.pools_of(REVISION)
    slots.close(pool, 0.02)
    assert slots.take(REVISION, None) is None
    async with asyncio.timeout(LOOK_SECONDS / 2):
        await slots.wait(REVISION, 10.0)
    assert slots.take(REVISION, None) is pool
