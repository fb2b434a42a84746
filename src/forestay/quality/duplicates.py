"""Finds the same output given for different requests: a cache, or a buffer that is not emptied. Pure.

It compares keyed digests alone, so it knows of no output what it shows. It decides what counts: the bytes are the same,
or a picture looks the same and has the same numbers, although the words or the seeds that were asked for differ. The
same words with the same seed are no duplicate, nor are outputs that show nothing (one colour, silence). Across tenants
one is enough; within a tenant `LEAST_OWN` are, since two requests may well ask for the same thing in other words.
Called by `loop`.
"""

import dataclasses
from collections import OrderedDict, deque
from collections.abc import Sequence

from forestay.media.measures import PICTURE_FEATURES, SOUND_FEATURES
from forestay.telemetry.output_facts import OutputFact

MAX_REMEMBERED = 20_000  # outputs of the whole fleet
LEAST_OWN = 3
WINDOW = 1_000  # outputs of a model among which those are counted
LEAST_SPREAD = 6.0  # levels; less shows nothing
MOST_SILENT = 0.9
_NEAR = 0.01  # of a feature, by which two files of the same picture may differ
_SPREAD = PICTURE_FEATURES.index("spread")
_SILENT = SOUND_FEATURES.index("silent_share")


@dataclasses.dataclass(frozen=True, slots=True)
class Duplicate:
    """The same output for two requests."""

    fact: OutputFact
    first: OutputFact
    across_tenants: bool
    times: int  # so many of the model's last outputs


class Duplicates:
    """What the last outputs of the fleet looked like, as digests."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str, int], OutputFact] = OrderedDict()
        self._own: dict[str, deque[int]] = {}
        self._seen: dict[str, int] = {}

    def take(self, facts: Sequence[OutputFact]) -> list[Duplicate]:
        """Take the next outputs; returns those that were given before."""
        return [found for fact in facts if (found := self._one(fact)) is not None]

    def _one(self, fact: OutputFact) -> Duplicate | None:
        if fact.failed or not (fact.content or fact.likeness) or _shows_nothing(fact):
            return None
        number = self._seen[fact.model_id] = self._seen.get(fact.model_id, 0) + 1
        found: OutputFact | None = None
        for name, value in (("content", fact.content), ("likeness", fact.likeness)):
            key = (fact.model_id, name, value)
            before = self._known.get(key) if value else None
            if before is not None and found is None and _differ(before, fact):
                found = before if name == "content" or _near(before, fact) else None
            if value and before is None:
                self._known[key] = fact
        while len(self._known) > 2 * MAX_REMEMBERED:
            self._known.popitem(last=False)
        if found is None:
            return None
        own = self._own.setdefault(fact.model_id, deque(maxlen=LEAST_OWN))
        own.append(number)
        recent = [item for item in own if number - item < WINDOW]
        across = found.tenant_id != fact.tenant_id
        return Duplicate(fact, found, across, len(recent)) if across or len(recent) >= LEAST_OWN else None


def _differ(one: OutputFact, other: OutputFact) -> bool:
    """Tell whether two requests asked for something else: other words, or another seed where both named one."""
    if one.request_id == other.request_id and one.place == other.place:
        return False  # the same output, measured again
    words = one.prompt != other.prompt
    return words or (one.seed != other.seed and 0 not in {one.seed, other.seed})


def _near(one: OutputFact, other: OutputFact) -> bool:
    pairs = zip(one.features, other.features, strict=False)
    same = len(one.features) == len(other.features)
    return same and all(abs(left - right) <= _NEAR * max(1.0, abs(left)) for left, right in pairs)


def _shows_nothing(fact: OutputFact) -> bool:
    if fact.kind == "image" and len(fact.features) == len(PICTURE_FEATURES):
        return fact.features[_SPREAD] < LEAST_SPREAD
    if fact.kind == "audio" and len(fact.features) == len(SOUND_FEATURES):
        return fact.features[_SILENT] > MOST_SILENT
    return False
