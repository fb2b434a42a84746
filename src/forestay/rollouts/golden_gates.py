"""The gates that golden canaries and the policy of content answer, before any traffic. Pure.

It decides whether a candidate still draws what its model's goldens show, whether it takes much longer over it than the
control on the same kind of device, and whether its content is judged at least as it was. Where outputs are meant to
change, a person looks at the contact sheet and approves new goldens; until then the gate has no answer. A model without
canaries has no such gate. A candidate that is the first to declare some is not left to wait for the next round by the
clock: a round is asked for as often as its goldens need. Called by `gates` and the steering loop.
"""

import datetime as dt
from collections.abc import Sequence

from forestay.fleet.model import Fleet
from forestay.fleet.routes import is_up
from forestay.fleet.spec import UNGUARDED
from forestay.ids import RevisionId
from forestay.quality.canary_store import ANY_REVISION, EVERYWHERE, Ask, Ended, PlayedRound
from forestay.quality.golden import Cause
from forestay.rollouts.model import GateResult, GateVerdict, Rollout
from forestay.rollouts.shadow.model import Expect

SLOWER = 2.0
"""How many times as long as the control's a round of the candidate may take; less is the canary's to prove."""
SLACK_SECONDS = 1.0  # and this much longer: a short round says little
MOST_ASKS = 8
"""Rounds that one rollout asks for at most; goldens that are still not learned then need a person."""
_TOLD = 400


def check_goldens(rollout: Rollout, fleet: Fleet, rounds: Sequence[PlayedRound]) -> list[GateResult]:
    """Return the gates of canaries; none where the candidate declares no canaries. `rounds`: the newest first."""
    candidate = fleet.revisions.get(rollout.candidate)
    if candidate is None or not candidate.spec.quality.canaries.inputs:
        return []
    theirs = _of(rounds, rollout.candidate)
    return [_drawn(rollout, theirs), *_speed(theirs, _of(rounds, rollout.control))]


def decide_round(
    rollout: Rollout, fleet: Fleet, rounds: Sequence[PlayedRound], asks: Sequence[Ask], now: dt.datetime
) -> Ask | None:
    """Return the ask for a further round of a candidate that still learns its goldens; None where none is due.

    `rounds` the newest first; `asks` the open ones since the rollout began. One is due once the last was played.
    """
    if not is_up(fleet, rollout.candidate):
        return None
    theirs = _of(rounds, rollout.candidate)
    if not theirs or theirs[0].ended is not Ended.LEARNING:
        return None
    concerned = {ANY_REVISION, rollout.candidate}
    made = [
        item
        for item in asks
        if item.worker_id == EVERYWHERE and item.model_id == rollout.model_id and item.revision_id in concerned
    ]
    if len(made) >= MOST_ASKS or any(item.asked_at > theirs[0].began_at for item in made):
        return None
    reason = f"rollout {rollout.rollout_id} waits for goldens: {theirs[0].words}"
    # Whoever began the rollout asks: such a round is not held back by the canaries' hourly budget.
    return Ask(rollout.model_id, rollout.candidate, EVERYWHERE, Cause.PERSON, now, reason[:_TOLD])


def check_policy(rollout: Rollout, fleet: Fleet) -> GateResult | None:
    """Return the gate of safety; None where neither revision is judged. Staging tries another policy on traffic."""
    control, candidate = fleet.revisions.get(rollout.control), fleet.revisions.get(rollout.candidate)
    before = UNGUARDED if control is None else control.spec.safety.policy
    after = UNGUARDED if candidate is None else candidate.spec.safety.policy
    if before == after:
        told = f"judged by {after}, as the control is"
        return None if after == UNGUARDED else GateResult("safety", GateVerdict.PASS, told)
    if after == UNGUARDED:
        told = f"the control is judged by {before}, the candidate by nothing; name a policy in its spec's `safety`"
        return GateResult("safety", GateVerdict.FAIL, told)
    if before == UNGUARDED:
        return GateResult("safety", GateVerdict.PASS, f"judged by {after}; the control by nothing")
    told = (
        f"the control is judged by {before}, the candidate by {after}: nobody has compared them on its traffic; "
        f"keep {before} in the spec, and stage what you want to change with `forestay safety policy stage {before}`"
    )
    return GateResult("safety", GateVerdict.FAIL, told)


def _of(rounds: Sequence[PlayedRound], revision_id: RevisionId) -> list[PlayedRound]:
    return [item for item in rounds if item.revision_id == revision_id and item.ended is not Ended.CUT_SHORT]


def _drawn(rollout: Rollout, rounds: Sequence[PlayedRound]) -> GateResult:
    hasten = f"`forestay quality canary run {rollout.model_id} --revision {rollout.candidate}` plays a round at once"
    if not rounds:
        told = f"no replica of the candidate has played them to the end yet; {hasten}"
        return _result("canaries", GateVerdict.INCONCLUSIVE, told)
    newest = rounds[0]
    if newest.ended is Ended.PASSED:
        count = len(newest.canaries)
        return _result("canaries", GateVerdict.PASS, f"{count} of {count} drawn as their goldens show")
    if newest.ended is Ended.LEARNING:
        told = f"there is no golden yet: {newest.words}. Further rounds are asked for until there is; {hasten}"
        return _result("canaries", GateVerdict.INCONCLUSIVE, told)
    way = f"`forestay quality canary approve {rollout.model_id} --revision {rollout.candidate} --reason WHY`"
    if rollout.policy.shadow.expect is Expect.SAME:
        told = f"{newest.words}. Where that is meant, begin again with --shadow-expect alike or changed and {way}"
        return _result("canaries", GateVerdict.FAIL, told)
    told = f"{newest.words}; as outputs are meant to change, look at `forestay quality canary show` and {way}"
    return _result("canaries", GateVerdict.INCONCLUSIVE, told)


def _speed(candidate: Sequence[PlayedRound], control: Sequence[PlayedRound]) -> list[GateResult]:
    """Compare the shortest round of each with that of the other, of the same canaries in the same environment."""
    found: list[GateResult] = []
    for played in sorted({_alike(item) for item in candidate}):
        new = min(item.device_seconds for item in candidate if _alike(item) == played)
        old = min((item.device_seconds for item in control if _alike(item) == played), default=None)
        if old is None:
            continue  # the first on such a device, or with such canaries: there is nothing to be slower than
        slow = new > SLOWER * old + SLACK_SECONDS
        told = f"a round of {len(played)} canaries takes {new:.2f} s; the control's took {old:.2f} s"
        told = f"{told}, and {SLOWER:g} times as long is too slow" if slow else told
        found.append(_result("speed", GateVerdict.FAIL if slow else GateVerdict.PASS, told))
    return found


def _alike(played: PlayedRound) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((item.canary, item.environment) for item in played.canaries))


def _result(gate: str, verdict: GateVerdict, evidence: str) -> GateResult:
    return GateResult(gate, verdict, evidence if len(evidence) <= _TOLD else f"{evidence[:_TOLD]}...")
