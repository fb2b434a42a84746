"""Whether a request can start in time if it is queued now, and if not, when to come back. Pure.

It decides at submit, from a snapshot of the queue's pressure and of the slots that serve it; it reads neither. A
request without a deadline is always admitted: waiting is what it asked for. Called by the gateway
(`gateway/admission`) and the simulator.

The predicted start is that of fair turns (`queue/fairness`). X device-seconds of its own tenant go before the
request; its start tag is S = L + X/w, with L the lead of the tenant's virtual time over the pool's and w its weight.
Every other tenant g is served until its own tags pass S: that is (S - L(g)) w(g), and half of the request that
straddles S, but no more than it has waiting now and goes on adding, B(g) + a(g) T. A request met at a given moment is
a large one more often than not: its mean size is C = sum(c^2) / sum(c) (the inspection paradox of renewal theory). So
the slots, which deliver `rate` device-seconds a second, get to it after

    rate T = held + X + sum over g of min((S - L(g)) w(g) + C/2, B(g) + a(g) T) - (slots - 1) C/2

since the other slots are half done when one comes free. It is solved for T by lowering it from the time in which
everybody takes the whole share. Here a(g) is what g has been adding of late (`capacity/inflow`) or what the slots
that it holds deliver, whichever is more.

To start in time T and a margin must lie before the deadline. Predictions err, independently, by `error` of their
size: the work W of others makes the start uncertain by `error sqrt(W C)` over the rate. The tenant's own work counts
for more: whatever it takes beyond its prediction is charged to the tenant, and lets everybody who shares with it go
first, so it is multiplied by all their weights over its own. Where each straddling request and each other slot stands
is uniform, with the variance C^2 / 12. 2.33 standard deviations are left free, which one in a hundred exceeds.

Among one tenant's requests the earliest deadline goes first, so X is its work due before this request; and one that
would push its tenant's later deadlines past theirs is refused as well (the processor-demand test of Baruah, Rosier
and Howell, 1990, at the ends of the groups that the snapshot knows). A `low` request waits for every normal one, or
for the starvation bound, whichever is shorter.

To end in time a quick run must fit behind such a start: a prediction that may be far too high is no reason to refuse
what an idle slot could try, and the deadline itself ends it.

The retry time is how long the work ahead takes to shrink to what would let such a request in, if nothing else were
admitted: no longer than until all of it is done, since an idle slot takes such a request at once.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from forestay.ids import ModelId, TenantId
from forestay.queue.pressure import Due, Pressure

RISK = 2.33  # standard deviations: one admitted request in a hundred may start late
MOST_RETRY_SECONDS = 3600
NEVER = math.inf
_LEAST_LEFT = 0.1  # of a held request's prediction: one that is overdue is not finished for that
_ROUNDS = 20
_MOST_SPREAD = 2.0


@dataclasses.dataclass(frozen=True, slots=True)
class Slots:
    """What serves a model: device-seconds per second, now and once starting replicas are ready."""

    count: int  # ready slots
    rate: float  # device-seconds per second that they deliver together
    coming: tuple[tuple[float, float], ...] = ()  # (in so many seconds, further rate), soonest first
    devices: int = 1  # of one replica, at least 1

    def time_for(self, work: float) -> float:
        """Return the seconds until so many device-seconds are delivered; NEVER when nothing delivers."""
        if self.final_rate <= 0.0:
            return NEVER
        rate, done_at = self.rate, 0.0
        for in_seconds, more in self.coming:
            delivered = rate * (in_seconds - done_at)
            if rate > 0.0 and work <= delivered:
                break
            work -= delivered
            rate, done_at = rate + more, in_seconds
        if work <= 0.0:
            return done_at
        return done_at + work / rate

    @property
    def final_rate(self) -> float:
        """Return the rate once every replica is ready."""
        return self.rate + sum(more for _, more in self.coming)


@dataclasses.dataclass(frozen=True, slots=True)
class Ask:
    """One request that asks to be queued. Seconds throughout, deadlines from now."""

    model_id: ModelId
    tenant_id: TenantId
    predicted_seconds: float
    low_seconds: float  # lower end of the prediction's interval
    start_within: float | None
    end_within: float | None = None
    low: bool = False
    weight: float = 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class Rules:
    """What the decision depends on beside the moment."""

    starvation_bound_seconds: float = 60.0
    spread: float = 0.5  # standard deviation of the logarithm of a prediction's error
    risk: float = RISK


@dataclasses.dataclass(frozen=True, slots=True)
class Admit:
    """Queue it; it will start in about so many seconds."""

    start_seconds: float
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Refuse:
    """It could not start (or end) in time."""

    retry_after_seconds: int
    start_seconds: float  # when it would start
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Snapshot:
    """The queue of one model at a moment, of every tenant."""

    pressure: Sequence[Pressure]
    leads: Mapping[TenantId, float] = dataclasses.field(default_factory=dict[TenantId, float])
    """Virtual time over the pool's, device-seconds per weight; of those who do not wait never below 0; absent: 0."""
    arriving: Mapping[TenantId, float] = dataclasses.field(default_factory=dict[TenantId, float])
    """Device-seconds a second that tenants have been adding of late."""


def decide_admission(ask: Ask, snapshot: Snapshot, slots: Slots, rules: Rules | None = None) -> Admit | Refuse:
    """Decide about one request from a snapshot of its model's queue."""
    rules = rules or Rules()
    if ask.start_within is None and ask.end_within is None:
        return Admit(NEVER, "it has no deadline")
    queue = _Queue(ask, snapshot, slots, rules)
    start, margin = queue.start()
    if ask.start_within is not None and start + margin > ask.start_within:
        return _refusal(ask, start, start + margin - ask.start_within, "to start", ask.start_within, queue)
    if ask.end_within is not None:
        ends = start + margin + ask.low_seconds / slots.devices
        if ends > ask.end_within:
            return _refusal(ask, start, ends - ask.end_within, "to end", ask.end_within, queue)
    pushed = queue.pushed_back()
    if pushed is not None:
        late, limit = pushed
        reason = f"{ask.model_id}: it would push requests of the same tenant past their start limits"
        return Refuse(_retry(min(late, queue.all_done())), start, f"{reason}, due in {limit:.3g} s")
    return Admit(start, f"it starts in about {start:.3g} s")


def _refusal(ask: Ask, start: float, late: float, what: str, limit: float, queue: "_Queue") -> Refuse:
    if start == NEVER:
        return Refuse(MOST_RETRY_SECONDS, start, f"{ask.model_id}: nothing serves it and nothing is starting")
    ahead = f"{queue.ahead:.3g} device-seconds are ahead of it at {queue.rate:.3g} a second"
    reason = f"{ask.model_id}: {ahead}; it would start in about {start:.3g} s and has {limit:.3g} s {what}"
    if ask.end_within is None or ask.low_seconds / queue.devices <= ask.end_within:  # an idle slot would take it
        late = min(late, queue.all_done())
    return Refuse(_retry(late), start, reason)


def _retry(late: float) -> int:
    return max(1, min(MOST_RETRY_SECONDS, math.ceil(late)))


class _Queue:
    """One look at the queue from where one request stands."""

    def __init__(self, ask: Ask, snapshot: Snapshot, slots: Slots, rules: Rules) -> None:
        pressure = snapshot.pressure
        self._leads = snapshot.leads
        self._ask = ask
        self._slots = slots
        self._rules = rules
        self.rate = slots.final_rate
        self.devices = slots.devices
        self.ahead = 0.0
        normal = [item for item in pressure if not item.low]
        self._own = next((item for item in normal if item.tenant_id == ask.tenant_id), None)
        others = {item.tenant_id: item for item in normal if item.tenant_id != ask.tenant_id}
        for tenant_id in snapshot.arriving:
            if tenant_id != ask.tenant_id and tenant_id not in others:
                others[tenant_id] = Pressure(ask.model_id, tenant_id, low=False)
        self._others = list(others.values())
        self._adding = {
            item.tenant_id: max(item.held * slots.devices, snapshot.arriving.get(item.tenant_id, 0.0))
            for item in self._others
        }
        self._low = [item for item in pressure if item.low]
        self._held_count = sum(item.held for item in pressure)
        self._own_held = sum(_left(item, slots.devices) for item in pressure if item.tenant_id == ask.tenant_id)
        self._held = sum(_left(item, slots.devices) for item in pressure)
        self._idle = self._held_count < slots.count and not any(item.waiting for item in normal)
        work = sum(item.waiting_seconds + item.held_seconds for item in pressure)
        self._waiting = sum(item.waiting_seconds for item in pressure)
        self._grain = sum(item.squares for item in pressure) / work if work > 0.0 else ask.predicted_seconds

    def start(self) -> tuple[float, float]:
        """Return in how many seconds the request starts, and the margin for the errors of predictions."""
        if not self._ask.low:
            return self._turn(self._due_before(self._own))
        own = next((item for item in self._low if item.tenant_id == self._ask.tenant_id), None)
        behind_all = self._behind_normal(self._due_before(own))
        start, margin = self._turn(self._due_before(self._own) + self._due_before(own))
        past_bound = max(start, self._rules.starvation_bound_seconds), margin
        return min(behind_all, past_bound)

    def all_done(self) -> float:
        """Return in how many seconds everything that is held or waits is done, if nothing else comes."""
        return self._slots.time_for(self._held + self._waiting)

    def pushed_back(self) -> tuple[float, float] | None:
        """Return by how much, and of which limit, a later deadline of the same tenant would be missed, if any."""
        if self._own is None or self._ask.start_within is None or self._ask.low:
            return None
        ahead = self._ask.predicted_seconds
        for due in self._own.due:
            whole = ahead + due.seconds
            if due.latest > self._ask.start_within:
                for limit, work in ((due.earliest, ahead), (due.latest, whole)):
                    if limit <= self._ask.start_within:
                        continue
                    start, margin = self._turn(work)
                    before, _ = self._turn(work - self._ask.predicted_seconds)
                    if before <= limit < start + margin:  # one that is lost anyhow is no reason
                        return start + margin - limit, limit
            ahead = whole
        return None

    def _due_before(self, own: Pressure | None) -> float:
        """Return the tenant's work that goes before a request with this deadline."""
        if own is None:
            return 0.0
        if self._ask.start_within is None:
            return own.waiting_seconds
        return sum(due.seconds for due in own.due if due.earliest <= self._ask.start_within)

    def _turn(self, own: float) -> tuple[float, float]:
        """Solve for the time at which this tenant's next request after `own` device-seconds starts."""
        if self._idle and own <= 0.0:
            return 0.0, 0.0
        tag = self._leads.get(self._ask.tenant_id, 0.0) + own / self._ask.weight
        share = {item.tenant_id: self._share(item, tag) for item in self._others}
        work = own + sum(share.values())
        reach = self._start_after(work)
        for _ in range(_ROUNDS):
            if reach == NEVER:
                break
            work = own + sum(
                min(share[item.tenant_id], item.waiting_seconds + self._adding[item.tenant_id] * reach)
                for item in self._others
            )
            lowered = self._start_after(work)
            if lowered >= reach * 0.999:
                break
            reach = lowered
        contending = [
            item.weight
            for item in self._others
            if 0.0 < share[item.tenant_id] <= item.waiting_seconds + self._adding[item.tenant_id] * reach
        ]
        return self._with_margin(reach, work, own, contending)

    def _share(self, other: Pressure, tag: float) -> float:
        """Return the most that another tenant is given before a request with this start tag."""
        behind = tag - self._leads.get(other.tenant_id, 0.0)
        return behind * other.weight + self._grain / 2.0 if behind >= 0.0 else 0.0

    def _behind_normal(self, own: float) -> tuple[float, float]:
        """Return when a request that yields starts if normal ones go on taking the slots that they hold."""
        normal = [item for item in (self._own, *self._others) if item is not None]
        if self._idle and own <= 0.0:
            return 0.0, 0.0
        free = self._slots.count - sum(item.held for item in normal)
        if free <= 0 or any(item.waiting for item in normal):
            return NEVER, 0.0
        others = sum(
            min(own * item.weight / self._ask.weight, item.waiting_seconds)
            for item in self._low
            if item.tenant_id != self._ask.tenant_id
        )
        return self._with_margin(self._start_after(own + others) * self._slots.count / free, own + others, own, ())

    def _start_after(self, work: float) -> float:
        """Return when a slot is free once so much has been started: the other slots are half done by then."""
        half_done = max(self._slots.count - 1, 0) * self._grain / 2.0
        return self._slots.time_for(max(self._held + work - half_done, 0.0))

    def _with_margin(self, start: float, work: float, own: float, contending: Sequence[float]) -> tuple[float, float]:
        self.ahead = self._held + work
        if start == NEVER:
            return NEVER, 0.0
        mine = min(own + self._own_held, self.ahead)
        contention = 1.0 + sum(contending) / self._ask.weight
        uncertain = self.ahead - mine + mine * contention**2
        unknown = len(contending) + max(self._slots.count - 1, 0)
        error = relative_error(self._rules.spread)
        variance = error**2 * uncertain * self._grain + unknown * self._grain**2 / 12.0
        return start, self._rules.risk * math.sqrt(variance) / self.rate


def relative_error(spread: float) -> float:
    """Return the standard deviation of a prediction's relative error from that of its logarithm (log-normal)."""
    return math.sqrt(math.expm1(min(spread, _MOST_SPREAD) ** 2))


def _left(item: Pressure, devices: int) -> float:
    """Return what the held requests of one tenant still take."""
    elapsed = item.held_elapsed_seconds * devices
    return max(item.held_seconds - elapsed, _LEAST_LEFT * item.held_seconds)


def with_admitted(pressure: Sequence[Pressure], admitted: Sequence[Ask]) -> list[Pressure]:
    """Add what was admitted since the snapshot to it, as if it waited."""
    found: dict[tuple[TenantId, bool], Pressure] = {(item.tenant_id, item.low): item for item in pressure}
    for ask in admitted:
        key = ask.tenant_id, ask.low
        before = found.get(key) or Pressure(ask.model_id, ask.tenant_id, ask.low, ask.weight)
        due = before.due
        if ask.start_within is not None:
            one = Due(ask.start_within, ask.start_within, ask.predicted_seconds)
            due = tuple(sorted((*due, one), key=lambda item: item.earliest))
        found[key] = dataclasses.replace(
            before,
            waiting=before.waiting + 1,
            waiting_seconds=before.waiting_seconds + ask.predicted_seconds,
            squares=before.squares + ask.predicted_seconds**2,
            due=due,
        )
    return list(found.values())


def by_model(pressure: Sequence[Pressure]) -> Mapping[ModelId, list[Pressure]]:
    """Sort a snapshot by model."""
    found: dict[ModelId, list[Pressure]] = {}
    for item in pressure:
        found.setdefault(item.model_id, []).append(item)
    return found
