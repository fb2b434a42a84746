"""Many streams at once for the benches of drift: the same ranks and bets as `quality/drift`, with a leading axis.

Streams are standard normal features, or what a scenario makes of them from some output on. Ranks are those of
`quality/drift.Ranks`: among the stream's own reference and all outputs since, ties broken at random.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from forestay.quality import bets
from forestay.quality.drift import prior, whitening

FEATURES = 8
REFERENCES = 1_000
WIDE = 32  # places that are counted together
Array = npt.NDArray[np.float64]
Make = Callable[[int, Array], Array]  # number of the output, standard normal [streams, features] -> what is seen


def whole(number: int, values: Array) -> Array:
    """Change nothing."""
    del number
    return values


@dataclasses.dataclass(slots=True)
class Fleet:
    """Streams that are followed side by side."""

    count: int
    chance: np.random.Generator
    staked: bool = False  # e-values of whole streams instead of sums that grow by one an output

    number: int = 0
    evidence: Array = dataclasses.field(init=False)
    _reference: Array = dataclasses.field(init=False)
    _counts: npt.NDArray[np.int32] = dataclasses.field(init=False)
    _blocks: npt.NDArray[np.int32] = dataclasses.field(init=False)
    _whiten: Array = dataclasses.field(init=False)
    _alone: Array = dataclasses.field(init=False)
    _jointly: Array = dataclasses.field(init=False)
    _means: Array = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        drawn = self.chance.standard_normal((self.count, REFERENCES, FEATURES))
        self._whiten = np.array([whitening({"": rows}) for rows in drawn])  # type: ignore[dict-item]
        sorted_rows = np.sort(drawn, axis=1).transpose(0, 2, 1).reshape(self.count * FEATURES, REFERENCES)
        self._offsets = 100.0 * np.arange(self.count * FEATURES)  # one sorted array serves all streams
        self._reference = (np.clip(sorted_rows, -40, 40) + self._offsets[:, None]).ravel()
        size = -(-(REFERENCES + 1) // WIDE)
        self._counts = np.zeros((self.count * FEATURES, size, WIDE), dtype=np.int32)
        self._blocks = np.zeros((self.count * FEATURES, size), dtype=np.int32)
        self._alone = np.zeros((self.count, len(bets.BETS), FEATURES))
        self._jointly = np.zeros((self.count, len(bets.WINDOWS)))
        self._means = np.zeros((self.count, len(bets.WINDOWS), FEATURES))
        self.evidence = np.zeros(self.count)

    _offsets: Array = dataclasses.field(init=False)

    def step(self, make: Make = whole) -> Array:
        """Take one output of every stream; return the evidence of each."""
        self.number += 1
        values = make(self.number, self.chance.standard_normal((self.count, FEATURES)))
        cells = bets.cells_of(self._ranks(values)).reshape(self.count, FEATURES)
        stake = prior(self.number) if self.staked else 1.0
        self._alone = (self._alone + stake) * bets.BETS[:, cells].transpose(1, 0, 2)
        scores = np.einsum("sfg,sg->sf", self._whiten, bets.SCORES[cells])
        way, cost = bets.chosen(self._means)
        gained = np.exp(np.einsum("swf,sf->sw", way, scores) - cost)
        self._jointly = (self._jointly + stake) * gained
        self._means = bets.moved(self._means, scores)
        np.minimum(self._alone, 1e60, out=self._alone)
        np.minimum(self._jointly, 1e60, out=self._jointly)
        alone = np.einsum("b,sbf->s", bets.STAKES, self._alone) / FEATURES
        self.evidence = bets.ALONE * alone + (1 - bets.ALONE) * self._jointly.mean(axis=1)
        return self.evidence

    def renew(self, which: npt.NDArray[np.bool_]) -> None:
        """Let streams start anew after an alarm; what they have counted stays."""
        self._alone[which], self._jointly[which], self._means[which] = 0.0, 0.0, 0.0

    def _ranks(self, values: Array) -> Array:
        flat = np.clip(values.ravel(), -40, 40) + self._offsets
        rows = np.arange(len(flat))
        place = np.searchsorted(self._reference, flat) - rows * REFERENCES
        block, inside = place // WIDE, place % WIDE
        size = self._blocks.shape[1]
        before: npt.NDArray[np.int64] = (self._blocks * (np.arange(size) < block[:, None])).sum(axis=1)
        counts = self._counts[rows, block]
        before += (counts * (np.arange(WIDE) < inside[:, None])).sum(axis=1)
        equal = counts[rows, inside]
        tie: Array = self.chance.random(len(flat))
        ranks = (place + before + tie * (equal + 1)) / (REFERENCES + self.number)
        self._counts[rows, block, inside] += 1
        self._blocks[rows, block] += 1
        return ranks


def average_run(count: int, outputs: int, threshold: float, seed: int) -> tuple[int, int]:
    """Return outputs and false alarms of healthy streams, each with a reference of its own."""
    fleet = Fleet(count, np.random.default_rng(seed))
    alarms = 0
    for _ in range(outputs):
        hit = fleet.step() >= threshold
        if hit.any():
            alarms += int(hit.sum())
            fleet.renew(hit)
    return count * outputs, alarms


def delays(make: Callable[[Array], Array], threshold: float, *, count: int, seed: int, most: int = 600) -> Array:
    """Return for each stream how many outputs after a change at output 200 the alarm came; infinity where none did."""
    fleet = Fleet(count, np.random.default_rng(seed))
    found = np.full(count, np.inf)

    def change(number: int, values: Array) -> Array:
        return make(values) if number > CHANGE else values

    for number in range(1, CHANGE + most + 1):
        hit = fleet.step(change) >= threshold
        if number <= CHANGE:
            fleet.renew(hit)
            continue
        found[hit & np.isinf(found)] = number - CHANGE
        if not np.isinf(found).any():
            break
    return found


CHANGE = 200
