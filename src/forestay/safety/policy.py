"""A safety policy as values: who judges each category and modality, what follows from which score, and what from none.

Read from YAML by `policy_file`, applied by `decide`. Decides nothing itself.
"""

import dataclasses
import enum
from collections.abc import Mapping, Sequence

from forestay.fleet import spec as fleet_spec
from forestay.safety.model import Trouble
from forestay.safety.taxonomy import Category, Modality


class Action(enum.StrEnum):
    """What follows from a judgement, from the mildest on."""

    ALLOW = "allow"
    FLAG = "flag"  # released, and noted for the analysts
    THROTTLE = "throttle"  # released, and counted against the caller by the judges of misuse
    REWRITE = "rewrite"  # of an input's text: goes on in other words, once those have been judged
    BLUR = "blur"  # of a picture or film that a model made: a strongly blurred copy goes out instead
    REVIEW = "review"  # withheld until a person has looked
    BLOCK = "block"

    @property
    def severity(self) -> int:
        """Return its place in the order: of two actions the more severe one is taken."""
        return _ORDER[self]


CHANGES = frozenset({Action.REWRITE, Action.BLUR})  # content goes on changed, or where that cannot be done not at all
_ORDER: Mapping[Action, int] = {action: place for place, action in enumerate(Action)}


@dataclasses.dataclass(frozen=True, slots=True)
class Fallback:
    """What happens when a detector gave no score: a cheaper detector is asked, and if that fails too, the action."""

    action: Action  # REVIEW or BLOCK: trouble never releases
    detector_id: str = ""  # the cheaper one; empty: none


@dataclasses.dataclass(frozen=True, slots=True)
class Band:
    """From which score on an action follows."""

    at: float  # in (0, 1]
    action: Action


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """What holds for some categories of one modality."""

    categories: frozenset[Category]
    modality: Modality
    detectors: tuple[
        str, ...
    ]  # every one of them must have scored; empty: nobody covers these, `uncovered` says what then
    bands: tuple[Band, ...]  # ascending
    on: Mapping[Trouble, Fallback]  # a fallback for every trouble
    uncovered: Action | None = None  # of a rule without detectors: REVIEW or BLOCK
    rewrite_with: str = ""  # what stands in the place of what was found, where a score leads to REWRITE
    phrases: tuple[str, ...] = ()  # that are found, beside the words of the lexicon's lists for these categories

    def action_at(self, score: float) -> tuple[Action, float]:
        """Return the action that a score leads to, and the threshold that it reached (0.0 for none)."""
        reached = [band for band in self.bands if score >= band.at]
        return (reached[-1].action, reached[-1].at) if reached else (Action.ALLOW, 0.0)


@dataclasses.dataclass(frozen=True, slots=True)
class ReviewRules:
    """What people may do about what this policy stopped. Blocked content always needs two people."""

    release_needs: int = 1  # people who must agree to release what nobody could judge: 1 or 2
    two_people: frozenset[Category] = frozenset()  # categories whose release needs two, whatever the verdict
    keep_refused: bool = False  # refused inputs and blocked outputs are kept under seal, so that callers may appeal
    provenance: frozenset[str] = frozenset()  # what a released file is given then; from the policies, see `policy_of`


@dataclasses.dataclass(frozen=True, slots=True)
class Policy:
    """A version of a policy. One without rules names no check, so everything passes it."""

    policy_id: str
    version: int
    digest: str  # "sha256:<hex>" of the text that it was read from
    deadline_seconds: float
    rules: tuple[Rule, ...]
    streams: str = "judge"  # judge | withhold | pass: what becomes of a piece of a stream or a realtime frame
    provenance: frozenset[str] = frozenset()  # of manifest, watermark, fingerprint: what released files are given
    review: ReviewRules = ReviewRules()
    logs: str = "judge"  # judge | withhold | pass: what becomes of the lines that model code prints; see `lines`

    @property
    def guards(self) -> bool:
        """Tell whether it names any check."""
        return bool(self.rules)

    def rules_for(self, modality: Modality) -> Sequence[Rule]:
        """Return the rules of one modality."""
        return [rule for rule in self.rules if rule.modality is modality]

    def modalities(self) -> frozenset[Modality]:
        """Return what it has rules for."""
        return frozenset(rule.modality for rule in self.rules)

    def detectors(self) -> frozenset[str]:
        """Return every detector that it may ask, those of its fallbacks included."""
        named = {detector for rule in self.rules for detector in rule.detectors}
        return frozenset(named | {fallback.detector_id for rule in self.rules for fallback in rule.on.values()} - {""})


UNGUARDED = Policy(fleet_spec.UNGUARDED, 0, "", 1.0, (), "pass")  # named by a spec that wants no check
