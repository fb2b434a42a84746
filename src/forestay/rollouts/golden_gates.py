"""The gates that golden canaries and the policy of content answer, before any traffic. Pure.

It decides whether a candidate still draws what its model's goldens show, whether it takes much longer over it than the
control on the same kind of device, and whether its content is judged at least as it was. Where outputs are meant to
change, a person looks at the contact sheet and approves new goldens; until then the gate has no answer. A model without
canaries has no such gate. Called by `gates`.
"""

from collections.abc import Sequence

from forestay.fleet.model import Fleet
from forestay.fleet.spec import UNGUARDED
from forestay.ids import RevisionId
from forestay.quality.canary_store import Ended, PlayedRound
from forestay.rollouts.model import GateResult, GateVerdict, Rollout
from forestay.rollouts.shadow.model import Expect

SLOWER = 2.0
"""How many times as long as the control's a round of the candidate may take; less is the canary's to prove."""
SLACK_SECONDS = 1.0  # and this much longer: a short round says little
_TOLD = 300


def check_goldens(rollout: Rollout, fleet: Fleet, rounds: Sequence[PlayedRound]) -> list[GateResult]:
    """Return the gates of canaries; none where the candidate declares no canaries. `rounds`: the newest first."""
    candidate = fleet.revisions.get(rollout.candidate)
    if candidate is None or not candidate.spec.quality.canaries.inputs:
        return []
    theirs = _of(rounds, rollout.candidate)
    return [_drawn(rollout, theirs), *_speed(theirs, _of(rounds, rollout.control))]


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
    if not rounds:
        return _result(
            "canaries", GateVerdict.INCONCLUSIVE, "no replica of the candidate has played them to the end yet"
        )
    newest = rounds[0]
    if newest.ended is Ended.PASSED:
        count = len(newest.canaries)
        return _result("canaries", GateVerdict.PASS, f"{count} of {count} drawn as their goldens show")
    if newest.ended is Ended.LEARNING:
        return _result("canaries", GateVerdict.INCONCLUSIVE, f"there is no golden yet: {newest.words}")
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
