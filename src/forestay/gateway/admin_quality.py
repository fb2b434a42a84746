"""Admin routes of quality: what was found wrong with outputs, what is held back, and a person's word on either.

It decides nothing: the quality loop and the canaries find, `quality/remedies` decides.
"""

import dataclasses
import datetime as dt

import msgspec

from forestay.errors import UsageError
from forestay.fleet.actions import Effect, Origin, Place
from forestay.fleet.audit import AuditEntry
from forestay.gateway.admin_reading import Act, NotThere, Problem, plain_text
from forestay.gateway.responses import Reply, json_reply
from forestay.ids import ModelId, ReplicaId, RevisionId, WorkerId
from forestay.quality import remedies
from forestay.quality.catalogue import name_of
from forestay.quality.evidence import Evidence
from forestay.quality.findings import Kept

MOST_HOURS = 24 * 90


class _Reason(msgspec.Struct, forbid_unknown_fields=True):
    reason: str


class _Drain(msgspec.Struct, forbid_unknown_fields=True):
    reason: str
    last: bool = False  # also where it is the last replica that serves a revision with traffic


async def get_findings(act: Act) -> Reply:
    """List what was found, the newest first: of one model with `model`, closed ones too with `closed=1`."""
    said = act.query("hours") or "24"
    if not said.isdecimal() or not 1 <= int(said) <= MOST_HOURS:
        raise UsageError("hours", f"must be a whole number from 1 to {MOST_HOURS}")
    since = act.ports.clock.now() - dt.timedelta(hours=int(said))
    model = plain_text("model", act.query("model") or "")
    closed = act.query("closed") == "1"
    found = await act.ports.admin.findings.found(ModelId(model) if model else None, since, closed=closed)
    store = act.ports.admin.evidence
    known = dict[str, Evidence]() if store is None else await store.of([item.finding.finding_id for item in found])
    return json_reply(200, {"findings": [_shown(item, known.get(item.finding.finding_id)) for item in found]})


async def post_close(act: Act) -> Reply:
    """Note that a finding is over, in a person's word."""
    finding_id, why = act.path("finding_id"), plain_text("reason", (await act.json(_Reason)).reason, empty=False)
    now = act.ports.clock.now()
    if not await act.ports.admin.findings.close(finding_id, now, f"{act.actor}: {why}"):
        raise NotThere(f"no open finding {finding_id[:32]!r}; `forestay quality findings` lists them")
    await act.ports.fleet.record(
        AuditEntry(now, act.actor, "close_finding", f"finding:{finding_id}", {"reason": why}, "asked for")
    )
    return json_reply(200, {"finding_id": finding_id, "closed_for": why})


async def get_holds(act: Act) -> Reply:
    """List which workers run no replica of which revision, until a self-test has passed."""
    return json_reply(200, {"holds": await act.ports.admin.holds.holds()})


async def post_drain(act: Act) -> Reply:
    """Drain a replica in a person's word: it ends, and its worker runs none in its place until a person says so."""
    replica_id, said = act.path("replica_id"), await act.json(_Drain)
    why, now = plain_text("reason", said.reason, empty=False), act.ports.clock.now()
    fleet = await act.ports.fleet.load()
    replica = fleet.replicas.get(ReplicaId(replica_id))
    if replica is None:
        raise NotThere(f"no replica {replica_id[:64]!r}; `forestay fleet status` lists them")
    if remedies.is_leaving(replica, fleet):
        raise Problem(409, f"replica {replica_id} was told to end already", "leaving")
    if remedies.is_last(replica, fleet) and not said.last:
        only = f"{replica_id} is the last replica that serves {replica.model_id}"
        raise Problem(409, f"{only}; say `--last` (in the API `last`) if you mean it", "last_replica")
    drain = remedies.drain_asked_for(replica, fleet, f"{act.actor}: {why}", now)
    ending = (replica.replica_id,) if drain.left else ()
    await _place(act, Place(replica.worker_id, replica.revision_id, drain.left, drain.reason, ending))
    await act.ports.admin.holds.hold(drain.hold)
    body = {"replica_id": replica_id, "worker_id": replica.worker_id, "revision_id": replica.revision_id}
    return json_reply(200, {**body, "left_on_worker": drain.left})


async def post_release(act: Act) -> Reply:
    """Let a worker run a revision again without a self-test, in a person's word."""
    worker_id, revision_id = WorkerId(act.path("worker_id")), RevisionId(act.path("revision_id"))
    why, now = plain_text("reason", (await act.json(_Reason)).reason, empty=False), act.ports.clock.now()
    held = [
        dataclasses.replace(item, lifted_at=now)
        for item in await act.ports.admin.holds.holds()
        if (item.worker_id, item.revision_id) == (worker_id, revision_id)
    ]
    lifted = await act.ports.admin.holds.lift(worker_id, revision_id, now, f"{act.actor}: {why}")
    if not lifted:
        what = f"{revision_id[:64]!r} on {worker_id[:64]!r}"
        raise NotThere(f"nothing is held back of {what}; see `forestay quality status`")
    await act.ports.fleet.record(
        AuditEntry(now, act.actor, "release_hold", f"placement:{worker_id}/{revision_id}", {"reason": why}, "asked for")
    )
    if any(item.by_person for item in held):  # what a loop took away a loop gives back
        for back in remedies.given_back(held, await act.ports.fleet.load(), now):
            await _place(act, Place(worker_id, revision_id, back.replicas, back.reason))
            await act.ports.admin.holds.give_back(worker_id, revision_id)
    return json_reply(200, {"worker_id": worker_id, "revision_id": revision_id})


async def _place(act: Act, action: Place) -> None:
    (decided,) = await act.ports.fleet.apply([action], origin=Origin.HUMAN, actor=act.actor)
    if decided.effect is not Effect.APPLIED:
        raise Problem(409, decided.why, "refused")


def _shown(kept: Kept, evidence: Evidence | None) -> dict[str, object]:
    return {
        "finding_id": kept.finding.finding_id,
        **msgspec.to_builtins(kept.finding),
        "failure": name_of(kept.finding.catalogue),
        "first_at": kept.first_at,
        "last_at": kept.last_at,
        "times": kept.times,
        "closed_at": kept.closed_at,
        "closed_for": kept.closed_for,
        "sealed": None
        if evidence is None
        else {"opened_at": evidence.opened_at, "words": evidence.words, "copies": len(evidence.copies)},
    }
