"""The generic cell rate algorithm: what it promises of any sequence of calls."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.limits.gcra import MICROSECONDS, Bucket, bucket_of, decide, give_back, shared

RATES = st.floats(0.01, 5000, allow_nan=False)
BURSTS = st.integers(1, 8).map(float)
GAPS = st.lists(st.one_of(st.just(0.0), st.floats(0, 2.5)), min_size=12, max_size=60)  # in intervals: buckets fill up


def moments(gaps: list[float], per_second: float) -> list[float]:
    """Return the times of calls whose gaps are told in emission intervals; microseconds."""
    return list(itertools.accumulate(gap * MICROSECONDS / per_second for gap in gaps))


def play(bucket: Bucket, times: list[float], costs: list[float]) -> list[tuple[float, float]]:
    """Ask at each time for each cost; returns what was granted, and when."""
    tat, granted = 0.0, []
    for now, cost in zip(times, costs, strict=True):
        verdict = decide(bucket, tat, now, cost)
        tat = verdict.tat
        if verdict.granted:
            granted.append((now, cost))
    return granted


def most_in_any_window(granted: list[tuple[float, float]], per_second: float) -> float:
    """Return by how much the grants of the worst window exceed the rate."""
    worst = 0.0
    for start, end in itertools.combinations_with_replacement(range(len(granted)), 2):
        seconds = (granted[end][0] - granted[start][0]) / MICROSECONDS
        worst = max(worst, sum(cost for _, cost in granted[start : end + 1]) - per_second * seconds)
    return worst


@pytest.mark.threat("API4:2023", "AML.T0029")
@given(rate=RATES, burst=BURSTS, more=st.integers(1, 20))
def test_of_calls_that_come_at_once_exactly_a_burst_is_granted(rate: float, burst: float, more: int) -> None:
    """Neither one less nor one more."""
    calls = int(burst) + more
    assert len(play(bucket_of(rate, burst), [5.0] * calls, [1.0] * calls)) == burst


@given(rate=RATES, burst=BURSTS, gaps=GAPS)
def test_no_window_grants_more_than_the_rate_and_one_burst(rate: float, burst: float, gaps: list[float]) -> None:
    """Whatever the times of the calls."""
    times = moments(gaps, rate)
    granted = play(bucket_of(rate, burst), times, [1.0] * len(times))
    assert most_in_any_window(granted, rate) <= burst + 1e-6


@given(
    rate=RATES,
    burst=BURSTS,
    gaps=GAPS,
    costs=st.lists(st.floats(0.01, 12), min_size=60, max_size=60),
)
def test_weighted_calls_keep_the_same_bound_but_for_one_call_larger_than_the_burst(
    rate: float, burst: float, gaps: list[float], costs: list[float]
) -> None:
    """A call that alone exceeds the burst may go when nothing is owed: then the bound is that call."""
    times = moments(gaps, rate)
    granted = play(bucket_of(rate, burst), times, costs[: len(times)])
    largest = max((cost for _, cost in granted), default=0.0)
    assert most_in_any_window(granted, rate) <= max(burst, largest) + 1e-6


@given(rate=RATES, burst=BURSTS, gaps=GAPS)
def test_no_call_is_refused_while_there_is_room(rate: float, burst: float, gaps: list[float]) -> None:
    """Work-conserving: a refused call would have broken the bound of some window that ends with it."""
    bucket = bucket_of(rate, burst)
    tat, granted = 0.0, list[tuple[float, float]]()
    for now in moments(gaps, rate):
        verdict = decide(bucket, tat, now)
        tat = verdict.tat
        if verdict.granted:
            granted.append((now, 1.0))
        else:
            assert most_in_any_window([*granted, (now, 1.0)], rate) > burst - 1e-3


@given(rate=RATES, burst=BURSTS, gaps=GAPS)
def test_a_refused_call_conforms_after_the_wait_that_it_is_told_and_not_before(
    rate: float, burst: float, gaps: list[float]
) -> None:
    """`wait` is exact."""
    bucket, tat = bucket_of(rate, burst), 0.0
    for now in moments(gaps, rate):
        verdict = decide(bucket, tat, now)
        tat = verdict.tat
        if not verdict.granted:
            assert decide(bucket, tat, now + verdict.wait + 0.01).granted
            assert not decide(bucket, tat, now + verdict.wait * 0.99 - 0.01).granted


@given(rate=RATES, burst=BURSTS, gaps=GAPS, more=st.floats(1.0, 4.0))
def test_a_wider_limit_never_grants_less(rate: float, burst: float, gaps: list[float], more: float) -> None:
    """Monotone in rate and in burst."""
    times = moments(gaps, rate)
    ones = [1.0] * len(times)
    base = len(play(bucket_of(rate, burst), times, ones))
    assert len(play(bucket_of(rate * more, burst), times, ones)) >= base
    assert len(play(bucket_of(rate, burst + int(more)), times, ones)) >= base


@given(rate=RATES, burst=BURSTS, cost=st.floats(0.1, 50), now=st.floats(0, 1e12))
def test_what_is_given_back_can_be_taken_again_and_never_more(
    rate: float, burst: float, cost: float, now: float
) -> None:
    """A full bucket stays full."""
    bucket = bucket_of(rate, burst)
    taken = decide(bucket, now, now, min(cost, burst))
    assert taken.granted
    back = give_back(bucket, taken.tat, now, min(cost, burst))
    assert decide(bucket, back, now, burst * (1 - 1e-9)).granted  # but for the last bit of a double
    fuller = give_back(bucket, back, now, cost)
    assert decide(bucket, fuller, now, 0.0).left <= burst + 1e-6


def test_using_more_than_was_taken_is_owed_from_now_on() -> None:
    """A bucket that stood full since long does not swallow the difference."""
    bucket = bucket_of(1.0, 10.0)
    tat = give_back(bucket, 0.0, 100 * MICROSECONDS, -4.0)
    assert decide(bucket, tat, 100 * MICROSECONDS, 0.0).left == pytest.approx(6.0)


@given(rate=RATES, burst=BURSTS, gateways=st.integers(1, 8), seconds=st.integers(1, 60))
def test_shares_together_grant_no_more_than_the_rate(rate: float, burst: float, gateways: int, seconds: int) -> None:
    """N gateways at 1/n each: in the long run the limit, and at the start at most a burst, or one call each."""
    bucket = shared(bucket_of(rate, burst), 1.0 / gateways)
    steps = min(4000, max(1, int(rate / gateways * seconds)))
    times = [n * seconds * MICROSECONDS / steps for n in range(steps + 1)]
    granted = len(play(bucket, times, [1.0] * len(times))) * gateways
    assert granted <= rate * seconds + max(burst, gateways) + gateways


def test_the_time_until_one_more_unit_is_told() -> None:
    """At two a second, one is back half a second after the burst is used up."""
    bucket = bucket_of(2.0, 2.0)
    first = decide(bucket, 0.0, 0.0)
    assert (first.left, first.next_unit) == (pytest.approx(1.0), pytest.approx(0.5 * MICROSECONDS))
    full = decide(bucket, 0.0, 5 * MICROSECONDS, 0.0)
    assert (full.left, full.next_unit) == (2.0, 0.0)
