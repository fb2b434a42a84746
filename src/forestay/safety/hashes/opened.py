"""A stranger's picture as pixels: opened by the limited child, read here from the clean copy that it wrote.

Decides nothing; refusals are `media/decode`'s. Called by the command line. The worker has its own decoded frames.
"""

import tempfile
from typing import IO, cast

import numpy as np
from PIL import Image

from forestay.media.decode import Decoder
from forestay.safety.hashes.pdq import Pixels


async def open_picture(source: IO[bytes]) -> Pixels:
    """Return a picture's pixels, `[height, width, 3] uint8`; MediaRefused says why a file is not opened."""
    decoder = Decoder(at_a_time=1)
    try:
        with tempfile.TemporaryFile() as clean:
            copy = cast("IO[bytes]", clean)
            await decoder.clean(source, copy, "image")
            copy.seek(0)
            with Image.open(copy) as picture:
                return np.asarray(picture.convert("RGB"), np.uint8)
    finally:
        await decoder.close()
