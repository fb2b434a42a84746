"""The placement loop: what it observes, what it applies, and that running it twice changes nothing."""

import dataclasses
import datetime as dt
from collections.abc import Sequence
from typing import cast

from tests.conformance.fleet_values import DIGITS, deploy, replica_of, revision_of, worker_of
from tests.conformance.memory_fleet import ManualClock, MemoryFleetStore

from forestay.capacity.loop import PlacementLoop
from forestay.fleet.actions import Freeze, Origin
from forestay.fleet.model import ReplicaState
from forestay.ids import ModelId, ReplicaId
from forestay.queue.store import QueueStore


class WaitingQueue:
    """The two questions that the loop asks of a queue."""

    def __init__(self) -> None:
        self.waiting: dict[ModelId, list[dt.datetime]] = {}

    async def backlog(self) -> dict[ModelId, int]:
        """Count waiting requests per model."""
        return {model_id: len(moments) for model_id, moments in self.waiting.items()}

    async def queued_ahead(self, model_ids: Sequence[ModelId], most: int = 1000) -> dict[ModelId, list[dt.datetime]]:
        """Return the order times."""
        return {model_id: self.waiting[model_id][:most] for model_id in model_ids}


def loop_of(store: MemoryFleetStore, queue: WaitingQueue) -> PlacementLoop:
    """A loop over the fakes."""
    return PlacementLoop(store, cast("QueueStore", queue))


async def deployed(clock: ManualClock) -> MemoryFleetStore:
    """A store with one model and one worker."""
    store = MemoryFleetStore(clock)
    await store.apply(deploy(revision_of()), origin=Origin.HUMAN, actor="human:k1")
    await store.report(worker_of(), [])
    return store


async def test_a_waiting_request_loads_its_model_once() -> None:
    """The second run finds it placed; the audit row tells the reason."""
    clock, queue = ManualClock(), WaitingQueue()
    store = await deployed(clock)
    queue.waiting[DIGITS] = [clock.now()]
    loop = loop_of(store, queue)
    assert await loop.run_once() == 1
    assert await loop.run_once() == 0
    [row] = await store.audit_rows(subject="placement:w1/digits-1", before=None, limit=5)
    assert "loaded nowhere" in row.entry.reason
    assert row.entry.actor == "loop:capacity"


async def test_a_direct_call_loads_its_model() -> None:
    """Demand alone suffices."""
    store = await deployed(ManualClock())
    await store.want(DIGITS)
    assert await loop_of(store, WaitingQueue()).run_once() == 1


async def test_a_dead_worker_is_retired_and_its_model_placed_elsewhere() -> None:
    """What it held is forgotten with it."""
    clock, queue = ManualClock(), WaitingQueue()
    store = await deployed(clock)
    queue.waiting[DIGITS] = [clock.now()]
    loop = loop_of(store, queue)
    await loop.run_once()
    await store.report(worker_of(), [replica_of(revision_of())])
    clock.advance(60)
    await store.report(worker_of("w2"), [])
    assert await loop.run_once() == 2
    fleet = await store.load()
    assert set(fleet.workers) == {"w2"}
    assert [(item.worker_id, item.replicas) for item in fleet.placements] == [("w2", 1)]


async def test_a_frozen_fleet_is_left_alone() -> None:
    """The loop asks; the door refuses."""
    store, queue = await deployed(ManualClock()), WaitingQueue()
    await store.apply([Freeze(frozen=True, reason="drill")], origin=Origin.HUMAN, actor="human:k1")
    await store.want(DIGITS)
    assert await loop_of(store, queue).run_once() == 0
    assert (await store.load()).placements == ()


async def test_a_model_that_was_just_served_waits_its_turn() -> None:
    """With one device, the model that made way does not come straight back before the one it made way for."""
    clock, queue = ManualClock(), WaitingQueue()
    store = await deployed(clock)
    other = revision_of("tones-1", ModelId("acme/tones"))
    await store.apply(deploy(other), origin=Origin.HUMAN, actor="human:k1")
    loop = loop_of(store, queue)
    queue.waiting[DIGITS] = [clock.now()]
    await loop.run_once()
    ready = replica_of(revision_of())
    await store.report(worker_of(), [ready])
    clock.advance(40)
    queue.waiting[other.model_id] = [clock.now()]
    clock.advance(1)
    await store.report(worker_of(), [ready])
    assert await loop.run_once() == 1  # digits makes room, though its own queue is older
    await store.report(worker_of(), [dataclasses.replace(ready, state=ReplicaState.DRAINING)])
    assert await loop.run_once() == 0
    await store.report(worker_of(), [])
    assert await loop.run_once() == 1
    [placement] = (await store.load()).placements
    assert placement.revision_id == "tones-1"
    assert ReplicaId("r1") not in (await store.load()).replicas
