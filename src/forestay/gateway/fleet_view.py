"""The fleet as a gateway sees it: models, routes and live replicas, from memory, at most a second old.

Read whole whenever the fleet's version moves, when `forestay:fleet` says so, and every few seconds anyway, so that a
worker which fell silent is seen. A wake-up that is lost costs half a second: a standing is felt within one. Decides who
counts as alive; does not choose a replica. Called by submit, direct, realtime and auth.
"""

import asyncio
import dataclasses
import datetime as dt
from collections.abc import Mapping

from forestay.clock import Clock
from forestay.errors import Unavailable
from forestay.fleet.model import Fleet, ModelEntry, ReplicaReport, ReplicaState, Revision
from forestay.fleet.routes import HEARD_SECONDS
from forestay.fleet.store import FleetStore
from forestay.gateway.standing import Standings
from forestay.ids import ModelId, RevisionId, WorkerId

POLL_SECONDS = 0.5
RELOAD_SECONDS = 5.0
ALIVE_SECONDS = HEARD_SECONDS  # a worker silent for longer is given no new calls


@dataclasses.dataclass(frozen=True, slots=True)
class LiveReplica:
    """A replica that may take a call now, and where."""

    report: ReplicaReport
    address: str  # of its worker


@dataclasses.dataclass(frozen=True, slots=True)
class _Index:
    """One load, arranged for look-ups."""

    fleet: Fleet
    routes: Mapping[ModelId, tuple[tuple[int, int, RevisionId], ...]]
    live: Mapping[RevisionId, tuple[LiveReplica, ...]]


class FleetView:
    """The newest load of the fleet."""

    def __init__(self, store: FleetStore, clock: Clock, standings: Standings) -> None:
        self._store = store
        self._clock = clock
        self._standings = standings
        self._index: _Index | None = None
        self._loaded_at = 0.0
        self._changed = asyncio.Event()
        self._woken = asyncio.Event()
        self._loading = asyncio.Lock()  # so that an older load never replaces a newer one
        self._looked_at = 0.0  # when the last look began

    @property
    def ready(self) -> bool:
        """Tell whether the fleet has been read at least once."""
        return self._index is not None

    @property
    def current(self) -> Fleet:
        """Return the newest load whole. Raises Unavailable before the first."""
        return self._loaded().fleet

    def model(self, model_id: ModelId) -> ModelEntry | None:
        """Return a model; None when there is none of that name. Raises Unavailable before the first load."""
        return self._loaded().fleet.models.get(model_id)

    def routed(self, model_id: ModelId, bucket: int) -> Revision | None:
        """Return the revision that serves this bucket of the model."""
        index = self._loaded()
        for start, end, revision_id in index.routes.get(model_id, ()):
            if start <= bucket < end:
                return index.fleet.revisions.get(revision_id)
        return None

    def live(self, revision_id: RevisionId) -> tuple[LiveReplica, ...]:
        """Return the ready replicas of a revision whose workers were heard of lately."""
        return self._loaded().live.get(revision_id, ())

    def replicas(self) -> dict[str, LiveReplica]:
        """Return every live replica by id."""
        return {item.report.replica_id: item for items in self._loaded().live.values() for item in items}

    def wake(self) -> None:
        """Look at the fleet now: something changed."""
        self._woken.set()

    async def wait_change(self, timeout_seconds: float) -> None:
        """Wait for the next change, at most `timeout_seconds`."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._changed.wait()
        except TimeoutError:
            return

    async def run(self) -> None:
        """Keep the view fresh for ever; errors are raised to `keep_running`."""
        while True:
            await self.refresh()
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def look_again(self) -> None:
        """Look at the store before a name is called unknown: it may have been deployed a moment ago, elsewhere.

        Calls that ask together share one look. Raises Unavailable: then nobody knows.
        """
        asked_at = self._clock.monotonic()
        async with self._loading:
            if self._looked_at < asked_at:
                await self._refresh()

    async def refresh(self) -> None:
        """Load when the version moved or the last load is too old."""
        async with self._loading:
            await self._refresh()

    async def _refresh(self) -> None:
        self._looked_at = self._clock.monotonic()
        self._woken.clear()
        index = self._index
        recent = self._clock.monotonic() - self._loaded_at < RELOAD_SECONDS
        if index is not None and recent and await self._store.version() == index.fleet.version:
            return
        fleet = await self._store.load()
        self._loaded_at = self._clock.monotonic()
        self._index = _arrange(fleet)
        self._standings.replace(fleet.standings)
        self._changed.set()
        self._changed = asyncio.Event()

    def _loaded(self) -> _Index:
        if self._index is None:
            raise Unavailable("the fleet has not been read yet; the gateway has just started or its database is away")
        return self._index


def _arrange(fleet: Fleet) -> _Index:
    routes: dict[ModelId, list[tuple[int, int, RevisionId]]] = {}
    for route in fleet.routes:
        routes.setdefault(route.model_id, []).append((route.bucket_from, route.bucket_to, route.revision_id))
    heard = _heard(fleet)
    live: dict[RevisionId, list[LiveReplica]] = {}
    for replica in fleet.replicas.values():
        address = heard.get(replica.worker_id)
        if replica.state is ReplicaState.READY and address is not None:
            live.setdefault(replica.revision_id, []).append(LiveReplica(replica, address))
    return _Index(
        fleet,
        {model_id: tuple(items) for model_id, items in routes.items()},
        {revision_id: tuple(items) for revision_id, items in live.items()},
    )


def _heard(fleet: Fleet) -> dict[WorkerId, str]:
    oldest = fleet.now - dt.timedelta(seconds=ALIVE_SECONDS)
    return {
        worker.worker_id: worker.address
        for worker in fleet.workers.values()
        if worker.seen_at >= oldest and worker.state != "stopped"
    }
