"""Admin routes of quality: what was found wrong with outputs, what is held back, and a person's word on either.

It decides nothing: the quality loop and the canaries find, `quality/remedies` decides.
"""

import datetime as dt

import msgspec

from forestay.errors import UsageError
from forestay.fleet.audit import AuditEntry
from forestay.gateway.admin_reading import Act, NotThere, plain_text
from forestay.gateway.responses import Reply, json_reply
from forestay.ids import ModelId, RevisionId, WorkerId
from forestay.quality.catalogue import name_of
from forestay.quality.evidence import Evidence
from forestay.quality.findings import Kept

MOST_HOURS = 24 * 90


class _Reason(msgspec.Struct, forbid_unknown_fields=True):
    reason: str


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


async def post_release(act: Act) -> Reply:
    """Let a worker run a revision again without a self-test, in a person's word."""
    worker_id, revision_id = act.path("worker_id"), act.path("revision_id")
    why, now = plain_text("reason", (await act.json(_Reason)).reason, empty=False), act.ports.clock.now()
    lifted = await act.ports.admin.holds.lift(WorkerId(worker_id), RevisionId(revision_id), now, f"{act.actor}: {why}")
    if not lifted:
        what = f"{revision_id[:64]!r} on {worker_id[:64]!r}"
        raise NotThere(f"nothing is held back of {what}; see `forestay quality status`")
    await act.ports.fleet.record(
        AuditEntry(now, act.actor, "release_hold", f"placement:{worker_id}/{revision_id}", {"reason": why}, "asked for")
    )
    return json_reply(200, {"worker_id": worker_id, "revision_id": revision_id})


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
