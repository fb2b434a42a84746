"""Settlement: each finished request is added once, its prediction given up once, whatever dies in between."""

import asyncio
import datetime as dt
import itertools
import uuid
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conformance.memory_fleet import MemoryFleetStore

from forestay.chance import SystemChance
from forestay.clock import SystemClock
from forestay.errors import Unavailable
from forestay.ids import KeyId, ModelId, TenantId
from forestay.limits.counters import Spending, Taken, month_of, read_levels
from forestay.limits.model import Charge, LimitKind, Spender, checked_rule, parse_subject
from forestay.limits.plan import Plan
from forestay.limits.postgres_store import PostgresLimitStore
from forestay.limits.settlement import Closer, Ground, Settled, Settlement, closings_of, cost_of, usage_of
from forestay.limits.store import Account
from forestay.limits.valkey_counters import ValkeyCounters
from forestay.queue.model import Outcome
from forestay.settings import Limits
from forestay.storage.postgres import Connection, Database
from forestay.storage.valkey import LocalWakeups
from forestay.telemetry.facts import Fact, ship
from forestay.telemetry.metrics import Metrics

ACME = parse_subject("tenant:acme")
CALL = Spender(TenantId("acme"), KeyId("1" * 16), ModelId("a/one"))
MONTH = month_of(SystemClock().now())
_numbers = itertools.count(1)


def new_id() -> uuid.UUID:
    """An id that no other test has."""
    return uuid.UUID(int=SystemChance().bits(128))


@pytest.fixture
def store(database: Database) -> PostgresLimitStore:
    """Rules and usage."""
    return PostgresLimitStore(database, LocalWakeups(), SystemClock())


@pytest.fixture
async def ground(store: PostgresLimitStore) -> Ground:
    """A price of two hundredths a device-second, and a budget of device-seconds for acme."""
    rule = checked_rule(ACME, LimitKind.GPU_SECONDS_PER_MONTH, 100)
    await store.put([rule], actor="human:k", reason="test")
    made = Ground(store, MemoryFleetStore(SystemClock()), Limits(price_per_device_second=0.02))
    await made.refresh()
    return made


@pytest.fixture
async def counters(valkey_url: str) -> AsyncIterator[ValkeyCounters]:
    """Counters of a gateway."""
    one = ValkeyCounters(valkey_url, SystemClock(), timeout_seconds=5.0)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(one.run())
        yield one
        running.cancel()


def fact(seconds: float = 3.0, outcome: str = "succeeded", tenant: str = "acme") -> dict[str, object]:
    """A request's fact as the statement that ends it writes it."""
    now = SystemClock().now().isoformat()
    return {
        "kind": "request", "request_id": str(new_id()), "lane": "queue", "tenant_id": tenant,
        "key_id": CALL.key_id, "model_id": CALL.model_id, "endpoint": "/", "attempts": 1, "state": "succeeded",
        "outcome": outcome, "status_code": 200, "submitted_at": now, "finished_at": now, "has_attempt": False,
        "device_seconds": seconds, "predicted_seconds": 1.0, "work": {},
    }  # fmt: skip


async def finish(database: Database, facts: Sequence[Fact]) -> None:
    """Put facts into the outbox."""
    await database.execute("INSERT INTO fact_outbox (facts) VALUES ($1)", list(facts))


async def spent(store: PostgresLimitStore) -> tuple[float, float, int]:
    """What the month has cost acme."""
    (one,) = await store.spent([Account(ACME, TenantId("acme"))], MONTH)
    return one.charge.gpu_seconds, one.charge.money, one.requests


def test_money_is_refunded_where_the_caller_is_not_to_blame() -> None:
    """Device-seconds were used all the same; every outcome is one or the other."""
    paid = {outcome for outcome in Outcome if cost_of(2.0, outcome.value, 5.0).money > 0}
    assert paid == {Outcome.SUCCEEDED, Outcome.CALLER_ERROR, Outcome.SAFETY, Outcome.CANCELLED, Outcome.EXPIRED}
    assert {cost_of(2.0, outcome.value, 5.0).gpu_seconds for outcome in Outcome} == {2.0}


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.integers(1, 3), st.floats(0, 1e6), st.floats(0, 1e6))
    )
)
def test_usage_adds_up_to_what_was_settled(items: list[tuple[str, str, int, float, float]]) -> None:
    """Nothing is lost or doubled by gathering it into rows; a row stands for one key of the table."""
    settled = [
        Settled(
            new_id(),
            Spender(TenantId(tenant), KeyId("k"), ModelId(model)),
            dt.date(2026, month, 1),
            Charge(seconds, money),
        )
        for tenant, model, month, seconds, money in items
    ]
    rows = usage_of(settled)
    assert len({(row.month, row.tenant_id, row.key_id, row.model_id) for row in rows}) == len(rows)
    assert sum(row.requests for row in rows) == len(items)
    assert sum(row.gpu_seconds for row in rows) == pytest.approx(sum(item[3] for item in items))
    assert sum(row.money for row in rows) == pytest.approx(sum(item[4] for item in items))


@pytest.mark.threat("API4:2023", "AML.T0034")
async def test_each_finished_request_is_added_once(
    database: Database, store: PostgresLimitStore, ground: Ground
) -> None:
    """Shipping again finds nothing; a failure of the platform costs no money."""
    settle = Settlement(ground, Metrics()).settle
    await finish(database, [fact(3.0), fact(2.0, "worker_lost"), fact(9.0, tenant="other")])
    for _ in range(3):
        await ship(database, database, (settle,))
    assert await spent(store) == (5.0, pytest.approx(6.0), 2)


async def test_a_crash_while_settling_leaves_neither_half_done(
    database: Database, store: PostgresLimitStore, ground: Ground
) -> None:
    """The controller dies after usage was written and before the outbox forgot: the next one settles, once."""
    settle = Settlement(ground, Metrics()).settle

    async def die(connection: Connection, requests: Sequence[Fact], attempts: Sequence[Fact]) -> None:
        await settle(connection, requests, attempts)
        raise KeyboardInterrupt

    await finish(database, [fact(3.0)])
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            await ship(database, database, (die,))
        assert await spent(store) == (0.0, 0.0, 0)
    await ship(database, database, (settle,))
    assert await spent(store) == (3.0, pytest.approx(6.0), 1)


async def test_only_requests_that_hold_something_are_closed_later(ground: Ground) -> None:
    """A tenant without budgets leaves no note."""
    charge = Charge(1.0)
    other = Spender(TenantId("other"), CALL.key_id, CALL.model_id)
    settled = [Settled(new_id(), spender, MONTH, charge) for spender in (CALL, other)]
    assert [item.spender for item in closings_of(settled, ground.book)] == [CALL]


async def left(counters: ValkeyCounters, plan: Plan) -> float:
    """What the budget leaves."""
    outcome = await counters.view(plan)
    assert isinstance(outcome, Taken)
    return read_levels(outcome.levels)[0].left


async def test_the_counters_learn_of_it_and_a_valkey_that_is_away_is_told_later(
    database: Database, store: PostgresLimitStore, ground: Ground, counters: ValkeyCounters, valkey_url: str
) -> None:
    """The prediction is held until the real cost stands in its place; telling twice changes nothing."""
    tenant = f"settled-{next(_numbers)}"  # the Valkey of the session has seen no other test's
    rule = checked_rule(parse_subject(f"tenant:{tenant}"), LimitKind.GPU_SECONDS_PER_MONTH, 100)
    await store.put([rule], actor="human:k", reason="test")
    await ground.refresh()
    (plan,) = ground.book.plans(Spender(TenantId(tenant), CALL.key_id, CALL.model_id), direct=False)
    one = fact(3.0, tenant=tenant)
    counters.seed(plan, rule.subject, MONTH, Spending(Charge(0.0)))
    assert isinstance(await counters.take(plan, str(one["request_id"]), Charge(10.0), 60.0), Taken)
    counters.confirm(plan, str(one["request_id"]))
    assert await left(counters, plan) == pytest.approx(90)
    await finish(database, [one])
    await ship(database, database, (Settlement(ground, Metrics()).settle,))
    away = ValkeyCounters("unix:///nowhere/valkey.sock", SystemClock(), timeout_seconds=1.0)
    with pytest.raises((Unavailable, ExceptionGroup)):
        await Closer(store, away, ground, SystemClock()).run_once()
    assert await left(counters, plan) == pytest.approx(90)
    closings = await store.closings(10)
    mine = ValkeyCounters(valkey_url, SystemClock(), timeout_seconds=5.0)
    assert await Closer(store, mine, ground, SystemClock()).run_once() == 1
    assert await left(counters, plan) == pytest.approx(97)
    assert await store.closings(10) == []
    counters.finish(plan, str(closings[0].request_id), Charge(3.0))
    assert await left(counters, plan) == pytest.approx(97)


def test_a_models_own_price_stands_before_the_settings(ground: Ground) -> None:
    """Hundredths of the currency unit."""
    assert ground.price(ModelId("a/one")) == pytest.approx(2.0)
