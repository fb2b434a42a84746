"""Faults of the files that a model hands over, put in on their way out of its process.

For models whose pipeline is not one of diffusers, and for what is broken after the pipeline: encoders, containers. It
decides nothing. Each takes the bytes of a file and gives others of the same kind; a file of another kind goes by
unchanged. For game days, in the model's own process and with its own libraries (Pillow, PyAV), never imported by the
platform for its work. Loaded by `live`.
"""

import dataclasses
import importlib
import io
import wave
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True)
class FileFault:
    """A fault of files whose content type begins with `kind`."""

    name: str
    row: int  # of the catalogue
    kind: str
    change: Callable[[bytes], bytes]


def _library(name: str) -> Any:
    return importlib.import_module(name)


def _black(data: bytes) -> bytes:
    """Return the same picture, black."""
    made: Any = _library("PIL.Image")
    with made.open(io.BytesIO(data)) as picture:
        buffer = io.BytesIO()
        made.new("RGB", picture.size).save(buffer, picture.format)
    return buffer.getvalue()


def _frozen(data: bytes) -> bytes:
    """Return the same film with one frame, that after an eighth, to its end."""
    av = _library("av")
    with av.open(io.BytesIO(data)) as film:
        track = film.streams.video[0]
        rate, codec = track.average_rate, track.codec_context.name
        frames = list(film.decode(video=0))
    frames[len(frames) // 8 :] = [frames[len(frames) // 8]] * (len(frames) - len(frames) // 8)
    buffer = io.BytesIO()
    with av.open(buffer, mode="w", format="mp4") as film:
        # Fine enough that the frames are alike once they are opened again.
        encoder, options = ("libx264", {"crf": "18"}) if codec == "h264" else (codec, {"qmax": "3"})
        made = film.add_stream(encoder, rate=rate, options=options)
        made.width, made.height, made.pix_fmt = frames[0].width, frames[0].height, "yuv420p"
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame.to_ndarray(format="rgb24"), format="rgb24")
            picture.pts = number
            film.mux(made.encode(picture))
        film.mux(made.encode(None))
    return buffer.getvalue()


def _silent(data: bytes) -> bytes:
    """Return the same recording with every sample at 0."""
    with wave.open(io.BytesIO(data), "rb") as sound:
        settings, samples = sound.getparams(), sound.getnframes()
    rest = b"\x80" if settings.sampwidth == 1 else b"\0" * settings.sampwidth  # 8-bit WAV is unsigned
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as sound:
        sound.setparams(settings)
        sound.writeframes(rest * settings.nchannels * samples)
    return buffer.getvalue()


def _cut_short(data: bytes) -> bytes:
    """Return the first half of a file."""
    return data[: len(data) // 2]


FILE_FAULTS = (
    FileFault("picture is black", 1, "image/", _black),
    FileFault("clip is frozen", 40, "video/", _frozen),
    FileFault("sound is silent", 42, "audio/", _silent),
    FileFault("file is cut short", 39, "", _cut_short),
)
