"""Small real files of the kinds that models make, drawn and hummed here."""

import io

import av
import numpy as np
import soundfile
from PIL import Image
from tests.safety.hashes.drawn import drawn

from forestay.safety.hashes.pdq import Pixels


def coded(pixels: Pixels, kind: str, **options: object) -> bytes:
    """Return a picture as a file."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **options)
    return out.getvalue()


def wav() -> bytes:
    """Return half a second of a tone."""
    out = io.BytesIO()
    soundfile.write(out, np.sin(np.arange(4_000) / 10), 8_000, format="WAV")
    return out.getvalue()


def mp4() -> bytes:
    """Return two seconds of a drawn picture that moves."""
    out, picture = io.BytesIO(), drawn(3, 320, 240)
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height = 320, 240
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(np.roll(picture, number, axis=1).copy(), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return out.getvalue()


FILES = {
    "image/png": coded(drawn(3, 512, 384), "PNG"),
    "image/jpeg": coded(drawn(3, 512, 384), "JPEG", quality=92),
    "audio/wav": wav(),
    "video/mp4": mp4(),
}
