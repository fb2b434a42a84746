"""How far apart two films are that should be the same: their pictures, their motion and their length. Pure."""

import numpy as np
import numpy.typing as npt

from forestay.diffs.pictures import compare_pictures, reduced

Film = npt.NDArray[np.uint8]  # [frames, height, width, 3]

MOST_FRAMES = 12  # compared, evenly over the film


def compare_films(one: Film, other: Film) -> dict[str, float]:
    """Return distances of two films `[frames, height, width, 3] uint8`: 0 when they are equal.

    Those of pictures are means over at most 12 frames at the same places. `worst_frame`: the largest structural one.
    `motion`: difference of mean absolute change from frame to frame, over the sum. `length`: share of frames that one
    of them lacks.
    """
    shared = min(len(one), len(other))
    if shared == 0:
        return {"length": float(len(one) != len(other))}
    places = np.unique(np.linspace(0, shared - 1, min(MOST_FRAMES, shared)).round().astype(int))
    frames = [compare_pictures(one[place], other[place]) for place in places]
    found = {name: float(np.mean([frame[name] for frame in frames])) for name in frames[0]}
    moved, moved_other = _motion(one[:shared]), _motion(other[:shared])
    total = moved + moved_other
    return {
        **found,
        "worst_frame": max(frame["structure"] for frame in frames),
        "motion": abs(moved - moved_other) / total if total > 0 else 0.0,
        "length": abs(len(one) - len(other)) / max(len(one), len(other)),
    }


def _motion(film: Film) -> float:
    """Return the mean absolute change of levels between neighbouring frames."""
    if len(film) < 2:
        return 0.0
    small = np.stack([reduced(frame) for frame in film])
    return float(np.abs(np.diff(small, axis=0)).mean())
