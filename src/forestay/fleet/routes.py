"""Routes: whether setting, planning or settling one makes sense, and when a revision counts as up. Pure.

It decides nothing about when to switch (`rollouts/rolling` does). `fleet/apply` asks it about each action; placement
and the gateway's deploy route read what it says of a fleet.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import assert_never

from forestay.fleet.actions import PlanRoute, SetRoutes, SettleRoute, ShiftRoutes
from forestay.fleet.model import Fleet, PendingRoute, ReplicaState, Revision, Route
from forestay.ids import BUCKETS, ModelId, RevisionId

HEARD_SECONDS = 10.0  # a worker silent for longer is given no new calls, so its replicas are not up
MAX_PATIENCE_SECONDS = 86_400.0


def awaited(fleet: Fleet, revision_id: RevisionId) -> PendingRoute | None:
    """Return the plan that waits for this revision, None when there is none or it was given up."""
    revision = fleet.revisions.get(revision_id)
    plan = None if revision is None else fleet.pending.get(revision.model_id)
    return plan if plan is not None and plan.revision_id == revision_id and not plan.given_up else None


def is_up(fleet: Fleet, revision_id: RevisionId) -> bool:
    """Tell whether a replica of the revision is ready on a worker that was heard of lately."""
    oldest = fleet.now - dt.timedelta(seconds=HEARD_SECONDS)
    return any(
        replica.revision_id == revision_id
        and replica.state is ReplicaState.READY
        and (worker := fleet.workers.get(replica.worker_id)) is not None
        and worker.seen_at >= oldest
        for replica in fleet.replicas.values()
    )


def routes_of(fleet: Fleet, model_id: ModelId) -> list[Route]:
    """Return a model's routes."""
    return [route for route in fleet.routes if route.model_id == model_id]


def whole_route(model_id: ModelId, revision_id: RevisionId) -> Route:
    """Return the route that sends everything to one revision."""
    return Route(model_id, revision_id, 0, BUCKETS)


def changes_no_route(action: SetRoutes | PlanRoute | SettleRoute | ShiftRoutes, fleet: Fleet) -> bool:
    """Tell whether what the action asks for is so already."""
    match action:
        case SetRoutes(model_id=model_id, routes=routes) | ShiftRoutes(model_id=model_id, routes=routes):
            return set(routes_of(fleet, model_id)) == set(routes) and model_id not in fleet.pending
        case PlanRoute(model_id=model_id, revision_id=revision_id, held=held):
            has_it_all = routes_of(fleet, model_id) == [whole_route(model_id, revision_id)]
            plan = awaited(fleet, revision_id)
            return (plan is not None and plan.held is held) or (has_it_all and model_id not in fleet.pending)
        case SettleRoute():
            return False
        case _:
            assert_never(action)


def wrong_route_action(
    action: SetRoutes | PlanRoute | SettleRoute | ShiftRoutes, fleet: Fleet, known: Mapping[RevisionId, Revision]
) -> str:
    """Return why the action makes no sense, empty when it does; `known` holds also what its batch registers."""
    match action:
        case SetRoutes():
            return wrong_routes(action.model_id, action.routes, known)
        case PlanRoute():
            return _wrong_plan(action, fleet, known)
        case SettleRoute():
            return _wrong_settlement(action, fleet)
        case ShiftRoutes():
            if set(routes_of(fleet, action.model_id)) != set(action.seen):
                return f"the routes of {action.model_id} have changed since the rollout looked at them"
            return wrong_routes(action.model_id, action.routes, known)
        case _:
            assert_never(action)


def wrong_routes(model_id: ModelId, routes: Sequence[Route], known: Mapping[RevisionId, Revision]) -> str:
    """Return why these routes do not cover every bucket exactly once by known revisions; empty when they do."""
    reached = 0
    for route in sorted(routes, key=lambda item: (item.bucket_from, item.bucket_to)):
        revision = known.get(route.revision_id)
        if route.model_id != model_id:
            return f"a route of {route.model_id} was given for {model_id}"
        if revision is None or revision.model_id != model_id:
            return f"revision {route.revision_id} is not a known revision of {model_id}"
        if route.bucket_from != reached or route.bucket_to <= route.bucket_from:
            return f"buckets from {min(reached, route.bucket_from)} on are not covered exactly once"
        reached = route.bucket_to
    return "" if reached == BUCKETS else f"buckets {reached} to {BUCKETS} are not covered"


def _wrong_plan(action: PlanRoute, fleet: Fleet, known: Mapping[RevisionId, Revision]) -> str:
    """Return why the plan makes no sense, empty when it does."""
    revision = known.get(action.revision_id)
    if revision is None or revision.model_id != action.model_id:
        return f"revision {action.revision_id} is not a known revision of {action.model_id}"
    if not 0 < action.patience_seconds <= MAX_PATIENCE_SECONDS:
        return f"a patience of {action.patience_seconds:g} s is outside 0..{MAX_PATIENCE_SECONDS:g}"
    if not routes_of(fleet, action.model_id):
        return f"nothing serves {action.model_id} yet that could go on meanwhile; route it at once"
    return ""


def _wrong_settlement(action: SettleRoute, fleet: Fleet) -> str:
    """Return why there is nothing to settle, empty when there is."""
    plan = awaited(fleet, action.revision_id)
    if plan is None or plan.model_id != action.model_id:
        return f"no route of {action.model_id} to {action.revision_id} is planned any more"
    return ""
