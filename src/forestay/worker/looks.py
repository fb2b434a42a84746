"""Opens a file that a model made, in the limited child, and takes what others ask of it: looks for detectors, numbers.

It decides how closely a file is looked at: the riskier the prompt, the more frames of a film; of one with many scenes
as many as may be. What is neither seen nor heard is a place without a look, and the policy says what that means. A file
is opened once: looks that were taken along with the numbers are kept for the guard, by the file's digest, until it asks
for them or they have to make room. Called by `opening` for the guard and by `output_quality`.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import IO

from forestay.media.decode import Decoder, MediaRefused
from forestay.media.formats import SNIFF_BYTES, content_type_of
from forestay.media.limits import Looking
from forestay.media.looking import Look, look
from forestay.media.measures import Measured
from forestay.safety.decide import Place
from forestay.safety.guard import Item
from forestay.safety.media.frames import Seen, depth, pictures_of
from forestay.safety.model import Sound
from forestay.safety.taxonomy import Modality

KEPT_BYTES = 128 * 1024 * 1024  # of looks that wait for the guard
_NUMBERS_ALONE = Looking(most=0, measure=True)
_Key = tuple[str, Looking]


class Looks:
    """The viewer of one worker."""

    def __init__(self, decoder: Decoder, sound_bytes: int = 0) -> None:
        self._decoder = decoder
        self._sound_bytes = sound_bytes  # of a recording that somebody hears; 0: nobody does
        self._kept: OrderedDict[_Key, Seen] = OrderedDict()
        self._kept_bytes = 0

    async def look(self, file: IO[bytes], where: str, prompt_score: float) -> Sequence[Item]:
        """Return the items to judge; MediaRefused when the file cannot be opened, Unavailable when nobody opens it.

        A film with more scenes than looks is looked at again as closely as can be; where scenes are missed even then,
        its place has no look.
        """
        seen = await self._take_kept(file, depth(prompt_score)) if self._kept else None
        if seen is None:
            seen = await pictures_of(self._decoder, file, where, depth(prompt_score))
        if seen.missed_scenes and depth(prompt_score) != depth(1.0):
            file.seek(0)
            seen = await pictures_of(self._decoder, file, where, depth(1.0))
        if seen.modality is Modality.AUDIO:
            return [Item(Place(where, seen.modality), await self._sounds(file, where))]
        return [Item(Place(where, seen.modality), () if seen.missed_scenes else seen.pictures)]

    async def measure(self, file: IO[bytes], where: str, prompt_score: float | None) -> Measured:
        """Return the numbers of a file; raises as `look` does.

        With `prompt_score` the looks that the guard will ask for are taken on the way. None: nobody will ask.
        """
        if prompt_score is None:
            found = await look(self._decoder, file, _NUMBERS_ALONE, _pass_by)
            measured = found.measured if found is not None else None
        else:
            looking = depth(prompt_score)
            seen = await pictures_of(self._decoder, file, where, looking, measure=True)
            measured = seen.measured
            self._keep((await _digest(file), looking), seen)
        if measured is None:
            raise MediaRefused("broken", "the decoder gave no numbers")
        return measured

    async def _sounds(self, file: IO[bytes], where: str) -> tuple[Sound, ...]:
        """Return a recording as it is; none where nobody hears it, or where it is larger than is heard."""
        if not self._sound_bytes:
            return ()
        file.seek(0)
        data = await asyncio.to_thread(file.read, self._sound_bytes + 1)
        if len(data) > self._sound_bytes:
            return ()
        return (Sound(where, content_type_of(data[:SNIFF_BYTES]), data),)

    async def _take_kept(self, file: IO[bytes], looking: Looking) -> Seen | None:
        seen = self._kept.pop((await _digest(file), looking), None)
        if seen is not None:
            self._kept_bytes -= _size(seen)
        return seen

    def _keep(self, key: _Key, seen: Seen) -> None:
        before = self._kept.pop(key, None)
        self._kept_bytes += _size(seen) - (_size(before) if before is not None else 0)
        self._kept[key] = seen
        while self._kept_bytes > KEPT_BYTES and self._kept:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= _size(oldest)


def _size(seen: Seen) -> int:
    return sum(len(picture.rgb) for picture in seen.pictures)


async def _digest(file: IO[bytes]) -> str:
    """Return the SHA-256 of a file, which is left at its beginning."""
    file.seek(0)
    digest = await asyncio.to_thread(hashlib.file_digest, file, "sha256")  # pyright: ignore[reportArgumentType]
    file.seek(0)
    return digest.hexdigest()


async def _pass_by(one: Look) -> bool:
    del one
    return True
