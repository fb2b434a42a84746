"""The coverage matrix: which detector covers which category in which modality, and whether a policy may rest on it.

Made from what detectors declare of themselves. A policy that names a category which none of its detectors covers must
say what then: silence is refused. What it does not name it does not judge, and that is listed. Pure. Called when a
policy is set, by the command line and by the generated page.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from forestay.safety.model import DetectorInfo
from forestay.safety.policy import Policy, Rule
from forestay.safety.taxonomy import Category, Modality

Cell = tuple[Category, Modality]
EXTRAS: Mapping[str, str] = {"text-meaning@1": "safety", "nsfw@1": "safety", "drawn-text@1": "ocr"}


@dataclasses.dataclass(frozen=True, slots=True)
class Gap:
    """A cell of the matrix on which a policy rests without saying what happens there."""

    category: Category
    modality: Modality
    reason: str


def matrix(detectors: Sequence[DetectorInfo]) -> Mapping[Cell, tuple[str, ...]]:
    """Return for every category and modality the detectors that cover it; an empty cell is a gap said aloud."""
    return {
        (category, modality): tuple(
            info.detector_id for info in detectors if category in info.covers.get(modality, frozenset[Category]())
        )
        for modality in Modality
        for category in Category
    }


def unnamed(policy: Policy) -> Mapping[Modality, tuple[Category, ...]]:
    """Return for every modality the categories that no rule of a policy names: nobody judges them under it."""
    named = {(category, rule.modality) for rule in policy.rules for category in rule.categories}
    return {
        modality: tuple(category for category in Category if (category, modality) not in named) for modality in Modality
    }


def left_out(detectors: Sequence[DetectorInfo]) -> Mapping[str, str]:
    """Return which detectors of ours are not there, and the extra of this package that brings each."""
    known = {info.detector_id for info in detectors}
    return {name: extra for name, extra in EXTRAS.items() if name not in known}


def gaps(policy: Policy, detectors: Sequence[DetectorInfo]) -> list[Gap]:
    """Return where the policy rests on nobody: unknown detectors, and categories that none of its detectors covers.

    Nor may a stand-in (`degrade`) be one that does not know the category: what it does not name counts as harmless.
    """
    known = {info.detector_id: info for info in detectors}
    found: list[Gap] = []
    for rule in policy.rules:
        missing = [name for name in rule.detectors if name not in known]
        asked = [known[name] for name in rule.detectors if name in known]
        for category in sorted(rule.categories):
            covered = any(category in info.covers.get(rule.modality, frozenset[Category]()) for info in asked)
            if missing:
                found.append(
                    Gap(category, rule.modality, f"{', '.join(missing)} is not installed here{_mend(missing)}")
                )
            elif not covered and rule.uncovered is None:
                mend = "give it a rule with `uncovered: review` or `block`"
                found.append(Gap(category, rule.modality, f"{', '.join(rule.detectors)} does not cover it; {mend}"))
            else:
                found += _unfit(rule, category, known)
    return found


def _unfit(rule: Rule, category: Category, known: Mapping[str, DetectorInfo]) -> list[Gap]:
    """Return the stand-ins of a rule that do not know a category, with the troubles on which they are asked."""
    asked: dict[str, list[str]] = {}
    for trouble, fallback in rule.on.items():
        info = known.get(fallback.detector_id)
        if info is not None and category not in info.covers.get(rule.modality, frozenset[Category]()):
            asked.setdefault(fallback.detector_id, []).append(trouble.value)
    mend = "name another there, or say `review` or `block`"
    return [
        Gap(category, rule.modality, f"{name} stands in on {', '.join(when)} and does not cover it; {mend}")
        for name, when in asked.items()
    ]


def _mend(missing: Sequence[str]) -> str:
    """Return what to install where the judge runs; empty for detectors that are not ours."""
    extras = sorted({EXTRAS[name] for name in missing if name in EXTRAS})
    return f"; install forestay[{','.join(extras)}] where the judge runs" if extras else ""
