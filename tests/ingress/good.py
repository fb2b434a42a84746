"""Honest files and honest addresses: what people really send, all of which must come through.

Files are written by Pillow and FFmpeg, most of them with the marks that cameras and editors leave (place, author,
comment, thumbnail), which must not come through.
"""

import dataclasses
import functools
import io
import os
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import av
from av.audio.stream import AudioStream
from av.video.stream import VideoStream
from PIL import Image, ImageCms, ImageDraw, PngImagePlugin
from tests.ingress import boxes as b
from tests.ingress.web import PUBLIC_V4, PUBLIC_V6, Page, page

from forestay.media.limits import Kind

MARK = b"SECRET-PLACE-48.8584N"


@dataclasses.dataclass(frozen=True, slots=True)
class Good:
    """One file."""

    name: str
    kind: Kind
    build: Callable[[], bytes]
    size: tuple[int, int] = (0, 0)  # width and height once opened, upright; of pictures and films
    frames: int = 1
    same_pixels: bool = True  # decodes to the very same pixels as before


@dataclasses.dataclass(frozen=True, slots=True)
class Way:
    """One address under which a file is to be had."""

    name: str
    url: str
    pages: Mapping[str, Page]
    answers: Mapping[str, Sequence[Sequence[str]]] = dataclasses.field(
        default_factory=dict[str, Sequence[Sequence[str]]]
    )


def files() -> list[Good]:
    """Return every file; names are unique."""
    return [*_pictures(), *_turned(), *_animations(), *_films(), *_sounds()]


@functools.cache
def picture(mode: str = "RGB", width: int = 96, height: int = 64) -> Image.Image:
    """Draw a picture in which no two corners look alike."""
    image = Image.linear_gradient("L").resize((width, height)).convert("RGB")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, width // 3, height // 3), fill=(250, 20, 30))
    draw.ellipse((width // 2, height // 2, width - 1, height - 1), fill=(20, 200, 60))
    return image.convert(mode)


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = MARK.decode()
    exif.get_ifd(0x8825)[1] = "N"
    return exif


def _saved(form: str, image: Image.Image, **options: Any) -> Callable[[], bytes]:
    def build() -> bytes:
        target = io.BytesIO()
        image.save(target, format=form, **options)
        return target.getvalue()

    return build


def _profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _texts() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("Author", MARK.decode())
    info.add_text("Comment", MARK.decode() * 20, zip=True)
    info.add_itxt("XML:com.adobe.xmp", MARK.decode(), zip=False)
    return info


def _pictures() -> Iterator[Good]:
    size = (96, 64)
    for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16"):
        image = picture("L").convert("I;16") if mode == "I;16" else picture(mode)
        build = _saved("PNG", image, pnginfo=_texts(), exif=_exif(1), icc_profile=_profile())
        yield Good(f"PNG {mode}", "image", build, size)
    deep = b.PNG + b.ihdr(4, 4, 16, 6) + b.chunk(b"IDAT", zlib.compress((b"\0" + bytes(range(32))) * 4))
    yield Good("PNG of 16 bits in four channels", "image", lambda: deep + b.chunk(b"IEND"), (4, 4))
    yield Good("PNG interlaced", "image", _interlaced, (4, 4))
    yield Good("PNG with something behind", "image", lambda: _saved("PNG", picture())() + MARK * 100, size)
    for name, options in {
        "JPEG": {},
        "JPEG progressive": {"progressive": True},
        "JPEG in 4:4:4": {"subsampling": 0},
        "JPEG in 4:2:0": {"subsampling": 2},
        "JPEG with restarts": {"restart_marker_rows": 1},
        "JPEG with profile": {"icc_profile": _profile()},
        "JPEG with comment": {"comment": MARK},
    }.items():  # fmt: skip
        yield Good(name, "image", _saved("JPEG", picture(), exif=_exif(1), xmp=MARK, **options), size)
    for mode in ("L", "CMYK"):
        yield Good(f"JPEG {mode}", "image", _saved("JPEG", picture(mode), exif=_exif(1)), size)
    yield Good("JPEG with something behind", "image", lambda: _saved("JPEG", picture())() + MARK * 100, size)
    yield Good("JPEG of a megapixel", "image", _saved("JPEG", picture(width=1_000, height=1_000)), (1_000, 1_000))
    for name, options in {
        "WebP": {},
        "WebP lossless": {"lossless": True},
        "WebP with marks": {"exif": _exif(1), "xmp": MARK, "icc_profile": _profile()},
    }.items():
        yield Good(name, "image", _saved("WEBP", picture(), **options), size)
    yield Good("WebP transparent", "image", _saved("WEBP", picture("RGBA"), exif=_exif(1)), size)
    yield Good("WebP lossless transparent", "image", _saved("WEBP", picture("RGBA"), lossless=True), size)
    yield Good("GIF", "image", _saved("GIF", picture("P"), comment=MARK), size)
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        options = {"compression": compression, "description": MARK.decode(), "icc_profile": _profile()}
        yield Good(f"TIFF {compression}", "image", _saved("TIFF", picture(), **options), size)
    for mode in ("RGBA", "L", "1", "CMYK", "F"):
        yield Good(f"TIFF {mode}", "image", _saved("TIFF", picture(mode), artist=MARK.decode()), size)
    wide = picture("L").convert("I;16")
    yield Good("TIFF of 16 bits", "image", _saved("TIFF", wide, compression="tiff_lzw"), size)


def _interlaced() -> bytes:
    """Write a grey picture of 4 x 4 in the passes of Adam7 that such a picture has, a filter byte before each row."""
    rows = (
        b"\0\x10",
        b"\0\x20",
        b"\0\x40\x50",
        b"\0\x60\x70",
        b"\0\x80\x90",
        b"\0\xa0\xb0\xc0\xd0",
        b"\0\xe0\xf0\x01\x02",
    )
    data = b.chunk(b"IDAT", zlib.compress(b"".join(rows)))
    return b.PNG + b.ihdr(4, 4, 8, 0, 1) + data + b.chunk(b"IEND")


def _turned() -> Iterator[Good]:
    for orientation in range(2, 9):
        size = (64, 96) if orientation >= 5 else (96, 64)
        build = _saved("JPEG", picture(), quality=95, exif=_exif(orientation))
        yield Good(f"JPEG turned {orientation}", "image", build, size, same_pixels=False)
    for form in ("PNG", "WEBP", "TIFF"):
        options = {"lossless": True} if form == "WEBP" else {}
        build = _saved(form, picture(), exif=_exif(6), **options)
        yield Good(f"{form} turned 6", "image", build, (64, 96), same_pixels=False)


def _animations() -> Iterator[Good]:
    steps = [picture().rotate(10 * step) for step in range(6)]
    for form, options in {
        "PNG": {},
        "GIF": {"loop": 0, "comment": MARK},
        "WEBP": {"lossless": True},
        "TIFF": {},
    }.items():
        build = _saved(form, steps[0], save_all=True, append_images=steps[1:], duration=40, **options)
        yield Good(f"{form} of six frames", "image", build, (96, 64), 6)
    clear = [picture("RGBA").rotate(10 * step) for step in range(4)]
    for form in ("PNG", "WEBP"):
        build = _saved(form, clear[0], save_all=True, append_images=clear[1:], duration=40)
        yield Good(f"{form} of four transparent frames", "image", build, (96, 64), 4)


@functools.cache
def film(form: str, picture_codec: str, sound_codec: str = "", **muxing: str) -> bytes:
    """Write a second of film with marks in its metadata."""
    with tempfile.NamedTemporaryFile() as target:
        try:
            _film(target.name, form, (picture_codec, sound_codec), muxing)
        finally:
            _share_the_processor()
        return target.read()


def _share_the_processor() -> None:
    """Undo what the AV1 encoder does under root: it makes its caller's thread real-time, and so all that it starts."""
    if sys.platform == "linux" and os.sched_getscheduler(0) != os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def _film(path: str, form: str, codecs: tuple[str, str], muxing: Mapping[str, str]) -> None:
    with av.open(path, "w", format=form, options=dict(muxing)) as output:
        output.metadata.update({"title": MARK.decode(), "location": MARK.decode(), "comment": MARK.decode()})
        moving = cast("VideoStream", output.add_stream(codecs[0], rate=25)) if codecs[0] else None
        sounding = (
            cast("AudioStream", output.add_stream(codecs[1], rate=48_000, layout="stereo")) if codecs[1] else None
        )
        if moving is not None:
            moving.width, moving.height, moving.pix_fmt = 96, 64, "yuv420p"
            for index in range(25):
                output.mux(moving.encode(av.VideoFrame.from_image(picture().rotate(3 * index))))
        if sounding is not None:
            for index in range(50):
                output.mux(sounding.encode(_silence(sounding, index)))
        for stream in (moving, sounding):
            if stream is not None:
                output.mux(stream.encode(None))


def _silence(stream: AudioStream, index: int) -> av.AudioFrame:
    frame = av.AudioFrame(format=stream.format.name, layout="stereo", samples=stream.frame_size or 1_024)
    for plane in frame.planes:
        plane.update(bytes(plane.buffer_size))
    frame.sample_rate, frame.pts = 48_000, index * frame.samples
    return frame


def _films() -> Iterator[Good]:
    made: Mapping[str, tuple[str, str, str, dict[str, str]]] = {
        "MP4 H.264 with AAC": ("mp4", "libx264", "aac", {}),
        "MP4 H.264 silent": ("mp4", "libx264", "", {}),
        "MP4 for the web": ("mp4", "libx264", "aac", {"movflags": "+faststart"}),
        "MP4 in fragments": ("mp4", "libx264", "aac", {"movflags": "+frag_keyframe+empty_moov+default_base_moof"}),
        "MP4 AV1": ("mp4", "libsvtav1", "", {}),
        "MP4 MPEG-4": ("mp4", "mpeg4", "aac", {}),
        "MOV H.264 with AAC": ("mov", "libx264", "aac", {}),
        "MOV H.264 with PCM": ("mov", "libx264", "pcm_s16le", {}),
        "WebM VP8 with Opus": ("webm", "libvpx", "libopus", {}),
        "WebM VP9 with Opus": ("webm", "libvpx-vp9", "libopus", {}),
        "WebM live": ("webm", "libvpx", "libopus", {"live": "1"}),
        "Matroska H.264 with AAC": ("matroska", "libx264", "aac", {}),
        "Matroska VP9 with FLAC": ("matroska", "libvpx-vp9", "flac", {}),
    }
    for name, (form, pictures, sounds, muxing) in made.items():
        yield Good(name, "video", functools.partial(film, form, pictures, sounds, **muxing), (96, 64), 25)


def _sounds() -> Iterator[Good]:
    made: Mapping[str, tuple[str, str]] = {
        "FLAC": ("flac", "flac"),
        "MP3": ("mp3", "libmp3lame"),
        "Ogg Opus": ("ogg", "libopus"),
        "M4A": ("ipod", "aac"),
        "WebM Opus": ("webm", "libopus"),
        "WAV written by FFmpeg": ("wav", "pcm_s16le"),
        "WAV of 24 bits written by FFmpeg": ("wav", "pcm_s24le"),
    }
    for name, (form, codec) in made.items():
        yield Good(name, "audio", functools.partial(film, form, "", codec))
    yield Good("MP3 without tags", "audio", lambda: b.mp3(100))
    tagged = b.id3(len(MARK), MARK) + b.mp3(100) + b"TAG" + MARK.ljust(125, b"\0")
    yield Good("MP3 with tags before and after", "audio", lambda: tagged)
    picture_block = b"\x86" + b.three_big(len(MARK)) + MARK
    yield Good("FLAC with a picture", "audio", lambda: b.flac(3 * 65_535, frames=b.flac_frames(3), more=picture_block))
    for tag, depth in ((1, 8), (1, 16), (1, 24), (1, 32), (3, 32), (3, 64), (6, 8), (7, 8)):
        yield Good(f"WAV of format {tag} in {depth} bits", "audio", functools.partial(_wav, tag, depth))


def _wav(tag: int, depth: int) -> bytes:
    form = b.wav_format(tag, 2, 44_100, depth)
    marks = b.riff_chunk(b"LIST", b"INFOIART" + struct.pack("<I", len(MARK)) + MARK + b"\0")
    return b.riff(b"WAVE", form, marks, b.riff_chunk(b"data", bytes(depth * 100)), marks)


def ways() -> list[Way]:
    """Return every address; `WEB` and `TLS` stand for the ports of a run; each leads to a small PNG."""
    body = _saved("PNG", picture())()
    whole = page("200 OK", "Content-Type: image/png", body=body)
    chunks = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    hop = {f"/{step}": page("302 Found", f"Location: /{step + 1}") for step in range(3)}
    plain = {
        "port 80": "http://files.example/a",
        "port of the server": "http://files.example:WEB/a",
        "port 8443": "http://files.example:8443/a",
        "capitals": "HTTP://FILES.Example/a",
        "final dot": "http://files.example./a",
        "underscore": "http://my_bucket.example/a",
        "deep name": "http://a.b.c.d.e.f.example/a",
        "name in Unicode": "http://bücher.example/a",
        "name in Punycode": "http://xn--bcher-kva.example/a",
        "address": f"http://{PUBLIC_V4}/a",
        "IPv6 address": f"http://[{PUBLIC_V6}]/a",
        "IPv6 address in full": "http://[2606:4700:0000:0000:0000:0000:0000:1111]/a",
        "NAT64 of a public address": "http://[64:ff9b::808:808]/a",
        "query": "http://files.example/a?size=1&name=x",
        "signed query": "http://files.example/a?X-Amz-Signature=ab%2Fcd%3D%3D&X-Amz-Date=20260101T000000Z",
        "query in Unicode": "http://files.example/a?name=größe",
        "fragment": "http://files.example/a#top",
        "over TLS": "https://files.example/a",
        "over TLS on a port": "https://files.example:TLS/a",
    }
    made = [Way(name, url, {"/a": whole}) for name, url in plain.items()]
    made += [
        Way("path in percent", "http://files.example/a%20b%2Fc/%C3%BC~", {"/a%20b%2Fc/%C3%BC~": whole}),
        Way("path in Unicode", "http://files.example/größe", {"/gr%C3%B6%C3%9Fe": whole}),
        Way("in chunks", "http://files.example/a", {"/a": page("200 OK", "Transfer-Encoding: chunked", body=chunks)}),
        Way("without length", "http://files.example/a", {"/a": Page(b"HTTP/1.1 200 OK\r\n\r\n" + body)}),
        Way("in HTTP/1.0", "http://files.example/a", {"/a": Page(b"HTTP/1.0 200 OK\r\n\r\n" + body)}),
        Way("identity said", "http://files.example/a", {"/a": page("200 OK", "Content-Encoding: identity", body=body)}),
        Way("wrong type said", "http://files.example/a", {"/a": page("200 OK", "Content-Type: text/html", body=body)}),
        Way(
            "not authoritative", "http://files.example/a", {"/a": page("203 Non-Authoritative Information", body=body)}
        ),
        Way("after a hint", "http://files.example/a", {"/a": Page(b"HTTP/1.1 103 Early Hints\r\n\r\n" + whole.sent)}),
        Way("three redirects", "http://files.example/0", {**hop, "/3": whole}),
        Way("two addresses", "http://two.example/a", {"/a": whole}, {"two.example": [[PUBLIC_V6, PUBLIC_V4]]}),
        Way("many addresses", "http://many.example/a", {"/a": whole}, {"many.example": [[PUBLIC_V4] * 20]}),
    ]
    for status in (
        "301 Moved Permanently",
        "302 Found",
        "303 See Other",
        "307 Temporary Redirect",
        "308 Permanent Redirect",
    ):
        moved = page(status, "Location: http://other.example/b")
        made.append(Way(f"redirect {status}", "http://files.example/a", {"/a": moved, "/b": whole}))
    for place in (
        "/b",
        "b",
        "//other.example/b",
        "http://other.example/b",
        "https://other.example/b",
        "?again",
        "/b#x",
    ):
        target = {"/a": page("302 Found", f"Location: {place}"), "/b": whole}
        if place == "?again":
            target = {"/c": page("302 Found", "Location: /b?again"), "/b": whole}
        made.append(
            Way(
                f"redirect to {place}",
                "http://files.example/c" if place == "?again" else "http://files.example/a",
                target,
            )
        )
    return made
