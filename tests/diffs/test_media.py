"""Distances of media: nothing for what is the same, little for what nobody sees, much for what is broken."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from forestay.diffs.films import compare_films
from forestay.diffs.noise import TOLERANCES, strength
from forestay.diffs.pictures import LONG_SIDE, Picture, compare_pictures
from forestay.diffs.sheet import TILE, SheetRow, draw_sheet
from forestay.diffs.sounds import Sound, compare_sounds
from forestay.quality.faults import FILMS, PICTURES, SOUNDS

RATE = 16_000


def scene(seed: int, width: int = 64, height: int = 48) -> Picture:
    """A smooth picture with some edges."""
    chance = np.random.default_rng(seed)
    small = Image.fromarray(chance.integers(30, 220, (6, 8, 3), dtype=np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def chord(seed: int) -> Sound:
    """Half a second of three notes."""
    times = np.arange(RATE // 2) / RATE
    notes = np.array([np.sin(2 * np.pi * (200 + 20 * seed) * k * times) / k for k in (1, 2, 3)])
    return 0.2 * notes.sum(axis=0).astype(np.float32)


@settings(deadline=None)
@given(st.integers(0, 50), st.integers(8, 200), st.integers(8, 200))
def test_the_same_picture_is_no_distance_away_and_distances_are_symmetric(seed: int, width: int, height: int) -> None:
    """Whatever its size; and no distance is below 0 or no number."""
    one, other = scene(seed, width, height), scene(seed + 1, width, height)
    assert max(compare_pictures(one, one).values()) < 1e-9
    there, back = compare_pictures(one, other), compare_pictures(other, one)
    for name, value in there.items():
        assert value == pytest.approx(back[name], abs=1e-9)
        assert np.isfinite(value)
        assert value >= 0
    assert set(there) <= set(TOLERANCES)


def test_rounding_is_within_the_tolerance_and_each_fault_of_a_picture_is_not() -> None:
    """A level up or down here and there is nobody's concern; every fault of the kit that shows in one picture is."""
    one = scene(3, 256, 256)
    chance = np.random.default_rng(1)
    moved = chance.integers(-1, 2, one.shape) * (chance.random(one.shape) < 0.25)  # one value in six
    jittered = np.clip(one.astype(int) + moved, 0, 255).astype(np.uint8)
    assert strength(compare_pictures(one, jittered))[0] < 1.0
    for fault in PICTURES:
        assert strength(compare_pictures(one, fault.inject(one, chance)))[0] > 1.0, fault.name


def test_another_size_is_told_as_such() -> None:
    """The pictures are compared all the same, at one size."""
    found = compare_pictures(scene(1, 128, 96), scene(1, 64, 48))
    assert found["size"] == 1.0
    assert found["structure"] < 0.05
    assert LONG_SIDE < 128


def test_films_differ_in_pictures_in_motion_and_in_length() -> None:
    """A film that stands still has the first picture right, and one that was cut has all of them."""
    film = np.stack([np.roll(scene(5), (step, step), (0, 1)) for step in range(16)])
    assert strength(compare_films(film, film))[0] == 0.0
    still = np.stack([film[0]] * 16)
    assert compare_films(film, still)["motion"] == pytest.approx(1.0)
    assert compare_films(film, film[:12])["length"] == pytest.approx(0.25)
    for fault in FILMS:
        assert strength(compare_films(film, fault.inject(film, np.random.default_rng(2))))[0] > 1.0, fault.name
    assert compare_films(film[:0], film) == {"length": 1.0}


def test_sounds_differ_in_spectrum_loudness_and_length() -> None:
    """Every fault of the kit is told; a change of a ten-thousandth is not."""
    sound = chord(2)
    assert strength(compare_sounds(sound, sound, RATE))[0] == 0.0
    assert strength(compare_sounds(sound, sound * np.float32(1.0001), RATE))[0] < 1.0
    assert compare_sounds(sound, sound * np.float32(0.5), RATE)["loudness"] == pytest.approx(6.02 / 40, abs=0.01)
    for fault in SOUNDS:
        assert strength(compare_sounds(sound, fault.inject(sound, np.random.default_rng(2)), RATE))[0] > 1.0, fault.name
    assert compare_sounds(sound[:0], sound, RATE)["length"] == 1.0


def test_a_sheet_shows_the_answers_side_by_side_also_where_one_is_missing() -> None:
    """A PNG that opens, four tiles wide."""
    rows = [SheetRow("r1: structure", scene(1), scene(1), scene(2)), SheetRow("r2: missing", scene(1), None, None)]
    image = Image.open(io.BytesIO(draw_sheet(rows)))
    assert image.format == "PNG"
    assert image.width > 4 * TILE
    assert image.height > 2 * TILE
    assert Image.open(io.BytesIO(draw_sheet([]))).width == image.width
