"""How good scores are on labelled rows: AUROC, shares at a threshold, and intervals. Pure numpy.

Called by `forestay safety evaluate`, the benches and the training tool.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RESAMPLES = 400
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Measure:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


def auroc(score: Floats, harmful: Flags) -> float:
    """Return the probability that a harmful row scores above a harmless one, ties counted half; nan without both.

    Source: Hanley, McNeil 1982, "The meaning and use of the area under a receiver operating characteristic curve".
    """
    positive = int(harmful.sum())
    if positive in {0, len(score)}:
        return float("nan")
    ranks = np.empty(len(score))
    ranks[np.argsort(score, kind="stable")] = np.arange(1, len(score) + 1)
    _, place, count = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.bincount(place, ranks) / count)[place]
    return float((ranks[harmful].sum() - positive * (positive + 1) / 2) / (positive * (len(score) - positive)))


def measured(rows: Rows, read: Callable[[Rows], float], seed: int = 1) -> Measure:
    """Return `read(rows)` with percentiles over rows drawn again (Efron 1979); of no rows, not a number."""
    if not len(rows):
        return Measure(float("nan"), float("nan"), float("nan"))
    chance = np.random.default_rng(seed)
    again = np.array([read(chance.choice(rows, len(rows))) for _ in range(RESAMPLES)])
    again = again[~np.isnan(again)]
    if not len(again):
        return Measure(read(rows), float("nan"), float("nan"))
    return Measure(read(rows), float(np.percentile(again, 2.5)), float(np.percentile(again, 97.5)))
