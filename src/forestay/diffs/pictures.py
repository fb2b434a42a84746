"""How far apart two pictures are that should be the same: five distances, each 0 for equal ones. Pure.

It looks at a reduced copy, as a person would: kernels that round differently move single levels, a wrong scheduler
moves shapes. It decides nothing; `diffs/noise` compares the distances with those of the control against itself.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image

from forestay.safety.hashes.pdq import LEAST_QUALITY, distance, hash_of

Picture = npt.NDArray[np.uint8]  # [height, width, 3]
Plane = npt.NDArray[np.float64]

LONG_SIDE = 96  # pixels of the copy that is compared
_WINDOW = 7
_BINS = 32
_HASH_BITS = 256.0
_LEVELS = 4.0  # from pixel to pixel: slopes below this weigh less and less, so that a smooth picture's rounding is none
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
# Wang, Bovik, Sheikh and Simoncelli (2004), Image quality assessment, section III-B: K1 = 0.01, K2 = 0.03, L = 255.
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def compare_pictures(one: Picture, other: Picture) -> dict[str, float]:
    """Return distances of two pictures `[height, width, 3] uint8`: 0 when they are equal, about 1 when unrelated.

    `size`: 1 when widths or heights differ. `structure`: 1 - mean SSIM of luma. `colour`: earth mover's distance of
    the channels' histograms, as a share of full scale. `edges`: difference of gradients over their sum. `level`: mean
    absolute difference as a share of full scale. `hash`: share of the bits of PDQ that differ.
    """
    small, small_other = reduced(one), reduced(other)
    if small.shape != small_other.shape:
        small_other = _fitted(other, small.shape[1], small.shape[0])
    luma, luma_other = small @ _LUMA, small_other @ _LUMA
    return {
        "size": float(one.shape[:2] != other.shape[:2]),
        "structure": 1.0 - structural_similarity(luma, luma_other),
        "colour": _colour(small, small_other),
        "edges": _edges(luma, luma_other),
        "level": float(np.abs(small - small_other).mean() / 255.0),
        "hash": _hash(_bytes(one), _bytes(other)),
    }


def reduced(picture: Picture) -> npt.NDArray[np.float64]:
    """Return the picture with a long side of at most LONG_SIDE pixels, each the mean of an area."""
    height, width = picture.shape[:2]
    part = min(1.0, LONG_SIDE / max(height, width))
    return _fitted(picture, max(1, round(width * part)), max(1, round(height * part)))


def structural_similarity(one: Plane, other: Plane) -> float:
    """Return the mean SSIM of two planes of levels 0 to 255, over windows of 7 by 7 pixels of equal weight."""
    window = (min(_WINDOW, one.shape[0]), min(_WINDOW, one.shape[1]))

    def mean(plane: Plane) -> Plane:
        return np.lib.stride_tricks.sliding_window_view(plane, window).mean(axis=(2, 3))

    mu, mu_other = mean(one), mean(other)
    spread, spread_other = mean(one * one) - mu * mu, mean(other * other) - mu_other * mu_other
    shared = mean(one * other) - mu * mu_other
    top = (2 * mu * mu_other + _C1) * (2 * shared + _C2)
    bottom = (mu * mu + mu_other * mu_other + _C1) * (spread + spread_other + _C2)
    return float((top / bottom).mean())


def _fitted(picture: Picture, width: int, height: int) -> npt.NDArray[np.float64]:
    image = Image.fromarray(_bytes(picture)).resize((width, height), Image.Resampling.BOX)
    return np.asarray(image, dtype=np.float64)


def _bytes(picture: Picture) -> Picture:
    return np.ascontiguousarray(picture, dtype=np.uint8)


def _colour(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    found = [
        np.abs(_cumulative(one[..., channel]) - _cumulative(other[..., channel])).mean()
        for channel in range(one.shape[2])
    ]
    return float(np.mean(found))


def _cumulative(values: Plane) -> Plane:
    counts, _ = np.histogram(values, bins=_BINS, range=(0.0, 256.0))
    return np.cumsum(counts) / values.size


def _hash(one: Picture, other: Picture) -> float:
    """Return the share of bits that differ; 0 where both pictures are too flat to have a hash that says anything."""
    first, second = hash_of(one), hash_of(other)
    if max(first.quality, second.quality) < LEAST_QUALITY:
        return 0.0
    return distance(first.value, second.value) / _HASH_BITS


def _edges(one: Plane, other: Plane) -> float:
    difference = total = 0.0
    for axis in (0, 1):
        if one.shape[axis] > 1:
            slope, slope_other = np.diff(one, axis=axis), np.diff(other, axis=axis)
            difference += float(np.abs(slope - slope_other).sum())
            total += float(np.abs(slope).sum() + np.abs(slope_other).sum()) + _LEVELS * slope.size
    return difference / total if total > 0 else 0.0
