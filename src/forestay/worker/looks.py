"""Opens a file that a model made, in the limited child, and takes the looks that detectors get of it.

It decides how closely a file is looked at: the riskier the prompt, the more frames of a film. What is neither seen nor
heard is a place without a look, and the policy says what that means. Called by `judging`.
"""

from collections.abc import Sequence
from typing import IO

from forestay.media.decode import Decoder
from forestay.safety.decide import Place
from forestay.safety.guard import Item
from forestay.safety.media.frames import depth, pictures_of


class Looks:
    """The viewer of one worker."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder

    async def look(self, file: IO[bytes], where: str, prompt_score: float) -> Sequence[Item]:
        """Return the items to judge; MediaRefused when the file cannot be opened, Unavailable when nobody opens it."""
        seen = await pictures_of(self._decoder, file, where, depth(prompt_score))
        return [Item(Place(where, seen.modality), seen.pictures)]
