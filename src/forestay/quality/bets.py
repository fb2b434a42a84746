"""Bets against "nothing has changed", as tables: what one rank earns for each way in which a feature may change. Pure.

Every bet is a function of a rank in [0, 1] whose mean is 1, so that under no change nobody gains by it, whatever is bet
on. They are likelihood ratios of normal scores (a moved mean, a wider or narrower spread), as in e-detectors (J. Shin,
A. Ramdas, A. Rinaldo, "E-detectors", 2023), cut into cells and scaled so that the mean is 1 to the last bit. Used by
`drift` for one stream at a time and by whoever follows many at once.
"""

from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
CELLS = 4_096
MOVES = ((0.5, 3.0), (1.0, 1.5))  # of the mean, in standard deviations, either way; and the stake on each
SPREADS = ((1.8, 1.0), (0.6, 0.5))  # factors of the spread, and the stake on each
WINDOWS = (8, 20)  # outputs over which a direction is learned
ROOM = 0.05  # by how much the variance of a sum of scores may exceed 1: what the reference does not tell of it
MOST = 2.0  # standard deviations, the longest direction that is bet on
ALONE = 0.7  # share of the stake on features one by one; the rest on directions


def _scores() -> Array:
    law = NormalDist()
    plain = np.array([law.inv_cdf((cell + 0.5) / CELLS) for cell in range(CELLS)])
    return plain / plain.std()


def _bets(scores: Array) -> Array:
    rows = [np.exp(sign * move * scores - move * move / 2) for move, _ in MOVES for sign in (1, -1)]
    rows += [np.exp(scores**2 / 2 * (1 - 1 / spread**2)) / spread for spread, _ in SPREADS]
    table = np.array(rows)
    return table / table.mean(axis=1, keepdims=True)


SCORES = _scores()  # normal score of the middle of each cell
BETS = _bets(SCORES)  # [bets, CELLS]
NAMES = (
    *(f"mean {'up' if sign > 0 else 'down'} by {move:g} sd" for move, _ in MOVES for sign in (1, -1)),
    *(f"spread times {spread:g}" for spread, _ in SPREADS),
)
_STAKES = np.array([*(stake for _, stake in MOVES for _ in (1, -1)), *(stake for _, stake in SPREADS)])
STAKES = _STAKES / _STAKES.sum()  # of each row of BETS
_RATES = np.array([2 / (window + 1) for window in WINDOWS])
_NOISE = _RATES / (2 - _RATES)  # variance of a running mean of scores
STEPS = _RATES[:, None]  # by which running means move
_LEAST = 1e-12


def cells_of(ranks: Array) -> npt.NDArray[np.intp]:
    """Return the cells of ranks in [0, 1)."""
    return np.minimum((ranks * CELLS).astype(np.intp), CELLS - 1)


def chosen(means: Array) -> tuple[Array, Array]:
    """Return the directions to bet on and what each bet on one costs, from running means `[..., windows, features]`.

    A mean is shrunk by what chance alone would make it (the positive part of W. James and C. Stein, 1961). A direction
    earns exp(direction . scores - cost), of which the mean is at most 1 where sums of scores are no wider than a normal
    law of variance 1 + ROOM.
    """
    length2 = np.maximum(np.square(means).sum(axis=-1), _LEAST)
    noise2 = means.shape[-1] * _NOISE
    factor = np.maximum(0.0, 1.0 - noise2 / length2) * np.minimum(1.0, MOST / np.sqrt(length2))
    return means * factor[..., None], (0.5 * (1 + ROOM)) * length2 * np.square(factor)


def moved(means: Array, scores: Array) -> Array:
    """Return the running means after one more output."""
    return means + (scores[..., None, :] - means) * STEPS
