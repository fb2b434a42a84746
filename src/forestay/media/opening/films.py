"""Decodes films and recordings far enough to trust them, and writes them anew from their packets, without metadata.

FFmpeg is told the container, the demuxers and decoders it may use, and that it may open nothing else. Sound is decoded
whole and counted; of pictures the first frame and key frames up to a budget are decoded, every one of them under the
limit of pixels. Packets are copied, so nothing loses quality; one picture track and one sound track are kept. The only
module that imports PyAV.
"""

import contextlib
import dataclasses
import fractions
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO, cast

import av
import av.audio.stream
import av.container
import av.error
import av.stream
import av.video.stream
import numpy as np
import numpy.typing as npt
from PIL import Image

from forestay.media.limits import DecodeLimits
from forestay.media.opening.refusal import (
    Refusal,
    Walked,
    broken,
    check_seconds,
    check_size,
    check_sound,
    unsupported,
)

_DEMUXERS = {"mov": "mp4"}  # every other name of ours is FFmpeg's own
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,flac,mp3,ogg"
_DECODERS = (
    "h264,hevc,vp8,vp9,libvpx,libvpx-vp9,libdav1d,av1,mpeg4,aac,opus,libopus,vorbis,libvorbis,flac,alac,mp3,mp3float,"
    "ac3,pcm_s16le,pcm_s16be,pcm_s24le,pcm_s24be,pcm_f32le,pcm_f32be,pcm_s32le"
)
_PROBE_BYTES = 5_000_000
_CHECKED_PIXELS = 100_000_000  # of key frames beyond the first; about a second of decoding
_MAX_PACKETS = 2_000_000
_MAX_EARLY = 64

_Video = av.video.stream.VideoStream
Stream = av.video.stream.VideoStream | av.audio.stream.AudioStream
if TYPE_CHECKING:
    from av.packet import Packet as _Packet

    Packet = _Packet[av.stream.Stream]


@dataclasses.dataclass(slots=True)
class Played:
    """How much there is of a film or a recording."""

    seconds: float = 0.0
    pictures: int = 1


@dataclasses.dataclass(frozen=True, slots=True)
class Length:
    """How much a film would take to be decoded."""

    seconds: float
    pictures: int
    pixels: int  # of one picture
    codec: str = ""
    start: float = 0.0  # second at which the first picture is shown


@dataclasses.dataclass(frozen=True, slots=True)
class SoundTrack:
    """What the container says of the sound."""

    codec: str
    sample_rate: int
    channels: int
    start: float = 0.0  # second at which it begins


def length_of(file: BinaryIO, walked: Walked, limits: DecodeLimits) -> Length:
    """Count the packets of the picture track; nothing is decoded."""
    with _named(), _opened(file, walked, limits) as container:
        stream = _chosen(container, walked, limits)[0]
        pictures, end, start = 0, 0.0, _start(stream)
        for packet in container.demux(stream):
            pictures += bool(packet.size)
            end = max(end, float(((packet.pts or 0) + (packet.duration or 0)) * (packet.time_base or 0)))
            if pictures > _MAX_PACKETS:
                raise Refusal("too_long", f"more than {_MAX_PACKETS} packets", "max_seconds")
            check_seconds(end, limits)
        pixels = stream.width * stream.height if isinstance(stream, _Video) else 0
        return Length(end, pictures, pixels, stream.codec_context.name, start)


def unseen_in(file: BinaryIO, walked: Walked, limits: DecodeLimits) -> str:
    """Name the tracks that no look is taken at and that a player may show; empty where there are none."""
    if walked.codec == "wav":
        return ""
    with _named(), _opened(file, walked, limits) as container:
        if len(container.streams.video) > (walked.kind == "video"):
            return "a second picture track or a cover"
        return "subtitles" if container.streams.subtitles else ""


def sound_of(file: BinaryIO, walked: Walked, limits: DecodeLimits) -> SoundTrack | None:
    """Return what the container says of its sound; None when there is none."""
    with _named(), _opened(file, walked, limits) as container:
        for stream in _chosen(container, walked, limits):
            if isinstance(stream, av.audio.stream.AudioStream):
                return SoundTrack(stream.codec_context.name, stream.rate or 1, stream.channels, _start(stream))
    return None


def samples(file: BinaryIO, walked: Walked, limits: DecodeLimits) -> Iterator[npt.NDArray[np.float32]]:
    """Yield the sound in blocks `[samples, channels]`, full scale 1."""
    with _named(), _opened(file, walked, limits) as container:
        stream = _chosen(container, walked, limits)[-1]
        count, rate = 0, stream.codec_context.sample_rate if isinstance(stream, av.audio.stream.AudioStream) else 1
        for frame in container.decode(stream):
            if not isinstance(frame, av.AudioFrame):
                raise broken("the film has no sound")
            channels = len(frame.layout.channels)
            check_sound(frame.sample_rate, channels, limits)
            count += frame.samples
            check_seconds(count / max(1, rate), limits)
            yield _full_scale(frame, channels)


def _full_scale(frame: "av.AudioFrame", channels: int) -> npt.NDArray[np.float32]:
    """Return a frame's samples `[samples, channels]`; whole numbers are divided by what their format can hold."""
    raw = cast("npt.NDArray[np.generic]", frame.to_ndarray())
    laid = raw.T if frame.format.is_planar else raw.reshape(-1, channels)
    if laid.dtype == np.uint8:
        return (laid.astype(np.float32) - 128) / np.float32(128)
    if laid.dtype.kind == "i":
        return laid.astype(np.float32) / np.float32(2 ** (8 * laid.dtype.itemsize - 1))
    return laid.astype(np.float32)


def _start(stream: Stream) -> float:
    return float((stream.start_time or 0) * (stream.time_base or 0))


def frames(
    file: BinaryIO, walked: Walked, limits: DecodeLimits, *, key_frames: bool, damage: list[int] | None = None
) -> Iterator[tuple[float, Image.Image]]:
    """Yield every frame of the picture track, or every key frame, with the second at which it is shown.

    `damage` is given the number of each frame of which the decoder says that it is not whole.
    """
    with _named(), _opened(file, walked, limits) as container:
        stream = _chosen(container, walked, limits)[0]
        if not isinstance(stream, _Video):
            raise broken("the film has no pictures")
        if key_frames:
            stream.codec_context.skip_frame = "NONKEY"
        for number, frame in enumerate(container.decode(stream)):
            check_size(frame.width, frame.height, limits)
            if damage is not None and frame.is_corrupt:
                damage.append(number)
            yield max(0.0, frame.time or 0.0), picture_of(frame)


def picture_of(frame: "av.VideoFrame") -> Image.Image:
    """Return a frame as RGB."""
    return cast("Image.Image", frame.to_image(threads=1))  # pyright: ignore[reportUnknownMemberType] - as below


@contextlib.contextmanager
def _named() -> Generator[None]:
    """Call what a lying file provokes in FFmpeg by its name, while the block runs."""
    try:
        yield
    except (av.error.FFmpegError, OSError, ValueError, OverflowError, ZeroDivisionError, TypeError) as error:
        raise broken(f"the file does not decode: {type(error).__name__}: {str(error)[:200]}") from None


def finish(walked: Walked, source: BinaryIO, out: BinaryIO, limits: DecodeLimits) -> Played:
    """Check the file, write it to `out` unless the reader already has; returns how much it plays."""
    with _named():
        return _finish(walked, source, out, limits)


def _finish(walked: Walked, source: BinaryIO, out: BinaryIO, limits: DecodeLimits) -> Played:
    done = bool(walked.pieces)
    checked = out if done else source
    with _opened(checked, walked, limits) as container:
        tracks = len(_chosen(container, walked, limits))
    seconds = max(_checked(checked, track, walked, limits) for track in range(tracks))
    if walked.samples and abs(seconds - walked.seconds) > max(1.0, walked.seconds * 0.05):
        raise broken(f"the file says {walked.seconds:.1f} seconds and holds {seconds:.1f}")
    if done:
        return Played(seconds)
    with _opened(source, walked, limits) as container:
        copied = _copied(container, _chosen(container, walked, limits), walked, out, limits)
    return Played(max(seconds, copied.seconds), copied.pictures)


def _opened(file: BinaryIO, walked: Walked, limits: DecodeLimits) -> "av.container.InputContainer":
    file.seek(0)
    options = {
        "probesize": str(_PROBE_BYTES),
        "analyzeduration": "5000000",
        "max_streams": str(limits.max_streams),
        "format_whitelist": _FORMATS,
        "codec_whitelist": _DECODERS,
        "protocol_whitelist": "none",
        "max_pixels": str(limits.max_pixels),
    }
    return av.open(
        file, "r", format=_DEMUXERS.get(walked.codec, walked.codec), container_options=options, io_open=_open_nothing
    )


def _open_nothing(url: str, flags: int, options: object) -> object:
    del url, flags, options
    raise unsupported("the film refers to media outside itself")


def _chosen(container: "av.container.InputContainer", walked: Walked, limits: DecodeLimits) -> Sequence[Stream]:
    """Return the first picture track and the first sound track, judged by what FFmpeg makes of them."""
    if len(container.streams) > limits.max_streams:
        message = f"more than {limits.max_streams} tracks"
        raise Refusal("too_heavy", message, "max_streams", allowed=limits.max_streams, given=len(container.streams))
    pictures = [stream for stream in container.streams.video if "ATTACHED_PIC" not in str(stream.disposition)]
    chosen: list[Stream] = []
    if walked.kind == "video":
        if not pictures:
            raise broken("the film has no pictures")
        check_size(pictures[0].width, pictures[0].height, limits)
        _check_rate(pictures[0].average_rate, limits)
        chosen.append(pictures[0])
    for stream in container.streams.audio[:1]:
        check_sound(stream.rate or 0, stream.channels, limits)
        chosen.append(stream)
    if not chosen:
        raise broken("the file has no sound")
    for stream in chosen:
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"max_pixels": str(limits.max_pixels)}
    return chosen


def _check_rate(rate: fractions.Fraction | None, limits: DecodeLimits) -> None:
    if rate is not None and rate > limits.max_frame_rate:
        message = f"{float(rate):.0f} frames a second: {limits.max_frame_rate:g} are allowed"
        raise Refusal("too_heavy", message, "max_frame_rate", allowed=limits.max_frame_rate, given=float(rate))


def _checked(file: BinaryIO, track: int, walked: Walked, limits: DecodeLimits) -> float:
    """Decode what is checked of one track and return for how many seconds it is known to play."""
    with _opened(file, walked, limits) as container:
        stream = _chosen(container, walked, limits)[track]
        if isinstance(stream, av.audio.stream.AudioStream):
            return _heard(container, stream, limits)
        return _seen(container, stream, limits)


def _seen(container: "av.container.InputContainer", stream: av.video.stream.VideoStream, limits: DecodeLimits) -> float:
    """Decode key frames up to the budget."""
    seen = 0
    stream.codec_context.skip_frame = "NONKEY"
    for frame in container.decode(stream):
        check_size(frame.width, frame.height, limits)
        seen += frame.width * frame.height
        if seen > _CHECKED_PIXELS:
            break
    if not seen:
        raise broken("no picture of the film decodes")
    return 0.0


def _heard(
    container: "av.container.InputContainer", stream: av.audio.stream.AudioStream, limits: DecodeLimits
) -> float:
    samples, rate = 0, stream.rate or 1
    for frame in container.decode(stream):
        check_sound(frame.sample_rate, len(frame.layout.channels), limits)
        samples += frame.samples
        check_seconds(samples / rate, limits)
    if not samples:
        raise broken("no sound decodes")
    return samples / rate


def _copied(
    container: "av.container.InputContainer",
    streams: Sequence[Stream],
    walked: Walked,
    out: BinaryIO,
    limits: DecodeLimits,
) -> Played:
    """Write the packets into a new file of the same kind."""
    out.seek(0)
    out.truncate()
    ends: dict[int, float] = {}
    pictures = 0
    with av.open(out, "w", format=walked.codec, options={"fflags": "+bitexact"}) as output:
        kept: dict[int, Stream] = {
            stream.index: output.add_stream_from_template(stream, opaque=True)  # pyright: ignore[reportUnknownMemberType] - PyAV's own gap
            for stream in streams
        }
        for made in kept.values():
            made.metadata.clear()
        for number, packet in enumerate(_in_order(container.demux(*streams))):
            if number > _MAX_PACKETS:
                raise Refusal("too_long", f"more than {_MAX_PACKETS} packets", "max_seconds")
            index = packet.stream.index
            pictures += packet.stream.type == "video"
            ends[index] = ends.get(index, 0.0) + float((packet.duration or 0) * packet.time_base)
            check_seconds(max(ends[index], float((packet.pts or 0) * packet.time_base)), limits)
            packet.stream = kept[index]
            output.mux(packet)  # pyright: ignore[reportUnknownMemberType] - as above
    return Played(max(ends.values(), default=0.0), max(1, pictures))


def _in_order(packets: "Iterable[Packet]") -> "Iterator[Packet]":
    """Yield the packets that hold something, each with a time to be decoded at.

    Matroska does not store that time, and FFmpeg knows it only some packets later: the first ones get the first known.
    """
    early: dict[int, list[Packet]] = {}
    for packet in packets:
        waiting = early.setdefault(packet.stream.index, [])
        if not packet.size:
            packet_times = [held.pts for held in waiting]
            for held in waiting:
                held.dts = min((time for time in packet_times if time is not None), default=0)
            yield from waiting
            waiting.clear()
        elif packet.dts is None:
            waiting.append(packet)
            if len(waiting) > _MAX_EARLY:
                raise broken("the film does not say when its pictures are due")
        else:
            for held in waiting:
                held.dts = packet.dts
            yield from waiting
            waiting.clear()
            yield packet
