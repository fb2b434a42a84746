"""Detectors of change: what is promised of false alarms, what is seen, and that a stored state goes on exactly."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.quality import bets
from forestay.quality.drift import (
    Alarm,
    Detector,
    Ranks,
    State,
    best_start,
    decide_fleet,
    prior,
    whitening,
)

NAMES = ("mean", "spread", "sharpness", "colour")
finite = st.floats(-1e6, 1e6)


def rows(count: int, seed: int, move: float = 0.0, width: int = len(NAMES)) -> list[list[float]]:
    """Return normal rows of which the second feature is moved."""
    drawn = np.random.default_rng(seed).standard_normal((count, width))
    drawn[:, 1] += move
    return drawn.tolist()


def detector(threshold: float = 2_000.0, seed: int = 0) -> Detector:
    """A detector with 200 references."""
    return Detector(NAMES, {"": rows(200, 1)}, threshold=threshold, seed=seed)


def test_nobody_gains_by_a_bet_on_a_healthy_stream() -> None:
    """The mean of every bet over uniform ranks is 1 to the last bits, and no bet is ever negative."""
    assert np.allclose(bets.BETS.mean(axis=1), 1.0, atol=1e-12)
    assert float(bets.BETS.min()) > 0
    assert len(bets.NAMES) == len(bets.BETS)


@given(st.lists(st.floats(-3, 3), min_size=3, max_size=3), st.floats(0.2, 1.0))
def test_nobody_gains_by_a_bet_on_a_direction(direction: list[float], scale: float) -> None:
    """Whatever was learned, the mean over independent scores is at most 1."""
    means = np.array([direction, direction]) * scale
    way, cost = bets.chosen(means)
    gained = np.log(np.exp(way[..., None] * bets.SCORES).mean(axis=-1)).sum(axis=-1) - cost
    assert float(gained.max()) <= 1e-9
    assert float(np.linalg.norm(way, axis=1).max()) <= bets.MOST + 1e-9


def test_stakes_on_all_beginnings_sum_to_less_than_one() -> None:
    """So the e-value of a stream is one at any time; the tail is bounded by the integral of the stake."""
    last = 100_000
    tail = 0.4 / math.log(last)
    assert sum(prior(number) for number in range(1, last)) + tail < 1


@given(st.lists(finite, max_size=20), st.lists(finite, min_size=1, max_size=20), st.floats(0, 1, exclude_max=True))
def test_ranks_lie_between_nought_and_one_and_a_higher_value_has_no_lower_rank(
    reference: list[float], values: list[float], tie: float
) -> None:
    """Also without a reference, and with values that stand twice."""
    asked = [Ranks(reference).rank(value, tie) for value in sorted(values)]
    assert asked == sorted(asked)
    assert all(0 <= rank <= 1 for rank in asked)


def test_ranks_of_a_healthy_stream_are_uniform_whatever_the_size_of_the_reference() -> None:
    """With ten references as with none: the mean of the ranks of 3,000 outputs is that of uniform numbers."""
    chance = np.random.default_rng(4)
    for size in (0, 10):
        ranks = Ranks(chance.standard_normal(size).tolist())
        found = [ranks.rank(float(chance.standard_normal()), float(chance.random())) for _ in range(3_000)]
        assert abs(np.mean(found) - 0.5) < 4 * 0.289 / math.sqrt(3_000)
        assert abs(np.var(found) - 1 / 12) < 0.01


def test_a_change_is_seen_named_and_dated() -> None:
    """The feature that moved comes first, and the beginning is told to within a few outputs."""
    watched = detector()
    assert all(watched.update(row) is None for row in rows(100, 2))
    found = [(number, alarm) for number, row in enumerate(rows(60, 3, move=1.5), 1) if (alarm := watched.update(row))]
    number, alarm = found[0]
    assert number <= 30
    assert (alarm.features[0], alarm.output) == ("spread", 100 + number)
    assert "mean up" in alarm.kind
    assert abs(alarm.since - 101) <= 6


def test_a_feature_that_is_always_the_same_alarms_nobody() -> None:
    """Ties are broken at random: a constant is no evidence of anything."""
    same = [[1.0, 2.0, 3.0, 4.0]] * 300
    watched = Detector(NAMES, {"": same}, threshold=1e5)
    assert all(watched.update(row) is None for row in same)


def test_a_stored_state_goes_on_to_the_same_alarms() -> None:
    """Split anywhere, written down and read again: the same outputs alarm with the same numbers."""
    stream = rows(60, 5) + rows(60, 6, move=1.5)
    straight = detector(seed=7)
    expected = [straight.update(row) for row in stream]
    for cut in (1, 50, 90):
        first, second = detector(seed=7), detector(seed=7)
        found: list[Alarm | None] = [first.update(row) for row in stream[:cut]]
        stored = msgspec.json.encode(first.state())
        second.restore(msgspec.json.decode(stored, type=State))
        found += [second.update(row) for row in stream[cut:]]
        assert found == expected
    assert any(expected)


def test_a_state_of_another_reference_is_refused() -> None:
    """A detector never goes on from what does not belong to it."""
    first = detector()
    first.update(rows(1, 1)[0])
    other = Detector(NAMES, {"": rows(100, 1)}, threshold=10.0)
    with pytest.raises(ValueError, match="another reference"):
        other.restore(first.state())
    with pytest.raises(ValueError, match="other features"):
        Detector(NAMES[:2], {"": rows(60, 1, width=2)}, threshold=10.0).restore(first.state())


def test_a_change_of_the_mix_of_prompts_is_quiet_by_stratum_and_loud_without() -> None:
    """Red and blue pictures differ in their mean; from one half red to nearly all red nothing is wrong."""
    chance = np.random.default_rng(8)

    def output(*, red: bool) -> list[float]:
        return [float(value) for value in chance.standard_normal(4) + (3.0 if red else 0.0)]

    references = {"red": [output(red=True) for _ in range(200)], "blue": [output(red=False) for _ in range(200)]}
    together = {"": [row for item in references.values() for row in item]}
    known, blind = (Detector(NAMES, item, threshold=2_000.0) for item in (references, together))
    heard = {"known": 0, "blind": 0}
    for _ in range(150):
        red = bool(chance.random() < 0.95)
        row = output(red=red)
        heard["known"] += known.update(row, "red" if red else "blue") is not None
        heard["blind"] += blind.update(row) is not None
    assert heard["known"] == 0
    assert heard["blind"] > 0


def test_correlated_features_are_made_independent() -> None:
    """Two features that say the same are no double evidence."""
    chance = np.random.default_rng(9)
    common = chance.standard_normal((500, 1))
    drawn = common + 0.3 * chance.standard_normal((500, 2))
    made = drawn @ whitening({"": drawn.tolist()})
    assert abs(np.atleast_2d(np.corrcoef(made, rowvar=False))[0, 1]) < 0.3
    assert np.allclose(whitening({"": rows(3, 1)}), np.eye(4))


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1e9), max_size=20), st.floats(0.01, 0.5))
def test_more_evidence_names_no_fewer_streams(evidence: dict[str, float], rate: float) -> None:
    """Every named stream has at least the evidence of every unnamed one; e-BH's own bound holds for the weakest."""
    named = decide_fleet(evidence, rate)
    rest = [value for name, value in evidence.items() if name not in named]
    assert all(evidence[name] >= value for name in named for value in rest)
    if named:
        assert min(evidence[name] for name in named) * len(named) * rate >= len(evidence)
    stronger = {name: value * 2 for name, value in evidence.items()}
    assert set(named) <= set(decide_fleet(stronger, rate))


@given(st.integers(0, 30), st.integers(1, 30))
def test_the_beginning_of_a_change_is_where_gains_begin(before: int, after: int) -> None:
    """Losses before it do not belong to it."""
    earned = np.array([-1.0] * before + [1.0] * after)
    assert best_start(earned) == before
