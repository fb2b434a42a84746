"""Names of media in results and URLs; what a file is, by its bytes before its sender's word."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.media.formats import OCTET_STREAM, content_type_of, safe_file_name, shown_in_place
from forestay.media.urls import own_media_id, rewrite_media_urls, stored_url

MEDIA_ID = "A" * 16 + "b-_9" * 4


def test_stored_urls_become_urls_of_the_receivers_base() -> None:
    """Only whole stored URLs are replaced; text that merely names the scheme stays as it is."""
    body = f'{{"a":"{stored_url(MEDIA_ID, "x.png")}","b":"forestay-media://short/x","c":"forestay-media"}}'.encode()
    rewritten = rewrite_media_urls(body, "https://v3.fal.media/files/")
    assert (
        rewritten
        == (
            f'{{"a":"https://v3.fal.media/files/{MEDIA_ID}/x.png","b":"forestay-media://short/x","c":"forestay-media"}}'
        ).encode()
    )


@pytest.mark.parametrize("base", ['http://a"b/', "http://a\\b/", "http://a/files", "ftp://a/", "http://a\n/"])
def test_a_base_that_could_break_out_of_json_is_refused(base: str) -> None:
    """A base often carries a Host header, which a caller chooses."""
    with pytest.raises(ValueError, match="no base"):
        rewrite_media_urls(b"{}", base)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        (f"forestay-media://{MEDIA_ID}/x.png", True),
        (f"https://v3.fal.media/files/{MEDIA_ID}/x.png", True),
        (f"http://127.0.0.1:8080/cdn/files/{MEDIA_ID}/x.png?download=1", True),
        (f"https://v3.fal.media/files/{MEDIA_ID}/x.png/more", False),
        (f"https://v3.fal.media/other/files/deep/{MEDIA_ID}/x.png", False),
        (f"ftp://v3.fal.media/files/{MEDIA_ID}/x.png", False),
        ("https://example.com/files/short/x.png", False),
        (f"data:text/plain,/files/{MEDIA_ID}/x.png", False),
        ("http://[bad/files", False),
    ],
)
def test_our_own_urls_are_recognised(url: str, *, found: bool) -> None:
    """By their path, whatever host they were handed out under."""
    assert own_media_id(url) == (MEDIA_ID if found else None)


@pytest.mark.parametrize(
    ("head", "declared", "name", "expected"),
    [
        (b"\x89PNG\r\n\x1a\n....", "text/html", "a.html", "image/png"),
        (b"\xff\xd8\xff\xe0", "image/png", "", "image/jpeg"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "", "", "image/webp"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "", "", "audio/wav"),
        (b"\x00\x00\x00\x18ftypisom", "", "clip.mp4", "video/mp4"),
        (b"\x00\x00\x00\x18ftypisom", "audio/mp4", "", "audio/mp4"),
        (b"\x00\x00\x00\x1cftypavif", "", "", "image/avif"),
        (b"\x1aE\xdf\xa3....B\x82webm", "", "", "video/webm"),
        (b"ID3\x04", "", "", "audio/mpeg"),
        (b"\xff\xfb\x90\x00", "", "", "audio/mpeg"),
        (b"<html><script>", "image/png", "a.png", OCTET_STREAM),
        (b"<svg onload=x>", "image/svg+xml", "a.svg", "image/svg+xml"),
        (b"plain words", "", "a.txt", "text/plain"),
        (b"\x00\x01\x02", "nonsense", "", OCTET_STREAM),
        (b"", "", "", OCTET_STREAM),
        (b"\x08\x00\x00\x00\x00\x00\x00\x00{", "", "lora.safetensors", OCTET_STREAM),
    ],
)
def test_bytes_win_over_what_the_sender_says(head: bytes, declared: str, name: str, expected: str) -> None:
    """A page that calls itself a picture is not one."""
    assert content_type_of(head, file_name=name, declared=declared) == expected


@pytest.mark.parametrize("content_type", ["text/html", "image/svg+xml", "application/xml", "text/javascript", "x/y"])
def test_types_that_may_carry_scripts_are_downloads(content_type: str) -> None:
    """Only formats without scripts of their own are shown in place."""
    assert not shown_in_place(content_type)
    assert shown_in_place("image/png")


@given(st.text(max_size=300))
def test_any_name_becomes_safe(name: str) -> None:
    """Safe in a URL, a header and a folder; never empty, hidden or a path; and doing it twice changes nothing."""
    safe = safe_file_name(name, "image/png")
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*\.[A-Za-z0-9]{1,16}", safe)
    assert len(safe) <= 120
    assert safe_file_name(safe, "image/png") == safe


def test_a_name_keeps_what_may_be_kept() -> None:
    """People recognise their files."""
    assert safe_file_name("Mein Bild (2).jpeg") == "Mein_Bild_2.jpeg"
    assert safe_file_name("C:\\pictures\\cat.png") == "cat.png"
    assert safe_file_name("猫.png") == "file.png"
    assert safe_file_name("", "audio/wav") == "file.wav"


@given(st.binary(max_size=80), st.text(max_size=40), st.text(max_size=40))
def test_any_bytes_get_a_well_formed_type(head: bytes, declared: str, name: str) -> None:
    """What goes into a header is always of the form of a content type."""
    found = content_type_of(head, file_name=name, declared=declared)
    assert re.fullmatch(r"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+", found)
