"""Whether a key feels its way around the content policy: refused prompts, and near variants of refused prompts.

Three signs. Variants: distinct prompts near (by simhash) to one that was refused within a day, refused or not; the
same prompt spelt otherwise is one. Meanings: the same by the embedding's hash, where there is one. Refusals: distinct
refused prompts against all distinct prompts, as an e-detector for "at most one in seven", so that a heavy user with
ordinary luck never adds up. The very same text sent again is a retry and proves nothing. Pure. Called by `signals`.
"""

import dataclasses
import math

from forestay.abuse.calls import CONTENT, Call
from forestay.abuse.evidence import MAX_FACTS, Evidence
from forestay.abuse.meaning import apart

WINDOW_SECONDS = 86_400.0
NEAR_BITS = 14
NEAR_MEANING_BITS = 52  # of 256: an angle of 37 degrees, cosine 0.8
MAX_FAMILIES = 16
MAX_VARIANTS = 48
USUAL_SHARE = 0.15
_BETS = (0.3, 0.55, 0.8)
_REFUSED = tuple(math.log(bet_on / USUAL_SHARE) for bet_on in _BETS)  # nats, by bet
_ACCEPTED = tuple(math.log((1.0 - bet_on) / (1.0 - USUAL_SHARE)) for bet_on in _BETS)


@dataclasses.dataclass(slots=True)
class Family:
    """One refused prompt and what came near it."""

    refused: int
    meaning: bytes | None
    last_at: float
    variants: list[int] = dataclasses.field(default_factory=list[int])
    meanings: int = 0
    refusals: int = 1
    facts: list[str] = dataclasses.field(default_factory=list[str])


@dataclasses.dataclass(slots=True)
class Probing:
    """One key's refused prompts of the last day."""

    families: list[Family] = dataclasses.field(default_factory=list[Family])
    evidence: list[Evidence] = dataclasses.field(default_factory=lambda: [Evidence() for _ in _BETS])
    seen: list[int] = dataclasses.field(default_factory=list[int])  # the last distinct texts, to know retries
    late: list[int] = dataclasses.field(default_factory=list[int])  # the last distinct texts refused after their submit
    refused_at: list[float] = dataclasses.field(default_factory=list[float])  # of distinct refused prompts, newest last

    def observe(self, call: Call) -> None:
        """Take one call with a prompt."""
        prompt, at = call.prompt, call.at
        if prompt is None:
            return
        text = call.raw or prompt
        if text in self.seen:
            return
        self.seen = [*self.seen[-(MAX_VARIANTS - 1) :], text]
        self._bet(call)
        self.families = [item for item in self.families if at - item.last_at <= WINDOW_SECONDS]
        family = self._nearest(prompt, call.meaning)
        if family is not None:
            self._grow(family, call)
        elif call.category == CONTENT:
            self.families = [*self.families[-(MAX_FAMILIES - 1) :], Family(prompt, call.meaning, at, facts=[call.id])]
        if call.category == CONTENT:
            self.refused_at = [*self.refused_at[-(MAX_VARIANTS * 2 - 1) :], at]

    def refused_later(self, call: Call) -> None:
        """Take the refusal of a call that was accepted before: no new prompt, and a refusal all the same.

        Its acceptance has been bet on, and stays: the evidence is a little too small, never too large.
        """
        prompt, at = call.prompt, call.at
        text = call.raw or prompt
        if prompt is None or text is None or text in self.late:
            return
        self.late = [*self.late[-(MAX_VARIANTS - 1) :], text]
        self._bet(call)
        self.refused_at = [*self.refused_at[-(MAX_VARIANTS * 2 - 1) :], at]
        self.families = [item for item in self.families if at - item.last_at <= WINDOW_SECONDS]
        family = self._nearest(prompt, call.meaning)
        if family is None:
            self.families = [*self.families[-(MAX_FAMILIES - 1) :], Family(prompt, call.meaning, at, facts=[call.id])]
        elif prompt != family.refused and prompt not in family.variants:
            self._grow(family, call, again=True)
        else:
            family.last_at, family.refusals = at, family.refusals + 1

    def variants(self, at: float) -> int:
        """Return how many distinct prompts came near one refused prompt within the last day, at most."""
        return max((len(item.variants) for item in self.families if at - item.last_at <= WINDOW_SECONDS), default=0)

    def meanings(self, at: float) -> int:
        """Return the same by meaning."""
        return max((item.meanings for item in self.families if at - item.last_at <= WINDOW_SECONDS), default=0)

    def refused(self, at: float) -> int:
        """Return how many distinct prompts were refused within the last day."""
        return sum(at - moment <= WINDOW_SECONDS for moment in self.refused_at)

    def nats(self) -> float:
        """Return the evidence that more than one in seven prompts is refused: the mean of three e-values."""
        return max(0.0, log_mean([item.nats for item in self.evidence]))

    def facts(self) -> list[str]:
        """Return ids of the facts behind it, at most MAX_FACTS: of the prompt with the most variants first."""
        by_size = sorted(self.families, key=lambda item: -len(item.variants))
        return [fact for family in by_size for fact in family.facts][:MAX_FACTS]

    def _bet(self, call: Call) -> None:
        said = _REFUSED if call.category == CONTENT else _ACCEPTED
        for evidence, nats in zip(self.evidence, said, strict=True):
            evidence.add(nats, call.at)

    def _nearest(self, prompt: int, meaning: bytes | None) -> Family | None:
        for family in self.families:
            near = (prompt ^ family.refused).bit_count() <= NEAR_BITS
            if near or any((prompt ^ item).bit_count() <= NEAR_BITS // 2 for item in family.variants[-4:]):
                return family
            if _alike(meaning, family.meaning):
                return family
        return None

    def _grow(self, family: Family, call: Call, *, again: bool = False) -> None:
        """Add a prompt to what came near; `again` when its meaning has been compared before."""
        prompt = call.prompt
        if prompt is None or len(family.variants) >= MAX_VARIANTS:
            return
        near = (prompt ^ family.refused).bit_count() <= NEAR_BITS
        if near or any((prompt ^ item).bit_count() <= NEAR_BITS // 2 for item in family.variants[-4:]):
            family.variants.append(prompt)
        if not again and family.meanings < MAX_VARIANTS:
            family.meanings += _alike(call.meaning, family.meaning)
        family.last_at = call.at
        family.refusals += call.category == CONTENT
        family.facts = [*family.facts[-11:], call.id]


def _alike(one: bytes | None, other: bytes | None) -> bool:
    return one is not None and other is not None and apart(one, other) <= NEAR_MEANING_BITS


def log_mean(values: list[float]) -> float:
    """Return the logarithm of the mean of e-values given by their logarithms: a mixture of bets is a bet."""
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values) / len(values))
