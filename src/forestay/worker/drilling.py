"""Has the faults of game days in force in this worker's models, and takes them out again.

It decides nothing: `drills/model` does. It looks every second, obeys the last drills that it could read while the
database is away, and so ends each at its time all the same. Runs only where the operator allows drills. What the
models' processes say of their faults is kept for whoever lists the drills. Run by `worker/process`.
"""

from collections.abc import Callable, Sequence

from forestay.clock import Clock
from forestay.drills.model import IN_FORCE, Drill, Sighting, Spot, decide_faults
from forestay.drills.store import DrillStore
from forestay.errors import Unavailable
from forestay.fleet.model import ReplicaState
from forestay.ids import ReplicaId, WorkerId
from forestay.telemetry.logs import logger
from forestay.worker.hosts.host import TakesDrills
from forestay.worker.replica import Replica

LOOK_SECONDS = 1.0
ENDED = "ended"
NOT_HERE = "hosts of this kind take no drills"
log = logger("worker")


class Drilling:
    """The drills of one worker."""

    def __init__(
        self,
        worker_id: WorkerId,
        store: DrillStore | None,
        replicas: Callable[[], Sequence[Replica]],
        clock: Clock,
    ) -> None:
        """Without a store nothing is ever put in."""
        self._worker_id = worker_id
        self._store = store
        self._replicas = replicas
        self._clock = clock
        self._drills: Sequence[Drill] = ()
        self._ordered: dict[ReplicaId, tuple[Drill, ...]] = {}
        self._noted: dict[tuple[str, ReplicaId], str] = {}

    async def run(self) -> None:
        """Look for ever."""
        while self._store is not None:
            await self.look(self._store)
            await self._clock.sleep(LOOK_SECONDS)

    async def look(self, store: DrillStore) -> None:
        """Read the drills, order what has changed, keep what has become of it."""
        now = self._clock.now()
        try:
            self._drills = await store.standing(now)
        except Unavailable as error:
            log.warning("drills.unreadable", reason=str(error))
        seen: list[Sighting] = []
        for replica in self._replicas():
            if replica.state in {ReplicaState.READY, ReplicaState.DRAINING}:
                seen += self._order(replica)
        self._forget()
        fresh = [item for item in seen if self._noted.get((item.drill_id, item.replica_id)) != item.said]
        try:
            await store.note(fresh)
        except Unavailable as error:
            log.warning("drills.not_noted", reason=str(error))
            return
        self._noted |= {(item.drill_id, item.replica_id): item.said for item in fresh}

    def _order(self, replica: Replica) -> list[Sighting]:
        """Tell a replica which faults are to be in force; returns what has become of them."""
        now, replica_id = self._clock.now(), replica.replica_id
        spot = Spot(replica_id, self._worker_id, replica.revision.revision_id, replica.revision.model_id)
        wanted, before = decide_faults(self._drills, spot, now), self._ordered.get(replica_id, ())
        host = replica.host
        if not isinstance(host, TakesDrills):
            return [Sighting(drill.drill_id, replica_id, self._worker_id, NOT_HERE, now) for drill in wanted]
        if wanted != before:
            faults = [drill.fault for drill in wanted]
            host.drill(faults)
            self._ordered[replica_id] = wanted
            log.warning("drills.ordered", replica=replica_id, faults=faults)
        said = {name: words or IN_FORCE for name, words in host.drilled().items()}
        known = [(drill, said[drill.fault]) for drill in wanted if drill.fault in said]
        over = [(drill, ENDED) for drill in before if drill not in wanted]
        return [Sighting(drill.drill_id, replica_id, self._worker_id, words, now) for drill, words in (*known, *over)]

    def _forget(self) -> None:
        live = {replica.replica_id for replica in self._replicas()}
        self._ordered = {name: drills for name, drills in self._ordered.items() if name in live}
        standing = {drill.drill_id for drill in self._drills}
        self._noted = {key: said for key, said in self._noted.items() if key[1] in live and key[0] in standing}
