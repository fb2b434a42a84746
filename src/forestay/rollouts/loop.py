"""The loop that carries planned routes out: observe the fleet, decide, apply. Woken by the fleet, and every second.

It has no rules of its own (`rollouts/rolling` has). What it has to do stands in the fleet's state, so a crash between
two beats loses nothing and two loops at once change nothing twice. The controller runs it under a leader lease.
"""

from forestay.fleet.actions import Effect, Origin
from forestay.fleet.store import FleetStore
from forestay.rollouts.rolling import decide_settlements

ACTOR = "loop:rollout"


class RolloutLoop:
    """One controller's rollout loop. While nothing is planned it reads the fleet's version and no more."""

    def __init__(self, fleet_store: FleetStore) -> None:
        self._fleet_store = fleet_store
        self._nothing_planned_in: int | None = None

    async def run_once(self) -> int:
        """Switch or give up what is due; returns how many plans were settled."""
        if self._nothing_planned_in is not None and self._nothing_planned_in == await self._fleet_store.version():
            return 0
        fleet = await self._fleet_store.load()
        waiting = any(not plan.given_up for plan in fleet.pending.values())
        self._nothing_planned_in = None if waiting else fleet.version
        actions = decide_settlements(fleet)
        if not actions:
            return 0
        decided = await self._fleet_store.apply(actions, origin=Origin.ROLLOUT, actor=ACTOR)
        return sum(item.effect is Effect.APPLIED for item in decided)
