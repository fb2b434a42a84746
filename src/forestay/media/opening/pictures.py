"""Decodes a picture once, whole, to prove that it can be decoded within the limits; writes it anew where it must.

Pillow sees the clean copy that our reader made, under the one format that the reader found. Written anew: pictures that
do not stand upright (turned as their Exif data asked, JPEG in quality 95 without colour subsampling, the others without
loss) and every TIFF. With `looks` the only module that opens a stranger's file with Pillow.
"""

import contextlib
import struct
import warnings
from collections.abc import Generator
from typing import BinaryIO

from PIL import GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from forestay.media.limits import DecodeLimits
from forestay.media.opening.refusal import Refusal, Walked, broken, check_profile

FORMATS = (PngImagePlugin, JpegImagePlugin, GifImagePlugin, WebPImagePlugin, TiffImagePlugin)  # imported: registered
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_UNDECODABLE = (  # what Pillow's plug-ins raise of files that lie
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    struct.error,
    Image.DecompressionBombError,
)
_SAVING: dict[str, dict[str, object]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "PNG": {"compress_level": 1},
    "WEBP": {"lossless": True, "method": 0, "quality": 0},
}


@contextlib.contextmanager
def decoding() -> Generator[None]:
    """Call what a lying file provokes in Pillow by its name, while the block runs."""
    warnings.simplefilter("ignore")
    try:
        yield
    except _UNDECODABLE as error:
        raise broken(f"the picture does not decode: {_said(error)}") from None


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Return a picture turned as its Exif data asked."""
    return image if orientation == 1 else image.transpose(_TURNS[orientation])


def finish(walked: Walked, source: BinaryIO, out: BinaryIO, limits: DecodeLimits) -> tuple[int, int]:
    """Decode every frame of the clean file in `out`; returns width and height as they are now."""
    Image.MAX_IMAGE_PIXELS = limits.max_pixels
    warnings.simplefilter("ignore")  # what Pillow warns of, the reader has judged already
    try:
        if walked.codec == "TIFF":
            return _pages(walked, source, out, limits)
        return _frames(walked, out)
    except _UNDECODABLE as error:
        raise broken(f"the picture does not decode: {_said(error)}") from None


def _frames(walked: Walked, out: BinaryIO) -> tuple[int, int]:
    out.seek(0)
    image = Image.open(out, formats=[walked.codec])
    if image.size != (walked.width, walked.height):
        raise broken(f"the decoder sees {image.size[0]} x {image.size[1]} pixels, the header says otherwise")
    for index in range(walked.frames):
        image.seek(index)
        image.load()
    if walked.orientation == 1 or walked.frames > 1:
        return image.size
    profile = image.info.get("icc_profile")
    turned = image.transpose(_TURNS[walked.orientation])
    turned.info = {}
    out.seek(0)
    out.truncate()
    turned.save(out, format=walked.codec, icc_profile=profile, **_SAVING[walked.codec])
    return turned.size


def _pages(walked: Walked, source: BinaryIO, out: BinaryIO, limits: DecodeLimits) -> tuple[int, int]:
    source.seek(0)
    image = Image.open(source, formats=["TIFF"])
    size = (0, 0)
    with TiffImagePlugin.AppendingTiffWriter(out, new=True) as writer:
        for index in range(walked.frames):
            image.seek(index)
            page = image.copy()  # upright: Pillow turns TIFF pages while it loads them
            profile = page.info.get("icc_profile")
            check_profile(len(profile or b""), limits)
            page.info = {}
            page.save(writer, format="TIFF", compression="tiff_adobe_deflate", icc_profile=profile)
            writer.newFrame()
            size = page.size if index == 0 else size
    return size


def _said(error: BaseException) -> str:
    if isinstance(error, Refusal):
        return error.message
    return f"{type(error).__name__}: {str(error)[:200]}"
