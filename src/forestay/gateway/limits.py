"""The gate of limits: reserve what a call is predicted to take, then settle what it took, or give it back.

Decides the order of the two plans of a call (its tenant's and key's first, then model's and fleet's; a refusal by the
second gives the first back), what a refusal says, and what becomes of a reservation however the call ends. Counting is
`limits/`; what a call will take is the caller's to say (a `Charge`). A caller whom no rule limits costs a look-up, and
in the direct lane one count in this process. Called by submit, the direct lane and realtime.
"""

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from forestay.errors import Unavailable
from forestay.fleet.spec import ModelSpec
from forestay.gateway.fleet_view import FleetView
from forestay.gateway.guards import Target
from forestay.gateway.limit_answers import refusal, success_headers
from forestay.gateway.ports import GatewayPorts
from forestay.gateway.responses import Header, Reply, too_many
from forestay.ids import TenantId
from forestay.limits.counters import Counters, Held, Outcome, Short, Spending, Taken, Unknown, month_of
from forestay.limits.failover import Switch
from forestay.limits.model import MONEY_HUNDREDTHS, NOTHING, Charge, LimitScope, Spender, Subject
from forestay.limits.plan import FLEET, SHARED_SLOT, Plan, slot_of_tenant
from forestay.limits.settlement import cost_of
from forestay.limits.store import Account
from forestay.limits.usage import DirectUsage, Settled
from forestay.limits.view import RulesView
from forestay.queue.model import Outcome as Ending
from forestay.queue.store import Running, Unfinished
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import GUARD_OPEN, LIMIT_SEEDS, LIMITED

QUEUE_LEASE_SECONDS = 60.0  # until a submit is confirmed: longer than its commit may take
DIRECT_LEASE_SECONDS = 30.0
SEED_SECONDS = 1.0  # longest wait for the database
SEED_PAUSE_SECONDS = 2.0
WATCH_SECONDS = 1.0
KEEP_SECONDS = 10.0  # how often calls in flight are kept from lapsing
_LOG = logger("gateway")


@dataclasses.dataclass(slots=True, eq=False)
class Reservation:
    """What one call holds, until it is settled or given back."""

    spender: Spender
    charge: Charge
    price: float  # hundredths of the currency unit for one device-second
    request_id: str = ""  # of a queued request, which holds for itself; a direct call's gateway holds for it
    taken: tuple[Plan, ...] = ()
    headers: tuple[Header, ...] = ()  # what a limited caller is told beside the answer
    counted_here: bool = False  # in flight, by the setting's own limit


class LimitGate:
    """Limits and budgets of one gateway."""

    def __init__(self, ports: GatewayPorts, fleet: FleetView, gateway_id: str) -> None:
        parts = ports.limits
        self._ports = ports
        self._fleet = fleet
        self._store = parts.store
        self.rules = RulesView(parts.store, ports.settings.limits, ports.clock, gateway_id)
        self._switch = Switch(parts.counters, gateway_id, self.rules.share, ports.clock, ports.metrics)
        self._switch.on_change = self._keep_all
        self.usage = DirectUsage(parts.store, gateway_id, self._switch, ports.clock, ports.metrics)
        self._in_flight: Counter[TenantId] = Counter()
        self._live: set[Reservation] = set()
        self._running: Mapping[tuple[str, Subject], int] = {}  # of the queue, by slot and subject; a second old
        self._seeding = asyncio.Lock()
        self._no_seed_until = 0.0
        self._last_told: tuple[Taken | None, tuple[Header, ...]] = (None, ())

    async def reserve(self, target: Target, predicted_seconds: float, *, direct: bool) -> Reservation | Reply:
        """Take what a call is predicted to take (device-seconds), or return the refusal; nothing is taken then."""
        spender = Spender(target.caller.tenant_id, target.caller.key_id, target.model.model_id)
        price = self.price_of(target.revision.spec)
        factor = self._ports.standings.factor(target.caller)
        plans = self.rules.book.plans(spender, direct=direct, factor=factor)
        charge = Charge(predicted_seconds, predicted_seconds * price) if plans else NOTHING
        made = Reservation(spender, charge, price, "" if direct else str(target.request_id))
        if direct and not any(plan.flights and plan.slot != SHARED_SLOT for plan in plans):
            limit = self._ports.settings.gateway.direct_limit
            if self._in_flight[spender.tenant_id] >= limit:
                return too_many(f"{limit} direct calls are in flight already; submit to the queue instead")
            made.counted_here = True
            self._in_flight[spender.tenant_id] += 1
        try:
            refused = await self._take_all(made, plans) if plans else None
        except BaseException:
            self.give_back(made, whole=True)
            raise
        if refused is not None:
            return refused
        if direct and any(plan.holds for plan in made.taken):
            self._live.add(made)
        return made

    def give_back(self, made: Reservation, *, whole: bool) -> None:
        """Nothing ran. `whole`: the request itself did not happen either (refused, a replay, not committed)."""
        self._leave(made)
        for plan in made.taken:
            if whole or plan.holds:
                self._switch.present.give_back(plan, self._holder(made), made.charge, whole=whole)

    def confirm(self, made: Reservation) -> None:
        """Its request is committed: the settlement of its fact ends the reservation."""
        for plan in made.taken:
            if plan.holds:
                self._switch.present.confirm(plan, self._holder(made))

    def end(self, made: Reservation, device_seconds: float | None, outcome: Ending) -> None:
        """End a direct call: at the device-seconds that it ran, or None when nothing ran."""
        if device_seconds is None:
            self.give_back(made, whole=False)
            return
        self._leave(made)
        actual = cost_of(device_seconds, outcome.value, made.price)
        for plan in made.taken:
            if plan.holds:
                self._switch.present.settle(plan, self._holder(made), made.charge, actual, DIRECT_LEASE_SECONDS)
        self.usage.add(made.spender, actual, made.taken)

    async def keep(self) -> None:
        """Keep what this gateway holds from lapsing, for ever."""
        while True:
            await self._ports.clock.sleep(KEEP_SECONDS)
            self._keep_all()

    def _keep_all(self) -> None:
        """Say what this gateway holds, a subject at a time: counters that have lost it learn it again."""
        present, holder = self._switch.present, self._switch.holder
        for (_, subject), (plan, held) in held_of(self._live, self.usage.settled()).items():
            present.keep(plan, subject, holder, held, DIRECT_LEASE_SECONDS)

    async def watch_queue(self) -> None:
        """Learn each second what the queue has in flight, while a rule counts it; raises Unavailable."""
        while True:
            if self.rules.book.counts_flights:
                self._running = running_of(await self._ports.queue.running())
            await self._ports.clock.sleep(WATCH_SECONDS)

    async def run_counters(self) -> None:
        """Run the counters for ever."""
        await self._switch.run()

    async def close(self) -> None:
        """Write what is not written yet and say that this gateway stops; raises Unavailable."""
        await self.usage.flush()
        await self.rules.leave()

    def price_of(self, spec: ModelSpec | None) -> float:
        """Return a model's price in hundredths: its own, or the setting's."""
        own = 0.0 if spec is None else spec.capacity.price_per_gpu_second
        return (own or self._ports.settings.limits.price_per_device_second) * MONEY_HUNDREDTHS

    def _holder(self, made: Reservation) -> str:
        return made.request_id or self._switch.holder

    def _leave(self, made: Reservation) -> None:
        self._live.discard(made)
        if made.counted_here:
            made.counted_here = False
            tenant_id = made.spender.tenant_id
            self._in_flight[tenant_id] -= 1
            if self._in_flight[tenant_id] <= 0:
                del self._in_flight[tenant_id]

    async def _take_all(self, made: Reservation, plans: Sequence[Plan]) -> Reply | None:
        for plan in plans:
            outcome = await self._take(made, plan)
            match outcome:
                case Taken():
                    made.taken = (*made.taken, plan)
                    if plan.slot != SHARED_SLOT:
                        made.headers = self._told(plan, outcome)
                case Short():
                    check = plan.checks[outcome.check]
                    self.give_back(made, whole=True)
                    self._ports.metrics.add(LIMITED, check.subject.scope.value, check.kind.value)
                    return refusal(plan, outcome, made.headers)
                case Unknown():
                    self._ports.metrics.add(GUARD_OPEN, "limits_budget")
        return None

    def _told(self, plan: Plan, outcome: Taken) -> tuple[Header, ...]:
        """Return what a granted caller is told; calls that were granted together are told the same."""
        if self._last_told[0] is not outcome:
            self._last_told = (outcome, success_headers(plan, outcome.levels))
        return self._last_told[1]

    async def _take(self, made: Reservation, plan: Plan) -> Outcome:
        """Take one plan; where the month's spending is not known, learn it first. Unknown when that failed."""
        lease = QUEUE_LEASE_SECONDS if made.request_id else DIRECT_LEASE_SECONDS
        elsewhere = {item: many for item in plan.flights if (many := self._running.get((plan.slot, item), 0))}
        outcome = await self._switch.take(plan, made.request_id, made.charge, lease, elsewhere)
        if not isinstance(outcome, Unknown):
            return outcome
        async with self._seeding:
            outcome = await self._switch.take(plan, made.request_id, made.charge, lease, elsewhere)
            if not isinstance(outcome, Unknown):
                return outcome  # another call has learnt it meanwhile
            await self._seed(plan, self._switch.present, made.spender)
            return await self._switch.take(plan, made.request_id, made.charge, lease, elsewhere)

    async def _seed(self, plan: Plan, counters: Counters, spender: Spender) -> None:
        """Tell the counters what the month has cost and what is live; after a silent database not again for a while."""
        clock = self._ports.clock
        if clock.monotonic() < self._no_seed_until:
            return
        month = month_of(clock.now())
        try:
            async with asyncio.timeout(SEED_SECONDS):
                accounts = [Account(subject, spender.tenant_id) for subject in plan.budgets]
                sums = await self._store.spent(accounts, month)
                live = [await self._live_of(subject, spender) for subject in plan.budgets]
        except (Unavailable, TimeoutError) as error:
            self._no_seed_until = clock.monotonic() + SEED_PAUSE_SECONDS
            self._ports.metrics.add(LIMIT_SEEDS, "unavailable")
            _LOG.warning("limits.spending_unknown", slot=plan.slot, reason=str(error), consequence="budgets stand open")
            return
        self._ports.metrics.add(LIMIT_SEEDS, "read")
        for subject, spent, held in zip(plan.budgets, sums, live, strict=True):
            counters.seed(plan, subject, month, Spending(spent.charge, held))

    async def _live_of(self, subject: Subject, spender: Spender) -> dict[str, Charge]:
        """Return what the queue's unfinished requests of a subject are predicted to take."""
        scope = subject.scope
        found = await self._ports.queue.unfinished(
            tenant_id=spender.tenant_id if scope in {LimitScope.TENANT, LimitScope.KEY} else None,
            key_id=spender.key_id if scope is LimitScope.KEY else None,
            model_id=spender.model_id if scope is LimitScope.MODEL else None,
        )
        return {str(item.request_id): self._charge_of(item) for item in found}

    def _charge_of(self, item: Unfinished) -> Charge:
        model = self._fleet.model(item.model_id)
        price = self.price_of(None if model is None else model.spec)
        return Charge(item.predicted_seconds, item.predicted_seconds * price)


def running_of(running: Iterable[Running]) -> dict[tuple[str, Subject], int]:
    """Add up what runs for each subject that a rule may be of, in the slot where it is counted."""
    sums: Counter[tuple[str, Subject]] = Counter()
    for item in running:
        slot = slot_of_tenant(item.tenant_id)
        sums[slot, Subject(LimitScope.KEY, item.key_id)] += item.requests
        sums[slot, Subject(LimitScope.TENANT, item.tenant_id)] += item.requests
        sums[SHARED_SLOT, Subject(LimitScope.MODEL, item.model_id)] += item.requests
        sums[SHARED_SLOT, FLEET] += item.requests
    return dict(sums)


def held_of(
    live: Iterable[Reservation], settled: Iterable[tuple[Plan, Settled]]
) -> dict[tuple[str, Subject], tuple[Plan, Held]]:
    """Add up what is held of each subject: predictions of calls in flight, and what is settled but not written yet."""
    sums: dict[tuple[str, Subject], tuple[Plan, Held]] = {}

    def add(plan: Plan, subject: Subject, charge: Charge, flights: int) -> None:
        known = sums.get((plan.slot, subject))
        before = Held(NOTHING, 0) if known is None else known[1]
        seconds, money = before.charge.gpu_seconds + charge.gpu_seconds, before.charge.money + charge.money
        sums[plan.slot, subject] = (plan, Held(Charge(seconds, money), before.flights + flights))

    for made in live:
        for plan in made.taken:
            for subject in plan.holds:
                add(plan, subject, made.charge, int(subject in plan.flights))
    for plan, item in settled:
        for subject in plan.budgets:
            add(plan, subject, Charge(item.gpu_seconds, item.money), 0)
    return sums
