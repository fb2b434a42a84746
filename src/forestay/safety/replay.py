"""What another policy would have decided on content that was judged: from the scores in the records, without content.

It decides nothing by itself: it puts the scores of a record back into outcomes and asks `decide`. Where the new policy
names a detector that was not asked then, nobody can say what it would have said: such judgements are counted apart.
Pure. Called by `forestay safety replay` and by the gate of safety of a rollout.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from forestay.safety.decide import Judgement, Place, decide, wanted
from forestay.safety.model import Outcome, Scores, Trouble, Unscored
from forestay.safety.policy import Action, Policy
from forestay.safety.records import CheckRecord, Point, VerdictRecord
from forestay.safety.taxonomy import Category, Modality

_ABLE: Mapping[str, frozenset[Action]] = {
    Point.INPUT: frozenset({Action.REWRITE}),
    Point.OUTPUT: frozenset({Action.BLUR}),
}  # what could be changed where content was judged


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """A judgement that would have been another one."""

    record: VerdictRecord
    before: Action
    after: Action
    reason: str


@dataclasses.dataclass(slots=True)
class Counts:
    """How one policy does on labelled judgements: stopped means review or block."""

    stopped_bad: int = 0
    stopped_good: int = 0
    passed_bad: int = 0
    passed_good: int = 0

    def take(self, action: Action, *, bad: bool) -> None:
        """Count one judgement whose truth is known."""
        stopped = action.severity >= Action.REVIEW.severity
        if bad:
            self.stopped_bad += stopped
            self.passed_bad += not stopped
        else:
            self.stopped_good += stopped
            self.passed_good += not stopped

    @property
    def labelled(self) -> int:
        """Return how many judgements were counted."""
        return self.stopped_bad + self.stopped_good + self.passed_bad + self.passed_good

    @property
    def precision(self) -> float | None:
        """Return the share of what was stopped that was bad; None when nothing was stopped."""
        stopped = self.stopped_bad + self.stopped_good
        return self.stopped_bad / stopped if stopped else None

    @property
    def recall(self) -> float | None:
        """Return the share of what was bad that was stopped; None when nothing was bad."""
        bad = self.stopped_bad + self.passed_bad
        return self.stopped_bad / bad if bad else None


class Replay:
    """Takes records one by one."""

    def __init__(self, policy: Policy, labels: Mapping[str, bool]) -> None:
        """`labels`: request id, or `request id/point`, which goes before it -> whether its content was bad."""
        self._policy = policy
        self._labels = labels
        self.judged = 0
        self.unknown = 0  # a detector that the new policy names was not asked then
        self.changes: list[Change] = []
        self.before = Counts()
        self.after = Counts()

    def take(self, record: VerdictRecord) -> None:
        """Judge one record anew; lines were judged by stand-ins, and say nothing about the rules."""
        if record.point == Point.LINES:
            return
        judgement = judged_anew(self._policy, record)
        if judgement is None:
            self.unknown += 1
            return
        self.judged += 1
        before = Action(record.action)
        name = str(record.request_id)
        bad = self._labels.get(f"{name}/{record.point}", self._labels.get(name))
        if bad is not None:
            self.before.take(before, bad=bad)
            self.after.take(judgement.action, bad=bad)
        if judgement.action is not before:
            self.changes.append(Change(record, before, judgement.action, judgement.reason))


def judged_anew(policy: Policy, record: VerdictRecord) -> Judgement | None:
    """Return what a policy says of content that was judged; None where it names a detector that was not asked then."""
    places, outcomes = _said(record.checks)
    asked = {(outcome.detector_id, outcome.where) for outcome in outcomes}
    judgement = decide(policy, places, outcomes, able=_ABLE.get(record.point, frozenset()))
    named = wanted(policy, places).items()
    needed = {(detector_id, place.where) for detector_id, held in named for place in held}
    if needed - asked and judgement.action is not Action.BLOCK:  # a block needs nobody else's word
        return None
    return judgement


def _said(checks: Sequence[CheckRecord]) -> tuple[list[Place], list[Outcome]]:
    """Put what detectors said back together; a stand-in's trouble is the other detector's, so it is told as crashed."""
    places: dict[Place, None] = {}
    outcomes: dict[tuple[str, str], Outcome] = {}
    for check in checks:
        places[Place(check.where, Modality(check.modality))] = None
        if not check.detector:
            continue
        key = (check.detector, check.where)
        if check.score is not None:
            scores = {Category(name): score for name, score in check.scores.items()}
            outcomes[key] = Scores(check.detector, check.where, scores)
        elif check.trouble is not None:
            outcomes.setdefault(key, Unscored(check.detector, check.where, Trouble(check.trouble)))
    return list(places), list(outcomes.values())
