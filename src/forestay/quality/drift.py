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

import array
import bisect
import dataclasses
import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from forestay.quality import bets
from forestay.quality.bets import Array

MAX_STRATA = 64
MAX_RECENT = 512  # outputs that are looked back at for the beginning of a change
MIN_REFERENCE = 50  # outputs of all strata, from which their correlations are learned
LEAST_IN_STRATUM = 5
_CAP = 1e30
_STILL = 1e-9
_LEAST_SPREAD = 0.1  # of a combination of features: beyond, what the reference says of it is noise
_BLOCK = 48  # places that are counted together
_AT_ONCE = 64  # outputs whose bets are worked out together
_TOGETHER = 4  # outputs of one stratum, from which ranking them together is cheaper
_MASK = (1 << 64) - 1
_BEFORE = np.tri(_AT_ONCE, k=-1, dtype=bool)  # [output, another]: the other came before


@dataclasses.dataclass(frozen=True, slots=True)
class Alarm:
    """A change that was seen."""

    output: int  # number of the output at which it was seen, 1 for the first
    since: int  # estimate of the first output of the change
    evidence: float  # sum of the bets; 1 / evidence bounds the rate of such alarms per output
    features: tuple[str, ...]  # those that earned most, in order
    kind: str  # what the best bet on the first of them says
    shifts: tuple[float, ...] = ()  # mean normal score of every feature since then, in standard deviations
    spreads: tuple[float, ...] = ()  # root of their mean square


class State(msgspec.Struct, frozen=True):
    """What is stored of a detector between two runs."""

    seen: int
    counts: dict[str, list[list[int]]]  # stratum -> feature -> outputs by place in the reference
    alone: list[list[float]]
    jointly: list[float]
    staked: list[list[float]]  # as `alone`, with the stakes of `prior` on the beginnings of a change
    staked_jointly: list[float]
    means: list[list[float]]
    recent: list[list[int]]


class Ranks:
    """Ranks of one feature in one stratum: a reference, and how many outputs fell between its values."""

    def __init__(self, reference: Sequence[float]) -> None:
        self._edges = sorted(reference)
        self._sorted: Array = np.array([*self._edges, math.nan], dtype=np.float64)  # what is above all equals nothing
        places = 2 * len(self._edges) + 1  # even: between two values; odd: equal to one
        self._counts = array.array("q", bytes(8 * places))
        self._blocks = array.array("q", bytes(8 * (places // _BLOCK + 1)))
        self._total = 0
        for edge in self._edges:
            self._add(self._place(edge), 1)
        self._base = self._counts[:]

    def rank(self, value: float, tie: float) -> float:
        """Return the smoothed rank in [0, 1] of a value among what is known, which it then belongs to."""
        place = self._place(value)
        block = place // _BLOCK
        below = sum(self._blocks[:block]) + sum(self._counts[block * _BLOCK : place])
        rank = (below + tie * (self._counts[place] + 1)) / (self._total + 1)
        self._add(place, 1)
        return rank

    def ranks(self, values: Array, ties: Array) -> Array:
        """Return what `rank` returns of each of these values, one after another."""
        left = self._sorted[:-1].searchsorted(values)
        places = 2 * left + (self._sorted[left] == values)
        counts = np.frombuffer(self._counts, dtype=np.int64)
        below = np.concatenate(([0], np.cumsum(counts)))[places]
        before = _BEFORE[: len(places), : len(places)]
        below += ((places[None, :] < places[:, None]) & before).sum(axis=1)
        same = counts[places] + ((places[None, :] == places[:, None]) & before).sum(axis=1)
        found = (below + ties * (same + 1)) / (self._total + 1 + np.arange(len(places)))
        np.add.at(counts, places, 1)
        np.add.at(np.frombuffer(self._blocks, dtype=np.int64), places // _BLOCK, 1)
        self._total += len(places)
        return found

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
        self._sums: Array = np.zeros((2, len(bets.BETS), len(names)))  # over beginnings of equal weight, and staked
        self._jointly: list[list[float]] = [[0.0] * len(bets.WINDOWS) for _ in range(2)]
        self._means: Array = np.zeros((len(bets.WINDOWS), len(names)))
        self._recent: list[list[int]] = []
        self._stakes: Array = np.repeat(bets.STAKES * (bets.ALONE / len(names)), len(names))

    @property
    def seen(self) -> int:
        """Return how many outputs it has taken."""
        return self._seen

    @property
    def evidence(self) -> float:
        """Return the sum of the bets; its mean grows by at most one an output while nothing has changed."""
        return self._evidence(0)

    @property
    def e_value(self) -> float:
        """Return the staked sum of the bets: its mean is at most one at any time, whenever one looks; see `prior`."""
        return self._evidence(1)

    def _evidence(self, which: int) -> float:
        alone = float((self._sums[which].reshape(-1) * self._stakes).sum())
        return alone + (1 - bets.ALONE) / len(bets.WINDOWS) * sum(self._jointly[which])

    def update(self, features: Sequence[float], stratum: str = "") -> Alarm | None:
        """Take the features of one output, finite numbers in the order of the names; return an alarm if that is one.

        After an alarm it starts anew: what has become usual since still counts as seen.
        """
        return next(iter(self.follow([features], [stratum])), None)

    def follow(self, rows: Sequence[Sequence[float]], strata: Sequence[str]) -> list[Alarm]:
        """Take outputs in their order; the same to the last bit however they are cut into batches."""
        found: list[Alarm] = []
        for start in range(0, len(rows), _AT_ONCE):
            values = np.array(rows[start : start + _AT_ONCE], dtype=np.float64)
            cells = self._cells(values, strata[start : start + _AT_ONCE])
            scores = _product(bets.SCORES[cells], self._whiten)
            place = 0
            while place < len(cells):
                taken, alarm = self._take(cells[place:], scores[place:])
                place += taken
                found += [alarm] if alarm is not None else []
        return found

    def _cells(self, values: Array, strata: Sequence[str]) -> npt.NDArray[np.intp]:
        """Rank outputs within their strata; returns the cells of the ranks, `[outputs, features]`."""
        ties = _ties(self._seed, self._seen + 1, values.shape)
        ranks = np.empty(values.shape)
        of: dict[int, tuple[list[Ranks], list[int]]] = {}
        for number, stratum in enumerate(strata):
            known = self._of(stratum)
            of.setdefault(id(known), (known, []))[1].append(number)
        for known, numbers in of.values():
            if len(numbers) >= _TOGETHER:
                where = np.array(numbers)
                columns, drawn = values[where].T, ties[where].T
                found = [one.ranks(columns[feature], drawn[feature]) for feature, one in enumerate(known)]
                ranks[where] = np.array(found).T
                continue
            for feature, one in enumerate(known):
                for number in numbers:
                    ranks[number, feature] = one.rank(float(values[number, feature]), float(ties[number, feature]))
        return bets.cells_of(ranks)

    def _take(self, cells: npt.NDArray[np.intp], scores: Array) -> tuple[int, Alarm | None]:
        """Bet on outputs until one is an alarm; returns how many were taken."""
        count, alone = len(cells), self._sums[0].size
        means = self._followed(scores)
        way, cost = bets.chosen(means[:-1])
        told = np.empty((count, 1, alone + len(bets.WINDOWS)))
        told[:, 0, :alone] = bets.BETS[:, cells].transpose(1, 0, 2).reshape(count, alone)
        told[:, 0, alone:] = np.exp((way * scores[:, None, :]).sum(axis=-1) - cost)
        sums = self._summed(told)
        plain = sums[:, 0, alone:].sum(axis=1) * ((1 - bets.ALONE) / len(bets.WINDOWS))
        evidence = (sums[:, 0, :alone] * self._stakes).sum(axis=1) + plain
        over = np.flatnonzero(evidence >= self.threshold)
        taken = int(over[0]) + 1 if len(over) else count
        self._seen += taken
        last = sums[taken - 1]
        self._sums, self._means = last[:, :alone].reshape(self._sums.shape).copy(), means[taken].copy()
        self._jointly = last[:, alone:].tolist()
        self._recent += cells[:taken].tolist()
        while len(self._recent) > MAX_RECENT:
            del self._recent[: MAX_RECENT // 4]
        if not len(over):
            return taken, None
        alarm = self._alarm(min(float(evidence[taken - 1]), _CAP), (way[taken - 1], cost[taken - 1]))
        self._sums[0], self._jointly[0], self._means[:] = 0.0, [0.0] * len(bets.WINDOWS), 0.0
        self._recent.clear()
        return taken, alarm

    def _followed(self, scores: Array) -> Array:
        """Return the running means before each output and after the last, as `bets.moved` moves them."""
        means = np.empty((len(scores) + 1, *self._means.shape))
        last, apart = self._means, np.empty(self._means.shape)
        means[0] = last
        for one, score in zip(means[1:], scores, strict=True):
            np.subtract(score, last, out=apart)
            np.multiply(apart, bets.STEPS, out=apart)
            last = np.add(last, apart, out=one)
        return means

    def _summed(self, told: Array) -> Array:
        """Return the sums of bets after each output, plain and staked: `[outputs, 2, bets]`, features first.

        Sums are capped after each output. Hardly any ever reaches the cap, so that is looked at once for all outputs.
        """
        count, features = len(told), self._sums[0].size
        added = np.ones((count, 2, 1))
        added[:, 1, 0] = [prior(self._seen + number) for number in range(1, count + 1)]
        sums, first = np.empty((count, 2, told.shape[-1])), np.empty((2, told.shape[-1]))
        first[:, :features], first[:, features:] = self._sums.reshape(2, features), self._jointly
        last = first
        with np.errstate(over="ignore"):
            for one, more, factor in zip(sums, added, told, strict=True):
                last = np.multiply(np.add(last, more, out=one), factor, out=one)
        if sums.max() <= _CAP:
            return sums
        last = first
        for one, more, factor in zip(sums, added, told, strict=True):
            last = np.minimum(np.multiply(np.add(last, more, out=one), factor, out=one), _CAP, out=one)
        return sums

    def state(self) -> State:
        """Return what has to be stored."""
        counts = {name: [rank.counted() for rank in ranks] for name, ranks in self._ranks.items()}
        return State(
            self._seen,
            counts,
            self._sums[0].tolist(),
            self._jointly[0],
            self._sums[1].tolist(),
            self._jointly[1],
            self._means.tolist(),
            [list(row) for row in self._recent],
        )

    def restore(self, state: State) -> None:
        """Go on where a stored state ended; ValueError when it belongs to another reference or other features."""
        if np.shape(state.alone) != self._sums[0].shape:
            raise ValueError("the state belongs to other features")
        self._ranks.clear()
        for stratum, counts in state.counts.items():
            for ranks, counted in zip(self._of(stratum), counts, strict=True):
                ranks.restore(counted)
        self._seen = state.seen
        self._sums = np.array([state.alone, state.staked])
        self._jointly = [list(state.jointly), list(state.staked_jointly)]
        self._means = np.array(state.means)
        self._recent = [list(row) for row in state.recent]

    def _of(self, stratum: str) -> list[Ranks]:
        """Return the ranks of a stratum; beyond the cap, and where nobody knows it, all are ranked together."""
        if stratum not in self._references or (stratum not in self._ranks and len(self._ranks) >= MAX_STRATA):
            stratum = ""
        if stratum not in self._ranks:
            rows = self._references.get(stratum, ())
            self._ranks[stratum] = [Ranks([row[place] for row in rows]) for place in range(len(self.names))]
        return self._ranks[stratum]

    def _alarm(self, evidence: float, direction: tuple[Array, Array]) -> Alarm:
        by_feature = self._sums[0].max(axis=0)
        order = [int(place) for place in np.argsort(by_feature)[::-1]]
        best = order[0]
        bet = int(self._sums[0, :, best].argmax())
        earned = self._earned(bet, best, direction)
        start = best_start(earned)
        worth = [self.names[place] for place in order if by_feature[place] > math.sqrt(self.threshold)]
        scores = bets.SCORES[np.array(self._recent)[start:]]
        return Alarm(
            output=self._seen,
            since=self._seen - len(earned) + 1 + start,
            evidence=evidence,
            features=tuple(worth or [self.names[best]]),
            kind=bets.NAMES[bet],
            shifts=tuple(scores.mean(axis=0).tolist()),
            spreads=tuple(np.sqrt(np.square(scores).mean(axis=0)).tolist()),
        )

    def _earned(self, bet: int, feature: int, direction: tuple[Array, Array]) -> Array:
        """Return the logarithms of what the best bet earned lately, or of the last direction where that earned more."""
        cells = np.array(self._recent)
        if max(self._jointly[0]) <= float(self._sums[0].max()):
            return np.log(bets.BETS[bet, cells[:, feature]])
        window = int(np.argmax(self._jointly[0]))
        way, cost = direction
        return _product(bets.SCORES[cells], self._whiten) @ way[window] - float(cost[window])


def best_start(earned: Array) -> int:
    """Return the place from which on most was earned: the maximum-likelihood estimate of a change (E. Page, 1954)."""
    return int(np.cumsum(earned[::-1])[::-1].argmax())


def whitening(references: Mapping[str, Sequence[Sequence[float]]]) -> Array:
    """Return the matrix that makes normal scores of the reference uncorrelated, `[features, features]`.

    A correlation is shrunk by what its estimate is uncertain by; without a reference it is the identity.
    """
    rows = [np.asarray(item, dtype=np.float64) for item in references.values() if len(item) >= LEAST_IN_STRATUM]
    if sum(len(item) for item in rows) < MIN_REFERENCE:
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
    Ramdas, "False discovery rate control with e-values", 2022). `evidence` are e-values, as of `Detector.e_value`.
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


def _product(rows: Array, matrix: Array) -> Array:
    """Return `matrix @ row` of each row, with sums in an order that does not depend on how many rows there are."""
    return (rows[:, None, :] * matrix).sum(axis=-1)


def _ties(seed: int, first: int, shape: tuple[int, ...]) -> Array:
    """Return numbers in [0, 1) that break ties, by the stream's seed and the numbers of outputs from `first` on."""
    numbers = np.arange(first, first + shape[0], dtype=np.uint64)
    drawn = _next(np.uint64((seed * 0x9E3779B97F4A7C15) & _MASK) + numbers)
    found = np.empty(shape)
    for feature in range(shape[1]):
        drawn = _next(drawn)
        found[:, feature] = drawn / (_MASK + 1)
    return found


def _next(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return the next of sequences of 64-bit numbers (splitmix64, G. Steele, D. Lea, C. Flood, 2014)."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ value >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ value >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return value ^ value >> np.uint64(31)
