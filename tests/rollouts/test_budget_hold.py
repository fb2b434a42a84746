"""A model's error budget and its rollouts: what starts, grows and ends, and who may go on despite it."""

import dataclasses
import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conformance.memory_fleet import EPOCH
from tests.rollouts.test_rollout_decide import recorded, rollout_of, sight_of

from forestay.rollouts.budget_hold import NO_DEMAND, Demand, check_budget, demand_of, held_by_budget
from forestay.rollouts.decide import Record, decide_rollout, overridden
from forestay.rollouts.model import GateVerdict, Order, Stage
from forestay.slo.model import BudgetAction
from forestay.slo.policy_store import Decided

FREEZE = Demand(BudgetAction.FREEZE, "digits: the error budget is spent")
HELD = (BudgetAction.APPROVE, BudgetAction.FREEZE)


def decided(action: BudgetAction) -> Decided:
    """A standing decision."""
    return Decided(action.value, "model:acme/digits", action, 0.0, f"because of {action}", 1, EPOCH)


def test_the_strictest_of_a_models_slos_holds() -> None:
    """With its own reason alone."""
    found = demand_of([decided(BudgetAction.SLOW), decided(BudgetAction.FREEZE)])
    assert found == Demand(BudgetAction.FREEZE, "because of freeze")
    assert demand_of([]) == NO_DEMAND


@pytest.mark.parametrize("action", HELD)
def test_a_spent_budget_holds_the_start_until_a_person_goes_on_despite_it(action: BudgetAction) -> None:
    """It waits, says why and how to go on; it is not failed."""
    demand = Demand(action, "digits: the error budget is spent")
    gate = check_budget(rollout_of(Stage.GATES), demand)
    assert gate is not None
    assert (gate.verdict, "forestay rollout override r1" in gate.evidence) == (GateVerdict.INCONCLUSIVE, True)
    despite = check_budget(overridden(rollout_of(Stage.GATES), "human:k1", "it mends what burns"), demand)
    assert despite is not None
    assert despite.verdict is GateVerdict.PASS
    assert "human:k1: it mends what burns" in despite.evidence
    assert check_budget(rollout_of(Stage.GATES), NO_DEMAND) is None


def test_a_freeze_holds_the_next_step_and_an_override_releases_it() -> None:
    """The share stays as it is meanwhile."""
    rollout = dataclasses.replace(rollout_of(Stage.CANARY, 0.0), step_requests=50)
    frozen = dataclasses.replace(sight_of(rollout), demand=FREEZE)
    held = recorded(frozen, 100.0)
    assert (held.weight, held.reason) == (0.0, held_by_budget(rollout, FREEZE, EPOCH))
    assert recorded(sight_of(rollout), 100.0).weight > 0
    despite = overridden(rollout, "human:k1", "it mends what burns")
    assert recorded(dataclasses.replace(sight_of(despite), demand=FREEZE), 100.0).weight > 0


def test_a_freeze_holds_the_last_step_too() -> None:
    """A watched candidate has nearly everything, and waits for the rest."""
    rollout = rollout_of(Stage.WATCH, 95.0)
    seconds = rollout.policy.watch_seconds + 1
    assert recorded(sight_of(rollout), seconds).stage is Stage.PROMOTED
    assert recorded(dataclasses.replace(sight_of(rollout), demand=FREEZE), seconds).stage is Stage.WATCH


def test_slow_rollouts_take_twice_as_long_a_step() -> None:
    """And are not held for longer."""
    rollout, slow = rollout_of(Stage.CANARY, 5.0), Demand(BudgetAction.SLOW, "half is left")
    step = dt.timedelta(seconds=rollout.policy.canary.step_seconds)
    assert held_by_budget(rollout, slow, EPOCH + step * 1.9).startswith("slowed to 120 s a step")
    assert not held_by_budget(rollout, slow, EPOCH + step * 2.1)


@given(st.sampled_from(BudgetAction), st.sampled_from([Order.ABORT, Order.PROMOTE]), st.floats(0.0, 40_000.0))
def test_no_budget_holds_what_a_person_orders(action: BudgetAction, order: Order, seconds: float) -> None:
    """An abort or a promotion of a serving candidate goes through whatever is demanded."""
    rollout = dataclasses.replace(rollout_of(Stage.CANARY, 5.0), order=order, ordered_by="human:k1")
    sight = dataclasses.replace(sight_of(rollout), demand=Demand(action, "spent"))
    now = EPOCH + dt.timedelta(seconds=seconds)
    [found] = [item.rollout for item in decide_rollout(sight, now) if isinstance(item, Record)]
    assert found.stage is (Stage.ROLLED_BACK if order is Order.ABORT else Stage.PROMOTED)


@given(st.sampled_from(BudgetAction), st.floats(0.0, 40_000.0), st.sampled_from([5.0, 50.0]))
def test_a_budget_never_lets_a_candidate_grow_faster(action: BudgetAction, seconds: float, weight: float) -> None:
    """With a demand the share is at most what it would be without."""
    rollout = dataclasses.replace(rollout_of(Stage.CANARY, weight), step_requests=500)
    now = EPOCH + dt.timedelta(seconds=seconds)
    shares = [
        max([item.rollout.weight for item in decide_rollout(sight, now) if isinstance(item, Record)], default=weight)
        for sight in (dataclasses.replace(sight_of(rollout), demand=Demand(action, "spent")), sight_of(rollout))
    ]
    assert shares[0] <= shares[1]
