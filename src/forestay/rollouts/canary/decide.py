"""What a canary does next: grow, stay, promote, give up or roll back. Pure.

It decides from the evidence, the clock and the allowance, one action with its reason at each look. It does not gather
(`evidence`) nor carry out (`rollouts/decide` and the loop). The ladder is in the order of what must never wait: harm,
then the allowance, then everything else; a pause holds growth and promotion, never a rollback.

Exposure is paid from the error budget. The candidate's weight is at most what the rest of the allowance could bear if
the candidate were as bad as the evidence still allows, until a rollback takes effect. So a rollout with a thin budget
begins small and grows as the upper bound on its harm falls, and a rich one takes the steps as they are written.
"""

import datetime as dt
import math

from forestay.rollouts.canary.evidence import Judgement, judge
from forestay.rollouts.canary.model import (
    CanaryAction,
    CanaryState,
    GiveUp,
    Inconclusive,
    Promote,
    RollBack,
    Shift,
    Stay,
)
from forestay.rollouts.canary.worst import worst_slice

_CAUTION = 1.0 / 3.0  # of the way (in logs) to a verdict of harm: no more exposure until it is clearer
_SLACK = 1.2  # traffic moves: a weight is taken back only when it is clearly too large
_LEAST_WEIGHT = 0.01  # percent: one bucket


def decide_canary(state: CanaryState, now: dt.datetime) -> list[CanaryAction]:
    """Return the one action due now."""
    judged = judge(state.evidence, state.policy)
    return [_ended(state, judged, now) or _paced(state, judged, now)]


def _ended(state: CanaryState, judged: Judgement, now: dt.datetime) -> CanaryAction | None:
    """Return what ends the canary, or holds it by a person's word; None while it may go on."""
    policy = state.policy
    if judged.harm:
        return RollBack(_harm(state, judged))
    if judged.excess >= policy.allowance:
        told = f"its allowance is spent: {judged.excess:.1f} bad answers of {policy.allowance:g} granted"
        return RollBack(f"{told}. {_worse(state, judged)}")
    if state.paused_by:
        return Stay(f"paused by {state.paused_by}")
    if state.weight >= policy.steps[-1] and _step_done(state, now) and not judged.unproved:
        return Promote(_no_worse(state, judged))
    if (now - state.started_at).total_seconds() >= policy.deadline_seconds:
        return _inconclusive(state, judged)
    return None


def _paced(state: CanaryState, judged: Judgement, now: dt.datetime) -> CanaryAction:
    """Return the next weight, or why it stays."""
    policy, bearable = state.policy, bearable_weight(state, judged)
    quiet = _quiet_seconds(state, now)
    if state.weight > 0 and quiet >= policy.quiet_seconds:
        return Stay(f"no request has ended on the candidate for {quiet:.0f} s: waiting, nothing is judged")
    if state.weight > _SLACK * bearable:
        return Shift(bearable, f"the rest of its allowance bears {bearable:g} %")
    if state.weight > 0 and not _step_done(state, now):
        return Stay(f"{state.step_requests} of {policy.step_requests} requests at {state.weight:g} %")
    if judged.log_capital >= -_CAUTION * math.log(policy.alpha):
        return Stay(f"no more until this is clearer: {_suspicion(judged)}")
    wanted = min(next((step for step in policy.steps if step > state.weight), state.weight), bearable)
    if wanted > state.weight:
        return Shift(wanted, f"nothing speaks against {wanted:g} %: {judged.excess:.1f} bad answers more than usual")
    return Stay(_not_yet(judged))


def bearable_weight(state: CanaryState, judged: Judgement) -> float:
    """Return the largest weight (percent, to 0.01) whose worst case until a rollback the allowance still bears.

    At least one bucket: a canary that may spend anything at all can still learn.
    """
    rest = max(0.0, state.policy.allowance - judged.excess)
    at_stake = state.requests_per_second * state.policy.look_ahead_seconds * judged.upper_excess_rate
    if at_stake <= 0:
        return 100.0
    return max(_LEAST_WEIGHT, math.floor(min(100.0, 100.0 * rest / at_stake) * 100.0) / 100.0)


def _step_done(state: CanaryState, now: dt.datetime) -> bool:
    long_enough = (now - state.step_since).total_seconds() >= state.policy.step_seconds
    return long_enough and state.step_requests >= state.policy.step_requests


def _quiet_seconds(state: CanaryState, now: dt.datetime) -> float:
    return (now - max(state.last_seen_at or state.step_since, state.step_since)).total_seconds()


def _inconclusive(state: CanaryState, judged: Judgement) -> CanaryAction:
    reason = f"no verdict within {state.policy.deadline_seconds:g} s. {_not_yet(judged)}"
    return GiveUp(reason) if state.policy.when_inconclusive is Inconclusive.HOLD else RollBack(reason)


def _harm(state: CanaryState, judged: Judgement) -> str:
    chance = f"the chance that one like it is ever called so is at most {state.policy.alpha:g}"
    return f"worse than the control ({chance}). {_worse(state, judged)}"


def _worse(state: CanaryState, judged: Judgement) -> str:
    """Return what is worse, that slice first which it comes from."""
    worst = worst_slice(state.evidence, judged.suspects)
    if worst is None:
        return _suspicion(judged)
    named = (worst.mark, worst.slice_name)
    others = [item.told() for item in judged.suspects if (item.mark, item.slice_name) != named]
    return "; ".join([worst.told(), *others])


def _suspicion(judged: Judgement) -> str:
    return "; ".join(item.told() for item in judged.suspects) or "the marks together"


def _no_worse(state: CanaryState, judged: Judgement) -> str:
    control, candidate = state.evidence.requests
    return (
        f"no worse than the margins at {state.policy.promote_alpha:g}: {candidate:,} requests against {control:,} of "
        f"the control, {judged.excess:.1f} bad answers more than usual"
    )


def _not_yet(judged: Judgement) -> str:
    if not judged.unproved:
        return "every margin is proved"
    return f"not yet proved within its margin: {'; '.join(item.told() for item in judged.unproved[:3])}"
