"""The speech scorer with its real models: the published numbers, what makes them fall, and what has none."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from forestay.quality.scorers.frozen import digest_of

from .conftest import EXAMPLES, load_example

FOLDER = EXAMPLES / "scorers" / "dnsmos"
Scores = dict[str, Any]
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("speechmos") is None, reason="speechmos is not installed: pip install 'forestay[speech]'"
)


@pytest.fixture(scope="module")
def scorer() -> ModuleType:
    """The scorer's module."""
    return load_example("scorers/dnsmos", "scorer.py")


@pytest.fixture(scope="module")
def judge(scorer: ModuleType) -> Any:
    """The scorer with its networks."""
    made = scorer.Scorer()
    made.setup()
    return made


@pytest.fixture(scope="module")
def told(judge: Any) -> Scores:
    """What the scorer says of each frozen sound; asked once."""
    paths = sorted((FOLDER / "frozen").glob("*.flac"))
    rows = judge.score([SimpleNamespace(path=path, prompt="") for path in paths])
    return {path.name: row for path, row in zip(paths, rows, strict=True)}


def test_a_fixed_sound_has_the_numbers_of_the_published_program(told: Scores) -> None:
    """`speechmos.dnsmos.run` 0.0.1.1 with librosa 0.9.1 gave these for the same samples."""
    published = {"overall": 2.63178, "speech": 3.05910, "background": 3.68056, "p808": 3.33108}
    assert told["clean.flac"] == pytest.approx(published, abs=0.01)


def test_the_frozen_set_scores_as_it_says(told: Scores) -> None:
    """With the files that the scores were learned from: change one, and learn them again."""
    frozen = json.loads((FOLDER / "frozen" / "frozen.json").read_text())
    assert digest_of(FOLDER) == frozen["digest"]
    assert {one["file"] for one in frozen["items"]} == set(told)
    for one in frozen["items"]:
        assert told[one["file"]] == (one["scores"] and pytest.approx(one["scores"], abs=0.01))


def test_noise_makes_every_number_of_a_voice_fall(told: Scores) -> None:
    """The same voice, clean, and in stereo at another rate with noise as loud as it."""
    for name in ("overall", "speech", "background", "p808"):
        assert told["clean.flac"][name] > told["noisy-stereo.flac"][name] + 0.5


def test_the_same_sound_has_the_same_numbers_again(judge: Any, told: Scores) -> None:
    """To the last bit, on one machine."""
    assert judge.score([SimpleNamespace(path=FOLDER / "frozen" / "clean.flac", prompt="")]) == [told["clean.flac"]]


def test_a_sound_with_nothing_to_rate_has_no_numbers(judge: Any, told: Scores, tmp_path: Path) -> None:
    """Too quiet, too short, not finite, and a file that is none; the others of the batch are not lost."""
    assert told["quiet.flac"] is None
    tone = 0.3 * np.sin(np.arange(16_000) / 5).astype(np.float32)
    files = {"short": tone[:7_999], "silent": 0 * tone, "broken": np.where(np.arange(16_000) > 9_000, np.nan, tone)}
    for name, samples in files.items():
        soundfile.write(tmp_path / f"{name}.wav", samples, 16_000, subtype="FLOAT")
    (tmp_path / "none.wav").write_bytes(b"no sound at all")
    items = [SimpleNamespace(path=path, prompt="") for path in sorted(tmp_path.iterdir())]
    assert judge.score(items) == [None] * 4


@pytest.mark.parametrize("rate_hz", [8_000, 24_000, 44_100, 48_000])
def test_other_rates_become_16_khz_and_nothing_is_folded_down(scorer: ModuleType, tmp_path: Path, rate_hz: int) -> None:
    """A tone of 1 kHz stays what it is; one of 11 kHz, which 16 kHz cannot hold, is gone instead of being at 5 kHz."""
    at = np.arange(rate_hz) / rate_hz
    high = 0.4 * np.sin(2 * np.pi * 11_000 * at) if rate_hz > 22_000 else 0 * at
    sound = 0.4 * np.sin(2 * np.pi * 1_000 * at) + high
    soundfile.write(tmp_path / "tone.wav", np.stack([sound, sound], axis=1), rate_hz)
    found = scorer.sound_of(tmp_path / "tone.wav")
    assert abs(len(found) - 16_000) <= 16
    spectrum = 2 * np.abs(np.fft.rfft(found[4_000:12_000])) / 8_000  # whole periods: one bin every 2 Hz
    assert spectrum[500] == pytest.approx(0.4, abs=0.01)
    assert np.delete(spectrum, range(490, 511)).max() < 0.004


@settings(max_examples=40)
@given(count=st.integers(8_000, 40 * 16_000))
def test_any_length_becomes_whole_windows_and_not_too_many(scorer: ModuleType, count: int) -> None:
    """At least one, at most eight, all as long as the networks hear; below 18 s as many as speechmos has."""
    windows = scorer.windows_of(np.zeros(count, np.float32))
    assert {len(window) for window in windows} == {144_160}
    assert 1 <= len(windows) <= 8
    if 144_160 <= count < 18 * 16_000:
        assert len(windows) == max(1, count // 16_000 - 9)
