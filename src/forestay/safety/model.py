"""What detectors are and what they say, as values: the seam between judges and those who decide by them.

A detector scores; it never decides. What it could not score it says as Trouble, and nothing of that is ever read as
harmless. Called by everything in `safety`.
"""

import dataclasses
import enum
from collections.abc import Mapping, Sequence
from typing import Protocol

from forestay.safety.taxonomy import Category, Modality


class Trouble(enum.StrEnum):
    """Why there is no score."""

    CRASH = "crash"  # the detector or its process died, or answered with what is no score
    TIMEOUT = "timeout"
    OVERLOAD = "overload"
    LANGUAGE = "language"  # it does not cover the language of this text
    UNREADABLE = "unreadable"  # the content could not be opened: not what it says it is, or too large to judge


@dataclasses.dataclass(frozen=True, slots=True)
class DetectorInfo:
    """What a detector declares of itself."""

    detector_id: str  # with its version: "text-linear@1"
    digest: str  # "sha256:<hex>" of its weights and settings
    covers: Mapping[Modality, frozenset[Category]]
    costly: bool  # run after the cheap ones, and not at all when they were decisive


@dataclasses.dataclass(frozen=True, slots=True)
class Scores:
    """What a detector says of one piece of content; a category that it covers and does not name scores 0."""

    detector_id: str
    where: str  # the field of the input, or the place in the output: "prompt", "images[0].url", "frame 12"
    scores: Mapping[Category, float]  # each in [0, 1]
    seconds: float = 0.0
    notes: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])  # language, disguises, bank entry


@dataclasses.dataclass(frozen=True, slots=True)
class Unscored:
    """A detector that gave no score."""

    detector_id: str
    where: str
    trouble: Trouble
    seconds: float = 0.0


Outcome = Scores | Unscored
HINT, HINT_REVIEW = "hint", "review"  # a note by which a detector says that what it found is for a person to look at


@dataclasses.dataclass(frozen=True, slots=True)
class Text:
    """A string of an input or output."""

    where: str
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture: `[height, width, 3] uint8` RGB, row by row."""

    where: str
    width: int
    height: int
    rgb: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Sound:
    """A recording as it is, undecoded: `data` of `content_type`, which its bytes say."""

    where: str
    content_type: str
    data: bytes


Content = Text | Picture | Sound


class Detectors(Protocol):
    """Whoever runs detectors: the judge process, a provider, or a test."""

    async def known(self) -> Sequence[DetectorInfo]:
        """Return the detectors that can be asked; raises Unavailable when nobody answers."""
        ...

    async def ask(self, detector_id: str, contents: Sequence[Content], within_seconds: float) -> Sequence[Outcome]:
        """Return one outcome for each piece of content; never raises for trouble, and never takes longer."""
        ...


def checked(outcome: Scores) -> Outcome:
    """Return the outcome if every score is a number in [0, 1]; anything else is no score, whatever it says."""
    for score in outcome.scores.values():
        if not 0.0 <= score <= 1.0:  # nor is NaN between them
            return Unscored(outcome.detector_id, outcome.where, Trouble.CRASH, outcome.seconds)
    return outcome
