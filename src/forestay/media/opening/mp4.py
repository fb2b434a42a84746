"""Walks the boxes of MP4 and QuickTime films (ISO/IEC 14496-12) before FFmpeg sees them.

Refused: sizes that exceed their parent, nesting and box counts without reason, pictures, durations, tracks, tables and
sound over the limits, references to other files, codecs that are not on the list, encryption. The film is then written
anew from its packets, without metadata.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping

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

_CONTAINERS = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl", b"dinf", b"edts", b"mvex", b"moof", b"traf"})
_VIDEO = frozenset({b"avc1", b"avc3", b"hvc1", b"hev1", b"vp08", b"vp09", b"av01", b"mp4v"})
_SOUND = frozenset({b"mp4a", b"Opus", b"fLaC", b"alac", b"sowt", b"twos", b"lpcm", b"in24", b"fl32", b".mp3", b"ac-3"})
_OTHER_HANDLERS = frozenset({b"text", b"sbtl", b"subt", b"tmcd", b"meta", b"hint", b"clcp", b"gpmd"})  # left behind
_TABLES = {b"stts": 8, b"ctts": 8, b"stsc": 12, b"stco": 4, b"co64": 8, b"stss": 4, b"elst": 12}
_MAX_BOXES = 20_000
_MAX_DEPTH = 8
_BRAND_IMAGES = frozenset({b"heic", b"heix", b"mif1", b"msf1", b"avif", b"avis", b"crx "})


@dataclasses.dataclass(slots=True)
class _Track:
    handler: bytes = b""
    width: int = 0
    height: int = 0
    samples: int = 0
    seconds: float = 0.0


@dataclasses.dataclass(slots=True)
class _State:
    limits: DecodeLimits
    boxes: int = 0
    movies: int = 0
    tracks: list[_Track] = dataclasses.field(default_factory=list["_Track"])
    seconds: float = 0.0

    @property
    def track(self) -> _Track:
        """The track that is being read; boxes outside any track are read into one that is not kept."""
        return self.tracks[-1] if self.tracks else _Track()


def is_mp4(head: bytes) -> bool:
    """Tell whether a file begins as an MP4 or QuickTime film does."""
    return head[4:8] in {b"ftyp", b"moov", b"wide", b"free", b"skip", b"mdat", b"pnot"}


def walk(view: View, limits: DecodeLimits) -> Walked:
    """Return what the file holds; Refusal otherwise."""
    if view[4:8] == b"ftyp" and bytes(view[8:12]) in _BRAND_IMAGES:
        raise unsupported("HEIC, AVIF and camera raw pictures are not opened; send PNG, JPEG or WebP")
    state = _State(limits)
    _boxes(state, view, (0, len(view)), 0)
    if state.movies != 1:
        raise broken(f"the film has {state.movies} tables of contents (moov), not one")
    pictures = [track for track in state.tracks if track.handler == b"vide"]
    sounds = [track for track in state.tracks if track.handler == b"soun"]
    if not pictures and not sounds:
        raise unsupported("the film has neither pictures nor sound")
    for track in pictures:
        check_size(track.width, track.height, limits)
    quick = bytes(view[8:12]) == b"qt  " or bytes(view[4:8]) != b"ftyp"
    kind, content_type = ("video", "video/quicktime" if quick else "video/mp4") if pictures else ("audio", "audio/mp4")
    first = pictures[0] if pictures else _Track()
    seconds = max([state.seconds, *[track.seconds for track in pictures + sounds]])
    return Walked(
        "video" if kind == "video" else "audio",
        content_type,
        "mov" if quick and pictures else "mp4",
        (),
        first.width,
        first.height,
        max(1, first.samples),
        seconds=seconds,
    )


def _boxes(state: _State, view: View, within: tuple[int, int], depth: int) -> None:
    """Walk the boxes of one parent."""
    if depth > _MAX_DEPTH:
        raise broken("boxes are nested too deeply")
    for name, start, end in _each(state, view, *within):
        if name == b"moov":
            state.movies += 1
        elif name == b"trak":
            state.tracks.append(_Track())
            _check_count(len(state.tracks), state.limits)
        elif reads := _LEAVES.get(name):
            reads(state, name, view, (start, end))
        elif name in _TABLES:
            _table(name, view, (start, end))
        if name in _CONTAINERS:
            _boxes(state, view, (start, end), depth + 1)


def _each(state: _State, view: View, position: int, limit: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and end of the content of each box."""
    while position + 8 <= limit:
        state.boxes += 1
        if state.boxes > _MAX_BOXES:
            raise Refusal("too_heavy", f"the film has more than {_MAX_BOXES} boxes")
        size, name = int.from_bytes(view[position : position + 4], "big"), bytes(view[position + 4 : position + 8])
        head = 8
        if size == 1:
            size, head = int.from_bytes(view[position + 8 : position + 16], "big"), 16
        elif size == 0:
            size = limit - position
        if size < head or position + size > limit:
            raise broken(f"box {_shown(name)} says {size} bytes, which is more than its parent has")
        yield name, position + head, position + size
        position += size


def _movie_header(state: _State, name: bytes, view: View, span: tuple[int, int]) -> None:
    del name
    state.seconds = _duration(bytes(view[span[0] : min(span[1], span[0] + 40)]), state.limits)


def _media_header(state: _State, name: bytes, view: View, span: tuple[int, int]) -> None:
    del name
    state.track.seconds = _duration(bytes(view[span[0] : min(span[1], span[0] + 40)]), state.limits)


def _handler(state: _State, name: bytes, view: View, span: tuple[int, int]) -> None:
    """Note what a track holds; a second handler of a track describes data (QuickTime's `dhlr`) and is passed over."""
    del name
    track = state.track
    track.handler = track.handler or bytes(view[span[0] + 8 : span[0] + 12])
    if track.handler not in {b"vide", b"soun", *_OTHER_HANDLERS}:
        raise unsupported(f"a track of kind {_shown(track.handler)} is not opened")


def _encrypted(state: _State, name: bytes, view: View, span: tuple[int, int]) -> None:
    del state, name, view, span
    raise unsupported("the film is encrypted")


def _table(name: bytes, view: View, span: tuple[int, int]) -> int:
    """Return how many entries a table has; one that says more than it has room for is a lie."""
    count = int.from_bytes(view[span[0] + 4 : span[0] + 8], "big")
    if 8 + count * _TABLES[name] > span[1] - span[0]:
        raise broken(f"table {_shown(name)} says {count} entries, which is more than it has")
    return count


def _duration(body: bytes, limits: DecodeLimits) -> float:
    """Read a duration in seconds; 0 when the header leaves it open."""
    wide = body[:1] == b"\1"
    scale = int.from_bytes(body[20:24] if wide else body[12:16], "big")
    length = int.from_bytes(body[24:32] if wide else body[16:20], "big")
    if not scale:
        raise broken("a time scale is zero")
    if length in {0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF}:
        return 0.0
    check_seconds(length / scale, limits)
    return length / scale


def _descriptions(state: _State, name: bytes, view: View, span: tuple[int, int]) -> None:
    del name
    (start, end), track = span, state.track
    count = int.from_bytes(view[start + 4 : start + 8], "big")
    if not 1 <= count <= 16:
        raise broken(f"a track has {count} sample descriptions")
    for codec, body, stop in _each(state, view, start + 8, end):
        if codec in {b"encv", b"enca"}:
            raise unsupported("the film is encrypted")
        if track.handler == b"vide":
            _picture(state, codec, bytes(view[body : min(stop, body + 28)]))
        elif track.handler == b"soun" and stop - body >= 28:
            _sound(state, codec, bytes(view[body : body + 28]))


def _picture(state: _State, codec: bytes, body: bytes) -> None:
    if codec not in _VIDEO:
        raise unsupported(f"pictures in {_shown(codec)} are not opened; send H.264, HEVC, VP9 or AV1")
    width, height = int.from_bytes(body[24:26], "big"), int.from_bytes(body[26:28], "big")
    check_size(width, height, state.limits)
    track = state.track
    track.width, track.height = max(track.width, width), max(track.height, height)


def _sound(state: _State, codec: bytes, body: bytes) -> None:
    if codec not in _SOUND:
        raise unsupported(f"sound in {_shown(codec)} is not opened")
    if body[8:10] != b"\0\2":  # version 2 of QuickTime keeps these fields elsewhere; FFmpeg's reading is judged later
        rate, channels = int.from_bytes(body[24:26], "big") or 1, int.from_bytes(body[16:18], "big")
        check_sound(rate, channels, state.limits)


def _references(state: _State, name: bytes, view: View, span: tuple[int, int]) -> None:
    """Refuse films whose media lies in another file or at a URL."""
    del name
    for kind, body, _ in _each(state, view, span[0] + 8, span[1]):
        inside = int.from_bytes(view[body + 1 : body + 4], "big") & 1
        if kind not in {b"url ", b"urn ", b"alis", b"rsrc"} or not inside:
            raise unsupported("the film refers to media outside itself")


def _samples(state: _State, name: bytes, view: View, span: tuple[int, int]) -> None:
    body = bytes(view[span[0] : min(span[1], span[0] + 12)])
    fixed, count = int.from_bytes(body[4:8], "big"), int.from_bytes(body[8:12], "big")
    told = fixed & 0xFF if name == b"stz2" else 32
    if (name == b"stz2" or not fixed) and 12 + count * told // 8 > span[1] - span[0]:
        raise broken(f"table {_shown(name)} says {count} samples, which is more than it has")
    state.track.samples = count
    _check_samples(state, count)


def _times(state: _State, name: bytes, view: View, span: tuple[int, int]) -> None:
    """Count the samples that the time table promises; constant tables can promise billions in eight bytes."""
    count, start = _table(name, view, span), span[0] + 8
    _check_samples(
        state, sum(int.from_bytes(view[at : at + 4], "big") for at in range(start, start + 8 * min(count, 1 << 20), 8))
    )


def _check_samples(state: _State, count: int) -> None:
    limits = state.limits
    rate = limits.max_frame_rate if state.track.handler == b"vide" else limits.max_sample_rate
    if count > limits.max_seconds * rate:
        message = f"a track of {count} samples plays longer than {limits.max_seconds:g} seconds"
        raise Refusal("too_long", message, "max_seconds", allowed=limits.max_seconds, given=count / rate)


def _check_count(streams: int, limits: DecodeLimits) -> None:
    if streams > limits.max_streams:
        message = f"more than {limits.max_streams} tracks"
        raise Refusal("too_heavy", message, "max_streams", allowed=limits.max_streams, given=streams)


def _shown(name: bytes) -> str:
    return repr(name.decode("latin-1"))


_LEAVES: Mapping[bytes, Callable[[_State, bytes, View, tuple[int, int]], None]] = {
    b"mvhd": _movie_header,
    b"mdhd": _media_header,
    b"hdlr": _handler,
    b"stsd": _descriptions,
    b"dref": _references,
    b"stsz": _samples,
    b"stz2": _samples,
    b"stts": _times,
    b"pssh": _encrypted,
    b"sinf": _encrypted,
}
