"""Walks PNG and animated PNG chunk by chunk (https://www.w3.org/TR/png-3/) and keeps only what draws the picture.

Refused before decoding: sizes and frame counts over the limits, frames that leave the canvas, counts that lie, wrong
checksums, chunks that unpack to more than the limit. Dropped: texts, Exif (its orientation is obeyed), times, unknown
ancillary chunks, whatever follows the end.
"""

import dataclasses
import zlib
from collections.abc import Callable, Iterator, Mapping

from forestay.media.limits import DecodeLimits
from forestay.media.opening.exif import orientation_of
from forestay.media.opening.refusal import (
    Piece,
    Refusal,
    Span,
    View,
    Walked,
    broken,
    check_frames,
    check_profile,
    check_size,
)

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # by colour type
_DATA = frozenset({b"IDAT", b"fdAT"})
_KEPT = frozenset({b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"cICP", b"sBIT", b"bKGD", b"pHYs"})
_UNPACKED = frozenset({b"zTXt", b"iTXt", b"iCCP"})
_MAX_CHUNKS = 50_000
_MAX_EXIF = 1024 * 1024


@dataclasses.dataclass(slots=True)
class _State:
    """What has been seen so far."""

    pieces: list[Piece]
    width: int = 0
    height: int = 0
    declared_frames: int = 0
    controls: int = 0  # fcTL chunks
    frame_pixels: int = 0
    orientation: int = 1
    unpacked: int = 0
    has_data: bool = False
    apart: bool = False  # the picture itself is no frame of the animation: who plays none shows it, and nobody else


def walk(view: View, limits: DecodeLimits) -> Walked:
    """Return what the file holds; Refusal otherwise."""
    state = _State([SIGNATURE])
    for number, (name, start, end) in enumerate(_chunks(view)):
        if (number == 0) != (name == b"IHDR"):
            raise broken("IHDR is not the first chunk, or there are two of them")
        _take(state, name, Span(start, end), view, limits)
        if name == b"IEND":
            break
    else:
        raise broken("the file ends before its IEND chunk")
    if not state.has_data:
        raise broken("there is no picture data (IDAT)")
    if state.declared_frames and state.declared_frames != state.controls:
        raise broken(f"the file says {state.declared_frames} frames and has {state.controls}")
    return Walked(
        "image",
        "image/png",
        "PNG",
        tuple(state.pieces),
        state.width,
        state.height,
        max(1, state.declared_frames + (state.declared_frames > 0 and state.apart)),
        state.orientation,
    )


def _chunks(view: View) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and end of each chunk, length and checksum included."""
    position = len(SIGNATURE)
    for _ in range(_MAX_CHUNKS):
        if position + 8 > len(view):
            return
        length = int.from_bytes(view[position : position + 4], "big")
        end = position + 12 + length
        name = bytes(view[position + 4 : position + 8])
        if end > len(view):
            raise broken(f"chunk {_shown(name)} says {length} bytes, which is more than the file has")
        yield name, position, end
        position = end
    raise Refusal("too_heavy", f"the file has more than {_MAX_CHUNKS} chunks")


def _take(state: _State, name: bytes, span: Span, view: View, limits: DecodeLimits) -> None:
    """Judge one chunk, and keep it if it helps to draw the picture."""
    body = Span(span.start + 8, span.end - 4)
    if reads := _READ.get(name):
        reads(state, view[body.start : body.end], limits)
    elif name in _UNPACKED:
        size = _unpacked(view[body.start : body.end], name, state.unpacked, limits)
        state.unpacked += size
        if name != b"iCCP":
            return
        check_profile(size, limits)
    elif name == b"eXIf":
        state.orientation = orientation_of(bytes(view[body.start : min(body.end, body.start + _MAX_EXIF)]))
        return
    elif name in _DATA:
        state.apart = state.apart or (name == b"IDAT" and not state.controls)
        state.has_data = state.has_data or name == b"IDAT"
    elif name not in _KEPT:
        if not name[:1].islower():
            raise broken(f"unknown critical chunk {_shown(name)}")
        return
    _check_sum(view, span, name)
    state.pieces.append(span)


def _palette(state: _State, body: bytes, limits: DecodeLimits) -> None:
    del state, limits
    if len(body) % 3 or not 3 <= len(body) <= 768:
        raise broken("the palette has no whole number of 1 to 256 colours")


def _check_sum(view: View, span: Span, name: bytes) -> None:
    told = int.from_bytes(view[span.end - 4 : span.end], "big")
    if zlib.crc32(memoryview(view)[span.start + 4 : span.end - 4]) != told:
        raise broken(f"the checksum of chunk {_shown(name)} is wrong")


def _header(state: _State, body: bytes, limits: DecodeLimits) -> None:
    if len(body) != 13:
        raise broken("IHDR has the wrong length")
    width, height = int.from_bytes(body[:4], "big"), int.from_bytes(body[4:8], "big")
    depth, colour, compression, filtering, interlace = body[8:]
    if depth not in _DEPTHS.get(colour, ()) or compression or filtering or interlace > 1:
        raise broken(f"there is no PNG of depth {depth}, colour type {colour}, interlace {interlace}")
    check_size(width, height, limits)
    state.width, state.height = width, height


def _frame_count(state: _State, body: bytes, limits: DecodeLimits) -> None:
    if len(body) != 8 or state.declared_frames:
        raise broken("acTL is malformed or there are two of them")
    frames = int.from_bytes(body[:4], "big")
    if not frames:
        raise broken("the animation says that it has no frames")
    check_frames(frames, frames * state.width * state.height, limits)
    state.declared_frames = frames


def _frame(state: _State, body: bytes, limits: DecodeLimits) -> None:
    if len(body) != 26:
        raise broken("fcTL has the wrong length")
    width, height, left, top = (int.from_bytes(body[start : start + 4], "big") for start in (4, 8, 12, 16))
    if not width or not height or left + width > state.width or top + height > state.height:
        raise broken("a frame leaves the canvas")
    state.controls += 1
    state.frame_pixels += width * height
    check_frames(state.controls, state.frame_pixels, limits)


def _unpacked(body: bytes, name: bytes, before: int, limits: DecodeLimits) -> int:
    """Return how many bytes a compressed text or profile unpacks to, looking no further than the limit."""
    keyword, _, rest = body.partition(b"\0")
    if not 1 <= len(keyword) <= 79:
        raise broken(f"chunk {_shown(name)} has no keyword")
    if name == b"iTXt":
        compressed, rest = rest[:1] == b"\1", rest[2:].partition(b"\0")[2].partition(b"\0")[2]
        if not compressed:
            return 0
    else:
        rest = rest[1:]
    room = limits.max_metadata_bytes - before
    try:
        size = len(zlib.decompressobj().decompress(rest, room + 1))
    except zlib.error:
        raise broken(f"chunk {_shown(name)} does not unpack") from None
    if size > room:
        message = f"chunk {_shown(name)} unpacks to more than {limits.max_metadata_bytes} bytes"
        raise Refusal("too_heavy", message, "max_metadata_bytes", allowed=limits.max_metadata_bytes, given=size)
    return size


def _shown(name: bytes) -> str:
    return repr(name.decode("latin-1"))


_READ: Mapping[bytes, Callable[[_State, bytes, DecodeLimits], None]] = {
    b"IHDR": _header,
    b"PLTE": _palette,
    b"acTL": _frame_count,
    b"fcTL": _frame,
}
