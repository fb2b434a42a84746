"""From what detectors said to a judgement, under a policy. Pure: the same outcomes give the same judgement.

It decides the verdict, the action, and which category and field led to it. A check that the policy names and that has
no score is trouble, whatever the reason: a detector that never answered counts as crashed. Trouble leads to the
cheaper detector that the rule names, and where that has no score either, to review or block: never to a release. What
a person may override for a while (`waived`: a detector known to be down) is released as flagged; what concerns minors
never is. Called by the
gateway for inputs, by the worker for outputs, and by replays.
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence

from forestay.safety.model import HINT, HINT_REVIEW, Outcome, Scores, Trouble, Unscored
from forestay.safety.policy import CHANGES, Action, Policy, Rule
from forestay.safety.taxonomy import Category, Modality
from forestay.verdicts import Verdict


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """One piece of content that must be judged."""

    where: str
    modality: Modality


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """What one detector said of one place, and what the policy makes of it."""

    detector_id: str
    where: str
    modality: Modality
    category: Category | None  # the one that counted most; None where there was no score
    score: float | None
    threshold: float  # that the score reached; 0 for none
    action: Action
    trouble: Trouble | None = None
    seconds: float = 0.0
    scores: Mapping[Category, float] = dataclasses.field(default_factory=dict[Category, float])  # all that it said


@dataclasses.dataclass(frozen=True, slots=True)
class Judgement:
    """What follows, and why."""

    verdict: Verdict
    action: Action
    category: Category | None
    where: str  # the field or place that led to it; empty when nothing did
    reason: str
    checks: tuple[Check, ...] = ()
    again: bool = False  # nobody could say now: judging again may help
    verdict_id: str = dataclasses.field(default="", compare=False)  # of its record; empty: nothing was judged

    @property
    def releases(self) -> bool:
        """Tell whether the content may go on as it is."""
        return self.action in {Action.ALLOW, Action.FLAG, Action.THROTTLE}

    def places_of(self, action: Action) -> frozenset[str]:
        """Return the places that an action is about."""
        return frozenset(check.where for check in self.checks if check.action is action)

    @property
    def risk(self) -> float:
        """Return the highest score of all checks; 1 where one has none."""
        return max((1.0 if check.score is None else check.score for check in self.checks), default=0.0)


PASSING = frozenset({Trouble.CRASH, Trouble.TIMEOUT, Trouble.OVERLOAD})  # troubles that time may mend
Able = Collection[Action]  # changes that whoever asks can make
Waived = Collection[str]  # detectors whose trouble a person has waived for now

NOTHING_TO_JUDGE = Judgement(Verdict.ALLOW, Action.ALLOW, None, "", "the policy names no check for this content")


def decide(
    policy: Policy,
    places: Sequence[Place],
    outcomes: Sequence[Outcome],
    waived: Waived = (),
    able: Able = frozenset(),
) -> Judgement:
    """Judge all places together: the most severe check decides. A change that nobody here can make is a block."""
    said = {(outcome.detector_id, outcome.where): outcome for outcome in outcomes}
    checks = tuple(
        check
        for place in places
        for rule in policy.rules_for(place.modality)
        for check in _apply(rule, place, said, waived, able)
    )
    if not checks:
        return NOTHING_TO_JUDGE
    worst = max(checks, key=_weight)
    again = worst.score is None and worst.trouble in PASSING and worst.action in {Action.REVIEW, Action.BLOCK}
    return Judgement(_verdict(worst), worst.action, worst.category, _told(worst), _reason(worst), checks, again)


def stricter(ours: Judgement, tenants: Judgement) -> Judgement:
    """Put the judgements of the model's policy and of its caller's together: the more severe one decides.

    Of two that are equally severe the one that time will not change, then the model's.
    """
    checks = (*ours.checks, *tenants.checks)
    if (tenants.action.severity, not tenants.again) <= (ours.action.severity, not ours.again):
        return dataclasses.replace(ours, checks=checks)
    return dataclasses.replace(tenants, checks=checks, reason=f"by the tenant's policy: {tenants.reason}")


def wanted(policy: Policy, places: Sequence[Place]) -> Mapping[str, tuple[Place, ...]]:
    """Return for every detector that must score the places it must score; fallbacks are asked when they are needed."""
    asked: dict[str, dict[Place, None]] = {}
    for place in places:
        for rule in policy.rules_for(place.modality):
            for detector_id in rule.detectors:
                asked.setdefault(detector_id, {})[place] = None
    return {detector_id: tuple(found) for detector_id, found in asked.items()}


def fallbacks(policy: Policy, places: Sequence[Place], outcomes: Sequence[Outcome]) -> Mapping[str, tuple[Place, ...]]:
    """Return the cheaper detectors that must now be asked because others gave no score, with their places.

    None when something blocks already: what was cut short by it needs no score.
    """
    said = {(outcome.detector_id, outcome.where): outcome for outcome in outcomes}
    modality_of = {place.where: place.modality for place in places}
    if any(is_decisive(policy, modality_of[outcome.where], outcome) for outcome in outcomes):
        return {}
    asked: dict[str, dict[Place, None]] = {}
    for place in places:
        for rule in policy.rules_for(place.modality):
            for detector_id in rule.detectors:
                outcome = said.get((detector_id, place.where))
                if isinstance(outcome, Scores):
                    continue
                cheaper = rule.on[_trouble_of(outcome)].detector_id
                if cheaper and (cheaper, place.where) not in said:
                    asked.setdefault(cheaper, {})[place] = None
    return {detector_id: tuple(found) for detector_id, found in asked.items()}


def is_decisive(policy: Policy, modality: Modality, outcome: Outcome) -> bool:
    """Tell whether this one outcome already blocks, so that the costlier checks need not be run."""
    if not isinstance(outcome, Scores):
        return False
    return any(
        rule.action_at(score)[0] is Action.BLOCK
        for rule in policy.rules_for(modality)
        if outcome.detector_id in rule.detectors
        for category, score in outcome.scores.items()
        if category in rule.categories
    )


def _apply(
    rule: Rule, place: Place, said: Mapping[tuple[str, str], Outcome], waived: Waived, able: Able
) -> list[Check]:
    """Judge one place by one rule; what a decisive outcome made needless is not missed."""
    found = [_check(rule, place, detector_id, said, waived, able) for detector_id in rule.detectors]
    if rule.uncovered is not None:
        found.append(Check("", place.where, place.modality, None, None, 0.0, rule.uncovered))
    blocked = [check for check in found if check.action is Action.BLOCK and check.trouble is None]
    return [check for check in found if check.trouble is None] if blocked else found


def _check(
    rule: Rule, place: Place, detector_id: str, said: Mapping[tuple[str, str], Outcome], waived: Waived, able: Able
) -> Check:
    outcome = said.get((detector_id, place.where))
    if isinstance(outcome, Scores):
        return _scored(rule, place, outcome, able)
    trouble = _trouble_of(outcome)
    seconds = 0.0 if outcome is None else outcome.seconds
    fallback = rule.on[trouble]
    instead = said.get((fallback.detector_id, place.where)) if fallback.detector_id else None
    if isinstance(instead, Scores):
        return dataclasses.replace(_scored(rule, place, instead, able), trouble=trouble)
    # A waiver is for a detector that is down: what cannot be opened or read is so whoever looks at it.
    waive = detector_id in waived and trouble in PASSING and Category.MINORS not in rule.categories
    action = Action.FLAG if waive else fallback.action
    return Check(detector_id, place.where, place.modality, None, None, 0.0, action, trouble, seconds)


def _scored(rule: Rule, place: Place, outcome: Scores, able: Able) -> Check:
    """Judge by the category whose score weighs most; one that the detector does not name scores 0."""
    scores = {category: outcome.scores.get(category, 0.0) for category in sorted(rule.categories)}
    category = max(scores, key=lambda name: scores[name])
    action, threshold = rule.action_at(scores[category])
    if action in CHANGES and action not in able:
        action = Action.BLOCK
    # A match that its bank, or flood control, wants a person to look at is never let go by a policy without that band.
    if outcome.notes.get(HINT) == HINT_REVIEW and scores[category] > 0.0 and action.severity < Action.REVIEW.severity:
        action, threshold = Action.REVIEW, scores[category]
    return Check(
        detector_id=outcome.detector_id,
        where=place.where,
        modality=place.modality,
        category=category if scores[category] > 0.0 else None,
        score=scores[category],
        threshold=threshold,
        action=action,
        seconds=outcome.seconds,
        scores=outcome.scores,
    )


def _trouble_of(outcome: Unscored | None) -> Trouble:
    return Trouble.CRASH if outcome is None else outcome.trouble


def _weight(check: Check) -> tuple[int, bool, float]:
    """Order checks: by action; among equals a score weighs more than trouble, and a higher one more."""
    return check.action.severity, check.trouble is None, check.score or 0.0


def _verdict(worst: Check) -> Verdict:
    if worst.trouble is not None and worst.score is None and worst.action is Action.REVIEW:
        return Verdict.INCONCLUSIVE
    match worst.action:
        case Action.BLOCK:
            return Verdict.BLOCK
        case Action.REVIEW:
            return Verdict.INCONCLUSIVE
        case Action.FLAG | Action.THROTTLE | Action.REWRITE | Action.BLUR:
            return Verdict.FLAG
        case Action.ALLOW:
            return Verdict.ALLOW


def _told(worst: Check) -> str:
    return "" if worst.action is Action.ALLOW else worst.where


def _reason(worst: Check) -> str:
    """Say why, for records and people of the platform; never the content."""
    if worst.action is Action.ALLOW:
        return "every check allowed it"
    if worst.score is None:
        what = (
            "no detector covers it" if worst.trouble is None else f"{worst.detector_id} gave no score ({worst.trouble})"
        )
        return f"{what}; the policy says {worst.action}"
    words = f"{worst.category} {worst.score:.3f} reached {worst.threshold:g} by {worst.detector_id}"
    instead = "" if worst.trouble is None else f", asked because another gave no score ({worst.trouble})"
    return f"{words}{instead}"
