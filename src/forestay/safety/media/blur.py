"""A copy of a picture or a film in which nothing can be made out: what goes out where a policy says `blur`.

Made from the looks that the limited child took at the file, so no byte of the file is parsed here. A look is reduced to
a dozen patches of its mean colour and drawn smoothly at its size again: what is not in the patches is gone, and no
filter brings it back. A film becomes a silent film of its looks, a second each. Decides nothing. Called by the worker.
"""

# PyAV is partly untyped.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

import fractions
import io
from collections.abc import Sequence

from PIL import Image

from forestay.safety.model import Picture

PATCHES = 12  # along the longer side
LONGEST_SIDE = 1024  # pixels of the copy
STILL, FILM = "image/jpeg", "video/mp4"
_QUALITY = 85
_SECONDS_EACH = 1


def still(picture: Picture) -> bytes:
    """Return the copy of a still, as JPEG of at most LONGEST_SIDE."""
    target = io.BytesIO()
    _blurred(picture, even=False).save(target, "JPEG", quality=_QUALITY)
    return target.getvalue()


def film(looks: Sequence[Picture]) -> bytes:
    """Return the copy of a film from its looks, at least one, as MP4 without sound."""
    import av  # noqa: PLC0415 - the codecs take memory, and few workers ever write a film

    target = io.BytesIO()
    first = _blurred(looks[0], even=True)
    with av.open(target, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=fractions.Fraction(1, _SECONDS_EACH))
        stream.width, stream.height, stream.pix_fmt = first.width, first.height, "yuv420p"
        for look in looks:
            shown = _blurred(look, even=True).resize(first.size)
            container.mux(stream.encode(av.VideoFrame.from_image(shown)))
        container.mux(stream.encode())
    return target.getvalue()


def _blurred(picture: Picture, *, even: bool) -> Image.Image:
    shown = Image.frombytes("RGB", (picture.width, picture.height), picture.rgb)
    longest = max(shown.size)
    patches = tuple(max(1, round(PATCHES * side / longest)) for side in shown.size)
    scale = min(1.0, LONGEST_SIDE / longest)
    width, height = (max(2, round(side * scale)) for side in shown.size)
    if even:  # most codecs halve the colours either way
        width, height = width // 2 * 2, height // 2 * 2
    small = shown.resize((patches[0], patches[1]), Image.Resampling.BOX)
    return small.resize((width, height), Image.Resampling.BICUBIC)
