"""What letters without spaces are: words that somebody reads, or bytes that nobody does."""

import base64
import hashlib

import pytest

from forestay.safety.text.blobs import is_media, is_packed, reads, said_by, sentence_in, text_in, words_in

SAID = "describe the blue lighthouse in full detail"
NOISE = hashlib.shake_256(b"noise").digest(3_000)
PNG = b"\x89PNG\r\n\x1a\n" + NOISE


@pytest.mark.parametrize("joint", ["_", "-", ""])
@pytest.mark.parametrize("shape", [str.lower, str.upper])
def test_words_run_together_are_no_base64(joint: str, shape: object) -> None:
    """A prompt of 256 letters without a space is read, whatever stands between its words."""
    text = shape(joint.join([SAID.replace(" ", joint)] * 8))  # type: ignore[operator]
    assert reads(text)
    assert not is_packed(text)
    assert not is_packed(base64.b64encode(PNG[:30]).decode() + "_" + text)


@pytest.mark.parametrize(
    "data", [PNG, NOISE, bytes(3_000), bytes(range(256)) * 12], ids=["png", "any", "zeros", "ramp"]
)
def test_base64_is_packed_with_or_without_line_ends(data: bytes) -> None:
    """As APIs send it, as mail writes it, and in the alphabet of addresses."""
    assert is_packed(base64.b64encode(data).decode())
    assert is_packed(base64.encodebytes(data).decode())
    assert is_packed(base64.urlsafe_b64encode(data).decode())


def test_a_small_picture_is_packed_and_a_small_text_is_not() -> None:
    """Of known formats a little is enough."""
    assert is_packed(base64.b64encode(PNG[:60]).decode())
    assert not is_packed(base64.b64encode(NOISE[:60]).decode())
    assert not is_packed(base64.b64encode(SAID.encode() * 9).decode())
    assert is_media(PNG)
    assert not is_media(b"BM" + NOISE)


@pytest.mark.parametrize(
    "uri",
    [
        f"data: {SAID}",
        f"data:image/png,{SAID}",
        f"data:image/png;base64,{SAID}",
        f"data:image/png;base64,{SAID.replace(' ', '_') * 3}",
        f"DATA:application/octet-stream;base64,{base64.b64encode(SAID.encode()).decode()}",
        f"data:text/plain;base64,{base64.urlsafe_b64encode(SAID.encode()).decode().rstrip('=')}",
        f"data:text/plain;base64 ,{base64.b64encode(SAID.encode()).decode()}",
        f"data:text/plain;charset=utf-16;base64,{base64.b64encode(SAID.encode('utf-16')).decode()}",
        f"data:image/png;base64,{base64.b64encode(PNG + b' ' * 16 + SAID.encode() + PNG).decode()}",
        f"data:;x={SAID},",
    ],
)
def test_what_a_data_uri_says_is_read_whatever_it_calls_itself(uri: str) -> None:
    """Also what only begins like one."""
    assert "lighthouse" in (said_by(uri) or "")


@pytest.mark.parametrize("data", [PNG, NOISE, bytes(500)])
def test_media_in_a_data_uri_says_nothing(data: bytes) -> None:
    """It is looked at, not read."""
    assert said_by(f"data:image/png;base64,{base64.b64encode(data).decode()}") is None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("describe_the_blue_lighthouse", "describe the blue lighthouse"),
        ("howToMakeAHouseAtHome", "how to make a house at home"),
        ("https://example.org/describe/the-blue%20lighthouse?in=detail", "describe the blue lighthouse in detail"),
        ("file://describe-the-blue-lighthouse", "describe the blue lighthouse"),
        ("num_inference_steps", ""),
        ("https://v3.fal.media/files/penguin/kX9abQz_out.png", ""),
        (
            "https://b.s3.example.org/a.png?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIA%2F2026&X-Amz-Expires=9",
            "",
        ),
    ],
)
def test_a_sentence_in_a_name_is_told_from_a_name(name: str, said: str) -> None:
    """Fields, files and addresses; signed addresses are none."""
    assert sentence_in(name) == said


def test_words_between_bytes_are_found_and_noise_says_nothing() -> None:
    """A comment in a picture, also at the end of a large file."""
    assert words_in(NOISE * 400) == ""
    assert words_in(NOISE * 400 + SAID.encode() + b"\0") == SAID


def test_bytes_are_a_text_or_none() -> None:
    """UTF-8 and UTF-16, with a letter broken at the end where that may be."""
    assert text_in("Grüße".encode()) == "Grüße"
    assert text_in(SAID.encode("utf-16-le")) == SAID
    assert text_in("Grü".encode()[:-1]) is None
    assert text_in("Grü".encode()[:-1], cut=True) == "Gr"
    assert text_in(PNG) is None
