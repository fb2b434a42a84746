"""How a deploy hands a model's traffic over to the new revision. Pure.

Two strategies have fal's names and meaning: `rolling` switches the route once at least one replica of the new revision
is ready, `recreate` switches at once. The third, `canary`, only has the new revision loaded: a rollout goes on from
there (`rollouts/decide`). It decides which of them a deploy takes when nobody says, when a planned switch
is due, and when it is given up, so that a revision that does not start never takes traffic from one that serves. It
does not load anything: `capacity/placement` loads what is planned. The gateway's admin API asks for deploys,
`rollouts/loop` carries plans out through `fleet/apply`.
"""

import enum

from forestay.fleet.actions import PlanRoute, SetRoutes, SettleRoute
from forestay.fleet.model import Fleet, PendingRoute, ReplicaState, Revision
from forestay.fleet.routes import MAX_PATIENCE_SECONDS, is_up, routes_of, whole_route
from forestay.fleet.spec import ModelSpec
from forestay.ids import ModelId

_MOST_DETAIL = 300  # characters of what a replica says of its failed start


class Strategy(enum.StrEnum):
    """How a deploy takes a model's traffic."""

    ROLLING = "rolling"
    RECREATE = "recreate"
    CANARY = "canary"  # a rollout: gates, then a share of the traffic that grows with the evidence


def decide_deploy(fleet: Fleet, revision: Revision, strategy: Strategy | None) -> SetRoutes | PlanRoute:
    """Return what a deploy of `revision` asks of the routes; without a strategy it rolls while the model serves."""
    model_id, revision_id = revision.model_id, revision.revision_id
    at_once = SetRoutes(model_id, (whole_route(model_id, revision_id),), f"deployed {revision_id}")
    routed = {route.revision_id for route in routes_of(fleet, model_id)}
    if not routed or routed == {revision_id}:
        return at_once  # the first deploy, or one that takes back what was planned
    if strategy is None:
        strategy = Strategy.ROLLING if is_serving(fleet, model_id) else Strategy.RECREATE
    if strategy is Strategy.RECREATE:
        return at_once
    if strategy is Strategy.CANARY:
        reason = f"loaded for the rollout of {revision_id}"
        return PlanRoute(model_id, revision_id, MAX_PATIENCE_SECONDS, reason, held=True)
    patience = revision.spec.limits.startup_timeout_seconds
    return PlanRoute(model_id, revision_id, patience, f"deployed {revision_id}: once a replica of it is ready")


def strategy_of(fleet: Fleet, spec: ModelSpec) -> Strategy | None:
    """Return the strategy that a spec names; None where it names none, or a canary would have no control that is up."""
    if spec.rollout.strategy is None:
        return None
    named = Strategy(spec.rollout.strategy)
    return None if named is Strategy.CANARY and not is_serving(fleet, spec.model_id) else named


def is_serving(fleet: Fleet, model_id: ModelId) -> bool:
    """Tell whether a replica of a routed revision is up: only then is there something that a switch could interrupt."""
    return any(is_up(fleet, route.revision_id) for route in routes_of(fleet, model_id))


def decide_settlements(fleet: Fleet) -> list[SettleRoute]:
    """Return the planned switches that are due or given up now; doing it and deciding again gives nothing more."""
    return [action for plan in _waiting(fleet) if (action := _decide(plan, fleet)) is not None]


def _waiting(fleet: Fleet) -> list[PendingRoute]:
    plans = sorted(fleet.pending.values(), key=lambda plan: (plan.since, plan.model_id))
    return [plan for plan in plans if not plan.given_up and not plan.held]


def _decide(plan: PendingRoute, fleet: Fleet) -> SettleRoute | None:
    if is_up(fleet, plan.revision_id):
        waited = (fleet.now - plan.since).total_seconds()
        reason = f"a replica of {plan.revision_id} is ready after {waited:.0f} s"
        return SettleRoute(plan.model_id, plan.revision_id, switch=True, reason=reason)
    if fleet.now >= plan.until:
        patience = (plan.until - plan.since).total_seconds()
        reason = f"no replica of {plan.revision_id} was ready within {patience:g} s: {_why(plan, fleet)}"
        return SettleRoute(plan.model_id, plan.revision_id, switch=False, reason=reason)
    return None


def _why(plan: PendingRoute, fleet: Fleet) -> str:
    """Say in a few words what kept the revision from being ready."""
    replicas = [item for item in fleet.replicas.values() if item.revision_id == plan.revision_id]
    told = [item.detail for item in replicas if item.state is ReplicaState.BACKOFF and item.detail]
    if told:
        return told[0][:_MOST_DETAIL]
    if replicas:
        return f"its replica is still in {replicas[0].state}"
    if any(item.revision_id == plan.revision_id and item.replicas > 0 for item in fleet.placements):
        return "it is placed, and its worker has not begun to load it"
    return "no worker of its pool had room for it"
