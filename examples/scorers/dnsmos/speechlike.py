"""Makes the frozen set: a sound like speech, from nothing but numbers, and the same made worse.

A voice of harmonics under moving formants says vowels in syllables, with a hiss as of an s between some. It is nobody's
voice and says no words. `python speechlike.py` writes the files that `frozen/frozen.json` names; what they score is
then learned by `forestay quality scorers check dnsmos@1 --file examples/scorers/scorers.yaml --learn`.
"""

from __future__ import annotations

import pathlib

import numpy as np
import soundfile
from numpy.typing import NDArray

FOLDER = pathlib.Path(__file__).with_name("frozen")
RATE_HZ = 16_000
# Middles of the first three formants in Hz (Peterson and Barney 1952, men): as in father, heed, who'd, head, hawed.
VOWELS = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410))
WIDTHS = (80.0, 110.0, 160.0)  # of the formants, in Hz
SYLLABLE_SECONDS = 0.24
SECONDS = 2.5  # doubled twice it is one window of DNSMOS
HARMONICS = 45

Sound = NDArray[np.float64]


def voice(seconds: float, rate_hz: int = RATE_HZ, seed: int = 1) -> Sound:
    """Return a clean voice `[samples]`, -1 to 1."""
    chance = np.random.default_rng(seed)
    at = np.arange(round(seconds * rate_hz)) / rate_hz
    count = int(seconds / SYLLABLE_SECONDS) + 2
    knots = np.arange(count) * SYLLABLE_SECONDS
    spoken = np.array(VOWELS, float)[chance.integers(0, len(VOWELS), count)]
    formants = [np.interp(at, knots, column) for column in spoken.T]
    pitch = np.interp(at, knots, 118 + 18 * chance.standard_normal(count)) * (1 + 0.01 * np.sin(2 * np.pi * 5.1 * at))
    phase = 2 * np.pi * np.cumsum(pitch) / rate_hz
    made = np.zeros(len(at))
    for number in range(1, HARMONICS + 1):
        made += envelope(number * pitch, formants) / number * np.sin(number * phase)
    within = (at / SYLLABLE_SECONDS) % 1.0
    loud = np.where(chance.random(count) < 0.22, 0.0, 0.6 + 0.4 * chance.random(count))  # some are pauses
    place = (at / SYLLABLE_SECONDS).astype(int)
    shaped = made / np.abs(made).max() * loud[place] * np.sin(np.pi * within) ** 0.7
    hiss = np.diff(chance.standard_normal(len(at) + 1)) * (within < 0.25) * np.sin(4 * np.pi * within)
    return 0.5 * (shaped + 0.06 * hiss * (loud > 0.8)[place])


def envelope(hertz: Sound, formants: list[Sound]) -> Sound:
    """Return how loud a harmonic of that frequency is under the formants."""
    rows = [1 / (1 + ((hertz - middle) / width) ** 2) for middle, width in zip(formants, WIDTHS, strict=True)]
    return (rows[0] + 0.6 * rows[1] + 0.35 * rows[2]) * (hertz < 5000)


def noisy(sound: Sound, decibels: float, seed: int = 2) -> Sound:
    """Return a sound under white noise, that many dB below it."""
    noise = np.random.default_rng(seed).standard_normal(sound.shape)
    level = np.sqrt(np.mean(np.square(sound))) * 10 ** (-decibels / 20)
    return np.clip(sound + level * noise, -1.0, 1.0)


def main() -> None:
    """Write the frozen set's files."""
    clean = voice(SECONDS)
    stereo = np.stack([noisy(voice(SECONDS, 44_100), 0.0)] * 2, axis=1)
    soundfile.write(FOLDER / "clean.flac", clean, RATE_HZ)
    soundfile.write(FOLDER / "noisy-stereo.flac", stereo, 44_100)
    soundfile.write(FOLDER / "quiet.flac", 1e-3 * clean, RATE_HZ)


if __name__ == "__main__":
    main()
