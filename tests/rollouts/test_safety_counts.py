"""Two policies over the same labelled content: what is proved, and what more rows would tell."""

import itertools
import math

from hypothesis import given
from hypothesis import strategies as st

from forestay.rollouts.model import GateVerdict, Replayed
from forestay.rollouts.safety_counts import (
    MARGIN,
    check_replayed,
    count_rows,
    log_fewer,
    log_more_worse,
    rows_needed,
)
from forestay.safety.policy import Action


def verdict_of(**counts: int) -> GateVerdict:
    """What a single set says."""
    return check_replayed("strict", "lenient", [Replayed("a set", **counts, by="")]).verdict


def test_a_policy_that_judges_alike_passes_with_enough_rows_of_both_kinds() -> None:
    """And not with fewer: what nobody has looked at is not shown to be safe."""
    needed = rows_needed(0, 0)
    assert 50 < needed < 120
    assert verdict_of(unsafe=needed, safe=needed) is GateVerdict.PASS
    assert verdict_of(unsafe=needed - 1, safe=needed) is GateVerdict.INCONCLUSIVE
    assert verdict_of(unsafe=needed, safe=0) is GateVerdict.INCONCLUSIVE
    said = check_replayed("strict", "lenient", []).evidence
    assert f"{needed} more labelled unsafe and {needed} more labelled safe rows are needed" in said
    assert "forestay rollout replay-safety" in said


def test_a_policy_that_lets_unsafe_content_through_fails_however_well_it_treats_safe_content() -> None:
    """As does one that stops what is harmless."""
    assert verdict_of(unsafe=40, newly_passed=9, safe=500, newly_freed=90) is GateVerdict.FAIL
    assert verdict_of(unsafe=500, newly_stopped=90, safe=40, newly_blocked=9) is GateVerdict.FAIL
    gate = check_replayed("strict", "lenient", [Replayed("a set", unsafe=40, newly_passed=9, newly_stopped=1)])
    assert "lenient passes 9 of 40 unsafe rows that strict does not, 1 the other way round" in gate.evidence


def test_rows_are_counted_by_what_comes_through() -> None:
    """A flag passes, a review stops; what a detector was not asked for says nothing."""
    rows = [
        (True, Action.BLOCK, Action.FLAG),
        (True, Action.ALLOW, Action.REVIEW),
        (True, Action.BLOCK, Action.BLOCK),
        (False, Action.FLAG, Action.BLOCK),
        (False, Action.REVIEW, Action.ALLOW),
        (False, None, Action.ALLOW),
    ]
    assert count_rows("a set", rows) == Replayed(
        "a set", unsafe=3, newly_passed=1, newly_stopped=1, safe=2, newly_blocked=1, newly_freed=1, unknown=1
    )


@given(st.integers(1, 12), st.floats(MARGIN, 1.0))
def test_the_bettor_on_fewer_gains_nothing_where_the_share_is_the_margin_or_more(rows: int, share: float) -> None:
    """Its mean capital over all outcomes is at most 1, after any number of rows."""
    mean = sum(
        math.comb(rows, worse) * share**worse * (1 - share) ** (rows - worse) * math.exp(log_fewer(worse, rows))
        for worse in range(rows + 1)
    )
    assert mean <= 1.0 + 1e-9


@given(st.integers(1, 12))
def test_the_bettor_on_harm_gains_nothing_where_either_is_as_often_the_worse_one(rows: int) -> None:
    """Exactly nothing: the two could be exchanged."""
    mean = sum(
        math.comb(rows, worse) * 0.5**rows * math.exp(log_more_worse(worse, rows - worse)) for worse in range(rows + 1)
    )
    assert math.isclose(mean, 1.0)


@given(st.integers(0, 30), st.integers(0, 400), st.integers(0, 400))
def test_further_rows_that_are_no_worse_never_take_a_pass_away(worse: int, better: int, rows: int) -> None:
    """And a set with fewer worse rows is never judged more harshly."""
    order = [GateVerdict.FAIL, GateVerdict.INCONCLUSIVE, GateVerdict.PASS]
    of = worse + better + rows
    places = [
        order.index(verdict_of(unsafe=of + more, newly_passed=worse, newly_stopped=better, safe=1_000))
        for more in (0, 50, 400)
    ]
    assert all(before <= after for before, after in itertools.pairwise(places))
    if worse:
        fewer = verdict_of(unsafe=of, newly_passed=worse - 1, newly_stopped=better, safe=1_000)
        assert order.index(fewer) >= places[0]
