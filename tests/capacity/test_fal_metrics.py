"""The fleet under fal's public names: what is there, what waits, what ended in the last minute."""

import datetime as dt

from tests.conformance.queue_harness import MODEL, finish, offer, postgres_harness, submission

from forestay.capacity.fal_metrics import FalMetrics, Seen, gauges_of
from forestay.fleet.model import Fleet, ReplicaReport, ReplicaState, WorkerReport
from forestay.fleet.postgres_store import PostgresFleetStore
from forestay.ids import ModelId, ReplicaId, RevisionId, WorkerId
from forestay.storage.objects import ObjectStore
from forestay.storage.postgres import Database
from forestay.storage.valkey import LocalWakeups
from forestay.telemetry.facts import ship
from forestay.telemetry.last_minute import Ended, PostgresLastMinute
from forestay.telemetry.metrics import FAL_COMPLETED, FAL_GPU_COUNT, FAL_LATENCY, FAL_QUEUE_SIZE, FAL_RUNNERS, Metrics

NOW = dt.datetime(2026, 5, 4, tzinfo=dt.UTC)


def _replica(name: str, state: ReplicaState) -> ReplicaReport:
    return ReplicaReport(
        replica_id=ReplicaId(name),
        worker_id=WorkerId("w"),
        revision_id=RevisionId("r"),
        model_id=ModelId("a/b"),
        state=state,
        slots=1,
        devices=2,
        direct_url=None,
        hints=(),
        detail="",
        failures=0,
        started_at=NOW,
        ready_at=NOW,
        last_used_at=None,
        seen_at=NOW,
    )


def test_replicas_are_runners_and_requests_fall_under_every_bound_that_they_kept() -> None:
    """States in fal's words; the histogram is cumulative, as Prometheus reads it."""
    replicas = [
        _replica("1", ReplicaState.READY),
        _replica("2", ReplicaState.SETUP),
        _replica("3", ReplicaState.BACKOFF),
    ]
    worker = WorkerReport(WorkerId("w"), "h100", "", 8, 1, "ready", NOW, NOW)
    fleet = Fleet(1, NOW, {}, {}, (), (), {worker.worker_id: worker}, {item.replica_id: item for item in replicas}, {})
    ended = [Ended(ModelId("a/b"), 200, 0.3, 4), Ended(ModelId("a/b"), 500, 4000.0, 1)]
    gauges = gauges_of(Seen(fleet, {}, {}, {}, ended))
    assert gauges[FAL_RUNNERS] == {
        ("a/b", "running", "h100"): 1,
        ("a/b", "pending", "h100"): 1,
        ("a/b", "dead", "h100"): 1,
    }
    assert gauges[FAL_GPU_COUNT] == {("a/b",): 6}
    assert gauges[FAL_COMPLETED] == {("a/b", "POST", "200"): 4, ("a/b", "POST", "500"): 1}
    latency = gauges[FAL_LATENCY]
    assert [latency["a/b", bound] for bound in ("0.25", "0.5", "3600", "+Inf")] == [0, 4, 4, 5]


async def test_gauges_of_what_is_gone_are_gone(database: Database, objects: ObjectStore) -> None:
    """Set anew each time from the stores: what ended an hour ago is not told as of now."""
    metrics = Metrics()
    async with postgres_harness(database, objects) as harness:
        fal = FalMetrics(
            PostgresFleetStore(database, LocalWakeups()), harness.store, PostgresLastMinute(database), metrics
        )
        await harness.store.submit([submission(harness)], {})
        await harness.store.finish(
            [finish(lease) for lease in await harness.store.claim(WorkerId("w"), [offer(1)], 15)]
        )
        await ship(database, database)
        await fal.run_once()
        assert metrics.value(FAL_COMPLETED, MODEL, "POST", "200") == 1
        await database.execute("UPDATE request_facts SET finished_at = finished_at - interval '1 hour'")
        await fal.run_once()
    assert metrics.value(FAL_COMPLETED, MODEL, "POST", "200") == 0
    assert b"fal_app_requests_completed{" not in metrics.exposition()
    assert metrics.value(FAL_QUEUE_SIZE, MODEL) == 0
