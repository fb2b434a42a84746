"""The bets behind the canary: fair while the arms are alike, growing when they are not."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.rollouts.canary import bets

RATES = st.floats(1e-6, 1.0 - 1e-6)
WEIGHTS = st.floats(0.0001, 0.9999)
CELLS = ((0, 0), (0, 1), (1, 0), (1, 1))  # arm, mark


def one(arm: int, mark: int) -> bets.Array:
    """The counts of a single request."""
    counts = np.zeros((2, 2))
    counts[arm, mark] = 1
    return counts


@given(RATES, WEIGHTS, st.integers(0, 1))
def test_no_bet_on_harm_can_expect_to_gain_while_the_arms_are_alike(base: float, weight: float, mark: int) -> None:
    """Whatever is believed of the control's rate: given the mark, the arm is a coin whose odds are the weight."""
    growth = {arm: bets.harm_growth(np.array(base), np.array(weight), one(arm, mark)) for arm in (0, 1)}
    expected = (1.0 - weight) * np.exp(growth[0]) + weight * np.exp(growth[1])
    assert expected == pytest.approx(np.ones(4), rel=1e-6)


@given(RATES, WEIGHTS, st.lists(st.sampled_from(CELLS), max_size=30))
def test_capital_that_flows_between_bets_stays_whole(base: float, weight: float, cells: list[tuple[int, int]]) -> None:
    """The shares always add up to one and none dies out, so that harm which begins late can still be bet on."""
    log_capital, shares = np.array(0.0), bets.PRIOR
    for arm, mark in cells:
        growth = bets.harm_growth(np.array(base), np.array(weight), one(arm, mark))
        log_capital, shares = bets.grow_harm(log_capital, shares, growth, np.array(float(arm)))
        assert shares.sum() == pytest.approx(1.0)
        assert (shares > 0).all()
    assert math.isfinite(float(log_capital))


@given(st.floats(0.0, 0.9), st.floats(0.001, 0.5), RATES, WEIGHTS)
def test_no_bet_on_safety_can_expect_to_gain_while_the_candidate_is_worse_by_the_margin(
    control: float, margin: float, believed: float, weight: float
) -> None:
    """At the edge, a rate exactly the margin above control's, the expected factor is at most one; none is negative."""
    candidate = min(1.0, control + margin)
    margin = candidate - control
    factors = np.exp(bets.safe_log_factors(np.array(believed), np.array(weight), margin))
    chances = np.array(
        [
            [(1.0 - weight) * (1.0 - control), (1.0 - weight) * control],
            [weight * (1.0 - candidate), weight * candidate],
        ]
    )
    assert (factors >= 0).all()
    assert (np.einsum("bam,am->b", factors, chances) <= 1.0 + 1e-5).all()


def test_a_failing_candidate_is_found_and_a_good_one_is_proved() -> None:
    """A hundred failures of three hundred against one in a hundred; then 2,000 requests without a difference."""
    bad = np.array([[2673.0, 27.0], [200.0, 100.0]])
    growth = bets.harm_growth(np.array(0.01), np.array(0.1), bad)
    found, _ = bets.grow_harm(np.array(0.0), bets.PRIOR, growth, np.array(300.0))
    assert found > math.log(1e10)
    good = np.array([[17_820.0, 180.0], [1_980.0, 20.0]])
    proved = bets.grow_safe(
        np.zeros(len(bets.FRACTIONS)), bets.safe_log_factors(np.array(0.01), np.array(0.1), 0.02), good
    )
    assert bets.log_mean(proved) > math.log(20.0)


def test_an_upper_rate_falls_with_evidence_and_covers_at_every_look() -> None:
    """Nothing seen bounds nothing; over 400 runs of 300 looks the true rate lies above the bound in at most 5 %."""
    assert bets.upper_rate(0, 0, 0.05) == 1.0
    assert bets.upper_rate(0, 10, 0.05) > bets.upper_rate(0, 100, 0.05) > 0.0
    chance = np.random.default_rng(7)
    missed = 0
    for _ in range(400):
        marked = chance.random(300).__lt__(0.2).cumsum()
        looks = range(10, 300, 29)
        missed += any(bets.upper_rate(int(marked[look]), look + 1, 0.05) < 0.2 for look in looks)
    assert missed <= 20
