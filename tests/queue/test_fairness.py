"""Whose turn it is: the rule by table, and what it promises by property."""

import dataclasses
import datetime as dt
import uuid
from collections.abc import Iterable, Mapping

from hypothesis import given
from hypothesis import strategies as st

from forestay.ids import RequestId, TenantId
from forestay.queue.fairness import Service, Waiting, decide_turns, settle

NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
TENANTS = ("ant", "bee", "cat")
BOUND_SECONDS = 60.0


def waits(
    number: int,
    tenant: str = "ant",
    cost: float = 1.0,
    *,
    due: float | None = None,
    age: float = 0.0,
    low: bool = False,
) -> Waiting:
    """A request submitted `age` seconds ago that must start within `due` seconds."""
    ordered = NOW - dt.timedelta(seconds=age - (BOUND_SECONDS if low else 0.0))
    due_at = ordered + dt.timedelta(hours=1) if due is None else NOW + dt.timedelta(seconds=due)
    return Waiting(RequestId(uuid.UUID(int=number)), TenantId(tenant), cost, due_at, ordered, low)


def numbers(waiting: Iterable[Waiting], slots: int, *service: Service, pool: float = 0.0) -> list[int]:
    """The numbers of the requests whose turn it is."""
    return [pick.request_id.int for pick in decide_turns(waiting, service, pool, slots, NOW).picks]


def test_two_tenants_take_turns_by_cost_not_by_count() -> None:
    """One heavy request is worth ten light ones, whoever came first."""
    heavy = [waits(n, "ant", 10.0, age=100 - n) for n in range(1, 4)]
    light = [waits(n, "bee", 1.0, age=50 - n) for n in range(11, 31)]
    order = numbers([*heavy, *light], 23)
    assert order[:12] == [1, *range(11, 21), 2]
    assert sorted(order) == sorted(item.request_id.int for item in [*heavy, *light])


def test_weight_multiplies_the_share() -> None:
    """Of nine equal turns a tenant with twice the weight gets six."""
    waiting = [waits(n, "ant") for n in range(1, 20)] + [waits(n, "bee") for n in range(21, 40)]
    order = numbers(waiting, 9, Service(TenantId("bee"), 0.0, weight=2.0))
    assert sum(number > 20 for number in order) == 6


def test_a_tenant_that_returns_is_lifted_and_gets_no_credit_for_its_absence() -> None:
    """Having had nothing for long is worth no more than having had as much as the pool's time says."""
    waiting = [waits(n, "ant") for n in range(1, 5)] + [waits(n, "bee") for n in range(11, 15)]
    order = numbers(waiting, 4, Service(TenantId("ant"), 1000.0), Service(TenantId("bee"), 3.0), pool=1000.0)
    assert order == [1, 11, 2, 12]


def test_a_tenant_that_has_been_waiting_keeps_its_place() -> None:
    """What is given back to it is served to it, although the pool's time has passed that point."""
    ant = settle(Service(TenantId("ant"), 10.0, active=True), predicted_seconds=10.0, used_seconds=4.0)
    waiting = [waits(n, "ant", 3.0) for n in range(1, 5)] + [waits(n, "bee", 3.0) for n in range(11, 15)]
    turns = decide_turns(waiting, [ant, Service(TenantId("bee"), 30.0)], 30.0, 5, NOW)
    assert [pick.start_tag for pick in turns.picks] == [4.0, 7.0, 10.0, 13.0, 30.0]


def test_waiting_with_low_requests_alone_saves_nothing_up() -> None:
    """A low request that is renewed again and again would otherwise claim the whole pool one day."""
    low = waits(1, "ant", low=True)
    turns = decide_turns([low, *(waits(n, "bee") for n in range(11, 31))], (), 0.0, 10, NOW)
    assert not turns.service[TenantId("ant")].active
    later = [*(waits(n, "ant") for n in range(2, 12)), *(waits(n, "bee") for n in range(21, 31))]
    order = [pick.tenant_id for pick in decide_turns(later, turns.service.values(), turns.pool_time, 6, NOW).picks]
    assert order.count(TenantId("ant")) <= 4  # half of the turns, and at most one more


def test_a_newcomer_takes_turns_from_now_on_and_does_not_catch_up() -> None:
    """The pool's time moves with what is served; who comes later begins there."""
    ants = [waits(n, "ant") for n in range(1, 30)]
    alone = decide_turns(ants, (), 0.0, 10, NOW)
    waiting = [*ants[10:], *(waits(n, "bee") for n in range(101, 120))]
    order = [pick.tenant_id for pick in decide_turns(waiting, alone.service.values(), alone.pool_time, 6, NOW).picks]
    assert order == ["bee", "ant", "bee", "ant", "bee", "ant"]


def test_inside_a_tenant_the_earliest_deadline_goes_first_then_the_earliest_submit() -> None:
    """Those without a deadline go after those with one."""
    waiting = [waits(1, age=9), waits(2, age=8), waits(3, due=50), waits(4, due=20), waits(5, due=20, age=1)]
    assert numbers(waiting, 5) == [4, 5, 3, 1, 2]


def test_low_yields_to_everybody_until_the_starvation_bound() -> None:
    """Past the bound it is a request like any other; before, it runs only where nothing else waits."""
    young, old = waits(1, age=BOUND_SECONDS - 1, low=True), waits(2, age=BOUND_SECONDS + 1, low=True)
    normal = [waits(n, "bee", age=0) for n in range(11, 14)]
    assert numbers([young, *normal], 4) == [11, 12, 13, 1]
    assert numbers([old, *normal], 4) == [2, 11, 12, 13]
    reasons = [pick.reason for pick in decide_turns([young, old, *normal], (), 0.0, 5, NOW).picks]
    assert reasons[0] == "low priority, past the starvation bound"
    assert reasons[-1] == "low priority, and no other request waits"


def test_what_was_charged_too_little_counts_at_once() -> None:
    """A tenant whose requests take longer than predicted waits that much longer; none is ever paid to wait."""
    assert settle(Service(TenantId("ant"), 10.0, 2.0), predicted_seconds=1.0, used_seconds=5.0).virtual_time == 12.0
    assert settle(Service(TenantId("ant"), 1.0), predicted_seconds=5.0, used_seconds=0.0).virtual_time == 0.0


requests = st.lists(
    st.tuples(
        st.sampled_from(TENANTS),
        st.floats(0.01, 100.0),
        st.none() | st.floats(1.0, 100.0),
        st.floats(0.0, 200.0),
        st.booleans(),
    ),
    min_size=1,
    max_size=30,
).map(
    lambda rows: [
        waits(n, tenant, cost, due=due, age=age, low=low) for n, (tenant, cost, due, age, low) in enumerate(rows, 1)
    ]
)
services = st.lists(st.sampled_from(TENANTS), unique=True).flatmap(
    lambda names: st.tuples(
        *(
            st.builds(
                Service,
                st.just(TenantId(name)),
                st.floats(0.0, 50.0),
                st.sampled_from([0.5, 1.0, 4.0]),
                st.booleans(),
            )
            for name in names
        )
    )
)


@given(requests, services, st.integers(0, 40), st.floats(0.0, 50.0))
def test_no_slot_stays_empty_while_anything_waits(
    waiting: list[Waiting], service: tuple[Service, ...], slots: int, pool: float
) -> None:
    """Exactly as many picks as slots or requests, nobody twice; the tags never fall, and nothing is ever cheap."""
    turns = decide_turns(waiting, service, pool, slots, NOW)
    picked = [pick.request_id for pick in turns.picks]
    assert len(picked) == min(slots, len(waiting)) == len(set(picked))
    assert turns.pool_time >= pool
    assert all(pick.start_tag < pick.finish_tag for pick in turns.picks)
    kinds = [next(item for item in waiting if item.request_id == found) for found in picked]
    yielding = [item.low and item.order_at > NOW for item in kinds]
    assert yielding == sorted(yielding)


@given(requests, services, st.floats(0.0, 50.0))
def test_the_order_in_which_rows_are_read_decides_nothing(
    waiting: list[Waiting], service: tuple[Service, ...], pool: float
) -> None:
    """The same question has the same answer, however often and in whatever order it is asked."""
    once = decide_turns(waiting, service, pool, 7, NOW)
    assert decide_turns(list(reversed(waiting)), tuple(reversed(service)), pool, 7, NOW) == once


@given(requests, services, st.floats(0.0, 50.0), st.integers(1, 10))
def test_two_claims_pick_what_one_claim_of_as_many_slots_does(
    waiting: list[Waiting], service: tuple[Service, ...], pool: float, slots: int
) -> None:
    """The state after a claim says all that the next one needs."""
    waiting = [dataclasses.replace(item, low=False) for item in waiting]
    whole = decide_turns(waiting, service, pool, slots, NOW)
    state, time, one_by_one = {item.tenant_id: item for item in service}, pool, list[RequestId]()
    for _ in range(slots):
        turns = decide_turns([w for w in waiting if w.request_id not in one_by_one], state.values(), time, 1, NOW)
        state, time = {**state, **turns.service}, turns.pool_time
        one_by_one += [pick.request_id for pick in turns.picks]
    assert one_by_one == [pick.request_id for pick in whole.picks]


@given(
    st.lists(st.tuples(st.floats(0.01, 50.0), st.floats(0.01, 50.0)), min_size=2, max_size=40),
    st.sampled_from([0.25, 1.0, 3.0]),
    st.floats(0.0, 500.0),
)
def test_two_tenants_that_both_wait_differ_by_at_most_one_largest_request_each(
    costs: list[tuple[float, float]], weight: float, head_start: float
) -> None:
    """Theorem 1 of SFQ over every prefix of the service given, whatever a tenant got before."""
    waiting = [waits(n, "ant", cost) for n, (cost, _) in enumerate(costs, 1)]
    waiting += [waits(n, "bee", cost) for n, (_, cost) in enumerate(costs, 1001)]
    service = [Service(TenantId("ant"), head_start), Service(TenantId("bee"), 0.0, weight)]
    turns = decide_turns(waiting, service, head_start, len(waiting), NOW)
    bound = max(cost for cost, _ in costs) + max(cost for _, cost in costs) / weight
    cost_of = {item.request_id: item.predicted_seconds for item in waiting}
    given_to, left = {"ant": 0.0, "bee": 0.0}, {"ant": len(costs), "bee": len(costs)}
    for pick in turns.picks:
        if not all(left.values()):
            return
        given_to[pick.tenant_id] += cost_of[pick.request_id]
        left[pick.tenant_id] -= 1
        assert abs(given_to["ant"] - given_to["bee"] / weight) <= bound + 1e-6


@given(
    st.floats(0.1, 30.0),
    st.lists(st.floats(0.1, 30.0), min_size=1, max_size=4),
    st.floats(0.1, 30.0),
)
def test_nobody_starves_however_much_others_send(own: float, others: list[float], ahead: float) -> None:
    """A request starts before the others together have had more than its tenant's turn and one request each."""
    service: Mapping[TenantId, Service] = {}
    time, number, received = 0.0, 10, 0.0
    mine = [waits(1, "ant", ahead), waits(2, "ant", own)]
    while mine:
        flood: list[Waiting] = []
        for n, cost in enumerate(others):
            flood += [waits(number + 2 * n, f"other-{n}", cost), waits(number + 2 * n + 1, f"other-{n}", cost)]
        number += 100
        turns = decide_turns([*mine, *flood], service.values(), time, 1, NOW)
        service, time = {**service, **turns.service}, turns.pool_time
        [pick] = turns.picks
        mine = [item for item in mine if item.request_id != pick.request_id]
        received += pick.finish_tag - pick.start_tag if pick.tenant_id != "ant" else 0.0
        assert received <= sum(ahead + cost for cost in others) + 1e-6 or not mine
