"""Whether a stream of outputs is still what it was: one output at a time, with a stated rate of false alarms. Pure.

Each feature of an output is ranked among the reference and all outputs since (a smoothed conformal rank, V. Vovk, A.
Gammerman, G. Shafer, "Algorithmic Learning in a Random World", 2005): under no change such ranks are independent and
uniform *whatever the size of the reference*, so its own error is in the guarantee. Bets on ranks (`bets`) are summed
over all moments at which a change may have begun (Shiryaev and Roberts); the mean of the sum grows by one an output, so
the alarm at `threshold` comes after `threshold` outputs or more on average. That holds for the half of the stake on
features one by one without any assumption but exchangeability; for the half on directions it asks that sums of scores
are no wider than normal ones by more than `bets.ROOM`. Outputs are ranked within their stratum (prompt cluster and
parameters), so a change of the mix of prompts moves nothing.

The state is plain numbers and holds no clock and no chance: ties are broken by a hash of the stream's seed and the
output's number, so a state that was stored, or a log that is read again, gives the same alarms at the same outputs.
"""

import bisect
import dataclasses
import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from forestay.quality import bets
from forestay.quality.bets import Array

MAX_STRATA = 64
MAX_RECENT = 512  # outputs that are looked back at for the beginning of a change
MIN_REFERENCE = 50
_CAP = 1e30
_STILL = 1e-9
_LEAST_SPREAD = 0.1  # of a combination of features: beyond, what the reference says of it is noise
_BLOCK = 48  # places that are counted together
_MASK = (1 << 64) - 1


@dataclasses.dataclass(frozen=True, slots=True)
class Alarm:
    """A change that was seen."""

    output: int  # number of the output at which it was seen, 1 for the first
    since: int  # estimate of the first output of the change
    evidence: float  # sum of the bets; 1 / evidence bounds the rate of such alarms per output
    features: tuple[str, ...]  # those that earned most, in order
    kind: str  # what the best bet on the first of them says


class State(msgspec.Struct, frozen=True):
    """What is stored of a detector between two runs."""

    seen: int
    counts: dict[str, list[list[int]]]  # stratum -> feature -> outputs by place in the reference
    alone: list[list[float]]
    jointly: list[float]
    means: list[list[float]]
    recent: list[list[int]]


class Ranks:
    """Ranks of one feature in one stratum: a reference, and how many outputs fell between its values."""

    def __init__(self, reference: Sequence[float]) -> None:
        self._edges = sorted(reference)
        self._counts = [0] * (2 * len(self._edges) + 1)  # even: between two values; odd: equal to one
        self._blocks = [0] * (len(self._counts) // _BLOCK + 1)
        self._total = 0
        for edge in self._edges:
            self._add(self._place(edge), 1)
        self._base = self._counts.copy()

    def rank(self, value: float, tie: float) -> float:
        """Return the smoothed rank in [0, 1] of a value among what is known, which it then belongs to."""
        place = self._place(value)
        block = place // _BLOCK
        below = sum(self._blocks[:block]) + sum(self._counts[block * _BLOCK : place])
        rank = (below + tie * (self._counts[place] + 1)) / (self._total + 1)
        self._add(place, 1)
        return rank

    def counted(self) -> list[int]:
        """Return how many outputs fell to each place, without the reference."""
        return [count - base for count, base in zip(self._counts, self._base, strict=True)]

    def restore(self, counts: Sequence[int]) -> None:
        """Take over what an earlier run had counted; ValueError when it had another reference."""
        if len(counts) != len(self._counts):
            raise ValueError("the state belongs to another reference")
        for place, count in enumerate(counts):
            self._add(place, count)

    def _place(self, value: float) -> int:
        left = bisect.bisect_left(self._edges, value)
        return 2 * left + (left < len(self._edges) and self._edges[left] == value)

    def _add(self, place: int, count: int) -> None:
        self._total += count
        self._counts[place] += count
        self._blocks[place // _BLOCK] += count


class Detector:
    """Follows one stream. `references` are rows of features of healthy outputs, by stratum."""

    def __init__(
        self,
        names: Sequence[str],
        references: Mapping[str, Sequence[Sequence[float]]],
        *,
        threshold: float,
        seed: int = 0,
    ) -> None:
        self.names = tuple(names)
        self.threshold = threshold
        self._seed = seed
        self._references = references
        self._ranks: dict[str, list[Ranks]] = {}
        self._whiten = whitening(references)
        self._seen = 0
        self._alone: Array = np.zeros((len(bets.BETS), len(names)))
        self._jointly: Array = np.zeros(len(bets.WINDOWS))
        self._means: Array = np.zeros((len(bets.WINDOWS), len(names)))
        self._way, self._cost = bets.chosen(self._means)
        self._recent: list[list[int]] = []

    @property
    def evidence(self) -> float:
        """Return the sum of the bets; its mean grows by at most one an output while nothing has changed."""
        alone, jointly = float((bets.STAKES @ self._alone).sum()), float(self._jointly.sum())
        return bets.ALONE * alone / len(self.names) + (1 - bets.ALONE) * jointly / len(bets.WINDOWS)

    def update(self, features: Sequence[float], stratum: str = "") -> Alarm | None:
        """Take the features of one output, finite numbers in the order of the names; return an alarm if that is one.

        After an alarm it starts anew: what has become usual since still counts as seen.
        """
        ranks = self._of(stratum)
        self._seen += 1
        tie = _hash(self._seed, self._seen)
        found: list[int] = []
        for place, value in enumerate(features):
            tie = _next(tie)
            rank = ranks[place].rank(value, tie / (_MASK + 1))
            found.append(min(int(rank * bets.CELLS), bets.CELLS - 1))
        cells = np.array(found)
        self._alone += 1.0
        self._alone *= bets.BETS.take(cells, axis=1)
        scores = self._whiten @ bets.SCORES.take(cells)
        self._jointly = (self._jointly + 1.0) * np.exp(self._way @ scores - self._cost)
        self._means = bets.moved(self._means, scores)
        self._way, self._cost = bets.chosen(self._means)
        self._recent.append(found)
        if len(self._recent) > MAX_RECENT:
            del self._recent[: MAX_RECENT // 4]
        evidence = self.evidence
        if evidence < self.threshold:
            return None
        alarm = self._alarm(min(evidence, _CAP))
        self._alone[:], self._jointly[:], self._means[:] = 0.0, 0.0, 0.0
        self._way, self._cost = bets.chosen(self._means)
        self._recent.clear()
        return alarm

    def state(self) -> State:
        """Return what has to be stored."""
        counts = {name: [rank.counted() for rank in ranks] for name, ranks in self._ranks.items()}
        return State(
            self._seen,
            counts,
            self._alone.tolist(),
            self._jointly.tolist(),
            self._means.tolist(),
            [list(row) for row in self._recent],
        )

    def restore(self, state: State) -> None:
        """Go on where a stored state ended; ValueError when it belongs to another reference or other features."""
        if np.shape(state.alone) != self._alone.shape:
            raise ValueError("the state belongs to other features")
        self._ranks.clear()
        for stratum, counts in state.counts.items():
            for ranks, counted in zip(self._of(stratum), counts, strict=True):
                ranks.restore(counted)
        self._seen = state.seen
        self._alone, self._jointly = np.array(state.alone), np.array(state.jointly)
        self._means = np.array(state.means)
        self._way, self._cost = bets.chosen(self._means)
        self._recent = [list(row) for row in state.recent]

    def _of(self, stratum: str) -> list[Ranks]:
        """Return the ranks of a stratum; beyond the cap, and where nobody knows it, all are ranked together."""
        if stratum not in self._references or (stratum not in self._ranks and len(self._ranks) >= MAX_STRATA):
            stratum = ""
        if stratum not in self._ranks:
            rows = self._references.get(stratum, ())
            self._ranks[stratum] = [Ranks([row[place] for row in rows]) for place in range(len(self.names))]
        return self._ranks[stratum]

    def _alarm(self, evidence: float) -> Alarm:
        by_feature = self._alone.max(axis=0)
        order = [int(place) for place in np.argsort(by_feature)[::-1]]
        best = order[0]
        bet = int(self._alone[:, best].argmax())
        earned = self._earned(bet, best)
        worth = [self.names[place] for place in order if by_feature[place] > math.sqrt(self.threshold)]
        return Alarm(
            output=self._seen,
            since=self._seen - len(earned) + 1 + best_start(earned),
            evidence=evidence,
            features=tuple(worth or [self.names[best]]),
            kind=bets.NAMES[bet],
        )

    def _earned(self, bet: int, feature: int) -> Array:
        """Return the logarithms of what the best bet earned lately, or of the last direction where that earned more."""
        cells = np.array(self._recent)
        if float(self._jointly.max()) <= float(self._alone.max()):
            return np.log(bets.BETS[bet, cells[:, feature]])
        scores = bets.SCORES[cells] @ self._whiten
        window = int(self._jointly.argmax())
        return scores @ self._way[window] - float(self._cost[window])


def best_start(earned: Array) -> int:
    """Return the place from which on most was earned: the maximum-likelihood estimate of a change (E. Page, 1954)."""
    return int(np.cumsum(earned[::-1])[::-1].argmax())


def whitening(references: Mapping[str, Sequence[Sequence[float]]]) -> Array:
    """Return the matrix that makes normal scores of the reference uncorrelated, `[features, features]`.

    A correlation is shrunk by what its estimate is uncertain by; without a reference it is the identity.
    """
    rows = [np.asarray(item, dtype=np.float64) for item in references.values() if len(item) >= MIN_REFERENCE]
    if not rows:
        width = max((len(item[0]) for item in references.values() if len(item)), default=1)
        return np.eye(width)
    scores = np.concatenate([_normal_scores(item) for item in rows])
    still = scores.std(axis=0) < _STILL  # a feature that is always the same correlates with nothing
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = np.atleast_2d(np.corrcoef(scores, rowvar=False))
    correlation[still, :], correlation[:, still] = 0.0, 0.0
    shrink = 1.0 / math.sqrt(len(scores))
    correlation = (1 - shrink) * correlation + shrink * np.eye(len(correlation))
    np.fill_diagonal(correlation, 1.0)
    values, vectors = np.linalg.eigh(correlation)
    return vectors @ np.diag(1 / np.sqrt(np.maximum(values, _LEAST_SPREAD))) @ vectors.T


def _normal_scores(rows: Array) -> Array:
    """Return normal scores of middle ranks: values that are equal have equal scores."""
    columns: list[Array] = []
    for place in range(rows.shape[1]):
        values, ordered = rows[:, place], np.sort(rows[:, place])
        below, upto = np.searchsorted(ordered, values), np.searchsorted(ordered, values, "right")
        columns.append((below + upto) / (2 * len(rows)))
    return bets.SCORES[bets.cells_of(np.stack(columns, axis=1))]


def decide_fleet(evidence: Mapping[str, float], rate: float) -> list[str]:
    """Return the streams that are said to have changed, the strongest first, by e-values of all streams of the fleet.

    At most the share `rate` of them is wrong on average, however the streams depend on one another: e-BH (R. Wang, A.
    Ramdas, "False discovery rate control with e-values", 2022). `evidence` are e-values, as of `EValue`.
    """
    order = sorted(evidence, key=lambda name: (-evidence[name], name))
    kept = 0
    for number, name in enumerate(order, start=1):
        if evidence[name] * number * rate >= len(order):
            kept = number
    return order[:kept]


def prior(output: int) -> float:
    """Return the stake on a change that begins at this output, 1 for the first; all of them sum to less than 1."""
    return 0.4 / ((output + 1) * math.log(output + 1.7) ** 2)


def _hash(seed: int, number: int) -> int:
    return _next((seed * 0x9E3779B97F4A7C15 + number) & _MASK)


def _next(value: int) -> int:
    """Return the next of a sequence of 64-bit numbers (splitmix64, G. Steele, D. Lea, C. Flood, 2014)."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & _MASK
    return value ^ value >> 31
