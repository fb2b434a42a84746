"""Day partitions of what is done."""

import datetime as dt

from tests.conformance.queue_harness import finish, offer, postgres_harness, submission

from forestay.clock import SystemClock
from forestay.ids import WorkerId
from forestay.queue import expire, rescue, retention
from forestay.queue.model import Options
from forestay.queue.partitions import drop_partitions, make_partitions
from forestay.storage.objects import ObjectStore
from forestay.storage.postgres import Database
from forestay.storage.valkey import LocalWakeups


async def test_rows_of_the_default_partition_move_into_a_new_one(database: Database, objects: ObjectStore) -> None:
    """A partition made late takes over its day; results stay readable; a second run makes nothing."""
    async with postgres_harness(database, objects) as harness:
        item = submission(harness)
        await harness.store.submit([item], {})
        leases = await harness.store.claim(WorkerId("w"), [offer()], 15)
        await harness.store.finish([finish(lease) for lease in leases])
        assert await database.fetchval("SELECT count(*) FROM finished_requests_default") == 1
        assert await make_partitions(database, item.submitted_at) == 8
        assert await database.fetchval("SELECT count(*) FROM finished_requests_default") == 0
        assert await harness.store.result(item.request_id) is not None
        assert await make_partitions(database, item.submitted_at) == 0


async def test_dropping_leaves_the_day_itself(database: Database) -> None:
    """Only days that are over entirely go."""
    now = dt.datetime(2031, 5, 10, 12, tzinfo=dt.UTC)
    await make_partitions(database, now)
    assert await drop_partitions(database, now) == []
    later = now + dt.timedelta(days=2)
    assert await drop_partitions(database, later, ["request_logs"]) == [
        "request_logs_20310510",
        "request_logs_20310511",
    ]


async def test_retention_deletes_rows_and_their_objects(database: Database, objects: ObjectStore) -> None:
    """With a retention of nothing a finished request, its large answer and its large input are gone."""
    large = b'"' + b"x" * 100_000 + b'"'
    async with postgres_harness(database, objects) as harness:
        item = submission(harness, body=large)
        await harness.store.submit([item], {})
        [lease] = await harness.store.claim(WorkerId("w"), [offer()], 15)
        await harness.store.finish([finish(lease, body=large)])
        assert {entry.key async for entry in objects.list("")} == {
            f"inputs/{item.request_id}",
            f"results/{item.request_id}/1",
        }
        assert await retention.run_once(harness.store, database, objects, SystemClock(), 3600) == 0
        assert await retention.run_once(harness.store, database, objects, SystemClock(), -60) == 2
        assert [entry.key async for entry in objects.list("")] == []
        assert await harness.store.result(item.request_id) is None


async def test_the_loops_tell_who_waits(database: Database, objects: ObjectStore) -> None:
    """Rescue and expiry publish the ids that changed, and count what they did."""
    wakeups = LocalWakeups()
    async with postgres_harness(database, objects) as harness, wakeups.subscribe("forestay:changed") as changes:
        late = submission(harness, options=Options(start_deadline=harness.now()))
        await harness.store.submit([late], {})
        assert await expire.run_once(harness.store, wakeups) == 1
        assert await anext(changes) == ("forestay:changed", late.request_id.hex)
        item = submission(harness)
        await harness.store.submit([item], {})
        await harness.store.claim(WorkerId("w"), [offer()], 1)
        await harness.advance(2)
        assert await rescue.run_once(harness.store, wakeups) == 1
        assert await anext(changes) == ("forestay:changed", item.request_id.hex)
        assert await rescue.run_once(harness.store, wakeups) == 0
