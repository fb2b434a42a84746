"""The workbook's rules: rescaled, capped, and held where chance alone would start them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.slo.burn_rules import Severity, least_bad, pairs_for, tail_bound

MONTH = 43_200


def test_thirty_days_give_the_factors_of_the_workbook() -> None:
    """2 % in an hour is 14.4, 5 % in six hours 6, then 3 and 1."""
    assert [round(pair.factor, 9) for pair in pairs_for(0.001, MONTH)] == [14.4, 6.0, 3.0, 1.0]


def test_a_shorter_window_asks_for_less() -> None:
    """Of seven days an hour of 2 % is 3.36 times the pace; the pair over three days would ask for all of it."""
    found = {pair.name: pair.factor for pair in pairs_for(0.001, 7 * 1440)}
    assert found == {"fast": pytest.approx(3.36), "slow": pytest.approx(1.4), "day": pytest.approx(0.7)}


def test_a_rule_that_could_never_be_met_is_capped() -> None:
    """At 90 % the fast rule would ask for 144 % bad requests; it asks for nearly all of them instead."""
    fast = pairs_for(0.1, MONTH)[0]
    assert fast.capped
    assert fast.threshold == 0.95


def test_thin_traffic_holds_the_rules() -> None:
    """At 30 requests an hour one bad one starts the fast rule, so it may not speak alone; at 3,000 it may."""
    fast = pairs_for(0.001, MONTH)[0]
    assert not fast.may_speak(30, 180)
    assert fast.may_speak(3_000, 18_000)
    assert not fast.may_speak(30, 18_000)  # the traffic has just fallen away


def test_pages_leave_something_to_the_evidence() -> None:
    """The shares of the rules that page add up to less than the whole rate, busy or not."""
    for budget in (0.3, 0.1, 0.01, 0.001, 1e-5):
        pairs = [pair for pair in pairs_for(budget, MONTH) if pair.severity is Severity.PAGE]
        assert sum(pair.false_share for pair in pairs) < 1.0
        assert all(pair.busy_share <= pair.false_share for pair in pairs)


def test_a_rule_started_by_chance_is_as_rare_as_it_claims() -> None:
    """Just where it may speak, a service that spends its budget starts the fast rule at most 0.06 times in 30 days.

    Counted over 100 simulated months, with the standard error on top.
    """
    fast = pairs_for(0.001, MONTH)[0]
    chance, starts, months = np.random.default_rng(3), 0, 100
    for _ in range(months):
        total = chance.poisson(fast.speaks_from / fast.traffic_minutes, MONTH)
        bad = chance.binomial(total, 0.001)
        sums = [counts.cumsum() for counts in (bad, total)]
        burns = (sums[0][60:] - sums[0][:-60]) / (sums[1][60:] - sums[1][:-60]) > fast.threshold
        starts += int(np.count_nonzero(burns[1:] & ~burns[:-1] & (bad[61:] > 0)))
    claimed = 0.1 * fast.false_share * months
    assert starts <= claimed + 3 * math.sqrt(claimed)


@given(number=st.integers(1, 400), share=st.floats(0.0005, 0.5), least=st.integers(0, 60))
def test_the_tail_is_bounded(number: int, share: float, least: int) -> None:
    """What stands for the binomial tail is never below it."""
    exact = 1.0 - math.fsum(
        math.comb(number, count) * share**count * (1 - share) ** (number - count)
        for count in range(min(least, number + 1))
    )
    assert tail_bound(number * share, least) >= exact - 1e-9


@given(requests=st.integers(1, 10**6), threshold=st.floats(1e-5, 0.95))
def test_the_fewest_bad_requests_are_just_above_the_threshold(requests: int, threshold: float) -> None:
    """One less is not above it."""
    least = least_bad(requests, threshold)
    assert least / requests > threshold
    assert (least - 1) / requests <= threshold
