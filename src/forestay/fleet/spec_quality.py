"""The `quality` section of a model spec as values: which checks an output must pass, and where their thresholds lie.

It decides no output; `quality/contracts` does. The file's form is `spec_quality_file`. A spec stored by a version that
knew no checks has none: its mode is `off` until it is deployed again.
"""

import dataclasses
import enum
import hashlib
from collections.abc import Mapping


class OutputCheck(enum.StrEnum):
    """The checks of an output, in the order in which they are told."""

    DECODES = "decodes"  # the file opens again
    FORMAT = "format"  # it is what was asked for, and what the answer says it is
    COUNT = "count"  # as many files as asked for
    SIZE = "size"  # pixels as asked for
    FRAMES = "frames"  # no fewer than asked for
    DURATION = "duration"
    FRAME_RATE = "frame_rate"
    STEPS = "steps"  # steps that the answer tells of, beside those asked for
    BLACK = "black"  # pictures that show nothing but black
    CONSTANT = "constant"  # or another single colour
    CLIPPED = "clipped"  # pictures of which nearly all values lie at the ends of the scale
    FROZEN = "frozen"  # a film that stands still
    TORN = "torn"  # frames put together of two, or damaged in the file
    NOT_A_NUMBER = "not_a_number"  # sound, or values inside a pipeline, that are no numbers
    SILENT = "silent"
    SOUND_CLIPPED = "sound_clipped"
    OUT_OF_SYNC = "out_of_sync"  # sound and pictures begin or end apart


class QualityMode(enum.StrEnum):
    """What follows from a failed check."""

    OFF = "off"
    OBSERVE = "observe"  # it is counted and logged
    ENFORCE = "enforce"  # and the output is no success


@dataclasses.dataclass(frozen=True, slots=True)
class Thresholds:
    """Where a check begins to fail."""

    black_level: int = 2  # highest value, 0 to 255, of a black picture
    constant_range: int = 3  # between lowest and highest value, of a picture of one colour
    clipped_share: float = 0.98  # of the values of a picture at 0 or 255
    clipped_frames: float = 0.5  # share of frames of one colour, from which a film fails as a picture would
    frozen_share: float = 0.6  # of a film, in one piece
    frozen_seconds: float = 0.5  # and not shorter than this
    torn_frames: int = 0  # accepted in a film
    silent_share: float = 0.98  # of a recording
    silent_film_share: float = 1.0  # of the sound of a film: quiet scenes are common
    distinct_values: int = 3  # fewer different samples are no sound
    sound_clipped_share: float = 0.05
    sync_seconds: float = 0.1  # between the beginnings of sound and pictures
    sync_end_seconds: float = 0.5  # between their ends
    size_slack_pixels: int = 63  # models round sizes to multiples of 8 to 64
    duration_share: float = 0.1
    duration_seconds: float = 0.5  # whichever allows more
    frame_slack: int = 4  # models round frames to multiples of 4 or 8
    frame_rate_share: float = 0.02


@dataclasses.dataclass(frozen=True, slots=True)
class CanaryInput:
    """An input whose output is known: with a fixed seed, so that it is drawn alike each time."""

    name: str
    input: str  # JSON
    endpoint: str = "/"

    @property
    def key(self) -> str:
        """Return the name with a digest of what is asked: another input under the same name is another canary."""
        asked = f"{self.endpoint}\0{self.input}".encode()
        return f"{self.name}@{hashlib.sha256(asked).hexdigest()[:8]}"


@dataclasses.dataclass(frozen=True, slots=True)
class CanarySpec:
    """Which canaries are played on each replica, how often, and what that may cost."""

    inputs: tuple[CanaryInput, ...] = ()
    every_seconds: float = 3600.0
    budget_seconds_per_hour: float = 60.0  # device-seconds of one replica
    reruns: int = 3  # of which a replica teaches the golden


@dataclasses.dataclass(frozen=True, slots=True)
class Forbidden:
    """A combination of what outputs are made with that is a fault."""

    parts: Mapping[str, str]  # pipeline, scheduler, dtype, vae_dtype, device, adapter, library
    why: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class ScorerUse:
    """A scorer that looks at outputs of the model, beside the path of requests."""

    scorer_id: str  # as the operator's file names it, "digits-agreement@1"
    share: float = 0.1  # of the outputs
    budget_seconds_per_hour: float = 60.0  # of the scorer, on each worker


@dataclasses.dataclass(frozen=True, slots=True)
class QualitySpec:
    """What is asked of outputs."""

    mode: QualityMode = QualityMode.OFF
    retries: int = 1  # attempts after a broken output
    skip: tuple[OutputCheck, ...] = ()
    thresholds: Thresholds = dataclasses.field(default_factory=Thresholds)
    canaries: CanarySpec = dataclasses.field(default_factory=CanarySpec)
    forbidden: tuple[Forbidden, ...] = ()
    scorers: tuple[ScorerUse, ...] = ()

    @property
    def looks(self) -> bool:
        """Tell whether outputs are looked at."""
        return self.mode is not QualityMode.OFF
