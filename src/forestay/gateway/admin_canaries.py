"""Admin routes of golden canaries: what is golden, ask for a round, see pictures side by side, approve a revision.

It decides nothing: `quality/golden` says what is learned, `quality/canary_views` what an approval takes.
"""

import base64
import dataclasses
import datetime as dt

import msgspec

from forestay.fleet.model import Fleet, ReplicaState, Revision
from forestay.fleet.routes import routes_of
from forestay.gateway.admin_reading import Act, NotThere, Problem, plain_text
from forestay.gateway.responses import Reply, json_reply
from forestay.ids import ModelId, RevisionId
from forestay.quality.canary_store import ANY_REVISION, EVERYWHERE, Ask
from forestay.quality.canary_views import GoldenState, approved_looks, pairs_of, states_of
from forestay.quality.findings import Source
from forestay.quality.golden import Baseline, Cause, choose_baseline

MOST_ROUNDS = 200
FINDINGS_FROM = dt.timedelta(days=90)
MOST_PICTURE_BYTES = 4 * 1024 * 1024


class _Run(msgspec.Struct, forbid_unknown_fields=True):
    model_id: str
    revision_id: str = ""
    reason: str = "asked by hand"


class _Approve(msgspec.Struct, forbid_unknown_fields=True):
    model_id: str
    revision_id: str
    reason: str


async def get_canaries(act: Act) -> Reply:
    """Show a model's goldens and the newest rounds of its replicas."""
    fleet = await act.ports.fleet.load()
    revision = _revision(fleet, act.query("model") or "", "")
    store = act.ports.admin.canaries
    baselines = await store.baselines(revision.model_id)
    states = [state for item in baselines for state in await _states(act, fleet, revision, item)]
    rounds = await store.rounds(revision.model_id, act.limit(20, MOST_ROUNDS))
    spec = revision.spec.quality.canaries
    body = {
        "model_id": revision.model_id,
        "canaries": [item.key for item in spec.inputs],
        "every_seconds": spec.every_seconds,
        "budget_seconds_per_hour": spec.budget_seconds_per_hour,
        "baselines": baselines,
        "goldens": states,
        "rounds": rounds,
    }
    return json_reply(200, body)


async def post_run(act: Act) -> Reply:
    """Ask every ready replica of a model, or of one revision, for a round."""
    body = await act.json(_Run)
    fleet, why = await act.ports.fleet.load(), plain_text("reason", body.reason, empty=False)
    revision = _revision(fleet, body.model_id, body.revision_id)
    if not revision.spec.quality.canaries.inputs:
        message = f"revision {revision.revision_id} names no canaries; add `quality: canaries:` to its spec"
        raise Problem(409, message, "refused")
    wanted = {revision.revision_id} if body.revision_id else {item.revision_id for item in fleet.revisions.values()}
    ready = [
        item.replica_id
        for item in fleet.replicas.values()
        if item.model_id == revision.model_id and item.revision_id in wanted and item.state is ReplicaState.READY
        and fleet.revisions[item.revision_id].spec.quality.canaries.inputs
    ]  # fmt: skip
    asked = revision.revision_id if body.revision_id else ANY_REVISION
    now = fleet.now
    number = await act.ports.admin.canaries.ask(Ask(revision.model_id, asked, EVERYWHERE, Cause.PERSON, now, why))
    await act.record("run_canaries", f"model:{revision.model_id}", {"revision_id": asked}, why)
    return json_reply(200, {"ask_id": number, "asked_at": now, "replicas": sorted(ready)})


async def get_sheet(act: Act) -> Reply:
    """Return golden and new pictures of a revision, side by side, base64 of PNG."""
    fleet = await act.ports.fleet.load()
    revision = _revision(fleet, act.query("model") or "", act.query("revision") or "")
    store = act.ports.admin.canaries
    baseline = choose_baseline(await store.baselines(revision.model_id), revision.created_at)
    states = await _states(act, fleet, revision, baseline) if baseline is not None else []
    pairs = pairs_of(states, await store.rounds(revision.model_id, MOST_ROUNDS), revision.revision_id)
    rows: list[dict[str, object]] = []
    for pair in pairs:
        golden, new = await _picture(act, pair.golden_key), await _picture(act, pair.new_key)
        rows.append({**dataclasses.asdict(pair), "golden_png": golden, "new_png": new})
    golden_of = baseline.revision_id if baseline is not None else None
    return json_reply(
        200, {"model_id": revision.model_id, "revision_id": revision.revision_id, "golden_of": golden_of, "rows": rows}
    )


async def post_approve(act: Act) -> Reply:
    """Take what a revision draws for golden from now on, in a person's word; findings that it differed are closed."""
    body = await act.json(_Approve)
    fleet, why = await act.ports.fleet.load(), plain_text("reason", body.reason, empty=False)
    revision = _revision(fleet, body.model_id, body.revision_id)
    store, now = act.ports.admin.canaries, fleet.now
    looks = approved_looks(await store.rounds(revision.model_id, MOST_ROUNDS), revision.revision_id)
    baseline = Baseline(revision.model_id, revision.revision_id, revision.created_at, now, act.actor, why)
    await store.approve(baseline, looks)
    closed: list[str] = []
    for item in await act.ports.admin.findings.found(revision.model_id, now - FINDINGS_FROM):
        where = item.finding.where
        if item.finding.source is Source.CANARY and where.revision_id == revision.revision_id and not where.replica_id:
            closed.append(item.finding.finding_id)
            await act.ports.admin.findings.close(item.finding.finding_id, now, f"{act.actor} approved it: {why}")
    detail: dict[str, object] = {"revision_id": revision.revision_id, "looks": len(looks)}
    await act.record("approve_canaries", f"model:{revision.model_id}", detail, why)
    states = await _states(act, fleet, revision, baseline)
    return json_reply(200, {"revision_id": revision.revision_id, "goldens": states, "closed_findings": closed})


async def _states(act: Act, fleet: Fleet, revision: Revision, baseline: Baseline) -> list[GoldenState]:
    taught = await act.ports.admin.canaries.taught(baseline.model_id, baseline.revision_id)
    placed = sum(item.replicas for item in fleet.placements if item.revision_id == revision.revision_id)
    return states_of(baseline, taught, placed, revision.spec.quality.canaries.reruns)


async def _picture(act: Act, key: str) -> str | None:
    data = await act.ports.objects.get(key) if key else None
    return base64.b64encode(data).decode() if data is not None and len(data) <= MOST_PICTURE_BYTES else None


def _revision(fleet: Fleet, model: str, named: str) -> Revision:
    """Return the named revision of a model, or the one that has most of its traffic, else its newest."""
    model_id = ModelId(plain_text("model_id", model, empty=False))
    own = [item for item in fleet.revisions.values() if item.model_id == model_id]
    if not own:
        raise NotThere(f"no model {model[:60]!r}; `forestay model list` shows what is deployed")
    if named:
        found = fleet.revisions.get(RevisionId(named))
        if found is None or found.model_id != model_id:
            raise NotThere(f"{model_id} has no revision {named[:60]!r}")
        return found
    routed = sorted(routes_of(fleet, model_id), key=lambda item: item.bucket_from - item.bucket_to)
    return fleet.revisions[routed[0].revision_id] if routed else max(own, key=lambda item: item.created_at)
