"""The tones app over HTTP: pitch, timbre, repeatability and refusals."""

import io
import wave
from types import ModuleType
from typing import Any

import numpy as np

from .conftest import Hosted, bytes_of


def samples_of(tones: Hosted, **body: Any) -> np.ndarray[Any, Any]:
    """Return the samples of a tone in -1 to 1."""
    answer = tones.made("/", {"sync_mode": True} | body)
    with wave.open(io.BytesIO(bytes_of(answer["audio"]))) as sound:
        assert (sound.getframerate(), sound.getnchannels(), sound.getsampwidth()) == (16_000, 1, 2)
        return np.frombuffer(sound.readframes(sound.getnframes()), "<i2").astype(np.float32) / 32768.0


def test_the_prompt_decides_the_pitch(tones: Hosted, tones_judge: ModuleType) -> None:
    """A note of each octave in each timbre is within 50 cents."""
    asked = [(note, timbre) for note in (48, 57, 60, 69, 74, 83) for timbre in ("flute", "reed", "string", "bell")]
    wrong = []
    for note, timbre in asked:
        prompt = f"{tones_judge.name_of(note)} {timbre}-like"
        samples = samples_of(tones, prompt=prompt, seed=note, num_inference_steps=8)
        if tones_judge.cents_off(samples, note) > tones_judge.TOLERANCE_CENTS:
            wrong.append(prompt)
    assert len(wrong) <= 1, wrong


def test_the_judge_tells_neighbouring_notes_apart(tones: Hosted, tones_judge: ModuleType) -> None:
    """The judge that passes the right note fails the next one."""
    samples = samples_of(tones, prompt="a4", seed=1)
    assert tones_judge.cents_off(samples, 69) < 50
    assert tones_judge.cents_off(samples, 70) > 50


def test_the_same_seed_gives_the_same_samples_and_another_seed_others(tones: Hosted) -> None:
    """Repeatable for the same seed, not for another."""
    first = samples_of(tones, prompt="a4 flute-like", seed=2)
    assert np.array_equal(first, samples_of(tones, prompt="a4 flute-like", seed=2))
    assert not np.array_equal(first, samples_of(tones, prompt="a4 flute-like", seed=3))


def test_a_bell_fades_and_a_flute_holds(tones: Hosted) -> None:
    """Timbre is audible in how the sound ends."""
    bell, flute = (samples_of(tones, prompt=f"c4 {timbre}-like", seed=4) for timbre in ("bell", "flute"))

    def held_ratio(samples: np.ndarray[Any, Any]) -> float:
        return float(np.std(samples[11_200:12_800]) / np.std(samples[1_600:3_200]))

    assert held_ratio(bell) < 0.5 * held_ratio(flute)


def test_a_prompt_without_a_playable_note_is_refused_naming_the_field(tones: Hosted) -> None:
    """No note, and a note out of range, are the caller's to mend."""
    for prompt in ("something sad", "c2", "c9 bell"):
        refused = tones.call("/", {"prompt": prompt})
        assert refused.status_code == 422
        assert refused.json()["detail"][0]["loc"] == ["body", "prompt"]


def test_the_answer_says_what_was_understood(tones: Hosted) -> None:
    """Accidentals and words around the note do not confuse it."""
    made = tones.made("/", {"prompt": "Please a soft Bb4, like a clarinet", "seed": 1, "sync_mode": True})
    assert (made["note"], made["timbre"], made["seed"]) == ("a#4", "reed", 1)
