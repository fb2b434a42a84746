"""Three answers' files are opened in the limited child and measured against each other."""

import io
from collections.abc import AsyncIterator

import numpy as np
import pytest
from PIL import Image

from forestay.diffs.noise import MISSING, Compared, Said
from forestay.media.decode import Decoder
from forestay.media.urls import stored_url
from forestay.rollouts.shadow.compare import Comparer


def png(seed: int, lift: int = 0) -> bytes:
    """A picture that a seed makes."""
    small = np.random.default_rng(seed).integers(40, 200, (8, 8, 3)) + lift
    out = io.BytesIO()
    Image.fromarray(small.astype(np.uint8)).resize((96, 96), Image.Resampling.BICUBIC).save(out, "PNG")
    return out.getvalue()


class Files:
    """The part of a media store that is read."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    async def read(self, media_id: str) -> bytes | None:
        """Read one."""
        return self.kept.get(media_id)

    def answer(self, *files: bytes) -> bytes:
        """Keep files, and return an answer that names them."""
        urls: list[str] = []
        for data in files:
            name = f"m{len(self.kept):039}"
            self.kept[name] = data
            urls.append(stored_url(name, "a.png"))
        return ('{"images":[' + ",".join(f'{{"url":"{url}"}}' for url in urls) + "]}").encode()


@pytest.fixture
async def decoder() -> AsyncIterator[Decoder]:
    """The limited child's program."""
    found = Decoder(at_a_time=1)
    yield found
    await found.close()


async def test_the_same_picture_is_the_same_and_a_slightly_lighter_one_is_not(decoder: Decoder) -> None:
    """With the numbers of both and a picture of the comparison; a file that is gone or broken is missing."""
    files = Files()
    first, again, candidate = files.answer(png(1)), files.answer(png(1)), files.answer(png(1, lift=6))
    comparer = Comparer(files, decoder)  # type: ignore[arg-type]  # what it uses of a store
    found = await comparer.compare("/", (first, again, candidate))
    said = Compared("r", "/", found.floor, found.found)
    assert (said.noise, said.said, found.kind) == (0.0, Said.DIFFERS, "image")
    assert len(found.features[0]) == len(found.features[1]) == 16
    assert found.sheet is not None
    assert Image.open(io.BytesIO(found.sheet)).format == "PNG"
    broken = await comparer.compare("/", (first, again, files.answer(b"no picture")))
    assert broken.found[MISSING] == 1.0
    fewer = await comparer.compare("/", (files.answer(png(1), png(2)), first, None))
    assert (fewer.floor[MISSING], fewer.found[MISSING]) == (1.0, 1.0)
    nothing = await comparer.compare("/", (b"{}", b"{}", b"{}"))
    assert (nothing.floor, nothing.found, nothing.sheet) == ({MISSING: 0.0}, {MISSING: 0.0}, None)
