"""Turns in Postgres: who is served next, what it is charged, and what a real cost corrects."""

import dataclasses
import datetime as dt
from collections import Counter
from collections.abc import Sequence

import pytest
from tests.conformance.queue_harness import (
    MODEL,
    REVISION,
    PostgresHarness,
    finish,
    offer,
    postgres_harness,
    submission,
)

from forestay.clock import SystemClock
from forestay.errors import UsageError
from forestay.ids import TenantId, WorkerId
from forestay.queue.claiming import PostgresTurns, run_once, settle_facts
from forestay.queue.model import Lease, Options, Priority, Submission
from forestay.storage.objects import ObjectStore
from forestay.storage.postgres import Database
from forestay.telemetry.facts import make_partitions, ship

WORKER = WorkerId("w")


def of(tenant: str, item: Submission, seconds: float = 1.0) -> Submission:
    """Give a submission to a tenant, with a predicted cost."""
    return dataclasses.replace(item, tenant_id=TenantId(tenant), predicted_seconds=seconds)


async def enqueue(
    harness: PostgresHarness, tenant: str, count: int, seconds: float = 1.0, options: Options | None = None
) -> list[Submission]:
    """Submit `count` requests of a tenant."""
    items = [of(tenant, submission(harness, options=options), seconds) for _ in range(count)]
    await harness.store.submit(items, {})
    return items


async def serve(harness: PostgresHarness, slots: int = 1) -> list[Lease]:
    """Claim once and end what was claimed."""
    leases = await harness.store.claim(WORKER, [offer(slots)], 15)
    await harness.store.finish([finish(lease) for lease in leases])
    return leases


def tenants(leases: Sequence[Lease]) -> list[str]:
    """Name the tenants in the order of service."""
    return [lease.tenant_id for lease in leases]


async def _create_tenants(database: Database, *names: str) -> None:
    for name in names:
        await database.execute("INSERT INTO tenants (tenant_id, name) VALUES ($1, $1) ON CONFLICT DO NOTHING", name)


@pytest.mark.threat("API4:2023")
async def test_a_tenant_with_heavy_requests_gets_no_more_than_its_share(
    database: Database, objects: ObjectStore
) -> None:
    """At every moment two backlogged tenants differ by at most one of the largest requests."""
    async with postgres_harness(database, objects) as harness:
        await enqueue(harness, "heavy", 40, 10.0)
        await enqueue(harness, "light", 40, 1.0)
        served: Counter[str] = Counter()
        for _ in range(30):
            for lease in await serve(harness):
                served[lease.tenant_id] += int(lease.predicted_seconds)
            assert abs(served["heavy"] - served["light"]) <= 10


async def test_a_claim_of_many_slots_serves_in_the_order_of_many_claims(
    database: Database, objects: ObjectStore
) -> None:
    """Twelve slots at once take the very requests that twelve claims of one slot would have taken."""
    costs = {"a": 5.0, "b": 2.0, "c": 0.5}
    async with postgres_harness(database, objects) as harness:
        one_by_one: list[str] = []
        for tenant, seconds in costs.items():
            await enqueue(harness, tenant, 12, seconds)
        for _ in range(12):
            one_by_one += tenants(await serve(harness))
        await database.execute("DELETE FROM requests; DELETE FROM service; DELETE FROM pools")
        for tenant, seconds in costs.items():
            await enqueue(harness, tenant, 12, seconds)
        assert tenants(await serve(harness, 12)) == one_by_one


async def test_a_returning_tenant_is_lifted_and_not_given_the_past(database: Database, objects: ObjectStore) -> None:
    """After one tenant was alone for long, a newcomer shares from now on instead of being served alone."""
    async with postgres_harness(database, objects) as harness:
        await enqueue(harness, "busy", 60)
        for _ in range(4):
            await serve(harness, 10)
        await enqueue(harness, "new", 20)
        assert Counter(tenants(await serve(harness, 10))) == {"busy": 5, "new": 5}


async def test_a_tenant_that_has_been_waiting_keeps_its_place(database: Database, objects: ObjectStore) -> None:
    """Many newcomers do not push back one who waits: it is served before any of them twice."""
    async with postgres_harness(database, objects) as harness:
        await enqueue(harness, "waiting", 3)
        await enqueue(harness, "first", 3)
        order = tenants(await serve(harness))
        for number in range(5):
            await enqueue(harness, f"new-{number}", 3)
        for _ in range(6):
            order += tenants(await serve(harness))
        assert Counter(order) == {"waiting": 1, "first": 1, **{f"new-{number}": 1 for number in range(5)}}


async def test_weights_divide_service(database: Database, objects: ObjectStore) -> None:
    """A tenant of weight 3 gets three times as much as one of weight 1."""
    await _create_tenants(database, "gold")
    assert await PostgresTurns(database).set_weight(TenantId("gold"), 3.0)
    async with postgres_harness(database, objects) as harness:
        await enqueue(harness, "gold", 40)
        await enqueue(harness, "plain", 40)
        order: list[str] = []
        for _ in range(24):
            order += tenants(await serve(harness))
        assert Counter(order) == {"gold": 18, "plain": 6}


@pytest.mark.parametrize("weight", [0.0, -1.0, float("inf"), float("nan")])
async def test_a_weight_that_divides_nothing_is_refused(database: Database, weight: float) -> None:
    """Zero, negative, infinite and undefined weights are errors that name the field."""
    with pytest.raises(UsageError, match="weight"):
        await PostgresTurns(database).set_weight(TenantId("gold"), weight)


async def test_inside_a_tenant_the_earliest_start_deadline_goes_first(database: Database, objects: ObjectStore) -> None:
    """A request with a near deadline overtakes its own tenant's older ones, and nobody else's."""
    async with postgres_harness(database, objects) as harness:
        older = await enqueue(harness, "a", 2)
        soon = harness.now() + dt.timedelta(seconds=30)
        urgent = await enqueue(harness, "a", 1, options=Options(start_deadline=soon))
        [lease] = await serve(harness)
        assert lease.request_id == urgent[0].request_id
        [lease] = await serve(harness)
        assert lease.request_id == older[0].request_id


async def test_low_requests_of_anyone_wait_for_normal_ones_until_the_bound(
    database: Database, objects: ObjectStore
) -> None:
    """A low request goes after every tenant's normal ones; one older than the starvation bound takes its turn."""
    low = Options(priority=Priority.LOW)
    async with postgres_harness(database, objects) as harness:
        await enqueue(harness, "patient", 1, options=low)
        await enqueue(harness, "normal", 2)
        assert tenants(await serve(harness)) == ["normal"]
        aged = of("aged", submission(harness, options=low, age_seconds=61.0))
        await harness.store.submit([aged], {})
        assert tenants(await serve(harness, 3)) == ["aged", "normal", "patient"]


async def test_what_an_attempt_really_took_is_charged_in_the_end(database: Database, objects: ObjectStore) -> None:
    """A tenant whose requests take twice the prediction is corrected once its facts are shipped, once only."""
    await make_partitions(database, SystemClock())
    await _know_revision(database)
    async with postgres_harness(database, objects) as harness:
        await enqueue(harness, "late", 5, 1.0)
        await serve(harness, 2)
        [before] = await PostgresTurns(database).accounts()
        assert before.virtual_time == pytest.approx(2.0)
        await ship(database, database, (settle_facts,))
        await ship(database, database, (settle_facts,))
        [after] = await PostgresTurns(database).accounts()
        assert after.virtual_time == pytest.approx(4.0)  # the harness reports two device-seconds an attempt


async def test_accounts_of_those_who_are_gone_are_forgotten(database: Database, objects: ObjectStore) -> None:
    """A tenant that waits for nothing and is not ahead of the pool has no account: it would be lifted anyhow."""
    async with postgres_harness(database, objects) as harness:
        await enqueue(harness, "gone", 1)
        await enqueue(harness, "here", 3)
        await serve(harness, 3)
        await run_once(database)
        assert [account.tenant_id for account in await PostgresTurns(database).accounts() if account.active] == ["here"]
        await serve(harness, 1)
        await enqueue(harness, "other", 4)
        await serve(harness, 4)
        await run_once(database)
        assert "gone" not in [account.tenant_id for account in await PostgresTurns(database).accounts()]


async def test_a_hint_bends_turns_by_one_request_at_most(database: Database, objects: ObjectStore) -> None:
    """A tenant cannot buy itself the whole queue by naming the replica's hint."""
    async with postgres_harness(database, objects) as harness:
        await enqueue(harness, "clever", 20, options=Options(hint="warm"))
        await enqueue(harness, "plain", 20)
        order: list[str] = []
        for _ in range(12):
            leases = await harness.store.claim(WORKER, [offer(1, hints=["warm"])], 15)
            await harness.store.finish([finish(lease) for lease in leases])
            order += tenants(leases)
            assert order.count("clever") <= order.count("plain") + 2
        assert order[0] == "clever"


async def test_pools_have_accounts_of_their_own(database: Database, objects: ObjectStore) -> None:
    """What a tenant received from one pool is not held against it in another."""
    async with postgres_harness(database, objects) as harness:
        await enqueue(harness, "a", 10)
        await serve(harness, 5)
        await enqueue(harness, "b", 5)
        other = dataclasses.replace(offer(4), pool="gpu")
        leases = await harness.store.claim(WORKER, [other], 15)
        assert Counter(tenants(leases)) == {"a": 2, "b": 2}


async def _know_revision(database: Database) -> None:
    await _create_tenants(database, "owner")
    spec = {"resources": {"pool": "cpu"}}
    await database.execute("INSERT INTO models (model_id, spec, tenant_id) VALUES ($1, $2, 'owner')", MODEL, spec)
    await database.execute(
        "INSERT INTO revisions (revision_id, model_id, digest, spec, created_by) VALUES ($1, $2, '', $3, 'test')",
        REVISION, MODEL, spec,
    )  # fmt: skip
