"""Does what was stored say again what was decided? Recomputes a rollout's verdicts from its observations. Pure.

The shadow's verdict follows from its stored comparisons. The canary's follows from the facts of finished requests, as
the loop learned of them: facts are read again in order, up to the stored cursor, and counted under the stored shares.
The control's quantiles are taken look by look, and a replay looks more coarsely, so capitals agree nearly, counts
exactly, verdicts as a whole. Facts past their retention are missed: the counts then say so.
"""

import dataclasses
from collections.abc import Sequence

from forestay.diffs.noise import Said
from forestay.rollouts.canary.evidence import judge
from forestay.rollouts.canary.model import Evidence
from forestay.rollouts.model import FIRST_ID, Cursor, Rollout, Stage
from forestay.rollouts.observe import FinishedRequest, learn
from forestay.rollouts.shadow.decide import judge_shadow
from forestay.rollouts.shadow.model import Pair

PAGE = 5_000


@dataclasses.dataclass(frozen=True, slots=True)
class Replayed:
    """One verdict, as it was stored and as it follows now."""

    part: str  # shadow | canary
    stored: str
    again: str
    agrees: bool


def replay_shadow(rollout: Rollout, pairs: Sequence[Pair]) -> Replayed | None:
    """Judge the stored comparisons again; None where there was no shadow."""
    if rollout.shadow is None:
        return None
    verdict = judge_shadow(rollout.policy.shadow, pairs, rollout.stage_since, rollout.stage_since)
    stored = rollout.shadow
    agrees = verdict.said is stored.said or _grew(stored.said, verdict.compared, stored.compared)
    return Replayed(
        "shadow",
        f"{stored.said}: {stored.differing} of {stored.compared} differ, evidence {stored.log_capital:.2f}",
        f"{verdict.said}: {verdict.differing} of {verdict.compared} differ, evidence {verdict.log_capital:.2f}",
        agrees,
    )


def _grew(said: Said, now: int, then: int) -> bool:
    """Tell whether copies that were under way have been compared since, so that more can be known than was."""
    return said is Said.INCONCLUSIVE and now > then


def at_beginning(rollout: Rollout) -> Rollout:
    """Return the rollout with nothing learned yet, for `learn_page` to teach again."""
    start = Cursor(rollout.started_at, FIRST_ID)
    return dataclasses.replace(
        rollout, evidence=Evidence(), cursor=start, step_requests=0, last_seen_at=None, looked_at=None
    )


def learn_page(replayed: Rollout, facts: Sequence[FinishedRequest], until: Cursor) -> tuple[Rollout, bool]:
    """Teach it one page of facts up to `until`; the second value says whether more may follow."""
    edge = (until.finished_at, until.request_id)
    kept = [fact for fact in facts if (fact.finished_at, fact.request_id) <= edge]
    if not kept:
        return replayed, False
    return learn(replayed, kept, kept[-1].finished_at), len(kept) == len(facts)


def replay_canary(rollout: Rollout, replayed: Rollout) -> Replayed:
    """Compare the stored evidence with the one that was learned again."""
    then, now = judge(rollout.evidence, rollout.policy.canary), judge(replayed.evidence, rollout.policy.canary)
    return Replayed(
        "canary",
        _told(rollout, then.log_capital, harm=then.harm),
        _told(replayed, now.log_capital, harm=now.harm),
        then.harm == now.harm and rollout.evidence.requests == replayed.evidence.requests,
    )


def _told(rollout: Rollout, log_capital: float, *, harm: bool) -> str:
    control, candidate = rollout.evidence.requests
    said = "harm is proved" if harm else "no harm is proved"
    return f"{said}: {candidate} requests of the candidate, {control} of the control, evidence {log_capital:.2f}"


def had_canary(rollout: Rollout) -> bool:
    """Tell whether any request could have been the candidate's."""
    return rollout.stage is not Stage.GATES and any(phase.weight > 0 for phase in rollout.phases)
