"""Usage of the direct lane: added up in the gateway, written in batches off the path, each batch exactly once.

A batch keeps its number until it is written: when an answer was lost it is sent again, and the store adds it once. A
gateway that is killed loses at most the last second, as it does of its facts; the predictions that those calls held
lapse. Decides nothing about limits. Called by the gate.
"""

import dataclasses
import datetime as dt
from collections.abc import Iterator, Sequence

from forestay.clock import Clock
from forestay.ids import TenantId
from forestay.limits.counters import month_of
from forestay.limits.failover import Switch
from forestay.limits.model import Charge, Spender
from forestay.limits.plan import Plan
from forestay.limits.settlement import tell_spent
from forestay.limits.store import LimitStore, UsageRow
from forestay.telemetry.metrics import USAGE_ROWS, Metrics

FLUSH_SECONDS = 1.0


@dataclasses.dataclass(slots=True)
class Settled:
    """What calls of one plan took, which its budgets hold until the database's sum holds it."""

    tenant_id: TenantId
    gpu_seconds: float = 0.0
    money: float = 0.0


@dataclasses.dataclass(slots=True)
class _Batch:
    """What is written together."""

    month: dt.date
    sums: dict[Spender, list[float]] = dataclasses.field(default_factory=dict[Spender, list[float]])
    settled: dict[Plan, Settled] = dataclasses.field(default_factory=dict[Plan, Settled])

    def rows(self) -> list[UsageRow]:
        """Return the rows to add."""
        return [
            UsageRow(self.month, spender.tenant_id, spender.key_id, spender.model_id, seconds, money, int(requests))
            for spender, (seconds, money, requests) in self.sums.items()
        ]


class DirectUsage:
    """What the direct lane of this gateway has used and not written yet."""

    def __init__(self, store: LimitStore, source: str, switch: Switch, clock: Clock, metrics: Metrics) -> None:
        self._store = store
        self._source = source
        self._switch = switch
        self._clock = clock
        self._metrics = metrics
        self._open = _Batch(month_of(clock.now()))
        self._sending: _Batch | None = None
        self._sequence = 0

    def add(self, spender: Spender, charge: Charge, plans: Sequence[Plan]) -> None:
        """Add one finished call; the budgets of its plans hold it already."""
        sums = self._open.sums.get(spender)
        if sums is None:
            sums = self._open.sums[spender] = [0.0, 0.0, 0]
        sums[0] += charge.gpu_seconds
        sums[1] += charge.money
        sums[2] += 1
        for plan in plans:
            if plan.budgets:
                settled = self._open.settled.get(plan)
                if settled is None:
                    settled = self._open.settled[plan] = Settled(spender.tenant_id)
                settled.gpu_seconds += charge.gpu_seconds
                settled.money += charge.money

    def settled(self) -> Iterator[tuple[Plan, Settled]]:
        """Return what budgets hold that the database's sums do not hold yet."""
        for batch in (self._open, self._sending):
            if batch is not None:
                yield from batch.settled.items()

    async def run(self) -> None:
        """Write for ever."""
        while True:
            await self._clock.sleep(FLUSH_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Write what is added up; what the database refuses is tried again as it was. Raises Unavailable."""
        if self._sending is None:
            if not self._open.sums:
                self._open.month = month_of(self._clock.now())
                return
            self._sending, self._open = self._open, _Batch(month_of(self._clock.now()))
            self._sequence += 1
        batch = self._sending
        await self._store.add_once(batch.rows(), source=self._source, sequence=self._sequence)
        owners = {
            (plan.slot, subject): (plan, item.tenant_id)
            for plan, item in batch.settled.items()
            for subject in plan.budgets
        }
        await tell_spent(self._store, self._switch.present, owners, batch.month)
        self._sending = None
        for plan, item in batch.settled.items():
            self._switch.present.release(plan, self._switch.holder, Charge(item.gpu_seconds, item.money))
        self._metrics.add(USAGE_ROWS, "direct", amount=sum(sums[2] for sums in batch.sums.values()))
