"""PDQ: a picture as 256 bits, of which few change when the picture is scaled or coded anew.

Source: "The TMK+PDQF Video-Hashing Algorithm and the PDQ Image-Hashing Algorithm" (Facebook, 2019,
github.com/facebook/ThreatExchange, hashing/hashing.pdf): luminance, two passes of a box filter (Jarosz), 64 x 64
samples, the sixteen lowest frequencies either way without the constant one, and one bit for each that is above the
median. Decides nothing; never opens a file: it takes pixels. Called by the matcher, by fingerprints and by the command
line.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from forestay.errors import UsageError

BITS = 256
HEX_DIGITS = BITS // 4
LEAST_QUALITY = 50  # of 100; the paper advises against matching below it: flat pictures share their hashes
_SIDE = 64
_FREQUENCIES = 16
_PASSES = 2
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
Pixels = npt.NDArray[np.uint8]
Plane = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True, slots=True)
class Hash:
    """A PDQ hash: `value` has 256 bits, `quality` is 0 to 100 (how much structure the picture has)."""

    value: int
    quality: int = 100

    @property
    def hex(self) -> str:
        """Return the 64 hexadecimal digits in which hashes are exchanged."""
        return f"{self.value:0{HEX_DIGITS}x}"


def read_hex(text: str, field: str = "hash") -> int:
    """Return the value of 64 hexadecimal digits; UsageError names `field` otherwise."""
    digits = text.strip().lower()
    if len(digits) != HEX_DIGITS or not set(digits) <= set("0123456789abcdef"):
        raise UsageError(field, f"must be a PDQ hash: {HEX_DIGITS} hexadecimal digits, not {text[:80]!r}")
    return int(digits, 16)


def distance(one: int, other: int) -> int:
    """Return in how many of the 256 bits two hashes differ."""
    return (one ^ other).bit_count()


def hash_of(rgb: Pixels) -> Hash:
    """Return the hash of a picture, `[height, width, 3] uint8`; UsageError when it has another shape or no pixel."""
    samples = _samples(rgb)
    return Hash(_value(_frequencies(samples)), _quality(samples))


def hashes_of(rgb: Pixels) -> Sequence[Hash]:
    """Return the hashes of a picture as it is, turned by 90, 180, 270 degrees, and of each of these mirrored.

    The picture, `[height, width, 3] uint8`, is filtered once: the eight follow from signs and the transpose of its
    frequencies, as the paper shows, and differ from those of the turned picture in few bits.
    """
    samples = _samples(rgb)
    quality, seen = _quality(samples), _frequencies(samples)
    odd = np.array([-1.0, 1.0] * (_FREQUENCIES // 2), np.float32)  # a mirror turns the sign of odd frequencies
    across, down = odd[None, :], odd[:, None]
    upright: tuple[Plane, ...] = (seen, seen * across, seen * down, seen * across * down)
    return [Hash(_value(plane), quality) for plane in (*upright, *(plane.T for plane in upright))]


def _samples(rgb: Pixels) -> Plane:
    """Return 64 x 64 samples of the blurred luminance."""
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or not rgb.size:
        raise UsageError("picture", f"must be [height, width, 3] uint8 with at least one pixel, not {rgb.shape}")
    height, width = rgb.shape[:2]
    plane = np.zeros((height, width), np.float32)
    for channel in range(3):
        plane += rgb[:, :, channel] * _LUMA[channel]
    for _ in range(_PASSES):
        plane = _blurred(plane, -(-width // (2 * _SIDE)))
        plane = _blurred(plane.T, -(-height // (2 * _SIDE))).T
    steps = np.arange(_SIDE) + 0.5
    rows, columns = (steps * height / _SIDE).astype(np.intp), (steps * width / _SIDE).astype(np.intp)
    return plane[np.ix_(rows, columns)].astype(np.float32)


def _blurred(plane: Plane, window: int) -> Plane:
    """Return the running mean along rows; at the ends over the part of the window that exists."""
    if window == 1:
        return plane
    right = (window + 2) // 2 - 1
    left = window - right - 1
    length = plane.shape[1]
    sums = np.zeros((plane.shape[0], length + 1))
    np.cumsum(plane, axis=1, dtype=np.float64, out=sums[:, 1:])
    places = np.arange(length, dtype=np.intp)
    first, last = np.maximum(places - left, 0), np.minimum(places + right, length - 1) + 1
    return ((sums[:, last] - sums[:, first]) / (last - first)).astype(np.float32)


def _quality(samples: Plane) -> int:
    """Return 0 to 100: the sum of the steps between neighbours, each in whole hundredths of the range."""
    steps = (np.abs(np.diff(samples, axis=axis) * 100 / 255).astype(np.int64).sum() for axis in (0, 1))
    return min(100, int(sum(steps)) // 90)


@functools.cache
def _basis() -> Plane:
    """Return the rows 1 to 16 of the discrete cosine transform of 64 samples."""
    rows = np.arange(1, _FREQUENCIES + 1)[:, None]
    places = np.arange(_SIDE)[None, :]
    return (np.sqrt(2 / _SIDE) * np.cos(np.pi / 2 / _SIDE * rows * (2 * places + 1))).astype(np.float32)


def _frequencies(samples: Plane) -> Plane:
    return (_basis() @ samples @ _basis().T).astype(np.float32)


def _value(frequencies: Plane) -> int:
    """Return one bit a frequency, the first in the lowest bit: whether it is above the lower median."""
    flat = frequencies.reshape(-1)
    median = np.partition(flat, BITS // 2 - 1)[BITS // 2 - 1]
    return int.from_bytes(np.packbits(flat > median, bitorder="little").tobytes(), "little")
