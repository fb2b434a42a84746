"""Walks GIF block by block (https://www.w3.org/Graphics/GIF/spec-gif89a.txt) and keeps what draws the picture.

Refused before decoding: canvases and frame counts over the limits, frames that leave the canvas, files without end.
Dropped: comments, plain texts, foreign application blocks (XMP), whatever follows the end.
"""

from forestay.media.limits import DecodeLimits
from forestay.media.opening.refusal import (
    Piece,
    Refusal,
    Span,
    View,
    Walked,
    broken,
    check_frames,
    check_size,
)

SIGNATURES = (b"GIF87a", b"GIF89a")
_LOOPS = frozenset({b"NETSCAPE2.0", b"ANIMEXTS1.0"})
_MAX_BLOCKS = 50_000


def walk(view: View, limits: DecodeLimits) -> Walked:
    """Return what the file holds; Refusal otherwise."""
    if len(view) < 13:
        raise broken("the file ends inside its header")
    width, height = int.from_bytes(view[6:8], "little"), int.from_bytes(view[8:10], "little")
    check_size(width, height, limits)
    position = 13 + _table_bytes(view[10])
    pieces: list[Piece] = [Span(0, position)]
    frames = 0
    for _ in range(_MAX_BLOCKS):
        kind = view[position : position + 1]
        if kind == b"\x3b":
            break
        if kind == b"\x2c":
            end = _image(view, position, (width, height))
            frames += 1
            check_frames(frames, frames * width * height, limits)
            pieces.append(Span(position, end))
        elif kind == b"\x21":
            end = _extension(view, position, pieces)
        else:
            raise broken("the file ends before its trailer" if not kind else f"unknown block {kind!r}")
        position = end
    else:
        raise Refusal("too_heavy", f"the file has more than {_MAX_BLOCKS} blocks", "max_frames")
    if not frames:
        raise broken("there is no picture")
    return Walked("image", "image/gif", "GIF", (*pieces, b"\x3b"), width, height, frames)


def _table_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _image(view: View, position: int, canvas: tuple[int, int]) -> int:
    """Check one picture and return where it ends."""
    head = view[position + 1 : position + 10]
    if len(head) < 9:
        raise broken("the file ends inside a picture")
    left, top, width, height = (int.from_bytes(head[start : start + 2], "little") for start in (0, 2, 4, 6))
    if not width or not height or left + width > canvas[0] or top + height > canvas[1]:
        raise broken("a frame leaves the canvas")
    data = position + 10 + _table_bytes(head[8])
    if not 1 <= int.from_bytes(view[data : data + 1], "little") <= 8:
        raise broken("a picture has an impossible code size")
    return _blocks_end(view, data + 1)


def _extension(view: View, position: int, pieces: list[Piece]) -> int:
    """Keep timing, transparency and loops; drop the rest; return where it ends."""
    label = view[position + 1 : position + 2]
    end = _blocks_end(view, position + 2)
    timing = label == b"\xf9" and end - position == 8
    loop = label == b"\xff" and bytes(view[position + 3 : position + 14]) in _LOOPS and end - position <= 64
    if timing or loop:
        pieces.append(Span(position, end))
    return end


def _blocks_end(view: View, position: int) -> int:
    """Return where a chain of sub-blocks ends."""
    size = len(view)
    while position < size:
        length = view[position]
        position += 1 + length
        if not length:
            return position
    raise broken("the file ends inside a chain of blocks")
