"""Takes the numbers of a file while it is open for looks: pictures as they are decoded, sound at the end.

A picture with transparency is measured on white and on black, and the version that shows more counts: what is drawn in
black on nothing is no black picture. Run by `looks` in the limited child.
"""

import dataclasses
from collections.abc import Sequence
from typing import BinaryIO

from PIL import Image

from forestay.media.limits import DecodeLimits
from forestay.media.measures import Measured, PictureMeasures, SoundMeasures
from forestay.media.measuring.films import Frames, Track
from forestay.media.measuring.pictures import measure
from forestay.media.measuring.sounds import Samples
from forestay.media.opening import films, samples
from forestay.media.opening.refusal import Walked


class Measuring:
    """Of one file."""

    def __init__(self, source: BinaryIO, walked: Walked, limits: DecodeLimits) -> None:
        self._source = source
        self._walked = walked
        self._limits = limits
        self._picture: PictureMeasures | None = None
        self._frames: Frames | None = None
        self._damage: list[int] = []
        self._taken = 0
        if walked.kind == "image" and walked.frames > 1:
            self._frames = Frames(Track(walked.codec.lower(), walked.frames))

    def shows(self, played: films.Length, *, whole: bool) -> list[int]:
        """Be told what the container says of the pictures; returns where the numbers of damaged frames are noted."""
        self._frames = Frames(Track(played.codec, played.pictures, played.start, whole))
        return self._damage

    def take(self, versions: Sequence[Image.Image], seconds: float) -> None:
        """Take one picture or frame, RGB, on each ground that it was laid on."""
        if self._frames is not None:
            damaged = bool(self._damage) and self._damage[-1] == self._taken
            self._taken += 1
            self._frames.take(versions[0], seconds, damaged=damaged)
        else:
            self._picture = max(map(measure, versions), key=lambda found: (found.spread, found.high - found.low))

    def told(self) -> dict[str, object]:
        """Return the numbers as plain values."""
        film = self._frames.measures() if self._frames is not None else None
        picture = self._frames.first if self._frames is not None else self._picture
        sound = self._sound() if self._walked.kind != "image" else None
        measured = Measured(self._walked.kind, self._walked.content_type, picture, film, sound)
        return {"measured": dataclasses.asdict(measured)}

    def _sound(self) -> SoundMeasures | None:
        found = samples.open_sound(self._source, self._walked, self._limits)
        if found is None:
            return None
        track, blocks = found
        heard = Samples(track.sample_rate, track.channels, track.codec, track.start)
        for block in blocks:
            heard.take(block)
        return heard.measures()
