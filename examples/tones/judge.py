"""Judge a tone: which pitch it has, by autocorrelation.

The judge knows nothing of the network. It finds the lag at which the steady middle of the sound is most like
itself, refines it between samples, and says how far that is from the note that was asked for, in cents.
"""

# ruff: noqa: PLC0415 - tests judge pictures without loading what only training needs

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 16_000
LOWEST_HZ = 100.0
HIGHEST_HZ = 1_300.0
TOLERANCE_CENTS = 50.0
STEPS_FROM_C = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
NOTE_NAMES = ("c", "c#", "d", "d#", "e", "f", "f#", "g", "g#", "a", "a#", "b")
# MIDI numbers of c3 and b5.
LOWEST_NOTE, HIGHEST_NOTE = 48, 83


def name_of(note: int) -> str:
    """Return the name of a MIDI note number: 69 is `a4`."""
    return f"{NOTE_NAMES[note % 12]}{note // 12 - 1}"


def frequency_of(note: int) -> float:
    """Return the frequency in Hz of a MIDI note number in equal temperament with a4 at 440 Hz."""
    return 440.0 * 2.0 ** ((note - 69) / 12.0)


def pitch_hz(samples: NDArray[np.float32]) -> float:
    """Return the pitch in Hz of mono samples at 16 kHz, or 0 when there is none."""
    middle = samples[1600:9792].astype(np.float64)
    middle = middle - middle.mean()
    if float(np.sqrt(np.mean(middle**2))) < 1e-3:
        return 0.0
    likeness = _normalised_autocorrelation(middle)
    shortest, longest = int(SAMPLE_RATE_HZ / HIGHEST_HZ), int(SAMPLE_RATE_HZ / LOWEST_HZ)
    part = likeness[shortest : longest + 1]
    peaks = np.flatnonzero((part[1:-1] > part[:-2]) & (part[1:-1] >= part[2:])) + 1
    if not len(peaks):
        return 0.0
    # The first peak nearly as high as the highest: multiples of the period look just as good.
    first = peaks[part[peaks] > 0.92 * part[peaks].max()][0] + shortest
    # Many periods further on the same error of a sample weighs less: measure at the longest good multiple.
    return SAMPLE_RATE_HZ / _refined_period(likeness, int(first), longest * 6)


def _normalised_autocorrelation(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    size = 2 ** int(np.ceil(np.log2(2 * len(samples))))
    spectrum = np.fft.rfft(samples, size)
    raw = np.fft.irfft(np.abs(spectrum) ** 2)[: len(samples)]
    energy = np.concatenate([[0.0], np.cumsum(samples**2)])
    lags = np.arange(len(samples))
    # Each lag compares two overlapping parts; dividing by their energies removes the preference for short lags.
    norm = np.sqrt(energy[len(samples) - lags] * (energy[-1] - energy[lags]))
    return raw / np.maximum(norm, 1e-12)


def _refined_period(likeness: NDArray[np.float64], period: int, furthest: int) -> float:
    best = _peak_near(likeness, period)
    multiple = 1
    while best * (multiple + 1) < min(furthest, len(likeness) // 2):
        multiple += 1
        best = _peak_near(likeness, round(best * multiple)) / multiple
    return best


def _peak_near(likeness: NDArray[np.float64], lag: int) -> float:
    lag = lag - 2 + int(np.argmax(likeness[lag - 2 : lag + 3]))
    left, middle, right = likeness[lag - 1 : lag + 2]
    bend = left - 2 * middle + right
    return lag + (0.5 * (left - right) / bend if bend < 0 else 0.0)


def cents_off(samples: NDArray[np.float32], note: int) -> float:
    """Return how many cents the samples are from a MIDI note; infinite when there is no pitch."""
    found = pitch_hz(samples)
    return abs(1200.0 * np.log2(found / frequency_of(note))) if found > 0 else float("inf")


def main() -> None:
    """Ask the app's network for every note in every timbre and print the share within 50 cents."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--weights", type=Path, default=Path(__file__).parent / "weights")
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    from train import score

    print(score(options.weights, options.steps))


if __name__ == "__main__":
    main()
