"""Which workers are lost and which pools are bare, from one reading of the fleet after another. No I/O.

The fleet forgets a silent worker soon; whoever is told of it needs longer. So what was seen is remembered here: a
worker that was silent when it vanished is lost, one that was heard until then has left in good order. Memory is this
process's: after a restart a lost worker is forgotten, a bare pool is seen anew.
"""

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence

from forestay.alerts.catalogue import PLATFORM
from forestay.alerts.model import Condition, Severity
from forestay.fleet.model import Fleet, WorkerReport
from forestay.ids import WorkerId

REMEMBERED = dt.timedelta(hours=1)  # a lost worker that does not come back is then taken for removed


@dataclasses.dataclass(frozen=True, slots=True)
class WorkerView:
    """What stands of workers: those lost, pools that models need and that have none, and pools that have some."""

    lost: tuple[WorkerReport, ...]
    bare: Mapping[str, dt.datetime]  # pool -> since when
    live: frozenset[str]


class WorkerWatch:
    """Remembers workers and bare pools between readings."""

    def __init__(self, silent_seconds: float) -> None:
        self._silent = dt.timedelta(seconds=silent_seconds)
        self._known: dict[WorkerId, tuple[WorkerReport, dt.timedelta]] = {}  # with its silence when last read
        self._bare: dict[str, dt.datetime] = {}

    def look(self, fleet: Fleet) -> WorkerView:
        """Take one reading in and return how workers stand."""
        for worker in fleet.workers.values():
            self._known[worker.worker_id] = (worker, fleet.now - worker.seen_at)
        for worker_id, (worker, silence) in list(self._known.items()):
            left = worker_id not in fleet.workers and silence < self._silent / 2
            if left or worker.state == "stopped" or fleet.now - worker.seen_at > REMEMBERED:
                del self._known[worker_id]
        workers = [worker for worker, _ in self._known.values()]
        lost = [worker for worker in workers if fleet.now - worker.seen_at > self._silent]
        live = frozenset(worker.pool for worker in workers if worker not in lost)
        self._bare = {pool: self._bare.get(pool, fleet.now) for pool in sorted(needed_pools(fleet) - live)}
        bare = {pool: since for pool, since in self._bare.items() if fleet.now - since >= self._silent}
        return WorkerView(tuple(sorted(lost, key=lambda worker: worker.worker_id)), bare, live)


def needed_pools(fleet: Fleet) -> set[str]:
    """Return the pools that revisions with traffic live in."""
    revisions = {route.revision_id for route in fleet.routes}
    return {fleet.revisions[item].spec.resources.pool for item in revisions if item in fleet.revisions}


def conditions_of(view: WorkerView, now: dt.datetime) -> list[Condition]:
    """Return what holds; where nothing is left, that alone is said."""
    if view.bare and not view.live:
        return [_lost_fleet(view, now)]
    pools = [_lost_pool(pool, since) for pool, since in view.bare.items()]
    return [*pools, *(_lost_worker(worker, now) for worker in view.lost)]


def _lost_fleet(view: WorkerView, now: dt.datetime) -> Condition:
    lost: Sequence[WorkerReport] = view.lost
    return Condition(
        source=PLATFORM,
        subject="platform",
        name="fleet_lost",
        severity=Severity.PAGE,
        since=min(view.bare.values(), default=now),
        summary="no worker is left: no request of any caller is worked on",
        labels={"wide": "platform"},
        facts={"workers_lost": len(lost), "pools": len(view.bare)},
    )


def _lost_pool(pool: str, since: dt.datetime) -> Condition:
    return Condition(
        source=PLATFORM,
        subject=f"pool:{pool}",
        name="pool_lost",
        severity=Severity.PAGE,
        since=since,
        summary=f"no worker of pool {pool} is left: models that live there answer nobody",
        labels={"pool": pool},
    )


def _lost_worker(worker: WorkerReport, now: dt.datetime) -> Condition:
    silent = (now - worker.seen_at).total_seconds()
    return Condition(
        source=PLATFORM,
        subject=f"worker:{worker.worker_id}",
        name="worker_lost",
        severity=Severity.TICKET,
        since=worker.seen_at,
        summary=f"worker {worker.worker_id} of pool {worker.pool} has been silent for {silent:.0f} s",
        labels={"pool": worker.pool},
        facts={"devices": worker.devices},
    )
