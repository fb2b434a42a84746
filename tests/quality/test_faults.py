"""Every fault of the kit is seen by what it says it is seen by, and a healthy file by nothing."""

import numpy as np
import pytest
from PIL import Image
from tests.quality import making

from forestay.fleet.spec_quality import QualityMode, QualitySpec
from forestay.media.measures import FILM_FEATURES, PICTURE_FEATURES, SOUND_FEATURES, Measured
from forestay.media.measuring.films import Frames, Track
from forestay.media.measuring.pictures import measure
from forestay.media.measuring.sounds import Samples
from forestay.quality import faults
from forestay.quality.asked import Asked, Served
from forestay.quality.contracts import File, check_output

SPEC = QualitySpec(QualityMode.ENFORCE)
HEALTHY = [making.scene(128, 128, shift=3 * number) for number in range(12)]


def of_picture(picture: faults.Picture) -> Measured:
    """Measure a picture."""
    return Measured("image", "image/png", measure(Image.fromarray(picture)))


def of_film(film: faults.Film) -> Measured:
    """Measure frames at twelve a second."""
    frames = Frames(Track("raw", len(film)))
    for number, frame in enumerate(film):
        frames.take(Image.fromarray(frame), number / 12)
    return Measured("video", "video/mp4", frames.first, frames.measures())


def of_sound(sound: faults.Sound) -> Measured:
    """Measure sound at 16 kHz."""
    heard = Samples(16_000, 1, "raw")
    heard.take(sound[:, None])
    return Measured("audio", "audio/wav", sound=heard.measures())


def failed(found: Measured) -> set[str]:
    """Return the failed checks."""
    return {row.check.value for row in check_output([File("x", None, found)], Asked(), Served(), SPEC) if row.failed}


def strangeness(feature: int, healthy: list[tuple[float, ...]], ill: list[tuple[float, ...]]) -> float:
    """Return by how many standard errors the mean of a feature over so many outputs has moved."""
    usual = np.array([row[feature] for row in healthy])
    moved = np.array([row[feature] for row in ill])
    return abs(float(moved.mean() - usual.mean())) / max(float(usual.std()) / len(ill) ** 0.5, 1e-3)


def test_healthy_files_fail_nothing() -> None:
    """Pictures, a film and a tone."""
    for found in (of_picture(HEALTHY[0]), of_film(np.stack(HEALTHY)), of_sound(making.tone().astype(np.float32))):
        assert failed(found) == set()


@pytest.mark.parametrize("fault", faults.PICTURES, ids=lambda fault: fault.name)
def test_a_fault_of_pictures_is_seen(fault: faults.PictureFault) -> None:
    """By its rule on every picture, or by its feature over twelve of them."""
    chance = np.random.default_rng(fault.row)
    ill = [of_picture(fault.inject(picture, chance)) for picture in HEALTHY]
    if fault.check is not None:
        assert all(failed(found) == {fault.check.value} for found in ill)
        return
    usual = [found.picture.features for found in map(of_picture, HEALTHY) if found.picture]
    moved = [found.picture.features for found in ill if found.picture]
    assert strangeness(PICTURE_FEATURES.index(fault.feature), usual, moved) > 4


@pytest.mark.parametrize("fault", faults.FILMS, ids=lambda fault: fault.name)
def test_a_fault_of_films_is_seen(fault: faults.FilmFault) -> None:
    """By its rule, or by a feature that is far from a healthy film's."""
    found = of_film(fault.inject(np.stack(HEALTHY), np.random.default_rng(fault.row)))
    if fault.check is not None:
        assert failed(found) == {fault.check.value}
        return
    healthy = of_film(np.stack(HEALTHY))
    assert healthy.film is not None
    assert found.film is not None
    place = FILM_FEATURES.index(fault.feature)
    assert healthy.film.features[place] - found.film.features[place] > 0.5


@pytest.mark.parametrize("fault", faults.SOUNDS, ids=lambda fault: fault.name)
def test_a_fault_of_sound_is_seen(fault: faults.SoundFault) -> None:
    """By its rule, or by its feature over tones of several heights."""
    chance = np.random.default_rng(fault.row)
    tones = [making.tone(hertz=220.0 + 40 * number).astype(np.float32) for number in range(8)]
    ill = [of_sound(fault.inject(tone, chance)) for tone in tones]
    if fault.check is not None:
        assert all(failed(found) == {fault.check.value} for found in ill)
        return
    usual = [found.sound.features for found in map(of_sound, tones) if found.sound]
    moved = [found.sound.features for found in ill if found.sound]
    assert strangeness(SOUND_FEATURES.index(fault.feature), usual, moved) > 4
