"""Admin routes of revisions: the history of a model, and setting it back to one of them.

It decides who is in the way (409). How the traffic moves `rollouts/rolling` decides, as for a deploy: at once where a
replica of the old revision is up or somebody asks for it, else once one is ready, so that nobody waits for a start.
"""

import msgspec

from forestay.fleet.actions import Effect, Origin, PlanRoute, RegisterRevision
from forestay.fleet.model import Fleet, Revision
from forestay.fleet.routes import is_up, routes_of
from forestay.fleet.spec import spec_to_json
from forestay.gateway.admin_entry import check_entry
from forestay.gateway.admin_reading import Act, NotThere, Problem, plain_text
from forestay.gateway.responses import Reply, json_reply
from forestay.ids import BUCKETS, ModelId, RevisionId
from forestay.rollouts.rolling import Strategy, decide_deploy


class _SetBack(msgspec.Struct, forbid_unknown_fields=True):
    revision_id: str
    reason: str
    at_once: bool = False


async def get_revisions(act: Act) -> Reply:
    """List a model's revisions, newest first, each with its spec, files, share of the traffic and ready replicas."""
    fleet, model_id = await _found(act)
    shares: dict[RevisionId, float] = {}
    for route in routes_of(fleet, model_id):
        share = 100.0 * (route.bucket_to - route.bucket_from) / BUCKETS
        shares[route.revision_id] = shares.get(route.revision_id, 0.0) + share
    own = [item for item in fleet.revisions.values() if item.model_id == model_id]
    rows = [
        {
            "revision_id": item.revision_id,
            "created_at": item.created_at,
            "percent": shares.get(item.revision_id, 0.0),
            "is_up": is_up(fleet, item.revision_id),
            "files": item.bundle_key,
            "spec": spec_to_json(item.spec),
        }
        for item in sorted(own, key=lambda item: item.created_at, reverse=True)
    ]
    return json_reply(200, {"model_id": model_id, "revisions": rows})


async def post_set_back(act: Act) -> Reply:
    """Give a model's traffic to one of its revisions, whatever has it now."""
    asked = await act.json(_SetBack)
    reason = plain_text("reason", asked.reason, empty=False)
    fleet, model_id = await _found(act)
    revision = _revision(fleet, model_id, asked.revision_id)
    running = [item for item in await act.ports.admin.rollouts.open() if item.model_id == model_id]
    if running:
        name = running[0].rollout_id
        raise Problem(409, f"rollout {name} is running; `forestay rollout abort {name}` sets back at once", "refused")
    visibility = await check_entry(act, fleet, revision, canary=False)
    strategy = Strategy.RECREATE if asked.at_once or is_up(fleet, revision.revision_id) else Strategy.ROLLING
    routing = decide_deploy(fleet, revision, strategy)
    entry = fleet.models[model_id]
    registering = RegisterRevision(revision, entry.tenant_id, visibility, f"set back: {reason}")
    decided = await act.ports.fleet.apply([registering, routing], origin=Origin.HUMAN, actor=act.actor)
    for item in decided:
        if item.effect is not Effect.APPLIED:
            raise Problem(409, item.why, "refused")
    detail: dict[str, object] = {"model_id": model_id, "pending": isinstance(routing, PlanRoute)}
    await act.record("set_back", f"revision:{revision.revision_id}", detail, reason)
    return json_reply(200, {**detail, "revision_id": revision.revision_id})


async def _found(act: Act) -> tuple[Fleet, ModelId]:
    fleet = await act.ports.fleet.load()
    model_id = ModelId(f"{act.path('owner')}/{act.path('alias')}")
    if model_id not in fleet.models:
        raise NotThere(f"no model {model_id[:200]!r}; `forestay model list` shows those that exist")
    return fleet, model_id


def _revision(fleet: Fleet, model_id: ModelId, name: str) -> Revision:
    revision = fleet.revisions.get(RevisionId(name))
    if revision is None or revision.model_id != model_id:
        raise NotThere(f"{model_id} has no revision {name[:100]!r}; `forestay model revisions {model_id}` lists them")
    return revision
