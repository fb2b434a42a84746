"""The words of SLOs: objectives, indicators, windows, minutes of counts. Values only; no rule stands here.

Counts are per minute and can be added. A minute says how many organic requests were good and bad, how many probes
were, and whether the minute was seen at all: no traffic is neither good nor bad, and an unseen minute is not an empty
one. Used by everything in this package and by whoever feeds it.
"""

import dataclasses
import enum
from typing import NewType

SloId = NewType("SloId", str)
Minute = NewType("Minute", int)
"""A minute, counted from 1970-01-01T00:00Z: minute 5 covers the seconds 300 to 359."""

MINUTES_OF_30_DAYS = 43_200


class SubjectKind(enum.StrEnum):
    """Whom an SLO is about."""

    PLATFORM = "platform"
    MODEL = "model"
    TENANT = "tenant"
    COMPOSITE = "composite"  # a weighted sum of other SLOs


@dataclasses.dataclass(frozen=True, slots=True)
class Subject:
    """Whom an SLO is about; `name` is a model's or a tenant's id, empty for the platform."""

    kind: SubjectKind
    name: str = ""


class Measure(enum.StrEnum):
    """What of the facts is counted as good or bad."""

    AVAILABILITY = "availability"  # requests that ended without a fault of ours
    LATENCY = "latency"  # from accepted to finished
    LATENCY_PER_WORK = "latency_per_work"  # the same, divided by the work asked for
    QUEUE_WAIT = "queue_wait"
    FIRST_CHUNK = "first_chunk"  # of a stream
    THROUGHPUT = "throughput"  # slices of time in which what was asked for was done, or the promised rate kept
    GOODPUT = "goodput"  # valid outputs per GPU-second
    DELIVERY = "delivery"  # webhooks
    VALIDITY = "validity"  # outputs that are whole
    SAFETY = "safety"  # releases that were judged
    PROVENANCE = "provenance"  # released files that bear a manifest, where a policy asks for one
    SUBMIT = "submit"  # Forestay itself: submits acknowledged
    STATUS = "status"  # Forestay itself: statuses answered
    GUARD = "guard"  # Forestay itself: judgements in time


TIMED = frozenset({Measure.LATENCY, Measure.LATENCY_PER_WORK, Measure.QUEUE_WAIT, Measure.FIRST_CHUNK})
"""Measures that need a threshold in seconds."""


class SliKind(enum.StrEnum):
    """How an indicator is read."""

    RATIO = "ratio"  # bad requests of all
    THRESHOLD = "threshold"  # requests above a threshold are bad
    TIME_SLICE = "time_slice"  # slices of time that miss an objective of their own are bad


@dataclasses.dataclass(frozen=True, slots=True)
class Series:
    """Where a user's own Prometheus has the same counts: selectors of counters, without functions."""

    total: str
    bad: str = ""
    good: str = ""
    probes_total: str = ""
    probes_bad: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Sli:
    """What is good and what is bad."""

    kind: SliKind
    measure: Measure
    threshold_seconds: float | None = None
    slice_minutes: int = 0
    """time_slice: length of a slice."""
    slice_objective: float = 0.0
    """time_slice: the share of good requests that makes a slice good, in (0, 1]."""
    per_second: float | None = None
    """throughput: the rate that is promised, in requests; what is asked for beyond it is not owed."""
    series: Series | None = None


class CalendarUnit(enum.StrEnum):
    """What a calendar window covers."""

    DAY = "day"
    WEEK = "week"  # from Monday
    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"


@dataclasses.dataclass(frozen=True, slots=True)
class Window:
    """The time over which an objective holds: `minutes` back from now, or one unit of a calendar in a time zone."""

    minutes: int = MINUTES_OF_30_DAYS
    calendar: CalendarUnit | None = None
    time_zone: str = "UTC"


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """One SLO of a composite, and how much it weighs."""

    slo_id: SloId
    weight: float = 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class BudgetStep:
    """What is done when the share of the budget that is left falls to `left_ratio`."""

    left_ratio: float
    action: "BudgetAction"


class BudgetAction(enum.StrEnum):
    """What an error budget demands, mildest first."""

    NONE = "none"
    SLOW = "slow_rollouts"
    APPROVE = "require_approval"
    FREEZE = "freeze"


@dataclasses.dataclass(frozen=True, slots=True)
class Alerting:
    """When people are told."""

    page: bool = True
    ticket: bool = True
    false_pages_per_30_days: float = 0.1
    """The most that may be expected while the service stays within its budget."""
    runbook: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class CreditBand:
    """What of a month's fee is given back when the month's availability is below `below_ratio`; shares of 1."""

    below_ratio: float
    credit_ratio: float


STEPS = (
    BudgetStep(0.5, BudgetAction.SLOW),
    BudgetStep(0.25, BudgetAction.APPROVE),
    BudgetStep(0.0, BudgetAction.FREEZE),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Slo:
    """One objective: of `objective` of what happens (a share in (0, 1)) within `window`, it shall be good."""

    slo_id: SloId
    subject: Subject
    objective: float
    sli: Sli
    owner_team: str
    owner_contact: str = ""
    window: Window = Window()
    description: str = ""
    parts: tuple[Part, ...] = ()
    policy: tuple[BudgetStep, ...] = STEPS
    thaw_margin: float = 0.1
    """How far the budget must rise above a step before its action ends."""
    alerting: Alerting = Alerting()
    labels: tuple[tuple[str, str], ...] = ()
    credits: tuple[CreditBand, ...] | None = None
    """What a tenant is given back for a bad month, mildest first; None: nothing is said, the default table holds."""
    origin: str = ""
    """Where a running platform has it from: a file, a model's spec, or the defaults; empty where nobody asks."""

    @property
    def budget_ratio(self) -> float:
        """The share that may be bad."""
        return 1.0 - self.objective


@dataclasses.dataclass(frozen=True, slots=True)
class Counts:
    """What one stretch of time held; two stretches are added by `+`."""

    good: int = 0
    bad: int = 0
    probes_good: int = 0
    probes_bad: int = 0
    missing_minutes: int = 0
    """Minutes that nobody saw: a gap of the collection, not an absence of traffic."""
    asked: int = 0
    """throughput, as it is read: requests that were asked for, whenever they end (`throughput`)."""

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.good + other.good,
            self.bad + other.bad,
            self.probes_good + other.probes_good,
            self.probes_bad + other.probes_bad,
            self.missing_minutes + other.missing_minutes,
            self.asked + other.asked,
        )

    @property
    def total(self) -> int:
        """Organic requests."""
        return self.good + self.bad

    @property
    def seen(self) -> int:
        """Organic requests and probes: what evidence is drawn from."""
        return self.good + self.bad + self.probes_good + self.probes_bad

    @property
    def seen_bad(self) -> int:
        """Bad ones among organic requests and probes."""
        return self.bad + self.probes_bad
