"""Looks at files: what is taken of stills, animations and films, and what is refused rather than half seen."""

import io
import pathlib
import struct
import tempfile
import zlib
from collections.abc import AsyncGenerator, Sequence
from typing import IO, cast

import av
import numpy as np
import pytest
from av.video.stream import VideoStream
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tests.ingress import bombs, boxes

from forestay.media.decode import Decoder, MediaRefused
from forestay.media.limits import DecodeLimits, Looking
from forestay.safety.media.frames import MOST_FRAMES, Seen, depth, pictures_of
from forestay.safety.model import Picture
from forestay.safety.taxonomy import Modality

RED, GREEN, BLUE = (250, 10, 10), (10, 250, 10), (10, 10, 250)
LOOKING = Looking()


@pytest.fixture
async def decoder() -> AsyncGenerator[Decoder]:
    """A decoder with the default limits."""
    made = Decoder()
    yield made
    await made.close()


def file_of(data: bytes) -> IO[bytes]:
    """A real file."""
    made = cast("IO[bytes]", tempfile.TemporaryFile())  # noqa: SIM115 - closed by the test
    made.write(data)
    made.flush()
    return made


async def seen_in(decoder: Decoder, data: bytes, looking: Looking = LOOKING) -> Seen:
    """Look at a file of these bytes."""
    with file_of(data) as file:
        return await pictures_of(decoder, file, "images[0].url", looking)


def saved(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    """A picture as a file."""
    made = io.BytesIO()
    image.save(made, form, **options)
    return made.getvalue()


def colours(seen: Seen) -> list[tuple[int, int, int]]:
    """The colour in the middle of each look."""
    return [middle(picture) for picture in seen.pictures]


def middle(picture: Picture) -> tuple[int, int, int]:
    """The colour in its middle."""
    array = np.frombuffer(picture.rgb, np.uint8).reshape(picture.height, picture.width, 3)
    return cast("tuple[int, int, int]", tuple(array[picture.height // 2, picture.width // 2].tolist()))


def near(one: Sequence[int], other: Sequence[int]) -> bool:
    """Lossy coding moves colours a little."""
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) < 40


def film(shots: Sequence[tuple[tuple[int, int, int], int]], rate: int = 10, size: int = 64, gap: int = 12) -> bytes:
    """An MP4 of plain shots: colour, frames; a key frame every `gap`."""
    made = io.BytesIO()
    with av.open(made, "w", format="mp4") as output:
        stream = cast("VideoStream", output.add_stream("mpeg4", rate=rate))
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = gap
        for colour, frames in shots:
            picture = np.full((size, size, 3), colour, np.uint8)
            for _ in range(frames):
                output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode())
    return made.getvalue()


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "GIF"])
async def test_a_still_is_seen_pixel_for_pixel(decoder: Decoder, form: str) -> None:
    """At full resolution, under the name of its field."""
    rng = np.random.default_rng(1)
    image = Image.fromarray(rng.integers(0, 255, (40, 70, 3), np.uint8)).quantize(64).convert("RGB")
    seen = await seen_in(decoder, saved(image, form, **({"lossless": True} if form == "WEBP" else {})))
    assert (seen.modality, [picture.where for picture in seen.pictures]) == (Modality.IMAGE, ["images[0].url"])
    assert (seen.pictures[0].width, seen.pictures[0].height) == (70, 40)
    assert seen.pictures[0].rgb == image.tobytes()


async def test_a_turned_photograph_is_seen_upright(decoder: Decoder) -> None:
    """As a viewer shows it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    seen = await seen_in(decoder, saved(Image.new("RGB", (64, 32), RED), "JPEG", exif=exif))
    assert (seen.pictures[0].width, seen.pictures[0].height) == (32, 64)


@pytest.mark.threat("ML01:2023", "AML.T0015")
async def test_grey_of_sixteen_bits_is_not_seen_as_white(decoder: Decoder) -> None:
    """A picture that a browser shows must not look blank to a judge."""
    ramp = np.linspace(0, 65535, 64 * 64, dtype=np.uint16).reshape(64, 64)
    seen = await seen_in(decoder, saved(Image.fromarray(ramp)))
    grey = np.frombuffer(seen.pictures[0].rgb, np.uint8)[::3]
    assert abs(float(grey.mean()) - 127) < 2
    assert len(np.unique(grey)) > 200


async def test_what_shows_through_is_seen_on_white_and_on_black(decoder: Decoder) -> None:
    """So that a drawing in white on nothing, or in black on nothing, does not hide."""
    alpha = np.zeros((32, 32, 4), np.uint8)
    alpha[8:24, 8:24] = (255, 255, 255, 255)
    seen = await seen_in(decoder, saved(Image.fromarray(alpha)))
    corners = [picture.rgb[:3] for picture in seen.pictures]
    assert corners == [b"\xff\xff\xff", b"\0\0\0"]
    assert len({picture.where for picture in seen.pictures}) == 2
    opaque = await seen_in(decoder, saved(Image.new("RGBA", (8, 8), (*RED, 255))))
    assert colours(opaque) == [RED]


async def test_a_picture_too_large_for_a_judge_is_reduced_and_not_cut(decoder: Decoder) -> None:
    """By a whole factor, all of it."""
    image = Image.new("RGB", (900, 600), BLUE)
    image.paste(RED, (0, 0, 450, 600))
    seen = await seen_in(decoder, saved(image), Looking(most_pixels=150_000))
    picture = seen.pictures[0]
    assert (picture.width, picture.height) == (450, 300)
    assert (picture.rgb[:3], picture.rgb[-3:]) == (bytes(RED), bytes(BLUE))


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
async def test_every_scene_of_an_animation_is_seen_however_short(decoder: Decoder, form: str) -> None:
    """One frame of another colour among many is found; those that show the same are not seen twice."""
    still = Image.new("RGB", (48, 48), GREEN)
    frames = [still] * 5 + [Image.new("RGB", (48, 48), RED)] + [Image.new("RGB", (48, 48), BLUE)] * 3
    data = saved(still, form, save_all=True, append_images=frames, duration=40)
    seen = await seen_in(decoder, data)
    assert seen.modality is Modality.VIDEO
    shown = colours(seen)
    assert all(any(near(one, wanted) for one in shown) for wanted in (RED, GREEN, BLUE))
    assert len(shown) <= 4
    assert len({picture.where for picture in seen.pictures}) == len(seen.pictures)


@pytest.mark.threat("ML01:2023", "AML.T0015")
@pytest.mark.parametrize("count", [1, 3])
async def test_a_picture_that_is_no_frame_of_its_animation_hides_no_frame(decoder: Decoder, count: int) -> None:
    """Who plays animations sees the frames, who does not the picture: all of them are looked at, the last one too."""
    frames = [Image.new("RGB", (32, 32), colour) for colour in (BLUE, GREEN, RED)][-count:]
    first = Image.new("RGB", (32, 32), (255, 255, 255))
    seen = await seen_in(decoder, saved(first, save_all=True, append_images=frames, default_image=True, duration=50))
    assert len(seen.pictures) == count + 1
    assert near(colours(seen)[-1], RED)


async def test_a_thumbnail_of_another_picture_is_seen(decoder: Decoder) -> None:
    """Its own one tells nothing new."""
    for colour, looks in ((BLUE, 1), (RED, 2)):
        small = saved(Image.new("RGB", (32, 32), colour), "JPEG")
        exif = b"Exif\0\0II*\0" + struct.pack("<IHI", 8, 0, 14)  # an empty first directory, and where the second is
        exif += struct.pack("<HHHIIHHIII", 2, 0x201, 4, 1, 44, 0x202, 4, 1, len(small), 0) + small
        named = saved(Image.new("RGB", (64, 64), BLUE), "PNG")
        chunk = struct.pack(">I", len(exif) - 6) + b"eXIf" + exif[6:]
        behind = named[:-12] + chunk + struct.pack(">I", zlib.crc32(chunk[4:])) + named[-12:]
        for data in (saved(Image.new("RGB", (64, 64), BLUE), "JPEG", exif=exif), behind):
            seen = await seen_in(decoder, data)
            assert (len(seen.pictures), near(colours(seen)[-1], colour)) == (looks, True)


async def test_a_recording_with_a_cover_is_refused(decoder: Decoder) -> None:
    """A player shows it, and whoever listens does not see it."""
    cover = b"\0image/jpeg\0\x03\0" + saved(Image.new("RGB", (32, 32), RED), "JPEG")
    tag = b"APIC" + bytes(len(cover) >> shift & 127 for shift in (21, 14, 7, 0)) + b"\0\0" + cover
    assert (await seen_in(decoder, boxes.mp3(100))).modality is Modality.AUDIO
    with pytest.raises(MediaRefused, match="a cover"):
        await seen_in(decoder, boxes.id3(len(tag), tag) + boxes.mp3(100))


async def test_what_lies_under_clear_pixels_is_seen(decoder: Decoder) -> None:
    """Whoever drops transparency sees it; one colour under all of them is nothing to see."""
    rgba = np.zeros((32, 32, 4), np.uint8)
    assert len((await seen_in(decoder, saved(Image.fromarray(rgba)))).pictures) == 2
    rgba[8:24, 8:24, 0] = 250
    seen = await seen_in(decoder, saved(Image.fromarray(rgba)))
    assert [near(colour, RED) for colour in colours(seen)] == [False, False, True]


async def test_a_film_with_a_second_picture_track_is_refused(decoder: Decoder) -> None:
    """A player may show either, and one alone would be looked at."""
    made = io.BytesIO()
    with av.open(made, "w", format="mp4") as output:
        streams = [cast("VideoStream", output.add_stream("mpeg4", rate=10)) for _ in range(2)]
        for stream in streams:
            stream.width = stream.height = 64
            stream.pix_fmt = "yuv420p"
        for stream, colour in zip(streams, (BLUE, RED), strict=True):
            picture = av.VideoFrame.from_ndarray(np.full((64, 64, 3), colour, np.uint8), format="rgb24")
            output.mux(stream.encode(picture))
            output.mux(stream.encode())
    with pytest.raises(MediaRefused, match="second picture track"):
        await seen_in(decoder, made.getvalue())


async def test_a_film_is_seen_at_each_change_of_scene_and_at_least_every_second(decoder: Decoder) -> None:
    """A flash of one frame is a scene."""
    data = film([(GREEN, 25), (RED, 1), (BLUE, 24)])
    seen = await seen_in(decoder, data)
    assert seen.modality is Modality.VIDEO
    shown = colours(seen)
    assert all(any(near(one, wanted) for one in shown) for wanted in (RED, GREEN, BLUE))
    assert 5 <= len(shown) <= 9
    assert seen.missed_scenes == 0


async def test_more_scenes_than_looks_are_counted_and_time_still_has_its_share(decoder: Decoder) -> None:
    """A film that flickers does not keep a judge from seeing its end."""
    data = film([(RED, 1), (BLUE, 1)] * 30 + [(GREEN, 20)], gap=1)
    seen = await seen_in(decoder, data, Looking(every_seconds=1.0, most=12))
    assert len(seen.pictures) <= 12
    assert seen.missed_scenes > 10
    assert near(colours(seen)[-1], GREEN)


async def test_whoever_has_seen_enough_ends_the_looking(decoder: Decoder) -> None:
    """The child is ended; the decoder goes on with the next file."""
    asked: list[str] = []

    async def enough(picture: Picture) -> bool:
        asked.append(picture.where)
        return near(middle(picture), RED)

    with file_of(film([(GREEN, 10), (RED, 10), (BLUE, 100)])) as file:
        seen = await pictures_of(decoder, file, "video.url", LOOKING, enough)
    assert (seen.whole, seen.modality) == (False, Modality.VIDEO)
    assert near(colours(seen)[-1], RED)
    assert len(asked) == len(seen.pictures) < 5
    assert colours(await seen_in(decoder, saved(Image.new("RGB", (8, 8), BLUE)))) == [BLUE]


async def test_frames_are_no_larger_than_asked_for(decoder: Decoder) -> None:
    """Films come in any size; judges take less."""
    seen = await seen_in(decoder, film([(RED, 3)], size=320), Looking(long_side=100))
    assert {(picture.width, picture.height) for picture in seen.pictures} == {(100, 100)}


async def test_a_film_whose_key_frames_are_too_far_apart_to_judge_it_by_is_refused(
    decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too long to be seen whole, and nothing to see it by."""
    from forestay.media.opening import looks  # noqa: PLC0415 - looked at in this process, not in a child

    monkeypatch.setattr(looks, "_WHOLE_PIXELS", 1)
    with file_of(film([(RED, 60)], gap=100)) as file, pytest.raises(Exception, match="key frames lie 6 seconds apart"):
        looks.run(cast("io.BufferedRandom", file), io.BytesIO(), None, DecodeLimits(), LOOKING, lambda: None)
    out = io.BytesIO()
    with file_of(film([(RED, 60)], gap=5)) as file:
        told = looks.run(cast("io.BufferedRandom", file), out, None, DecodeLimits(), LOOKING, lambda: None)
    assert cast("int", told["frames"]) <= 12
    assert len(out.getvalue()) > 3 * 64 * 64 * 5
    del decoder


async def test_no_bomb_is_looked_at(decoder: Decoder) -> None:
    """What is refused as an input is refused here too; of sound nothing is decoded, so that its length is not found."""
    chosen = [bomb for index, bomb in enumerate(bombs.corpus()) if index % 7 == 1]
    passed: list[str] = []
    for bomb in chosen:
        try:
            await seen_in(decoder, bomb.build())
        except MediaRefused:
            continue
        passed.append(bomb.name)
    assert set(passed) <= {"FLAC of hours in a few bytes"}


async def test_sound_has_nothing_to_see(decoder: Decoder) -> None:
    """And says that it is sound."""
    from tests.ingress import good  # noqa: PLC0415 - one file of it

    sound = next(file for file in good.files() if file.kind == "audio")
    seen = await seen_in(decoder, sound.build())
    assert (seen.modality, seen.pictures) == (Modality.AUDIO, ())


@given(one=st.floats(0, 1), other=st.floats(0, 1))
def test_the_riskier_the_prompt_the_closer_the_look(one: float, other: float) -> None:
    """More frames, closer together; never beyond the most."""
    low, high = sorted((one, other))
    assert depth(low).most <= depth(high).most <= MOST_FRAMES
    assert depth(low).every_seconds >= depth(high).every_seconds > 0


@pytest.mark.parametrize("score", [float("nan"), 7.0, float("inf")])
def test_a_score_that_is_none_is_looked_into_most_closely(score: float) -> None:
    """Nothing is taken for harmless."""
    assert depth(score) == depth(1.0)


def test_the_parent_never_opens_what_it_looks_at() -> None:
    """Neither Pillow nor PyAV is imported by the modules that the worker runs."""
    for name in ("media/looking.py", "safety/media/frames.py"):
        text = (pathlib.Path(__file__).parents[3] / "src" / "forestay" / name).read_text()
        assert "PIL" not in text
        assert "import av" not in text
