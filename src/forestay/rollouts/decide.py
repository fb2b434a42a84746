"""What a rollout does next. Pure.

It decides from what is stored, what the routes are, and the evidence: at most one new state to record, and at most one
change of the routes that makes them what is recorded. Recording goes first, so that a controller that dies in between
is followed by one that only has to look. It does not judge the arms (`canary/decide` does) and does no I/O (the loop).

What always holds, whoever dies when: the shares of a model sum to 100; a rollout in an end stays there; a candidate
that was rolled back or held gets no share again; only routes that this rollout has made are changed by it.
"""

import dataclasses
import datetime as dt
from collections.abc import Sequence

from forestay.diffs.noise import Said
from forestay.fleet.model import Route
from forestay.fleet.routes import whole_route
from forestay.ids import BUCKETS
from forestay.rollouts.budget_hold import NO_DEMAND, Demand, held_by_budget
from forestay.rollouts.canary.decide import decide_canary
from forestay.rollouts.canary.model import CanaryAction, CanaryState, GiveUp, Promote, RollBack, Shift
from forestay.rollouts.model import (
    MOST_PHASES,
    MOST_SETS,
    TERMINAL,
    GateResult,
    GateVerdict,
    Order,
    Phase,
    Replayed,
    Rollout,
    Stage,
)
from forestay.rollouts.shadow.decide import is_over, judge_shadow
from forestay.rollouts.shadow.model import Pair

_PERCENT = BUCKETS // 100


@dataclasses.dataclass(frozen=True, slots=True)
class Sight:
    """What a look at the world gives: the stored rollout (with the evidence of now), the routes, and who is up."""

    rollout: Rollout
    routes: tuple[Route, ...]  # of the model
    planned: bool  # the candidate is still held loaded by a plan of ours
    candidate_up: bool
    control_up: bool
    gates: tuple[GateResult, ...] = ()
    pairs: tuple[Pair, ...] = ()  # of its shadow, while that runs
    demand: Demand = NO_DEMAND  # of the model's error budgets


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """Store this state, if nobody stored another meanwhile; with a line in the journal where it says so."""

    rollout: Rollout
    journalled: bool
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Reroute:
    """Make the routes what is recorded, if they are still as seen."""

    routes: tuple[Route, ...]
    seen: tuple[Route, ...]
    reason: str


RolloutAction = Record | Reroute


def routes_at(rollout: Rollout, weight: float) -> tuple[Route, ...]:
    """Return the routes that give the candidate `weight` percent, in whole buckets; they always cover everything.

    The candidate has the first buckets, so that a request once sent to it stays with it while its share grows.
    """
    edge = min(BUCKETS, max(0, round(weight * _PERCENT)))
    if edge == 0:
        return (whole_route(rollout.model_id, rollout.control),)
    if edge == BUCKETS:
        return (whole_route(rollout.model_id, rollout.candidate),)
    return (
        Route(rollout.model_id, rollout.candidate, 0, edge),
        Route(rollout.model_id, rollout.control, edge, BUCKETS),
    )


def decide_rollout(sight: Sight, now: dt.datetime) -> list[RolloutAction]:
    """Return what to record and, after that, what to do to the routes; nothing when all is as it should be."""
    before = sight.rollout
    if before.settled:
        return []
    actual = _actual(sight)
    if actual is None:
        return [_overtaken(before, now)]
    after = _confirmed(before, actual, now)
    after = _next(dataclasses.replace(sight, rollout=after), now)
    wanted = routes_at(after, after.weight)
    off = set(wanted) != set(sight.routes) or (after.stage in TERMINAL and sight.planned)
    if after.stage in TERMINAL and not off:
        after = dataclasses.replace(after, settled=True)
    actions: list[RolloutAction] = []
    if after != before:
        moved = (after.stage, after.weight) != (before.stage, before.weight)
        actions.append(Record(dataclasses.replace(after, version=before.version + 1), moved, after.reason))
    if off:
        actions.append(Reroute(wanted, sight.routes, after.reason))
    return actions


def _actual(sight: Sight) -> float | None:
    """Return the candidate's share as the routes have it; None when they are none that this rollout has made."""
    for weight in (sight.rollout.weight, sight.rollout.routed, *sight.rollout.unsure):
        if set(routes_at(sight.rollout, weight)) == set(sight.routes):
            return weight
    return None


def _overtaken(rollout: Rollout, now: dt.datetime) -> Record:
    reason = "somebody else changed the model's routes: they stand, and this rollout is over"
    stage = rollout.stage if rollout.stage in TERMINAL else Stage.HELD
    over = dataclasses.replace(rollout, stage=stage, stage_since=now, settled=True, reason=reason)
    return Record(dataclasses.replace(over, version=rollout.version + 1), journalled=True, reason=reason)


def _confirmed(rollout: Rollout, actual: float, now: dt.datetime) -> Rollout:
    """Note that the routes are what was wanted; evidence at the new share counts once everybody goes by it."""
    if actual != rollout.weight or (rollout.routed == actual and not rollout.unsure):
        return rollout
    since = now + dt.timedelta(seconds=rollout.policy.settle_seconds)
    phases = (*rollout.phases, Phase(actual, since))[-MOST_PHASES:]
    return dataclasses.replace(rollout, routed=actual, unsure=(), phases=phases, step_since=since, step_requests=0)


def _next(sight: Sight, now: dt.datetime) -> Rollout:
    rollout = sight.rollout
    if rollout.stage in TERMINAL:
        return rollout
    if rollout.order is Order.ABORT:
        return _end(rollout, Stage.ROLLED_BACK, 0.0, f"aborted by {rollout.ordered_by}", now)
    match rollout.stage:
        case Stage.GATES:
            return _gates(sight, now)
        case Stage.SHADOW:
            return _shadow(sight, now)
        case Stage.CANARY | Stage.WATCH:
            return _serving(sight, now)
        case _:  # the ends are above
            return rollout


def _gates(sight: Sight, now: dt.datetime) -> Rollout:
    rollout = dataclasses.replace(sight.rollout, gates=sight.gates)
    failed = _named(sight.gates, GateVerdict.FAIL)
    if failed:
        return _end(rollout, Stage.ROLLED_BACK, 0.0, f"stopped before any traffic. {failed}", now)
    waiting = _named(sight.gates, GateVerdict.INCONCLUSIVE)
    if waiting and (now - rollout.stage_since).total_seconds() >= rollout.policy.gate_seconds:
        return _end(
            rollout, Stage.HELD, 0.0, f"gates had no answer in {rollout.policy.gate_seconds:g} s. {waiting}", now
        )
    if waiting or rollout.paused_by:
        return rollout
    if rollout.order is Order.PROMOTE:
        return _end(rollout, Stage.PROMOTED, 100.0, f"promoted by {rollout.ordered_by} after the gates", now)
    passed = f"{len(sight.gates)} gates passed"
    following = Stage.SHADOW if rollout.policy.shadow.requests > 0 else Stage.CANARY
    return dataclasses.replace(rollout, stage=following, stage_since=now, step_since=now, reason=passed)


def _shadow(sight: Sight, now: dt.datetime) -> Rollout:
    """Stop what differs at once; go on with what was compared often enough; hold what was not within its budget."""
    rollout, policy = sight.rollout, sight.rollout.policy.shadow
    verdict = judge_shadow(policy, sight.pairs, now, rollout.stage_since)
    rollout = dataclasses.replace(rollout, shadow=verdict, reason=f"shadow: {verdict.reason}")
    if verdict.said is Said.DIFFERS:
        return _end(rollout, Stage.ROLLED_BACK, 0.0, f"stopped in shadow: {verdict.reason}", now)
    if rollout.order is Order.PROMOTE:
        return _end(rollout, Stage.PROMOTED, 100.0, f"promoted by {rollout.ordered_by} in its shadow", now)
    if rollout.paused_by:
        return rollout
    if verdict.said is Said.SAME:
        return dataclasses.replace(rollout, stage=Stage.CANARY, stage_since=now, step_since=now)
    if is_over(policy, sight.pairs, now, rollout.stage_since):
        reason = f"shadow: {verdict.reason}; begin again with --no-shadow to go on without"
        return _end(rollout, Stage.HELD, 0.0, reason, now)
    return rollout


def _named(gates: Sequence[GateResult], verdict: GateVerdict) -> str:
    return "; ".join(f"{item.gate}: {item.evidence}" for item in gates if item.verdict is verdict)


def _serving(sight: Sight, now: dt.datetime) -> Rollout:
    rollout = _noting_absence(sight, now)
    gone = rollout.missing_since
    if gone is not None and (now - gone).total_seconds() >= rollout.policy.missing_seconds:
        reason = f"no replica of it was ready for {rollout.policy.missing_seconds:g} s, while the control had one"
        return _end(rollout, Stage.ROLLED_BACK, 0.0, reason, now)
    [action] = decide_canary(_canary(rollout), now)
    if isinstance(action, RollBack):
        return _end(rollout, Stage.ROLLED_BACK, 0.0, action.reason, now)
    if rollout.order is Order.PROMOTE:
        return _end(rollout, Stage.PROMOTED, 100.0, f"promoted by {rollout.ordered_by}", now)
    if rollout.routed != rollout.weight or rollout.unsure:
        return rollout  # one step after another
    held = held_by_budget(rollout, sight.demand, now)
    return _watched(rollout, held, now) if rollout.stage is Stage.WATCH else _stepped(rollout, action, held, now)


def _watched(rollout: Rollout, held: str, now: dt.datetime) -> Rollout:
    watched = (now - rollout.stage_since).total_seconds() >= rollout.policy.watch_seconds
    if watched and held:
        return dataclasses.replace(rollout, reason=held)
    if watched and not rollout.paused_by:
        return _end(rollout, Stage.PROMOTED, 100.0, "nothing turned up while it was watched", now)
    return rollout


def _stepped(rollout: Rollout, action: CanaryAction, held: str, now: dt.datetime) -> Rollout:
    match action:
        case Shift(weight=weight) if held and weight > rollout.weight:
            return dataclasses.replace(rollout, reason=held)
        case Promote() if held:
            return dataclasses.replace(rollout, reason=held)
        case Shift(weight=weight, reason=reason):
            return _shifted(dataclasses.replace(rollout, reason=reason), weight, now)
        case Promote(reason=reason):
            watching = dataclasses.replace(rollout, stage=Stage.WATCH, stage_since=now, reason=reason)
            return _shifted(watching, rollout.policy.watch_percent, now)
        case GiveUp(reason=reason):
            return _end(rollout, Stage.HELD, 0.0, reason, now)
        case _:
            return dataclasses.replace(rollout, reason=action.reason)


def _noting_absence(sight: Sight, now: dt.datetime) -> Rollout:
    rollout = sight.rollout
    absent = rollout.routed > 0 and sight.control_up and not sight.candidate_up
    if absent is (rollout.missing_since is not None):
        return rollout
    return dataclasses.replace(rollout, missing_since=now if absent else None)


def _canary(rollout: Rollout) -> CanaryState:
    return CanaryState(
        policy=rollout.policy.canary,
        evidence=rollout.evidence,
        weight=rollout.weight,
        started_at=rollout.stage_since,
        step_since=rollout.step_since,
        step_requests=rollout.step_requests,
        last_seen_at=rollout.last_seen_at,
        requests_per_second=rollout.requests_per_second,
        paused_by=rollout.paused_by,
    )


def _end(rollout: Rollout, stage: Stage, weight: float, reason: str, now: dt.datetime) -> Rollout:
    ended = dataclasses.replace(rollout, stage=stage, stage_since=now, reason=reason)
    return _shifted(ended, weight, now)


def _shifted(rollout: Rollout, weight: float, now: dt.datetime) -> Rollout:
    """Want another share; requests that begin from now on may see either."""
    if weight == rollout.weight:
        return rollout
    phases = tuple(phase if phase.until else dataclasses.replace(phase, until=now) for phase in rollout.phases)
    unsure = rollout.unsure if rollout.routed == rollout.weight else (*rollout.unsure, rollout.weight)
    shifted = dataclasses.replace(rollout, weight=weight, unsure=unsure, phases=phases)
    return dataclasses.replace(shifted, step_since=now, step_requests=0)


def ordered(rollout: Rollout, order: Order, actor: str) -> Rollout:
    """Return the rollout with a person's order; an abort stands against a promotion, whoever comes later."""
    kept = Order.ABORT if rollout.order is Order.ABORT else order
    return dataclasses.replace(rollout, order=kept, ordered_by=actor, version=rollout.version + 1)


def overridden(rollout: Rollout, actor: str, reason: str) -> Rollout:
    """Return the rollout that goes on whatever error budgets demand, by somebody's word."""
    return dataclasses.replace(rollout, despite_budget=f"{actor}: {reason}", version=rollout.version + 1)


def paused(rollout: Rollout, actor: str) -> Rollout:
    """Return the rollout paused by somebody, or going on again when `actor` is empty."""
    return dataclasses.replace(rollout, paused_by=actor, version=rollout.version + 1)


def replayed(rollout: Rollout, played: Replayed) -> Rollout:
    """Return the rollout with a set of labelled content that somebody has replayed; a set of one name is replaced."""
    kept = [item for item in rollout.safety_sets if item.source != played.source]
    sets = (*kept, played)[-MOST_SETS:]
    return dataclasses.replace(rollout, safety_sets=sets, version=rollout.version + 1)
