"""The words of a canary: what is looked at (marks), what was seen (observations), and what may be done. Pure values.

It decides nothing. A *reading* is one number of one finished request: 0 or 1 for an event, a positive number for a
measure. A *mark* is an event that is bad when it grows: the event itself, or a reading beyond one of the control's own
quantiles. `evidence` counts and bets, `decide` acts on it.
"""

import dataclasses
import datetime as dt
import enum
from collections.abc import Mapping

WHOLE = ""  # the slice that holds every request


class Side(enum.StrEnum):
    """Which end of a reading's control distribution is looked at."""

    ABOVE = "above"
    BELOW = "below"


class Inconclusive(enum.StrEnum):
    """What follows when the deadline passes without a verdict. To promote is not among the choices."""

    HOLD = "hold"
    ROLL_BACK = "roll_back"


@dataclasses.dataclass(frozen=True, slots=True)
class Mark:
    """One thing that may get worse.

    Without a quantile the reading itself is the event. `share` is its part of the allowed error of the whole family;
    with a `margin` (points of probability) a promotion needs the proof that its rate is less than that above control's.
    """

    name: str
    reading: str
    share: float
    quantile: float | None = None
    side: Side = Side.ABOVE
    absent: bool = False  # the mark is that the event did not happen
    margin: float | None = None
    costs_budget: bool = False
    sliced: bool = False


DEFAULT_MARKS = (
    Mark("errors", "failed", 0.40, margin=0.02, costs_budget=True, sliced=True),
    Mark("refusals", "refused", 0.05),
    Mark("broken outputs", "broken", 0.05, margin=0.02, costs_budget=True, sliced=True),
    Mark("latency p50", "seconds", 0.08, quantile=0.5, margin=0.10),
    Mark("latency p95", "seconds", 0.14, quantile=0.95, margin=0.05, sliced=True),
    Mark("latency p99", "seconds", 0.08, quantile=0.99),
    Mark("blocked more", "blocked", 0.05, margin=0.05),
    Mark("blocked less", "blocked", 0.05, absent=True, margin=0.05),
    Mark("quality p10", "quality", 0.05, quantile=0.1, side=Side.BELOW, margin=0.05),
    Mark("cost p50", "device_seconds", 0.05, quantile=0.5, margin=0.15),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Policy:
    """How a canary goes: what it may prove, how fast it may grow, what it may cost.

    `alpha` bounds the chance that a candidate which is like the control is ever rolled back for harm, over every mark,
    slice and look together; `promote_alpha` the chance to promote one that is worse than a margin.
    """

    marks: tuple[Mark, ...] = DEFAULT_MARKS
    alpha: float = 0.01
    promote_alpha: float = 0.05
    slice_share: float = 0.25  # of alpha, for all slices together
    max_slices: int = 20
    steps: tuple[float, ...] = (5.0, 10.0, 25.0, 50.0)  # percent of the traffic
    step_seconds: float = 60.0  # least time at one weight
    step_requests: int = 30  # least requests of the candidate at one weight
    deadline_seconds: float = 6 * 3600.0
    quiet_seconds: float = 300.0  # without a request of the candidate, it waits and says so
    when_inconclusive: Inconclusive = Inconclusive.HOLD
    allowance: float = 50.0  # bad answers beyond control's rate that the error budget grants this rollout
    look_ahead_seconds: float = 30.0  # from a bad answer to weight 0: a tick, and what runs meanwhile


@dataclasses.dataclass(frozen=True, slots=True)
class Observation:
    """One finished request: its arm, the weight (0..1) in force when its arm was chosen, and what came of it."""

    candidate: bool
    weight: float
    readings: Mapping[str, float]
    slices: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Stream:
    """What is known of one mark in one slice; pairs are (control, candidate)."""

    log_capital: float  # of the bets on harm
    shares: tuple[float, ...]
    log_safe: tuple[float, ...]  # capital of each bet on non-inferiority; empty without a margin
    seen: tuple[int, int] = (0, 0)
    marked: tuple[int, int] = (0, 0)


@dataclasses.dataclass(frozen=True, slots=True)
class Evidence:
    """Everything learned since the canary began; small, stored whole. Keys of both maps are slices."""

    streams: Mapping[str, Mapping[str, Stream]] = dataclasses.field(default_factory=dict[str, Mapping[str, Stream]])
    control: Mapping[str, Mapping[str, Mapping[int, int]]] = dataclasses.field(
        default_factory=dict[str, Mapping[str, Mapping[int, int]]]
    )  # per reading a histogram of the control's values, see `evidence.bin_of`
    requests: tuple[int, int] = (0, 0)


@dataclasses.dataclass(frozen=True, slots=True)
class CanaryState:
    """A running canary as `decide_canary` sees it."""

    policy: Policy
    evidence: Evidence
    weight: float  # percent, in force now
    started_at: dt.datetime
    step_since: dt.datetime
    step_requests: int  # requests of the candidate since then
    last_seen_at: dt.datetime | None  # the newest finished request of the candidate
    requests_per_second: float  # of the whole model, lately
    paused_by: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Shift:
    """Give the candidate this share of the traffic (percent)."""

    weight: float
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class RollBack:
    """Take all traffic from the candidate, for good."""

    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Promote:
    """The candidate is proved no worse than the margins."""

    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class GiveUp:
    """Nothing was proved in time: a person has to look; the candidate gets no traffic meanwhile."""

    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Stay:
    """Go on at this weight."""

    reason: str


CanaryAction = Shift | RollBack | Promote | GiveUp | Stay
