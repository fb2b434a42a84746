"""Golden canaries: whether the same seed and input still give the same picture, in the same environment. Pure.

It decides what is golden (looks of healthy reruns), whether a new look lies within what reruns differ by, and what
follows from a round: nothing, or a finding that says whether one replica or the whole revision has changed. Where
reruns were equal to the last bit, every difference counts; elsewhere the band is as wide as reruns differ by, so an
environment (class of device and versions of libraries) has its own. A quality score is blind to most of these changes.
"""

import dataclasses
import datetime as dt
import enum
import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from forestay.media.measures import PICTURE_FEATURES
from forestay.media.measuring.pictures import measure
from forestay.quality.findings import Finding, Source, Where
from forestay.quality.pipeline_parts import Change, numbers_of, row_of, words_of

Picture = npt.NDArray[np.uint8]  # [height, width, 3]
THUMB_SIDE = 16
MIN_RERUNS = 2  # of which a golden is learned
WIDER = 2.0  # a band is so much wider than the widest difference of two reruns
LEAST_LEVELS = 0.25  # of 255: the narrowest band where reruns are not equal to the last bit
LEAKED, NOT_APPLIED, CORRUPT = 23, 24, 29  # rows of the catalogue, beside those of `pipeline_parts`


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """What is kept of one picture of one canary. It cannot be turned back into the picture."""

    digest: str  # SHA-256 of the pixels
    size: tuple[int, int]  # width, height
    thumb: tuple[int, ...]  # THUMB_SIDE x THUMB_SIDE x 3 levels, row by row
    features: tuple[float, ...]  # as PICTURE_FEATURES


@dataclasses.dataclass(frozen=True, slots=True)
class Golden:
    """How a canary looks when all is well, in one environment."""

    environment: str
    looks: tuple[Look, ...]  # of MIN_RERUNS healthy reruns or more

    @property
    def exact(self) -> bool:
        """Tell whether reruns were equal to the last bit."""
        return len({look.digest for look in self.looks}) == 1

    @property
    def band(self) -> float:
        """Return by how many levels, on average over the thumb, a healthy look may differ from its nearest."""
        if self.exact:
            return 0.0
        pairs = [distance(one, two) for place, one in enumerate(self.looks) for two in self.looks[:place]]
        return max(LEAST_LEVELS, WIDER * max(pairs))


class Standing(enum.StrEnum):
    """How one canary compares."""

    SAME = "same"
    WITHIN = "within"  # another picture, as healthy reruns differ
    DIFFERS = "differs"
    MISSING = "missing"  # no picture came


@dataclasses.dataclass(frozen=True, slots=True)
class Compared:
    """One canary of a round. `levels` is the mean distance of thumbs, of 255; `feature` moved most."""

    canary: str
    standing: Standing
    levels: float
    band: float
    feature: str = ""

    @property
    def failed(self) -> bool:
        """Tell whether it is no healthy look."""
        return self.standing in {Standing.DIFFERS, Standing.MISSING}


@dataclasses.dataclass(frozen=True, slots=True)
class Round:
    """The canaries of one replica. `peers_whole`: other replicas of the revision that passed the same canaries."""

    compared: tuple[Compared, ...]
    with_adapter: frozenset[str] = frozenset()  # canaries that ask for one
    after_adapter: bool = False  # played because a request with an adapter went before
    peers_whole: int = 0
    drew_alike: bool = False  # this very revision drew the golden
    changes: tuple[Change, ...] = ()  # of the pipeline, since it was drawn


def look_of(picture: Picture) -> Look:
    """Return what is kept of a picture `[height, width, 3] uint8`."""
    image = Image.fromarray(picture)
    thumb = np.asarray(image.resize((THUMB_SIDE, THUMB_SIDE), Image.Resampling.BOX)).reshape(-1)
    digest = hashlib.sha256(np.ascontiguousarray(picture).tobytes()).hexdigest()
    return Look(digest, image.size, tuple(int(level) for level in thumb), measure(image).features)


def distance(one: Look, two: Look) -> float:
    """Return the mean absolute difference of two thumbs, in levels; 255 where sizes differ."""
    if one.size != two.size or not one.thumb or not two.thumb:
        return 0.0 if one.digest == two.digest else 255.0
    return float(np.abs(np.subtract(one.thumb, two.thumb, dtype=np.float64)).mean())


def learn(environment: str, looks: Sequence[Look]) -> Golden | None:
    """Return the golden of healthy reruns; None while there are too few, or they are of different sizes."""
    if len(looks) < MIN_RERUNS or len({look.size for look in looks}) != 1:
        return None
    return Golden(environment, tuple(looks))


def compare(canary: str, look: Look | None, golden: Golden) -> Compared:
    """Hold a look against the golden of the same environment."""
    if look is None:
        return Compared(canary, Standing.MISSING, 255.0, golden.band)
    levels = min(distance(look, known) for known in golden.looks)
    if any(look.digest == known.digest for known in golden.looks):
        return Compared(canary, Standing.SAME, 0.0, golden.band)
    within = not golden.exact and levels <= golden.band
    standing = Standing.WITHIN if within else Standing.DIFFERS
    return Compared(canary, standing, levels, golden.band, _moved(look, golden))


def decide_round(played: Round, where: Where, now: dt.datetime) -> Finding | None:
    """Decide what a round says. One that differs where its peers do not is its device's or its memory's fault."""
    failed = [item for item in played.compared if item.failed]
    if not failed:
        return None
    plain = [item for item in failed if item.canary not in played.with_adapter]
    row, words = _named(played, plain)
    worst = max(failed, key=lambda item: item.levels)
    evidence = {
        "canaries": float(len(played.compared)),
        "differing_canaries": float(len(failed)),
        "worst_levels": worst.levels,
        "band_levels": worst.band,
        "healthy_peers": float(played.peers_whole),
        **numbers_of(played.changes),
    }
    changed = f"; {words_of(played.changes)}" if played.changes else ""
    what = f"{len(failed)} of {len(played.compared)} canaries differ from their golden: {words}{changed}"
    return Finding(what, row, where, evidence, now, Source.CANARY)


def _named(played: Round, plain: Sequence[Compared]) -> tuple[int, str]:
    if not plain:
        return NOT_APPLIED, "those with an adapter alone, so the adapter does not act as it did"
    if played.after_adapter:
        return LEAKED, "after a request with an adapter, which may have stayed"
    if played.peers_whole:
        return CORRUPT, f"{played.peers_whole} other replicas of the revision agree with it, so this one is ill"
    if played.drew_alike:
        return CORRUPT, "the revision itself drew that golden, so this replica has changed"
    return row_of(played.changes), "the revision draws something else for the same seed"


def _moved(look: Look, golden: Golden) -> str:
    """Return the feature that moved most, relative to its size; none of what is no picture."""
    if len(look.features) != len(PICTURE_FEATURES) or len(golden.looks[0].features) != len(PICTURE_FEATURES):
        return ""
    usual = np.array([known.features for known in golden.looks]).mean(axis=0)
    moved = np.abs(np.subtract(look.features, usual)) / (np.abs(usual) + 1e-3)
    return PICTURE_FEATURES[int(moved.argmax())]
