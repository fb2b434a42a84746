"""What rules on counts in flight leave room for."""

import dataclasses
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conformance.queue_harness import SETTINGS, PostgresHarness, finish, offer, postgres_harness, submission

from forestay.chance import SeededChance
from forestay.ids import KeyId, ModelId, TenantId, WorkerId
from forestay.queue.model import Lease, Options
from forestay.queue.postgres_store import open_queue_store
from forestay.queue.rooms import rooms_of, within_models
from forestay.storage.objects import ObjectStore
from forestay.storage.postgres import Database

WORKER = WorkerId("w")


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9)), max_size=8),
    st.dictionaries(st.sampled_from("abc*"), st.integers(-2, 9)),
)
def test_offers_never_exceed_the_room_of_their_models(offered: list[tuple[str, int]], rules: dict[str, int]) -> None:
    """For each model the kept slots are what was offered, or its room when that is less."""
    rooms = rooms_of([("model", subject, room) for subject, room in rules.items()])
    offers = [offer(slots, model_id=ModelId(model)) for model, slots in offered]
    kept: Counter[str] = Counter()
    for item in within_models(offers, rooms):
        kept[item.model_id] += item.slots
    wanted: Counter[str] = Counter()
    for model, slots in offered:
        wanted[model] += slots
    for model, slots in wanted.items():
        room = rules.get(model, rules.get("*"))
        assert kept[model] == (slots if room is None else min(slots, max(0, room)))


async def _enqueue(harness: PostgresHarness, tenant: str, count: int, key: str = "") -> None:
    items = [
        dataclasses.replace(submission(harness), tenant_id=TenantId(tenant), key_id=KeyId(key or f"key-{tenant}"))
        for _ in range(count)
    ]
    await harness.store.submit(items, {})


async def _rule(database: Database, scope: str, subject: str, amount: int) -> None:
    await database.execute(
        "INSERT INTO limit_rules (scope, subject, kind, amount) VALUES ($1, $2, 'in_flight', $3)",
        scope, subject, float(amount),
    )  # fmt: skip


async def _claim(harness: PostgresHarness, slots: int) -> list[Lease]:
    return await harness.store.claim(WORKER, [offer(slots)], 15)


def _by_tenant(leases: list[Lease]) -> dict[str, int]:
    return dict(Counter(lease.tenant_id for lease in leases))


@pytest.mark.threat("API4:2023")
async def test_a_tenant_over_its_count_waits_and_others_get_the_slots(database: Database, objects: ObjectStore) -> None:
    """Of ten slots a tenant held to three gets three; when one of them ends, one more begins."""
    await _rule(database, "tenant", "held", 3)
    async with postgres_harness(database, objects) as harness:
        await _enqueue(harness, "held", 10)
        await _enqueue(harness, "free", 10)
        leases = await _claim(harness, 10)
        assert _by_tenant(leases) == {"held": 3, "free": 7}
        assert _by_tenant(await _claim(harness, 10)) == {"free": 3}
        await harness.store.finish([finish(next(lease for lease in leases if lease.tenant_id == "held"))])
        assert _by_tenant(await _claim(harness, 10)) == {"held": 1}


async def test_a_full_key_does_not_hold_back_its_tenants_other_keys(database: Database, objects: ObjectStore) -> None:
    """The requests of a key that has reached its count are passed over, however many of them wait in front."""
    await _rule(database, "key", "batch", 1)
    async with postgres_harness(database, objects) as harness:
        await _enqueue(harness, "acme", 20, key="batch")
        await _enqueue(harness, "acme", 2, key="web")
        first = await _claim(harness, 1)
        second = await _claim(harness, 1)
        third = await _claim(harness, 5)
        assert len(first) + len(second) + len(third) == 3


async def test_a_rule_for_everybody_holds_each_for_itself(database: Database, objects: ObjectStore) -> None:
    """`tenant:*` holds each tenant without a rule of its own to the same count."""
    await _rule(database, "tenant", "*", 2)
    await _rule(database, "tenant", "large", 5)
    async with postgres_harness(database, objects) as harness:
        for tenant in ("a", "b", "large"):
            await _enqueue(harness, tenant, 9)
        assert _by_tenant(await _claim(harness, 20)) == {"a": 2, "b": 2, "large": 5}
        assert await _claim(harness, 20) == []


async def test_without_a_rule_the_settings_hold_each_tenant(database: Database, objects: ObjectStore) -> None:
    """The default of the settings holds until a rule for everybody is stored."""
    async with (
        postgres_harness(database, objects) as harness,
        open_queue_store(database, objects, SETTINGS, SeededChance(5), default_in_flight=2) as store,
    ):
        await _enqueue(harness, "a", 9)
        await _enqueue(harness, "b", 9)
        assert _by_tenant(await store.claim(WORKER, [offer(20)], 15)) == {"a": 2, "b": 2}
        await _rule(database, "tenant", "*", 3)
        assert _by_tenant(await store.claim(WORKER, [offer(20)], 15)) == {"a": 1, "b": 1}


async def test_models_and_the_fleet_have_counts_too(database: Database, objects: ObjectStore) -> None:
    """The smallest of the rules holds."""
    await _rule(database, "model", "acme/digits", 4)
    async with postgres_harness(database, objects) as harness:
        await _enqueue(harness, "a", 9)
        assert len(await _claim(harness, 9)) == 4
        await database.execute("DELETE FROM limit_rules")
        await _rule(database, "fleet", "*", 6)
        assert len(await _claim(harness, 9)) == 2


async def test_a_hint_is_no_way_round_a_count(database: Database, objects: ObjectStore) -> None:
    """A hinted request of a tenant that has reached its count waits like the others."""
    await _rule(database, "tenant", "held", 1)
    async with postgres_harness(database, objects) as harness:
        items = [
            dataclasses.replace(submission(harness, options=Options(hint="warm")), tenant_id=TenantId("held"))
            for _ in range(2)
        ]
        await harness.store.submit(items, {})
        hinted = offer(1, hints=["warm"])
        assert len(await harness.store.claim(WORKER, [hinted], 15)) == 1
        assert await harness.store.claim(WORKER, [hinted], 15) == []
