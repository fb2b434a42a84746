"""The shedding loop: observe queue and fleet, decide what cannot be served in time any more, end it with the reason.

It has no rules of its own (`capacity/shedding` has). It looks only where requests with deadlines wait, and does
nothing while the fleet is frozen. What it ends, ends as its deadline would have ended it, only earlier: 504 where the
request itself is late, 503 where a more important one needs its place. The controller runs it under a leader lease.
"""

from collections.abc import Sequence

from forestay.capacity.admission import Rules, by_model
from forestay.capacity.serving import slots_of
from forestay.capacity.shedding import Shed, decide_shed
from forestay.fleet.model import Fleet
from forestay.fleet.store import FleetStore
from forestay.ids import ModelId, TenantId
from forestay.queue import answers
from forestay.queue.fairness import Service
from forestay.queue.model import ErrorType, Outcome, State
from forestay.queue.pressure import EarlyEnd, Pressure, Turn
from forestay.queue.store import QueueStore
from forestay.storage.valkey import Wakeups
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import SHED, Metrics

LOOKED_AT = 2_000  # waiting requests of one model, the most urgent
_log = logger("capacity")


class SheddingLoop:
    """One controller's shedding loop."""

    def __init__(
        self, queue: QueueStore, fleet: FleetStore, wakeups: Wakeups, metrics: Metrics, rules: Rules | None = None
    ) -> None:
        self._queue = queue
        self._fleet = fleet
        self._wakeups = wakeups
        self._metrics = metrics
        self._rules = rules or Rules()

    async def run_once(self) -> int:
        """End what cannot be served in time any more; returns how many requests."""
        if not await self._queue.deadlines_wait():
            return 0  # the look below goes through the whole queue
        pressing = {
            model_id: own
            for model_id, own in by_model(await self._queue.pressure()).items()
            if any(item.due for item in own)
        }
        if not pressing or (await self._fleet.brakes()).frozen:
            return 0
        fleet, turns = await self._fleet.load(), await self._queue.turns()
        return sum([await self._shed(model_id, own, fleet, turns) for model_id, own in pressing.items()])

    async def _shed(
        self,
        model_id: ModelId,
        pressure: Sequence[Pressure],
        fleet: Fleet,
        turns: dict[tuple[str, TenantId], Turn],
    ) -> int:
        entry = fleet.models.get(model_id)
        if entry is None:
            return 0
        pool = entry.spec.resources.pool
        service = [
            Service(tenant_id, turn.lead, turn.weight, active=True)
            for (name, tenant_id), turn in turns.items()
            if name == pool
        ]
        queued = await self._queue.queued(model_id, LOOKED_AT)
        found = decide_shed(queued, pressure, slots_of(fleet, model_id), (service, 0.0), (fleet.now, self._rules))
        if not found:
            return 0
        ended = set(await self._queue.end_early([early_end(item) for item in found]))
        for item in found:
            if item.request_id in ended:
                self._metrics.add(SHED, "for_others" if item.for_others else "late")
                _log.info("request.shed", request=str(item.request_id), model=model_id, reason=item.reason)
        if ended:
            await self._wakeups.publish("forestay:changed", " ".join(request_id.hex for request_id in ended))
            await self._wakeups.publish("forestay:webhooks", "")
        return len(ended)


def early_end(item: Shed) -> EarlyEnd:
    """Return how one request ends: as its own deadline would end it, or for another's sake."""
    if item.for_others:
        answer = answers.request_error(
            ErrorType.RUNNER_SCHEDULING_FAILURE,
            "The request has low priority and gave its place to one that would have started too late; submit it again.",
        )
        return EarlyEnd(item.request_id, item.attempt, State.FAILED, Outcome.PLATFORM, answer)
    answer = answers.expired_in_total() if item.in_total else answers.expired_before_start()
    return EarlyEnd(item.request_id, item.attempt, State.EXPIRED, Outcome.EXPIRED, answer)
