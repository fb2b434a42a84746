"""Evidence that may be looked at after every call: false alarms stay as rare as they promise."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.abuse.evidence import LARGEST, MAX_FACTS, Evidence, bernoulli_bet, mean_bet
from forestay.abuse.pace import Pace

HOUR = 3600.0


@given(st.floats(0.01, 0.9), st.floats(0.01, 1.0), st.floats(0.0, 1.0))
def test_a_bet_on_chance_is_fair_at_most(at_most: float, share: float, below: float) -> None:
    """For every true chance up to the bound, the mean e-value is at most one."""
    bet_on = at_most + (0.999 - at_most) * share
    chance = at_most * below
    won = math.exp(bernoulli_bet(happened=True, at_most=at_most, bet_on=bet_on))
    lost = math.exp(bernoulli_bet(happened=False, at_most=at_most, bet_on=bet_on))
    assert chance * won + (1 - chance) * lost <= 1.0 + 1e-9


@given(st.lists(st.floats(0.0, 8.0), min_size=1, max_size=50), st.floats(0.01, 0.95))
def test_a_bet_on_a_mean_is_fair_at_most(values: list[float], stake: float) -> None:
    """For every distribution on [0, 8] whose mean is the bound, the mean e-value is one; below it less."""
    bound = max(sum(values) / len(values), 0.05)
    mean = sum(math.exp(mean_bet(value, at_most=bound, most=8.0, stake=stake)) for value in values) / len(values)
    assert mean <= 1.0 + 1e-9


def test_false_alarms_of_a_long_watch_are_as_rare_as_promised() -> None:
    """At threshold ln 1000 the mean time to a false alarm is at least a thousand calls: 200 watches of 500 calls."""
    rng = np.random.default_rng(5)
    alarms = 0
    for _ in range(200):
        evidence = Evidence()
        for happened in rng.random(500) < 0.1:
            evidence.add(bernoulli_bet(happened=bool(happened), at_most=0.1, bet_on=0.3), 0.0)
            if evidence.nats >= math.log(1000.0):
                alarms += 1
                break
    assert alarms <= 100  # at most 500 calls / 1000 in each, by Markov's inequality on the expected count


def test_what_is_wrong_is_seen_and_what_is_over_is_forgotten() -> None:
    """Evidence rises with the bets, is bounded, keeps the last facts, and restarts at nothing."""
    evidence = Evidence()
    for number in range(200):
        evidence.add(1.0, float(number), f"f{number}")
    assert (evidence.nats, evidence.calls, evidence.since) == (LARGEST, 200, 0.0)
    assert evidence.facts == [f"f{number}" for number in range(200 - MAX_FACTS, 200)]
    evidence.add(-LARGEST, 201.0)
    assert (evidence.nats, evidence.calls, evidence.facts) == (0.0, 0, [])


def test_hours_beyond_the_former_peak_add_up_and_ordinary_ones_do_not() -> None:
    """A week like the one before proves nothing; four times its peak, hour after hour, does."""
    pace = Pace()
    for hour in range(10 * 24):
        for _ in range(20 if hour % 24 == 10 else 2):
            pace.count(hour * HOUR, 5.0)
    assert pace.velocity.nats < 1.0
    for hour in range(10 * 24, 10 * 24 + 8):
        for _ in range(80):
            pace.count(hour * HOUR, 5.0)
    assert pace.velocity.nats > 5.0
    assert pace.spend.nats > 5.0
    assert pace.calls_ratio == pytest.approx(4.0)
