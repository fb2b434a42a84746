"""Throughput: kept where what was asked for was done in time, or as much of it as is promised."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.slo.objectives import slo

from forestay.slo.budget import slice_is_good
from forestay.slo.model import Counts, Measure, Minute, Sli, SliKind, Slo, SloId
from forestay.slo.throughput import LOOKED_BACK_MINUTES, Flows, grace_minutes, owed, settled_minutes
from forestay.slo.watching import Watching

START = 29_000_000  # on five minutes
SLICE = 5
ID = SloId("digits")


def promised(per_second: float, threshold_seconds: float = 60.0) -> Slo:
    """Return an SLO of 99 % of slices, each with 95 % of what it owed done."""
    sli = Sli(SliKind.TIME_SLICE, Measure.THROUGHPUT, threshold_seconds, SLICE, 0.95, per_second=per_second)
    return slo(0.99, sli=sli)


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """One request: when it was asked for, how many minutes it took (None: for ever), whether it failed."""

    minute: int
    took: int | None
    failed: bool


REQUESTS = st.lists(
    st.builds(Asked, st.integers(0, 60), st.one_of(st.none(), st.integers(0, 30)), st.booleans()), max_size=30
)


def minutes_of(requests: Sequence[Asked], until: int) -> Mapping[Minute, Counts]:
    """Return what is read of these requests, by minute from the start on."""
    found = {Minute(START + minute): Counts() for minute in range(until)}
    for one in requests:
        asked = Minute(START + one.minute)
        found[asked] += Counts(asked=1)
        if one.took is not None and one.minute + one.took < until:
            found[Minute(asked + one.took)] += Counts(bad=1) if one.failed else Counts(good=1)
    return found


def bad_slices(made: Slo, minutes: Mapping[Minute, Counts]) -> list[int]:
    """Return the last minutes, from the start on, of slices that are bad."""
    found = settled_minutes(made, minutes, Minute(max(minutes) + 1))
    return [at - START for at, one in found.items() if not slice_is_good(made.sli, one.total, one.bad)]


@given(st.integers(0, 500), st.integers(0, 500), st.integers(-500, 500), st.floats(0.0, 1_000.0))
def test_what_is_owed_is_the_demand_and_never_more_than_is_promised(
    done: int, failed: int, overdue: int, rate: float
) -> None:
    """Nothing is short exactly where as much was done as was asked for, or as is promised."""
    found = owed(done, failed, overdue, rate)
    demand, most = done + failed + max(0, overdue), math.floor(rate + 1e-9)
    assert found.good == done
    assert found.total == max(done, min(demand, most))
    assert (found.bad == 0) == (done >= min(demand, most))


@settings(max_examples=12)
@given(REQUESTS, st.floats(0.01, 3.0), st.sampled_from([1.0, 60.0, 61.0, 600.0]))
def test_a_slice_owes_what_a_count_of_every_request_says(
    requests: list[Asked], per_second: float, threshold_seconds: float
) -> None:
    """Done and failed in the slice; overdue at its end is what was asked for before the grace and has not ended."""
    made, until = promised(per_second, threshold_seconds), 100
    found = settled_minutes(made, minutes_of(requests, until), Minute(START + until))
    grace = grace_minutes(made.sli)
    for last in range(SLICE - 1, until, SLICE):
        ends = [one for one in requests if one.took is not None and last - SLICE < one.minute + one.took <= last]
        late = sum(
            one.minute <= last - grace and (one.took is None or one.minute + one.took > last) for one in requests
        )
        fresh = [one for one in requests if last - grace < one.minute]
        early = sum(one.took is not None and one.minute + one.took <= last for one in fresh)
        failed = sum(one.failed for one in ends)
        # What was asked for within the grace and is done makes up for as much that is late: the order is not known.
        expected = owed(len(ends) - failed, failed, late - early, per_second * 60 * SLICE)
        assert found.get(Minute(START + last), Counts()) == (expected if expected.total else Counts())


@settings(max_examples=12)
@given(REQUESTS, st.floats(0.01, 100.0))
def test_low_demand_is_never_a_failure(requests: list[Asked], per_second: float) -> None:
    """Whatever is promised, and however little is asked for: what is done in time keeps every slice."""
    in_time = [dataclasses.replace(one, took=(one.took or 0) % 2, failed=False) for one in requests]
    assert bad_slices(promised(per_second, 120.0), minutes_of(in_time, 100)) == []


def test_demand_beyond_the_promise_is_no_failure_while_the_promise_is_kept() -> None:
    """Ten times what is promised is asked for, and exactly what is promised is done, with a long queue."""
    minutes = {Minute(START + at): Counts(good=60 if at else 0, asked=600) for at in range(120)}
    assert bad_slices(promised(1.0), minutes) == [4]  # of the first minute nothing could be done yet
    slower = {at: dataclasses.replace(one, good=one.good * 9 // 10) for at, one in minutes.items()}
    assert len(bad_slices(promised(1.0), slower)) == 24


def test_a_fleet_that_stands_still_is_bad_until_it_has_caught_up() -> None:
    """Nothing ends for half an hour, then at twice the rate for as long."""
    asked = [30] * 120
    done = [30] * 30 + [0] * 30 + [60] * 30 + [30] * 30
    minutes = {Minute(START + at): Counts(good=done[at], asked=asked[at]) for at in range(120)}
    assert bad_slices(promised(10.0), minutes) == list(range(34, 89, 5))
    assert bad_slices(promised(0.5), minutes) == list(range(34, 60, 5))  # with less promised, catching up is no failure


def test_what_fails_or_is_turned_away_is_not_done() -> None:
    """One of twenty may, by the slice's own objective; one of ten may not."""
    few, many = ({Minute(START + at): Counts(good=20 - bad, bad=bad, asked=20) for at in range(20)} for bad in (1, 2))
    assert bad_slices(promised(10.0), few) == []
    assert bad_slices(promised(10.0), many) == [4, 9, 14, 19]


def test_an_end_that_never_comes_is_let_go() -> None:
    """After six hours beyond its time; until then it weighs as what one request weighs."""
    made = promised(10.0)
    lonely = {Minute(START + at): Counts(asked=1 if at == 0 else 0) for at in range(600)}
    assert bad_slices(made, lonely) == list(range(4, 360, 5))
    assert LOOKED_BACK_MINUTES == 360
    busy = {at: one + Counts(good=50, asked=50) for at, one in lonely.items()}
    assert bad_slices(made, busy) == []


def test_probes_ask_and_are_served_as_anybody() -> None:
    """They take as much of the fleet, so they are part of the demand."""
    minutes = {Minute(START + at): Counts(good=1, probes_bad=3, asked=4) for at in range(5)}
    assert settled_minutes(promised(1.0), minutes, Minute(START + 5)) == {Minute(START + 4): Counts(good=5, bad=15)}


def test_nothing_asked_for_is_neither_good_nor_bad() -> None:
    """No event at all."""
    flows = Flows([promised(1.0)])
    assert [flows.settled({}, Minute(START + at)) for at in range(20)] == [{}] * 20


def test_other_slos_are_left_as_they_are() -> None:
    """Whatever they count."""
    flows, seen = Flows([promised(1.0)]), {SloId("other"): Counts(good=3, bad=1)}
    assert flows.settled(seen, Minute(START)) == seen
    assert settled_minutes(slo(), {Minute(1): Counts(good=1)}, Minute(9)) == {Minute(1): Counts(good=1)}


def test_a_stall_wakes_somebody_and_spends_the_budget() -> None:
    """Status, budget and reason speak of slices; before it all was well at a hundredth of the promise."""
    watching = Watching([promised(10.0)], Minute(START), Minute(START))
    for _ in range(500):
        watching.take({ID: Counts(good=6, asked=6)})
    [calm] = watching.standings()
    assert (calm.word, calm.left_ratio, calm.events) == ("kept", 1.0, 100)
    for _ in range(60):
        watching.take({ID: Counts(asked=6)})
    [stalled] = watching.standings()
    assert stalled.word == "page"
    assert stalled.bad == 12
    assert stalled.urgent is not None
    assert "slices of 5 min were bad" in stalled.urgent.reason
    assert stalled.per_second == 10.0


@pytest.mark.parametrize(("seconds", "minutes"), [(0.5, 1), (60.0, 1), (61.0, 2), (600.0, 10)])
def test_nobody_is_late_sooner_than_the_threshold(seconds: float, minutes: int) -> None:
    """Counts are by the minute, so the time is rounded up."""
    assert grace_minutes(promised(1.0, seconds).sli) == minutes
