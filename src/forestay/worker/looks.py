"""Opens a file that a model made, in the limited child, and takes the looks that detectors get of it.

It decides which modality a file is by its bytes and how much of a film is looked at. Called by `judging`.
"""

from collections.abc import Sequence
from typing import IO

from forestay.media.decode import Decoder, MediaRefused
from forestay.safety.guard import Item


class Looks:
    """The viewer of one worker."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder

    async def look(self, file: IO[bytes], where: str) -> Sequence[Item]:
        """Return the items to judge; MediaRefused when the file cannot be opened."""
        del file
        raise MediaRefused("unsupported", f"{where} cannot be looked at yet")
