"""Numbers of a recording, block by block as it is decoded. Pure: `Samples` is given one block after the other.

Windows of 20 ms give levels; spectra are taken of windows of 1,024 samples on a grid, so that a long recording costs no
more than a short one. What is no number counts as such and is otherwise heard as silence.
"""

import math

import numpy as np
import numpy.typing as npt
from numpy import fft  # named, so that it is loaded before files may no longer be opened

from forestay.media.measures import SoundMeasures

WINDOW_SECONDS = 0.02
SILENT = 1e-3  # of full scale, root mean square: -60 dB
_FULL = 0.999
_FLAT_RUN = 4  # equal samples in a row at the peak that make a flat top
_DISTINCT = 64
_SPECTRUM = 1024
_SPECTRA = 64
_CLICK = 12.0  # times the usual step from sample to sample, that makes a click
_FLOOR = 1e-7

Block = npt.NDArray[np.float32]  # [samples, channels], full scale is 1


class Samples:
    """Takes blocks in order."""

    def __init__(self, sample_rate: int, channels: int, codec: str, start: float = 0.0) -> None:
        self._rate = sample_rate
        self._channels = channels
        self._codec = codec
        self._start = start
        self._window = max(1, int(sample_rate * WINDOW_SECONDS))
        self._rest: Block = np.zeros(0, dtype=np.float32)
        self._levels: list[npt.NDArray[np.float64]] = []
        self._values: set[float] = set()
        self._count = 0
        self._peak = 0.0
        self._tops = _Tops()
        self._not_finite = 0
        self._sum = 0.0
        self._crossings = 0
        self._clicks = 0
        self._spectrum: npt.NDArray[np.float64] = np.zeros(_SPECTRUM // 2 + 1)
        self._spectra = 0

    def take(self, block: Block) -> None:
        """Take a block."""
        finite = np.isfinite(block)
        self._not_finite += int(block.size - np.count_nonzero(finite))
        if not finite.all():
            block = np.where(finite, block, np.float32(0))
        self._count += len(block)
        if len(self._values) < _DISTINCT:
            self._values |= set(np.unique(block)[: 4 * _DISTINCT].tolist())
        mixed = block.mean(axis=1, dtype=np.float32)
        self._peak = max(self._peak, float(np.abs(block).max(initial=0.0)))
        self._tops.add(block)
        self._sum += float(mixed.sum(dtype=np.float64))
        self._windows(mixed)

    def measures(self) -> SoundMeasures:
        """Return the numbers of what was taken."""
        levels = np.concatenate([*self._levels, np.zeros(0)])
        if not len(levels) and len(self._rest):
            levels = np.array([_level(self._rest)])
        silent = levels < SILENT
        return SoundMeasures(
            seconds=self._count / self._rate,
            sample_rate=self._rate,
            channels=self._channels,
            codec=self._codec,
            peak=self._peak,
            distinct=min(_DISTINCT, len(self._values)),
            not_finite=self._not_finite,
            silent_share=float(silent.mean()) if len(levels) else 1.0,
            silent_seconds=_longest(silent) * WINDOW_SECONDS,
            clipped_share=self._tops.at(self._peak) / max(1, self._count * self._channels),
            sound_start=self._start,
            features=self._features(levels, silent),
        )

    def _windows(self, mixed: Block) -> None:
        held = np.concatenate([self._rest, mixed])
        whole = len(held) // self._window * self._window
        self._rest = held[whole:]
        if not whole:
            return
        windows = held[:whole].reshape(-1, self._window)
        self._levels.append(np.sqrt(np.square(windows, dtype=np.float32).mean(axis=1, dtype=np.float64)))
        steps = np.diff(held[:whole])
        self._crossings += int(np.count_nonzero(np.signbit(held[1:whole]) != np.signbit(held[: whole - 1])))
        usual = float(np.abs(steps).mean()) if len(steps) else 0.0
        self._clicks += int(np.count_nonzero(np.abs(steps) > max(_CLICK * usual, 0.02)))
        self._hear(held[:whole])

    def _hear(self, held: Block) -> None:
        for begin in range(0, len(held) - _SPECTRUM + 1, max(_SPECTRUM, len(held) // 8)):
            if self._spectra >= _SPECTRA:
                return
            bins = fft.rfft(held[begin : begin + _SPECTRUM] * _HANN)
            self._spectrum += np.square(np.abs(bins))
            self._spectra += 1

    def _features(self, levels: npt.NDArray[np.float64], silent: npt.NDArray[np.bool_]) -> tuple[float, ...]:
        heard = levels[~silent]
        level = float(np.sqrt(np.square(levels).mean())) if len(levels) else 0.0
        power = self._spectrum + _FLOOR
        share = power / power.sum()
        place = np.linspace(0.0, 1.0, len(power))
        centre = float(share @ place)
        count = max(1, self._count)
        spread = float(np.log10(np.maximum(heard, _FLOOR)).std()) if len(heard) else 0.0
        return (
            _decibels(level),
            20 * spread,
            _decibels(self._peak) - _decibels(level),
            float(np.exp(np.log(power).mean()) / power.mean()),
            centre,
            math.sqrt(max(0.0, float(share @ place**2) - centre * centre)),
            self._crossings / count,
            float(silent.mean()) if len(levels) else 1.0,
            self._tops.at(self._peak) / (count * self._channels),
            1000 * self._clicks / count,
            self._sum / count,
        )


class _Tops:
    """Counts samples in flat tops: runs of equal samples at full scale, or at whatever turns out to be the peak."""

    def __init__(self) -> None:
        self._by_level: dict[float, int] = {}

    def add(self, block: Block) -> None:
        high = float(np.abs(block).max(initial=0.0))
        if high <= SILENT:
            return
        for channel in range(block.shape[1]):
            samples = np.abs(block[:, channel])
            at_top = samples >= min(high, _FULL)
            edges = np.flatnonzero(np.diff(np.concatenate(([False], at_top, [False])).astype(np.int8)))
            lengths = edges[1::2] - edges[0::2]
            count = int(lengths[lengths >= _FLAT_RUN].sum())
            if count:
                key = min(high, _FULL)
                self._by_level[key] = self._by_level.get(key, 0) + count

    def at(self, peak: float) -> int:
        """Count those that reach the peak of the whole recording, within a thousandth."""
        return sum(count for level, count in self._by_level.items() if level >= min(peak, _FULL) - SILENT)


_HANN = np.hanning(_SPECTRUM).astype(np.float32)


def _level(samples: Block) -> float:
    return math.sqrt(float(np.square(samples).mean(dtype=np.float64)))


def _decibels(level: float) -> float:
    return 20 * math.log10(max(level, _FLOOR))


def _longest(flags: npt.NDArray[np.bool_]) -> int:
    """Return the length of the longest run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
    return int((edges[1::2] - edges[0::2]).max(initial=0))
