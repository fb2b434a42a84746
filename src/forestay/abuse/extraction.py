"""How much a key's queries look like a model being copied: made to cover, rather than meant.

Two ways of stealing a model by its answers, and the sign of each.

*Random queries* (Orekondy, Schiele, Fritz 2019, "Knockoff Nets") cover the input space: hardly any query is near an
earlier one. People's prompts are not like that: in four public sets of prompts 15 to 55 % have one of the 128 before
them within 16 bits (docs/explanation/abuse.md); made-up ones 2 %. `fresh` is the e-detector for "at least one in ten
has a neighbour".

*Adaptive queries* (Papernot et al. 2017, "Practical black-box attacks"; Juuti et al. 2019, "PRADA", which tests the
distances of successive queries) return, round after round, to each of many seeds with a small step. `families` is the
effective number of seeds that are returned to, `returns` the share of queries that return to one which was not the
last, and `rounds` the e-detector for "who returns, returns at random": of gaps between visits that come at random, 38 %
lie within half of their mean (they are geometric), of visits in turn 75 %. A person refines one idea and moves on; an
app's templates are few, or are filled at random.

`same_shape` says how alike the requests are beside their text, `coverage` how much of what it has asked for is still
new by the Good-Turing estimate. Pure; bounded. Called by `signals`.
"""

import dataclasses
import math

from forestay.abuse.calls import Call
from forestay.abuse.evidence import Evidence, bernoulli_bet
from forestay.abuse.meaning import BITS, apart
from forestay.abuse.recent import FAR, RecentHashes

NEAR_BITS = 16
STEP_BITS = 14
HISTORY = 128
MAX_FAMILIES = 160
WINDOW = 400.0  # queries over which shares are remembered
PEOPLE_NEAR = 0.10  # at least so many of a person's prompts have a neighbour; the least seen in public sets is 0.148
MACHINE_NEAR = 0.02
LAST_FEW = 4  # a family among the last few visited is still being refined
RANDOM_GAPS, REGULAR_GAPS = 0.5, 0.72  # share within half of the mean: at most, by chance; bet on, in turn
_LONELY = bernoulli_bet(happened=True, at_most=1 - PEOPLE_NEAR, bet_on=1 - MACHINE_NEAR)
_NEAR = bernoulli_bet(happened=False, at_most=1 - PEOPLE_NEAR, bet_on=1 - MACHINE_NEAR)
LEAPS = 100  # over which the mean angle is remembered
FOUND_BITS = 20  # farther than this from every family, a prompt founds one


@dataclasses.dataclass(slots=True)
class Families:
    """Seeds, how often each was returned to, and when it was visited last (as the number of a query)."""

    seeds: RecentHashes = dataclasses.field(default_factory=lambda: RecentHashes(MAX_FAMILIES))
    visits: list[float] = dataclasses.field(default_factory=list[float])
    last: list[int] = dataclasses.field(default_factory=list[int])

    def found(self, seed: int, query: int) -> None:
        """Begin a family, in the place of one that was hardly returned to when there are too many."""
        if len(self.visits) < MAX_FAMILIES:
            self.visits.append(1.0)
            self.last.append(query)
        else:
            for _ in range(8):
                if self.visits[self.seeds.next_slot] < 2.0:
                    break
                self.seeds.next_slot = (self.seeds.next_slot + 1) % MAX_FAMILIES
            self.visits[self.seeds.next_slot], self.last[self.seeds.next_slot] = 1.0, query
        self.seeds.add(seed)


@dataclasses.dataclass(slots=True)
class Extraction:
    """One key's successive queries."""

    queries: int = 0
    history: RecentHashes = dataclasses.field(default_factory=lambda: RecentHashes(HISTORY))
    fresh: Evidence = dataclasses.field(default_factory=Evidence)
    rounds: Evidence = dataclasses.field(default_factory=Evidence)
    mean_gap: float = 0.0
    gaps: int = 0
    families: Families = dataclasses.field(default_factory=Families)
    returns: float = 0.0  # decayed counts over WINDOW queries
    repeats: float = 0.0
    weight: float = 0.0
    meaning: bytes | None = None  # of the last query that has one
    leap: float = 0.0  # mean angle in degrees between successive ones
    leaps: int = 0
    shapes: dict[int, float] = dataclasses.field(default_factory=dict[int, float])
    shape_weight: float = 0.0

    def observe(self, call: Call) -> None:
        """Take one accepted call with a prompt."""
        prompt = call.prompt
        if prompt is None:
            return
        self.queries += 1
        nearest = self.history.nearest(prompt)
        if 0 < nearest < FAR:  # the very same prompt again proves nothing, so it cannot be used to look like people
            self.fresh.add(_LONELY if nearest > NEAR_BITS else _NEAR, call.at, call.id)
        self._visit(prompt, nearest, call.at)
        if nearest:
            self.history.add(prompt)
        self._shape(call.shape)
        if call.meaning is not None:
            self._leap(call.meaning)

    def effective_families(self) -> float:
        """Return how many equally visited families would be as diverse as those returned to (exp of the entropy)."""
        visits = [count for count in self.families.visits if count >= 2.0]
        total = sum(visits)
        if total <= 0.0:
            return 0.0
        return math.exp(-sum(count / total * math.log(count / total) for count in visits))

    def return_share(self) -> float:
        """Return the share of the last queries that return to a family which was not just being refined."""
        return self.returns / self.weight if self.weight >= 50.0 else 0.0

    def repeat_share(self) -> float:
        """Return the share of the last queries that were made before, word for word."""
        return self.repeats / self.weight if self.weight >= 50.0 else 0.0

    def same_shape(self) -> float:
        """Return the share of the last queries that have the commonest shape."""
        return max(self.shapes.values(), default=0.0) / self.shape_weight if self.shape_weight >= 20.0 else 0.0

    def coverage(self) -> float:
        """Return the share of unseen ground: families met once among all met (Good 1953)."""
        met = self.families.visits
        return sum(count < 2.0 for count in met) / len(met) if len(met) >= 20 else 0.0

    def _return_after(self, gap: int, at: float) -> None:
        """Bet on whether the gap between two visits of one family is as regular as visits in turn are."""
        self.gaps += 1
        if self.gaps > 30:
            regular = 0.5 <= gap / self.mean_gap <= 1.5
            self.rounds.add(bernoulli_bet(happened=regular, at_most=RANDOM_GAPS, bet_on=REGULAR_GAPS), at)
        self.mean_gap += (gap - self.mean_gap) / min(self.gaps, 60)

    def _visit(self, prompt: int, nearest: int, at: float) -> None:
        fade = 1.0 - 1.0 / WINDOW
        self.weight = self.weight * fade + 1.0
        self.returns *= fade
        self.repeats = self.repeats * fade + (nearest == 0)
        if nearest == 0:
            return
        families = self.families
        bits, slot = families.seeds.nearest_slot(prompt)
        if bits > FOUND_BITS:
            families.found(prompt, self.queries)
            return
        if bits > STEP_BITS:
            return  # beside a family, neither a step from it nor a new one
        gap = self.queries - families.last[slot]
        families.last[slot] = self.queries
        if gap > LAST_FEW and bits:
            self.returns += 1.0
            families.visits[slot] += 1.0
            self._return_after(gap - LAST_FEW, at)  # a chance gap, cut off below, is a chance gap again
            if self.gaps % 64 == 0:
                families.visits = [count * 0.9 for count in families.visits]

    def _leap(self, meaning: bytes) -> None:
        """Take the angle to the query before: the distances that PRADA looks at, between meanings."""
        if self.meaning is not None:
            self.leaps += 1
            self.leap += (180.0 * apart(self.meaning, meaning) / BITS - self.leap) / min(self.leaps, LEAPS)
        self.meaning = meaning

    def _shape(self, shape: int) -> None:
        self.shape_weight += 1.0
        self.shapes[shape] = self.shapes.get(shape, 0.0) + 1.0
        if self.shape_weight >= WINDOW:
            self.shape_weight *= 0.5
            self.shapes = {name: count * 0.5 for name, count in self.shapes.items()}
        if len(self.shapes) > 16:
            del self.shapes[min(self.shapes, key=self.shapes.__getitem__)]
