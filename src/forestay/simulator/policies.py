"""The policies that benches put side by side: the platform's own decisions, and plain first come, first served.

`FairPolicy` asks the very functions that gateway, claim and controller ask, as they ask them: a prediction at submit,
an admission from a snapshot a quarter of a second old (and what was admitted since), turns at each claim, settlement
and learning from facts a few seconds late, shedding once a second. `FifoPolicy` is the contrast. They hold state, and
no I/O.
"""

import bisect
import dataclasses
import datetime as dt
from collections import deque
from collections.abc import Iterable, Sequence

from forestay.capacity.admission import Ask, Refuse, Rules, Slots, Snapshot, decide_admission, with_admitted
from forestay.capacity.inflow import Inflow
from forestay.capacity.predict import CostModel
from forestay.capacity.regress import Observation, learn
from forestay.capacity.shedding import decide_shed
from forestay.ids import ModelId, TenantId
from forestay.queue.fairness import Service, Waiting, decide_turns, settle
from forestay.queue.pressure import HORIZONS_SECONDS, Due, Pressure, Queued
from forestay.simulator.world import Story, moment

MODEL = ModelId("simulated/model")
SNAPSHOT_SECONDS = 0.25
SETTLED_SECONDS = 1.5  # from the end of a request until its account is corrected
LEARNED_SECONDS = 7.0  # ... and until it has taught the predictor
PATIENCE_SECONDS = 3600.0
STARVATION_BOUND_SECONDS = 60.0


@dataclasses.dataclass(frozen=True, slots=True)
class Switches:
    """Which of the platform's decisions are made."""

    admission: bool = True
    shedding: bool = True


class FairPolicy:
    """The platform's decisions."""

    def __init__(self, model: CostModel, slots: int, switches: Switches | None = None) -> None:
        self._model = model
        self._predictor = model.predictor
        self._slots = Slots(slots, float(slots))
        self._switches = switches or Switches()
        self._queues: dict[tuple[TenantId, bool], list[tuple[dt.datetime, int, Story]]] = {}
        self._held: dict[int, Story] = {}
        self._service: dict[TenantId, Service] = {}
        self._pool_time = 0.0
        self._unsettled: deque[tuple[float, Story]] = deque()
        self._unlearned: deque[tuple[float, Story]] = deque()
        self._snapshot: tuple[float, list[Pressure]] = (-1.0, [])
        self._since: list[Ask] = []
        self._inflow = Inflow()

    def submit(self, story: Story, now: float) -> bool:
        """Predict, admit or refuse, queue."""
        arrival = story.arrival
        predicted = self._predictor.predict(arrival.features)
        story.predicted_seconds = predicted.seconds
        self._inflow.add(MODEL, story.tenant_id, predicted.seconds, now)
        if self._switches.admission and arrival.start_within is not None:
            ask = Ask(MODEL, story.tenant_id, predicted.seconds, predicted.low, arrival.start_within, None, arrival.low)
            rules = Rules(STARVATION_BOUND_SECONDS, self._predictor.spread)
            snapshot = Snapshot(
                with_admitted(self._pressure(now), self._since), self._leads(), self._inflow.rates(MODEL, now)
            )
            decided = decide_admission(ask, snapshot, self._slots, rules)
            story.start_expected = now + decided.start_seconds
            if isinstance(decided, Refuse):
                story.refused, story.retry_after_seconds = decided.reason, decided.retry_after_seconds
                return False
            self._since.append(ask)
        due = story.start_limit
        due_at = moment(now + PATIENCE_SECONDS + self._bound(story) if due is None else due)
        bisect.insort(
            self._queues.setdefault((story.tenant_id, arrival.low), []), (due_at, story.request_id.int, story)
        )
        return True

    def claim(self, now: float) -> Story | None:
        """Take turns; what is past its deadline is not looked at, as in the claim statement."""
        at = moment(now)
        heads = [self._waiting(story) for queue in self._queues.values() if (story := self._head(queue, now))]
        turns = decide_turns(heads, self._service.values(), self._pool_time, 1, at)
        if not turns.picks:
            return None
        [pick] = turns.picks
        waits_on = {tenant for (tenant, low), queue in self._queues.items() if not low and len(queue) > 1}
        for tenant_id, service in turns.service.items():
            active = service.active or tenant_id in waits_on
            self._service[tenant_id] = dataclasses.replace(service, active=active)
        self._pool_time = turns.pool_time
        return self._take(pick.request_id.int)

    def ended(self, story: Story, now: float) -> None:
        """Its fact is on its way."""
        del self._held[story.request_id.int]
        self._unsettled.append((now + SETTLED_SECONDS, story))
        self._unlearned.append((now + LEARNED_SECONDS, story))

    def tick(self, slots: int, now: float) -> None:
        """Learn what has arrived, correct accounts, give up what cannot start in time any more."""
        self._slots = Slots(slots, float(slots))
        for story in _ripe(self._unsettled, now):
            account = self._service[story.tenant_id]
            self._service[story.tenant_id] = settle(account, story.predicted_seconds, story.arrival.device_seconds)
        told = [Observation(item.arrival.features, item.arrival.device_seconds) for item in _ripe(self._unlearned, now)]
        if told:
            self._model = learn(self._model, told)
            self._predictor = self._model.predictor
        for (tenant_id, low), queue in self._queues.items():
            if not queue and not low and tenant_id in self._service:
                self._service[tenant_id] = dataclasses.replace(self._service[tenant_id], active=False)
        if self._switches.shedding:
            self._shed(now)

    def _shed(self, now: float) -> None:
        if not any(queue and queue[0][2].start_limit is not None for queue in self._queues.values()):
            return  # the loop looks only where deadlines wait; the earliest of a queue stands first
        stories = {story.request_id: story for queue in self._queues.values() for _, _, story in queue}
        queued = [
            Queued(self._waiting(story), None if (due := story.start_limit) is None else moment(due), None, 0)
            for story in stories.values()
        ]
        rules = Rules(STARVATION_BOUND_SECONDS, self._predictor.spread)
        turns = (tuple(self._service.values()), self._pool_time)
        for item in decide_shed(queued, self._now_pressing(now), self._slots, turns, (moment(now), rules)):
            self._take(item.request_id.int, held=False).shed = item.reason

    def _waiting(self, story: Story) -> Waiting:
        order_at = moment(story.arrival.at + self._bound(story))
        due = story.start_limit
        due_at = order_at + dt.timedelta(seconds=PATIENCE_SECONDS) if due is None else moment(due)
        low = story.arrival.low
        return Waiting(story.request_id, story.tenant_id, story.predicted_seconds, due_at, order_at, low)

    @staticmethod
    def _bound(story: Story) -> float:
        return STARVATION_BOUND_SECONDS if story.arrival.low else 0.0

    @staticmethod
    def _head(queue: list[tuple[dt.datetime, int, Story]], now: float) -> Story | None:
        """Return the first that may still start; those past their deadline have been ended by then."""
        while queue and (limit := queue[0][2].start_limit) is not None and limit <= now:
            queue.pop(0)
        return queue[0][2] if queue else None

    def _take(self, number: int, *, held: bool = True) -> Story:
        for queue in self._queues.values():
            for index, (_, other, story) in enumerate(queue):
                if other == number:
                    del queue[index]
                    if held:
                        self._held[number] = story
                    return story
        raise LookupError(number)

    def _leads(self) -> dict[TenantId, float]:
        return {
            tenant_id: item.virtual_time - self._pool_time
            if item.active
            else max(item.virtual_time - self._pool_time, 0)
            for tenant_id, item in self._service.items()
        }

    def _pressure(self, now: float) -> Sequence[Pressure]:
        taken_at, snapshot = self._snapshot
        if now - taken_at >= SNAPSHOT_SECONDS or taken_at < 0:
            snapshot = self._now_pressing(now)
            self._snapshot, self._since = (now, snapshot), []
        return snapshot

    def _now_pressing(self, now: float) -> list[Pressure]:
        """Add up as the queue's statement does."""
        found: dict[tuple[TenantId, bool], Pressure] = {}
        for (tenant_id, low), queue in self._queues.items():
            for yields, stories in _classes(queue, now, low=low):
                before = found.get((tenant_id, yields)) or Pressure(MODEL, tenant_id, yields)
                found[tenant_id, yields] = _with_waiting(before, stories, now)
        for story in self._held.values():
            key = story.tenant_id, False
            one = found.get(key) or Pressure(MODEL, *key)
            found[key] = dataclasses.replace(
                one,
                held=one.held + 1,
                held_seconds=one.held_seconds + story.predicted_seconds,
                held_elapsed_seconds=one.held_elapsed_seconds + now - (story.started or 0.0),
                squares=one.squares + story.predicted_seconds**2,
            )
        return list(found.values())


def _ripe(facts: deque[tuple[float, Story]], now: float) -> list[Story]:
    found: list[Story] = []
    while facts and facts[0][0] <= now:
        found.append(facts.popleft()[1])
    return found


def _classes(
    queue: Iterable[tuple[dt.datetime, int, Story]], now: float, *, low: bool
) -> list[tuple[bool, list[Story]]]:
    """Part requests into those that yield and those that do not, without the ones past their deadline."""
    stories = [story for _, _, story in queue if (limit := story.start_limit) is None or limit > now]
    yielding = [story for story in stories if low and story.arrival.at + STARVATION_BOUND_SECONDS > now]
    return [(True, yielding), (False, [story for story in stories if story not in yielding] if low else stories)]


def _with_waiting(before: Pressure, stories: Sequence[Story], now: float) -> Pressure:
    groups: dict[int, list[tuple[float, float]]] = {}
    for story in stories:
        if story.start_limit is not None:
            left = story.start_limit - now
            horizon = bisect.bisect_right(HORIZONS_SECONDS, left)
            groups.setdefault(horizon, []).append((left, story.predicted_seconds))
    due = tuple(
        Due(min(left for left, _ in group), max(left for left, _ in group), sum(cost for _, cost in group))
        for _, group in sorted(groups.items())
    )
    costs = [story.predicted_seconds for story in stories]
    return dataclasses.replace(
        before,
        waiting=before.waiting + len(costs),
        waiting_seconds=before.waiting_seconds + sum(costs),
        due=(*before.due, *due),
        squares=before.squares + sum(cost * cost for cost in costs),
    )


class FifoPolicy:
    """First come, first served, nobody turned away; `drops_late` gives up what is past its limit at its turn."""

    def __init__(self, *, drops_late: bool = False) -> None:
        self._queue: deque[Story] = deque()
        self._drops_late = drops_late

    def submit(self, story: Story, now: float) -> bool:
        """Queue it."""
        del now
        self._queue.append(story)
        return True

    def claim(self, now: float) -> Story | None:
        """Take the oldest."""
        while self._queue:
            story = self._queue.popleft()
            if not (self._drops_late and story.start_limit is not None and story.start_limit <= now):
                return story
        return None

    def ended(self, story: Story, now: float) -> None:
        """Nothing is learned."""

    def tick(self, slots: int, now: float) -> None:
        """Nothing is looked at."""
