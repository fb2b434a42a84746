"""Counters inside this process: where there is no Valkey, and while the one there is does not answer.

The same operations as `lua/counters.lua`, in plain values. `share` (0..1] is the part of every limit that this process
may grant: with n gateways 1/n, so that together they grant no more than the limit. It decides nothing of its own.
"""

import dataclasses
import datetime as dt
from collections.abc import Callable

from forestay.clock import Clock
from forestay.limits import gcra
from forestay.limits.counters import (
    NOWHERE,
    Elsewhere,
    Held,
    Outcome,
    Short,
    Spending,
    Taken,
    Unknown,
    month_left_seconds,
    month_of,
)
from forestay.limits.gcra import MICROSECONDS, Bucket
from forestay.limits.model import NOTHING, Charge, LimitKind, Subject
from forestay.limits.plan import Check, Plan

FLIGHT_WAIT_SECONDS = 1.0
TIDY_SECONDS = 10.0
ENDED_SECONDS = 300.0
NEARLY = 1e-9


@dataclasses.dataclass(slots=True)
class _Pot:
    """What one holder holds of a subject."""

    gpu_seconds: float = 0.0
    money: float = 0.0
    flights: int = 0


@dataclasses.dataclass(slots=True)
class _Book:
    """What is held of a subject, by holder, and when those lapse that nobody has confirmed."""

    pots: dict[str, _Pot] = dataclasses.field(default_factory=dict[str, _Pot])
    lapse: dict[str, float] = dataclasses.field(default_factory=dict[str, float])  # monotonic seconds
    sums: _Pot = dataclasses.field(default_factory=_Pot)

    def add(self, holder: str, gpu_seconds: float, money: float, flights: int) -> float:
        """Add to a holder, never below nothing; returns by how much its device-seconds changed."""
        before = self.pots.get(holder) or _Pot()
        after = _Pot(
            max(0.0, before.gpu_seconds + gpu_seconds),
            max(0.0, before.money + money),
            max(0, before.flights + flights),
        )
        self._replace(holder, before, after)
        return after.gpu_seconds - before.gpu_seconds

    def drop(self, holder: str) -> _Pot | None:
        """Forget a holder and return what it held."""
        before = self.pots.get(holder)
        self._replace(holder, before or _Pot(), _Pot())
        return before

    def _replace(self, holder: str, before: _Pot, after: _Pot) -> None:
        self.pots[holder] = after
        if after.gpu_seconds < NEARLY and after.money < NEARLY and not after.flights:
            del self.pots[holder]
            self.lapse.pop(holder, None)
        if not self.pots:
            self.sums = _Pot()  # also ends what rounding has left over
            return
        self.sums.gpu_seconds += after.gpu_seconds - before.gpu_seconds
        self.sums.money += after.money - before.money
        self.sums.flights += after.flights - before.flights

    def lease(self, holder: str, until: float) -> None:
        """Let a holder lapse at `until`; those that lapse first stand first, as nearly as leases are alike."""
        self.lapse.pop(holder, None)
        self.lapse[holder] = until

    def sweep(self, now: float) -> None:
        """Drop what has lapsed."""
        while self.lapse:
            holder, until = next(iter(self.lapse.items()))
            if until > now:
                return
            self.drop(holder)


class LocalCounters:
    """Counters for one process."""

    def __init__(self, clock: Clock, share: Callable[[], float] = lambda: 1.0) -> None:
        self._clock = clock
        self._share = share
        self._tats: dict[tuple[str, Subject, LimitKind], float] = {}
        self._books: dict[tuple[str, Subject], _Book] = {}
        self._spent: dict[tuple[str, Subject, dt.date], Charge] = {}
        self._ended: dict[str, float] = {}
        self._tidied_at = 0.0

    async def take(
        self, plan: Plan, holder: str, charge: Charge, lease_seconds: float, elsewhere: Elsewhere = NOWHERE
    ) -> Outcome:
        """Check everything in the plan and take all of it or nothing."""
        return self.take_now(plan, holder, charge, lease_seconds, elsewhere)

    def take_now(
        self, plan: Plan, holder: str, charge: Charge, lease_seconds: float, elsewhere: Elsewhere = NOWHERE
    ) -> Outcome:
        """Take without waiting for anybody."""
        self._sweep(plan)
        if not self._knows_spending(plan):
            return Unknown()
        waits = [self._wait_of(plan, check, charge, elsewhere) for check in plan.checks]
        longest = max(waits)
        if longest > 0:
            return Short(waits.index(longest), longest, self._levels(plan, elsewhere))
        for check in plan.checks:
            if check.bucket is not None:
                tat = max(self._tat(plan, check), self._now())
                self._move(plan, check, tat + _cost(check, charge) * self._bucket(check).interval)
        until = self._clock.monotonic() + lease_seconds
        for subject in plan.holds:
            book = self._book(plan, subject)
            book.add(holder, charge.gpu_seconds, charge.money, int(subject in plan.flights))
            book.lease(holder, until)
        return Taken(self._levels(plan, elsewhere))

    async def view(self, plan: Plan) -> Outcome:
        """Tell the levels."""
        self._sweep(plan)
        return Taken(self._levels(plan)) if self._knows_spending(plan) else Unknown()

    def give_back(self, plan: Plan, holder: str, charge: Charge, *, whole: bool) -> None:
        """Undo a take."""
        for subject in plan.holds:
            flights = int(subject in plan.flights)
            gone = self._book(plan, subject).add(holder, -charge.gpu_seconds, -charge.money, -flights)
            self._correct_minute(plan, subject, gone)
        for check in plan.checks:
            if whole and check.kind is LimitKind.REQUESTS_PER_SECOND:
                self._move(plan, check, gcra.give_back(self._bucket(check), self._tat(plan, check), self._now(), 1.0))

    def settle(self, plan: Plan, holder: str, predicted: Charge, actual: Charge, lease_seconds: float) -> None:
        """End a call in flight at what it took."""
        for subject in plan.holds:
            book, kept = self._book(plan, subject), actual if subject in plan.budgets else NOTHING
            if holder in book.pots:
                seconds, money = kept.gpu_seconds - predicted.gpu_seconds, kept.money - predicted.money
                book.add(holder, seconds, money, -int(subject in plan.flights))
            else:  # it has lapsed
                book.lease(holder, self._clock.monotonic() + lease_seconds)
                book.add(holder, kept.gpu_seconds, kept.money, 0)
            self._correct_minute(plan, subject, actual.gpu_seconds - predicted.gpu_seconds)

    def release(self, plan: Plan, holder: str, actual: Charge) -> None:
        """Let go of what was settled."""
        for subject in plan.budgets:
            self._book(plan, subject).add(holder, -actual.gpu_seconds, -actual.money, 0)

    def confirm(self, plan: Plan, holder: str) -> None:
        """Let a holder stand without a lease."""
        for subject in plan.holds:
            self._book(plan, subject).lapse.pop(holder, None)

    def keep(self, plan: Plan, subject: Subject, holder: str, held: Held, lease_seconds: float) -> None:
        """Renew a holder's lease."""
        book = self._book(plan, subject)
        if holder not in book.pots:
            book.add(holder, held.charge.gpu_seconds, held.charge.money, held.flights)
        book.lease(holder, self._clock.monotonic() + lease_seconds)

    def finish(self, plan: Plan, holder: str, actual: Charge) -> None:
        """Drop a holder."""
        for subject in plan.holds:
            pot = self._book(plan, subject).drop(holder)
            if pot is not None:
                self._correct_minute(plan, subject, actual.gpu_seconds - pot.gpu_seconds)
            else:
                self._ended[holder] = self._clock.monotonic()

    def raise_spent(self, plan: Plan, subject: Subject, month: dt.date, spent: Charge) -> None:
        """Tell what the month has cost a subject by now."""
        known = self._spent.get((plan.slot, subject, month))
        if known is not None:
            higher = Charge(max(known.gpu_seconds, spent.gpu_seconds), max(known.money, spent.money))
            self._spent[plan.slot, subject, month] = higher

    def seed(self, plan: Plan, subject: Subject, month: dt.date, spending: Spending) -> None:
        """Tell what the month has cost a subject of which nothing is known."""
        if (plan.slot, subject, month) in self._spent:
            return
        self._spent[plan.slot, subject, month] = spending.spent
        book = self._book(plan, subject)
        for holder, held in spending.live.items():
            if holder not in self._ended and holder not in book.pots:
                book.add(holder, held.gpu_seconds, held.money, 0)

    async def flush(self) -> None:
        """Everything told is carried out already."""

    def forget(self) -> None:
        """Begin anew: whoever counted meanwhile knows better."""
        for kept in (self._tats, self._books, self._spent, self._ended):
            kept.clear()

    def _wait_of(self, plan: Plan, check: Check, charge: Charge, elsewhere: Elsewhere) -> float:
        """Return the seconds until this check would grant the call; 0 when it does."""
        if check.bucket is not None:
            bucket = self._bucket(check)
            verdict = gcra.decide(bucket, self._tat(plan, check), self._now(), _cost(check, charge))
            return verdict.wait / MICROSECONDS
        if check.kind is LimitKind.IN_FLIGHT:
            return 0.0 if self._flights_left(plan, check, elsewhere) >= 1 else FLIGHT_WAIT_SECONDS
        over = self._used(plan, check) + _part(check, charge) - self._budget(plan, check)
        return month_left_seconds(self._clock.now()) if over > check.rule.amount * 1e-12 else 0.0

    def _levels(self, plan: Plan, elsewhere: Elsewhere = NOWHERE) -> list[float]:
        found: list[float] = []
        for check in plan.checks:
            if check.bucket is not None:
                verdict = gcra.decide(self._bucket(check), self._tat(plan, check), self._now(), 0.0)
                found += [verdict.left, verdict.next_unit / MICROSECONDS]
            elif check.kind is LimitKind.IN_FLIGHT:
                found += [self._flights_left(plan, check, elsewhere), 0.0]
            else:
                left = max(0.0, self._budget(plan, check) - self._used(plan, check))
                found += [left, month_left_seconds(self._clock.now())]
        return found

    def _flights_left(self, plan: Plan, check: Check, elsewhere: Elsewhere) -> float:
        free = check.rule.amount - elsewhere.get(check.subject, 0)
        allowed = max(1.0, free * self._share() // 1) if free > 0 else 0.0
        return max(0.0, allowed - self._book(plan, check.subject).sums.flights)

    def _budget(self, plan: Plan, check: Check) -> float:
        """Return what this process may spend this month: its share of what was left when it began to count."""
        spent = self._spent[plan.slot, check.subject, month_of(self._clock.now())]
        before = _part(check, spent)
        return before + (check.rule.amount - before) * self._share()

    def _used(self, plan: Plan, check: Check) -> float:
        spent = self._spent[plan.slot, check.subject, month_of(self._clock.now())]
        held = self._book(plan, check.subject).sums
        return _part(check, spent) + _part(check, Charge(held.gpu_seconds, held.money))

    def _knows_spending(self, plan: Plan) -> bool:
        month = month_of(self._clock.now())
        return all((plan.slot, subject, month) in self._spent for subject in plan.budgets)

    def _correct_minute(self, plan: Plan, subject: Subject, more: float) -> None:
        for check in plan.checks:
            if check.subject == subject and check.kind is LimitKind.GPU_SECONDS_PER_MINUTE:
                tat = self._tat(plan, check)
                self._move(plan, check, gcra.give_back(self._bucket(check), tat, self._now(), -more))

    def _sweep(self, plan: Plan) -> None:
        """Drop what has lapsed of the plan's subjects, and now and then what says nothing any more."""
        now = self._clock.monotonic()
        for subject in plan.holds:
            self._book(plan, subject).sweep(now)
        if now - self._tidied_at > TIDY_SECONDS:
            self._tidied_at = now
            self._tidy(now)

    def _tidy(self, now: float) -> None:
        self._ended = {item: at for item, at in self._ended.items() if now - at < ENDED_SECONDS}
        self._tats = {key: tat for key, tat in self._tats.items() if tat > now * MICROSECONDS}
        self._books = {key: book for key, book in self._books.items() if book.pots}

    def _now(self) -> float:
        return self._clock.monotonic() * MICROSECONDS

    def _bucket(self, check: Check) -> Bucket:
        assert check.bucket is not None  # noqa: S101 - for the type checker: callers have looked
        return gcra.shared(check.bucket, self._share())

    def _tat(self, plan: Plan, check: Check) -> float:
        return self._tats.get((plan.slot, check.subject, check.kind), self._now())

    def _move(self, plan: Plan, check: Check, tat: float) -> None:
        self._tats[plan.slot, check.subject, check.kind] = tat

    def _book(self, plan: Plan, subject: Subject) -> _Book:
        return self._books.setdefault((plan.slot, subject), _Book())


def _cost(check: Check, charge: Charge) -> float:
    return 1.0 if check.kind is LimitKind.REQUESTS_PER_SECOND else charge.gpu_seconds


def _part(check: Check, charge: Charge) -> float:
    return charge.money if check.kind is LimitKind.MONEY_PER_MONTH else charge.gpu_seconds
