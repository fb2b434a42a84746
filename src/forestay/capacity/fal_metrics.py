"""The fleet under fal's public metric names, so that dashboards made for them go on working. Run by the controller.

It decides how our words map to theirs: an application is a model, a runner a replica, a machine type a pool. All are
gauges, as fal's are, and describe the moment or the last minute (contract, section 6.2).
"""

import dataclasses
from collections.abc import Mapping, Sequence

from forestay.fleet.model import Fleet, ReplicaState
from forestay.fleet.store import FleetStore
from forestay.ids import ModelId
from forestay.queue.store import QueueStore
from forestay.telemetry.last_minute import Ended, LastMinute
from forestay.telemetry.metrics import (
    FAL_COMPLETED,
    FAL_CONCURRENT,
    FAL_GPU_COUNT,
    FAL_LATENCY,
    FAL_QUEUE_SIZE,
    FAL_RECEIVED,
    FAL_RUNNERS,
    LONG_SECONDS,
    Metric,
    Metrics,
)

_METHOD = "POST"  # facts do not say how a call was made; models are called by POST
_STATES: Mapping[ReplicaState, str] = {
    ReplicaState.READY: "running",
    ReplicaState.DRAINING: "running",
    ReplicaState.STOPPED: "dead",
    ReplicaState.BACKOFF: "dead",
}
Gauges = Mapping[Metric, Mapping[tuple[str, ...], float]]


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """What the gauges are made from."""

    fleet: Fleet
    backlog: Mapping[ModelId, int]
    running: Mapping[ModelId, int]  # requests that workers hold
    received: Mapping[ModelId, int]
    ended: Sequence[Ended]


def gauges_of(seen: Seen) -> Gauges:
    """Return every gauge with its labels."""
    runners: dict[tuple[str, ...], float] = {}
    devices: dict[tuple[str, ...], float] = {}
    for replica in seen.fleet.replicas.values():
        worker = seen.fleet.workers.get(replica.worker_id)
        state = _STATES.get(replica.state, "pending")
        _add(runners, (replica.model_id, state, worker.pool if worker else ""), 1)
        _add(devices, (replica.model_id,), replica.devices)
    completed: dict[tuple[str, ...], float] = {}
    latency: dict[tuple[str, ...], float] = {}
    for ended in seen.ended:
        _add(completed, (ended.model_id, _METHOD, str(ended.status_code)), ended.requests)
        for bound in (*LONG_SECONDS, float("inf")):
            within = ended.requests if ended.seconds <= bound else 0
            _add(latency, (ended.model_id, "+Inf" if bound == float("inf") else f"{bound:g}"), within)
    models = seen.fleet.models
    return {
        FAL_RUNNERS: runners,
        FAL_GPU_COUNT: devices,
        FAL_QUEUE_SIZE: {(model,): seen.backlog.get(model, 0) for model in models},
        FAL_CONCURRENT: {(model,): seen.running.get(model, 0) for model in models},
        FAL_RECEIVED: {(model, _METHOD): count for model, count in seen.received.items()},
        FAL_COMPLETED: completed,
        FAL_LATENCY: latency,
    }


class FalMetrics:
    """Sets the gauges anew each time."""

    def __init__(self, fleet: FleetStore, queue: QueueStore, minute: LastMinute, metrics: Metrics) -> None:
        self._fleet = fleet
        self._queue = queue
        self._minute = minute
        self._metrics = metrics

    async def run_once(self) -> int:
        """Look, and set; returns how many gauges there are."""
        running: dict[ModelId, int] = {}
        for item in await self._queue.running():
            running[item.model_id] = running.get(item.model_id, 0) + item.requests
        seen = Seen(
            fleet=await self._fleet.load(),
            backlog=await self._queue.backlog(),
            running=running,
            received=await self._minute.received(),
            ended=await self._minute.ended(),
        )
        gauges = gauges_of(seen)
        for metric, values in gauges.items():
            self._metrics.replace(metric, values)
        return sum(len(values) for values in gauges.values())


def _add(values: dict[tuple[str, ...], float], labels: tuple[str, ...], amount: float) -> None:
    values[labels] = values.get(labels, 0.0) + amount
