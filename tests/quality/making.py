"""Small files of every kind, whole and broken, for tests of outputs."""

import io
import wave
from collections.abc import Sequence
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

Picture = npt.NDArray[np.uint8]  # [height, width, 3]


def scene(width: int = 64, height: int = 64, shift: int = 0) -> Picture:
    """Return a picture with a smooth ground and a bright square."""
    down, across = np.indices((height, width))
    ground = 90 + 60 * np.sin((across + shift) / 19) * np.cos(down / 17)
    made = np.stack([ground, ground * 0.8 + 20, 150 - ground / 2], axis=2)
    top, left = height // 4, (width // 4 + shift) % (width // 2)
    made[top : top + height // 3, left : left + width // 3] = (220, 190, 40)
    return made.astype(np.uint8)


def flat(colour: Sequence[int], width: int = 64, height: int = 64) -> Picture:
    """Return a picture of one colour."""
    return np.full((height, width, 3), colour, dtype=np.uint8)


def packed(picture: Picture, name: str = "PNG", **options: Any) -> bytes:
    """Return a picture as a file."""
    target = io.BytesIO()
    Image.fromarray(picture).save(target, name, **options)
    return target.getvalue()


def tone(seconds: float = 1.0, hertz: float = 440.0, level: float = 0.4, rate: int = 16_000) -> npt.NDArray[np.float64]:
    """Return a tone that swells and fades, full scale 1."""
    time = np.arange(int(seconds * rate)) / rate
    return level * np.sin(2 * np.pi * hertz * time) * (0.6 + 0.4 * np.sin(2 * np.pi * 2 * time))


def wav(samples: npt.NDArray[Any], rate: int = 16_000) -> bytes:
    """Return samples as a WAV of 16 bits."""
    target = io.BytesIO()
    with wave.open(target, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes((np.clip(samples, -1, 1) * 32_767).astype("<i2").tobytes())
    return target.getvalue()


def float_wav(samples: npt.NDArray[Any], rate: int = 16_000) -> bytes:
    """Return samples as a WAV of 32-bit floats, which may be no numbers."""
    data = samples.astype("<f4").tobytes()
    form = b"".join(value.to_bytes(size, "little") for value, size in (
        (3, 2), (1, 2), (rate, 4), (rate * 4, 4), (4, 2), (32, 2)))  # fmt: skip
    body = b"WAVEfmt " + (16).to_bytes(4, "little") + form + b"data" + len(data).to_bytes(4, "little") + data
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def film(
    pictures: Sequence[Picture],
    rate: int = 12,
    sound: npt.NDArray[np.float64] | None = None,
    sound_starts: float = 0.0,
) -> bytes:
    """Return an MP4 of MPEG-4 pictures, with AAC sound if any is given."""
    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as made:
        track = made.add_stream("mpeg4", rate=rate, options={"qscale": "3", "threads": "1"})
        track.height, track.width = pictures[0].shape[:2]
        track.pix_fmt = "yuv420p"
        beside = made.add_stream("aac", rate=16_000, layout="mono") if sound is not None else None
        for picture in pictures:
            made.mux(track.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        made.mux(track.encode(None))
        if beside is not None and sound is not None:
            frame = av.AudioFrame.from_ndarray(sound.astype(np.float32)[None], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16_000, int(sound_starts * 16_000)
            made.mux(beside.encode(frame))
            made.mux(beside.encode(None))
    return target.getvalue()


def moving(count: int = 24, **size: int) -> list[Picture]:
    """Return the frames of a film in which something moves."""
    return [scene(shift=2 * number, **size) for number in range(count)]
