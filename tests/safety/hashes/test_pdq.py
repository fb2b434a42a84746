"""PDQ: the same bits as the reference, few of them changed by what pictures go through."""

import io

import numpy as np
import pytest
from PIL import Image
from tests.safety.hashes.drawn import drawn

from forestay.errors import UsageError
from forestay.safety.hashes.pdq import LEAST_QUALITY, Pixels, distance, hash_of, hashes_of, read_hex

# Computed once by the reference implementation (facebook/ThreatExchange, by way of pdqhash 0.2.8), for pictures that
# `drawn` makes: seed, width, height, hash. Another platform's cosine may move a pixel by one: hence the tolerance.
REFERENCE = (
    (0, 64, 64, "ac55bd53f39ae3ab9d8c83c668d4e621aa95abc3bd893449484e7b40913354ed"),
    (1, 128, 128, "96dbba1dc52e289dd24a9f882d55575dd7585052481dbfe0aa21e0326db84f75"),
    (2, 129, 97, "93f201b846e5fe667bc295ab45c32a3fb5e2b3927fe92e07001c9390053a76e5"),
    (3, 512, 384, "a9f7a9a8bbd6d48a30f65722bf07a1e23ad6a064ee81556aefe1111c1518aa97"),
    (4, 333, 777, "2ccd932957830cc5e548713908f7d6ccb2512fc71d89222ffaf9c033abd6aa95"),
    (5, 1024, 1024, "eb63ad5ead89b6265d895cd2732389aebf8322cd88755c61614ccb72015e36a9"),
    (6, 100, 40, "cb501249521a6d3c05dfd249d01a2d0d7d1affedd2f40082aef4a0779a797dda"),
    (7, 2000, 300, "c7877f2ff18e20231cb09e27d78ee027559e98251fb3c522625ef3f480391c5a"),
)
TURNED = (  # of the fifth one: as it is, and the seven others in the reference's own order
    "2ccd932957830cc5e548713908f7d6ccb2512fc71d89222ffaf9c033abd6aa95",
    "4b8fd2c3ccdb9a51926b469fe1db939db36b6435461cf970cd386cac32560902",
    "7b9819830ad6a66db21ddb93dda27c66e704856d48dc8885afac7a99ee83003f",
    "18ca7849898e30fbc73eec35348e3937e63ece9f134953da986dc6066703a3a8",
    "2ccd4cd65783d338e5480ec608f72933b251d0381d891dd0faf92fccbbd6556a",
    "7b98e67c02d65992b01d246cdda28399e7047a9208dc377aafac8566ee83ffc0",
    "498f2d0c8cdb65a8926bb96061db6c62b36b9bca461c068fcd3893532256f6fd",
    "1eda87a6998ecf04e73e13cabc8ec6c8e63e31601349ac25986d39f967035c57",
)
TOLERANCE_BITS = 2


@pytest.mark.parametrize(("seed", "width", "height", "expected"), REFERENCE)
def test_a_picture_has_the_hash_of_the_reference(seed: int, width: int, height: int, expected: str) -> None:
    """Smaller than the samples, as large, odd, wide and tall."""
    made = hash_of(drawn(seed, width, height))
    assert distance(made.value, read_hex(expected)) <= TOLERANCE_BITS
    assert made.quality == 100


def test_the_eight_turned_hashes_are_those_of_the_reference() -> None:
    """Each of the reference's eight is among ours, each once."""
    ours = {made.value for made in hashes_of(drawn(4, 333, 777))}
    assert len(ours) == 8
    for expected in TURNED:
        assert min(distance(read_hex(expected), value) for value in ours) <= TOLERANCE_BITS


def test_a_turned_or_mirrored_picture_is_found_among_the_eight() -> None:
    """The picture is turned and mirrored in pixels, and hashed from these."""
    picture = drawn(3, 512, 384)
    known = [made.value for made in hashes_of(picture)]
    for quarter in range(4):
        for turned in (np.rot90(picture, quarter), np.rot90(picture, quarter)[:, ::-1]):
            assert min(distance(hash_of(turned).value, value) for value in known) <= 31


@pytest.mark.parametrize("quality", [30, 75])
def test_a_picture_coded_anew_and_scaled_keeps_its_hash_within_the_usual_distance(quality: int) -> None:
    """JPEG at two qualities, at half the size."""
    picture = drawn(3, 512, 384)
    small = Image.fromarray(picture).resize((256, 192), Image.Resampling.LANCZOS)
    coded = io.BytesIO()
    small.save(coded, "JPEG", quality=quality)
    again = np.asarray(Image.open(coded).convert("RGB"))
    assert distance(hash_of(picture).value, hash_of(again).value) <= 31


def test_a_flat_picture_says_by_its_quality_that_its_hash_means_little() -> None:
    """One colour has no structure, whatever its bits are."""
    assert hash_of(np.full((90, 120, 3), 200, np.uint8)).quality < LEAST_QUALITY


@pytest.mark.parametrize(
    "picture",
    [np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 4), np.uint8)],
)
def test_what_is_no_picture_is_refused_by_its_shape(picture: Pixels) -> None:
    """Grey, empty, and with a fourth channel."""
    with pytest.raises(UsageError, match="height, width, 3"):
        hash_of(picture)


def test_a_hash_is_written_and_read_in_the_form_of_exchanges() -> None:
    """Sixty-four digits there and back; anything else names its field."""
    made = hash_of(drawn(3, 512, 384))
    assert read_hex(made.hex.upper() + "\n") == made.value
    for wrong in ("", "ab", "g" * 64, made.hex + "0"):
        with pytest.raises(UsageError, match="64 hexadecimal digits"):
            read_hex(wrong)
