"""What is measured of a file that a model made: numbers alone, taken in the limited child and sent to the parent.

Values, and the names of the features in their order. They say nothing about good or bad; `quality/contracts` does, and
detectors read `features`. Written by `media/measuring`, read by `media/looking`.
"""

import dataclasses

from forestay.media.limits import Kind

PICTURE_FEATURES = (
    "mean",
    "spread",
    "red_green",
    "yellow_blue",
    "colourfulness",
    "entropy",
    "clipped_low",
    "clipped_high",
    "fine_share",
    "middle_share",
    "sharpness",
    "blockiness",
    "checker",
    "row_stripes",
    "column_stripes",
    "dots",
)
FILM_FEATURES = (
    "motion",
    "motion_spread",
    "steadiness",
    *PICTURE_FEATURES,
)  # pictures': a mean over frames
SOUND_FEATURES = (
    "level_db",
    "level_spread_db",
    "crest_db",
    "flatness",
    "centroid",
    "bandwidth",
    "zero_crossings",
    "silent_share",
    "clipped_share",
    "clicks",
    "offset",
)


@dataclasses.dataclass(frozen=True, slots=True)
class PictureMeasures:
    """Of one picture, or of the first frame of a film. Levels are 0 to 255."""

    width: int
    height: int
    low: int  # lowest and highest value of any channel
    high: int
    extent: int  # the widest range of values within one channel: 0 of a picture of one colour
    spread: float  # standard deviation of luma, in levels
    clipped_share: float  # of all values, those that are 0 or 255
    colour: float  # colourfulness in levels: 0 of a picture in greys
    hash: str  # 64 bits as 16 hex digits: equal or near for pictures that look the same
    features: tuple[float, ...] = ()  # as PICTURE_FEATURES


@dataclasses.dataclass(frozen=True, slots=True)
class FilmMeasures:
    """Of the pictures of a film or an animation."""

    frames: int  # decoded
    seconds: float
    frame_rate: float  # frames a second, of those that were decoded
    codec: str
    still_seconds: float  # the longest run of frames that show the same
    constant_frames: int  # of one colour each
    torn_frames: int  # one part is new, the other that of the frame before, along a line from side to side
    damaged_frames: int  # the decoder says that packets were missing or wrong
    whole: bool = True  # False: key frames alone were decoded
    video_start: float = 0.0  # second at which the first picture is shown
    features: tuple[float, ...] = ()  # as FILM_FEATURES


@dataclasses.dataclass(frozen=True, slots=True)
class SoundMeasures:
    """Of a recording, or of the sound of a film. Levels are of full scale, 0 to 1."""

    seconds: float
    sample_rate: int
    channels: int
    codec: str
    peak: float
    distinct: int  # different sample values, counted up to 64
    not_finite: int  # samples that are no number
    silent_share: float  # of windows of 20 ms, those below -60 dB
    silent_seconds: float  # the longest run of them
    clipped_share: float  # of samples, those in runs at full scale or at a flat top
    sound_start: float = 0.0  # second at which it begins, beside the pictures
    features: tuple[float, ...] = ()  # as SOUND_FEATURES


@dataclasses.dataclass(frozen=True, slots=True)
class Measured:
    """Of one file; what it does not hold is None."""

    kind: Kind
    content_type: str
    picture: PictureMeasures | None = None
    film: FilmMeasures | None = None
    sound: SoundMeasures | None = None
