"""Reads the sound of a file as blocks of samples, so that it can be measured; WAV by hand, everything else by FFmpeg.

Run by `measured` in the limited child.
"""

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from forestay.media.limits import DecodeLimits
from forestay.media.opening import films
from forestay.media.opening.refusal import Refusal, Span, Walked, unsupported

Block = npt.NDArray[np.float32]
_BLOCK_BYTES = 1024 * 1024
_EXTENSIBLE = 0xFFFE


def open_sound(
    source: BinaryIO, walked: Walked, limits: DecodeLimits
) -> tuple[films.SoundTrack, Iterator[Block]] | None:
    """Return what is known of the sound and its blocks `[samples, channels]` at full scale 1; None: there is none."""
    if walked.codec == "wav":
        return _wav(source, walked)
    found = films.sound_of(source, walked, limits)
    if found is None:
        return None
    return found, films.samples(source, walked, limits)


def _wav(source: BinaryIO, walked: Walked) -> tuple[films.SoundTrack, Iterator[Block]]:
    head, span = walked.pieces[0], walked.pieces[1]
    if not isinstance(head, bytes) or not isinstance(span, Span):
        raise unsupported("this WAV is not measured")
    form = head[20:]
    tag, channels = int.from_bytes(form[0:2], "little"), int.from_bytes(form[2:4], "little")
    rate, depth = int.from_bytes(form[4:8], "little"), int.from_bytes(form[14:16], "little")
    if tag == _EXTENSIBLE:
        tag = int.from_bytes(form[24:26], "little")
    return films.SoundTrack(f"pcm_{depth}", rate, channels), _wav_blocks(source, span, (tag, channels, depth))


def _wav_blocks(source: BinaryIO, span: Span, form: tuple[int, int, int]) -> Iterator[Block]:
    tag, channels, depth = form
    frame = channels * depth // 8
    source.seek(span.start)
    left = span.end - span.start
    while left > 0:
        data = source.read(min(left, _BLOCK_BYTES // frame * frame or frame))
        if not data:
            return
        left -= len(data)
        yield _decoded(data[: len(data) // frame * frame], tag, depth).reshape(-1, channels)


def _decoded(data: bytes, tag: int, depth: int) -> Block:
    """Return interleaved samples of PCM (1) or IEEE floats (3); other codings are not measured."""
    match tag, depth:
        case (1, 8):
            return (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / np.float32(128)
        case (1, 16):
            return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(2**15)
        case (1, 24):
            parts = np.frombuffer(data, np.uint8).reshape(-1, 3).astype(np.int32)
            whole = (parts[:, 0] << 8 | parts[:, 1] << 16 | parts[:, 2] << 24) >> 8
            return whole.astype(np.float32) / np.float32(2**23)
        case (1, 32):
            return np.frombuffer(data, "<i4").astype(np.float32) / np.float32(2**31)
        case (3, 32):
            return np.frombuffer(data, "<f4").astype(np.float32)
        case (3, 64):
            return np.frombuffer(data, "<f8").astype(np.float32)
        case _:
            raise Refusal("unsupported", f"WAV of format {tag} with {depth} bits is not measured")
