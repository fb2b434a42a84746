"""Numbers of a film, frame by frame as they are decoded. Pure: `Frames` is given one frame after the other.

A torn frame is one of which the part above a line shows what the frame before showed and the part below does not, or
the other way round, with a step along that line from side to side that was not there before. A change of scene changes
both parts, and so is none.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from forestay.media.measures import FilmMeasures, PictureMeasures
from forestay.media.measuring.pictures import measure

_LONG_SIDE = 256  # pixels of a frame that is compared with the one before
_STILL_MEAN = 0.05  # levels, mean difference of frames that show the same
_STILL_MOST = 8  # levels, of any pixel of them
_REFRESHES = 3  # frames in a row that a key frame takes to show the same again
_REFRESH_MEAN = 2.0  # levels, mean difference of blocks of 8 x 8
_REFRESH_MOST = 10.0
_STEP = 10  # levels across a line
_ALONG = 0.5  # share of the columns that step at a tear
_QUIET = 0.35  # of the difference of one part, the most that the other part may differ by
_LEAST = 1.0  # levels, mean difference of the part that is new
_SAMPLES = 8  # frames of which pictures' features are taken
_CONSTANT = 2  # levels between the darkest and the brightest value

Luma = npt.NDArray[np.int16]


@dataclasses.dataclass(frozen=True, slots=True)
class Track:
    """What the container says of the pictures."""

    codec: str
    pictures: int  # packets, so frames as far as is known before decoding
    start: float = 0.0  # seconds
    whole: bool = True


class Frames:
    """Takes frames in order."""

    def __init__(self, track: Track) -> None:
        self._track = track
        self._every = max(1, track.pictures // _SAMPLES)
        self._last: Luma | None = None
        self._seconds: list[float] = []
        self._motion: list[float] = []
        self._likeness: list[float] = []
        self._still = _Run()
        self._pictures: list[PictureMeasures] = []
        self._constant = 0
        self._torn = 0
        self._damaged = 0

    def take(self, image: Image.Image, seconds: float, *, damaged: bool = False) -> None:
        """Take one frame, RGB, and the second at which it is shown."""
        luma = np.asarray(_small(image), dtype=np.int16)
        self._damaged += damaged
        low, high = int(luma.min()), int(luma.max())
        self._constant += high - low <= _CONSTANT
        if len(self._seconds) % self._every == 0 and len(self._pictures) < _SAMPLES:
            self._pictures.append(measure(image))
        if self._last is not None and self._last.shape == luma.shape:
            self._compare(self._last, luma, seconds)
        self._seconds.append(seconds)
        self._last = luma

    @property
    def first(self) -> PictureMeasures | None:
        """Return the numbers of the first frame."""
        return self._pictures[0] if self._pictures else None

    def measures(self) -> FilmMeasures:
        """Return the numbers of what was taken."""
        count = len(self._seconds)
        step = _step(self._seconds)
        seconds = (self._seconds[-1] - self._seconds[0] + step) if count else 0.0
        return FilmMeasures(
            frames=count,
            seconds=seconds,
            frame_rate=1.0 / step if step else 0.0,
            codec=self._track.codec,
            still_seconds=self._still.longest,
            constant_frames=self._constant,
            torn_frames=self._torn,
            damaged_frames=self._damaged,
            whole=self._track.whole,
            video_start=self._track.start,
            features=self._features(),
        )

    def _compare(self, before: Luma, now: Luma, seconds: float) -> None:
        difference = np.abs(now - before)
        mean = float(difference.mean(dtype=np.float64))
        self._motion.append(mean)
        self._likeness.append(_correlation(before, now))
        same = mean <= _STILL_MEAN and int(difference.max()) <= _STILL_MOST
        self._still.add(seconds - self._seconds[-1], holds=same, nearly=not same and _is_refresh(before, now))
        self._torn += is_torn(before, now, difference)

    def _features(self) -> tuple[float, ...]:
        if not self._pictures:
            return ()
        pictures = np.array([picture.features for picture in self._pictures]).mean(axis=0)
        motion = np.array(self._motion or [0.0])
        likeness = float(np.mean(self._likeness)) if self._likeness else 1.0
        return (math.log1p(float(motion.mean())), math.log1p(float(motion.std())), likeness, *map(float, pictures))


class _Run:
    """The longest stretch of seconds for which something holds, but for a frame or two at which it nearly does."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._now = 0.0
        self._nearly = 0

    def add(self, seconds: float, *, holds: bool, nearly: bool) -> None:
        """Take the step to the next frame."""
        self._nearly = self._nearly + 1 if nearly else 0
        goes_on = holds or (nearly and self._now > 0 and self._nearly <= _REFRESHES)
        self._now = self._now + seconds if goes_on else 0.0
        self.longest = max(self.longest, self._now if holds else 0.0)


def is_torn(before: Luma, now: Luma, difference: Luma) -> bool:
    """Tell whether a frame is torn, `[height, width]` luma of it and of the one before, and their difference."""
    height = now.shape[0]
    if height < 16:
        return False
    margin = max(2, height // 16)
    fresh = np.where(_near(_along(before), margin) < _ALONG / 2, _along(now), 0.0)[margin:-margin]
    line = margin + int(fresh.argmax())
    if fresh[line - margin] < _ALONG:
        return False
    rows = difference.mean(axis=1)
    above, below = float(rows[: line + 1].mean()), float(rows[line + 1 :].mean())
    return max(above, below) >= _LEAST and min(above, below) <= _QUIET * max(above, below)


def _is_refresh(before: Luma, now: Luma) -> bool:
    """Tell whether two frames show the same but for how they are coded, as around a key frame."""
    height, width = now.shape[0] // 8 * 8, now.shape[1] // 8 * 8
    if not height or not width:
        return False
    step = (now[:height, :width] - before[:height, :width]).reshape(height // 8, 8, width // 8, 8)
    blocks = np.abs(step.mean(axis=(1, 3)))
    return float(blocks.mean()) <= _REFRESH_MEAN and float(blocks.max()) <= _REFRESH_MOST


def _along(luma: Luma) -> npt.NDArray[np.float64]:
    """Return for each line between two rows the share of columns that step there."""
    return (np.abs(np.diff(luma, axis=0)) > _STEP).mean(axis=1)


def _near(values: npt.NDArray[np.float64], margin: int) -> npt.NDArray[np.float64]:
    """Return the highest value within `margin` of each."""
    padded = np.pad(values, margin)
    return np.lib.stride_tricks.sliding_window_view(padded, 2 * margin + 1).max(axis=1)


def _small(image: Image.Image) -> Image.Image:
    factor = max(1, -(-max(image.size) // _LONG_SIDE))
    return (image if factor == 1 else image.reduce(factor)).convert("L")


def _correlation(before: Luma, now: Luma) -> float:
    """Return how alike two frames are, -1 to 1; 1 where neither shows anything."""
    one, other = before[::2, ::2].astype(np.float32), now[::2, ::2].astype(np.float32)
    one -= one.mean()
    other -= other.mean()
    size = math.sqrt(float((one * one).sum()) * float((other * other).sum()))
    return float((one * other).sum()) / size if size > 0 else 1.0


def _step(seconds: Sequence[float]) -> float:
    """Return for how long a frame is shown, as a mean; 0 of a film of one frame."""
    return (seconds[-1] - seconds[0]) / (len(seconds) - 1) if len(seconds) > 1 else 0.0
