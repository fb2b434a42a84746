"""Numbers of one decoded picture. Pure.

Levels and shares come from histograms of the whole picture; everything that looks at neighbours is taken of luma, at
about a megapixel at most. The share of fine and middle structure is a decomposition of variance: the mean of blocks
keeps what varies between them, so what a reduction by 2 loses is finer than two pixels.
"""

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from forestay.media.measures import PICTURE_FEATURES, PictureMeasures

_MOST_PIXELS = 1_100_000  # that neighbours are looked at of
_COLOUR_SIDE = 128  # pixels of the shorter side whose colour is looked at, at least
_DOT = 48  # levels by which a pixel differs from each of its four neighbours to be a dot
_FLAT = 1e-6
_BAND_VALUES = 32_768
_STRUCTURE = PICTURE_FEATURES[PICTURE_FEATURES.index("fine_share") :]
_LEVELS = np.arange(256, dtype=np.float64)
_HASH_SIDE = 8

Luma = npt.NDArray[np.int16]  # [height, width]


def measure(image: Image.Image) -> PictureMeasures:
    """Return the numbers of an RGB picture."""
    counts = np.array(image.histogram(), dtype=np.float64).reshape(3, 256)
    ranges = [np.flatnonzero(channel)[[0, -1]] for channel in counts]
    small = reduced(image)
    grey = small.convert("L")
    luma = np.asarray(grey, dtype=np.int16)
    levels = np.array(grey.histogram(), dtype=np.float64)
    spread = _spread(levels)
    features = dict((*_levels(counts, levels), *_colour(small), *_structure(grey, luma, levels)))
    total = counts.sum()
    return PictureMeasures(
        width=image.width,
        height=image.height,
        low=int(min(found[0] for found in ranges)),
        high=int(max(found[1] for found in ranges)),
        extent=int(max(found[1] - found[0] for found in ranges)),
        spread=spread,
        clipped_share=float((counts[:, 0].sum() + counts[:, 255].sum()) / total),
        colour=features["colourfulness"],
        hash=hash_of(grey),
        features=tuple(features[name] for name in PICTURE_FEATURES),
    )


def reduced(image: Image.Image) -> Image.Image:
    """Return the picture, smaller by a whole factor when it has more pixels than neighbours are looked at of."""
    factor = max(1, math.ceil(math.sqrt(image.width * image.height / _MOST_PIXELS)))
    return image if factor == 1 else image.reduce(factor)


def hash_of(grey: Image.Image) -> str:
    """Return 64 bits that change little with the picture: which of two neighbours of nine by eight is brighter.

    The difference hash of N. Krawetz, "Kind of like that" (2013).
    """
    factor = max(1, min(grey.size) // 64)
    tiny = np.asarray(grey.reduce(factor).resize((_HASH_SIDE + 1, _HASH_SIDE), Image.Resampling.BOX), dtype=np.int16)
    bits = np.packbits(tiny[:, 1:] > tiny[:, :-1])
    return bits.tobytes().hex()


def _spread(levels: npt.NDArray[np.float64]) -> float:
    share = levels / levels.sum()
    mean = float(share @ _LEVELS)
    return math.sqrt(max(0.0, float(share @ _LEVELS**2) - mean * mean))


def _variance(grey: Image.Image) -> float:
    return _spread(np.array(grey.histogram(), dtype=np.float64)) ** 2


def _levels(counts: npt.NDArray[np.float64], levels: npt.NDArray[np.float64]) -> tuple[tuple[str, float], ...]:
    share = levels / levels.sum()
    filled = share[share > 0]
    total = counts.sum()
    return (
        ("mean", float(share @ _LEVELS)),
        ("spread", _spread(levels)),
        ("entropy", float(-(filled * np.log2(filled)).sum())),
        ("clipped_low", float(counts[:, 0].sum() / total)),
        ("clipped_high", float(counts[:, 255].sum() / total)),
    )


def _colour(image: Image.Image) -> tuple[tuple[str, float], ...]:
    """Return opponent colours and colourfulness (D. Hasler, S. Suesstrunk, 2003), of pixels on a grid."""
    step = max(1, min(image.size) // _COLOUR_SIDE)
    size = (max(1, image.width // step), max(1, image.height // step))
    sampled = np.asarray(image if step == 1 else image.resize(size, Image.Resampling.NEAREST))
    red, green, blue = (sampled[:, :, channel].astype(np.int16) for channel in range(3))
    red_green, yellow_blue = red - green, (red + green) // 2 - blue
    spread = math.hypot(float(red_green.std()), float(yellow_blue.std()))
    means = float(red_green.mean()), float(yellow_blue.mean())
    return (
        ("red_green", means[0]),
        ("yellow_blue", means[1]),
        ("colourfulness", spread + 0.3 * math.hypot(*means)),
    )


def _structure(grey: Image.Image, luma: Luma, levels: npt.NDArray[np.float64]) -> tuple[tuple[str, float], ...]:
    """Return what is seen in how pixels differ from their neighbours."""
    if min(luma.shape) < 4:
        return tuple((name, 0.0) for name in _STRUCTURE)
    height, width = luma.shape
    sums = _Sums(height, width)
    rows = max(4, _BAND_VALUES // width // 2 * 2)
    for top in range(0, height, rows):
        sums.add(luma, top, min(top + rows, height))
    variance = _spread(levels) ** 2
    halves = grey.reduce(2)
    between = {2: _variance(halves), 8: _variance(halves.reduce(4))}
    whole = max(variance, _FLAT)
    return (
        ("fine_share", _share(1.0 - between[2] / whole, variance)),
        ("middle_share", _share((between[2] - between[8]) / whole, variance)),
        ("sharpness", math.log1p(sums.bend / (height * (width - 2)))),
        ("blockiness", max(_blockiness(sums.across / height), _blockiness(sums.down[:-1] / width))),
        ("checker", sums.checker / max(math.sqrt(variance), 1.0) / max(1, height // 2 * (width // 2))),
        ("row_stripes", _stripes(sums.rows / width)),
        ("column_stripes", _stripes(sums.columns / height)),
        ("dots", 1000 * sums.dots / ((height - 2) * (width - 2))),
    )


class _Sums:
    """Sums over a picture, taken band by band, so that what is worked on stays in the processor's cache."""

    def __init__(self, height: int, width: int) -> None:
        self.across: npt.NDArray[np.float64] = np.zeros(width - 1)  # |step to the next column|, of each column
        self.down: npt.NDArray[np.float64] = np.zeros(height)  # |step to the next row|, of each row
        self.rows: npt.NDArray[np.float64] = np.zeros(height)
        self.columns: npt.NDArray[np.float64] = np.zeros(width)
        self.bend = 0.0  # squared second differences along rows
        self.checker = 0.0  # strength of the finest checkerboard, in levels
        self.dots = 0  # pixels that stand out from each of their four neighbours the same way

    def add(self, luma: Luma, top: int, end: int) -> None:
        """Add the rows [top, end); of the neighbours beyond them as much as is needed is looked at."""
        band = luma[top:end]
        across, down = np.diff(band, axis=1), np.diff(luma[top : end + 1], axis=0)
        self.across += np.abs(across).sum(axis=0, dtype=np.int32)
        self.down[top : top + len(down)] = np.abs(down).sum(axis=1, dtype=np.int32)
        self.rows[top:end] = band.sum(axis=1, dtype=np.int32)
        self.columns += band.sum(axis=0, dtype=np.int32)
        bend = np.diff(across, axis=1).astype(np.float32).ravel()
        self.bend += float(bend @ bend)
        pairs = np.diff(across[: len(band) // 2 * 2].reshape(-1, 2, band.shape[1] - 1)[:, :, ::2], axis=1)
        self.checker += float(np.abs(pairs).sum(dtype=np.int64)) / 4
        inner = slice(max(top - 1, 0), min(end + 1, len(luma)))
        self.dots += _dots(luma[inner])


def _share(value: float, variance: float) -> float:
    return min(1.0, max(0.0, value)) if variance > _FLAT else 0.0


def _blockiness(edges: npt.NDArray[np.float64]) -> float:
    """Return how much stronger edges are at the most marked of eight phases than elsewhere, as a logarithm."""
    if len(edges) < 32:
        return 0.0
    whole = edges[: len(edges) // 8 * 8].reshape(-1, 8).mean(axis=0)
    strongest = float(whole.max())
    others = (float(whole.sum()) - strongest) / 7
    return math.log((strongest + 0.5) / (others + 0.5))


def _stripes(means: npt.NDArray[np.float64]) -> float:
    """Return how much the means of rows or columns zigzag, in levels."""
    return float(np.abs(np.diff(means, 2)).mean())


def _dots(luma: Luma) -> int:
    """Count the pixels that stand out from each of their four neighbours the same way."""
    middle = luma[1:-1, 1:-1]
    near = luma[1:-1, :-2], luma[1:-1, 2:], luma[:-2, 1:-1], luma[2:, 1:-1]
    highest = np.maximum(np.maximum(near[0], near[1]), np.maximum(near[2], near[3]))
    lowest = np.minimum(np.minimum(near[0], near[1]), np.minimum(near[2], near[3]))
    return int(np.count_nonzero(middle - highest > _DOT)) + int(np.count_nonzero(lowest - middle > _DOT))
