"""Keeps a worker's replicas as its placements ask, and tells the fleet what is.

It decides nothing: `reconcile.decide` does. Reads desired state when the fleet's version moves (or `forestay:fleet`
says so), acts, and reports every second and at once when something changed. A database that does not answer changes
nothing: what runs goes on running, by the last state that was read. Run by `worker/process.py`.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import assert_never

from forestay.chance import Chance
from forestay.clock import Clock
from forestay.errors import Unavailable
from forestay.fleet.model import Fleet, ReplicaReport, ReplicaState, Revision, Route, WorkerReport
from forestay.fleet.store import FleetStore
from forestay.ids import ModelId, ReplicaId, RevisionId, WorkerId
from forestay.settings import Settings
from forestay.storage.valkey import Wakeups
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import REPLICA_ENDS, REPLICAS, Metrics
from forestay.worker import reconcile
from forestay.worker.replica import MakeHost, Replica, plain_text

log = logger("worker")
VERSION_POLL_SECONDS = 1.0
SETTLE_SECONDS = 0.02  # changes that come together are reported together
REPORT_TIMEOUT_SECONDS = 5.0
BACKLOG_TIMEOUT_SECONDS = 2.0  # longer, and models are loaded in no particular order


class ReplicaKeeper:
    """All replicas of one worker."""

    def __init__(  # noqa: PLR0913 - the ports it stands between, each used by name
        self,
        worker_id: WorkerId,
        *,
        fleet: FleetStore,
        make_host: MakeHost,
        settings: Settings,
        clock: Clock,
        chance: Chance,
        metrics: Metrics,
    ) -> None:
        self._worker_id = worker_id
        self._store = fleet
        self._make_host = make_host
        self._settings = settings
        self._clock = clock
        self._chance = chance
        self._metrics = metrics
        self._fleet: Fleet | None = None
        self._failures: dict[RevisionId, reconcile.Failure] = {}
        self._waiting: dict[RevisionId, reconcile.Wait] = {}
        self._counted: set[ReplicaId] = set()  # those that are over, and whose end was counted
        self._look = asyncio.Event()  # desired state may have changed
        self._changed = asyncio.Event()  # observed state has changed
        self._draining = False
        self._borrowed_devices = 0  # of replicas that serve nobody
        self.replicas: dict[ReplicaId, Replica] = {}
        self.on_change: Callable[[], None] = _nothing
        self.backlog: Callable[[], Awaitable[Mapping[ModelId, int]]] = _no_backlog  # waiting requests by model
        self.choose_devices: Callable[[int], tuple[str, ...] | None] = _no_devices

    def all_replicas(self) -> Sequence[Replica]:
        """Return the replicas as they are."""
        return list(self.replicas.values())

    def routes(self) -> Sequence[Route]:
        """Return the routes last read."""
        return self._fleet.routes if self._fleet is not None else ()

    def held(self) -> Mapping[ModelId, RevisionId]:
        """Return the candidates that are loaded for rollouts, by model, as last read."""
        pending = self._fleet.pending.values() if self._fleet is not None else ()
        return {plan.model_id: plan.revision_id for plan in pending if plan.held and not plan.given_up}

    def placed(self, revision_id: RevisionId) -> int:
        """Return how many replicas of a revision the whole fleet is asked for, as last read."""
        placements = self._fleet.placements if self._fleet is not None else ()
        return sum(item.replicas for item in placements if item.revision_id == revision_id)

    def replica(self, replica_id: str) -> Replica | None:
        """Find a replica."""
        return self.replicas.get(ReplicaId(replica_id))

    def revision(self, revision_id: RevisionId) -> Revision | None:
        """Return a revision as last read."""
        return self._fleet.revisions.get(revision_id) if self._fleet is not None else None

    def has_room(self, revision: Revision) -> bool:
        """Tell whether the devices of one more replica are free."""
        used = sum(item.revision.spec.resources.devices for item in self.all_replicas()) + self._borrowed_devices
        return not self._draining and used + revision.spec.resources.devices <= self._settings.worker.devices

    @contextlib.asynccontextmanager
    async def borrowed(self, revision: Revision) -> AsyncGenerator[Replica | None]:
        """Keep a replica beside the placements while the block runs, for a self-test: it is reported to nobody.

        None where it did not become ready.
        """
        need = revision.spec.resources.devices
        replica = self._made(revision)
        self._borrowed_devices += need
        log.info("replica.borrowed", replica=replica.replica_id, revision=revision.revision_id)
        try:
            async with asyncio.TaskGroup() as group:
                living = group.create_task(self._live_beside(replica))
                try:
                    while replica.ready_at is None and not living.done():
                        await self._clock.sleep(SETTLE_SECONDS)
                    yield None if living.done() else replica
                finally:
                    replica.hurry()
        finally:
            self._borrowed_devices -= need
            self._look.set()

    async def _live_beside(self, replica: Replica) -> None:
        try:
            await replica.run(self._make_host)
        except Exception:
            log.exception("replica.host_failed", replica=replica.replica_id)

    def drain_all(self, reason: str) -> None:
        """Start nothing more, and let every replica end once nothing runs on it."""
        self._draining = True
        for replica in self.all_replicas():
            replica.drain(reason)

    async def run(self, group: asyncio.TaskGroup) -> None:
        """Reconcile until cancelled; replicas live in `group`."""
        while True:
            self._look.clear()
            await self._refresh()
            if self._fleet is not None and not self._draining:
                self._reconcile(self._fleet, group, await self._waited_for(self._fleet))
            await self._wait(self._look, self._pause())

    async def listen(self, wakeups: Wakeups) -> None:
        """Look at once when the fleet changes."""
        async with wakeups.subscribe("forestay:fleet") as messages:
            async for _ in messages:
                self._look.set()

    async def report_for_ever(self, describe: Callable[[], WorkerReport]) -> None:
        """Report at every change and every `report_seconds`."""
        while True:
            self._changed.clear()
            await self.report(describe())
            await self._wait(self._changed, self._settings.worker.report_seconds)
            await self._clock.sleep(SETTLE_SECONDS)

    async def report(self, worker: WorkerReport) -> None:
        """Tell the fleet what is; a failure is only logged, the next report says it all again."""
        reports = [replica.report(self._failure_count(replica)) for replica in self.all_replicas()]
        reports += [self._waiting_report(wait) for wait in self._waiting.values()]
        for state in ReplicaState:
            self._metrics.set(REPLICAS, sum(item.state is state for item in reports), state.value)
        try:
            async with asyncio.timeout(REPORT_TIMEOUT_SECONDS):
                await self._store.report(worker, reports)
        except (Unavailable, TimeoutError) as error:
            log.warning("report.failed", reason=str(error))
        except Exception:  # a text of a model that the store cannot hold must not end the worker
            log.exception("report.refused")

    async def _refresh(self) -> None:
        try:
            if self._fleet is None or await self._store.version() != self._fleet.version:
                self._fleet = await self._store.load()
                self.on_change()
        except Unavailable as error:
            log.warning("fleet.unreadable", reason=str(error))

    async def _waited_for(self, fleet: Fleet) -> frozenset[ModelId]:
        """Return the models that requests wait for, queued or direct; read only where the order of loads matters."""
        if not reconcile.is_choice(self._situation(fleet), self._clock.now()):
            return frozenset()
        try:
            async with asyncio.timeout(BACKLOG_TIMEOUT_SECONDS):
                queued, called = await self.backlog(), (await self._store.load()).demand
        except (Unavailable, TimeoutError) as error:
            log.warning("backlog.unreadable", reason=str(error))
            return frozenset()
        return frozenset({model_id for model_id, count in queued.items() if count > 0} | set(called))

    def _situation(self, fleet: Fleet, waited_for: frozenset[ModelId] = frozenset()) -> reconcile.Situation:
        worker = self._settings.worker
        return reconcile.Situation(
            placements=reconcile.placements_of(fleet, self._worker_id),
            observed=[_observe(replica) for replica in self.all_replicas()],
            failures=self._failures,
            successes=reconcile.successes_of(fleet),
            revisions=fleet.revisions,
            devices=worker.devices - self._borrowed_devices,
            back_off=reconcile.BackOff(worker.start_backoff_seconds, worker.start_backoff_cap_seconds),
            waited_for=waited_for,
        )

    def _reconcile(self, fleet: Fleet, group: asyncio.TaskGroup, waited_for: frozenset[ModelId]) -> None:
        before, self._waiting = self._waiting, {}
        for action in reconcile.decide(self._situation(fleet, waited_for), self._clock.now()):
            match action:
                case reconcile.Start(revision_id, reason):
                    self._start(fleet, revision_id, reason, group)
                case reconcile.Drain(replica_id, reason):
                    self.replicas[replica_id].drain(reason)
                case reconcile.Wait(revision_id):
                    self._waiting[revision_id] = action
                case _:
                    assert_never(action)
        if before != self._waiting:
            self._changed.set()

    def _start(self, fleet: Fleet, revision_id: RevisionId, reason: str, group: asyncio.TaskGroup) -> None:
        revision = fleet.revisions[revision_id]
        replica = self._made(revision)
        replica.on_change = lambda: self._note_change(replica)
        self.replicas[replica.replica_id] = replica
        log.info("replica.starting", replica=replica.replica_id, revision=revision_id, reason=reason)
        self._changed.set()
        group.create_task(self._live(replica))

    def _made(self, revision: Revision) -> Replica:
        alias = revision.model_id.rpartition("/")[2]
        replica_id = ReplicaId(f"{alias}-{self._chance.bits(48):012x}")
        replica = Replica((replica_id, self._worker_id), revision, self._settings.worker, self._clock)
        replica.devices = self.choose_devices(revision.spec.resources.devices)
        return replica

    async def _live(self, replica: Replica) -> None:
        try:
            await replica.run(self._make_host)
        except Exception:
            log.exception("replica.host_failed", replica=replica.replica_id)
        finally:
            del self.replicas[replica.replica_id]
            self._counted.discard(replica.replica_id)
            self._look.set()
            self._changed.set()

    def _count_end(self, replica: Replica) -> None:
        """A start that failed, or a process that ended by itself before it did anything, makes the next start wait."""
        revision_id = replica.revision.revision_id
        useless = replica.last_used_at is None and not replica.condemned and not replica.drained
        cause = "start" if replica.start_failure else "condemned" if replica.condemned else "exit"
        self._metrics.add(REPLICA_ENDS, replica.revision.model_id, "drained" if replica.drained else cause)
        if replica.start_failure or useless:
            reason = replica.start_failure or replica.detail
            count = self._failure_count(replica) + 1
            self._failures[revision_id] = reconcile.Failure(count, self._clock.now(), reason)

    def _note_change(self, replica: Replica) -> None:
        if replica.over and replica.replica_id not in self._counted:
            # Before its process has ended, which takes a while: a look in between must not start the next one at once.
            self._counted.add(replica.replica_id)
            self._count_end(replica)
            self._look.set()
        if replica.answered:
            self._failures.pop(replica.revision.revision_id, None)
        self._changed.set()
        self.on_change()

    def _failure_count(self, replica: Replica) -> int:
        failure = self._failures.get(replica.revision.revision_id)
        return failure.count if failure else 0

    def _waiting_report(self, wait: reconcile.Wait) -> ReplicaReport:
        return ReplicaReport(
            replica_id=ReplicaId(f"{self._worker_id}-{wait.revision_id}-backoff"),
            worker_id=self._worker_id,
            revision_id=wait.revision_id,
            model_id=wait.model_id,
            state=ReplicaState.BACKOFF,
            slots=0,
            devices=0,
            direct_url=None,
            hints=(),
            detail=plain_text(f"tried again at {wait.until:%H:%M:%S} UTC: {wait.failure.reason}"),
            failures=wait.failure.count,
            started_at=wait.failure.failed_at,
            ready_at=None,
            last_used_at=None,
            seen_at=self._clock.now(),
        )

    def _pause(self) -> float:
        now = self._clock.now()
        waits = [(wait.until - now).total_seconds() for wait in self._waiting.values()]
        return max(0.01, min([VERSION_POLL_SECONDS, *waits]))

    @staticmethod
    async def _wait(event: asyncio.Event, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return


def _observe(replica: Replica) -> reconcile.Observed:
    return reconcile.Observed(
        replica_id=replica.replica_id,
        revision_id=replica.revision.revision_id,
        state=replica.state,
        busy=not replica.idle,
        devices=replica.revision.spec.resources.devices,
        started_at=replica.started_at,
    )


def _nothing() -> None:
    """Stand in until someone listens."""


async def _no_backlog() -> Mapping[ModelId, int]:
    """Stand in where no queue is known."""
    return {}


def _no_devices(_wanted: int) -> tuple[str, ...] | None:
    """Stand in where devices are not told apart."""
    return None
