"""Facts reach their tables, each exactly once."""

import dataclasses
import datetime as dt
import io
import json

import msgspec
import structlog
from tests.conformance.queue_harness import MODEL, Harness, finish, offer, postgres_harness, report, requeue, submission

from forestay.chance import SystemChance
from forestay.clock import SystemClock
from forestay.delivery.decide import Dead, Delivered, Retry
from forestay.delivery.outbox import ClaimLimits, PostgresOutbox
from forestay.ids import KeyId, ModelId, RequestId, TenantId, WorkerId, new_request_id
from forestay.queue import answers
from forestay.queue.model import Options, State
from forestay.storage.objects import ObjectStore
from forestay.storage.postgres import Database
from forestay.telemetry.facts import FactWriter, RequestFact, drop_partitions, keep_partitions, make_partitions, ship
from forestay.telemetry.logs import configure

WORKER = WorkerId("w")


async def _one_of_each_end(harness: Harness) -> None:
    """One request succeeds at its second attempt, one is cancelled while it runs, one while it waits."""
    items = [submission(harness, options=Options(webhook_url="https://example.com/")) for _ in range(3)]
    await harness.store.submit(items, {})
    leases = await harness.store.claim(WORKER, [offer(2)], 15)
    await harness.store.requeue([requeue(leases[0])])
    await harness.store.cancel(items[1].request_id, answers.cancelled())
    await harness.store.abandon(leases[1], report(leases[1]))
    [lease] = await harness.store.claim(WORKER, [offer(1)], 15)
    await harness.store.finish([finish(lease)])
    await harness.store.cancel(items[2].request_id, answers.cancelled())


async def test_every_request_and_every_attempt_has_its_fact(database: Database, objects: ObjectStore) -> None:
    """Three requests with three attempts give three and three; a webhook row stands for each."""
    async with postgres_harness(database, objects) as harness:
        await _one_of_each_end(harness)
    await make_partitions(database, SystemClock())
    assert await ship(database, database) == 5
    requests = await database.fetch("SELECT state, attempts, outcome, work FROM request_facts ORDER BY submitted_at")
    assert [tuple(row) for row in requests] == [
        ("succeeded", 2, "succeeded", {"images": 1.0}),
        ("cancelled", 1, "cancelled", {"predicted_seconds": 1.0}),  # what settlement gives back
        ("cancelled", 0, "cancelled", {"predicted_seconds": 1.0}),
    ]
    attempts = await database.fetch("SELECT outcome, attempt FROM attempt_facts ORDER BY submitted_at, attempt")
    assert [tuple(row) for row in attempts] == [("model_error", 1), ("succeeded", 2), ("succeeded", 1)]
    assert await database.fetchval("SELECT count(*) FROM webhooks") == 3
    assert await ship(database, database) == 0


async def test_a_rescued_attempt_is_not_told_twice(database: Database, objects: ObjectStore) -> None:
    """The rescue writes the lost attempt's fact; the slow worker that reports it later adds none."""
    async with postgres_harness(database, objects) as harness:
        await harness.store.submit([submission(harness)], {})
        [lease] = await harness.store.claim(WORKER, [offer(1)], 15)
        await harness.advance(16)
        await harness.store.rescue(10)
        await harness.store.abandon(lease, report(lease))
    await ship(database, database)
    assert [row[0] for row in await database.fetch("SELECT outcome FROM attempt_facts")] == ["worker_lost"]


async def test_shipping_again_after_a_crash_adds_nothing(database: Database, objects: ObjectStore) -> None:
    """A batch whose removal from the outbox was lost lands on its own keys."""
    async with postgres_harness(database, objects) as harness:
        await _one_of_each_end(harness)
    await database.execute("CREATE TABLE saved AS TABLE fact_outbox")
    await ship(database, database)
    await database.execute("INSERT INTO fact_outbox (facts) SELECT facts FROM saved")
    assert await ship(database, database) == 5
    assert await database.fetchval("SELECT count(*) FROM request_facts") == 3
    assert await database.fetchval("SELECT count(*) FROM attempt_facts") == 3


async def test_facts_of_the_direct_lane_are_appended_once(database: Database) -> None:
    """A batch that is written again after an unclear answer adds nothing."""
    now = SystemClock().now()
    fact = RequestFact(
        request_id=_request_id(now),
        lane="direct",
        tenant_id=TenantId("t"),
        key_id=KeyId("k"),
        model_id=ModelId("a/b"),
        endpoint="/",
        revision_id=None,
        replica_id=None,
        attempts=1,
        state=State.SUCCEEDED.value,
        outcome="succeeded",
        status_code=200,
        error_type=None,
        submitted_at=now,
        started_at=None,
        finished_at=now,
        device_seconds=0.5,
        work={"images": 1.0},
    )
    batch = [fact, msgspec.structs.replace(fact, endpoint="/2", request_id=_request_id(now))]
    writer = FactWriter(database)
    await writer.write(batch)
    await writer.write(batch)
    rows = await database.fetch("SELECT endpoint, work FROM request_facts ORDER BY endpoint")
    assert [tuple(row) for row in rows] == [("/", {"images": 1.0}), ("/2", {"images": 1.0})]


async def test_old_days_of_facts_are_dropped_whole(database: Database) -> None:
    """Partitions are made ahead and dropped by their day."""
    assert await make_partitions(database, SystemClock()) == 16
    dropped = await drop_partitions(database, SystemClock().now() + dt.timedelta(days=1))
    assert len(dropped) == 4


async def test_the_facts_loop_keeps_the_days_of_its_retention_and_no_others(database: Database) -> None:
    """A day past its retention goes whole; today and the coming days are there; a second run changes nothing."""
    clock = SystemClock()
    old = clock.now() - dt.timedelta(days=40)
    await database.execute(
        "SELECT forestay_make_partition('request_facts', $1, 'finished_at', $2, $3)",
        f"{old:%Y%m%d}",
        f"{old:%Y-%m-%d}",
        f"{old + dt.timedelta(days=1):%Y-%m-%d}",
    )
    assert await keep_partitions(database, clock, 30 * 86400.0) == 17
    assert await keep_partitions(database, clock, 30 * 86400.0) == 0


async def test_a_request_tells_when_each_of_its_stages_was_reached(database: Database, objects: ObjectStore) -> None:
    """Accepted, queued, leased, started, answered, checked, stored: in that order, with device, cause and trace."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with postgres_harness(database, objects) as harness:
        options = Options(tags={"note": '"traceparent":"no"'}, traceparent=trace)
        await harness.store.submit([submission(harness, options=options)], {})
        [lease] = await harness.store.claim(WORKER, [offer(1)], 15)
        await harness.store.start([lease])
        done = finish(lease)
        at = harness.now()
        told = dataclasses.replace(done.report, finished_at=at, checked_at=at, device="GPU-7")
        await harness.store.finish([dataclasses.replace(done, report=told)])
    await ship(database, database)
    [fact] = await database.fetch("SELECT * FROM request_facts")
    stages = ("queued_at", "leased_at", "started_at", "answered_at", "checked_at", "finished_at")
    moments = [fact["submitted_at"], *(fact[name] for name in stages)]
    assert moments == sorted(moments)
    told_too = [fact[name] for name in ("device", "traceparent", "worker_id", "cause", "traffic")]
    assert told_too == ["GPU-7", trace, "w", None, "caller"]
    [attempt] = await database.fetch("SELECT * FROM attempt_facts")
    assert [attempt[name] for name in ("device", "checked_at", "finished_at")] == ["GPU-7", at, at]


async def test_a_request_without_a_trace_does_not_take_one_from_its_tags(
    database: Database, objects: ObjectStore
) -> None:
    """What a caller calls so is a tag and nothing else."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with postgres_harness(database, objects) as harness:
        await harness.store.submit([submission(harness, options=Options(tags={"traceparent": trace}))], {})
        [lease] = await harness.store.claim(WORKER, [offer(1)], 15)
        await harness.store.finish([finish(lease)])
    await ship(database, database)
    [fact] = await database.fetch("SELECT * FROM request_facts")
    assert (fact["traceparent"], fact["tags"]) == (None, {"traceparent": trace})


async def test_a_request_leaves_one_wide_line_without_its_prompt(database: Database, objects: ObjectStore) -> None:
    """Who, what, where, how it ended, and the seconds of each stage; shipped twice it is told once."""
    before, stream = structlog.get_config(), io.BytesIO()
    configure("controller", stream=stream)
    try:
        async with postgres_harness(database, objects) as harness:
            await harness.store.submit([submission(harness, body=b'{"prompt": "a hidden lighthouse"}')], {})
            await harness.store.finish([finish(lease) for lease in await harness.store.claim(WORKER, [offer(1)], 15)])
        await ship(database, database)
        await ship(database, database)
    finally:
        configure("tests", level="warning", stream=io.BytesIO())
        structlog.configure(**before)
    [line] = [json.loads(text) for text in stream.getvalue().splitlines() if b"request.ended" in text]
    assert (line["model_id"], line["outcome"], line["worker_id"], line["attempts"]) == (MODEL, "succeeded", "w", 1)
    assert {"latency_seconds", "queue_wait_seconds", "run_seconds", "store_seconds"} <= line.keys()
    assert b"lighthouse" not in stream.getvalue()


async def test_a_failed_attempt_tells_who_is_to_blame(database: Database, objects: ObjectStore) -> None:
    """Attempts that are given back carry a cause; a cancel is the caller's doing; a probe's tenant is told apart."""
    async with postgres_harness(database, objects) as harness:
        await _one_of_each_end(harness)
    await ship(database, database, probe_tenants={"tenant-1"})
    attempts = await database.fetch("SELECT cause, traffic FROM attempt_facts ORDER BY submitted_at, attempt")
    assert [tuple(row) for row in attempts] == [("model", "probe"), (None, "probe"), (None, "probe")]
    requests = await database.fetch("SELECT cause FROM request_facts ORDER BY submitted_at")
    assert [row[0] for row in requests] == [None, "caller", "caller"]


async def test_what_became_of_a_webhook_is_a_fact_of_its_own(database: Database, objects: ObjectStore) -> None:
    """A notice that arrived and one that was given up are told once each; one to be tried again is not yet."""
    outbox, limits = PostgresOutbox(database), ClaimLimits(10, 10, 15.0, 15.0)
    async with postgres_harness(database, objects) as harness:
        options = Options(webhook_url="https://example.com/")
        await harness.store.submit([submission(harness, options=options) for _ in range(3)], {})
        leases = await harness.store.claim(WORKER, [offer(3)], 15)
        await harness.store.finish([finish(lease) for lease in leases])
        now = harness.now()
    delivered, dead, again = await outbox.claim(limits, [])
    for due, fate in ((delivered, Delivered("200")), (dead, Dead("gone")), (again, Retry(now, "500"))):
        assert await outbox.settle(due, fate, 200)
    assert not await outbox.settle(delivered, Dead("late"), 500)
    await ship(database, database)
    found = await database.fetch("SELECT outcome, tries, model_id FROM delivery_facts ORDER BY finished_at")
    assert [tuple(row) for row in found] == [("delivered", 1, "acme/digits"), ("dead", 1, "acme/digits")]
    assert await database.fetchval("SELECT bool_and(request_finished_at <= finished_at) FROM delivery_facts") is True


async def test_positions_are_in_order_of_commit_over_all_facts(database: Database, objects: ObjectStore) -> None:
    """No two rows share one, whatever table they are in."""
    async with postgres_harness(database, objects) as harness:
        await _one_of_each_end(harness)
    await ship(database, database)
    rows = await database.fetch("SELECT position FROM request_facts UNION ALL SELECT position FROM attempt_facts")
    assert len({row[0] for row in rows}) == 6


def _request_id(now: dt.datetime) -> RequestId:
    return new_request_id(now, 0, SystemChance())


async def test_a_request_refused_at_submit_has_a_fact_and_no_attempt(database: Database, objects: ObjectStore) -> None:
    """Told as safety's doing; nothing ran, so nothing is charged."""
    async with postgres_harness(database, objects) as harness:
        await harness.store.refuse(submission(harness), answers.cancelled())
    assert await ship(database, database) == 1
    row = await database.fetchrow("SELECT state, attempts, outcome, device_seconds FROM request_facts")
    assert row is not None
    assert tuple(row) == ("blocked", 0, "safety", 0.0)
    assert await database.fetchval("SELECT count(*) FROM attempt_facts") == 0
