"""What an error budget demands: slow rollouts, ask for approval, freeze, and thaw again.

It decides which action stands, by the SLO's own steps, from what is left and what stood before. An action begins at its
step and ends only when the budget is a margin above it, so that a budget at a step does not flap. Without data nothing
changes: silence neither freezes nor thaws. Called by the loop that watches SLOs; its decisions are stored, and read by
rollouts, deploys and reports, which never compute them anew.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from forestay.slo.budget import Budget, DataState
from forestay.slo.model import BudgetAction, Minute, Slo, SloId

_ORDER = tuple(BudgetAction)


@dataclasses.dataclass(frozen=True, slots=True)
class BudgetDecision:
    """What is demanded of whoever changes the subject of an SLO, from `at` on."""

    slo_id: SloId
    action: BudgetAction
    left_ratio: float
    at: Minute
    reason: str


def decide_budget_policy(slo: Slo, budget: Budget, standing: BudgetAction, now: Minute) -> tuple[BudgetDecision, ...]:
    """Return the new decision, or none where what stands still holds."""
    if budget.state is DataState.NO_DATA or slo.slo_id != budget.slo_id:
        return ()
    left = budget.left_ratio
    begun = _demanded(slo, left, 0.0)
    kept = _demanded(slo, left, slo.thaw_margin)
    action = max(begun, min(standing, kept, key=_ORDER.index), key=_ORDER.index)
    if action is standing:
        return ()
    return (BudgetDecision(slo.slo_id, action, left, now, _reason(slo, action, standing, left)),)


def decide_policies(
    slos: Sequence[Slo],
    budgets: Mapping[SloId, Budget],
    standing: Mapping[SloId, BudgetAction],
    now: Minute,
) -> tuple[BudgetDecision, ...]:
    """Return the new decisions of a fleet: one for each SLO that asks for something else now, or is no more."""
    made: list[BudgetDecision] = []
    for slo in slos:
        budget = budgets.get(slo.slo_id)
        if budget is not None:
            made += decide_budget_policy(slo, budget, standing.get(slo.slo_id, BudgetAction.NONE), now)
    watched = {slo.slo_id for slo in slos}
    for slo_id, action in standing.items():
        if slo_id not in watched and action is not BudgetAction.NONE:
            reason = f"{slo_id}: it is watched no longer, so {action.value} ends"
            made.append(BudgetDecision(slo_id, BudgetAction.NONE, 1.0, now, reason))
    return tuple(made)


def strictest(actions: tuple[BudgetAction, ...]) -> BudgetAction:
    """Return the strongest of what several SLOs of one subject demand."""
    return max(actions, key=_ORDER.index, default=BudgetAction.NONE)


def _demanded(slo: Slo, left_ratio: float, margin: float) -> BudgetAction:
    """Return the strongest action whose step, raised by `margin`, has been reached."""
    reached = [step.action for step in slo.policy if left_ratio <= step.left_ratio + margin]
    return strictest(tuple(reached))


def _reason(slo: Slo, action: BudgetAction, before: BudgetAction, left: float) -> str:
    words = (
        f"{slo.slo_id}: {left:.0%} of the error budget is left"
        if left > 0
        else f"{slo.slo_id}: the error budget is spent"
    )
    if _ORDER.index(action) > _ORDER.index(before):
        step = next(step for step in slo.policy if step.action is action)
        return f"{words}; at {step.left_ratio:.0%} its policy says {action.value}"
    return f"{words}, {slo.thaw_margin:.0%} above the step of {before.value}: {action.value} now"
