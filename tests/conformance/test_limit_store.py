"""One behaviour suite for every store of limits: Postgres and the fake."""

import datetime as dt

import pytest
from tests.conformance.memory_limits import MemoryLimitStore

from forestay.clock import SystemClock
from forestay.ids import KeyId, ModelId, TenantId
from forestay.limits.model import Charge, LimitKind, checked_rule, parse_subject
from forestay.limits.postgres_store import PostgresLimitStore
from forestay.limits.store import Account, LimitStore, Spent, UsageRow
from forestay.storage.postgres import Database
from forestay.storage.valkey import LocalWakeups

MONTH = dt.date(2026, 11, 1)
ACME = parse_subject("tenant:acme")
KEY = "1" * 16


@pytest.fixture(params=["memory", "postgres"])
def maybe_database(request: pytest.FixtureRequest) -> Database | None:
    """A database for the adapter that needs one."""
    return request.getfixturevalue("database") if request.param == "postgres" else None


@pytest.fixture
def store(maybe_database: Database | None) -> LimitStore:
    """Each adapter in turn."""
    if maybe_database is None:
        return MemoryLimitStore(SystemClock())
    return PostgresLimitStore(maybe_database, LocalWakeups(), SystemClock())


def row(tenant: str, key: str, model: str, seconds: float, month: dt.date = MONTH) -> UsageRow:
    """One line of usage: money is ten times the seconds, one request."""
    return UsageRow(month, TenantId(tenant), KeyId(key), ModelId(model), seconds, seconds * 10, 1)


async def test_rules_are_read_back_and_every_change_makes_a_new_version(store: LimitStore) -> None:
    """Setting one kind leaves the others; setting it again replaces it; removing says what there was."""
    first, none = await store.rules()
    assert none == []
    rate = checked_rule(ACME, LimitKind.REQUESTS_PER_SECOND, 20, 40)
    flight = checked_rule(ACME, LimitKind.IN_FLIGHT, 3)
    await store.put([rate], actor="human:k", reason="asked for")
    await store.put([flight], actor="human:k", reason="asked for")
    second, rules = await store.rules()
    assert sorted(rules, key=lambda rule: rule.kind) == [flight, rate]
    slower = checked_rule(ACME, LimitKind.REQUESTS_PER_SECOND, 5)
    await store.put([slower], actor="human:k", reason="asked for")
    assert slower in (await store.rules())[1]
    removed = await store.remove(ACME, [LimitKind.IN_FLIGHT], actor="human:k", reason="over")
    assert removed == [LimitKind.IN_FLIGHT]
    assert await store.remove(ACME, None, actor="human:k", reason="over") == [LimitKind.REQUESTS_PER_SECOND]
    assert await store.remove(ACME, None, actor="human:k", reason="over") == []
    last, none = await store.rules()
    assert none == []
    assert first < second < last


async def test_gateways_know_of_one_another_while_they_are_seen(store: LimitStore) -> None:
    """A gateway that leaves, or is not seen for long enough, no longer shares the limits."""
    assert (await store.beat("a", 60.0)).gateways == 1
    assert (await store.beat("b", 60.0)).gateways == 2
    assert (await store.beat("a", 60.0)).gateways == 2
    await store.leave("b")
    beat = await store.beat("a", 60.0)
    assert (beat.gateways, beat.version) == (1, (await store.rules())[0])
    await store.beat("c", 60.0)
    assert (await store.beat("a", 0.0)).gateways <= 1


async def test_usage_is_summed_by_tenant_key_model_and_fleet(store: LimitStore) -> None:
    """Each account sees its own; another month is another sum; a key's is its tenant's too."""
    rows = [
        row("acme", KEY, "a/one", 1.0),
        row("acme", KEY, "a/two", 2.0),
        row("acme", "public", "a/one", 4.0),
        row("other", "public", "a/one", 8.0),
        row("acme", KEY, "a/one", 16.0, dt.date(2026, 10, 1)),
    ]
    await store.add_once(rows, source="g", sequence=1)
    accounts = [
        Account(parse_subject(text), TenantId("acme"))
        for text in ("tenant:acme", f"key:{KEY}", "key:public", "model:a/one", "fleet", "tenant:nobody")
    ]
    sums = await store.spent(accounts, MONTH)
    assert [item.charge.gpu_seconds for item in sums] == [7.0, 3.0, 4.0, 13.0, 15.0, 0.0]
    assert [item.charge.money for item in sums] == [70.0, 30.0, 40.0, 130.0, 150.0, 0.0]
    assert [item.requests for item in sums] == [3, 2, 1, 3, 4, 0]
    assert await store.by_model(accounts[0], MONTH) == [
        ("a/one", Spent(Charge(5.0, 50.0), 2)),
        ("a/two", Spent(Charge(2.0, 20.0), 1)),
    ]


async def test_a_batch_that_is_sent_again_is_added_once(store: LimitStore) -> None:
    """An answer that was lost does not double what a tenant owes; another gateway's batches are its own."""
    lines = [row("acme", KEY, "a/one", 1.0)]
    for sequence in (1, 1, 2, 1):
        await store.add_once(lines, source="g", sequence=sequence)
    await store.add_once(lines, source="h", sequence=1)
    (spent,) = await store.spent([Account(ACME, TenantId("acme"))], MONTH)
    assert (spent.charge.gpu_seconds, spent.requests) == (3.0, 3)


async def test_changes_of_rules_are_in_the_audit_log(database: Database) -> None:
    """Who, what it was and why; removing what is not there leaves no row."""
    store = PostgresLimitStore(database, LocalWakeups(), SystemClock())
    await store.put([checked_rule(ACME, LimitKind.IN_FLIGHT, 3)], actor="human:k1", reason="contract 7")
    for _ in range(2):
        await store.remove(ACME, None, actor="human:k2", reason="over")
    rows = await database.fetch("SELECT actor, action, subject, detail, reason FROM audit_log ORDER BY sequence")
    assert [tuple(one) for one in rows] == [
        ("human:k1", "set_limit", "limit:tenant:acme", {"in_flight": 3}, "contract 7"),
        ("human:k2", "remove_limit", "limit:tenant:acme", {"in_flight": 3}, "over"),
    ]


async def test_what_no_process_needs_any_more_is_tidied_away(database: Database) -> None:
    """Marks of gateways long gone, and notes that no counter can still hold."""
    store = PostgresLimitStore(database, LocalWakeups(), SystemClock())
    await store.beat("old", 1.0)
    await store.add_once([row("acme", KEY, "a/one", 1.0)], source="old", sequence=1)
    await database.execute("UPDATE gateways_seen SET seen_at = now() - interval '2 days'")
    await database.execute("UPDATE usage_marks SET at = now() - interval '8 days'")
    await store.tidy()
    assert await database.fetchval("SELECT count(*) FROM gateways_seen") == 0
    assert await database.fetchval("SELECT count(*) FROM usage_marks") == 0
    (spent,) = await store.spent([Account(ACME, TenantId("acme"))], MONTH)
    assert spent.requests == 1
