"""One file from end to end: which format it is, whether it may be opened, and its clean copy.

Decides by the first bytes alone; a name or a declared type counts for nothing. Formats that are not opened are refused
by their names, so that a caller knows what to send instead. Run by `zygote` in the limited child.
"""

import mmap
import os
from collections.abc import Callable, Mapping
from typing import BinaryIO

from forestay.media.limits import DecodeLimits, Kind
from forestay.media.opening import films, gif, jpeg, matroska, mp4, pictures, png, sound, tiff, webp
from forestay.media.opening.refusal import Refusal, Span, View, Walked, broken, unsupported

_HEAD_BYTES = 4096
_COPY_BYTES = 1024 * 1024
_OFFERED: Mapping[Kind, str] = {
    "image": "PNG, JPEG, WebP, GIF or TIFF",
    "video": "MP4, MOV, WebM or Matroska",
    "audio": "WAV, FLAC, MP3, Ogg or M4A",
}
_REFUSED: tuple[tuple[bytes, str], ...] = (
    (b"%PDF-", "PDF"),
    (b"%!PS", "PostScript"),
    (b"PK\x03\x04", "ZIP"),
    (b"PK\x05\x06", "ZIP"),
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"7z\xbc\xaf", "7-Zip"),
    (b"Rar!", "RAR"),
    (b"BM", "BMP"),
    (b"\0\0\1\0", "icon"),
    (b"8BPS", "Photoshop"),
    (b"FORM", "AIFF"),
    (b".snd", "AU"),
    (b"#!AMR", "AMR"),
    (b"#EXTM3U", "HLS playlist"),
    (b"ffconcat", "FFmpeg script"),
    (b"II+\0", "BigTIFF"),
    (b"MM\0+", "BigTIFF"),
    (b"IIRO", "camera raw"),
    (b"IIU\0", "camera raw"),
    (b"FUJIFILM", "camera raw"),
    (b"RF64", "RF64"),
    (b"FLV", "Flash video"),
    (b"\x30\x26\xb2\x75", "Windows Media"),
    (b"\x7fELF", "program"),
    (b"MZ", "program"),
    (b"qoif", "QOI"),
    (b"DDS ", "DDS"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"v/1\x01", "OpenEXR"),
    (b"SIMPLE", "FITS"),
)
_TEXTS: tuple[tuple[bytes, str], ...] = (
    (b"<svg", "SVG"),
    (b"<!doctype html", "HTML"),
    (b"<html", "HTML"),
    (b"<script", "HTML"),
    (b"<mpd", "DASH playlist"),
    (b"<?xml", "XML"),
    (b"webvtt", "subtitles"),
    (b"push graphic-context", "ImageMagick script"),
)


def run(
    source: BinaryIO, out: BinaryIO, kind: Kind | None, limits: DecodeLimits, unmapped: Callable[[], None]
) -> dict[str, object]:
    """Write the clean copy of `source` to `out` and return what is known of it; Refusal otherwise.

    `kind` narrows what may come in; None takes any of the three. `unmapped` is called once the file has been walked and
    is no longer mapped: from then on the room that it took is not needed.
    """
    if not os.fstat(source.fileno()).st_size:
        raise broken("the file is empty")
    with mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as view:
        found = walked(view, kind, limits)
        _write(found, view, out)
    unmapped()
    width, height, seconds, frames = found.width, found.height, found.seconds, found.frames
    if found.kind == "image":
        width, height = pictures.finish(found, source, out, limits)
    elif found.codec != "wav":
        played = films.finish(found, source, out, limits)
        seconds, frames = played.seconds, played.pictures
    out.flush()
    return {
        "kind": found.kind,
        "content_type": found.content_type,
        "width": width,
        "height": height,
        "frames": frames,
        "seconds": seconds,
    }


def walked(view: View, kind: Kind | None, limits: DecodeLimits) -> Walked:
    """Return what a file holds, by the reader of its format; Refusal otherwise."""
    head = bytes(view[:_HEAD_BYTES])
    walk = _reader(head)
    if walk is None:
        raise unsupported(f"{_name_of(head)} is not opened; send {_offers(kind)}")
    found = walk(view, limits)
    if kind is not None and found.kind != kind:
        raise unsupported(f"{found.content_type} is no {kind}; send {_offers(kind)}")
    return found


def _reader(head: bytes) -> Callable[[View, DecodeLimits], Walked] | None:
    """Find the reader whose format these first bytes begin."""
    riff = head[8:12] if head[:4] == b"RIFF" else b""
    found: tuple[tuple[bool, Callable[[View, DecodeLimits], Walked]], ...] = (
        (head.startswith(png.SIGNATURE), png.walk),
        (head.startswith(b"\xff\xd8\xff"), jpeg.walk),
        (head.startswith(gif.SIGNATURES), gif.walk),
        (riff == b"WEBP", webp.walk),
        (head.startswith(tiff.SIGNATURES), tiff.walk),
        (riff == b"WAVE", sound.walk_wav),
        (head.startswith(b"fLaC"), sound.walk_flac),
        (head.startswith(b"OggS"), sound.walk_ogg),
        (head.startswith(matroska.SIGNATURE), matroska.walk),
        (mp4.is_mp4(head), mp4.walk),
        (sound.is_mp3(head), sound.walk_mp3),
    )
    return next((walk for fits, walk in found if fits), None)


def _name_of(head: bytes) -> str:
    """Name what the first bytes are, for the refusal."""
    for signature, name in _REFUSED:
        if head.startswith(signature):
            return name
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for signature, name in _TEXTS:
        if text.startswith(signature):
            return "SVG" if name == "XML" and b"<svg" in text else name
    return "this format"


def _offers(kind: Kind | None) -> str:
    return _OFFERED[kind] if kind is not None else "; ".join(_OFFERED.values())


def _write(walked: Walked, view: mmap.mmap, out: BinaryIO) -> None:
    """Write the pieces of the clean copy."""
    with memoryview(view) as whole:
        for piece in walked.pieces:
            if isinstance(piece, Span):
                starts = range(piece.start, piece.end, _COPY_BYTES)
                out.writelines(whole[start : min(piece.end, start + _COPY_BYTES)] for start in starts)
            else:
                out.write(piece)
    out.flush()


def verdict_of(error: Refusal) -> dict[str, object]:
    """Return a refusal as plain values."""
    return {
        "fault": error.fault,
        "message": error.message,
        "limit": error.limit,
        "allowed": error.allowed,
        "given": error.given,
    }
