"""The shedding loop over the fakes of queue and fleet, and what counts as serving a model."""

import dataclasses
import datetime as dt

import pytest
from tests.conformance.fleet_values import replica_of, revision_of, worker_of
from tests.conformance.memory_fleet import ManualClock, MemoryFleetStore
from tests.conformance.queue_harness import MODEL, MemoryHarness, memory_harness, submission

from forestay.capacity.serving import UNKNOWN_START_SECONDS, slots_of
from forestay.capacity.shed_loop import SheddingLoop
from forestay.fleet.actions import Freeze, Origin, RegisterRevision, SetRoutes
from forestay.fleet.model import ReplicaState, Route
from forestay.fleet.spec import ResourceSpec
from forestay.ids import BUCKETS, ModelId, TenantId
from forestay.queue.model import Options, State
from forestay.storage.valkey import LocalWakeups
from forestay.telemetry.metrics import SHED, Metrics

REVISION = revision_of("digits-1", MODEL, ResourceSpec("cpu", 1, 100))


async def fleet_with(clock: ManualClock, *states: ReplicaState) -> MemoryFleetStore:
    """A fleet with one worker and a replica in each of these states."""
    fleet = MemoryFleetStore(clock)
    routes = (Route(MODEL, REVISION.revision_id, 0, BUCKETS),)
    actions = [RegisterRevision(REVISION, TenantId("acme"), "shared", "test"), SetRoutes(MODEL, routes, "test")]
    await fleet.apply(actions, origin=Origin.HUMAN, actor="human:test")
    worker = dataclasses.replace(worker_of("w1", devices=8), seen_at=clock.now(), started_at=clock.now())
    replicas = [
        dataclasses.replace(
            replica_of(REVISION, "w1", name=f"r{n}", state=state), started_at=clock.now(), seen_at=clock.now(),
            ready_at=clock.now() if state is ReplicaState.READY else None,
            slots=1 if state is ReplicaState.READY else 0,  # as workers report: none before it is open
        )
        for n, state in enumerate(states)
    ]  # fmt: skip
    await fleet.report(worker, replicas)
    return fleet


async def waiting(harness: MemoryHarness, count: int, seconds: float, within: float | None) -> None:
    """Let requests wait."""
    deadline = None if within is None else harness.now() + dt.timedelta(seconds=within)
    for _ in range(count):
        item = submission(harness, options=Options(start_deadline=deadline))
        await harness.store.submit([dataclasses.replace(item, predicted_seconds=seconds)], {})


async def test_what_lost_capacity_cannot_serve_is_ended_with_its_answer() -> None:
    """A hundred requests of ten seconds due in thirty, one slot: most are told at once, the rest goes on waiting."""
    harness, metrics = memory_harness(), Metrics()
    fleet = await fleet_with(harness.clock, ReplicaState.READY)
    await waiting(harness, 100, 10.0, 30.0)
    loop = SheddingLoop(harness.store, fleet, LocalWakeups(), metrics)
    ended = await loop.run_once()
    assert 50 < ended < 100
    assert (await harness.store.backlog())[MODEL] == 100 - ended
    assert metrics.value(SHED, "late") == ended
    states = {fact.state for fact in harness.store.request_facts}
    assert states == {State.EXPIRED}
    assert await loop.run_once() == 0


@pytest.mark.parametrize("within", [None, 3600.0])
async def test_a_queue_that_can_wait_is_left_alone(within: float | None) -> None:
    """Without deadlines, or with time enough."""
    harness = memory_harness()
    await waiting(harness, 50, 10.0, within)
    fleet = await fleet_with(harness.clock, ReplicaState.READY)
    assert await SheddingLoop(harness.store, fleet, LocalWakeups(), Metrics()).run_once() == 0


async def test_what_waits_for_the_only_replica_to_load_is_left_alone() -> None:
    """It loads in time for them; that it has no slot to report yet is no reason to end them."""
    harness = memory_harness()
    fleet = await fleet_with(harness.clock, ReplicaState.SETUP)
    await waiting(harness, 3, 1.0, 120.0)
    assert await SheddingLoop(harness.store, fleet, LocalWakeups(), Metrics()).run_once() == 0


async def test_a_frozen_fleet_sheds_nothing() -> None:
    """A person has stopped automation."""
    harness = memory_harness()
    fleet = await fleet_with(harness.clock, ReplicaState.READY)
    await fleet.apply([Freeze(frozen=True, reason="incident")], origin=Origin.HUMAN, actor="human:test")
    await waiting(harness, 100, 10.0, 5.0)
    assert await SheddingLoop(harness.store, fleet, LocalWakeups(), Metrics()).run_once() == 0


async def test_what_serves_a_model_is_what_is_ready_and_what_is_loading() -> None:
    """A silent worker serves nothing; a model that no worker can hold is never served."""
    clock = ManualClock()
    fleet = await fleet_with(clock, ReplicaState.READY, ReplicaState.SETUP, ReplicaState.BACKOFF)
    seen = await fleet.load()
    slots = slots_of(seen, MODEL)
    assert slots.count == sum(item.slots for item in seen.replicas.values() if item.state is ReplicaState.READY)
    assert len(slots.coming) == 1
    assert slots_of(seen, ModelId("no/model")).final_rate == 0.0
    late = dataclasses.replace(seen, now=seen.now + dt.timedelta(seconds=60))
    assert slots_of(late, MODEL).final_rate == 0.0
    assert slots.coming[0][1] == REVISION.spec.limits.max_multiplexing  # a worker reports no slots before it is open
    alone = await (await fleet_with(ManualClock(), ReplicaState.SETUP)).load()
    assert slots_of(alone, MODEL).final_rate == REVISION.spec.limits.max_multiplexing
    empty = await fleet_with(ManualClock())
    [(seconds, rate)] = slots_of(await empty.load(), MODEL).coming
    assert (seconds, rate > 0) == (UNKNOWN_START_SECONDS, True)
