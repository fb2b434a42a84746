"""What becomes of submits while the database is away for a moment, as in a restart: none is lost, none stored twice.

It decides whether a failed try may simply be made again (nothing was sent), must first be looked up (nobody knows
whether it was committed), or is given up (its patience is spent). How to store and how to look up is the caller's:
`queue/submitting.py`. `decide_after_failure` is pure.
"""

import dataclasses
import enum
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from forestay.chance import Chance
from forestay.clock import Clock
from forestay.errors import Unavailable
from forestay.ids import RequestId
from forestay.queue.rows import Entry
from forestay.storage.postgres import NothingSent
from forestay.telemetry.logs import logger

FIRST_PAUSE_SECONDS = 0.05  # an embedded Postgres restarts in about a second
LONGEST_PAUSE_SECONDS = 0.5
T = TypeVar("T")
_LOG = logger("queue")


class Failure(enum.Enum):
    """What is known of a try that failed."""

    NOTHING_SENT = "nothing sent"
    UNKNOWN = "outcome unknown"


@dataclasses.dataclass(frozen=True, slots=True)
class Trouble:
    """What has happened to a batch so far; once in doubt, it is looked up before every further try."""

    tries: int = 0
    in_doubt: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class TryAgain:
    """Store these once more after a pause; `look_first`: only those that a look-up does not find."""

    entries: tuple[Entry, ...]
    after_seconds: float
    look_first: bool
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class GiveUp:
    """Refuse these: their patience is spent."""

    entries: tuple[Entry, ...]
    reason: str


def decide_after_failure(
    waiting: Sequence[Entry], failure: Failure, trouble: Trouble, *, now: float, jitter: float
) -> list[TryAgain | GiveUp]:
    """Share `waiting` out between another try and none; `now` as `Entry.give_up_at`, `jitter` in 0.5..1.5.

    The pause doubles with each try up to half a second; the jitter keeps gateways from coming back all at once
    (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
    """
    pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(trouble.tries, 10)) * jitter
    spent = tuple(entry for entry in waiting if entry.give_up_at < now + pause)
    patient = tuple(entry for entry in waiting if entry.give_up_at >= now + pause)
    actions: list[TryAgain | GiveUp] = []
    if spent:
        actions.append(GiveUp(spent, f"{failure.value}, and the patience of {len(spent)} submits is spent"))
    if patient:
        look_first = trouble.in_doubt or failure is Failure.UNKNOWN
        actions.append(TryAgain(patient, pause, look_first, f"{failure.value}, {len(patient)} submits wait"))
    return actions


class Ledger(Protocol):
    """Where batches are stored."""

    async def store(self, entries: Sequence[Entry]) -> set[RequestId]:
        """Store what nothing stands against; returns the ids that are committed."""
        ...

    async def store_missing(self, entries: Sequence[Entry]) -> set[RequestId]:
        """Look first, then store those not found; returns the ids that are committed by either try.

        Raises Unavailable when another try of the same batch got in between: look again.
        """
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Stored:
    """What came of a batch: committed ids, and why others were given up; the rest something stands against."""

    committed: set[RequestId]
    given_up: dict[RequestId, Unavailable]


async def store_surely(entries: Sequence[Entry], ledger: Ledger, clock: Clock, chance: Chance) -> Stored:
    """Store a batch, outlasting a database that is away for no longer than each entry's patience."""
    waiting, trouble = tuple(entries), Trouble()
    result = Stored(set(), {})
    while waiting:
        try:
            result.committed.update(await (ledger.store_missing if trouble.in_doubt else ledger.store)(waiting))
            break
        except NothingSent as error:
            failure, cause = Failure.NOTHING_SENT, error
        except Unavailable as error:
            failure, cause = Failure.UNKNOWN, error
        jitter = chance.uniform(0.5, 1.5)
        actions = decide_after_failure(waiting, failure, trouble, now=clock.monotonic(), jitter=jitter)
        waiting = ()
        for action in actions:
            _say(action, trouble, cause)
            if isinstance(action, GiveUp):
                result.given_up.update({entry.submission.request_id: cause for entry in action.entries})
            else:
                waiting, trouble = action.entries, Trouble(trouble.tries + 1, action.look_first)
                await clock.sleep(action.after_seconds)
    return result


async def patiently(
    work: Callable[[], Awaitable[T]],
    entry: Entry,
    clock: Clock,
    chance: Chance,
    *,
    retry_on: type[Unavailable] = Unavailable,
) -> T:
    """Do something for one entry again until it succeeds or the entry's patience is spent.

    What may not be done twice is given `retry_on=NothingSent`: any other failure is raised at once.
    """
    trouble = Trouble()
    while True:
        try:
            return await work()
        except retry_on as error:
            jitter, now = chance.uniform(0.5, 1.5), clock.monotonic()
            (action,) = decide_after_failure([entry], Failure.NOTHING_SENT, trouble, now=now, jitter=jitter)
            if isinstance(action, GiveUp):
                raise
            _say(action, trouble, error)
            trouble = Trouble(trouble.tries + 1)
        await clock.sleep(action.after_seconds)


def _say(action: TryAgain | GiveUp, trouble: Trouble, cause: Unavailable) -> None:
    """Log a batch's first trouble and its end, not each try in between."""
    if trouble.tries == 0 or isinstance(action, GiveUp):
        _LOG.warning("queue.submit_delayed", does=type(action).__name__, reason=action.reason, cause=str(cause))
