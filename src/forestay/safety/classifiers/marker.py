"""Finds drawn marker tokens, which stand for unsafe content in demonstrations and tests; nothing else.

A marker is a square of 12 x 12 cells, black or white: a black ring, a white ring, and 8 x 8 cells that name a category
(bits of a digest of its name). Found upright, anywhere, from a twelfth of the picture's long side on, also after
scaling and JPEG. It declares to cover nothing, since it knows nothing of real pictures: no policy can rest on it, only
name it beside a real detector. Loaded by the judge with FORESTAY_SAFETY_MARKERS alone.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from forestay.safety.judge.lanes import Detector
from forestay.safety.model import Content, DetectorInfo, Outcome, Picture, Scores, Trouble, Unscored
from forestay.safety.taxonomy import Category

DETECTOR_ID = "marker@1"
CELLS = 12
_CODE_CELLS = 8
_SIDE = 480  # pixels: a larger picture is looked at in this size
_SMALLEST_CELL = 2.9
_SCALE_STEP = 1.09
_CONTRAST = 70.0  # of 255, between the rings
_WRONG_RING_CELLS = 6  # of 80
_WRONG_CODE_CELLS = 6  # of 64; codes differ in 20 or more
_CANDIDATES = 48  # a scale

Grey = NDArray[np.float64]
Cells = NDArray[np.bool_]
Places = NDArray[np.int_]


def code_of(category: Category) -> Cells:
    """Return the 8 x 8 cells of a category, True where white."""
    bits = np.frombuffer(hashlib.sha256(f"forestay marker {category}".encode()).digest()[:8], np.uint8)
    return np.unpackbits(bits).reshape(_CODE_CELLS, _CODE_CELLS).astype(np.bool_)


_CODES: Mapping[Category, Cells] = {category: code_of(category) for category in Category}


def cells_of(category: Category) -> Cells:
    """Return all 12 x 12 cells of a marker, True where white."""
    cells = np.zeros((CELLS, CELLS), np.bool_)
    cells[1:-1, 1:-1] = True
    cells[2:-2, 2:-2] = _CODES[category]
    return cells


def draw(category: Category, cell_pixels: int = 16, margin_cells: int = 1) -> Picture:
    """Draw a marker on white: `[side, side, 3] uint8` with a margin around it."""
    framed = np.pad(cells_of(category), margin_cells, constant_values=True)
    grey = np.kron(framed.astype(np.uint8) * 255, np.ones((cell_pixels, cell_pixels), np.uint8))
    side = int(grey.shape[0])
    return Picture(f"marker {category}", side, side, np.repeat(grey[:, :, np.newaxis], 3, axis=2).tobytes())


def find(picture: Picture) -> frozenset[Category]:
    """Return the categories whose markers are in the picture."""
    grey = _shrunk(picture)
    # Sums of all pixels above and to the left: the mean of any box costs four look-ups.
    sums = np.pad(grey, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    found: set[Category] = set()
    for cell in _scales(grey.shape):
        for top, left in _candidates(sums, cell):
            category = _read(sums, top, left, cell)
            if category is not None:
                found.add(category)
    return frozenset(found)


class Markers:
    """The detector."""

    @property
    def info(self) -> DetectorInfo:
        """Return what it declares: nothing."""
        codes = b"".join(np.packbits(code).tobytes() for code in _CODES.values())
        return DetectorInfo(DETECTOR_ID, f"sha256:{hashlib.sha256(codes).hexdigest()}", {}, costly=False)

    def load(self) -> None:
        """Need nothing."""

    def settle(self) -> None:
        """Need nothing more."""

    def score(self, content: Content) -> Outcome:
        """Return 1 for each category whose marker is there."""
        if not isinstance(content, Picture):
            return Unscored(DETECTOR_ID, content.where, Trouble.UNREADABLE)
        return Scores(DETECTOR_ID, content.where, dict.fromkeys(sorted(find(content)), 1.0))


def _shrunk(picture: Picture) -> Grey:
    """Return the picture in grey, by a whole factor smaller where its long side is more than twice what is needed."""
    rgb = np.frombuffer(picture.rgb, np.uint8).reshape(picture.height, picture.width, 3)
    factor = max(1, max(rgb.shape[:2]) // _SIDE)
    height, width = (rgb.shape[0] // factor * factor, rgb.shape[1] // factor * factor)
    if not height or not width:
        return rgb.mean(axis=2)
    boxes = rgb[:height, :width].reshape(height // factor, factor, width // factor, factor, 3)
    return boxes.mean(axis=(1, 3, 4), dtype=np.float64)


def _scales(shape: tuple[int, ...]) -> Iterator[float]:
    largest = min(shape) / CELLS
    if largest < _SMALLEST_CELL:
        return
    steps = int(math.log(largest / _SMALLEST_CELL) / math.log(_SCALE_STEP))
    yield from (_SMALLEST_CELL * _SCALE_STEP**step for step in range(steps + 1))
    yield largest


def _candidates(sums: Grey, cell: float) -> list[tuple[float, float]]:
    """Return where the rings could be, at one scale: dark around light."""
    step = max(1, int(cell / 3))
    side = round(cell * CELLS)
    height, width = sums.shape
    rows: Places = np.arange(0, int(height) - side, step)
    columns: Places = np.arange(0, int(width) - side, step)
    if not rows.size or not columns.size:
        return []
    boxes = [_boxes(sums, rows, columns, round(cell * inset), side - 2 * round(cell * inset)) for inset in (0, 1, 2)]
    (outer, a), (middle, b), (inner, c) = boxes
    contrast = (middle - inner) / (b - c) - (outer - middle) / (a - b)
    best = np.argsort(contrast, axis=None)[::-1][:_CANDIDATES]
    places = [(int(index) // columns.size, int(index) % columns.size) for index in best]
    return [(float(rows[y]), float(columns[x])) for y, x in places if contrast[y, x] >= _CONTRAST]


def _boxes(sums: Grey, rows: Places, columns: Places, inset: int, side: int) -> tuple[Grey, float]:
    """Return the sum of pixels of a box at each place, and how many they are."""
    top, left = (rows + inset)[:, np.newaxis], (columns + inset)[np.newaxis, :]
    total = sums[top + side, left + side] - sums[top, left + side] - sums[top + side, left] + sums[top, left]
    return total, float(side * side)


def _read(sums: Grey, top: float, left: float, cell: float) -> Category | None:
    """Read the cells of a marker at one place; None where there is none."""
    starts = np.arange(CELLS) * cell
    inset, width = cell * 0.25, max(1, round(cell * 0.5))
    rows = np.clip(np.round(top + starts + inset).astype(np.int_), 0, sums.shape[0] - 1 - width)
    columns = np.clip(np.round(left + starts + inset).astype(np.int_), 0, sums.shape[1] - 1 - width)
    total, count = _boxes(sums, rows, columns, 0, width)
    means = total / count
    dark, light = means[0].mean(), means[1, 1:-1].mean()
    white = means > (dark + light) / 2
    ring = cells_of(next(iter(Category)))
    outside = np.ones_like(white)
    outside[2:-2, 2:-2] = False
    if int((white != ring)[outside].sum()) > _WRONG_RING_CELLS:
        return None
    inside = white[2:-2, 2:-2]
    wrong = {category: int((inside != code).sum()) for category, code in _CODES.items()}
    nearest = min(wrong, key=lambda category: wrong[category])
    return nearest if wrong[nearest] <= _WRONG_CODE_CELLS else None


def detectors() -> list[Detector]:
    """Return what this module brings."""
    return [Markers()]
