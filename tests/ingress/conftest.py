"""What the tests of the way in share."""

import pathlib
from collections.abc import AsyncGenerator

import pytest

from forestay.media.decode import Decoder


@pytest.fixture
async def decoder() -> AsyncGenerator[Decoder]:
    """A decoder with the default limits."""
    made = Decoder()
    yield made
    await made.close()


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder for scratch files."""
    return tmp_path
