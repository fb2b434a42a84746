"""How far apart two recordings are that should be the same: spectrum, level, shape and length. Pure."""

import math

import numpy as np
import numpy.typing as npt

from forestay.media.measures import SOUND_FEATURES, SoundMeasures

Sound = npt.NDArray[np.float32]  # [samples], full scale 1

_BANDS = 40
_WINDOW_SECONDS = 0.032
_FLOOR_DB = -80.0
_SPECTRAL = ("flatness", "centroid", "bandwidth", "zero_crossings")
_RANGE_DB = 40.0  # a difference of this much in every band counts as 1


def compare_sounds(one: Sound, other: Sound, sample_rate: int) -> dict[str, float]:
    """Return distances of two recordings `[samples] float32` at `sample_rate` samples a second: 0 when they are equal.

    `spectrum`: mean absolute difference of log-mel levels, of 40 dB. `loudness`: difference of levels, of 40 dB.
    `wave`: level of the difference over that of the sum. `length`: share of samples that one of them lacks. A sample
    that is no number counts as silence, and `not_a_number` is the difference of their shares.
    """
    clean, clean_other = np.nan_to_num(one, nan=0, posinf=0, neginf=0), np.nan_to_num(other, nan=0, posinf=0, neginf=0)
    shared = min(len(clean), len(clean_other))
    bad = abs(float(1.0 - np.isfinite(one).mean()) - float(1.0 - np.isfinite(other).mean())) if shared else 0.0
    length = abs(len(one) - len(other)) / max(len(one), len(other), 1)
    if shared == 0:
        return {"length": length, "not_a_number": bad}
    first, second = clean[:shared].astype(np.float64), clean_other[:shared].astype(np.float64)
    levels, levels_other = log_mel(first, sample_rate), log_mel(second, sample_rate)
    return {
        "spectrum": float(np.abs(levels - levels_other).mean() / _RANGE_DB),
        "loudness": abs(_decibels(first) - _decibels(second)) / _RANGE_DB,
        "wave": _relative(first, second),
        "length": length,
        "not_a_number": bad,
    }


def log_mel(sound: npt.NDArray[np.float64], sample_rate: int) -> npt.NDArray[np.float64]:
    """Return levels in dB `[windows, 40]` over mel bands: triangles, Hann windows of 32 ms, half overlapping."""
    size = max(64, 2 ** round(np.log2(sample_rate * _WINDOW_SECONDS)))
    padded = np.pad(sound, (0, max(0, size - len(sound))))
    windows = np.lib.stride_tricks.sliding_window_view(padded, size)[:: size // 2]
    power = np.abs(np.fft.rfft(windows * np.hanning(size), axis=1)) ** 2 / size
    bands = power @ _triangles(size // 2 + 1, sample_rate).T
    return np.maximum(10.0 * np.log10(bands + 1e-12), _FLOOR_DB)


def _triangles(bins: int, sample_rate: int) -> npt.NDArray[np.float64]:
    """Return the weights `[40, bins]`; mel scale of O'Shaughnessy (1987): 2595 log10(1 + f / 700)."""
    top = math.log1p(sample_rate / 2 / 700.0)  # of 2595 / ln 10 mel
    edges = np.array([700.0 * math.expm1(top * step / (_BANDS + 1)) for step in range(_BANDS + 2)])
    places = np.linspace(0.0, sample_rate / 2, bins)
    rising = (places - edges[:-2, None]) / np.maximum(edges[1:-1] - edges[:-2], 1e-9)[:, None]
    falling = (edges[2:, None] - places) / np.maximum(edges[2:] - edges[1:-1], 1e-9)[:, None]
    return np.clip(np.minimum(rising, falling), 0.0, None)


def _decibels(sound: npt.NDArray[np.float64]) -> float:
    return max(_FLOOR_DB, float(10.0 * np.log10(np.mean(sound**2) + 1e-12)))


def _relative(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    total = float(np.sqrt(np.mean(one**2)) + np.sqrt(np.mean(other**2)))
    return float(np.sqrt(np.mean((one - other) ** 2))) / total if total > 0 else 0.0


def compare_measured(one: SoundMeasures, other: SoundMeasures) -> dict[str, float]:
    """Return distances of two recordings that were only measured: what `compare_sounds` says, without their samples.

    `spectrum` is then the mean difference of flatness, centroid, bandwidth and zero crossings, each over its sum.
    """
    first = dict(zip(SOUND_FEATURES, one.features, strict=False))
    second = dict(zip(SOUND_FEATURES, other.features, strict=False))
    gaps = [_apart(first.get(name, 0.0), second.get(name, 0.0)) for name in _SPECTRAL]
    return {
        "spectrum": float(np.mean(gaps)),
        "loudness": abs(first.get("level_db", 0.0) - second.get("level_db", 0.0)) / _RANGE_DB,
        "wave": abs(one.peak - other.peak),
        "length": abs(one.seconds - other.seconds) / max(one.seconds, other.seconds, 1e-9),
        "not_a_number": float((one.not_finite > 0) != (other.not_finite > 0)),
    }


def _apart(one: float, other: float) -> float:
    total = abs(one) + abs(other)
    return abs(one - other) / total if total > 0 else 0.0
