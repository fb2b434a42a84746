"""The claim statement and its reference (queue/fairness) pick the same requests and keep the same accounts."""

import dataclasses
import datetime as dt

import pytest
from tests.conformance.queue_harness import SETTINGS, PostgresHarness, finish, offer, postgres_harness, submission

from forestay.chance import SeededChance
from forestay.ids import TenantId, WorkerId
from forestay.queue.claiming import PostgresTurns
from forestay.queue.fairness import Service, Waiting, decide_turns
from forestay.queue.model import Options, Priority, Submission
from forestay.storage.objects import ObjectStore
from forestay.storage.postgres import Database

TENANTS = ("ant", "bee", "cat", "dog")
WORKER = WorkerId("w")


def _invented(harness: PostgresHarness, chance: SeededChance, *, low: bool) -> Submission:
    """Some tenant's request with a cost, perhaps a deadline, perhaps yielding, perhaps older than the bound."""
    low = low and chance.uniform(0, 1) < 0.3
    soon = harness.now() + dt.timedelta(seconds=chance.uniform(100, 1000))
    options = Options(
        priority=Priority.LOW if low else Priority.NORMAL,
        start_deadline=soon if not low and chance.uniform(0, 1) < 0.3 else None,
    )
    item = submission(harness, options=options, age_seconds=chance.uniform(0, 100))
    tenant = TENANTS[int(chance.uniform(0, len(TENANTS)))]
    return dataclasses.replace(item, tenant_id=TenantId(tenant), predicted_seconds=chance.uniform(0.1, 9.0))


def _as_waiting(item: Submission) -> Waiting:
    low = item.options.priority is Priority.LOW
    order_at = item.submitted_at + dt.timedelta(seconds=SETTINGS.starvation_bound_seconds if low else 0.0)
    due_at = item.options.start_deadline or order_at + dt.timedelta(seconds=SETTINGS.patience_seconds)
    return Waiting(item.request_id, item.tenant_id, item.predicted_seconds, due_at, order_at, low)


@pytest.mark.parametrize("seed", range(8))
async def test_a_claim_picks_what_the_rule_picks(database: Database, objects: ObjectStore, seed: int) -> None:
    """Round after round of submits and claims, whoever comes and goes; the charges agree as well."""
    chance = SeededChance(seed)
    waiting: list[Waiting] = []
    service: dict[TenantId, Service] = {}
    pool_time = 0.0
    async with postgres_harness(database, objects) as harness:
        for _ in range(12):
            fresh = [_invented(harness, chance, low=seed % 2 == 1) for _ in range(int(chance.uniform(0, 12)))]
            await harness.store.submit(fresh, {})
            waiting += [_as_waiting(item) for item in fresh]
            slots = int(chance.uniform(1, 9))
            turns = decide_turns(waiting, service.values(), pool_time, slots, harness.now())
            leases = await harness.store.claim(WORKER, [offer(slots)], 15)
            assert [lease.request_id for lease in leases] == [pick.request_id for pick in turns.picks]
            await harness.store.finish([finish(lease) for lease in leases])
            taken = {pick.request_id for pick in turns.picks}
            waiting = [item for item in waiting if item.request_id not in taken]
            service, pool_time = {**service, **turns.service}, turns.pool_time
            kept = {item.tenant_id: item.virtual_time for item in await PostgresTurns(database).accounts()}
            assert kept == pytest.approx({key: item.virtual_time for key, item in service.items()})
