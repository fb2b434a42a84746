"""The words of a readiness review. Pure values."""

import dataclasses
import datetime as dt
import enum

from forestay.fleet.model import Revision
from forestay.ids import ModelId


class Area(enum.StrEnum):
    """What an item is about."""

    RELIABILITY = "reliability"
    SECURITY = "security"
    SAFETY = "safety"
    QUALITY = "quality"
    CAPACITY = "capacity"
    OPERABILITY = "operability"


class Answer(enum.StrEnum):
    """What an item says; inconclusive is never pass."""

    PASS = "pass"  # noqa: S105 - a verdict
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclasses.dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of a revision in the last days: of real requests, or of those that a profile run sent."""

    requests: int = 0
    failed: int = 0
    broken: int = 0
    seconds_median: float | None = None
    seconds_p95: float | None = None
    queue_seconds_p95: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """What a review looks at, gathered at one time."""

    model_id: ModelId
    revision: Revision  # that serves, or is about to
    now: dt.datetime
    replicas_ready: int = 0
    workers_of_pool: int = 0
    memory_of_pool_mb: int = 0  # of the largest worker
    slos: tuple[str, ...] = ()  # ids of the objectives that watch it
    slos_broken: tuple[str, ...] = ()
    signed_by: tuple[str, ...] | None = None  # trusted keys; None: its files were never examined
    unsafe_files: tuple[str, ...] = ()
    weights: int | None = None  # files of weights in its bundle; None: it was never examined
    policy_known: bool = True
    revisions: int = 1
    measured: Measured = dataclasses.field(default_factory=Measured)


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """What one item says, why, and what mends it."""

    item: str
    area: Area
    answer: Answer
    evidence: str
    mend: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Waiver:
    """A person's word that an item may fail for a while."""

    item: str
    owner: str
    reason: str
    until: dt.date  # included


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """A finding as it counts: `waived` names the waiver that is in force."""

    finding: Finding
    waived: Waiver | None = None

    @property
    def holds_up(self) -> bool:
        """Tell whether it keeps the model out."""
        return self.finding.answer is not Answer.PASS and self.waived is None


@dataclasses.dataclass(frozen=True, slots=True)
class Card:
    """A score card."""

    model_id: ModelId
    revision_id: str
    at: dt.datetime
    rows: tuple[Row, ...]

    @property
    def ready(self) -> bool:
        """Tell whether nothing keeps the model out."""
        return not any(row.holds_up for row in self.rows)

    @property
    def missing(self) -> tuple[str, ...]:
        """Return what keeps it out, in words."""
        return tuple(
            f"{row.finding.item}: {row.finding.evidence}; {row.finding.mend}" for row in self.rows if row.holds_up
        )
