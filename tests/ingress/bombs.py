"""The corpus of files that are small to send and ruinous, or dangerous, to open; none may be opened.

Built at test time, by rules; nothing here is larger than a few megabytes. Each names the fault that a caller reads and
words of the reason.
"""

import bz2
import dataclasses
import functools
import gzip
import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import av
from av.video.stream import VideoStream
from tests.ingress import boxes as b

from forestay.media.decode import Fault


@dataclasses.dataclass(frozen=True, slots=True)
class Bomb:
    """One file."""

    name: str
    build: Callable[[], bytes]
    fault: Fault
    says: str  # a regular expression that the reason matches


def corpus() -> list[Bomb]:
    """Return every bomb; names are unique."""
    kinds: Sequence[Callable[[], Iterator[Bomb]]] = (
        _png, _apng, _jpeg, _gif, _webp, _tiff, _mp4, _tables, _matroska, _wav, _flac, _mp3, _ogg, _by_name, _nothing,
    )  # fmt: skip
    return [bomb for kind in kinds for bomb in kind()]


def _given(name: str, data: bytes, fault: Fault, says: str) -> Bomb:
    return Bomb(name, lambda: data, fault, says)


ZEROS_64M = functools.cache(lambda: zlib.compress(bytes(64 * 1024 * 1024), 9))


def _png() -> Iterator[Bomb]:
    end, data = b.chunk(b"IEND"), b.chunk(b"IDAT", zlib.compress(bytes(64)))
    yield _given("PNG 65,535 square", b.PNG + b.ihdr(65_535, 65_535, 1, 0) + data + end, "too_large", "max|16384")
    yield _given("PNG two billion wide", b.PNG + b.ihdr(2**31 - 1, 1) + data + end, "too_large", "16384")
    yield _given("PNG one side too long", b.PNG + b.ihdr(1, 16_385) + data + end, "too_large", "16384 at most")
    zeros = zlib.compress(bytes(32_000 * 4_001))
    square = b.PNG + b.ihdr(16_000, 16_000, 1, 0) + b.chunk(b"IDAT", zeros) + end
    yield _given("PNG 256 megapixels of zeros", square, "too_large", "50000000 at most")
    yield _given("PNG of no width", b.PNG + b.ihdr(0, 4) + data + end, "broken", "0 x 4")
    yield Bomb(
        "PNG text bomb (zTXt)", lambda: b.png(b.chunk(b"zTXt", b"a\0\0" + ZEROS_64M())), "too_heavy", "zTXt.*8388608"
    )
    yield Bomb(
        "PNG text bomb (iTXt)",
        lambda: b.png(b.chunk(b"iTXt", b"a\0\1\0\0\0" + ZEROS_64M())),
        "too_heavy",
        "iTXt.*8388608",
    )
    yield Bomb(
        "PNG profile bomb", lambda: b.png(b.chunk(b"iCCP", b"a\0\0" + ZEROS_64M())), "too_heavy", "iCCP.*8388608"
    )
    large = zlib.compress(bytes(2 * 1024 * 1024))
    yield _given("PNG profile too large", b.png(b.chunk(b"iCCP", b"a\0\0" + large)), "too_heavy", "profile.*1048576")
    some = b.chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(3 * 1024 * 1024)))
    yield _given("PNG many texts", b.png(*[some] * 4), "too_heavy", "8388608")
    yield _given("PNG text that is no deflate", b.png(b.chunk(b"zTXt", b"a\0\0junk")), "broken", "does not unpack")
    yield _given("PNG text without keyword", b.png(b.chunk(b"zTXt", b"\0\0junk")), "broken", "keyword")
    yield _given("PNG chunk longer than the file", b.PNG + b.ihdr(4, 4) + b"\x7f\xff\xff\xffIDAT", "broken", "IDAT")
    yield _given(
        "PNG palette of a billion colours", b.PNG + b.ihdr(4, 4, 8, 3) + b"\xb2\xd0\x5e\x00PLTE", "broken", "PLTE"
    )
    yield _given("PNG palette of 300 colours", b.png(b.chunk(b"PLTE", bytes(900))), "broken", "palette")
    wrong = bytearray(b.png())
    wrong[-20] ^= 1
    yield _given("PNG with a wrong checksum", bytes(wrong), "broken", "checksum")
    yield _given("PNG with an unknown critical chunk", b.png(b.chunk(b"EVIL", b"x")), "broken", "EVIL")
    yield _given("PNG without data", b.PNG + b.ihdr(4, 4) + end, "broken", "IDAT")
    yield _given("PNG without end", b.png()[:-12], "broken", "IEND")
    yield _given("PNG cut in its data", b.png(width=400, height=400)[:-40], "broken", "says|IEND")
    short = b.PNG + b.ihdr(400, 400) + b.chunk(b"IDAT", zlib.compress(bytes(100))) + end
    yield _given("PNG with too little data", short, "broken", "does not decode")
    noise = b.PNG + b.ihdr(400, 400) + b.chunk(b"IDAT", b"no deflate at all") + end
    yield _given("PNG whose data is no deflate", noise, "broken", "does not decode")
    yield _given("PNG with two headers", b.png(b.ihdr(9_000, 9_000)), "broken", "IHDR")
    yield _given("PNG of depth 3", b.PNG + b.ihdr(4, 4, 3) + data + end, "broken", "depth 3")
    yield _given("PNG of interlace 7", b.PNG + b.ihdr(4, 4, interlace=7) + data + end, "broken", "interlace 7")
    yield Bomb("PNG of 50,001 chunks", lambda: b.png(b.chunk(b"prVt") * 50_001), "too_heavy", "50000 chunks")
    yield _given("PNG in name only", b.PNG + b"<script>alert(1)</script>", "broken", "chunk|IHDR")


def _apng() -> Iterator[Bomb]:
    def says(frames: int) -> bytes:
        return b.chunk(b"acTL", struct.pack(">II", frames, 0))

    yield _given("APNG that says a million frames", b.png(says(1_000_000)), "too_heavy", "1000 at most")
    large = b.PNG + b.ihdr(7_000, 7_000) + says(900) + b.chunk(b"IDAT", b"") + b.chunk(b"IEND")
    yield _given("APNG of 900 large frames", large, "too_heavy", "500000000 are allowed")
    yield _given("APNG that says three frames", b.png(says(3), b.fctl(4, 4)), "broken", "says 3 frames and has 1")
    yield _given("APNG of no frames", b.png(says(0)), "broken", "no frames")
    yield _given("APNG frame outside the canvas", b.png(says(1), b.fctl(4, 4, 1)), "broken", "leaves the canvas")
    yield _given("APNG frame of two billion", b.png(says(1), b.fctl(2**31, 2**31)), "broken", "leaves the canvas")
    flood = b.fctl(1, 1) * 1_001
    yield _given("APNG of 1,001 frames", b.png(says(1), flood), "too_heavy", "1000 at most")
    yield _given("APNG that says it twice", b.png(says(1), says(1)), "broken", "two of them")


def _jpeg() -> Iterator[Bomb]:
    yield _given("JPEG 65,500 square", b.jpeg(b.sof(65_500, 65_500), b.SOS), "too_large", "16384 at most")
    yield _given("JPEG 12,000 square", b.jpeg(b.sof(12_000, 12_000), b.SOS), "too_large", "50000000 at most")
    yield _given("JPEG of a thousand scans", b.jpeg(b.sof(64, 64, 0xC2), b.SOS * 1_000), "too_heavy", "64 scans")
    yield _given("JPEG of large scans", b.jpeg(b.sof(7_000, 7_000, 0xC2), b.SOS * 30), "too_heavy", "all scans")
    for marker, kind in ((0xC3, "lossless"), (0xC9, "arithmetic"), (0xC5, "hierarchical"), (0xCB, "lossless")):
        yield _given(f"JPEG with SOF {marker:#x}", b.jpeg(b.sof(64, 64, marker), b.SOS), "unsupported", kind)
    yield _given("JPEG of 12 bits", b.jpeg(b.sof(64, 64, 0xC1, 12), b.SOS), "unsupported", "12 bits")
    yield _given("JPEG with a hierarchy", b.jpeg(b.segment(0xDE, bytes(6)), b.SOS), "unsupported", "0xde")
    yield _given("JPEG of no height", b.jpeg(b.sof(64, 0), b.SOS), "broken", "64 x 0")
    yield _given("JPEG without end", b.jpeg(b.sof(64, 64), b.SOS)[:-2], "broken", "end marker")
    yield _given("JPEG whose segment is longer than it", b"\xff\xd8\xff\xe1\xff\xff" + bytes(20), "broken", "0xe1")
    yield _given("JPEG with two headers", b.jpeg(b.sof(64, 64), b.sof(16_000, 16_000), b.SOS), "broken", "two frame")
    yield _given("JPEG with data first", b.jpeg(b.SOS, b.sof(64, 64)), "broken", "before the frame header")
    yield _given("JPEG without data", b.jpeg(b.sof(64, 64)), "broken", "no picture data")
    profile = b.segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(60_000))
    yield _given("JPEG with a huge profile", b.jpeg(profile * 20, b.sof(64, 64), b.SOS), "too_heavy", "profile")
    yield _given(
        "JPEG of 10,001 comments", b.jpeg(b.segment(0xFE) * 10_001, b.sof(64, 64), b.SOS), "too_heavy", "10000"
    )
    yield _given("JPEG with a stray marker", b.jpeg(b"\xff\xd0", b.sof(64, 64), b.SOS), "broken", "stands where")
    yield _given("JPEG with rubbish", b"\xff\xd8\xff\xe0\0\2rubbish", "broken", "no marker")
    yield _given("JPEG of fill bytes", b"\xff\xd8" + b"\xff" * 100_000, "broken", "end marker")
    yield _given("JPEG that does not decode", b.jpeg(b.sof(64, 64), b.SOS), "broken", "does not decode")


def _gif() -> Iterator[Bomb]:
    yield _given("GIF 65,535 square", b.gif(65_535, 65_535, b.gif_frame()), "too_large", "16384 at most")
    yield _given("GIF 16,000 square", b.gif(16_000, 16_000, b.gif_frame()), "too_large", "50000000 at most")
    yield _given("GIF of 1,001 frames", b.gif(1, 1, b.gif_frame() * 1_001), "too_heavy", "1000 at most")
    yield _given("GIF of 200 large frames", b.gif(2_000, 2_000, b.gif_frame() * 200), "too_heavy", "all frames")
    yield _given("GIF frame outside the canvas", b.gif(8, 8, b.gif_frame(8, 8, 1)), "broken", "leaves the canvas")
    yield _given("GIF frame of no size", b.gif(8, 8, b.gif_frame(0, 8)), "broken", "leaves the canvas")
    yield _given("GIF cut in its blocks", b.gif(8, 8, b.gif_frame()[:-2], trailer=b""), "broken", "chain of blocks")
    yield _given("GIF without trailer", b.gif(8, 8, b.gif_frame(), trailer=b""), "broken", "trailer")
    yield _given("GIF of code size 12", b.gif(8, 8, b.gif_frame(code_size=12)), "broken", "code size")
    yield _given("GIF without picture", b.gif(8, 8), "broken", "no picture")
    yield _given("GIF that is a script", b"GIF89a=1;alert(document.domain)//" + bytes(64), "too_large", "16384")
    yield _given(
        "GIF that is a script in a comment", b"GIF89a/*" + bytes(20) + b"*/=1;alert(1)", "broken", "block|0 x|pixels"
    )
    yield _given("GIF cut in its header", b"GIF89a\x01", "broken", "header")
    comments = (b"\x21\xfe" + b"\0") * 50_001
    yield _given("GIF of 50,001 comments", b.gif(8, 8, comments, b.gif_frame()), "too_heavy", "50000 blocks")
    bad = b"\x2c" + struct.pack("<HHHHB", 0, 0, 64, 64, 0x81) + bytes(12) + b"\2\4\xff\xff\xff\xff\0"
    yield _given("GIF that does not decode", b.gif(64, 64, bad), "broken", "does not decode")


def _webp() -> Iterator[Bomb]:
    def webp(*chunks: bytes, size: int | None = None) -> bytes:
        return b.riff(b"WEBP", *chunks, size=size)

    anim = b.riff_chunk(b"ANIM", bytes(6))
    yield _given("WebP canvas of 16 million square", webp(b.vp8x(1 << 24, 1 << 24), anim), "too_large", "16384")
    yield _given("WebP 16,384 square", webp(b.vp8l(16_384, 16_384)), "too_large", "50000000")
    yield _given("WebP of 1,001 frames", webp(b.vp8x(2, 2), anim, b.anmf(1, 1) * 1_001), "too_heavy", "1000 at most")
    many = webp(b.vp8x(4_000, 4_000), anim, b.anmf(4, 4) * 40)
    yield _given("WebP of large frames", many, "too_heavy", "all frames")
    yield _given("WebP longer than its file", webp(b.vp8l(4, 4), size=1 << 30), "broken", "says")
    yield _given("WebP chunk longer than its file", webp(b.riff_chunk(b"VP8L", b"x", 1 << 30)), "broken", "VP8L")
    yield _given("WebP whose picture is larger", webp(b.vp8x(4, 4, 0), b.vp8l(9_000, 9_000)), "broken", "4 x 4")
    two = webp(b.vp8x(4, 4, 0), b.vp8l(4, 4), b.vp8l(4, 4))
    yield _given("WebP with two pictures", two, "broken", "more than one picture")
    yield _given("WebP frame outside the canvas", webp(b.vp8x(4, 4), anim, b.anmf(4, 4, 2)), "broken", "leaves")
    liar = b.riff_chunk(b"ANMF", bytes(6) + b.three(0) + b.three(0) + bytes(4) + b.vp8l(9_000, 9_000))
    yield _given("WebP frame that lies", webp(b.vp8x(4, 4), anim, liar), "broken", "different sizes")
    empty = b.riff_chunk(b"ANMF", bytes(16))
    yield _given("WebP frame without picture", webp(b.vp8x(4, 4), anim, empty), "broken", "no picture")
    yield _given("WebP without picture", webp(b.vp8x(4, 4)), "broken", "no picture")
    yield _given("WebP that is no key frame", webp(b.riff_chunk(b"VP8 ", b"\1" + bytes(20))), "broken", "key frame")
    yield _given("WebP without signature", webp(b.riff_chunk(b"VP8L", bytes(20))), "broken", "signature")
    profile = b.riff_chunk(b"ICCP", bytes(2 * 1024 * 1024))
    yield _given("WebP with a huge profile", webp(b.vp8x(4, 4, 0x20), profile, b.vp8l(4, 4)), "too_heavy", "profile")
    yield _given("WebP that does not decode", webp(b.vp8l(400, 400)), "broken", "does not decode")
    yield _given("WebP of 50,001 chunks", webp(b.riff_chunk(b"JUNK", b"") * 50_001), "too_heavy", "50000 chunks")


def _tiff() -> Iterator[Bomb]:
    page = b.tiff_page
    yield _given("TIFF whose page follows itself", b.tiff([page(8, 8)], last=72), "broken", "loop")
    yield _given("TIFF whose pages form a ring", b.tiff([page(8, 8), page(8, 8)], last=72), "broken", "loop")
    yield _given("TIFF of 65 pages", b.tiff([page(8, 8)] * 65), "too_heavy", "64 pages")
    yield _given("TIFF 100,000 square", b.tiff([page(100_000, 100_000)]), "too_large", "16384")
    yield _given("TIFF 9,000 square", b.tiff([page(9_000, 9_000)]), "too_large", "50000000")
    yield _given("TIFF of large pages", b.tiff([page(7_000, 7_000)] * 12), "too_heavy", "all pages")
    overlap = b.tiff([page(8_000, 5_000, strips=5_000, count=60)])
    yield _given("TIFF whose strips overlap", overlap, "broken", "overlap")
    yield _given("TIFF with a strip outside", b.tiff([page(8, 8, offset=1 << 30)]), "broken", "outside the file")
    yield _given("TIFF with a missing strip", b.tiff([page(8, 8, (273, 4, [8, 8]))]), "broken", "strips")
    tiles: list[b.Tag] = [(322, 4, [1 << 20]), (323, 4, [1 << 20]), (324, 4, [8]), (325, 4, [64])]
    yield _given("TIFF with a tile of a million", b.tiff([page(8, 8, *tiles)]), "too_large", "16384")
    small: list[b.Tag] = [(322, 4, [16]), (323, 4, [16]), (324, 4, [8]), (325, 4, [64])]
    yield _given("TIFF with missing tiles", b.tiff([page(4_000, 4_000, *small)]), "broken", "tiles")
    none: list[b.Tag] = [(322, 4, [0]), (323, 4, [0]), (324, 4, [8]), (325, 4, [64])]
    yield _given("TIFF with tiles of no size", b.tiff([page(8, 8, *none)]), "broken", "tile has no size")
    yield _given("TIFF in JPEG 2000", b.tiff([page(8, 8, (259, 3, [34712]))]), "unsupported", "34712")
    yield _given("TIFF of 255 samples", b.tiff([page(8, 8, (277, 3, [255]))]), "unsupported", "255 samples")
    yield _given("TIFF of 4,096 bits", b.tiff([page(8, 8, (258, 3, [4096]))]), "unsupported", "bits")
    yield _given("TIFF shorter than its page", b.tiff([page(4_000, 4_000, (259, 3, [1]))]), "broken", "fewer bytes")
    yield _given("TIFF without a page", b"II*\0\0\0\0\0", "broken", "no page")
    yield _given("TIFF page of no entries", b"II*\0\x08\0\0\0\0\0\0\0\0\0", "broken", "0 entries")
    yield _given("TIFF page of 65,535 entries", b"II*\0\x08\0\0\0\xff\xff" + bytes(64), "broken", "65535 entries")
    yield _given("TIFF page outside the file", b"MM\0*\x7f\xff\xff\xff", "broken", "outside the file")
    outside = b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 273, 4, 1 << 28, 8) + bytes(4)
    yield _given("TIFF tag outside the file", outside, "broken", "outside the file")
    yield _given("TIFF that does not decode", b.tiff([page(8, 8)], data=b"\xff" * 64), "broken", "does not decode")
    yield _given("BigTIFF", b"II+\0\x08\0\0\0" + bytes(64), "unsupported", "BigTIFF")


def _mp4() -> Iterator[Bomb]:
    good = b.track(b.stsd(b.picture_entry()))
    yield _given("MP4 of thirty years", b.film(b.mvhd(1, 10**9), good), "too_long", "600 are allowed")
    yield _given("MP4 track of a century", b.film(b.mvhd(), b.track(scale=1, duration=2**32 - 2)), "too_long", "600")
    wide = b.box(b"mvhd", b"\1\0\0\0", bytes(16), struct.pack(">IQ", 1, 2**62), bytes(80))
    yield _given("MP4 of 2 ** 62 seconds", b.film(wide, good), "too_long", "600")
    yield _given("MP4 without a time scale", b.film(b.mvhd(0), good), "broken", "time scale")
    huge = b.track(b.stsd(b.picture_entry(65_535, 65_535)))
    yield _given("MP4 65,535 square", b.film(b.mvhd(), huge), "too_large", "16384")
    eight = b.track(b.stsd(b.picture_entry(8_000, 8_000)))
    yield _given("MP4 8,000 square", b.film(b.mvhd(), eight), "too_large", "50000000")
    yield _given("MP4 of no size", b.film(b.mvhd(), b.track(b.stsd(b.picture_entry(0, 0)))), "broken", "0 x 0")
    yield _given("MP4 of a hundred tracks", b.film(b.mvhd(), good * 100), "too_heavy", "8 tracks")
    yield _given("MP4 with two tables of contents", b.film(good) + b.box(b"moov", good), "broken", "2 tables")
    yield _given("MP4 without a table of contents", b.FTYP + b.box(b"mdat", bytes(64)), "broken", "0 tables")
    yield _given("MP4 box longer than the file", b.FTYP + b.box(b"moov", size=1 << 30), "broken", "moov")
    yield _given("MP4 box shorter than its head", b.FTYP + b.box(b"moov", size=4), "broken", "moov")
    yield _given("MP4 box of 2 ** 63", b.FTYP + struct.pack(">I4sQ", 1, b"moov", 2**63), "broken", "moov")
    nested = functools.reduce(lambda inner, _: b.box(b"moov", inner), range(1_000), b"")
    yield _given("MP4 nested a thousand deep", b.FTYP + nested, "broken", "nested")
    yield Bomb("MP4 of 20,001 boxes", lambda: b.FTYP + b.box(b"free") * 20_001, "too_heavy", "20000 boxes")
    encrypted = b.track(b.stsd(b.picture_entry(name=b"encv")))
    yield _given("MP4 encrypted", b.film(b.mvhd(), encrypted), "unsupported", "encrypted")
    odd = b.track(b.stsd(b.picture_entry(name=b"SVQ3")))
    yield _given("MP4 in an old codec", b.film(b.mvhd(), odd), "unsupported", "SVQ3")
    yield _given("MP4 of text alone", b.film(b.mvhd(), b.track(handler=b"text")), "unsupported", "neither")
    yield _given("MP4 of scenes", b.film(b.mvhd(), b.track(handler=b"sdsm")), "unsupported", "sdsm")
    for entry in (
        b.box(b"url ", bytes(4), b"file:///etc/passwd\0"),
        b.box(b"alis", bytes(4), b"x"),
        b.box(b"cios", bytes(8)),
    ):
        outside = b.track(b.box(b"dref", bytes(4), struct.pack(">I", 1), entry), b.stsd(b.picture_entry()))
        yield _given(
            f"MP4 that refers outside by {entry[4:8].decode()}", b.film(outside), "unsupported", "outside itself"
        )
    loud = b.track(b.stsd(b.sound_entry(255)), handler=b"soun")
    yield _given("MP4 of 255 channels", b.film(b.mvhd(), loud), "too_heavy", "255 channels")
    yield _given("MP4 with nothing to decode", b.film(b.mvhd(), good), "broken", "decode")
    yield Bomb("MP4 cut before its contents", lambda: honest_film()[:600], "broken", "says|0 tables")
    yield Bomb("MP4 whose pictures are larger than it says", _liar, "too_large", "50000000|16384")
    yield Bomb(
        "MP4 of 300 frames in a blink", lambda: honest_film(frames=300, rate=30_000), "too_heavy", "frames a second"
    )


def _tables() -> Iterator[Bomb]:
    def tabled(name: bytes, *fields: int, handler: bytes = b"vide") -> bytes:
        body = struct.pack(f">{len(fields)}I", *fields)
        entry = b.picture_entry() if handler == b"vide" else b.sound_entry()
        return b.film(b.mvhd(), b.track(b.stsd(entry), b.box(name, bytes(4), body), handler=handler))

    yield _given("MP4 of four billion samples", tabled(b"stsz", 1, 2**32 - 1), "too_long", "samples")
    yield _given("MP4 of four billion sounds", tabled(b"stsz", 1, 2**32 - 1, handler=b"soun"), "too_long", "samples")
    yield _given("MP4 sizes that lie", tabled(b"stsz", 0, 100_000), "broken", "stsz")
    yield _given("MP4 small sizes that lie", tabled(b"stz2", 8, 100_000), "broken", "stz2")
    yield _given("MP4 times for billions", tabled(b"stts", 1, 2**32 - 1, 1), "too_long", "samples")
    yield _given("MP4 times that lie", tabled(b"stts", 2**32 - 1), "broken", "stts")
    for name in (b"stco", b"co64", b"stsc", b"ctts", b"stss", b"elst"):
        yield _given(f"MP4 table {name.decode()} that lies", tabled(name, 2**31), "broken", name.decode())
    many = b.box(b"stsd", bytes(4), struct.pack(">I", 5_000))
    yield _given("MP4 of 5,000 descriptions", b.film(b.mvhd(), b.track(many)), "broken", "5000 sample descriptions")


def _matroska() -> Iterator[Bomb]:
    def tracks(*entries: bytes) -> bytes:
        return b.element(0x1654AE6B, b"".join(entries))

    def info(*parts: bytes) -> bytes:
        return b.element(0x1549A966, b"".join(parts))

    good = tracks(b.picture_track())
    lying = b.matroska(b.element(0x1654AE6B, b"", size=1 << 40))
    yield _given("WebM element longer than the file", lying, "broken", "says")
    yield _given(
        "WebM segment longer than the file", b.matroska()[:-9] + b"\x01" + b"\x7f" * 7, "broken", "says|cut off"
    )
    yield _given("WebM 65,535 square", b.matroska(tracks(b.picture_track(65_535, 65_535))), "too_large", "16384")
    yield _given("WebM 2 ** 60 wide", b.matroska(tracks(b.picture_track(2**60, 1))), "too_large", "16384")
    yield _given("WebM 8,000 square", b.matroska(tracks(b.picture_track(8_000, 8_000))), "too_large", "50000000")
    yield _given("WebM of no size", b.matroska(tracks(b.picture_track(0, 0))), "broken", "0 x 0")
    for ticks in (1e300, float("inf"), float("nan"), -1.0):
        said = b.element(0x4489, struct.pack(">d", ticks))
        fault: Fault = "too_long" if ticks == 1e300 else "broken"
        yield _given(f"WebM that plays {ticks} ticks", b.matroska(info(said), good), fault, "600|times")
    for scale in (0, 2**63):
        yield _given(f"WebM of scale {scale}", b.matroska(info(b.number(0x2AD7B1, scale)), good), "broken", "times")
    yield _given("WebM of a hundred tracks", b.matroska(tracks(b.picture_track() * 100)), "too_heavy", "8 tracks")
    packed = b.picture_track(64, 64, b"V_VP9", b.element(0x6D80, b.element(0x6240)))
    yield _given("WebM of packed tracks", b.matroska(tracks(packed)), "unsupported", "packed or encrypted")
    yield _given("Matroska of another kind", b.matroska(good, doc_type=b"evil"), "unsupported", "evil")
    yield Bomb(
        "WebM of 20,001 voids", lambda: b.matroska(b.element(0xEC) * 20_001, good), "too_heavy", "20000 elements"
    )
    for codec in (b"V_UNCOMPRESSED", b"V_MS/VFW/FOURCC", b"V_QUICKTIME"):
        entry = b.picture_track(64, 64, codec)
        yield _given(f"Matroska in {codec.decode()}", b.matroska(tracks(entry)), "unsupported", codec.decode())
    yield _given("WebM of 255 channels", b.matroska(tracks(b.sound_track(channels=255))), "too_heavy", "255 channels")
    yield _given("WebM of a gigahertz", b.matroska(tracks(b.sound_track(1e9))), "too_heavy", "samples a second")
    yield _given("WebM without tracks", b.matroska(info()), "broken", "no track")
    yield _given("WebM with nothing to decode", b.matroska(good), "broken", "decode")
    yield _given("WebM with a foreign element", b.matroska(b.element(0x4DBB, b"x"), good), "broken", "unknown element")
    yield _given("WebM cut in its head", b.matroska(good)[:9], "broken", "cut off|says")


def _wav() -> Iterator[Bomb]:
    def wav(form: bytes, data: bytes) -> bytes:
        return b.riff(b"WAVE", form, data)

    some = b.riff_chunk(b"data", bytes(1_600))
    lying = wav(b.wav_format(), b.riff_chunk(b"data", bytes(16), 0xFFFFFFFF))
    yield _given("WAV of four gigabytes", lying, "broken", "data")
    slow = wav(b.wav_format(rate=1, depth=8), b.riff_chunk(b"data", bytes(10_000)))
    yield _given("WAV of three hours", slow, "too_long", "600 are allowed")
    yield _given("WAV of 255 channels", wav(b.wav_format(channels=255), some), "too_heavy", "255 channels")
    yield _given("WAV of no channels", wav(b.wav_format(channels=0), some), "too_heavy", "0 channels")
    yield _given("WAV of four gigahertz", wav(b.wav_format(rate=2**32 - 1), some), "too_heavy", "samples a second")
    yield _given("WAV of no rate", wav(b.wav_format(rate=0), some), "too_heavy", "0 samples a second")
    for tag in (2, 17, 0x55, 0x161, 0xFFFE):
        yield _given(f"WAV of format {tag:#x}", wav(b.wav_format(tag), some), "unsupported", "is not opened")
    yield _given("WAV of blocks of nothing", wav(b.wav_format(block=0), some), "broken", "block of 0")
    yield _given("WAV of 7 bits", wav(b.wav_format(depth=7), some), "unsupported", "7 bits")
    yield _given("WAV without samples", b.riff(b"WAVE", b.wav_format()), "broken", "before its samples")
    yield _given("WAV without format", b.riff(b"WAVE", some), "broken", "before their format")
    yield _given("WAV of no samples", wav(b.wav_format(), b.riff_chunk(b"data", b"")), "broken", "no samples")
    flood = b.riff(b"WAVE", b.riff_chunk(b"LIST", b"") * 10_001)
    yield _given("WAV of 10,001 chunks", flood, "too_heavy", "10000 chunks")
    yield _given("RF64", b"RF64" + bytes(60), "unsupported", "RF64")


def _flac() -> Iterator[Bomb]:
    yield _given("FLAC of 2 ** 36 samples", b.flac(2**36 - 1, frames=b"x"), "too_long", "600 are allowed")
    yield _given("FLAC of no rate", b.flac(rate=0, frames=b"x"), "too_heavy", "0 samples a second")
    yield _given("FLAC of a megahertz", b.flac(rate=1_000_000, frames=b"x"), "too_heavy", "samples a second")
    yield _given("FLAC with a block longer than it", b.flac(more=b"\x84\xff\xff\xff"), "broken", "longer than the file")
    yield _given("FLAC without description", b"fLaC\x84\0\0\0" + bytes(64), "broken", "description")
    yield _given(
        "FLAC of two descriptions", b.flac(more=b"\x80\0\0\x22" + bytes(34), frames=b"x"), "broken", "two of them"
    )
    yield _given("FLAC of 130 blocks", b.flac(more=b"\x01\0\0\0" * 130, frames=b"x"), "too_heavy", "128 blocks")
    yield _given("FLAC without sound", b.flac(), "broken", "nothing follows")
    yield _given("FLAC of rubbish", b.flac(frames=bytes(4_000)), "broken", "decode")
    yield Bomb(
        "FLAC of hours in a few bytes", lambda: b.flac(frames=b.flac_frames(2_000)), "too_long", "600 are allowed"
    )
    yield Bomb(
        "FLAC that says a second and holds minutes",
        lambda: b.flac(48_000, frames=b.flac_frames(300)),
        "broken",
        "says 1.0 seconds",
    )


def _mp3() -> Iterator[Bomb]:
    yield _given("MP3 tag longer than the file", b.id3(2**28 - 1, b.mp3(10)), "broken", "more bytes than")
    yield _given("MP3 tag of an impossible size", b"ID3\4\0\0\xff\xff\xff\xff" + b.mp3(10), "broken", "impossible size")
    yield _given("MP3 of tags alone", b.id3(100, bytes(100)), "broken", "no whole frame")
    yield _given("MP3 of nine tags", b.id3(0) * 9 + b.mp3(10), "broken", "eight tags")
    yield _given("MP3 of fifteen minutes in a megabyte", b.mp3(40_000), "too_long", "600 are allowed")
    yield _given("MP3 that ends in something else", b.mp3(10) + b"\x55" * 200_000, "broken", "something else")
    changing = b.mp3(10) + b.mp3(10, b"\xff\xf3\x10\xc0")
    yield _given("MP3 that changes its rate", changing, "broken", "rate changes")
    yield _given("MP3 of half a frame", b.mp3(1)[:10], "broken", "no whole frame")
    yield _given("MP3 far behind rubbish", b.id3(0) + b"\x55" * 200_000 + b.mp3(10), "broken", "no frame")


def _ogg() -> Iterator[Bomb]:
    first = b.ogg_page(b.opus_head())
    yield _given("Ogg of 2 ** 60 ticks", first + b.ogg_page(bytes(10), 2**60), "too_long", "600 are allowed")
    yield _given("Ogg of two streams", first + b.ogg_page(bytes(10), serial=2), "unsupported", "several streams")
    yield _given(
        "Ogg page longer than the file", first + b.ogg_page(b"x", segments=bytes([255] * 255)), "broken", "longer"
    )
    yield _given("Ogg page cut off", first + b"OggS\0\0\0", "broken", "cut off")
    yield _given("Ogg of pictures", b.ogg_page(b"\x80theora" + bytes(60)), "unsupported", "Vorbis or Opus")
    yield _given("Ogg of 255 channels", b.ogg_page(b.opus_head(255)), "too_heavy", "255 channels")
    yield _given("Ogg with nothing to decode", first + b.ogg_page(bytes(10)), "broken", "decode")


LAUGHS = b"""<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY a "ha">%s]>
<svg xmlns="http://www.w3.org/2000/svg"><text>&z;</text></svg>""" % b"".join(
    b'<!ENTITY %c "%s">' % (98 + level, b"&%c;" % (97 + level) * 10) for level in range(25)
)
ACTIVE = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/><script>alert(1)</script></svg>'


def _zip() -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(32 * 1024 * 1024))
    return target.getvalue()


def _by_name() -> Iterator[Bomb]:
    texts = {
        "SVG of a billion laughs": (LAUGHS, "SVG"),
        "SVG that reads files": (ACTIVE, "SVG"),
        "SVG behind a byte-order mark": (b"\xef\xbb\xbf" + ACTIVE, "SVG"),
        "HTML page": (b"<!DOCTYPE html><script>alert(1)</script>", "HTML"),
        "HTML page in capitals": (b"  <HTML><body onload=alert(1)>", "HTML"),
        "XML with an outer entity": (b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///x">]><a/>', "XML"),
        "HLS playlist of a file": (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n", "HLS"),
        "HLS playlist of a network": (b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/\n", "HLS"),
        "DASH playlist": (b'<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>file:///etc/</BaseURL></MPD>', "DASH"),
        "FFmpeg script": (b"ffconcat version 1.0\nfile /etc/passwd\n", "script"),
        "ImageMagick script": (b"push graphic-context\nimage over 0,0 0,0 'msl:/tmp/x'\n", "ImageMagick"),
        "session description": (b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n", "this format"),
        "subtitles": (b"WEBVTT\n\n00:00.000 --> 00:01.000\nhello\n", "subtitles"),
        "PostScript": (b"%!PS-Adobe-3.0\n(/etc/passwd) (r) file\n", "PostScript"),
        "PDF": (b"%PDF-1.7\n1 0 obj <</OpenAction <</S/JavaScript>>>>\n", "PDF"),
    }  # fmt: skip
    for name, (data, said) in texts.items():
        yield _given(name, data, "unsupported", said)
    yield Bomb("ZIP bomb", _zip, "unsupported", "ZIP")
    yield Bomb("gzip bomb", lambda: gzip.compress(bytes(32 * 1024 * 1024)), "unsupported", "gzip")
    yield Bomb("bzip2 bomb", lambda: bz2.compress(bytes(8 * 1024 * 1024)), "unsupported", "bzip2")
    yield Bomb("xz bomb", lambda: lzma.compress(bytes(8 * 1024 * 1024), preset=0), "unsupported", "xz")
    heads = {
        "BMP of two billion": (b"BM" + struct.pack("<IIIIii", 0, 0, 54, 40, 2**31 - 1, 2**31 - 1), "BMP"),
        "AIFF": (b"FORM\0\0\0\x40AIFF", "AIFF"),
        "AU": (b".snd\0\0\0\x18\xff\xff\xff\xff", "AU"),
        "icon": (b"\0\0\1\0\1\0", "icon"),
        "Photoshop": (b"8BPS\0\1" + bytes(8) + b"\0\3\0\4\x93\xe0\0\4\x93\xe0", "Photoshop"),
        "JPEG 2000": (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        "JPEG XL": (b"\xff\x0a\xfa\x1f", "JPEG XL"),
        "AVIF": (b.box(b"ftyp", b"avif\0\0\0\0avifmif1"), "AVIF"),
        "HEIC": (b.box(b"ftyp", b"heic\0\0\0\0mif1heic"), "HEIC"),
        "camera raw": (b.box(b"ftyp", b"crx \0\0\0\1crx isom"), "camera raw"),
        "OpenEXR": (b"v/1\x01\2\0\0\0", "OpenEXR"),
        "QOI of four billion": (b"qoif" + b"\xff" * 8 + b"\4\0", "QOI"),
        "Flash video": (b"FLV\1\5\0\0\0\t", "Flash"),
        "Windows Media": (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "Windows Media"),
        "program": (b"\x7fELF\2\1\1", "program"),
    }  # fmt: skip
    for name, (data, said) in heads.items():
        yield _given(name, data + bytes(64), "unsupported", said)


def _nothing() -> Iterator[Bomb]:
    yield _given("empty file", b"", "broken", "empty")
    yield _given("one byte", b"\xff", "unsupported", "this format")
    yield _given("zeros", bytes(65_536), "unsupported", "this format")
    yield _given("plain text", b"hello, world\n" * 100, "unsupported", "this format")


@functools.cache
def honest_film(frames: int = 10, rate: int = 30, width: int = 64, height: int = 64, codec: str = "mpeg4") -> bytes:
    """Write a small film with FFmpeg."""
    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as output:
        stream = cast("VideoStream", output.add_stream(codec, rate=rate))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(frames):
            frame = av.VideoFrame(width, height, "yuv420p")
            for plane in frame.planes:
                plane.update(bytes([index % 250]) * plane.buffer_size)
            frame.pts = index
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return target.getvalue()


def _liar() -> bytes:
    """Write a film of 52 megapixels whose table of contents says 64 x 64."""
    data = honest_film(frames=1, width=8_176, height=6_400)
    return data.replace(struct.pack(">HH", 8_176, 6_400), struct.pack(">HH", 64, 64)).replace(
        struct.pack(">II", 8_176 << 16, 6_400 << 16), struct.pack(">II", 64 << 16, 64 << 16)
    )
