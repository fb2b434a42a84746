"""An invisible watermark of ours: a 64-bit id in the frequencies of a picture, under a key, without any weights.

The picture is read as 512 x 512 samples of luminance, whatever its size, and transformed by a discrete cosine transform
of the whole. The coefficients of middle frequencies are dealt by the key to 192 directions, and the length along each
is moved to the next point of a lattice that stands for 0 or 1: spread-transform dither modulation (Chen and Wornell
2001, "Quantization index modulation"). The 192 bits are eight words of the extended Golay code (24, 12), which corrects
three wrong bits in each; they hold the id and 32 bits of HMAC, so that chance shows an id in one of half a billion
pictures.

It survives JPEG at quality 75 and above, scaling from half to double, turning by quarters and mirroring (measured by
`tests/safety/provenance/test_watermark.py`). It does not survive cropping, turning by other angles, strong changes of
contrast, or a new picture painted over it; whoever has the key can remove it. Very dark, very bright or nearly flat
pictures may not hold it: `mark` says so. Pure. Called by `stamp`, and by `made` to read.
"""

import functools
import hashlib
import hmac
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image

from forestay.errors import UsageError
from forestay.safety.hashes.pdq import Pixels

ID_BITS = 64
LEAST_SIDE = 128  # pixels: smaller pictures have too few of the frequencies
_SIDE = 512
_FIRST, _LAST = 12, 92  # frequencies used, either way: waves of 11 to 85 samples
_CHECK_BITS = 32
_WORDS = (ID_BITS + _CHECK_BITS) // 12
_DIRECTIONS = 24 * _WORDS
_STEP = 160.0  # of the lattice, in units of the orthonormal transform: about 46 dB
_TRIES = 3  # rounding and clipping move a mark a little; it is written again on what came of it
_GOLAY = 0xC75  # generator polynomial of the perfect Golay code (23, 12)
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
Plane = npt.NDArray[np.float32]
Bits = npt.NDArray[np.int64]


class Watermark:
    """Writes and reads marks under one key."""

    def __init__(self, key: str) -> None:
        if len(key) < 16:
            raise UsageError("FORESTAY_WATERMARK_KEY", "must have at least 16 characters")
        self._key = hashlib.sha256(b"forestay watermark 1\n" + key.encode()).digest()
        self._places, self._signs = _directions(self._key)

    def mark(self, rgb: Pixels, mark_id: int) -> Pixels | None:
        """Return the picture, `[height, width, 3] uint8`, with an id of 64 bits; None where it cannot hold one."""
        _check(rgb)
        if not 0 <= mark_id < 1 << ID_BITS:
            raise UsageError("mark_id", f"must have at most {ID_BITS} bits")
        if min(rgb.shape[:2]) < LEAST_SIDE:
            return None
        wanted = _encoded(self._payload(mark_id))
        marked = rgb.astype(np.float32)
        for _ in range(_TRIES):
            marked += self._change(marked, wanted)[:, :, None]
            np.clip(marked, 0, 255, out=marked)
        made = np.rint(marked).astype(np.uint8)
        return made if self.read(made) == mark_id else None

    def read(self, rgb: Pixels) -> int | None:
        """Return the id in a picture, `[height, width, 3] uint8`, turned by quarters or mirrored; None without one."""
        _check(rgb)
        if min(rgb.shape[:2]) < LEAST_SIDE // 2:
            return None
        for form in _forms(_spectrum(_canonical(rgb.astype(np.float32)))):
            payload = _decoded(_leanings(self._lengths(form)))
            mark_id = payload >> _CHECK_BITS
            if hmac.compare_digest(self._check(mark_id), (payload & (1 << _CHECK_BITS) - 1).to_bytes(4)):
                return mark_id
        return None

    def _payload(self, mark_id: int) -> int:
        return mark_id << _CHECK_BITS | int.from_bytes(self._check(mark_id))

    def _check(self, mark_id: int) -> bytes:
        return hmac.digest(self._key, mark_id.to_bytes(8), "sha256")[: _CHECK_BITS // 8]

    def _lengths(self, spectrum: Plane) -> npt.NDArray[np.float64]:
        """Return how far the picture reaches along each direction."""
        band = spectrum.reshape(-1)[self._places]
        return (band * self._signs).sum(axis=1, dtype=np.float64) / np.sqrt(band.shape[1])

    def _change(self, rgb: Plane, wanted: Bits) -> Plane:
        """Return what to add to each pixel so that every direction lies on the lattice of its bit."""
        lengths = self._lengths(_spectrum(_canonical(rgb)))
        offset = np.where(wanted == 1, 0.25, -0.25)
        moved = (np.rint(lengths / _STEP - offset) + offset) * _STEP - lengths
        band = np.zeros((_LAST - _FIRST) ** 2, np.float32)
        band[self._places.reshape(-1)] = (
            self._signs * (moved / np.sqrt(self._signs.shape[1]))[:, None]
        ).reshape(-1)  # fmt: skip
        basis = _basis()
        delta = basis.T @ band.reshape(_LAST - _FIRST, -1) @ basis
        return _scaled(delta.astype(np.float32), rgb.shape[1], rgb.shape[0])


def _check(rgb: Pixels) -> None:
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or not rgb.size:
        raise UsageError("picture", f"must be [height, width, 3] uint8 with at least one pixel, not {rgb.shape}")


def _directions(key: bytes) -> tuple[npt.NDArray[np.intp], Plane]:
    """Deal the coefficients of the band to directions, each with its signs: `[192, coefficients]`."""
    stream = np.random.Generator(np.random.Philox(key=int.from_bytes(key[:16])))
    size = (_LAST - _FIRST) ** 2
    each = size // _DIRECTIONS
    places = stream.permutation(size)[: each * _DIRECTIONS].reshape(_DIRECTIONS, each)
    signs = stream.integers(0, 2, places.shape) * 2 - 1
    return places.astype(np.intp), signs.astype(np.float32)


def _canonical(rgb: Plane) -> Plane:
    """Return the luminance as 512 x 512 samples."""
    return _scaled(np.ascontiguousarray(rgb @ _LUMA), _SIDE, _SIDE)


def _scaled(plane: Plane, width: int, height: int) -> Plane:
    image = Image.fromarray(plane).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image, np.float32)


@functools.cache
def _basis() -> Plane:
    """Return the rows of the used frequencies of the orthonormal cosine transform of 512 samples."""
    rows, places = np.arange(_FIRST, _LAST)[:, None], np.arange(_SIDE)[None, :]
    return (np.sqrt(2 / _SIDE) * np.cos(np.pi / 2 / _SIDE * rows * (2 * places + 1))).astype(np.float32)


def _spectrum(samples: Plane) -> Plane:
    return (_basis() @ samples @ _basis().T).astype(np.float32)


def _forms(spectrum: Plane) -> Iterator[Plane]:
    """Yield the spectra of the picture as it is and in its seven turned and mirrored forms."""
    signs = np.where(np.arange(_FIRST, _LAST) % 2, -1.0, 1.0).astype(np.float32)
    across, down = signs[None, :], signs[:, None]
    for form in (spectrum, spectrum * across, spectrum * down, spectrum * across * down):
        yield form
        yield form.T


def _leanings(lengths: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return for each direction how surely it says 1 (towards +1) or 0 (towards -1)."""
    return np.sin(2 * np.pi * lengths / _STEP)


@functools.cache
def _codebook() -> Bits:
    """Return the 4,096 words of the extended Golay code, `[4096, 24]`, each row's first twelve bits its number."""
    numbers = np.arange(4_096)
    rest = numbers << 11
    for bit in range(22, 10, -1):
        rest ^= np.where(rest >> bit & 1, _GOLAY << (bit - 11), 0)
    words = numbers << 11 | rest
    bits = words[:, None] >> np.arange(22, -1, -1) & 1
    return np.concatenate([bits, bits.sum(axis=1, keepdims=True) % 2], axis=1)


def _encoded(payload: int) -> Bits:
    numbers = [payload >> 12 * place & 0xFFF for place in range(_WORDS)]
    return _codebook()[numbers].reshape(-1)


def _decoded(leanings: npt.NDArray[np.float64]) -> int:
    """Return the likeliest payload: for each word the code word that agrees best."""
    agreement = leanings.reshape(_WORDS, 24) @ (2 * _codebook() - 1).T
    return sum(int(number) << 12 * place for place, number in enumerate(agreement.argmax(axis=1)))
