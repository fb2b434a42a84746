"""Walks the elements of WebM and Matroska films (RFC 9559) before FFmpeg sees them.

Refused: sizes that exceed their parent, pictures, durations, tracks and sound over the limits, codecs that are not on
the list, packed or encrypted tracks. Clusters are stepped over; what plays is counted when the film is written anew.
"""

import dataclasses
import struct
from collections.abc import Iterator

from forestay.media.limits import DecodeLimits
from forestay.media.opening.refusal import (
    Refusal,
    View,
    Walked,
    broken,
    check_seconds,
    check_size,
    check_sound,
    unsupported,
)

SIGNATURE = b"\x1a\x45\xdf\xa3"
_EBML, _SEGMENT, _INFO, _TRACKS, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1549A966, 0x1654AE6B, 0x1F43B675
_DOC_TYPE, _SCALE, _DURATION = 0x4282, 0x2AD7B1, 0x4489
_TRACK, _TYPE, _CODEC, _VIDEO, _AUDIO, _ENCODINGS = 0xAE, 0x83, 0x86, 0xE0, 0xE1, 0x6D80
_WIDTH, _HEIGHT, _RATE, _CHANNELS = 0xB0, 0xBA, 0xB5, 0x9F
_TOP = frozenset({_INFO, _TRACKS, _CLUSTER, 0x114D9B74, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367, 0xEC, 0xBF})
_CODECS = frozenset({"V_VP8", "V_VP9", "V_AV1", "V_MPEG4/ISO/AVC", "V_MPEGH/ISO/HEVC", "A_OPUS", "A_VORBIS", "A_AAC",
                     "A_FLAC", "A_MPEG/L3", "A_PCM/INT/LIT", "A_PCM/FLOAT/IEEE"})  # fmt: skip
_MAX_ELEMENTS = 20_000
_MAX_TEXT = 64


@dataclasses.dataclass(slots=True)
class _State:
    limits: DecodeLimits
    elements: int = 0
    doc_type: str = ""
    scale: int = 1_000_000  # nanoseconds of one tick
    ticks: float = 0.0
    tracks: int = 0
    width: int = 0
    height: int = 0
    sounds: int = 0


Element = tuple[int, int, int]  # id, start and end of the content


def walk(view: View, limits: DecodeLimits) -> Walked:
    """Return what the file holds; Refusal otherwise."""
    state = _State(limits)
    for name, start, end in _elements(state, view, 0, len(view)):
        if name == _EBML:
            _header(state, view, start, end)
        elif name == _SEGMENT:
            _segment(state, view, start, end)
    if not state.width and not state.sounds:
        raise broken("the film has no track that can be read")
    seconds = state.ticks * state.scale / 1e9
    check_seconds(seconds, limits)
    base = "webm" if state.doc_type == "webm" else "x-matroska"
    kind = "video" if state.width else "audio"
    codec = "webm" if base == "webm" else "matroska"
    return Walked(
        "video" if kind == "video" else "audio",
        f"{kind}/{base}",
        codec,
        (),
        state.width,
        state.height,
        seconds=seconds,
    )


def _elements(state: _State, view: View, position: int, limit: int) -> Iterator[Element]:
    """Yield the elements of one parent; one of unknown size reaches to the end of its parent."""
    while position < limit:
        state.elements += 1
        if state.elements > _MAX_ELEMENTS:
            raise Refusal("too_heavy", f"the film has more than {_MAX_ELEMENTS} elements")
        name, position = _number(view, position, limit, keep_marker=True)
        size, position = _number(view, position, limit, keep_marker=False)
        end = limit if size < 0 else position + size
        if end > limit:
            raise broken(f"element {name:#x} says {size} bytes, which is more than its parent has")
        yield name, position, end
        position = end


def _number(view: View, position: int, limit: int, *, keep_marker: bool) -> tuple[int, int]:
    """Read a variable-size number; -1 is the size that says "unknown"."""
    first = view[position] if position < limit else 0
    length = 9 - first.bit_length()
    if length > (4 if keep_marker else 8) or position + length > limit:
        raise broken("an element is cut off, or is no element")
    value = int.from_bytes(view[position : position + length], "big")
    if not keep_marker:
        value &= (1 << 7 * length) - 1
        if value == (1 << 7 * length) - 1:
            value = -1
    return value, position + length


def _header(state: _State, view: View, start: int, end: int) -> None:
    for name, at, stop in _elements(state, view, start, end):
        if name == _DOC_TYPE:
            state.doc_type = _text(view, at, stop)
    if state.doc_type not in {"webm", "matroska"}:
        raise unsupported(f"a container of type {state.doc_type!r} is not opened")


def _segment(state: _State, view: View, start: int, end: int) -> None:
    """Walk the segment. A cluster of unknown size ends where the next top-level element begins, which FFmpeg finds."""
    for name, at, stop in _elements(state, view, start, end):
        if name not in _TOP:
            raise broken(f"unknown element {name:#x} in the segment")
        if name == _INFO:
            _info(state, view, at, stop)
        elif name == _TRACKS:
            for inner, inner_at, inner_stop in _elements(state, view, at, stop):
                if inner == _TRACK:
                    _track(state, view, inner_at, inner_stop)


def _info(state: _State, view: View, start: int, end: int) -> None:
    for name, at, stop in _elements(state, view, start, end):
        if name == _SCALE:
            state.scale = _unsigned(view, at, stop)
        elif name == _DURATION:
            state.ticks = _float(view, at, stop)
    if not 0 < state.scale <= 1_000_000_000 or not 0 <= state.ticks < float("inf"):
        raise broken("the film's times cannot be read")


def _track(state: _State, view: View, start: int, end: int) -> None:
    state.tracks += 1
    if state.tracks > state.limits.max_streams:
        message = f"more than {state.limits.max_streams} tracks"
        raise Refusal("too_heavy", message, "max_streams", allowed=state.limits.max_streams, given=state.tracks)
    kind, codec = 0, ""
    for name, at, stop in _elements(state, view, start, end):
        if name == _TYPE:
            kind = _unsigned(view, at, stop)
        elif name == _CODEC:
            codec = _text(view, at, stop)
        elif name == _VIDEO:
            _picture(state, view, at, stop)
        elif name == _AUDIO:
            _sound(state, view, at, stop)
        elif name == _ENCODINGS:
            raise unsupported("the film's tracks are packed or encrypted")
    if kind in {1, 2} and codec not in _CODECS:
        raise unsupported(f"a track in {codec!r} is not opened")


def _picture(state: _State, view: View, start: int, end: int) -> None:
    values = {name: _unsigned(view, at, stop) for name, at, stop in _elements(state, view, start, end)}
    width, height = values.get(_WIDTH, 0), values.get(_HEIGHT, 0)
    check_size(width, height, state.limits)
    state.width, state.height = max(state.width, width), max(state.height, height)


def _sound(state: _State, view: View, start: int, end: int) -> None:
    rate, channels = 8000.0, 1
    for name, at, stop in _elements(state, view, start, end):
        if name == _RATE:
            rate = _float(view, at, stop)
        elif name == _CHANNELS:
            channels = _unsigned(view, at, stop)
    check_sound(int(rate) if 0 <= rate < 1e9 else 0, channels, state.limits)
    state.sounds += 1


def _unsigned(view: View, start: int, end: int) -> int:
    return int.from_bytes(view[start : min(end, start + 8)], "big")


def _float(view: View, start: int, end: int) -> float:
    body = bytes(view[start:end]) if end - start in {4, 8} else b""
    if not body:
        return 0.0
    (value,) = struct.unpack(">f" if len(body) == 4 else ">d", body)
    return float(value)


def _text(view: View, start: int, end: int) -> str:
    return bytes(view[start : min(end, start + _MAX_TEXT)]).rstrip(b"\0").decode("latin-1")
