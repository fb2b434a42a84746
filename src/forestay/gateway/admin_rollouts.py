"""Admin routes of rollouts: begin one, look at it, and tell it what a person wants.

It decides who is in the way (409) and what a person may order when. What follows from an order is `rollouts/decide`'s,
which the controller's loop carries out at once. Each order leaves an audit row.
"""

import dataclasses
from collections.abc import Callable

import msgspec

from forestay.errors import UsageError
from forestay.fleet.audit import AuditEntry
from forestay.fleet.model import Fleet, Revision
from forestay.fleet.routes import routes_of
from forestay.gateway.admin_reading import Act, Problem, plain_text
from forestay.gateway.admin_rollout_reports import found_rollout
from forestay.gateway.responses import Reply, json_reply
from forestay.ids import ModelId
from forestay.rollouts.canary.evidence import Finding, judge
from forestay.rollouts.canary.worst import worst_slice
from forestay.rollouts.decide import ordered, overridden, paused, replayed
from forestay.rollouts.model import TERMINAL, Begun, JournalEntry, Order, Replayed, Rollout, begin
from forestay.rollouts.options import RolloutOptions, policy_of

CHANNEL = "forestay:rollouts"
_TRIES = 20  # an order meets the loop, which writes once a second
_MOST = 200
_MOST_ROWS = 10_000_000  # of a labelled set


class _Order(msgspec.Struct, forbid_unknown_fields=True):
    reason: str


class _Set(msgspec.Struct, forbid_unknown_fields=True):
    """Counts of a labelled set that a person has replayed, and what it is."""

    reason: str
    source: str
    unsafe: int
    newly_passed: int
    newly_stopped: int
    safe: int
    newly_blocked: int
    newly_freed: int
    unknown: int = 0


async def check_free(act: Act, fleet: Fleet, model_id: ModelId) -> None:
    """Refuse a second rollout of a model, and one beside routes that a person has split."""
    running = [item for item in await act.ports.admin.rollouts.open() if item.model_id == model_id]
    if running:
        name = running[0].rollout_id
        raise Problem(
            409, f"rollout {name} of {model_id} is running; wait, or `forestay rollout abort {name}`", "refused"
        )
    if len(routes_of(fleet, model_id)) > 1:
        raise Problem(409, f"{model_id} is served by several revisions; deploy one of them whole first", "refused")


async def begin_rollout(act: Act, fleet: Fleet, revision: Revision, options: RolloutOptions | None) -> Rollout:
    """Store the rollout of a revision that is already held loaded; raises Problem when another was faster."""
    control = routes_of(fleet, revision.model_id)[0].revision_id
    name = f"{revision.revision_id}-{act.ports.chance.bits(24):06x}"
    now = (await act.ports.fleet.load()).now
    by = Begun(now, act.actor, f"begun by {act.actor}")
    rollout = begin(name, revision.model_id, (control, revision.revision_id), policy_of(options), by)
    detail = {"control": control, "candidate": revision.revision_id}
    audit = AuditEntry(now, act.actor, "begin_rollout", f"rollout:{name}", detail, "asked for")
    if not await act.ports.admin.rollouts.begin(rollout, audit):
        raise Problem(409, f"another rollout of {revision.model_id} has just begun", "refused")
    await act.ports.wakeups.publish(CHANNEL, "")
    return rollout


async def get_rollouts(act: Act) -> Reply:
    """List rollouts, newest first."""
    model = act.query("model")
    found = await act.ports.admin.rollouts.newest(ModelId(model) if model else None, act.limit(20, _MOST))
    return json_reply(200, {"rollouts": [summary(item) for item in found]})


async def get_rollout(act: Act) -> Reply:
    """Show one rollout with its evidence and every step."""
    rollout = await found_rollout(act)
    journal = await act.ports.admin.rollouts.journal(rollout.rollout_id)
    return json_reply(200, {**summary(rollout), **_evidence(rollout), "journal": [_line(item) for item in journal]})


async def post_promote(act: Act) -> Reply:
    """Promote by a person's word; proven harm still goes first."""
    return await _ordered(act, "promote_rollout", lambda rollout, _: ordered(rollout, Order.PROMOTE, act.actor))


async def post_abort(act: Act) -> Reply:
    """Take all traffic from the candidate."""
    return await _ordered(act, "abort_rollout", lambda rollout, _: ordered(rollout, Order.ABORT, act.actor))


async def post_pause(act: Act) -> Reply:
    """Hold growth and promotion; a rollback is never held."""
    return await _ordered(act, "pause_rollout", lambda rollout, _: paused(rollout, act.actor))


async def post_resume(act: Act) -> Reply:
    """Let it go on."""
    return await _ordered(act, "resume_rollout", lambda rollout, _: paused(rollout, ""))


async def post_override(act: Act) -> Reply:
    """Let it go on whatever error budgets demand; harm still rolls it back."""
    return await _ordered(act, "override_rollout", lambda rollout, why: overridden(rollout, act.actor, why))


async def post_safety(act: Act) -> Reply:
    """Note what a person's labelled set says of the candidate's policy: counts, never content. Its gate adds them."""
    wanted = await act.json(_Set)
    played = _replayed(wanted, act.actor)
    return await _noted(act, "replay_safety", wanted.reason, lambda rollout, _: replayed(rollout, played))


def _replayed(wanted: _Set, actor: str) -> Replayed:
    """Return the counts; raises UsageError naming the field that cannot be."""
    counts = {name: value for name, value in msgspec.structs.asdict(wanted).items() if isinstance(value, int)}
    for name, value in counts.items():
        if not 0 <= value <= _MOST_ROWS:
            raise UsageError(name, f"must be from 0 to {_MOST_ROWS:,}")
    if wanted.newly_passed + wanted.newly_stopped > wanted.unsafe:
        raise UsageError("unsafe", "must be at least newly_passed and newly_stopped together")
    if wanted.newly_blocked + wanted.newly_freed > wanted.safe:
        raise UsageError("safe", "must be at least newly_blocked and newly_freed together")
    return Replayed(source=plain_text("source", wanted.source, 200, empty=False), by=actor, **counts)


async def _ordered(act: Act, action: str, change: Callable[[Rollout, str], Rollout]) -> Reply:
    return await _noted(act, action, (await act.json(_Order)).reason, change)


async def _noted(act: Act, action: str, reason: str, change: Callable[[Rollout, str], Rollout]) -> Reply:
    reason = plain_text("reason", reason, empty=False)
    for _ in range(_TRIES):
        rollout = await found_rollout(act)
        if rollout.stage in TERMINAL:
            raise Problem(409, f"rollout {rollout.rollout_id} is over: {rollout.stage}", "refused")
        changed = change(rollout, reason)
        now = act.ports.clock.now()
        audit = AuditEntry(now, act.actor, action, f"rollout:{rollout.rollout_id}", {}, reason)
        line = JournalEntry(changed.version, now, act.actor, changed.stage, changed.weight, f"{action}: {reason}")
        if await act.ports.admin.rollouts.save(changed, line, audit):
            await act.ports.wakeups.publish(CHANNEL, "")
            return json_reply(202, summary(changed))
    raise Problem(503, "the rollout is busy; try again in a second", "busy")


def summary(rollout: Rollout) -> dict[str, object]:
    """Return a rollout in a few words."""
    return {
        "rollout_id": rollout.rollout_id,
        "model_id": rollout.model_id,
        "control": rollout.control,
        "candidate": rollout.candidate,
        "stage": rollout.stage,
        "weight": rollout.weight,
        "routed": rollout.routed,
        "settled": rollout.settled,
        "reason": rollout.reason,
        "paused_by": rollout.paused_by,
        "despite_budget": rollout.despite_budget,
        "order": rollout.order,
        "started_at": rollout.started_at,
        "started_by": rollout.started_by,
        "stage_since": rollout.stage_since,
        "gates": rollout.gates,
        "safety_sets": rollout.safety_sets,
        "shadow": rollout.shadow,
    }


def _evidence(rollout: Rollout) -> dict[str, object]:
    judged = judge(rollout.evidence, rollout.policy.canary)
    control, candidate = rollout.evidence.requests
    worst = worst_slice(rollout.evidence, judged.suspects)
    return {
        "requests": {"control": control, "candidate": candidate},
        "excess": judged.excess,
        "allowance": rollout.policy.canary.allowance,
        "log_capital": judged.log_capital,
        "worst": None if worst is None else {**dataclasses.asdict(worst), "told": worst.told()},
        "suspects": [_told(item) for item in judged.suspects],
        "unproved": [_told(item) for item in judged.unproved],
    }


def _told(item: Finding) -> dict[str, object]:
    return {**dataclasses.asdict(item), "told": item.told()}


def _line(entry: JournalEntry) -> dict[str, object]:
    return dataclasses.asdict(entry)
