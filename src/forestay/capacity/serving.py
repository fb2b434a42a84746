"""What serves a model: its slots now, and those that are about to be ready. Pure.

It decides which replicas count (ready ones of workers heard of lately), and when one that is loading, or not even
asked for yet, is expected. Called by the gateway's admission and the shedding loop.
"""

import datetime as dt

from forestay.capacity.admission import Slots
from forestay.fleet.model import Fleet, ReplicaReport, ReplicaState
from forestay.ids import ModelId, WorkerId

ALIVE_SECONDS = 10.0  # a worker silent for longer serves nothing
UNKNOWN_START_SECONDS = 30.0  # GenTD26 (Alibaba, 2026): a base model loads in 22.7 s, in 45 s at the 95th percentile
LEAST_START_SECONDS = 1.0  # a start that takes longer than expected is not over for that


def slots_of(fleet: Fleet, model_id: ModelId) -> Slots:
    """Return what serves a model; nothing when no worker of its pool could hold it."""
    entry = fleet.models.get(model_id)
    if entry is None:
        return Slots(0, 0.0)
    oldest = fleet.now - dt.timedelta(seconds=ALIVE_SECONDS)
    heard = {key for key, item in fleet.workers.items() if item.seen_at >= oldest and item.state != "stopped"}
    own = [item for item in fleet.replicas.values() if item.model_id == model_id and item.worker_id in heard]
    ready = [item for item in own if item.state is ReplicaState.READY]
    devices = max(1, entry.spec.resources.devices)
    expected = _start_seconds(fleet, model_id)
    coming = sorted(
        (max(LEAST_START_SECONDS, expected - (fleet.now - item.started_at).total_seconds()), _coming_rate(fleet, item))
        for item in own
        if item.state is ReplicaState.SETUP
    )
    if not ready and not coming and _fits_somewhere(fleet, model_id, heard):
        coming = [(expected, float(entry.spec.limits.max_multiplexing * devices))]
    return Slots(sum(item.slots for item in ready), sum(_rate(item) for item in ready), tuple(coming), devices)


def _rate(replica: ReplicaReport) -> float:
    return float(replica.slots * max(1, replica.devices))


def _coming_rate(fleet: Fleet, replica: ReplicaReport) -> float:
    """Return what a loading replica will deliver: it has no slots to report before it is open, so its spec tells."""
    revision = fleet.revisions.get(replica.revision_id)
    slots = replica.slots or (1 if revision is None else revision.spec.limits.max_multiplexing)
    return float(slots * max(1, replica.devices))


def _start_seconds(fleet: Fleet, model_id: ModelId) -> float:
    """Return how long the model's last start took, of those that are known."""
    known = [
        (item.ready_at, (item.ready_at - item.started_at).total_seconds())
        for item in fleet.replicas.values()
        if item.model_id == model_id and item.ready_at is not None
    ]
    return max(known)[1] if known else UNKNOWN_START_SECONDS


def _fits_somewhere(fleet: Fleet, model_id: ModelId, heard: set[WorkerId]) -> bool:
    wanted = fleet.models[model_id].spec.resources
    return any(
        worker.pool == wanted.pool and worker.devices >= wanted.devices and worker_id in heard
        for worker_id, worker in fleet.workers.items()
    )
