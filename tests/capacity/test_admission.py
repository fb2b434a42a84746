"""Who is admitted, who is refused and when to come back: by table and by property."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.capacity.admission import (
    NEVER,
    Admit,
    Ask,
    Refuse,
    Rules,
    Slots,
    Snapshot,
    decide_admission,
    with_admitted,
)
from forestay.capacity.inflow import Inflow
from forestay.ids import ModelId, TenantId
from forestay.queue.pressure import Due, Pressure

MODEL = ModelId("acme/digits")
ANT, BEE = TenantId("ant"), TenantId("bee")
SURE = Rules(spread=0.0, risk=0.0)  # predictions that never err: the start alone decides


def ask(within: float | None = 30.0, seconds: float = 1.0, **more: object) -> Ask:
    """A request of the tenant `ant`."""
    return dataclasses.replace(Ask(MODEL, ANT, seconds, seconds, within), **more)  # type: ignore[arg-type]


def presses(
    tenant: TenantId, waiting: float, *, held: int = 0, due: float | None = 20.0, low: bool = False, cost: float = 1.0
) -> Pressure:
    """A tenant with so many device-seconds waiting, in requests of one size, due together."""
    group = (Due(due, due, waiting),) if due is not None and waiting else ()
    return Pressure(
        MODEL,
        tenant,
        low,
        1.0,
        int(waiting / cost),
        waiting,
        group,
        held,
        held * cost,
        0.0,
        (waiting + held * cost) * cost,
    )


def test_a_request_without_a_deadline_is_always_admitted() -> None:
    """Waiting is what it asked for, whatever is ahead, even where nothing serves."""
    full = Snapshot([presses(ANT, 1e6), presses(BEE, 1e6)])
    assert isinstance(decide_admission(ask(None), full, Slots(1, 1.0)), Admit)
    assert isinstance(decide_admission(ask(None), full, Slots(0, 0.0)), Admit)


def test_an_idle_slot_takes_it_at_once() -> None:
    """However short its limit is."""
    decided = decide_admission(ask(0.2), Snapshot([]), Slots(2, 2.0))
    assert (isinstance(decided, Admit), decided.start_seconds) == (True, 0.0)


def test_work_ahead_of_the_same_tenant_counts_in_full() -> None:
    """Forty device-seconds on two slots take twenty seconds; the retry time is what is missing."""
    queue = Snapshot([presses(ANT, 40.0, held=0, cost=0.001)])
    admitted = decide_admission(ask(25.0, 0.001), queue, Slots(2, 2.0), SURE)
    assert isinstance(admitted, Admit)
    assert admitted.start_seconds == pytest.approx(20.0, abs=0.1)
    refused = decide_admission(ask(21.0, 0.001), Snapshot([presses(ANT, 60.0, cost=0.001)]), Slots(2, 2.0), SURE)
    assert isinstance(refused, Refuse)
    assert refused.retry_after_seconds == 9
    assert "60 device-seconds are ahead" in refused.reason


def test_a_refused_caller_is_never_sent_away_for_longer_than_the_queue_takes_to_empty() -> None:
    """The margin for predictions that err shrinks with the work; an idle slot takes the request at once."""
    queue = Snapshot([presses(ANT, 0.0, held=12, cost=5.0)])
    refused = decide_admission(ask(1.5, 0.1), queue, Slots(4, 4.0), Rules(spread=2.0))
    assert isinstance(refused, Refuse)
    assert refused.retry_after_seconds == 15
    too_long = decide_admission(ask(None, 90.0, end_within=60.0), queue, Slots(4, 4.0), Rules(spread=2.0))
    assert isinstance(too_long, Refuse)
    assert too_long.retry_after_seconds > 15  # no slot would take it, idle or not


@pytest.mark.threat("API4:2023", "AML.T0029")
def test_another_tenants_backlog_costs_only_its_share() -> None:
    """A thousand seconds of a neighbour delay a tenant's first request by a turn, not by a thousand seconds."""
    queue = Snapshot([presses(BEE, 1000.0, held=1)])
    decided = decide_admission(ask(30.0), queue, Slots(1, 1.0), SURE)
    assert isinstance(decided, Admit)
    assert decided.start_seconds < 3.0


def test_who_is_ahead_of_its_share_waits_for_the_others() -> None:
    """A lead in virtual time is served to the others first."""
    pressing = [presses(BEE, 1000.0, held=1)]
    level = decide_admission(ask(), Snapshot(pressing), Slots(1, 1.0), SURE)
    ahead = decide_admission(ask(), Snapshot(pressing, {ANT: 50.0}), Slots(1, 1.0), SURE)
    assert isinstance(level, Admit)
    assert isinstance(ahead, Refuse)
    assert ahead.start_seconds == pytest.approx(level.start_seconds + 50.0, abs=1.0)


def test_an_urgent_request_may_not_push_its_own_tenants_promises_over() -> None:
    """It would go first; the ones admitted before it would then start late."""
    queue = Snapshot([presses(ANT, 19.0, due=20.0, cost=0.5)])
    assert isinstance(decide_admission(ask(5.0, 0.5), queue, Slots(1, 1.0), SURE), Admit)
    refused = decide_admission(ask(5.0, 8.0), queue, Slots(1, 1.0), SURE)
    assert isinstance(refused, Refuse)
    assert "same tenant" in refused.reason


def test_a_low_request_waits_for_normal_ones_or_the_starvation_bound() -> None:
    """Behind a normal backlog it starts past the bound; beside idle slots at once."""
    queue = Snapshot([presses(BEE, 500.0, held=1)])
    early = decide_admission(ask(30.0, low=True), queue, Slots(1, 1.0), SURE)
    assert isinstance(early, Refuse)
    assert early.start_seconds >= 60.0
    assert isinstance(decide_admission(ask(90.0, low=True), queue, Slots(1, 1.0), SURE), Admit)
    assert isinstance(decide_admission(ask(1.0, low=True), Snapshot([]), Slots(1, 1.0), SURE), Admit)


def test_the_total_deadline_counts_the_run_as_well() -> None:
    """What can start but not end in time is refused: it would take capacity for nothing."""
    assert isinstance(decide_admission(ask(None, 5.0, end_within=6.0), Snapshot([]), Slots(1, 1.0), SURE), Admit)
    refused = decide_admission(ask(None, 5.0, end_within=4.0), Snapshot([]), Slots(1, 1.0), SURE)
    assert isinstance(refused, Refuse)
    assert "to end" in refused.reason


def test_a_total_deadline_that_a_quick_run_could_keep_is_tried() -> None:
    """A model that was slow of late may be quick again; the deadline itself ends what is not."""
    unsure = ask(None, 20.0, low_seconds=1.0, end_within=4.0)
    assert isinstance(decide_admission(unsure, Snapshot([]), Slots(1, 1.0), SURE), Admit)
    busy = Snapshot([presses(BEE, 0.0, held=1, cost=5.0)])
    assert isinstance(decide_admission(unsure, busy, Slots(1, 1.0), SURE), Refuse)


def test_a_model_that_is_loading_counts_its_start_and_one_that_is_nowhere_never_starts() -> None:
    """A replica that is ready in twenty seconds is worth waiting for by whoever has the time."""
    loading = Slots(0, 0.0, ((20.0, 1.0),))
    assert isinstance(decide_admission(ask(30.0), Snapshot([]), loading, SURE), Admit)
    refused = decide_admission(ask(10.0), Snapshot([]), loading, SURE)
    assert isinstance(refused, Refuse)
    assert (refused.start_seconds, refused.retry_after_seconds) == (20.0, 10)
    nowhere = decide_admission(ask(10.0), Snapshot([]), Slots(0, 0.0))
    assert isinstance(nowhere, Refuse)
    assert (nowhere.start_seconds, nowhere.retry_after_seconds) == (NEVER, 3600)


def test_what_was_admitted_since_the_snapshot_is_ahead_as_well() -> None:
    """A burst between two reads of the queue is not admitted whole."""
    slots, admitted = Slots(1, 1.0), list[Ask]()
    for _ in range(200):
        wanted = ask(20.0, 1.0)
        if isinstance(decide_admission(wanted, Snapshot(with_admitted([], admitted)), slots), Admit):
            admitted.append(wanted)
    assert 3 <= len(admitted) <= 21


def test_inflow_remembers_half_a_minute_and_stays_bounded() -> None:
    """A steady rate is read back; who stops is forgotten; a flood of tenants does not fill the memory."""
    inflow = Inflow()
    for second in range(300):
        inflow.add(MODEL, ANT, 2.0, float(second))
    assert inflow.rates(MODEL, 300.0)[ANT] == pytest.approx(2.0, rel=0.1)
    assert inflow.rates(MODEL, 600.0)[ANT] < 0.001
    for number in range(25_000):
        inflow.add(MODEL, TenantId(f"t{number}"), 1.0, 600.0)
    assert len(inflow.rates(MODEL, 600.0)) <= 10_000


work = st.floats(0.0, 500.0)
queues = st.tuples(work, work, st.integers(0, 4), st.floats(0.1, 20.0))


@given(queues, st.integers(1, 8), st.floats(0.2, 600.0), st.floats(0.0, 50.0))
def test_more_work_ahead_never_starts_a_request_earlier(
    queue: tuple[float, float, int, float], count: int, within: float, more: float
) -> None:
    """Whatever the queue; every answer is finite, and a retry time is between a second and an hour."""
    own, others, held, cost = queue
    slots = Slots(count, float(count))

    def decide(extra: float) -> Admit | Refuse:
        pressing = [presses(ANT, own + extra, due=within, cost=cost), presses(BEE, others, held=held, cost=cost)]
        return decide_admission(ask(within, cost), Snapshot(pressing), slots, SURE)

    before, after = decide(0.0), decide(more)
    assert 0.0 <= before.start_seconds < NEVER
    assert after.start_seconds >= before.start_seconds - 1.0 - 0.01 * before.start_seconds
    for decided in (before, after):
        assert isinstance(decided, Admit) or 1 <= decided.retry_after_seconds <= 3600


@given(queues, st.integers(1, 8), st.floats(0.2, 300.0), st.floats(0.0, 300.0))
def test_more_time_never_turns_a_yes_into_a_no(
    queue: tuple[float, float, int, float], count: int, within: float, more: float
) -> None:
    """With everything else due after it, a longer limit is as good or better."""
    own, others, held, cost = queue
    pressing = [presses(ANT, own, due=0.1, cost=cost), presses(BEE, others, held=held, cost=cost)]
    slots = Slots(count, float(count))
    if isinstance(decide_admission(ask(within, cost), Snapshot(pressing), slots), Admit):
        assert isinstance(decide_admission(ask(within + more, cost), Snapshot(pressing), slots), Admit)
