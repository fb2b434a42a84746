"""The `quality` section of a spec's file: which checks an output must pass, and where their thresholds lie.

It decides what is a valid section. Used by `spec_file`.
"""

import json
from typing import Annotated

from pydantic import BeforeValidator, Field, JsonValue, StringConstraints, field_validator, model_validator

from forestay.fleet.spec_fields import Line, Strict, shape
from forestay.fleet.spec_quality import (
    CanaryInput,
    CanarySpec,
    Forbidden,
    OutputCheck,
    QualityMode,
    QualitySpec,
    ScorerUse,
    Thresholds,
)

MAX_CANARIES = 16
MAX_CANARY_CHARS = 65_536

_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_Seconds = Annotated[float, Field(ge=0, le=3_600, allow_inf_nan=False)]
_Level = Annotated[int, Field(ge=0, le=255)]
_Count = Annotated[int, Field(ge=0, le=100_000)]


def _mode(value: object) -> object:
    return "off" if value is False else value  # YAML reads a bare `off` as false


_Mode = Annotated[QualityMode, BeforeValidator(_mode, json_schema_input_type=QualityMode)]


class ThresholdFile(Strict):
    """Where a check begins to fail."""

    black_level: _Level = 2
    """Highest value, 0 to 255, of a picture that counts as black."""
    constant_range: _Level = 3
    """Difference of highest and lowest value of a picture that counts as one colour."""
    clipped_share: _Share = 0.98
    """Share of the values of a picture that are 0 or 255."""
    clipped_frames: _Share = 0.5
    """Share of frames of one colour from which a film fails."""
    frozen_share: _Share = 0.6
    """Share of a film that stands still in one piece."""
    frozen_seconds: _Seconds = 0.5
    """A shorter standstill is none."""
    torn_frames: _Count = 0
    """Torn or damaged frames that are accepted."""
    silent_share: _Share = 0.98
    """Share of a recording below -60 dB."""
    silent_film_share: _Share = 1.0
    """Share of a film's sound below -60 dB."""
    distinct_values: _Count = 3
    """Fewer different sample values are no sound."""
    sound_clipped_share: _Share = 0.05
    """Share of samples in flat tops."""
    sync_seconds: _Seconds = 0.1
    """Seconds between the beginnings of a film's sound and pictures."""
    sync_end_seconds: _Seconds = 0.5
    """Seconds between their ends."""
    size_slack_pixels: _Count = 63
    """Pixels of a side by which the size may differ from what was asked for."""
    duration_share: _Share = 0.1
    """Share by which the duration may differ."""
    duration_seconds: _Seconds = 0.5
    """Seconds by which it may differ; whichever allows more."""
    frame_slack: _Count = 4
    """Frames by which a film may be short."""
    frame_rate_share: _Share = 0.02
    """Share by which the frame rate may differ."""


class CanaryFile(Strict):
    """An input whose output is known."""

    name: Annotated[
        str, StringConstraints(max_length=40), *shape(r"[a-z0-9][a-z0-9-]*", "use lower-case letters, digits and `-`")
    ]
    """Its name in findings and on contact sheets."""
    endpoint: Annotated[str, StringConstraints(max_length=200)] = "/"
    """Path of a declared endpoint that is no stream."""
    input: dict[str, JsonValue]
    """What is asked, with a fixed seed: the same input must be drawn alike each time."""

    @field_validator("input")
    @classmethod
    def _is_small(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if len(json.dumps(value)) > MAX_CANARY_CHARS:
            message = f"write at most {MAX_CANARY_CHARS} characters of JSON; name files by a URL"
            raise ValueError(message)
        return value

    def frozen(self) -> CanaryInput:
        """Return it as a value."""
        return CanaryInput(self.name, json.dumps(self.input, sort_keys=True), self.endpoint)


class CanariesFile(Strict):
    """Inputs that are replayed on every replica and held against what healthy replicas made of them."""

    inputs: tuple[CanaryFile, ...] = Field((), max_length=MAX_CANARIES)
    """The canaries; none: none are played."""
    every_seconds: float = Field(3600.0, ge=5, le=604_800, allow_inf_nan=False)
    """Seconds between two rounds of a replica; at its start, after adapters and on suspicion there are more."""
    budget_seconds_per_hour: float = Field(60.0, ge=0, le=3_600, allow_inf_nan=False)
    """Device-seconds that canaries may take of one replica in an hour. A self-test of a drained one is not counted."""
    reruns: int = Field(3, ge=2, le=10)
    """Times that a replica draws a canary whose golden is not learned yet."""

    @field_validator("inputs")
    @classmethod
    def _names_differ(cls, value: tuple[CanaryFile, ...]) -> tuple[CanaryFile, ...]:
        names = [item.name for item in value]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            message = f"canary {twice[0]} is named twice"
            raise ValueError(message)
        return value

    def frozen(self) -> CanarySpec:
        """Return the section as values."""
        inputs = tuple(item.frozen() for item in self.inputs)
        return CanarySpec(inputs, self.every_seconds, self.budget_seconds_per_hour, self.reruns)


class ForbiddenFile(Strict):
    """A combination of what outputs are made with that is a fault; every named part must be so."""

    pipeline: Line | None = None
    """Class of the pipeline, such as StableDiffusionPipeline."""
    scheduler: Line | None = None
    """Class of the scheduler, such as DDIMScheduler."""
    dtype: Line | None = None
    """Precision of the pipeline, such as float16."""
    vae_dtype: Line | None = None
    """Precision of the decoder."""
    device: Line | None = None
    """Kind of device, such as cpu or cuda."""
    adapter: Line | None = None
    """Name of an adapter that acts."""
    library: Line | None = None
    """A library and its version, such as `diffusers 0.42.0`."""
    why: Line | None = None
    """Why it is a fault, for the finding."""

    @model_validator(mode="after")
    def _names_a_part(self) -> "ForbiddenFile":
        if not self.model_dump(exclude_none=True, exclude={"why"}):
            message = "name at least one part, such as `dtype: float16`"
            raise ValueError(message)
        return self

    def frozen(self) -> Forbidden:
        """Return it as a value."""
        return Forbidden(self.model_dump(exclude_none=True, exclude={"why"}), self.why or "")


class ScorerFile(Strict):
    """A scorer that looks at a share of the outputs, beside the path of requests."""

    id: Annotated[
        str,
        StringConstraints(max_length=48),
        *shape(r"[a-z][a-z0-9-]{0,39}@[0-9]{1,4}", "write a name and a version, such as `digits-agreement@1`"),
    ]
    """Its name and version in the operator's file of scorers; a worker that knows none of that id scores nothing."""
    share: _Share = 0.1
    """Share of the outputs that it sees, drawn from their request ids."""
    budget_seconds_per_hour: float = Field(60.0, ge=0, le=3_600, allow_inf_nan=False)
    """Seconds that it may work for this model in an hour, on each worker."""

    def frozen(self) -> ScorerUse:
        """Return it as a value."""
        return ScorerUse(self.id, self.share, self.budget_seconds_per_hour)


class QualityFile(Strict):
    """Which outputs are no success, whatever status the model gave them."""

    mode: _Mode = QualityMode.ENFORCE
    """off: outputs are not looked at; observe: failed checks are counted and logged; enforce: a broken output is tried
    again elsewhere, and then fails with the name of the check."""
    retries: int = Field(1, ge=0, le=5)
    """Further attempts after a broken output."""
    skip: tuple[OutputCheck, ...] = Field((), max_length=len(OutputCheck))
    """Checks that are not made, such as `black` for a model of masks."""
    thresholds: ThresholdFile = Field(default_factory=lambda: ThresholdFile.model_validate({}))
    canaries: CanariesFile = Field(default_factory=lambda: CanariesFile.model_validate({}))
    forbidden: tuple[ForbiddenFile, ...] = Field((), max_length=32)
    """Combinations of what outputs are made with that are a finding."""
    scorers: tuple[ScorerFile, ...] = Field((), max_length=8)
    """Scorers that look at outputs; their scores are followed like all other numbers of outputs."""

    @field_validator("scorers")
    @classmethod
    def _ids_differ(cls, value: tuple[ScorerFile, ...]) -> tuple[ScorerFile, ...]:
        ids = [item.id for item in value]
        twice = sorted({name for name in ids if ids.count(name) > 1})
        if twice:
            message = f"scorer {twice[0]} is named twice"
            raise ValueError(message)
        return value

    def frozen(self) -> QualitySpec:
        """Return the section as values."""
        scorers = tuple(item.frozen() for item in self.scorers)
        forbidden = tuple(item.frozen() for item in self.forbidden)
        thresholds = Thresholds(**self.thresholds.model_dump())
        canaries = self.canaries.frozen()
        return QualitySpec(self.mode, self.retries, self.skip, thresholds, canaries, forbidden, scorers)
