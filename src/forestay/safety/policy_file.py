"""Reading a safety policy from YAML: every fault with file, line, field and mend; nothing is left implicit.

It decides what a valid policy is: known words, thresholds that rise with severity, a fallback for every trouble, no
category judged twice in one modality, trouble that never releases. Whether detectors cover what it names is
`coverage`'s question. Called by the admin API, the command line and whoever loads a stored policy.
"""

import dataclasses
import functools
import hashlib
import importlib.resources
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import yaml

from forestay.errors import UsageError
from forestay.fleet.spec_yaml import SpecError, line_of, read_yaml
from forestay.safety.model import Trouble
from forestay.safety.policy import UNGUARDED, Action, Band, Fallback, Policy, ReviewRules, Rule
from forestay.safety.taxonomy import Category, Modality

VERSION = 1
STANDARD = "standard"
MAX_RULES, MAX_DETECTORS, LONGEST_SECONDS = 100, 20, 60.0
MAX_PHRASES, LONGEST_WORDS = 500, 100
STREAMS = LOGS = ("judge", "withhold", "pass")
PROVENANCE = ("manifest", "watermark", "fingerprint")
_DETECTOR = re.compile(r"[a-z][a-z0-9-]{0,39}@[0-9]{1,4}")
_ID = re.compile(r"[a-z][a-z0-9_-]{0,59}")
_SECONDS = re.compile(r"(\d{1,6})(ms|s)")
_BANDS: Mapping[str, Action] = {
    "flag_at": Action.FLAG, "throttle_at": Action.THROTTLE, "rewrite_at": Action.REWRITE, "blur_at": Action.BLUR,
    "review_at": Action.REVIEW, "block_at": Action.BLOCK,
}  # fmt: skip
_ONLY_OF: Mapping[str, frozenset[str]] = {  # what can be changed of which content
    "rewrite_at": frozenset({"text"}),
    "rewrite_with": frozenset({"text"}),
    "phrases": frozenset({"text"}),
    "blur_at": frozenset({"image", "video"}),
}
_STRICT: Mapping[str, Action] = {"review": Action.REVIEW, "block": Action.BLOCK}
Place = tuple[int | str, ...]


def read_policy(text: str, policy_id: str, version: int, file_name: str = "policy") -> Policy:
    """Read and check a policy; raises SpecError with every fault found."""
    if not _ID.fullmatch(policy_id) or policy_id == UNGUARDED.policy_id:
        what = f"{policy_id!r} must be small letters, digits, `-` and `_`, and not `{UNGUARDED.policy_id}`"
        raise UsageError("policy_id", what)
    values, node = read_yaml(text, file_name)
    reader = _Reader(node)
    policy = reader.policy(values, policy_id, version)
    if reader.faults or policy is None:
        raise SpecError(file_name, reader.faults)
    return dataclasses.replace(policy, digest=f"sha256:{hashlib.sha256(text.encode()).hexdigest()}")


def standard_text() -> str:
    """Return the YAML of the policy that Forestay brings."""
    return (importlib.resources.files("forestay.safety") / "default_policy.yaml").read_text(encoding="utf-8")


@functools.cache
def standard_policy() -> Policy:
    """Return the policy that Forestay brings."""
    return read_policy(standard_text(), STANDARD, 0, "default_policy.yaml")


class _Reader:
    """Reads plain values into a policy, noting each fault with its line."""

    def __init__(self, node: yaml.Node | None) -> None:
        self._node = node
        self.faults: list[str] = []

    def fault(self, place: Place, words: str) -> None:
        """Note a fault at a place in the file."""
        name = ".".join(str(part) for part in place)
        self.faults.append(f"{line_of(self._node, place)}: {name}: {words}" if name else f"1: {words}")

    def policy(self, values: object, policy_id: str, version: int) -> Policy | None:
        """Read the whole file."""
        allowed = ("version", "deadline", "streams", "logs", "provenance", "review", "rules")
        top = self._mapping((), values, needed=("version", "deadline", "rules"), allowed=allowed)
        if top is None:
            return None
        if top.get("version") != VERSION or isinstance(top.get("version"), bool):  # True equals 1
            self.fault(("version",), f"must be {VERSION}")
        deadline = self._seconds(("deadline",), top.get("deadline"))
        streams = self._one_of(("streams",), top.get("streams", "judge"), STREAMS)
        logs = self._one_of(("logs",), top.get("logs", "judge"), LOGS)
        provenance = frozenset[str]()
        if "provenance" in top:
            named = self._items(("provenance",), top["provenance"], len(PROVENANCE))
            chosen = [self._one_of(at, item, PROVENANCE) for at, item in named]
            provenance = frozenset(name for name in chosen if name is not None)
        review = self._review(("review",), top["review"]) if "review" in top else ReviewRules()
        rules = [
            made
            for place, item in self._items(("rules",), top.get("rules"), MAX_RULES)
            if (made := self._rule(place, item)) is not None
        ]
        self._refuse_twice(rules)
        if deadline is None or streams is None or logs is None:
            return None
        return Policy(policy_id, version, "", deadline, tuple(rules), streams, provenance, review, logs)

    def _review(self, place: Place, value: object) -> ReviewRules:
        found = self._mapping(place, value, needed=(), allowed=("release_needs", "two_people", "keep_refused"))
        if found is None:
            return ReviewRules()
        needs, keep = found.get("release_needs", 1), found.get("keep_refused", False)
        if isinstance(needs, bool) or not isinstance(needs, int) or needs not in {1, 2}:
            self.fault((*place, "release_needs"), "must be 1 or 2: how many people release what nobody could judge")
        if not isinstance(keep, bool):
            self.fault((*place, "keep_refused"), "must be true or false")
        named = found.get("two_people", [])
        two = frozenset[Category]() if named == [] else self._categories((*place, "two_people"), named)
        return ReviewRules(2 if needs == 2 else 1, two, keep is True)

    def _rule(self, place: Place, value: object) -> Rule | None:
        allowed = ("modality", "categories", "detectors", "trouble", "uncovered", "rewrite_with", "phrases", *_BANDS)
        found = self._mapping(place, value, needed=("modality", "categories"), allowed=allowed)
        if found is None:
            return None
        modality = self._one_of((*place, "modality"), found["modality"], [item.value for item in Modality])
        categories = self._categories((*place, "categories"), found["categories"])
        if "uncovered" in found:
            return self._uncovered(place, found, modality, categories)
        detectors = self._detectors((*place, "detectors"), found.get("detectors"))
        bands, on = self._bands(place, found), self._fallbacks((*place, "trouble"), found.get("trouble"))
        words, phrases = self._rewriting(place, found, modality)
        if modality is None or not categories or detectors is None or bands is None or on is None:
            return None
        self._refuse_in_vain(place, categories, detectors, bands, on)
        rule = Rule(categories, Modality(modality), detectors, bands, on)
        return dataclasses.replace(rule, rewrite_with=words, phrases=phrases)

    def _refuse_in_vain(
        self,
        place: Place,
        categories: frozenset[Category],
        detectors: Sequence[str],
        bands: Sequence[Band],
        on: Mapping[Trouble, Fallback],
    ) -> None:
        """A detector is no stand-in for itself, and what concerns minors is never only noted."""
        for trouble, fallback in on.items():
            if fallback.detector_id in detectors:
                what = f"{fallback.detector_id} is asked already; name another, or say `review` or `block`"
                self.fault((*place, "trouble", trouble.value), what)
        if Category.MINORS in categories and all(band.action is not Action.BLOCK for band in bands):
            self.fault(place, f"a rule about `{Category.MINORS}` needs `block_at`")

    def _rewriting(
        self, place: Place, found: Mapping[str, object], modality: str | None
    ) -> tuple[str, tuple[str, ...]]:
        """Read what a text is rewritten with, and see that changes are asked for only where they can be made."""
        for name, modalities in _ONLY_OF.items():
            if name in found and modality is not None and modality not in modalities:
                self.fault((*place, name), f"is for {' and '.join(sorted(modalities))} alone, not for {modality}")
        words = found.get("rewrite_with", "")
        if not isinstance(words, str) or len(words) > LONGEST_WORDS or not words.isprintable():
            self.fault((*place, "rewrite_with"), f"must be printable text of at most {LONGEST_WORDS} characters")
            words = ""
        if ("rewrite_at" in found) != bool(words.strip()):
            self.fault(place, "`rewrite_at` and `rewrite_with` (the words that stand instead) go together")
        phrases: list[str] = []
        if "phrases" in found:
            for at, item in self._items((*place, "phrases"), found["phrases"], MAX_PHRASES):
                if isinstance(item, str) and 0 < len(item.strip()) <= LONGEST_WORDS:
                    phrases.append(item.strip())
                else:
                    self.fault(at, f"must be a phrase of at most {LONGEST_WORDS} characters")
        return words.strip(), tuple(phrases)

    def _uncovered(
        self, place: Place, found: Mapping[str, object], modality: str | None, categories: frozenset[Category]
    ) -> Rule | None:
        beside = sorted(set(found) - {"modality", "categories", "uncovered"})
        if beside:
            self.fault((*place, beside[0]), "a rule for what nobody covers has no detectors, thresholds or fallbacks")
        action = self._one_of((*place, "uncovered"), found["uncovered"], list(_STRICT))
        if modality is None or action is None or not categories or beside:
            return None
        return Rule(categories, Modality(modality), (), (), {}, _STRICT[action])

    def _categories(self, place: Place, value: object) -> frozenset[Category]:
        names = [item.value for item in Category]
        chosen = [self._one_of(at, item, names) for at, item in self._items(place, value, len(names))]
        return frozenset(Category(name) for name in chosen if name is not None)

    def _detectors(self, place: Place, value: object) -> tuple[str, ...] | None:
        made = [self._detector(at, item) for at, item in self._items(place, value, MAX_DETECTORS)]
        kept = tuple(dict.fromkeys(name for name in made if name is not None))
        return kept if kept and len(kept) == len(made) else None

    def _detector(self, place: Place, value: object) -> str | None:
        if isinstance(value, str) and _DETECTOR.fullmatch(value):
            return value
        self.fault(place, "must name a detector with its version, like `nsfw@1`; `forestay safety coverage` lists them")
        return None

    def _bands(self, place: Place, found: Mapping[str, object]) -> tuple[Band, ...] | None:
        bands: list[Band] = []
        for name, action in _BANDS.items():
            if name not in found:
                continue
            at = found[name]
            if isinstance(at, bool) or not isinstance(at, int | float) or not 0.0 < at <= 1.0:
                self.fault((*place, name), "must be a score above 0 and at most 1")
                return None
            if bands and at <= bands[-1].at:
                self.fault((*place, name), f"must be above the threshold of `{bands[-1].action}`, which is milder")
                return None
            bands.append(Band(float(at), action))
        if not bands:
            self.fault(place, f"needs at least one of {', '.join(_BANDS)}")
            return None
        return tuple(bands)

    def _fallbacks(self, place: Place, value: object) -> Mapping[Trouble, Fallback] | None:
        needed = tuple(trouble.value for trouble in Trouble)
        found = self._mapping(place, value, needed=needed, allowed=needed)
        if found is None:
            return None
        made = {Trouble(name): self._fallback((*place, name), item) for name, item in found.items()}
        kept = {trouble: fallback for trouble, fallback in made.items() if fallback is not None}
        return kept if len(kept) == len(needed) else None

    def _fallback(self, place: Place, value: object) -> Fallback | None:
        if isinstance(value, str):
            action = self._one_of(place, value, list(_STRICT))
            return None if action is None else Fallback(_STRICT[action])
        found = self._mapping(place, value, needed=("degrade", "else"), allowed=("degrade", "else"))
        if found is None:
            return None
        cheaper = self._detector((*place, "degrade"), found["degrade"])
        action = self._one_of((*place, "else"), found["else"], list(_STRICT))
        return None if cheaper is None or action is None else Fallback(_STRICT[action], cheaper)

    def _refuse_twice(self, rules: Sequence[Rule]) -> None:
        """Two rules on one cell would leave open which thresholds hold."""
        seen: set[tuple[Category, Modality]] = set()
        for place, rule in enumerate(rules):
            for category in sorted(rule.categories):
                if (category, rule.modality) in seen:
                    words = f"{category} in {rule.modality} has a rule already; each has exactly one"
                    self.fault(("rules", place, "categories"), words)
                seen.add((category, rule.modality))

    def _seconds(self, place: Place, value: object) -> float | None:
        found = _SECONDS.fullmatch(value) if isinstance(value, str) else None
        seconds = float(found[1]) / (1000 if found[2] == "ms" else 1) if found else 0.0
        if not 0.0 < seconds <= LONGEST_SECONDS:
            self.fault(place, f"must be a time like `500ms` or `5s`, at most {LONGEST_SECONDS:g}s")
            return None
        return seconds

    def _one_of(self, place: Place, value: object, words: Sequence[str]) -> str | None:
        if isinstance(value, str) and value in words:
            return value
        self.fault(place, f"must be one of {', '.join(words)}")
        return None

    def _items(self, place: Place, value: object, most: int) -> Iterator[tuple[Place, object]]:
        if not isinstance(value, list) or not value:
            self.fault(place, "must be a list with at least one item")
            return
        items = cast("list[object]", value)
        if len(items) > most:
            self.fault(place, f"has {len(items)} items, more than {most}")
        yield from (((*place, number), item) for number, item in enumerate(items[:most]))

    def _mapping(
        self, place: Place, value: object, *, needed: Sequence[str], allowed: Sequence[str]
    ) -> Mapping[str, object] | None:
        if not isinstance(value, dict):
            self.fault(place, f"must be a mapping with {', '.join(needed) or 'fields'}")
            return None
        found = cast("dict[str, object]", value)
        for name in found:
            if name not in allowed:
                self.fault((*place, name), f"is unknown here; expected {', '.join(allowed)}")
        missing = [name for name in needed if name not in found]
        for name in missing:
            self.fault(place, f"lacks `{name}`")
        return None if missing else {name: item for name, item in found.items() if name in allowed}
