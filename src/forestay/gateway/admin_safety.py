"""Admin routes of the guard: policies and their stages, coverage, verdict records, broken glass.

It decides nothing: what a valid policy is, `safety/policy_file` says, what covers it, `safety/coverage`. A policy that
rests on nobody is refused. Records hold scores and digests, never content. Mounted below `/admin/safety`.
"""

import asyncio
import datetime as dt
import uuid
from collections.abc import Sequence

import msgspec

from forestay.errors import Unavailable, UsageError
from forestay.fleet.spec_yaml import SpecError
from forestay.gateway.admin_reading import Act, NotThere, Problem, plain_text
from forestay.gateway.admin_safety_review import cast_vote, desk_of
from forestay.gateway.ports import SafetyDesk
from forestay.gateway.responses import Reply, json_reply
from forestay.ids import RevisionId
from forestay.queue.model import Snapshot, State
from forestay.safety.coverage import gaps, left_out, matrix, unnamed
from forestay.safety.decide import Judgement
from forestay.safety.model import DetectorInfo
from forestay.safety.policy import UNGUARDED, Action, Policy
from forestay.safety.policy_file import STANDARD, read_policy, standard_text
from forestay.safety.records import Point
from forestay.safety.review.model import Ballot, item_id_of
from forestay.safety.review.opening import Stopped
from forestay.safety.staging import Staging
from forestay.safety.store import StoredPolicy, Waiver
from forestay.safety.taxonomy import CODES
from forestay.verdicts import Verdict

MAX_VERSIONS = 100
MAX_RECORDS = 2_000
FURTHEST = dt.timedelta(days=366)
LONGEST_WAIVER_SECONDS = 24 * 3600


class _NewPolicy(msgspec.Struct, forbid_unknown_fields=True):
    text: str
    reason: str


class _Stage(msgspec.Struct, forbid_unknown_fields=True):
    percent: float
    reason: str


class _RollBack(msgspec.Struct, forbid_unknown_fields=True):
    reason: str
    version: int | None = None


class _Glass(msgspec.Struct, forbid_unknown_fields=True):
    detector: str
    reason: str
    for_seconds: int
    model: str = ""


class _Ruling(msgspec.Struct, forbid_unknown_fields=True):
    release: bool
    reason: str


class _Reason(msgspec.Struct, forbid_unknown_fields=True):
    reason: str


async def get_policies(act: Act) -> Reply:
    """List the policies with the stage that each is in."""
    state = await _desk(act).store.state()
    stages = {STANDARD: Staging(STANDARD, 0)} | {stage.policy_id: stage for stage in state.stages}
    return json_reply(200, {"policies": [_staged(stage) for _, stage in sorted(stages.items())]})


async def get_policy(act: Act) -> Reply:
    """Show one policy: its stage, its versions, and the text of the one asked for (the live one unless named)."""
    policy_id, desk = act.path("policy_id"), _desk(act)
    stage = await _stage_of(desk, policy_id)
    versions = await desk.store.versions(policy_id, MAX_VERSIONS)
    texts = {stored.version: stored.text for stored in versions}
    if policy_id == STANDARD:
        texts[0] = standard_text()
    named = act.query("version")
    if named is not None and not (named.isascii() and named.isdigit() and len(named) < 9):
        raise UsageError("version", "must be a number")
    wanted = stage.live if named is None else int(named)
    if wanted not in texts and (named is not None or not texts):
        raise NotThere(f"policy {policy_id} has no version {wanted}")
    shown = {"versions": [_shown(stored) for stored in versions], "version": wanted, "text": texts.get(wanted, "")}
    return json_reply(200, {**_staged(stage), **shown})


async def post_policy(act: Act) -> Reply:
    """Add a version of a policy; it judges in shadow until it is staged further."""
    policy_id, wanted, desk = act.path("policy_id"), await act.json(_NewPolicy), _desk(act)
    reason = plain_text("reason", wanted.reason, empty=False)
    try:
        policy = await asyncio.to_thread(read_policy, wanted.text, policy_id, 0)  # seconds, for the longest text
    except SpecError as error:
        raise UsageError("text", "; ".join(error.faults)) from None
    try:
        known = await desk.detectors.known()
    except Unavailable:
        raise Problem(503, "no judge answers, so nobody can say whether the policy is covered", "judge") from None
    found = gaps(policy, known)
    if found:
        words = "; ".join(f"{gap.category} in {gap.modality}: {gap.reason}" for gap in found[:20])
        raise UsageError("text", f"the policy rests on nobody: {words}")
    made = await desk.store.propose(policy_id, wanted.text, actor=act.actor, reason=reason)
    return json_reply(201, _shown(made))


async def post_stage(act: Act) -> Reply:
    """Let the candidate decide for a share of requests; 100 puts it in force, 0 back into shadow."""
    wanted = await act.json(_Stage)
    reason = plain_text("reason", wanted.reason, empty=False)
    stage = await _desk(act).store.advance(act.path("policy_id"), wanted.percent, actor=act.actor, reason=reason)
    return json_reply(200, _staged(stage))


async def post_rollback(act: Act) -> Reply:
    """Drop the candidate, or put an earlier version in force for all at once."""
    wanted = await act.json(_RollBack)
    reason = plain_text("reason", wanted.reason, empty=False)
    store, policy_id = _desk(act).store, act.path("policy_id")
    stage = await store.roll_back(policy_id, wanted.version, actor=act.actor, reason=reason)
    return json_reply(200, _staged(stage))


async def get_coverage(act: Act) -> Reply:
    """Show which detector covers which category in which modality, and what each policy in force leaves unjudged."""
    desk = _desk(act)
    try:
        known = await desk.detectors.known()
    except Unavailable as error:
        raise Problem(503, str(error), "judge") from None
    await desk.policies.refresh()
    cells = [
        {"category": category.value, "modality": modality.value, "detectors": names}
        for (category, modality), names in matrix(known).items()
    ]
    codes = {category.value: msgspec.to_builtins(said) for category, said in CODES.items()}
    detectors = [{"detector": info.detector_id, "digest": info.digest, "costly": info.costly} for info in known]
    judged = [_standing(stage, version, policy, known) for stage, version, policy in desk.policies.in_force()]
    away = [{"detector": name, "extra": extra} for name, extra in left_out(known).items()]
    said = {"detectors": detectors, "cells": cells, "codes": codes, "policies": judged, "left_out": away}
    return json_reply(200, said)


def _standing(stage: Staging, version: int, policy: Policy | None, known: Sequence[DetectorInfo]) -> dict[str, object]:
    """Say of one version in force where it rests on nobody, and which categories it does not name."""
    said = {
        "policy_id": stage.policy_id,
        "version": version,
        "live": version == stage.live,
        "usable": policy is not None,
    }
    return {
        **said,
        "gaps": [] if policy is None else [msgspec.to_builtins(gap) for gap in gaps(policy, known)],
        "unnamed": {} if policy is None else {modality.value: left for modality, left in unnamed(policy).items()},
    }


async def get_verdicts(act: Act) -> Reply:
    """Read verdict records: of one request, or a page of those between two moments; `after` is the last position."""
    desk, limit = _desk(act), act.limit(MAX_RECORDS, MAX_RECORDS)
    named = act.query("request_id")
    if named is not None:
        try:
            request_id = uuid.UUID(named)
        except ValueError:
            raise UsageError("request_id", "must be a request id") from None
        return json_reply(200, {"verdicts": await desk.verdicts.of_request(request_id, limit)})
    now = act.ports.clock.now()
    since, until = act.moment("since"), act.moment("until") or now
    if since is None or not now - FURTHEST <= since < until:
        raise UsageError("since", f"must be a time before `until`, at most {FURTHEST.days} days ago")
    after = act.query("after") or "0"
    if not (after.isascii() and after.isdigit() and len(after) <= 18):
        raise UsageError("after", "must be the position of the last record of the page before, or 0")
    return json_reply(200, {"verdicts": await desk.verdicts.between(since, until, int(after), limit)})


async def get_verification(act: Act) -> Reply:
    """Recompute every seal over the records: an empty list of faults means that nothing was altered."""
    kept = dt.timedelta(seconds=act.ports.settings.safety.verdicts_retention_seconds)
    checked, faults = await _desk(act).verify(act.ports.clock.now() - kept)
    return json_reply(200, {"seals": checked, "faults": faults})


async def get_glass(act: Act) -> Reply:
    """List the waivers that run."""
    return json_reply(200, {"waivers": (await _desk(act).store.state()).waivers})


async def post_glass(act: Act) -> Reply:
    """Break glass: for a while, trouble of a detector releases as flagged. Blocks are never waived."""
    wanted = await act.json(_Glass)
    if not 0 < wanted.for_seconds <= LONGEST_WAIVER_SECONDS:
        raise UsageError("for_seconds", f"must be between 1 and {LONGEST_WAIVER_SECONDS}: broken glass is mended soon")
    now = act.ports.clock.now()
    waiver = Waiver(
        waiver_id=uuid.UUID(int=act.ports.chance.bits(128)),
        detector_id=plain_text("detector", wanted.detector, 60, empty=False),
        model_id=plain_text("model", wanted.model, 193),
        reason=plain_text("reason", wanted.reason, empty=False),
        until=now + dt.timedelta(seconds=wanted.for_seconds),
        set_by=act.actor,
    )
    await _desk(act).store.waive(waiver)
    return json_reply(201, waiver)


async def post_glass_end(act: Act) -> Reply:
    """End a waiver before its time."""
    wanted = await act.json(_Reason)
    try:
        waiver_id = uuid.UUID(act.path("waiver_id"))
    except ValueError:
        raise NotThere("no such waiver") from None
    reason = plain_text("reason", wanted.reason, empty=False)
    if not await _desk(act).store.end_waiver(waiver_id, actor=act.actor, reason=reason):
        raise NotThere("no such waiver runs")
    return json_reply(200, {"ended": str(waiver_id)})


async def post_ruling(act: Act) -> Reply:
    """Vote about what was stopped of a request: release it, or block it. On record before anything takes effect."""
    wanted, request_id = await act.json(_Ruling), act.request_id()
    reason = plain_text("reason", wanted.reason, empty=False)
    found = (await act.ports.queue.snapshots([request_id])).get(request_id)
    ballot = Ballot.RELEASE if wanted.release else Ballot.BLOCK
    if found is not None and found.state is State.WITHHELD:
        await _item_of_withheld(act, found)
        name = item_id_of(request_id, Point.OUTPUT)
    else:
        name = str(request_id)
    standing = await cast_vote(act, name, ballot, reason)
    if standing is None and found is None:
        raise NotThere("no such request")
    if standing is None:
        state = "unknown" if found is None else found.state.value
        raise Problem(409, f"the request is {state}, not withheld, and no copy of it was kept", "not_withheld")
    after = (await act.ports.queue.snapshots([request_id])).get(request_id)
    decided = standing.item.decided
    said = {
        "request_id": str(request_id),
        "state": None if after is None else after.state.value,
        "item_id": standing.item.opened.item_id,
        "outcome": None if decided is None else decided.outcome.value,
        "has": standing.has,
        "needs": standing.needs,
        "linked_request_id": standing.item.linked_id and str(standing.item.linked_id),
    }
    return json_reply(200, said)


async def _item_of_withheld(act: Act, found: Snapshot) -> None:
    """Make sure that a withheld output has an item: its worker may have died before it opened one."""
    desk = _desk(act)
    revision = (await act.ports.fleet.load()).revisions.get(found.revision_id or RevisionId(""))
    policy_id = STANDARD if revision is None else revision.spec.safety.policy
    policy = desk.guard.policy_of(policy_id, found.tenant_id, found.request_id)
    reason = "withheld; how it was judged stands in its verdict records"
    judgement = Judgement(Verdict.INCONCLUSIVE, Action.REVIEW, None, "", reason)
    stopped = Stopped(
        request_id=found.request_id,
        attempt=found.attempt,
        tenant_id=found.tenant_id,
        key_id=found.key_id,
        model_id=found.model_id,
        endpoint=found.endpoint,
        policy_id=policy_id,
        policy=policy,
        judgement=judgement,
    )
    await desk_of(act).reviews.open(stopped.item(Point.OUTPUT, ""))


def _desk(act: Act) -> SafetyDesk:
    if act.ports.safety is None:
        raise Problem(503, "no guard runs in this gateway", "guard")
    return act.ports.safety


async def _stage_of(desk: SafetyDesk, policy_id: str) -> Staging:
    if policy_id == UNGUARDED.policy_id:
        raise NotThere(f"{policy_id} names no check: it has no text")
    found = {stage.policy_id: stage for stage in (await desk.store.state()).stages}
    if policy_id == STANDARD:
        return found.get(STANDARD, Staging(STANDARD, 0))
    if policy_id not in found:
        raise NotThere(f"nobody has set a policy {policy_id}")
    return found[policy_id]


def _staged(stage: Staging) -> dict[str, object]:
    return {
        "policy_id": stage.policy_id,
        "stage": stage.stage,
        "live": stage.live,
        "candidate": stage.candidate,
        "percent": stage.percent,
    }


def _shown(stored: StoredPolicy) -> dict[str, object]:
    return {
        "policy_id": stored.policy_id,
        "version": stored.version,
        "reason": stored.reason,
        "set_at": stored.set_at,
        "set_by": stored.set_by,
    }
