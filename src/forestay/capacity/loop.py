"""The placement loop: observe the fleet and the queue, decide, apply. Woken by demand, and every second besides.

It has no rules of its own (`capacity/placement` has), and running it twice changes nothing. The controller runs it
under a leader lease.
"""

import dataclasses
import datetime as dt
from collections.abc import Awaitable, Callable

from forestay.capacity.placement import Rules, Spot, Waiting, decide_dead, decide_placement
from forestay.fleet.actions import Effect, Origin
from forestay.fleet.model import Fleet, ReplicaState
from forestay.fleet.store import FleetStore
from forestay.ids import ModelId
from forestay.queue.store import QueueStore

ACTOR = "loop:capacity"
Held = Callable[[], Awaitable[frozenset[Spot]]]


class PlacementLoop:
    """One controller's placement loop. It remembers when models were last served; losing that costs a turn at most."""

    def __init__(
        self, fleet_store: FleetStore, queue: QueueStore, rules: Rules | None = None, held: Held | None = None
    ) -> None:
        """`held` tells which revisions may not be placed on which workers."""
        self._fleet_store = fleet_store
        self._queue = queue
        self._rules = rules or Rules()
        self._held = held
        self._served: dict[ModelId, dt.datetime] = {}

    async def run_once(self) -> int:
        """Forget dead workers and place what is wanted; returns how many changes were applied."""
        fleet = await self._fleet_store.load()
        dead = decide_dead(fleet, fleet.now, self._rules)
        for worker_id in dead:
            await self._fleet_store.retire_worker(worker_id)
        if dead:
            fleet = await self._fleet_store.load()
        rules = self._rules if self._held is None else dataclasses.replace(self._rules, held=await self._held())
        actions = decide_placement(fleet, await self._observe(fleet), fleet.now, rules)
        if not actions:
            return len(dead)
        decided = await self._fleet_store.apply(actions, origin=Origin.CAPACITY, actor=ACTOR)
        return len(dead) + sum(item.effect is Effect.APPLIED for item in decided)

    async def _observe(self, fleet: Fleet) -> dict[ModelId, Waiting]:
        for replica in fleet.replicas.values():
            if replica.state is ReplicaState.READY:
                self._served[replica.model_id] = fleet.now
        self._served = {key: moment for key, moment in self._served.items() if key in fleet.models}
        counts = {model_id: count for model_id, count in (await self._queue.backlog()).items() if count > 0}
        if not counts:
            return {}
        ahead = await self._queue.queued_ahead(list(counts), 1)
        return {
            model_id: Waiting(counts[model_id], min(moments), self._served.get(model_id))
            for model_id, moments in ahead.items()
            if moments
        }
