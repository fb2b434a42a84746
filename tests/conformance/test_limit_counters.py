"""One behaviour suite for every adapter of the limits' counters: Valkey and this process."""

import asyncio
import datetime as dt
import itertools
from collections.abc import AsyncIterator

import pytest

from forestay.clock import SystemClock
from forestay.ids import KeyId, ModelId, TenantId
from forestay.limits.counters import Counters, Held, Outcome, Short, Spending, Taken, Unknown, month_of, read_levels
from forestay.limits.local_counters import LocalCounters
from forestay.limits.model import Charge, LimitKind, LimitRule, Spender, parse_subject
from forestay.limits.plan import Plan, Rulebook
from forestay.limits.valkey_counters import ValkeyCounters

ONE = Charge(1.0)
LEASE = 60.0
MONTH = month_of(SystemClock().now())
_tenants = itertools.count()


@pytest.fixture(params=["local", "valkey"])
def maybe_url(request: pytest.FixtureRequest) -> str:
    """The server of the adapter that needs one."""
    return request.getfixturevalue("valkey_url") if request.param == "valkey" else ""


@pytest.fixture
async def counters(maybe_url: str) -> AsyncIterator[Counters]:
    """Each adapter in turn."""
    if not maybe_url:
        yield LocalCounters(SystemClock())
        return
    remote = ValkeyCounters(maybe_url, SystemClock(), timeout_seconds=5.0)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(remote.run())
        yield remote
        running.cancel()


def plan_of(kind: LimitKind, amount: float, burst: float = 0.0, *, subject: str = "") -> Plan:
    """A plan of one rule, for a tenant that no other test has."""
    tenant = f"tenant-{next(_tenants)}"
    rule = LimitRule(parse_subject(subject or f"tenant:{tenant}"), kind, amount, burst)
    (plan,) = Rulebook([rule]).plans(Spender(TenantId(tenant), KeyId("0" * 16), ModelId("a/b")), direct=True)
    return plan


async def take(
    counters: Counters, plan: Plan, holder: str = "r", charge: Charge = ONE, lease: float = LEASE
) -> Outcome:
    """Take once."""
    return await counters.take(plan, holder, charge, lease)


async def left(counters: Counters, plan: Plan) -> float:
    """Return what the first check leaves."""
    outcome = await counters.view(plan)
    assert isinstance(outcome, Taken)
    return read_levels(outcome.levels)[0].left


def seed(counters: Counters, plan: Plan, spent: Charge, live: dict[str, Charge] | None = None) -> None:
    """Tell what the month has cost the plan's only subject."""
    counters.seed(plan, plan.budgets[0], MONTH, Spending(spent, live or {}))


async def test_a_burst_is_granted_and_the_next_call_is_told_how_long_to_wait(counters: Counters) -> None:
    """Three at once, at one a thousand seconds."""
    plan = plan_of(LimitKind.REQUESTS_PER_SECOND, 0.001, 3)
    assert [type(await take(counters, plan)) for _ in range(3)] == [Taken] * 3
    refused = await take(counters, plan)
    assert isinstance(refused, Short)
    assert 990 < refused.wait_seconds <= 1000
    assert refused.check == 0
    assert read_levels(refused.levels)[0].left < 1


async def test_calls_that_arrive_together_share_one_burst(counters: Counters) -> None:
    """However they are gathered, three of twenty are granted."""
    plan = plan_of(LimitKind.REQUESTS_PER_SECOND, 0.001, 3)
    outcomes = await asyncio.gather(*(take(counters, plan, str(n)) for n in range(20)))
    assert sum(isinstance(item, Taken) for item in outcomes) == 3


async def test_a_granted_call_is_told_what_is_left(counters: Counters) -> None:
    """Levels are those after the call."""
    plan = plan_of(LimitKind.REQUESTS_PER_SECOND, 0.001, 3)
    outcome = await take(counters, plan)
    assert isinstance(outcome, Taken)
    (level,) = read_levels(outcome.levels)
    assert level.left == pytest.approx(2, abs=0.01)
    assert 900 < level.more_in_seconds <= 1000


async def test_what_is_refused_by_one_check_takes_nothing_from_the_others(counters: Counters) -> None:
    """A tenant's full budget of calls in flight leaves the key's rate alone."""
    tenant = f"tenant-{next(_tenants)}"
    rules = [
        LimitRule(parse_subject(f"key:{'1' * 16}"), LimitKind.REQUESTS_PER_SECOND, 0.001, 5),
        LimitRule(parse_subject(f"tenant:{tenant}"), LimitKind.IN_FLIGHT, 1),
    ]
    (plan,) = Rulebook(rules).plans(Spender(TenantId(tenant), KeyId("1" * 16), ModelId("a/b")), direct=True)
    assert isinstance(await take(counters, plan, "a"), Taken)
    for _ in range(10):
        refused = await take(counters, plan, "b")
        assert isinstance(refused, Short)
        assert refused.check == 1
    assert await left(counters, plan) == pytest.approx(4, abs=0.01)


async def test_a_call_given_back_whole_leaves_no_trace(counters: Counters) -> None:
    """Rate, minute and flight are as before."""
    for kind in (LimitKind.REQUESTS_PER_SECOND, LimitKind.IN_FLIGHT, LimitKind.GPU_SECONDS_PER_MINUTE):
        plan = plan_of(kind, 0.001 if kind is LimitKind.REQUESTS_PER_SECOND else 4, 4)
        assert isinstance(await take(counters, plan), Taken)
        counters.give_back(plan, "r", ONE, whole=True)
        assert await left(counters, plan) == pytest.approx(4, abs=0.2)
        counters.give_back(plan, "r", ONE, whole=False)  # twice changes nothing
        assert await left(counters, plan) == pytest.approx(4, abs=0.2)


async def test_calls_in_flight_are_counted_until_they_end(counters: Counters) -> None:
    """The third of two waits for one to end."""
    plan = plan_of(LimitKind.IN_FLIGHT, 2)
    assert isinstance(await take(counters, plan, "a"), Taken)
    assert isinstance(await take(counters, plan, "b"), Taken)
    assert isinstance(await take(counters, plan, "c"), Short)
    counters.settle(plan, "a", ONE, ONE, LEASE)
    assert isinstance(await take(counters, plan, "c"), Taken)


async def test_what_runs_elsewhere_counts_as_in_flight(counters: Counters) -> None:
    """Two running requests of the queue leave one of three; four leave none."""
    plan = plan_of(LimitKind.IN_FLIGHT, 3)
    (subject,) = plan.flights
    assert isinstance(await counters.take(plan, "a", ONE, LEASE, {subject: 4}), Short)
    granted = await counters.take(plan, "a", ONE, LEASE, {subject: 2})
    assert isinstance(granted, Taken)
    assert read_levels(granted.levels)[0].left == 0
    assert isinstance(await counters.take(plan, "a", ONE, LEASE, {subject: 2}), Short)
    assert isinstance(await counters.take(plan, "a", ONE, LEASE, {subject: 1}), Taken)


async def test_a_call_whose_gateway_died_lapses(counters: Counters) -> None:
    """In flight and in a budget it counts for its lease and no longer."""
    for kind in (LimitKind.IN_FLIGHT, LimitKind.GPU_SECONDS_PER_MONTH):
        plan = plan_of(kind, 1)
        if plan.budgets:
            seed(counters, plan, Charge(0.0))
        assert isinstance(await take(counters, plan, "a", lease=0.03), Taken)
        async with asyncio.timeout(5):
            while not isinstance(await take(counters, plan, "b"), Taken):
                await counters.flush()


async def test_calls_of_one_holder_are_counted_together_and_end_one_by_one(counters: Counters) -> None:
    """A gateway holds for all its direct calls; what it does not hold any more is never less than nothing."""
    plan = plan_of(LimitKind.IN_FLIGHT, 3)
    for _ in range(3):
        assert isinstance(await take(counters, plan, "gateway"), Taken)
    assert isinstance(await take(counters, plan, "other"), Short)
    for _ in range(5):
        counters.settle(plan, "gateway", ONE, ONE, LEASE)
    assert await left(counters, plan) == 3


async def test_a_holder_that_is_kept_does_not_lapse(counters: Counters) -> None:
    """A renewed lease is a new one; a holder that was lost holds again what it says."""
    plan = plan_of(LimitKind.IN_FLIGHT, 2)
    assert isinstance(await take(counters, plan, "a", lease=0.3), Taken)
    counters.keep(plan, plan.holds[0], "a", Held(ONE, 2), LEASE)
    await counters.flush()
    await asyncio.sleep(0.31)  # longer than the first lease
    assert await left(counters, plan) == 1  # as it was taken, not as it was said
    other = plan_of(LimitKind.IN_FLIGHT, 2)
    counters.keep(other, other.holds[0], "lost", Held(ONE, 2), LEASE)
    assert await left(counters, other) == 0


async def test_gpu_seconds_are_taken_as_predicted_and_corrected_to_what_was_used(counters: Counters) -> None:
    """A prediction of 30 that took 10 leaves 50 of 60; one that took 40 leaves 10."""
    plan = plan_of(LimitKind.GPU_SECONDS_PER_MINUTE, 60)
    assert isinstance(await take(counters, plan, "a", Charge(30.0)), Taken)
    assert await left(counters, plan) == pytest.approx(30, abs=1)
    counters.settle(plan, "a", Charge(30.0), Charge(10.0), LEASE)
    assert await left(counters, plan) == pytest.approx(50, abs=1)
    assert isinstance(await take(counters, plan, "b", Charge(30.0)), Taken)
    counters.finish(plan, "b", Charge(40.0))
    assert await left(counters, plan) == pytest.approx(10, abs=1)


async def test_a_call_larger_than_the_whole_minute_goes_when_nothing_is_owed(counters: Counters) -> None:
    """Then what it is over is waited out: 180 device-seconds at 60 a minute keep others out for two minutes."""
    plan = plan_of(LimitKind.GPU_SECONDS_PER_MINUTE, 60)
    assert isinstance(await take(counters, plan, "a", Charge(180.0)), Taken)
    refused = await take(counters, plan, "b", Charge(1.0))
    assert isinstance(refused, Short)
    assert refused.wait_seconds == pytest.approx(121, abs=1)
    assert isinstance(await take(counters, plan, "c", Charge(180.0)), Short)


@pytest.mark.parametrize("kind", [LimitKind.GPU_SECONDS_PER_MONTH, LimitKind.MONEY_PER_MONTH])
async def test_a_budget_counts_what_is_spent_and_what_is_held(counters: Counters, kind: LimitKind) -> None:
    """Of 10, 7 are spent and 2 are held: 2 more are refused until the month ends, 1 more fits."""
    plan = plan_of(kind, 10)
    assert isinstance(await take(counters, plan, "a", Charge(2.0, 2.0)), Unknown)
    seed(counters, plan, Charge(7.0, 7.0))
    assert isinstance(await take(counters, plan, "a", Charge(2.0, 2.0)), Taken)
    refused = await take(counters, plan, "b", Charge(2.0, 2.0))
    assert isinstance(refused, Short)
    assert refused.wait_seconds > 0
    assert isinstance(await take(counters, plan, "b", Charge(1.0, 1.0)), Taken)
    assert await left(counters, plan) == pytest.approx(0)


async def test_a_settled_call_is_counted_once(counters: Counters) -> None:
    """Held at what it took; then the database's sum takes over and the hold goes: never both, never neither."""
    plan = plan_of(LimitKind.GPU_SECONDS_PER_MONTH, 10)
    seed(counters, plan, Charge(0.0))
    assert isinstance(await take(counters, plan, "gateway", Charge(2.0)), Taken)
    assert isinstance(await take(counters, plan, "gateway", Charge(1.0)), Taken)
    counters.settle(plan, "gateway", Charge(2.0), Charge(3.0), LEASE)
    assert await left(counters, plan) == pytest.approx(6)
    counters.raise_spent(plan, plan.budgets[0], MONTH, Charge(3.0))
    counters.release(plan, "gateway", Charge(3.0))
    assert await left(counters, plan) == pytest.approx(6)
    counters.raise_spent(plan, plan.budgets[0], MONTH, Charge(1.0))  # an old sum that comes late
    assert await left(counters, plan) == pytest.approx(6)


async def test_a_finished_request_is_counted_once_however_often_it_is_told(counters: Counters) -> None:
    """Its hold goes with the first time."""
    plan = plan_of(LimitKind.GPU_SECONDS_PER_MONTH, 10)
    seed(counters, plan, Charge(0.0))
    assert isinstance(await take(counters, plan, "a", Charge(2.0)), Taken)
    for _ in range(2):
        counters.raise_spent(plan, plan.budgets[0], MONTH, Charge(3.0))
        counters.finish(plan, "a", Charge(3.0))
    assert await left(counters, plan) == pytest.approx(7)


async def test_a_gateway_that_was_thought_dead_still_lapses(counters: Counters) -> None:
    """What it settles after its lease is held for another lease only."""
    plan = plan_of(LimitKind.GPU_SECONDS_PER_MONTH, 10)
    seed(counters, plan, Charge(0.0))
    counters.settle(plan, "gateway", Charge(1.0), Charge(4.0), 0.03)
    assert await left(counters, plan) == pytest.approx(6)
    async with asyncio.timeout(5):
        while await left(counters, plan) < 10:
            await counters.flush()


async def test_counters_that_were_lost_are_told_the_month_and_the_live_requests(counters: Counters) -> None:
    """Seeding holds what is live, once; what has ended meanwhile is not held again."""
    plan = plan_of(LimitKind.GPU_SECONDS_PER_MONTH, 10)
    counters.finish(plan, "ended", Charge(1.0))
    live = {"ended": Charge(4.0), "live": Charge(2.0)}
    seed(counters, plan, Charge(5.0), live)
    seed(counters, plan, Charge(9.0), live)  # another gateway, a moment later
    assert await left(counters, plan) == pytest.approx(3)
    counters.finish(plan, "live", Charge(2.0))
    assert await left(counters, plan) == pytest.approx(5)


async def test_a_confirmed_hold_stands_without_its_lease(counters: Counters) -> None:
    """A queued request counts until it is finished, however long it waits."""
    plan = plan_of(LimitKind.GPU_SECONDS_PER_MONTH, 10)
    seed(counters, plan, Charge(0.0))
    assert isinstance(await take(counters, plan, "a", Charge(2.0), 0.3), Taken)
    counters.confirm(plan, "a")
    await counters.flush()
    await asyncio.sleep(0.31)  # longer than its lease
    assert await left(counters, plan) == pytest.approx(8)


async def test_another_month_starts_with_nothing(counters: Counters) -> None:
    """What was told of an earlier month says nothing of this one."""
    plan = plan_of(LimitKind.GPU_SECONDS_PER_MONTH, 10)
    counters.seed(plan, plan.budgets[0], MONTH - dt.timedelta(days=1), Spending(Charge(9.0)))
    assert isinstance(await counters.view(plan), Unknown)
    await counters.flush()
