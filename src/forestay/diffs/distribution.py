"""Do two revisions make pictures of the same kind, where no single one need be the same? Pure.

Energy distance (Szekely and Rizzo 2004) of feature vectors, judged by permutation: while the revisions are alike, the
two answers to one request could be exchanged, so the distance after random exchanges is as likely as the one seen.
The level holds for one look at a fixed number of requests; `rollouts/shadow` looks once, at the end.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

EXCHANGES = 999
LEAST = 8  # pairs; with fewer no exchange can be rare enough


@dataclasses.dataclass(frozen=True, slots=True)
class Shift:
    """What the test says. `p_value` is 1 where there was too little to look at."""

    distance: float  # 0 for equal distributions, in standard deviations of the control
    p_value: float
    pairs: int
    feature: str = ""  # the one that has moved most

    def told(self) -> str:
        """Return it in a few words."""
        moved = f", most in {self.feature}" if self.feature else ""
        return f"energy distance {self.distance:.3f} over {self.pairs} pairs, p = {self.p_value:.3f}{moved}"


def compare_distributions(
    control: npt.NDArray[np.float64], candidate: npt.NDArray[np.float64], names: Sequence[str] = (), seed: int = 1
) -> Shift:
    """Compare features `[pairs, features]` of the answers of two revisions to the same requests.

    Rows with a value that is no number are left out. The same call gives the same answer.
    """
    whole = np.isfinite(control).all(axis=1) & np.isfinite(candidate).all(axis=1)
    first, second = control[whole], candidate[whole]
    if len(first) < LEAST:
        return Shift(0.0, 1.0, len(first))
    scale = np.concatenate([first, second]).std(axis=0)
    kept = scale > 1e-9
    if not kept.any():
        return Shift(0.0, 1.0, len(first))
    stacked = np.concatenate([first[:, kept], second[:, kept]]) / scale[kept]
    gaps = np.linalg.norm(stacked[:, None] - stacked[None], axis=2)
    pairs = len(first)
    signs = np.concatenate([np.ones(pairs), -np.ones(pairs)])
    seen = _energy(gaps, signs)
    chance = np.random.default_rng(seed)
    flips = chance.choice((-1.0, 1.0), size=(EXCHANGES, pairs))
    others = [_energy(gaps, np.concatenate([flip, -flip])) for flip in flips]
    as_far = sum(other >= seen - 1e-12 for other in others)
    moved = np.abs(stacked[:pairs].mean(axis=0) - stacked[pairs:].mean(axis=0))
    kept_names = [name for name, keep in zip(names, kept, strict=False) if keep]
    feature = kept_names[int(moved.argmax())] if kept_names else ""
    return Shift(max(0.0, seen), (1 + as_far) / (1 + EXCHANGES), pairs, feature)


def _energy(gaps: npt.NDArray[np.float64], signs: npt.NDArray[np.float64]) -> float:
    """Return 2 E|X-Y| - E|X-X'| - E|Y-Y'| for the two halves that `signs` (+1, -1) name."""
    count = len(signs) / 2
    return float(-(signs @ gaps @ signs) / count**2)
