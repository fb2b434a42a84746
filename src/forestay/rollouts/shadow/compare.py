"""Opens what three answers to one request made and measures how far apart it lies.

Files are opened in the limited child of `media/decode` and reduced there; this side sees small pictures and numbers. It
judges nothing. A file that one answer has and another has not, or that does not open, counts as missing. Called by
`rollouts/shadow/loop`.
"""

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from typing import IO, cast

import numpy as np
import numpy.typing as npt

from forestay.diffs.films import compare_films
from forestay.diffs.noise import MISSING
from forestay.diffs.pictures import compare_pictures
from forestay.diffs.sheet import SheetRow, draw_sheet
from forestay.diffs.sounds import compare_measured
from forestay.media.decode import Decoder, MediaRefused
from forestay.media.limits import Kind, Looking
from forestay.media.looking import Look, look
from forestay.media.measures import Measured
from forestay.media.store import MediaStore
from forestay.media.urls import stored_ids

MOST_FILES = 4  # of one answer
_LOOKING = Looking(most=8, long_side=256, most_pixels=512 * 512, measure=True)
Frames = npt.NDArray[np.uint8]  # [frames, height, width, 3]; none of a sound


@dataclasses.dataclass(frozen=True, slots=True)
class Opened:
    """One file as it is compared."""

    kind: Kind
    frames: Frames
    measured: Measured | None
    seconds: float = 0.0

    @property
    def features(self) -> tuple[float, ...]:
        """Return its numbers, in the order of its kind's names."""
        if self.measured is None:
            return ()
        part = {"image": self.measured.picture, "video": self.measured.film, "audio": self.measured.sound}[self.kind]
        return () if part is None else part.features


Files = Sequence[Opened | None]


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """What comparing gave; `sheet` is a PNG where there was something to show."""

    floor: Mapping[str, float]
    found: Mapping[str, float]
    features: tuple[tuple[float, ...], tuple[float, ...]]
    kind: str
    sheet: bytes | None


class Comparer:
    """Reads answers' files and compares them."""

    def __init__(self, media: MediaStore, decoder: Decoder) -> None:
        self._media = media
        self._decoder = decoder

    async def compare(self, caption: str, answers: tuple[bytes, bytes | None, bytes | None]) -> Comparison:
        """Compare the control's answer with its second one and the candidate's; None where there was no success.

        Raises Unavailable when the store is away.
        """
        control, again, candidate = [None if body is None else await self._open(body) for body in answers]
        first: Files = control or ()
        pictures = [_picture(files) for files in (control, again, candidate)]
        shown = any(picture is not None for picture in pictures)
        return Comparison(
            floor=distances(first, again),
            found=distances(first, candidate),
            features=(_features(again), _features(candidate)),
            kind=next((item.kind for item in first if item is not None), ""),
            sheet=draw_sheet([SheetRow(caption, *pictures)]) if shown else None,
        )

    async def _open(self, body: bytes) -> Files:
        return [await self._open_one(media_id) for media_id in stored_ids(body)[:MOST_FILES]]

    async def _open_one(self, media_id: str) -> Opened | None:
        data = await self._media.read(media_id)
        if data is None:
            return None
        looks: list[Look] = []

        async def take(one: Look) -> bool:
            looks.append(one)
            return True

        with tempfile.TemporaryFile() as file:
            file.write(data)
            file.seek(0)
            try:
                seen = await look(self._decoder, cast("IO[bytes]", file), _LOOKING, take)
            except MediaRefused:
                return None
        if seen is None:
            return None
        return Opened(seen.kind, _frames(looks), seen.measured, seen.seconds)


def distances(control: Files, other: Files | None) -> dict[str, float]:
    """Return the largest distance of each measure between the files of two answers, in order."""
    if other is None or len(other) != len(control):
        return {MISSING: 1.0}
    worst = {MISSING: 0.0}
    for one, two in zip(control, other, strict=True):
        if one is None:
            continue  # the caller's file is gone already: nothing to compare with
        found = {MISSING: 1.0} if two is None else _between(one, two)
        for measure, value in found.items():
            worst[measure] = max(worst.get(measure, 0.0), value)
    return worst


def _between(one: Opened, other: Opened) -> dict[str, float]:
    if one.kind != other.kind:
        return {MISSING: 1.0}
    if one.kind == "audio":
        first = None if one.measured is None else one.measured.sound
        second = None if other.measured is None else other.measured.sound
        return {MISSING: 1.0} if first is None or second is None else compare_measured(first, second)
    if not len(one.frames) or not len(other.frames):
        return {MISSING: float(len(one.frames) != len(other.frames))}
    if one.kind == "video":
        length = abs(one.seconds - other.seconds) / max(one.seconds, other.seconds, 1e-9)
        return {**compare_films(one.frames, other.frames), "length": length}
    return compare_pictures(one.frames[0], other.frames[0])


def _frames(looks: Sequence[Look]) -> Frames:
    """Stack looks of one size; transparent pictures are laid on several grounds, of which the first counts."""
    if not looks:
        return np.zeros((0, 1, 1, 3), np.uint8)
    size = (looks[0].height, looks[0].width)
    kept = [item for item in looks if (item.height, item.width) == size and item.ground == looks[0].ground]
    return np.stack([np.frombuffer(item.rgb, np.uint8).reshape(*size, 3) for item in kept])


def _features(files: Files | None) -> tuple[float, ...]:
    first = next(iter(files or ()), None)
    return () if first is None else first.features


def _picture(files: Files | None) -> Frames | None:
    first = next(iter(files or ()), None)
    return None if first is None or not len(first.frames) else first.frames[0]
