"""The `quality` section of a spec's file: which checks an output must pass, and where their thresholds lie.

It decides what is a valid section. Used by `spec_file`.
"""

from typing import Annotated

from pydantic import BeforeValidator, Field

from forestay.fleet.spec_fields import Strict
from forestay.fleet.spec_quality import OutputCheck, QualityMode, QualitySpec, Thresholds

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

    def frozen(self) -> QualitySpec:
        """Return the section as values."""
        return QualitySpec(self.mode, self.retries, self.skip, Thresholds(**self.thresholds.model_dump()))
