"""Contracts of outputs: what is broken is named with its numbers, and what is whole is left alone."""

import dataclasses
import tempfile
from collections.abc import AsyncIterator
from typing import IO, cast

import numpy as np
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from tests.quality import making

from forestay.fleet.spec_quality import OutputCheck, QualityMode, QualitySpec, Thresholds
from forestay.media.decode import Decoder, MediaRefused
from forestay.media.limits import Looking
from forestay.media.looking import Look, look
from forestay.media.measures import FilmMeasures, Measured, PictureMeasures, SoundMeasures
from forestay.quality.asked import Asked, Served
from forestay.quality.contracts import File, Standing, broken_by, check_output
from forestay.quality.decide import decide_whole

pytestmark = pytest.mark.asyncio(loop_scope="module")
SPEC = QualitySpec(QualityMode.ENFORCE)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def decoder() -> AsyncIterator[Decoder]:
    """The program that opens media, with its limited children."""
    made = Decoder()
    yield made
    await made.close()


async def measured(decoder: Decoder, data: bytes) -> Measured:
    """Measure a file as a worker does."""

    async def take(one: Look) -> bool:
        del one
        return True

    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        found = await look(decoder, cast("IO[bytes]", file), Looking(most=0, measure=True), take)
    assert found is not None
    assert found.measured is not None
    return found.measured


def failed(
    found: Measured, asked: Asked | None = None, served: Served | None = None, spec: QualitySpec = SPEC
) -> set[str]:
    """Return the names of the failed checks of one file."""
    rows = check_output([File("images[0].url", 0, found)], asked or Asked(), served or Served(), spec)
    return {row.check.value for row in rows if row.failed}


FRAMES = making.moving(width=128, height=128)
SOUND = making.tone(2.0)
WHOLE = {
    "png": making.packed(making.scene()),
    "jpeg": making.packed(making.scene(), "JPEG", quality=60),
    "webp": making.packed(making.scene(), "WEBP"),
    "dark": making.packed(making.scene() // 24),
    "film": making.film(FRAMES),
    "film with sound": making.film(FRAMES, sound=SOUND),
    "short pause": making.film([*FRAMES, *[FRAMES[-1]] * 8]),
    "wav": making.wav(SOUND),
    "float wav": making.float_wav(SOUND),
    "quiet wav": making.wav(SOUND / 50),
}


@pytest.mark.parametrize("name", WHOLE)
async def test_a_whole_output_passes_every_check(decoder: Decoder, name: str) -> None:
    """Pictures, films and sound, dark and quiet ones among them."""
    assert failed(await measured(decoder, WHOLE[name])) == set()


def torn() -> list[making.Picture]:
    """A film in which one frame has the lower part of another scene."""
    frames = list(FRAMES)
    frames[9] = np.concatenate([frames[8][:60], 255 - frames[8][60:]])
    return frames


BROKEN = {
    "black": (making.packed(making.flat((0, 0, 0))), {"black"}),
    "black jpeg": (making.packed(making.flat((1, 1, 1)), "JPEG"), {"black"}),
    "one colour": (making.packed(making.flat((20, 90, 160))), {"constant"}),
    "burnt": (making.packed(np.where(making.scene() > 100, 255, 0).astype(np.uint8)), {"clipped"}),
    "frozen": (making.film([*FRAMES[:4], *[FRAMES[4]] * 20]), {"frozen"}),
    "black film": (making.film([making.flat((0, 0, 0))] * 12), {"constant"}),
    "torn": (making.film(torn()), {"torn"}),
    "silent": (making.wav(0 * SOUND), {"silent"}),
    "one value": (making.wav(0 * SOUND - 1), {"silent"}),
    "not a number": (making.float_wav(np.where(np.arange(len(SOUND)) > 9_000, np.nan, SOUND)), {"not_a_number"}),
    "clipped sound": (making.wav(SOUND * 8), {"sound_clipped"}),
    "silent film": (making.film(FRAMES, sound=0 * SOUND), {"silent"}),
    "late sound": (making.film(FRAMES, sound=SOUND, sound_starts=0.4), {"out_of_sync"}),
    "short sound": (making.film(FRAMES, sound=SOUND[: len(SOUND) // 3]), {"out_of_sync"}),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_output_fails_by_its_name(decoder: Decoder, name: str) -> None:
    """That check and no other; its row tells the numbers."""
    data, names = BROKEN[name]
    found = await measured(decoder, data)
    assert failed(found) == names
    row = broken_by(check_output([File("x", None, found)], Asked(), Served(), SPEC))
    assert row is not None
    assert any(letter.isdigit() for letter in row.words)


async def test_a_drawing_on_nothing_is_no_black_picture(decoder: Decoder) -> None:
    """Black strokes on transparency show on white."""
    from PIL import Image  # noqa: PLC0415 - this test alone draws with it

    picture = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (8, 8, 20, 20))
    found = await measured(decoder, making.packed(np.asarray(picture)))
    assert failed(found) == set()


async def test_a_file_that_does_not_open_is_refused_for_what_it_is(decoder: Decoder) -> None:
    """A picture cut off in the middle, a film with a packet that is not what was written."""
    cut = making.packed(making.scene())
    film = bytearray(making.film(FRAMES))
    film[len(film) // 2 : len(film) // 2 + 200] = bytes(200)
    for data in (cut[: len(cut) // 2], bytes(film)):
        with pytest.raises(MediaRefused):
            await measured(decoder, data)
    assert broken_by(check_output([File("x", 0, None, "cut off")], Asked(), Served(), SPEC)) is not None


def picture(**fields: object) -> PictureMeasures:
    """Numbers of an ordinary picture, but for some."""
    plain = PictureMeasures(512, 512, 3, 250, 240, 40.0, 0.01, 30.0, "0" * 16)
    return dataclasses.replace(plain, **fields)


def film(**fields: object) -> FilmMeasures:
    """Numbers of an ordinary film, but for some."""
    plain = FilmMeasures(48, 2.0, 24.0, "h264", 0.0, 0, 0, 0)
    return dataclasses.replace(plain, **fields)


BLACK = Measured("image", "image/png", picture(low=0, high=0, extent=0, spread=0.0, clipped_share=1.0))


async def test_a_picture_that_the_models_filter_blanked_is_filtered_and_not_broken() -> None:
    """The answer says which of its files; the other black one is broken."""
    files = [File("images[0].url", 0, BLACK), File("images[1].url", 1, BLACK)]
    rows = check_output(files, Asked(), Served(2, filtered=(True, False)), SPEC)
    by_place = {row.where: row.standing for row in rows if row.check is OutputCheck.BLACK}
    assert by_place == {"images[0].url": Standing.FILTERED, "images[1].url": Standing.FAILED}


@pytest.mark.parametrize(
    ("asked", "found", "names"),
    [
        (Asked(count=2), Measured("image", "image/png", picture()), {"count"}),
        (Asked(count=1), Measured("image", "image/png", picture()), set()),
        (Asked(size=(1024, 1024)), Measured("image", "image/png", picture()), {"size"}),
        (Asked(size=(520, 500)), Measured("image", "image/png", picture()), set()),
        (Asked(size=(64, 64)), Measured("image", "image/png", picture(width=32, height=32)), {"size"}),
        (Asked(content_types=frozenset({"image/png"})), Measured("image", "image/jpeg", picture()), {"format"}),
        (Asked(frames=81), Measured("video", "video/mp4", picture(), film()), {"frames"}),
        (Asked(frames=49), Measured("video", "video/mp4", picture(), film()), set()),
        (Asked(frame_rate=16.0), Measured("video", "video/mp4", picture(), film()), {"frame_rate"}),
        (Asked(seconds=5.0), Measured("video", "video/mp4", picture(), film()), {"duration"}),
        (Asked(seconds=2.0), Measured("video", "video/mp4", picture(), film(seconds=2.04)), set()),
    ],
)  # fmt: skip
async def test_what_was_asked_for_is_compared_with_what_was_served(
    asked: Asked, found: Measured, names: set[str]
) -> None:
    """Rounding by a model is forgiven, a fall-back to something smaller is not."""
    assert failed(found, asked, Served(count=1)) == names


async def test_fewer_steps_than_asked_for_are_told_where_the_answer_tells_them() -> None:
    """Without a word of the answer there is no row."""
    found = Measured("image", "image/png", picture())
    assert failed(found, Asked(steps=30), Served(steps=4)) == {"steps"}
    assert failed(found, Asked(steps=30), Served()) == set()


async def test_a_check_is_switched_off_by_name_and_thresholds_are_the_models_own() -> None:
    """A model of masks may give black pictures; an accepted range of values is data."""
    assert failed(BLACK, spec=dataclasses.replace(SPEC, skip=(OutputCheck.BLACK,))) == set()
    narrow = Measured("image", "image/png", picture(low=100, high=110, extent=10))
    assert failed(narrow) == set()
    assert failed(narrow, spec=dataclasses.replace(SPEC, thresholds=Thresholds(constant_range=12))) == {"constant"}


async def test_observing_breaks_nothing() -> None:
    """The rows are there, and no output fails by them."""
    rows = check_output([File("x", None, BLACK)], Asked(), Served(), SPEC)
    assert decide_whole(rows, SPEC) is not None
    assert decide_whole(rows, dataclasses.replace(SPEC, mode=QualityMode.OBSERVE)) is None


@given(
    share=st.floats(0, 1),
    distinct=st.integers(0, 64),
    clipped=st.floats(0, 1),
    limits=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
async def test_no_check_of_sound_passes_beyond_its_threshold(
    share: float, distinct: int, clipped: float, limits: tuple[float, float]
) -> None:
    """And a looser threshold never fails what a stricter one passes."""
    sound = SoundMeasures(1.0, 16_000, 1, "pcm_16", 0.5, distinct, 0, share, share, clipped)
    found = Measured("audio", "audio/wav", sound=sound)
    strict, loose = sorted(limits)
    limited = [Thresholds(silent_share=limit, sound_clipped_share=limit) for limit in (strict, loose)]
    said = [failed(found, spec=dataclasses.replace(SPEC, thresholds=thresholds)) for thresholds in limited]
    assert said[1] - said[0] <= {"sound_clipped"} if "silent" in said[0] else said[1] <= said[0]
    assert ("silent" in said[1]) == (share >= loose or distinct < 3)


async def test_rows_name_the_first_failure_in_the_order_of_the_checks() -> None:
    """A file of the wrong size that is black too is told as of the wrong size."""
    rows = check_output([File("x", None, BLACK)], Asked(size=(64, 64)), Served(), SPEC)
    row = broken_by(rows)
    assert row is not None
    assert row.check is OutputCheck.SIZE
