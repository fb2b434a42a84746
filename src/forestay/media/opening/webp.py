"""Walks WebP chunk by chunk (RFC 9649) and keeps what draws the picture.

Refused before decoding: canvases and frame counts over the limits, frames that leave the canvas, pictures whose own
header says another size, sizes that exceed the file. Dropped: Exif (its orientation is obeyed), XMP, unknown chunks,
whatever follows the end.
"""

import dataclasses
from collections.abc import Iterator

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

_EXIF_FLAG, _XMP_FLAG = 0x08, 0x04
_PICTURES = frozenset({b"VP8 ", b"VP8L"})
_MAX_CHUNKS = 50_000
_MAX_EXIF = 1024 * 1024


@dataclasses.dataclass(slots=True)
class _State:
    pieces: list[Piece]
    size: int = 4  # of what follows the RIFF length: "WEBP" so far
    width: int = 0
    height: int = 0
    extended: bool = False
    pictures: int = 0
    frames: int = 0
    orientation: int = 1

    def keep(self, *pieces: Piece) -> None:
        """Add pieces of an even number of bytes."""
        self.pieces += pieces
        self.size += sum(len(piece) if isinstance(piece, bytes) else piece.end - piece.start for piece in pieces)


def walk(view: View, limits: DecodeLimits) -> Walked:
    """Return what the file holds; Refusal otherwise."""
    end = 8 + int.from_bytes(view[4:8], "little")
    if end > len(view):
        raise broken(f"the file says {end} bytes and has {len(view)}")
    state = _State([])
    for name, start, stop in _chunks(view, 12, end):
        _take(state, name, Span(start, stop), view, limits)
    if not state.pictures and not state.frames:
        raise broken("there is no picture")
    if state.pictures + bool(state.frames) > 1:
        raise broken("there is more than one picture outside an animation")
    head = b"RIFF" + state.size.to_bytes(4, "little") + b"WEBP"
    return Walked(
        "image",
        "image/webp",
        "WEBP",
        (head, *state.pieces),
        state.width,
        state.height,
        max(1, state.frames),
        state.orientation,
    )


def _chunks(view: View, position: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and end (padding included) of each chunk."""
    for _ in range(_MAX_CHUNKS):
        if position + 8 > end:
            return
        length = int.from_bytes(view[position + 4 : position + 8], "little")
        stop = position + 8 + length + (length & 1)
        name = bytes(view[position : position + 4])
        if stop > end:
            raise broken(f"chunk {name.decode('latin-1')!r} says {length} bytes, which is more than there are")
        yield name, position, stop
        position = stop
    raise Refusal("too_heavy", f"the file has more than {_MAX_CHUNKS} chunks", "max_frames")


def _take(state: _State, name: bytes, span: Span, view: View, limits: DecodeLimits) -> None:
    body = span.start + 8
    if name == b"VP8X":
        _canvas(state, bytes(view[body : span.end]), limits)
    elif name in _PICTURES:
        _picture(state, name, bytes(view[body : body + 10]), limits)
        state.keep(span)
    elif name == b"ANMF":
        _frame(state, span, view, limits)
    elif name == b"EXIF":
        state.orientation = orientation_of(bytes(view[body : min(span.end, body + _MAX_EXIF)]))
    elif name == b"ICCP":
        check_profile(span.end - body, limits)
        state.keep(span)
    elif name in {b"ANIM", b"ALPH"}:
        state.keep(span)


def _canvas(state: _State, body: bytes, limits: DecodeLimits) -> None:
    if len(body) != 10 or state.width:
        raise broken("VP8X is malformed or not the first chunk")
    state.extended = True
    state.width, state.height = (1 + int.from_bytes(body[start : start + 3], "little") for start in (4, 7))
    check_size(state.width, state.height, limits)
    flags = body[0] & ~(_EXIF_FLAG | _XMP_FLAG)
    state.keep(b"VP8X" + (10).to_bytes(4, "little") + bytes([flags]) + body[1:])


def _picture(state: _State, name: bytes, head: bytes, limits: DecodeLimits) -> None:
    state.pictures += 1
    size = _size_of(name, head)
    if state.extended and size != (state.width, state.height):
        raise broken(f"the canvas is {state.width} x {state.height}, the picture {size[0]} x {size[1]}")
    check_size(*size, limits)
    state.width, state.height = size


def _frame(state: _State, span: Span, view: View, limits: DecodeLimits) -> None:
    """Check one frame of an animation; of its own chunks only picture and transparency are kept."""
    head = bytes(view[span.start + 8 : span.start + 24])
    if len(head) < 16 or not state.extended:
        raise broken("a frame is too short, or comes before the canvas")
    left, top = (2 * int.from_bytes(head[start : start + 3], "little") for start in (0, 3))
    width, height = (1 + int.from_bytes(head[start : start + 3], "little") for start in (6, 9))
    if left + width > state.width or top + height > state.height:
        raise broken("a frame leaves the canvas")
    state.frames += 1
    check_frames(state.frames, state.frames * state.width * state.height, limits)
    kept = [chunk for chunk in _chunks(view, span.start + 24, span.end) if chunk[0] in {*_PICTURES, b"ALPH"}]
    for name, start, _ in kept:
        if name in _PICTURES and _size_of(name, bytes(view[start + 8 : start + 18])) != (width, height):
            raise broken("a frame and its picture say different sizes")
    if sum(name in _PICTURES for name, _, _ in kept) != 1:
        raise broken("a frame has no picture, or several")
    length = 16 + sum(stop - start for _, start, stop in kept)
    spans = [Span(start, stop) for _, start, stop in kept]
    state.keep(b"ANMF" + length.to_bytes(4, "little") + head, *spans)


def _size_of(name: bytes, head: bytes) -> tuple[int, int]:
    """Read the size that a lossy (RFC 6386, section 9.1) or lossless picture says of itself."""
    if name == b"VP8L":
        if len(head) < 5 or head[0] != 0x2F:
            raise broken("a lossless picture has no signature")
        bits = int.from_bytes(head[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if len(head) < 10 or head[0] & 1 or head[3:6] != b"\x9d\x01\x2a":
        raise broken("a lossy picture is no key frame")
    return int.from_bytes(head[6:8], "little") & 0x3FFF, int.from_bytes(head[8:10], "little") & 0x3FFF
