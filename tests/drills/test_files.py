"""Faults of files are real: what they make is of the same kind, and its contract says what is wrong with it."""

import io
import pathlib
import wave

import av
import numpy as np
from PIL import Image
from tests.quality import making

from forestay.cli.quality_files import evaluated
from forestay.drills.files import FILE_FAULTS
from forestay.quality.catalogue import name_of

FAULTS = {fault.name: fault for fault in FILE_FAULTS}


def frames_of(data: bytes) -> list[np.ndarray]:
    """Return a film's frames."""
    with av.open(io.BytesIO(data), "r") as film:
        return [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]


def test_every_fault_is_a_case_of_a_row_of_the_catalogue() -> None:
    """So that what is found can be compared with what was put in."""
    assert all(name_of(fault.row) for fault in FILE_FAULTS)


async def checks_of(folder: pathlib.Path, name: str, whole: bytes, kind: str) -> list[object]:
    """Return the check by which a file fails the default contract, before and after the fault."""
    files = [folder / f"before.{kind}", folder / f"after.{kind}"]
    files[0].write_bytes(whole)
    files[1].write_bytes(FAULTS[name].change(whole))
    return [row["failed"] for row in await evaluated(files)]


async def test_a_frozen_clip_keeps_its_length_and_its_size_and_is_found_frozen(tmp_path: pathlib.Path) -> None:
    """A whole film that is nothing but one picture."""
    whole = making.film(making.moving(24))
    before, after = frames_of(whole), frames_of(FAULTS["clip is frozen"].change(whole))
    assert [frame.shape for frame in after] == [frame.shape for frame in before]
    assert await checks_of(tmp_path, "clip is frozen", whole, "mp4") == [None, "frozen"]


async def test_a_silent_sound_keeps_its_length_and_is_found_silent(tmp_path: pathlib.Path) -> None:
    """Every sample is 0."""
    whole = making.wav(making.tone())
    with (
        wave.open(io.BytesIO(FAULTS["sound is silent"].change(whole))) as after,
        wave.open(io.BytesIO(whole)) as before,
    ):
        assert after.getparams() == before.getparams()
    assert await checks_of(tmp_path, "sound is silent", whole, "wav") == [None, "silent"]


def test_a_black_picture_keeps_its_size_and_format() -> None:
    """Nothing but black."""
    with Image.open(io.BytesIO(FAULTS["picture is black"].change(making.packed(making.scene())))) as picture:
        assert (picture.size, picture.format, picture.getextrema()) == ((64, 64), "PNG", ((0, 0),) * 3)


def test_a_file_cut_short_is_half_of_it() -> None:
    """Of any kind."""
    assert FAULTS["file is cut short"].change(b"abcdef") == b"abc"
