"""Which queued requests to give up now, because they cannot start in time any more. Pure.

It decides once what was admitted can no longer be kept: replicas were lost, or requests took longer than predicted.
Ending such a request early tells its caller now what would be true later, and a request that could start but not end
in time would take capacity for nothing. Called by the shedding loop and the simulator.

Requests are laid out in the order of turns (`queue/fairness`) over the slots. One is late when even a favourable
course comes after its limit: every other slot has just begun something when its own comes free, and the work ahead
takes 2.33 standard deviations less than predicted (as in `capacity/admission`). Until then it may wait, which costs
nothing: none starts after its limit. Least important first: before a late normal request is given up, low ones with a
limit that would go before it are, those with the latest limit and then the largest cost first, if that lets it start
in time (after Moore, "An n Job, One Machine Sequencing Algorithm for Minimizing the Number of Late Jobs", 1968, who
drops the longest job so far). What has no limit is never given up.
"""

import dataclasses
import datetime as dt
import math
from collections.abc import Sequence

from forestay.capacity.admission import NEVER, Rules, Slots, relative_error
from forestay.ids import RequestId, TenantId
from forestay.queue.fairness import Service, decide_turns
from forestay.queue.pressure import Pressure, Queued

_MOST_LOOKS = 8  # what moves after so many is found by the next run


@dataclasses.dataclass(frozen=True, slots=True)
class Shed:
    """One request to end now."""

    request_id: RequestId
    attempt: int
    for_others: bool  # it could have started; what is more important needs its place
    in_total: bool  # it could start, but not end in time
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class _Kept:
    item: Queued
    cost: float


def decide_shed(
    queued: Sequence[Queued],
    pressure: Sequence[Pressure],
    slots: Slots,
    turns: tuple[Sequence[Service], float],
    moment: tuple[dt.datetime, Rules],
) -> list[Shed]:
    """Name what to give up, least important first.

    `pressure` is that of the model, `turns` the accounts and the virtual time of its pool, `moment` time and rules.
    """
    now, rules = moment
    by_id = {item.waiting.request_id: item for item in queued}
    left, found = dict(by_id), list[Shed]()
    for _ in range(_MOST_LOOKS):  # whoever is given up keeps no turn, so the turns of the others move
        plan = _Plan(pressure, slots, rules)
        for pick in decide_turns([item.waiting for item in left.values()], *turns, len(left), now).picks:
            plan.add(left[pick.request_id], now)
        if not plan.shed:
            break
        found += plan.shed
        for shed in plan.shed:
            del left[shed.request_id]
    return sorted(found, key=lambda shed: _importance(by_id[shed.request_id]), reverse=True)


class _Plan:
    """The queue in the order of turns, as far as it is laid out."""

    def __init__(self, pressure: Sequence[Pressure], slots: Slots, rules: Rules) -> None:
        self._slots = slots
        self._held = sum(max(one.held_seconds - one.held_elapsed_seconds * slots.devices, 0.0) for one in pressure)
        work = sum(one.waiting_seconds + one.held_seconds for one in pressure)
        self._grain = sum(one.squares for one in pressure) / work if work > 0.0 else 0.0
        self._weights = {one.tenant_id: one.weight for one in pressure if one.waiting and not one.low}
        self._risk = rules.risk * relative_error(rules.spread)
        self._kept: list[_Kept] = []
        self._work = 0.0
        self._own: dict[TenantId, float] = {one.tenant_id: one.held_seconds for one in pressure}
        self.shed: list[Shed] = []

    def add(self, item: Queued, now: dt.datetime) -> None:
        """Lay out the next request, or give up it or less important ones before it."""
        cost = item.waiting.predicted_seconds
        limit, in_total = _limit(item, now, cost / self._slots.devices)
        start = self._earliest(item, self._work)
        if start <= limit:
            self._keep(_Kept(item, cost))
            return
        making_room = [] if item.waiting.low else self._room(item, limit)
        for kept in making_room:
            self._kept.remove(kept)
            self._work -= kept.cost
            reason = f"low priority, and a normal request needs its place to start within {limit:.3g} s"
            self.shed.append(_shed(kept.item, reason, for_others=True))
        if making_room:
            self._keep(_Kept(item, cost))
            return
        what = "end" if in_total else "start"
        shown = "never" if start == NEVER else f"in {start:.3g} s at the earliest"
        reason = f"it cannot {what} in time any more: it would start {shown}, and had to within {max(limit, 0.0):.3g} s"
        self.shed.append(_shed(item, reason, in_total=in_total))

    def _keep(self, kept: _Kept) -> None:
        self._kept.append(kept)
        self._work += kept.cost
        tenant_id = kept.item.waiting.tenant_id
        self._own[tenant_id] = self._own.get(tenant_id, 0.0) + kept.cost

    def _room(self, item: Queued, limit: float) -> list[_Kept]:
        """Return the low requests that must go for a start within `limit`; none when that does not suffice."""
        low = [one for one in self._kept if one.item.waiting.low and one.item.start_deadline is not None]
        chosen: list[_Kept] = []
        work = self._work
        for one in sorted(low, key=lambda one: _importance(one.item), reverse=True):
            chosen.append(one)
            work -= one.cost
            if self._earliest(item, work) <= limit:
                return chosen
        return []

    def _earliest(self, item: Queued, work: float) -> float:
        """Return when a request starts behind so much work if all goes well: other slots have just begun by then."""
        begun = max(self._slots.count - 1, 0) * self._grain
        start = self._slots.time_for(max(self._held + work - begun, 0.0))
        if start == NEVER:
            return NEVER
        tenant_id = item.waiting.tenant_id
        own = min(self._own.get(tenant_id, 0.0), self._held + work)
        contention = sum(self._weights.values()) / self._weights.get(tenant_id, 1.0)
        uncertain = self._held + work - own + own * max(contention, 1.0) ** 2
        return max(0.0, start - self._risk * math.sqrt(uncertain * self._grain) / self._slots.final_rate)


def _limit(item: Queued, now: dt.datetime, seconds: float) -> tuple[float, bool]:
    """Return within how many seconds it must start, and whether its end is what asks for that."""
    start = math.inf if item.start_deadline is None else (item.start_deadline - now).total_seconds()
    end = math.inf if item.total_deadline is None else (item.total_deadline - now).total_seconds() - seconds
    return (end, True) if end < start else (start, False)


def _importance(item: Queued) -> tuple[bool, float, float]:
    """Order by what is given up last to first: low, then the latest limit, then the largest cost."""
    limit = item.start_deadline or item.total_deadline
    return item.waiting.low, math.inf if limit is None else limit.timestamp(), item.waiting.predicted_seconds


def _shed(item: Queued, reason: str, *, for_others: bool = False, in_total: bool = False) -> Shed:
    return Shed(item.waiting.request_id, item.attempt, for_others, in_total, reason)
