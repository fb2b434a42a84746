"""What a model's error budget demands of its rollouts. Pure.

It decides when a rollout may not start or grow, and how slowly it grows. Harm, a rollback and a person's promotion are
never held. What a budget demands was decided and stored by `slo`; a person goes on despite it with a reason.
"""

import dataclasses
import datetime as dt
from collections.abc import Sequence

from forestay.rollouts.model import GateResult, GateVerdict, Rollout
from forestay.slo.budget_policy import strictest
from forestay.slo.model import BudgetAction
from forestay.slo.policy_store import Decided

SLOWER = 2.0
"""By how much a step lasts longer while a budget asks for slow rollouts."""
_HELD = frozenset({BudgetAction.APPROVE, BudgetAction.FREEZE})


@dataclasses.dataclass(frozen=True, slots=True)
class Demand:
    """The strictest of what the SLOs of a model demand, and why."""

    action: BudgetAction = BudgetAction.NONE
    reason: str = ""


NO_DEMAND = Demand()


def demand_of(decided: Sequence[Decided]) -> Demand:
    """Return what the standing decisions about a model come to."""
    action = strictest(tuple(one.action for one in decided))
    return Demand(action, "; ".join(one.reason for one in decided if one.action is action))


def check_budget(rollout: Rollout, demand: Demand) -> GateResult | None:
    """Return the gate of the error budget; None where no SLO of the model demands anything."""
    if demand.action is BudgetAction.NONE:
        return None
    if demand.action not in _HELD:
        return GateResult("budget", GateVerdict.PASS, f"its steps last {SLOWER:g} times as long: {demand.reason}")
    if rollout.despite_budget:
        told = f"{demand.reason}; goes on despite it, {rollout.despite_budget}"
        return GateResult("budget", GateVerdict.PASS, told)
    return GateResult("budget", GateVerdict.INCONCLUSIVE, _words(rollout, demand))


def held_by_budget(rollout: Rollout, demand: Demand, now: dt.datetime) -> str:
    """Return why a rollout may not grow now; empty where it may."""
    if rollout.despite_budget or demand.action is BudgetAction.NONE:
        return ""
    if demand.action in _HELD:
        return _words(rollout, demand)
    least = SLOWER * rollout.policy.canary.step_seconds
    stood = (now - rollout.step_since).total_seconds()
    return f"slowed to {least:g} s a step: {demand.reason}" if stood < least else ""


def _words(rollout: Rollout, demand: Demand) -> str:
    way = f"`forestay rollout override {rollout.rollout_id} --reason WHY` goes on despite it"
    return f"held by {demand.action.value}: {demand.reason}; {way}"
