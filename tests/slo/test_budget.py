"""Error budgets: exact by events, honest about what was not seen."""

import dataclasses
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.slo.objectives import minutes, slo

from forestay.slo.budget import Adjustment, Budget, DataState, History, budget_of, composite_of, minutes_to_empty
from forestay.slo.model import (
    CalendarUnit,
    Counts,
    Measure,
    Minute,
    Part,
    Sli,
    SliKind,
    Slo,
    SloId,
    Subject,
    SubjectKind,
    Window,
)

HOUR = slo(0.99, Window(minutes=60))
SLICED = Sli(SliKind.TIME_SLICE, Measure.AVAILABILITY, slice_minutes=5, slice_objective=0.9)


def test_a_budget_counts_events_not_ratios() -> None:
    """One bad request in a quiet minute weighs as much as one in a busy minute."""
    kept = History(minutes({1: (0, 1), 2: (999, 0)}), Minute(0))
    found = budget_of(slo(0.99, Window(minutes=3)), kept, Minute(2))
    assert found.bad == 1
    assert found.spent_ratio == pytest.approx(0.1)


def test_no_traffic_is_neither_good_nor_bad() -> None:
    """An empty window has no state; nothing is spent and nothing burns."""
    found = budget_of(HOUR, History({}, Minute(-100)), Minute(100))
    assert (found.state, found.spent_ratio, found.minutes_to_empty) == (DataState.NO_DATA, 0.0, None)


def test_minutes_that_nobody_saw_are_said() -> None:
    """A gap of the collection makes the window partial, and tells how long it was."""
    kept = History({Minute(50): Counts(missing_minutes=1), Minute(51): Counts(good=10)}, Minute(0))
    found = budget_of(HOUR, kept, Minute(100))
    assert found.state is DataState.PARTIAL
    assert "1 minutes were not seen" in found.says[0]


def test_a_window_longer_than_what_is_kept_says_so() -> None:
    """Only what is kept is counted, and a reader is told."""
    kept = History(minutes({90: (10, 0)}), Minute(80))
    found = budget_of(HOUR, kept, Minute(100))
    assert (found.state, found.seen_from) == (DataState.PARTIAL, 80)
    assert "not kept" in found.says[0]


def test_a_slice_without_requests_is_no_event_and_slices_weigh_alike() -> None:
    """Two slices had requests, one of them missed its objective: half of the events are bad."""
    kept = History(minutes({0: (9, 1), 6: (1, 1), 7: (1, 0)}), Minute(0))
    found = budget_of(slo(0.9, Window(minutes=60), SLICED), kept, Minute(59))
    assert (found.events, found.bad) == (2, 1)


def test_an_adjustment_takes_a_stretch_out_and_names_who_did_it() -> None:
    """What a person takes out is not counted, and is told with its reason."""
    kept = History(minutes({10: (0, 50), 20: (100, 0)}), Minute(0))
    taken = Adjustment(HOUR.slo_id, Minute(5), Minute(15), "ada", "fire drill", Minute(30))
    found = budget_of(HOUR, kept, Minute(50), [taken])
    assert found.bad == 0
    assert any("ada" in words and "fire drill" in words for words in found.says)


@given(st.integers(0, 60), st.integers(1, 80), st.integers(0, 49))
def test_what_is_given_back_is_bad_no_more_and_never_makes_a_budget_better_than_whole(
    bad: int, forgiven: int, minute: int
) -> None:
    """The events stay; the reason is told; once its minute has left the window it counts no more."""
    kept = History(minutes({10: (100, bad)}), Minute(0))
    back = Adjustment(HOUR.slo_id, Minute(minute), Minute(minute + 1), "ada", "a load test", Minute(minute), forgiven)
    before, after = (budget_of(HOUR, kept, Minute(50), adjusted) for adjusted in ([], [back]))
    assert (after.events, after.bad) == (before.events, max(0, bad - forgiven))
    assert 0.0 <= after.spent_ratio <= before.spent_ratio
    assert any(f"{forgiven} bad events given back by ada: a load test" in words for words in after.says)
    late = Minute(minute + 61)
    assert budget_of(HOUR, kept, late, [back]) == budget_of(HOUR, kept, late)


def test_an_adjustment_of_another_slo_changes_nothing() -> None:
    """Adjustments belong to one SLO."""
    kept = History(minutes({10: (0, 50)}), Minute(0))
    taken = Adjustment(SloId("other"), Minute(5), Minute(15), "ada", "fire drill", Minute(30))
    assert budget_of(HOUR, kept, Minute(50), [taken]) == budget_of(HOUR, kept, Minute(50))


def test_a_calendar_window_counts_what_the_rest_will_bring() -> None:
    """Half through the day, as many bad requests as half a day allows spend half of the budget."""
    window = Window(calendar=CalendarUnit.DAY)
    history = dict.fromkeys(range(720), (99, 1))
    found = budget_of(slo(0.99, window), History(minutes(history), Minute(0)), Minute(719))
    assert found.spent_ratio == pytest.approx(0.5)
    assert found.burn_rate == pytest.approx(1.0)


def test_a_budget_tells_when_it_is_gone() -> None:
    """Half left of an hour at twice the even pace is gone in a quarter of an hour."""
    assert minutes_to_empty(0.5, 2.0, 60) == 15.0
    assert minutes_to_empty(0.0, 2.0, 60) == 0.0
    assert minutes_to_empty(0.5, 0.0, 60) is None


def part(name: str, events: int, bad: int) -> Budget:
    """Return the budget of a part."""
    state = DataState.WHOLE if events else DataState.NO_DATA
    return Budget(SloId(name), state, events, bad, 0.0, 0.0, 0.0, None, Minute(0))


def composite(weights: dict[str, float]) -> Slo:
    """Return a composite of 99 %."""
    parts = tuple(Part(SloId(name), weight) for name, weight in weights.items())
    return dataclasses.replace(slo(0.99), subject=Subject(SubjectKind.COMPOSITE), parts=parts)


def test_a_composite_weighs_shares_as_it_says() -> None:
    """A busy part does not outvote a quiet one unless its weight says so."""
    found = composite_of(
        composite({"a": 3.0, "b": 1.0}), {SloId("a"): part("a", 10, 0), SloId("b"): part("b", 1000, 40)}
    )
    assert found.spent_ratio == pytest.approx(0.04 / 4 / 0.01)


def test_a_part_without_data_takes_no_side() -> None:
    """Its weight is left out, and that is said."""
    found = composite_of(composite({"a": 1.0, "b": 9.0}), {SloId("a"): part("a", 100, 1), SloId("b"): part("b", 0, 0)})
    assert found.spent_ratio == pytest.approx(1.0)
    assert found.says == ("b has no data: it takes no side",)


MANY = st.dictionaries(st.integers(0, 400), st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), max_size=60)


@given(kept=MANY, now=st.integers(0, 450), length=st.integers(1, 300), percent=st.integers(1, 99_999))
def test_the_arithmetic_is_that_of_exact_fractions(
    kept: dict[int, tuple[int, int]], now: int, length: int, percent: int
) -> None:
    """A recount of every event in exact fractions differs by less than one part in 10^9."""
    budget = Fraction(100_000 - percent, 100_000)
    found = budget_of(slo(1 - float(budget), Window(minutes=length)), History(minutes(kept), Minute(-500)), Minute(now))
    inside = [pair for minute, pair in kept.items() if now - length < minute <= now]
    events = sum(good + bad for good, bad in inside)
    exact = Fraction(sum(bad for _, bad in inside)) / (budget * events) if events else Fraction(0)
    assert found.spent_ratio == pytest.approx(float(exact), rel=1e-9)


@given(kept=MANY, cut=st.integers(0, 400))
def test_counts_of_two_stretches_add_up_to_the_whole(kept: dict[int, tuple[int, int]], cut: int) -> None:
    """Merging buckets loses nothing, wherever the cut lies."""
    found = minutes(kept)
    early = sum((counts for minute, counts in found.items() if minute < cut), Counts())
    late = sum((counts for minute, counts in found.items() if minute >= cut), Counts())
    assert early + late == sum(found.values(), Counts())


@given(kept=MANY, worse=st.integers(1, 1000), now=st.integers(0, 400))
def test_one_more_bad_request_never_helps(kept: dict[int, tuple[int, int]], worse: int, now: int) -> None:
    """Turning good requests bad never leaves more budget."""
    before = budget_of(HOUR, History(minutes(kept), Minute(-500)), Minute(now))
    moved = {minute: (max(0, good - worse), bad + min(worse, good)) for minute, (good, bad) in kept.items()}
    assert budget_of(HOUR, History(minutes(moved), Minute(-500)), Minute(now)).left_ratio <= before.left_ratio + 1e-12
