"""The watermark: what it survives, what it costs, and that it is never seen where it is not."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.safety.hashes.drawn import drawn

from forestay.errors import UsageError
from forestay.safety.hashes.pdq import Pixels
from forestay.safety.provenance import watermark
from forestay.safety.provenance.watermark import Watermark

MARK_ID = 0x7F3A_0123_4567_89AB
SIZES = ((512, 384), (256, 256), (300, 700), (900, 600))
ONE = Watermark("a key of the tests")


def again(pixels: Pixels, quality: int = 0, scale: float = 1.0) -> Pixels:
    """The picture after scaling, and after JPEG unless the quality is 0."""
    image = Image.fromarray(pixels)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    if not quality:
        return np.asarray(image)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return np.asarray(Image.open(out).convert("RGB"))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_mark_survives_jpeg_scaling_turning_and_mirroring(size: tuple[int, int]) -> None:
    """JPEG at 75, half and double size, both together, and every quarter turn."""
    picture = drawn(21, *size)
    marked = ONE.mark(picture, MARK_ID)
    assert marked is not None
    for quality, scale in ((75, 1.0), (0, 0.5), (0, 2.0), (75, 0.75)):
        assert ONE.read(again(marked, quality, scale)) == MARK_ID, (quality, scale)
    for quarter in range(4):
        turned = np.rot90(marked, quarter)
        assert ONE.read(turned.copy()) == MARK_ID
        assert ONE.read(turned[:, ::-1].copy()) == MARK_ID


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_mark_is_not_to_be_seen(size: tuple[int, int]) -> None:
    """At least 43 dB of peak signal to noise: a level or two of 255."""
    picture = drawn(22, *size)
    marked = ONE.mark(picture, MARK_ID)
    assert marked is not None
    error = np.mean((marked.astype(np.float64) - picture) ** 2)
    assert 10 * np.log10(255**2 / error) >= 43


def test_nothing_is_read_where_nothing_was_written_or_under_another_key() -> None:
    """Unmarked pictures, noise, and marks of another platform."""
    other = Watermark("another key of the tests")
    marked = other.mark(drawn(23, 512, 384), MARK_ID)
    assert marked is not None
    assert other.read(marked) == MARK_ID
    noise = np.random.default_rng(1).integers(0, 256, (300, 300, 3), np.uint8)
    for picture in (marked, noise, drawn(24, 512, 384), np.zeros((200, 200, 3), np.uint8)):
        assert ONE.read(picture) is None


@settings(max_examples=8, deadline=None)
@given(st.integers(0, (1 << 64) - 1))
def test_any_id_is_read_back(mark_id: int) -> None:
    """All 64 bits of it."""
    marked = ONE.mark(drawn(25, 256, 192), mark_id)
    assert marked is not None
    assert ONE.read(marked) == mark_id


@settings(max_examples=50)
@given(st.integers(0, (1 << 96) - 1), st.lists(st.sets(st.integers(0, 23), max_size=3), min_size=8, max_size=8))
def test_three_wrong_bits_in_every_word_are_put_right(payload: int, wrong: list[set[int]]) -> None:
    """The promise of the Golay code, with hard decisions."""
    bits = watermark._encoded(payload).reshape(8, 24)
    for word, places in enumerate(wrong):
        bits[word, list(places)] ^= 1
    assert watermark._decoded((2 * bits - 1).reshape(-1).astype(np.float64)) == payload


def test_a_picture_that_cannot_hold_a_mark_is_said_to_be_so() -> None:
    """Too small: None, rather than a mark that nobody can read."""
    assert ONE.mark(drawn(26, 100, 100), MARK_ID) is None


def test_a_weak_key_and_an_id_too_long_are_refused() -> None:
    """With the field that is wrong."""
    with pytest.raises(UsageError, match="16 characters"):
        Watermark("short")
    with pytest.raises(UsageError, match="64 bits"):
        ONE.mark(drawn(27, 256, 256), 1 << 64)
