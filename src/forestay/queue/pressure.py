"""What presses on the queue: how much work waits and runs, for whom, due when; and early ends. Values, no I/O.

They decide nothing: `capacity/admission` and `capacity/shedding` do. The queue's store fills and takes them.
"""

import dataclasses
import datetime as dt

from forestay.ids import ModelId, RequestId, TenantId
from forestay.queue.fairness import Waiting
from forestay.queue.model import Answer, Outcome, State

HORIZONS_SECONDS = (2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0)  # where groups of deadlines part


@dataclasses.dataclass(frozen=True, slots=True)
class Due:
    """Waiting requests of one tenant whose deadlines to start lie close together, in seconds from now."""

    earliest: float
    latest: float
    seconds: float  # predicted device-seconds


@dataclasses.dataclass(frozen=True, slots=True)
class Pressure:
    """What one tenant asks of one model now. Work is in predicted device-seconds."""

    model_id: ModelId
    tenant_id: TenantId
    low: bool  # requests that yield: low priority, and not yet past the starvation bound
    weight: float = 1.0
    waiting: int = 0
    waiting_seconds: float = 0.0
    due: tuple[Due, ...] = ()  # of the waiting ones those with a deadline to start, earliest first
    held: int = 0  # leased, running or being judged
    held_seconds: float = 0.0
    held_elapsed_seconds: float = 0.0  # since they were leased, added up
    squares: float = 0.0  # of the predictions of all of them, added up: how unequal they are


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
    """Where a tenant stands in a pool's turns."""

    lead: float  # its virtual time over the pool's, device-seconds per weight; never below 0 unless it waits
    weight: float


@dataclasses.dataclass(frozen=True, slots=True)
class Queued:
    """One waiting request with what decides whether it can still be served in time."""

    waiting: Waiting
    start_deadline: dt.datetime | None
    total_deadline: dt.datetime | None
    attempt: int  # attempts so far: the fence


@dataclasses.dataclass(frozen=True, slots=True)
class EarlyEnd:
    """A queued request to end now, before its deadline: only while it still waits, after as many attempts."""

    request_id: RequestId
    attempt: int
    state: State  # EXPIRED or FAILED
    outcome: Outcome
    answer: Answer
