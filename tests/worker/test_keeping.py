"""Replicas kept as placements ask, with hosts that end or begin slowly."""

import asyncio
from collections.abc import Mapping

from tests.worker.harness import TENANT, WORKER, MemoryFleetStore, spec_of, until

from forestay.chance import SystemChance
from forestay.clock import SystemClock
from forestay.fleet.actions import Origin, Place, RegisterRevision
from forestay.fleet.model import ReplicaState, Revision, WorkerReport
from forestay.ids import ModelId, RevisionId
from forestay.settings import Settings, Worker
from forestay.telemetry.metrics import Metrics
from forestay.worker.hosts.host import Description, Host, StartFailed
from forestay.worker.keeping import ReplicaKeeper
from forestay.worker.replica import Replica


class SlowToEnd:
    """A host that cannot start, and whose process takes its time to end."""

    def __init__(self, may_end: asyncio.Event) -> None:
        self._may_end = may_end

    async def start(self) -> Description:
        """Fail."""
        raise StartFailed("no device")

    async def stop(self, grace_seconds: float) -> None:
        """End when the test says so."""
        del grace_seconds
        await self._may_end.wait()


class SlowToStart(SlowToEnd):
    """A host that is loading until the test says so."""

    async def start(self) -> Description:
        """Load, then fail."""
        await self._may_end.wait()
        raise StartFailed("loaded for long enough")


async def test_after_a_kill_the_model_that_requests_wait_for_loads_first() -> None:
    """The worker asks the queue who waits; the other model's turn comes when that load is over."""
    clock, made, loaded = SystemClock(), list[str](), asyncio.Event()

    async def make_host(replica: Replica) -> Host:
        made.append(replica.revision.revision_id)
        return SlowToStart(loaded)  # type: ignore[return-value] - no call reaches it

    async def backlog() -> Mapping[ModelId, int]:
        return {ModelId("acme/wanted"): 3}

    store = MemoryFleetStore(clock)
    keeper = ReplicaKeeper(
        WORKER,
        fleet=store,
        make_host=make_host,
        settings=Settings(),
        clock=clock,
        chance=SystemChance(),
        metrics=Metrics(),
    )
    keeper.backlog = backlog
    await store.report(WorkerReport(WORKER, "cpu", "", 4, 8_000, "ready", clock.now(), clock.now()), [])
    for name in ("idle", "wanted"):
        spec = spec_of(model=ModelId(f"acme/{name}"))
        revision = Revision(RevisionId(f"{name}-1"), spec.model_id, name, spec, None, None, clock.now())
        asked = [RegisterRevision(revision, TENANT, "shared", "test"), Place(WORKER, revision.revision_id, 1, "test")]
        await store.apply(asked, origin=Origin.HUMAN, actor="test")

    async def one_loads() -> bool:
        return bool(made)

    async def both_came() -> bool:
        return len(made) == 2

    async with asyncio.TaskGroup() as group:
        loop = group.create_task(keeper.run(group))
        await until(one_loads, "the first of them loads")
        first = list(made)
        loaded.set()
        await until(both_came, "the other one has its turn")
        loop.cancel()
    assert (first, made) == (["wanted-1"], ["wanted-1", "idle-1"])


async def test_the_next_start_waits_from_the_failure_on_however_long_the_failed_process_takes_to_end() -> None:
    """While the old process is still ending, nothing new starts, and the fleet sees the back-off."""
    clock, made, may_end = SystemClock(), list[Replica](), asyncio.Event()

    async def make_host(replica: Replica) -> Host:
        made.append(replica)
        return SlowToEnd(may_end)  # type: ignore[return-value] - no call reaches it

    store = MemoryFleetStore(clock)
    settings = Settings(worker=Worker(start_backoff_seconds=60, start_backoff_cap_seconds=60, report_seconds=0.05))
    keeper = ReplicaKeeper(
        WORKER,
        fleet=store,
        make_host=make_host,
        settings=settings,
        clock=clock,
        chance=SystemChance(),
        metrics=Metrics(),
    )
    worker = WorkerReport(WORKER, "cpu", "", 4, 8_000, "ready", clock.now(), clock.now())
    await store.report(worker, [])
    revision = Revision(RevisionId("probe-1"), spec_of().model_id, "probe-1", spec_of(), None, None, clock.now())
    asked = [RegisterRevision(revision, TENANT, "shared", "test"), Place(WORKER, revision.revision_id, 1, "test")]
    await store.apply(asked, origin=Origin.HUMAN, actor="test")

    async def in_back_off() -> bool:
        found = [item.state for item in (await store.load()).replicas.values()]
        return sorted(found) == [ReplicaState.BACKOFF, ReplicaState.DRAINING]

    async with asyncio.TaskGroup() as group:
        loops = [group.create_task(keeper.run(group)), group.create_task(keeper.report_for_ever(lambda: worker))]
        await until(in_back_off, "the back-off is told while the process ends")
        may_end.set()
        await until(lambda: _gone(keeper), "the process has ended")
        for loop in loops:
            loop.cancel()
    assert len(made) == 1


async def _gone(keeper: ReplicaKeeper) -> bool:
    return not keeper.all_replicas()
