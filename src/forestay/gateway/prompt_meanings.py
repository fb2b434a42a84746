"""Which prompts get their meaning hashed, and how many: a budget per round, for whom it tells most.

It decides the order: what was refused first, then the callers whose prompts were taken least often in this round. What
is beyond the budget is noted without its meaning. Texts and vectors are forgotten with the round. Called by
`call_notes`.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence

import msgspec

from forestay.abuse.calls import CONTENT, category_of
from forestay.abuse.meaning import Embedder, MeaningHasher
from forestay.telemetry.call_facts import CallFact
from forestay.telemetry.metrics import MEANINGS, Metrics

MAX_AT_ONCE = 32


@dataclasses.dataclass(frozen=True, slots=True)
class Hashed:
    """A call with its hashes, and its text while the round lasts; empty when there is none or it was seen before."""

    fact: CallFact
    text: str = ""


def decide_taken(hashed: Sequence[Hashed], budget: int) -> list[int]:
    """Decide which of a round's calls are embedded: their places, at most `budget`."""
    taken: Counter[str] = Counter()
    ranked: list[tuple[bool, int, int]] = []
    for place, item in enumerate(hashed):
        if item.text:
            ranked.append((category_of(item.fact.cause) != CONTENT, taken[item.fact.key_id], place))
            taken[item.fact.key_id] += 1
    return [place for _, _, place in sorted(ranked)[:budget]]


class PromptMeanings:
    """Adds meanings to calls, at most `per_second` of them, for rounds of `round_seconds`."""

    def __init__(self, embedder: Embedder, key: bytes, metrics: Metrics, *, per_second: float) -> None:
        self._embedder = embedder
        self._hasher = MeaningHasher(key)
        self._metrics = metrics
        self._per_second = per_second

    def budget(self, round_seconds: float) -> int:
        """Return how many prompts one round may embed."""
        return math.ceil(self._per_second * round_seconds)

    async def added(self, hashed: Sequence[Hashed], budget: int) -> tuple[list[CallFact], int]:
        """Return the calls with what meanings could be had, and what is left of the budget."""
        facts = [item.fact for item in hashed]
        places = decide_taken(hashed, min(budget, MAX_AT_ONCE))
        vectors = await self._embedder.embed([hashed[place].text for place in places]) if places else None
        if vectors is not None:
            for place, meaning in zip(places, self._hasher.hash(vectors), strict=True):
                facts[place] = msgspec.structs.replace(facts[place], meaning=meaning)
        made = 0 if vectors is None else len(places)
        self._metrics.add(MEANINGS, "made", amount=made)
        self._metrics.add(MEANINGS, "left_out", amount=sum(bool(item.text) for item in hashed) - made)
        return facts, budget - len(places)
