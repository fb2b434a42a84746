"""The port of the counters: what may be asked of them, and what each operation promises.

Two adapters: `valkey_counters` counts for every gateway in one place, `local_counters` for this process alone. One
suite in `tests/conformance` runs against both. What a call is predicted to take is *held* by a holder until it is
settled: a queued request holds for itself, all direct calls of a gateway are held together in the gateway's name, so
that they cost nothing each. A holder that nobody confirms or keeps lapses after its lease: a process that dies holds
nothing for ever. Decides nothing.
"""

import dataclasses
import datetime as dt
import types
from collections.abc import Mapping, Sequence
from typing import Protocol

from forestay.limits.model import Charge, Subject
from forestay.limits.plan import Plan


@dataclasses.dataclass(frozen=True, slots=True)
class Level:
    """What one check leaves now, in its own unit, and the seconds until there is more (0: all of it is there)."""

    left: float
    more_in_seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class Taken:
    """Every check granted it; `levels` are in the order of the plan's checks, as left and seconds in turn."""

    levels: Sequence[float]


@dataclasses.dataclass(frozen=True, slots=True)
class Short:
    """A check refused it and nothing was taken; `check` is the one that must be waited for longest."""

    check: int
    wait_seconds: float
    levels: Sequence[float]


@dataclasses.dataclass(frozen=True, slots=True)
class Unknown:
    """What the month has cost is not known here: `seed` the plan's budgets and ask again. Nothing was taken."""


Outcome = Taken | Short | Unknown


@dataclasses.dataclass(frozen=True, slots=True)
class Spending:
    """What a month has cost a subject, as the database has it, and the live requests whose prediction is held."""

    spent: Charge
    live: Mapping[str, Charge] = dataclasses.field(default_factory=dict[str, Charge])  # by holder, the request's id


@dataclasses.dataclass(frozen=True, slots=True)
class Held:
    """What a holder holds of one subject."""

    charge: Charge
    flights: int


Elsewhere = Mapping[Subject, int]
NOWHERE: Elsewhere = types.MappingProxyType({})


class Counters(Protocol):
    """Counters of limits. What is told, not asked, rides along with the next question; where it is lost, leases end."""

    async def take(
        self, plan: Plan, holder: str, charge: Charge, lease_seconds: float, elsewhere: Elsewhere = NOWHERE
    ) -> Outcome:
        """Check everything in the plan and take all of it or nothing; raises Unavailable.

        `elsewhere` says what else is in flight that nobody holds here: the queue's running requests.
        """
        ...

    async def view(self, plan: Plan) -> Outcome:
        """Tell the levels without taking anything; raises Unavailable."""
        ...

    def give_back(self, plan: Plan, holder: str, charge: Charge, *, whole: bool) -> None:
        """Undo a take: nothing ran. `whole` gives the request itself back to the rate, too."""
        ...

    def settle(self, plan: Plan, holder: str, predicted: Charge, actual: Charge, lease_seconds: float) -> None:
        """End a call in flight at what it took; a budget goes on holding that until it is `release`d."""
        ...

    def release(self, plan: Plan, holder: str, actual: Charge) -> None:
        """Let go of what was settled: the database's sum holds it now."""
        ...

    def confirm(self, plan: Plan, holder: str) -> None:
        """Let a holder stand without a lease: its request is committed, and will be finished by the settlement."""
        ...

    def keep(self, plan: Plan, subject: Subject, holder: str, held: Held, lease_seconds: float) -> None:
        """Renew a holder's lease; where it is not known (any more) it holds `held` from now on."""
        ...

    def finish(self, plan: Plan, holder: str, actual: Charge) -> None:
        """Drop a holder: the database's sum holds its request now. Doing it twice changes nothing."""
        ...

    def raise_spent(self, plan: Plan, subject: Subject, month: dt.date, spent: Charge) -> None:
        """Tell what the month has cost a subject by now; a smaller sum than known is an old one and changes nothing."""
        ...

    def seed(self, plan: Plan, subject: Subject, month: dt.date, spending: Spending) -> None:
        """Tell what the month has cost a subject of which nothing is known; otherwise changes nothing."""
        ...

    async def flush(self) -> None:
        """Wait until everything told so far has been carried out; raises Unavailable when it was not."""
        ...


class RemoteCounters(Counters, Protocol):
    """Counters that need a loop of their own and may be away."""

    async def run(self) -> None:
        """Carry out what is asked until cancelled."""
        ...


def read_levels(levels: Sequence[float]) -> list[Level]:
    """Return levels one by one."""
    return [Level(levels[n], levels[n + 1]) for n in range(0, len(levels), 2)]


def month_of(moment: dt.datetime) -> dt.date:
    """Return the first day of the calendar month (UTC) of a moment."""
    return moment.astimezone(dt.UTC).date().replace(day=1)


def month_left_seconds(moment: dt.datetime) -> float:
    """Return the seconds until the calendar month (UTC) ends."""
    first = month_of(moment)
    following = (first + dt.timedelta(days=32)).replace(day=1)
    end = dt.datetime(following.year, following.month, 1, tzinfo=dt.UTC)
    return (end - moment).total_seconds()
