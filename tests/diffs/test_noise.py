"""What requests that were answered three times say: noise of the control is no fault of the candidate."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forestay.diffs.distribution import compare_distributions
from forestay.diffs.noise import (
    MISSING,
    TOLERANCES,
    Compared,
    Said,
    asks_first,
    judge_sameness,
    log_capital,
    ranked,
    share_at_most,
    strength,
)

ALPHA = 0.01


def compared(name: int, noise: float, excess: float, stratum: str = "/") -> Compared:
    """A request whose answers lie so many tolerances from the control's first one."""
    tolerance = TOLERANCES["level"]
    return Compared(f"r{name}", stratum, {"level": noise * tolerance}, {"level": excess * tolerance})


DISTANCES = (0.0, 0.6, 1.4, 2.9, 8.0)  # tolerances: within one of each other, within the tolerance, outside, far out


@settings(deadline=None, max_examples=20)
@given(
    st.lists(st.lists(st.integers(0, 9), min_size=5, max_size=5).filter(any), min_size=1, max_size=2),
    st.integers(1, 2),
    st.sampled_from(["both", "where needed"]),
)
def test_the_bettor_expects_to_gain_nothing_while_both_draw_alike(
    weights: list[list[int]], strata: int, begins: str
) -> None:
    """The mean capital over all answers is at most 1, whatever noise requests have, however the control is asked."""
    total = 0.0
    for drawn in itertools.product(itertools.product(range(5), repeat=2), repeat=len(weights)):
        chance, items = 1.0, list[Compared]()
        for number, (again, candidate) in enumerate(drawn):
            chance *= weights[number][again] * weights[number][candidate] / sum(weights[number]) ** 2
            items.append(asked(items, number, (DISTANCES[again], DISTANCES[candidate]), f"s{number % strata}", begins))
        if chance > 0:
            total += chance * math.exp(log_capital(items))
    assert total <= 1.0 + 1e-9


def asked(before: list[Compared], number: int, away: tuple[float, float], stratum: str, begins: str) -> Compared:
    """One request as the shadow asks it: of the control beforehand, or where there is something to explain."""
    first = begins == "both" or asks_first(before, stratum)
    item = dataclasses.replace(compared(number, *away, stratum), asks_first=first)
    return item if first or item.excess > 1.0 else dataclasses.replace(item, floor={})


def test_the_control_is_asked_again_only_where_a_candidate_differs_and_then_in_its_stratum() -> None:
    """While nothing differs there is no noise to measure, so a healthy shadow costs one copy a request."""
    quiet = [asked([], number, (0.0, 0.3), "small", "where needed") for number in range(4)]
    assert not any(item.floor for item in quiet)
    assert not asks_first(quiet, "small")
    moved = [*quiet, asked(quiet, 9, (0.0, 3.0), "small", "where needed")]
    assert moved[-1].floor
    assert (asks_first(moved, "small"), asks_first(moved, "large")) == (True, False)


@pytest.mark.parametrize("begins", ["both", "where needed"])
def test_a_quiet_controls_candidate_is_stopped_after_six_requests_that_all_differ(begins: str) -> None:
    """Also where the control answers only after the candidate."""
    found: list[Compared] = []
    for number in range(6):
        found.append(asked(found, number, (0.0, 3.0), "/", begins))
    assert judge_sameness(found, ALPHA, 32).said is Said.DIFFERS


def test_a_candidate_that_differs_is_found_in_ten_requests() -> None:
    """However noisy the control is, as long as the candidate is further away by more than the tolerance."""
    for noise in (0.0, 5.0):
        found = [compared(number, noise, noise + 2.0) for number in range(10)]
        said = judge_sameness(found, ALPHA, 32)
        assert said.said is Said.DIFFERS
        assert "10 of 10 requests differ" in said.reason


def test_what_lies_within_the_tolerance_is_never_a_difference() -> None:
    """A thousand requests that differ by less than anyone sees are the same."""
    found = [compared(number, 0.0, 0.9) for number in range(1000)]
    assert judge_sameness(found, ALPHA, 32).said is Said.SAME
    assert judge_sameness(found, ALPHA, 32).log_capital <= 0.0


def test_too_few_requests_are_inconclusive_and_enough_state_what_may_have_been_missed() -> None:
    """Sameness is a statement about a share, not its absence of doubt."""
    found = [compared(number, 0.1, 0.1) for number in range(32)]
    assert judge_sameness(found[:31], ALPHA, 32).said is Said.INCONCLUSIVE
    said = judge_sameness(found, ALPHA, 32)
    assert said.share_at_most == pytest.approx(1 - 0.05 ** (1 / 32), abs=1e-6)
    assert judge_sameness([], ALPHA, 32).said is Said.INCONCLUSIVE


def test_a_fault_of_one_size_alone_is_found_among_many_sound_requests() -> None:
    """Each endpoint and size has a capital of its own."""
    found = [compared(number, 0.0, 0.0, "small") for number in range(200)]
    found += [compared(1000 + number, 0.0, 3.0, "large") for number in range(14)]
    assert judge_sameness(found, ALPHA, 32).said is Said.DIFFERS


def test_a_missing_answer_is_the_greatest_difference_and_ranks_first() -> None:
    """A number that is none, too."""
    gone = Compared("gone", "/", {MISSING: 0.0}, {MISSING: 1.0})
    broken = Compared("broken", "/", {"level": 0.0}, {"level": math.nan})
    assert gone.said is broken.said is Said.DIFFERS
    assert strength(broken.found) == (math.inf, "level")
    order = [item.name for item in ranked([compared(1, 0.0, 1.5), gone, broken])]
    assert order[0] == "broken"
    assert judge_sameness([broken] * 20, ALPHA, 32).said is Said.DIFFERS


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(1, 40))
def test_the_bound_of_a_share_lies_above_it_and_falls_with_more_requests(count: int, of: int) -> None:
    """Clopper and Pearson's, one-sided."""
    count = min(count, of)
    assert count / of <= share_at_most(count, of) <= 1.0
    assert share_at_most(count, of + 20) <= share_at_most(count, of)


def test_distributions_that_are_alike_pass_and_a_shift_of_one_feature_is_named() -> None:
    """Over 200 pairs of like ones no more than the level are told apart; half a deviation in one of five is found."""
    chance = np.random.default_rng(3)
    names = ("mean", "spread", "entropy", "dots", "colour")
    alarms = 0
    for trial in range(40):
        answers = chance.normal(size=(2, 24, 5))
        alarms += compare_distributions(answers[0], answers[1], names, seed=trial).p_value <= 0.05
    assert alarms <= 6
    one, other = chance.normal(size=(2, 64, 5))
    other[:, 2] += 1.2
    found = compare_distributions(one, other, names)
    assert found.p_value <= 0.01
    assert found.feature == "entropy"
    assert "entropy" in found.told()


def test_too_little_to_compare_is_no_evidence() -> None:
    """Few pairs, rows without numbers, features that never move."""
    empty = np.zeros((4, 3))
    assert compare_distributions(empty, empty).p_value == 1.0
    assert compare_distributions(np.zeros((20, 3)), np.zeros((20, 3))).p_value == 1.0
    assert compare_distributions(np.full((20, 3), np.nan), np.zeros((20, 3))).pairs == 0
