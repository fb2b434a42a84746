"""Walks WAV, FLAC, MP3 and Ogg recordings before anything is decoded, and keeps only what sounds.

WAV (RFC 2361): header and samples are kept, its other chunks dropped. FLAC (RFC 9639): of its metadata the stream's own
description is kept. MP3 (ISO/IEC 11172-3): the frames are kept, tags before and after them dropped. Ogg (RFC 3533): one
stream of Vorbis or Opus, written anew. Refused: rates, channels and durations over the limits, lengths that lie.
"""

import re

from forestay.media.limits import DecodeLimits
from forestay.media.opening.refusal import (
    Refusal,
    Span,
    View,
    Walked,
    broken,
    check_seconds,
    check_sound,
    unsupported,
)

_PCM, _FLOAT, _ALAW, _MULAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
_DEPTHS = {_PCM: (8, 16, 24, 32), _FLOAT: (32, 64), _ALAW: (8,), _MULAW: (8,)}
_WAV_FIELDS = ((0, 2), (2, 2), (4, 4), (8, 4), (12, 2), (14, 2))  # start and bytes of each
_SUBFORMAT_TAIL = bytes.fromhex("000000001000800000aa00389b71")
_MAX_CHUNKS = 10_000
_MAX_BLOCKS = 128

# Layer III: kbit/s of MPEG 1 and of MPEG 2 and 2.5; samples a second by version bits (ISO/IEC 11172-3, 13818-3)
_RATES_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_RATES_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_SAMPLES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_MAX_LEAD = 64 * 1024  # bytes before the first frame, beside tags
_TAIL = re.compile(rb"TAG|APETAGEX|LYRICSBEGIN|\x00")
_MAX_TAIL = 64 * 1024


def walk_wav(view: View, limits: DecodeLimits) -> Walked:
    """Return what a WAV file holds; Refusal otherwise."""
    form, position = b"", 12
    for _ in range(_MAX_CHUNKS):
        if position + 8 > len(view):
            raise broken("the file ends before its samples")
        name, size = bytes(view[position : position + 4]), int.from_bytes(view[position + 4 : position + 8], "little")
        if position + 8 + size > len(view):
            raise broken(f"chunk {name.decode('latin-1')!r} says {size} bytes, which is more than the file has")
        if name == b"fmt ":
            form = bytes(view[position + 8 : position + 8 + min(size, 40)])
        elif name == b"data":
            return _wav(form, Span(position + 8, position + 8 + size), limits)
        position += 8 + size + (size & 1)
    raise Refusal("too_heavy", f"the file has more than {_MAX_CHUNKS} chunks")


def _wav(form: bytes, data: Span, limits: DecodeLimits) -> Walked:
    if len(form) < 16:
        raise broken("the samples come before their format")
    tag, channels, rate, _, block, depth = (
        int.from_bytes(form[at : at + size], "little")
        for at, size in ((0, 2), (2, 2), (4, 4), (8, 4), (12, 2), (14, 2))
    )
    if tag == _EXTENSIBLE:
        if len(form) != 40 or form[26:] != _SUBFORMAT_TAIL:
            raise unsupported("WAV in an unknown extended format is not opened")
        tag = int.from_bytes(form[24:26], "little")
    check_sound(rate, channels, limits)
    if depth not in _DEPTHS.get(tag, ()):
        raise unsupported(f"WAV of format {tag} with {depth} bits is not opened")
    if block != channels * depth // 8:
        raise broken(f"a block of {block} bytes cannot hold {channels} x {depth} bits")
    whole = data.end - data.start
    whole -= whole % block
    check_seconds(whole / block / rate, limits)
    if not whole:
        raise broken("there are no samples")
    head = b"fmt " + len(form).to_bytes(4, "little") + form + b"data" + whole.to_bytes(4, "little")
    riff = b"RIFF" + (4 + len(head) + whole + (whole & 1)).to_bytes(4, "little") + b"WAVE"
    pieces = (riff + head, Span(data.start, data.start + whole), b"\0" * (whole & 1))
    return Walked("audio", "audio/wav", "wav", pieces, seconds=whole / block / rate, samples=whole // block)


def walk_flac(view: View, limits: DecodeLimits) -> Walked:
    """Return what a FLAC file holds; Refusal otherwise."""
    position, description = 4, b""
    for number in range(_MAX_BLOCKS):
        head = bytes(view[position : position + 4])
        end = position + 4 + int.from_bytes(head[1:], "big")
        if len(head) < 4 or end > len(view):
            raise broken("a block of metadata is longer than the file")
        if (number == 0) != (head[0] & 0x7F == 0):
            raise broken("the stream's description is not the first block, or there are two of them")
        description = description or bytes(view[position + 4 : end])
        position = end
        if head[0] & 0x80:
            break
    else:
        raise Refusal("too_heavy", f"the file has more than {_MAX_BLOCKS} blocks of metadata")
    if len(description) != 34 or position >= len(view):
        raise broken("the stream's description has the wrong length, or nothing follows it")
    packed = int.from_bytes(description[10:18], "big")
    rate, channels, samples = packed >> 44, (packed >> 41 & 7) + 1, packed & 0xFFFFFFFFF
    check_sound(rate, channels, limits)
    check_seconds(samples / rate, limits)
    pieces = (b"fLaC\x80\x00\x00\x22" + description, Span(position, len(view)))
    return Walked("audio", "audio/flac", "flac", pieces, seconds=samples / rate, samples=samples)


def is_mp3(head: bytes) -> bool:
    """Tell whether a file begins with a tag or with a frame of MPEG audio, layer III."""
    return head.startswith(b"ID3") or _frame_bytes(head[:4]) is not None


def walk_mp3(view: View, limits: DecodeLimits) -> Walked:
    """Return what an MP3 file holds; Refusal otherwise."""
    start = _after_tags(view)
    while start < len(view) and _frame_bytes(bytes(view[start : start + 4])) is None:
        found = view.find(b"\xff", start + 1)
        if found < 0 or found - _after_tags(view) > _MAX_LEAD:
            raise broken("there is no frame of MPEG audio")
        start = found
    position, samples, rate = start, 0, 0
    while frame := _frame_bytes(bytes(view[position : position + 4])):
        size, frame_samples, frame_rate, channels = frame
        rate = rate or frame_rate
        check_sound(frame_rate, channels, limits)
        if frame_rate != rate:
            raise broken("the sample rate changes in mid-stream")
        if position + size > len(view):
            break  # the last frame is cut off, as streams often end
        position += size
        samples += frame_samples
        check_seconds(samples / rate, limits)
    if not samples:
        raise broken("there is no whole frame of MPEG audio")
    if len(view) - position > _MAX_TAIL and not _TAIL.match(view, position):
        raise broken(f"after {position} bytes of MPEG audio something else follows")
    return Walked("audio", "audio/mpeg", "mp3", (Span(start, position),), seconds=samples / rate, samples=samples)


def _after_tags(view: View) -> int:
    """Return where the ID3v2 tags at the start end (https://id3.org/id3v2.4.0-structure)."""
    position = 0
    for _ in range(8):
        if view[position : position + 3] != b"ID3":
            return position
        sizes = bytes(view[position + 6 : position + 10])
        if len(sizes) < 4 or max(sizes) > 127:
            raise broken("a tag says an impossible size")
        position += 10 + sum(byte << 7 * (3 - index) for index, byte in enumerate(sizes))
        if position > len(view):
            raise broken("a tag says more bytes than the file has")
    raise broken("more than eight tags stand before the sound")


def _frame_bytes(head: bytes) -> tuple[int, int, int, int] | None:
    """Return size, samples, sample rate and channels of a layer III frame; None when `head` begins none."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    bits, rate, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or layer != 1 or bits in {0, 15} or rate == 3:
        return None
    kilobits = (_RATES_1 if version == 3 else _RATES_2)[bits]
    per_second, samples = _SAMPLES[version][rate], 1152 if version == 3 else 576
    size = samples // 8 * kilobits * 1000 // per_second + padding
    return size, samples, per_second, 1 if head[3] >> 6 == 3 else 2


def walk_ogg(view: View, limits: DecodeLimits) -> Walked:
    """Return what an Ogg file holds; Refusal otherwise."""
    first = bytes(view[28 : 28 + 64])
    rate, channels = _ogg_codec(first)
    check_sound(rate, channels, limits)
    position, serial, granules = 0, bytes(view[14:18]), 0
    while position < len(view):
        head = bytes(view[position : position + 27])
        if len(head) < 27 or not head.startswith(b"OggS\0"):
            raise broken("a page is cut off, or is no page")
        if head[14:18] != serial:
            raise unsupported("Ogg with several streams is not opened")
        granule = int.from_bytes(head[6:14], "little", signed=True)
        granules = max(granules, granule)
        check_seconds(granules / rate, limits)
        table = bytes(view[position + 27 : position + 27 + head[26]])
        position += 27 + head[26] + sum(table)
        if position > len(view) or len(table) < head[26]:
            raise broken("the last page is longer than the file")
    return Walked("audio", "audio/ogg", "ogg", (), seconds=granules / rate)


def _ogg_codec(first: bytes) -> tuple[int, int]:
    """Read the ticks a second and the channels from the first packet."""
    if first.startswith(b"OpusHead") and len(first) >= 19:
        return 48_000, first[9]  # RFC 7845: times are always in 48 kHz
    if first.startswith(b"\x01vorbis") and len(first) >= 16:
        return int.from_bytes(first[12:16], "little"), first[11]
    raise unsupported("Ogg with anything but Vorbis or Opus sound is not opened")
