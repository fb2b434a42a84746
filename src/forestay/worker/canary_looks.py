"""Turns the answer to a canary into a look, and a small picture for people. It decides nothing about either.

Files are opened in the limited child, as all that models make. Several pictures, or the first frames of a film, lie
side by side in one picture. A sound is its bytes and its numbers; an answer without files of ours is its own bytes.
Called by `canaries`.
"""

import asyncio
import dataclasses
import hashlib
import io
import pathlib
from collections.abc import Sequence
from typing import IO

import numpy as np
from PIL import Image

from forestay.errors import ForestayError
from forestay.media.decode import Decoder, open_scratch
from forestay.media.limits import Looking
from forestay.media.looking import Look as Frame
from forestay.media.looking import look
from forestay.media.store import MediaStore
from forestay.media.urls import stored_ids
from forestay.quality.canary import Look, Picture, look_of
from forestay.queue.model import Answer
from forestay.safety.leaves import Leaf
from forestay.worker.answer_files import bring, files_of, parsed_or_none, value_of

MOST_FILES = 4
MOST_FRAMES = 4  # of one file
SHOWN_SIDE = 512  # pixels, of the picture that is kept
_LOOKING = Looking(every_seconds=0.5, most=MOST_FRAMES, measure=True)


@dataclasses.dataclass(frozen=True, slots=True)
class Drawn:
    """What a canary has made. `png` is empty where there is no picture."""

    look: Look | None
    png: bytes = b""
    words: str = ""  # why there is no look


class CanaryLooks:
    """Looks of one worker."""

    def __init__(self, media: MediaStore, decoder: Decoder, folder: pathlib.Path, file_seconds: float) -> None:
        self._media = media
        self._decoder = decoder
        self._folder = folder
        self._file_seconds = file_seconds

    async def drawn(self, answer: Answer, said: bytes) -> Drawn:
        """Return the look of an answer; what was stored for it is removed."""
        leaves = files_of(value_of(answer), answer, parsed_or_none(said))[:MOST_FILES]
        if not leaves:
            return Drawn(Look(hashlib.sha256(answer.body).hexdigest(), (0, 0), (), ()))
        try:
            async with asyncio.timeout(self._file_seconds):
                return await self._of_files(leaves)
        except (ForestayError, OSError, TimeoutError, ValueError) as error:
            return Drawn(None, words=f"its file cannot be opened: {str(error)[:200] or type(error).__name__}")
        finally:
            await self.forget(answer)

    async def forget(self, answer: Answer) -> None:
        """Remove the files that an answer names: nobody may read them."""
        if named := stored_ids(answer.body):
            await self._media.delete(named)

    async def _of_files(self, leaves: Sequence[Leaf]) -> Drawn:
        pictures: list[Picture] = []
        sounds: list[tuple[str, tuple[float, ...]]] = []
        for leaf in leaves:
            with open_scratch(self._folder) as file:
                await bring(self._media, leaf, file)
                frames, features = await self._frames(file)
                pictures += frames
                if not frames:
                    file.seek(0)
                    sounds.append((hashlib.sha256(await asyncio.to_thread(file.read)).hexdigest(), features))
        if pictures:
            return await asyncio.to_thread(_drawn, pictures)
        digest = hashlib.sha256("".join(digest for digest, _ in sounds).encode()).hexdigest()
        return Drawn(Look(digest, (0, 0), (), sounds[0][1]))

    async def _frames(self, file: IO[bytes]) -> tuple[list[Picture], tuple[float, ...]]:
        """Return the frames of a picture or film, and the numbers of a sound."""
        frames: list[Picture] = []

        async def take(frame: Frame) -> bool:
            if len(frames) < MOST_FRAMES:
                pixels = np.frombuffer(frame.rgb, np.uint8).reshape(frame.height, frame.width, 3)
                frames.append(pixels)
            return True

        seen = await look(self._decoder, file, _LOOKING, take)
        measured = seen.measured if seen is not None else None
        sound = measured.sound if measured is not None else None
        return frames, sound.features if sound is not None else ()


def _drawn(pictures: Sequence[Picture]) -> Drawn:
    strip = side_by_side(pictures)
    image = Image.fromarray(strip)
    image.thumbnail((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.BOX)
    out = io.BytesIO()
    image.save(out, "PNG")
    return Drawn(look_of(strip), out.getvalue())


def side_by_side(pictures: Sequence[Picture]) -> Picture:
    """Return one picture of several; the rest below smaller ones is black."""
    height = max(picture.shape[0] for picture in pictures)
    padded = [np.pad(item, ((0, height - item.shape[0]), (0, 0), (0, 0))) for item in pictures]
    return np.concatenate(padded, axis=1)
