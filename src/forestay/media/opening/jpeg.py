"""Walks JPEG marker by marker (ITU-T T.81) and keeps only what draws the picture.

Refused before decoding: sizes over the limits, more scans than any encoder makes, arithmetic and lossless coding,
files without end. Dropped: comments, Exif (its orientation is obeyed), XMP, thumbnails, second pictures, whatever
follows the end. Kept: the colour profile, within its limit, since without it the same numbers mean other colours.
"""

import dataclasses
import re

from forestay.media.limits import DecodeLimits
from forestay.media.opening.exif import orientation_of
from forestay.media.opening.refusal import (
    Piece,
    Refusal,
    Span,
    View,
    Walked,
    broken,
    check_profile,
    check_size,
    check_total,
    unsupported,
)

MAX_SCANS = 64  # progressive encoders make 10 to 20; each costs a pass over the whole picture
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # in coded data FF00 is a byte, FFD0..FFD7 are restarts
_SOI, _EOI, _SOS, _DHT, _DQT, _DRI, _DAC, _DNL, _COM = 0xD8, 0xD9, 0xDA, 0xC4, 0xDB, 0xDD, 0xCC, 0xDC, 0xFE
_READABLE = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended, progressive; all with Huffman coding
_FRAMES = frozenset(range(0xC0, 0xD0)) - {_DHT, 0xC8, _DAC}
_MAX_SEGMENTS = 10_000


@dataclasses.dataclass(slots=True)
class _State:
    pieces: list[Piece]
    width: int = 0
    height: int = 0
    scans: int = 0
    orientation: int = 1
    profile_bytes: int = 0


def walk(view: View, limits: DecodeLimits) -> Walked:
    """Return what the file holds; Refusal otherwise."""
    state = _State([b"\xff\xd8"])
    position = 2
    for _ in range(_MAX_SEGMENTS):
        marker, position = _marker(view, position)
        if marker == _EOI:
            break
        position = _segment(state, marker, position, view, limits)
    else:
        raise Refusal("too_heavy", f"the file has more than {_MAX_SEGMENTS} segments")
    if not state.scans:
        raise broken("there is no picture data")
    state.pieces.append(b"\xff\xd9")
    return Walked(
        "image",
        "image/jpeg",
        "JPEG",
        tuple(state.pieces),
        state.width,
        state.height,
        orientation=state.orientation,
    )


def _marker(view: View, position: int) -> tuple[int, int]:
    """Return the marker at `position` and where it ends; fill bytes before it are allowed."""
    if position >= len(view) or view[position] != 0xFF:
        raise broken("the file ends before its end marker" if position >= len(view) else "no marker where one must be")
    while position < len(view) and view[position] == 0xFF:
        position += 1
    if position >= len(view) or view[position] == 0:
        raise broken("the file ends before its end marker")
    return view[position], position + 1


def _segment(state: _State, marker: int, position: int, view: View, limits: DecodeLimits) -> int:
    """Take one segment whose length stands at `position`; return where the next marker is."""
    if marker == 0x01 or 0xD0 <= marker <= _SOI:
        raise broken(f"marker {marker:#x} stands where it must not")
    length = int.from_bytes(view[position : position + 2], "big")
    end = position + length
    if length < 2 or end > len(view):
        raise broken(f"segment {marker:#x} says {length} bytes, which is more than the file has")
    if marker in _FRAMES:
        _frame(state, marker, view[position + 2 : end], limits)
    elif marker == _SOS:
        end = _scan(state, view, end, limits)
    elif marker in {_DAC, _DNL} or marker in {0xDE, 0xDF, 0xC8}:
        raise unsupported(f"JPEG with marker {marker:#x} (arithmetic coding, late height, hierarchical) is not opened")
    elif marker == _COM or marker >= 0xE0:
        if not _kept(state, marker, view[position + 2 : end], limits):
            return end
    elif marker not in {_DHT, _DQT, _DRI}:
        raise broken(f"unknown marker {marker:#x}")
    state.pieces += [b"\xff" + bytes([marker]), Span(position, end)]
    return end


def _frame(state: _State, marker: int, body: bytes, limits: DecodeLimits) -> None:
    if marker not in _READABLE:
        raise unsupported("JPEG in lossless, hierarchical or arithmetic coding is not opened")
    if state.width or len(body) < 6:
        raise broken("there are two frame headers, or one that is too short")
    precision, height, width = body[0], int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
    if precision != 8 or body[5] not in {1, 3, 4}:
        raise unsupported(f"JPEG of {precision} bits and {body[5]} components is not opened")
    check_size(width, height, limits)
    state.width, state.height = width, height


def _scan(state: _State, view: View, position: int, limits: DecodeLimits) -> int:
    if not state.width:
        raise broken("picture data comes before the frame header")
    state.scans += 1
    if state.scans > MAX_SCANS:
        raise Refusal("too_heavy", f"more than {MAX_SCANS} scans", "max_total_pixels", allowed=MAX_SCANS)
    check_total(state.scans * state.width * state.height, limits, "scans")
    found = _NEXT_MARKER.search(view, position)
    if found is None:
        raise broken("the file ends before its end marker")
    return found.start()


def _kept(state: _State, marker: int, body: bytes, limits: DecodeLimits) -> bool:
    """Tell whether an application segment is kept: JFIF, Adobe's colour transform, the colour profile."""
    if marker == 0xE1 and body.startswith(b"Exif\0\0"):
        state.orientation = orientation_of(body)
    if marker == 0xE2 and body.startswith(b"ICC_PROFILE\0"):
        state.profile_bytes += len(body)
        check_profile(state.profile_bytes, limits)
        return True
    jfif = marker == 0xE0 and body.startswith(b"JFIF\0") and len(body) == 14  # longer ones carry a thumbnail
    return jfif or (marker == 0xEE and body.startswith(b"Adobe") and len(body) == 12)
