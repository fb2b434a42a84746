"""Settlement: what each finished request has cost, counted once, and the prediction that it held given up.

Two steps that meet in stored state. `Settlement.settle` runs in the transaction that takes a batch of facts out of the
outbox, so usage is added exactly once or not at all. It also notes which requests the counters may still hold;
`Closer.run_once` tells them, with the month's sums, and forgets the note: doing that twice changes nothing. Called by
the controller's loops `facts` and `limits`. What money is owed for is decided here, purely: `usage_of`.
"""

import asyncio
import dataclasses
import datetime as dt
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from forestay.clock import Clock
from forestay.fleet.store import FleetStore
from forestay.ids import KeyId, ModelId, TenantId
from forestay.limits.counters import Counters, RemoteCounters, month_of
from forestay.limits.model import MONEY_HUNDREDTHS, Charge, Spender, Subject
from forestay.limits.plan import Plan, Rulebook
from forestay.limits.postgres_store import add_usage, close_later
from forestay.limits.store import Account, Closing, LimitStore, UsageRow
from forestay.limits.view import default_rules, with_defaults
from forestay.settings import Limits
from forestay.storage.postgres import Connection
from forestay.telemetry.facts import Fact
from forestay.telemetry.metrics import USAGE_ROWS, Metrics

BATCH = 1_000
# Outcomes (queue/model.py) that a caller does not pay for: the platform or the model failed it. The device-seconds are
# counted all the same, since they were used.
REFUNDED = frozenset(
    {
        *("model_error", "model_crash", "model_timeout", "broken_output", "memory", "startup"),
        *("worker_lost", "upstream", "platform"),
    }
)
Prices = Callable[[ModelId], float]  # hundredths of the currency unit for one device-second


class Ground:
    """What settlement looks up, at most one run old: the rules, and the models' prices."""

    def __init__(self, store: LimitStore, fleet: FleetStore, settings: Limits) -> None:
        self._store = store
        self._fleet = fleet
        self._defaults = default_rules(settings)
        self._usual = settings.price_per_device_second * MONEY_HUNDREDTHS
        self._prices: Mapping[ModelId, float] = {}
        self._fleet_version = -1
        self.book = Rulebook(self._defaults)

    def price(self, model_id: ModelId) -> float:
        """Return a model's price in hundredths."""
        return self._prices.get(model_id, self._usual)

    async def refresh(self) -> None:
        """Read the rules, and the prices when the fleet changed; raises Unavailable."""
        _, stored = await self._store.rules()
        rules = with_defaults(stored, self._defaults)
        if tuple(rules) != self.book.rules:
            self.book = Rulebook(rules)
        if await self._fleet.version() != self._fleet_version:
            fleet = await self._fleet.load()
            self._fleet_version = fleet.version
            named = {item.model_id: item.spec.capacity.price_per_gpu_second for item in fleet.models.values()}
            self._prices = {name: price * MONEY_HUNDREDTHS for name, price in named.items() if price}


def cost_of(device_seconds: float, outcome: str, price: float) -> Charge:
    """Return what a request that ran for `device_seconds` costs, at `price` hundredths each."""
    return Charge(device_seconds, 0.0 if outcome in REFUNDED else device_seconds * price)


@dataclasses.dataclass(frozen=True, slots=True)
class Settled:
    """One finished request with its cost."""

    request_id: uuid.UUID
    spender: Spender
    month: dt.date
    charge: Charge


def settled_of(fact: Fact, prices: Prices) -> Settled:
    """Read a request's fact as the outbox keeps it."""
    spender = Spender(TenantId(str(fact["tenant_id"])), KeyId(str(fact["key_id"])), ModelId(str(fact["model_id"])))
    seconds = float(str(fact["device_seconds"] or 0.0))
    charge = cost_of(seconds, str(fact["outcome"]), prices(spender.model_id))
    finished_at = dt.datetime.fromisoformat(str(fact["finished_at"]))
    return Settled(uuid.UUID(str(fact["request_id"])), spender, month_of(finished_at), charge)


def usage_of(settled: Iterable[Settled]) -> list[UsageRow]:
    """Add up what was settled, a row a month, tenant, key and model."""
    sums: dict[tuple[dt.date, Spender], tuple[float, float, int]] = defaultdict(lambda: (0.0, 0.0, 0))
    for item in settled:
        seconds, money, requests = sums[item.month, item.spender]
        sums[item.month, item.spender] = (seconds + item.charge.gpu_seconds, money + item.charge.money, requests + 1)
    return [
        UsageRow(month, spender.tenant_id, spender.key_id, spender.model_id, *values)
        for (month, spender), values in sums.items()
    ]


def closings_of(settled: Iterable[Settled], book: Rulebook) -> list[Closing]:
    """Return the requests whose prediction a rule has made the counters hold."""
    return [
        Closing(item.request_id, item.spender, item.charge.gpu_seconds)
        for item in settled
        if any(plan.holds for plan in book.plans(item.spender, direct=False))
    ]


class Settlement:
    """Adds the usage of facts as they leave the outbox."""

    def __init__(self, ground: Ground, metrics: Metrics) -> None:
        self._ground = ground
        self._metrics = metrics

    async def settle(self, connection: Connection, requests: Sequence[Fact], _attempts: Sequence[Fact]) -> None:
        """Add the usage of these requests in the caller's transaction."""
        settled = [settled_of(fact, self._ground.price) for fact in requests]
        await add_usage(connection, usage_of(settled))
        await close_later(connection, closings_of(settled, self._ground.book))
        self._metrics.add(USAGE_ROWS, "queue", amount=len(settled))


class Closer:
    """Tells the counters what was settled."""

    def __init__(self, store: LimitStore, counters: RemoteCounters, ground: Ground, clock: Clock) -> None:
        self._store = store
        self._counters = counters
        self._ground = ground
        self._clock = clock

    async def run_once(self) -> int:
        """Tell of one batch; raises Unavailable, and tells it again the next time."""
        await self._ground.refresh()
        closings = await self._store.closings(BATCH)
        if closings:
            async with asyncio.TaskGroup() as group:
                carrying = group.create_task(self._counters.run())
                await self._tell(closings)
                carrying.cancel()
        return len(closings)

    async def _tell(self, closings: Sequence[Closing]) -> None:
        book, month = self._ground.book, month_of(self._clock.now())
        owners: dict[tuple[str, Subject], tuple[Plan, TenantId]] = {}
        for item in closings:
            for plan in book.plans(item.spender, direct=False):
                self._counters.finish(plan, str(item.request_id), Charge(item.gpu_seconds))
                owners.update({(plan.slot, subject): (plan, item.spender.tenant_id) for subject in plan.budgets})
        await tell_spent(self._store, self._counters, owners, month)
        await self._counters.flush()
        await self._store.closed([item.position for item in closings])


async def tell_spent(
    store: LimitStore,
    counters: Counters,
    owners: Mapping[tuple[str, Subject], tuple[Plan, TenantId]],
    month: dt.date,
) -> None:
    """Tell the counters what the month has cost each of these subjects."""
    if not owners:
        return
    accounts = [Account(subject, tenant_id) for (_, subject), (_, tenant_id) in owners.items()]
    sums = await store.spent(accounts, month)
    for ((_, subject), (plan, _)), spent in zip(owners.items(), sums, strict=True):
        counters.raise_spent(plan, subject, month, spent.charge)
