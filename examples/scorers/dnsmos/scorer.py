"""Scores speech as listeners rate it (ITU-T P.835 and P.808), with the models of DNSMOS that ship inside `speechmos`.

It decides nothing about an output. A recording that a rule would catch is no matter for it: what is silent, clipped or
of the wrong length breaks its contract and is never offered, and what is too short or too quiet to hold a word gets no
score. The network of P.835 hears speech, background and overall apart; the one of P.808 gives one number. They were
trained on speech in noise: of music or effects their numbers mean nothing.

Sources: Reddy, Gopal, Cutler: DNSMOS, ICASSP 2021 (arXiv:2010.15258), and DNSMOS P.835, ICASSP 2022 (arXiv:2110.01763).
Lengths, steps and polynomials are those of speechmos 0.0.1.1, whose own code is not imported: it needs librosa.
"""

from __future__ import annotations

import functools
import importlib.util
import pathlib

import av
import numpy as np
import onnxruntime
from numpy.typing import NDArray

RATE_HZ = 16_000
WINDOW = 144_160  # samples that the networks hear at once: 9.01 s
WINDOW_SECONDS = 9.01
MOST_WINDOWS = 8  # of a recording, spread evenly where it has more: each takes 0.4 s of a processor
MOST_SECONDS = 300  # of a recording; what comes later is not heard
LEAST_SECONDS = 0.5  # below it there is no word to rate
QUIET = 1e-3  # root mean square below which nothing is said: -60 dB
FFT, STEP, BANDS = 321, 160, 120  # samples, samples and mel bands of what the network of P.808 sees
FRAMES = 900
# Fitted from a network's number to listeners' ratings, highest power first (speechmos/dnsmos.py, not personalised).
FITTED = {
    "speech": (-0.08397278, 1.22083953, 0.0052439),
    "background": (-0.13166888, 1.60915514, -0.39604546),
    "overall": (-0.06766283, 1.11546468, 0.04602535),
}
NAMES = ("overall", "speech", "background", "p808")

Vector = NDArray[np.float64]
Sound = NDArray[np.float32]


class Scorer:
    """Overall, speech and background of P.835, and the rating of P.808; 1 (bad) to 5 (excellent)."""

    name = "dnsmos"
    version = 1
    modality = "audio"
    scores = {name: {"low": 0, "high": 5} for name in NAMES}  # noqa: RUF012 - read, never changed

    def setup(self) -> None:
        """Load the two networks."""
        folder = models_of("speechmos") / "dnsmos_models"
        self._p835, self._p808 = (session_of(folder / name) for name in ("sig_bak_ovr.onnx", "model_v8.onnx"))

    def score(self, items: list) -> list:
        """Return the four scores of each recording; None where there is too little to rate."""
        return [self._one(item.path) for item in items]

    def _one(self, path: pathlib.Path) -> dict[str, float] | None:
        try:
            sound = sound_of(path)
        except (av.FFmpegError, IndexError, ValueError):  # no sound in it, or none that opens: the contract's matter
            return None
        return self.rate(sound)

    def rate(self, sound: Sound) -> dict[str, float] | None:
        """Return the scores of a sound `[samples]`, 16 kHz, -1 to 1: the mean over its windows."""
        if not rateable(sound):
            return None
        rows = [self._window(window) for window in windows_of(sound)]
        means = np.clip(np.mean(rows, axis=0), 0.0, 5.0)
        return dict(zip(NAMES, map(float, means), strict=True))

    def _window(self, window: Sound) -> tuple[float, ...]:
        (raw,) = self._p835.run(None, {"input_1": window[None]})[0]
        fitted = {name: np.polyval(FITTED[name], float(value)) for name, value in zip(FITTED, raw, strict=True)}
        seen = log_mel(window[:-STEP]).astype(np.float32)
        ((p808,),) = self._p808.run(None, {"input_1": seen[None]})[0]
        return *(float(fitted[name]) for name in NAMES[:3]), float(p808)


def models_of(package: str) -> pathlib.Path:
    """Return a package's folder without importing it."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(f"{package} is not installed: pip install 'forestay[speech]'")
    return pathlib.Path(next(iter(found.submodule_search_locations)))


def session_of(path: pathlib.Path) -> onnxruntime.InferenceSession:
    """Return a network that runs on one thread: a scorer has one processor, and sums in one order."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def sound_of(path: pathlib.Path) -> Sound:
    """Return the beginning of a recording of any format and rate, `[samples]`, mono at 16 kHz."""
    most, had = MOST_SECONDS * RATE_HZ, 0
    pieces: list[Sound] = []
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="fltp", rate=RATE_HZ)  # its own mono would be louder by the root of two
        for frame in container.decode(audio=0):
            pieces += [made.to_ndarray().mean(axis=0) for made in resampler.resample(frame)]
            had += frame.samples * RATE_HZ // frame.sample_rate
            if had >= most:
                break
        pieces += [made.to_ndarray().mean(axis=0) for made in resampler.resample(None)]
    return np.concatenate(pieces or [np.zeros(0, np.float32)])[:most]


def rateable(sound: Sound) -> bool:
    """Say whether there is anything to rate: digital silence would be rated above noise."""
    if len(sound) < LEAST_SECONDS * RATE_HZ or not np.isfinite(sound).all():
        return False
    return float(np.sqrt(np.mean(np.square(sound, dtype=np.float64)))) >= QUIET


def windows_of(sound: Sound) -> list[Sound]:
    """Return windows of 9.01 s, one a second; a short sound is doubled until it fills one.

    Below 18 s these are the windows of speechmos, which leaves the end of a second out; of longer sounds, some of them.
    """
    sound = np.clip(sound, -1.0, 1.0).astype(np.float32)
    while len(sound) < WINDOW:
        sound = np.concatenate([sound, sound])
    count = int(len(sound) // RATE_HZ - WINDOW_SECONDS) + 1
    starts = np.linspace(0, count - 1, min(count, MOST_WINDOWS)).round().astype(int) * RATE_HZ
    return [sound[start : start + WINDOW] for start in starts]


def log_mel(sound: Sound) -> Vector:
    """Return the log mel spectrogram `[frames, 120]` that the network of P.808 was trained on.

    As librosa 0.9 makes it: a periodic Hann window of 321 samples every 160, zeros around the ends, power, 80 dB below
    the loudest at most, then (dB + 40) / 40.
    """
    padded = np.pad(sound.astype(np.float64), FFT // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT)[::STEP]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT) / FFT)
    power = np.square(np.abs(np.fft.rfft(frames * hann, axis=1))) @ mel_filters().T
    decibels = 10 * np.log10(np.maximum(power, 1e-10))
    loudest = decibels.max()
    return (np.maximum(decibels - loudest, -80.0) + 40.0) / 40.0


@functools.cache
def mel_filters() -> Vector:
    """Return triangles of equal area on Slaney's mel scale, 0 to 8 kHz, `[120, 161]`.

    The scale (Auditory Toolbox, 1998) is linear below 1 kHz, 200/3 Hz a mel, and grows by 6.4 in 27 mels above.
    """
    top = 15 + 27 * np.log(RATE_HZ / 2 / 1000) / np.log(6.4)
    mels = np.linspace(0, top, BANDS + 2)
    edges = np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))
    bins = np.fft.rfftfreq(FFT, 1 / RATE_HZ)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    return np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)
