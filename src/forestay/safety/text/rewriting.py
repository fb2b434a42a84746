"""Other words for what a policy does not want in an input: phrases that it names, and words of the lexicon's lists.

It decides which spans of a text give way, never whether the result may go on: that is judged again. Only what stands
there plainly is found; a disguised word is not, and so the text that hides it is blocked. Pure. Called by the gateway
where a judgement says `rewrite`.
"""

import dataclasses
import re
from collections.abc import Iterable, Sequence

from forestay.safety.leaves import LeafKind, Path, TooMuch, leaves_of, replaced
from forestay.safety.policy import Policy, Rule
from forestay.safety.taxonomy import Modality
from forestay.safety.text.lexicon import listed_spans


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """One string of an input that now says something else."""

    where: str
    was: tuple[str, ...]  # what gave way, in order
    now: str  # what stands in its place


def rules_of(policies: Iterable[Policy]) -> list[Rule]:
    """Return the rules that say what a text is rewritten with."""
    return [rule for policy in policies for rule in policy.rules_for(Modality.TEXT) if rule.rewrite_with]


def rewrite(value: object, places: frozenset[str], rules: Sequence[Rule]) -> tuple[object, list[Change]]:
    """Return an input with other words at these places, and what was changed; turns read together are each changed."""
    try:
        leaves = leaves_of(value)
    except TooMuch:
        return value, []
    texts: dict[Path, str] = {}
    changes: list[Change] = []
    for leaf in leaves:
        if leaf.kind is not LeafKind.TEXT or not _is_at(leaf.where, places):
            continue
        text = leaf.text
        for rule in rules:
            text, was = _without(text, rule)
            if was:
                texts[leaf.path] = text
                changes.append(Change(leaf.where, tuple(was), rule.rewrite_with))
    return replaced(value, texts), changes


def _is_at(where: str, places: frozenset[str]) -> bool:
    """Tell whether a string is at one of the places; `turns[*]` is every turn."""
    return where in places or any(place.endswith("[*]") and where.startswith(place[:-2]) for place in places)


def _without(text: str, rule: Rule) -> tuple[str, list[str]]:
    spans = list(listed_spans(text, rule.categories))
    for phrase in rule.phrases:
        pattern = rf"(?<!\w){re.escape(phrase)}(?!\w)"
        spans += [found.span() for found in re.finditer(pattern, text, re.IGNORECASE)]
    made, was, end = "", list[str](), 0
    for start, stop in sorted(spans, key=lambda span: (span[0], -span[1])):
        if start < end:  # inside one that gave way already
            continue
        was.append(text[start:stop])
        made += text[end:start] + rule.rewrite_with
        end = stop
    return made + text[end:], was
