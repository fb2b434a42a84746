"""Consequences of a budget: they begin at their step, and do not flap."""

from hypothesis import given
from hypothesis import strategies as st
from tests.slo.objectives import slo

from forestay.slo.budget import Budget, DataState
from forestay.slo.budget_policy import decide_budget_policy, decide_policies, strictest
from forestay.slo.model import BudgetAction, Minute

ORDER = list(BudgetAction)


def left(ratio: float, state: DataState = DataState.WHOLE) -> Budget:
    """Return a budget of which `ratio` is left."""
    return Budget(slo().slo_id, state, 100, 1, 1.0, 1.0 - ratio, 1.0, None, Minute(0))


def action(ratio: float, standing: BudgetAction) -> BudgetAction:
    """Return what stands after a decision."""
    found = decide_budget_policy(slo(), left(ratio), standing, Minute(5))
    return found[0].action if found else standing


def test_a_falling_budget_has_each_consequence_in_turn() -> None:
    """Half: slower; a quarter: ask; nothing: freeze."""
    assert action(0.51, BudgetAction.NONE) is BudgetAction.NONE
    assert action(0.5, BudgetAction.NONE) is BudgetAction.SLOW
    assert action(0.2, BudgetAction.SLOW) is BudgetAction.APPROVE
    assert action(-3.0, BudgetAction.NONE) is BudgetAction.FREEZE


def test_a_freeze_thaws_only_a_margin_above_its_step() -> None:
    """At 5 % it is still frozen, at 12 % approval is enough, at 61 % nothing is asked."""
    assert action(0.05, BudgetAction.FREEZE) is BudgetAction.FREEZE
    assert action(0.12, BudgetAction.FREEZE) is BudgetAction.APPROVE
    assert action(0.61, BudgetAction.FREEZE) is BudgetAction.NONE


def test_silence_neither_freezes_nor_thaws() -> None:
    """Without data what stands stands."""
    assert decide_budget_policy(slo(), left(1.0, DataState.NO_DATA), BudgetAction.FREEZE, Minute(5)) == ()


def test_a_decision_says_why() -> None:
    """What is left, which step, which action."""
    [found] = decide_budget_policy(slo(), left(0.2), BudgetAction.NONE, Minute(5))
    assert found.reason == "digits: 20% of the error budget is left; at 25% its policy says require_approval"


@given(ratio=st.floats(-5, 1), standing=st.sampled_from(ORDER))
def test_deciding_twice_changes_nothing(ratio: float, standing: BudgetAction) -> None:
    """A decision holds for the budget that led to it."""
    once = action(ratio, standing)
    assert action(ratio, once) is once


@given(ratio=st.floats(-5, 1), more=st.floats(0, 3), standing=st.sampled_from(ORDER))
def test_more_budget_never_asks_for_more(ratio: float, more: float, standing: BudgetAction) -> None:
    """Whatever stands."""
    assert ORDER.index(action(min(1.0, ratio + more), standing)) <= ORDER.index(action(ratio, standing))


@given(ratios=st.lists(st.floats(0.0, 0.09), min_size=1, max_size=20))
def test_a_budget_that_trembles_at_a_step_has_one_decision(ratios: list[float]) -> None:
    """Within the margin above a freeze nothing changes back and forth."""
    standing, changes = BudgetAction.FREEZE, 0
    for ratio in ratios:
        after = action(ratio, standing)
        changes += after is not standing
        standing = after
    assert changes == 0


def test_the_strictest_of_several_counts() -> None:
    """A model with two SLOs obeys the stronger demand."""
    assert strictest((BudgetAction.SLOW, BudgetAction.FREEZE, BudgetAction.NONE)) is BudgetAction.FREEZE
    assert strictest(()) is BudgetAction.NONE


def test_each_slo_is_decided_and_one_that_is_no_more_demands_nothing() -> None:
    """Also where its file was taken away while it froze."""
    name = slo().slo_id
    [frozen] = decide_policies([slo()], {name: left(-1.0)}, {}, Minute(5))
    assert (frozen.slo_id, frozen.action) == (name, BudgetAction.FREEZE)
    assert decide_policies([slo()], {name: left(-1.0)}, {name: BudgetAction.FREEZE}, Minute(6)) == ()
    [ended] = decide_policies([], {}, {name: BudgetAction.FREEZE}, Minute(7))
    assert (ended.action, ended.reason) == (BudgetAction.NONE, "digits: it is watched no longer, so freeze ends")
    assert decide_policies([], {}, {name: BudgetAction.NONE}, Minute(7)) == ()
