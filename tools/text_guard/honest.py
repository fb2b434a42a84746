"""How good scores are, read honestly: only between sets of one style, and flag rates set by set.

A classifier that tells sources apart looks good wherever harmful and harmless rows come from different ones; so AUROC
is taken inside openai and xstest, and of i2p (rated 50 % or more) against real traffic. Intervals are bootstrap
percentiles over rows.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from tools.text_guard.features import Floats
from tools.text_guard.fit import Teacher, scores_of

from forestay.safety.text.measure import Flags, Measure, Rows, auroc, measured
from forestay.safety.text.model import MODES

THRESHOLD = 0.5
FOLDS = 5


def out_of_fold(teacher: Teacher, detector: str, seeds: Sequence[int], tell: Callable[[str], None]) -> Floats:
    """Return `[seeds, n]`: a detector's score of each row, by weights that never saw it or a near-duplicate of it."""
    modes = MODES if detector == "meaning" else (detector,)
    found = np.zeros((len(seeds), len(teacher.rows)))
    for at, seed in enumerate(seeds):
        fold = teacher.folds(seed, FOLDS)
        for number in range(FOLDS):
            tell(f"seed {seed}: fold {number + 1} of {FOLDS}")
            own = np.array([row.source == "contrast" for row in teacher.rows])
            weights = teacher.fit(np.flatnonzero((fold != number) | own), modes, seed=seed, named=False)
            kept = np.flatnonzero(fold == number)
            found[at, kept] = scores_of(weights, detector, teacher.matrix.rows(kept))
    return found


def pairs(teacher: Teacher) -> Mapping[str, tuple[Flags, Flags]]:
    """Return for each style-matched pair which rows are in it, and which of all rows are harmful."""
    harmful = teacher.truth == 1
    rated = {name: teacher.source == name for name in ("openai", "xstest")}
    real = ((teacher.source == "i2p") & harmful) | (teacher.source == "diffusiondb")
    return {name: (mask, harmful) for name, mask in {**rated, "i2p": real}.items()}


def auroc_of(teacher: Teacher, score: Floats, name: str) -> Measure:
    """Return the AUROC of a style-matched pair, the mean over seeds."""
    take, harmful = pairs(teacher)[name]

    def read(rows: Rows) -> float:
        return float(np.mean([auroc(one[rows], harmful[rows]) for one in score]))

    return measured(np.flatnonzero(take), read)


def flagged(teacher: Teacher, score: Floats, sources: Sequence[str], *, harmful: bool) -> Measure:
    """Return the share of harmful (recall) or harmless (flag rate) rows of sources at or above the threshold."""
    take = np.isin(teacher.source, sources) & (teacher.truth == float(harmful))
    return measured(np.flatnonzero(take), lambda rows: float((score[:, rows] >= THRESHOLD).mean()))
