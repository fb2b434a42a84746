"""Plays golden canaries on this worker's replicas when they are due.

It decides nothing: `quality/golden` says what is due. A round begins once its replica is ready, not before: a start
that users wait for is not made longer, and a replica that is found ill is drained by the quality loop like any other.
A worker that is held back plays them on a replica that serves nobody, and answers whether it passed. Run by
`worker/process.py`; `canary_round` plays.
"""

import asyncio
import datetime as dt
from collections.abc import Mapping, Sequence

from forestay.errors import ForestayError
from forestay.fleet.model import ReplicaState
from forestay.ids import ModelId, ReplicaId, WorkerId
from forestay.quality.canary_store import ANY_REVISION, EVERYWHERE, Ask, Ended, PlayedRound, SelfTested
from forestay.quality.findings import Source
from forestay.quality.golden import Cause, Times, decide_due
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import CANARY_ROUNDS
from forestay.worker.canary_round import CanaryPorts, CanaryRound, Known, NoSlot
from forestay.worker.keeping import ReplicaKeeper
from forestay.worker.replica import Replica

TICK_SECONDS = 0.25
POLL_SECONDS = 3.0  # how often asks and findings are read
ASKS_FROM = dt.timedelta(minutes=15)
log = logger("worker")


class CanaryRunner:
    """The canaries of one worker."""

    def __init__(self, ports: CanaryPorts, keeper: ReplicaKeeper, worker_id: WorkerId) -> None:
        self._ports = ports
        self._keeper = keeper
        self._worker_id = worker_id
        self._testing: set[int] = set()  # self-tests that run
        self._known: dict[ReplicaId, Known] = {}
        self._playing: set[ReplicaId] = set()
        self._asks: Sequence[Ask] = ()
        self._suspected: Mapping[ReplicaId, dt.datetime] = {}
        self._polled_at = -POLL_SECONDS

    async def run(self) -> None:
        """Play what is due, for ever."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._ports.clock.sleep(TICK_SECONDS)
                replicas = [item for item in self._ports.replicas() if item.revision.spec.quality.canaries.inputs]
                self._known = {name: known for name, known in self._known.items() if name in _names(replicas)}
                await self._poll(replicas)
                for ask in self._asks:
                    mine = ask.cause is Cause.SELF_TEST and ask.worker_id == self._worker_id
                    if mine and ask.ask_id not in self._testing:
                        self._testing.add(ask.ask_id)
                        group.create_task(self._test(ask))
                for replica in replicas:
                    cause = self.due(replica)
                    if cause is not None and replica.replica_id not in self._playing:
                        self._playing.add(replica.replica_id)
                        group.create_task(self._play(replica, cause))

    def due(self, replica: Replica) -> Cause | None:
        """Return why a replica's canaries are to be played now."""
        if replica.state is not ReplicaState.READY or replica.ready_at is None:
            return None
        known = self._known.setdefault(replica.replica_id, Known())
        revision = replica.revision
        asked = [
            ask.asked_at
            for ask in self._asks
            if ask.worker_id == EVERYWHERE
            and ask.model_id == revision.model_id
            and ask.revision_id in {ANY_REVISION, revision.revision_id}
        ]
        times = Times(
            ready_at=replica.ready_at,
            played_at=known.played_at,
            adapter_at=replica.adapter_at,
            asked_at=max(asked, default=None),
            suspected_at=self._suspected.get(replica.replica_id),
            spent_seconds=known.spent_within_hour(self._ports.clock.monotonic()),
        )
        return decide_due(times, revision.spec.quality.canaries, self._ports.clock.now())

    async def _poll(self, replicas: Sequence[Replica]) -> None:
        now = self._ports.clock.monotonic()
        if now - self._polled_at < POLL_SECONDS:
            return
        self._polled_at = now
        since = self._ports.clock.now() - ASKS_FROM
        try:
            self._asks = await self._ports.store.asks(since)
            suspected: dict[ReplicaId, dt.datetime] = {}
            for model_id in {item.revision.model_id for item in replicas} if self._ports.findings else ():
                suspected |= await self._suspicions(model_id, replicas, since)
            self._suspected = suspected
        except ForestayError as error:
            log.warning("canaries.not_asked", reason=str(error))

    async def _suspicions(
        self, model_id: ModelId, replicas: Sequence[Replica], since: dt.datetime
    ) -> dict[ReplicaId, dt.datetime]:
        """Return which of our replicas are to be looked at because of what was found, and since when.

        What a canary found of a replica needs no other look; its siblings on this worker do, whoever found it: they
        share its device.
        """
        found: dict[ReplicaId, dt.datetime] = {}
        kept = [] if self._ports.findings is None else await self._ports.findings.found(model_id, since)
        for item in kept:
            where = item.finding.where
            for replica in replicas:
                itself = where.replica_id in {"", replica.replica_id} and item.finding.source is not Source.CANARY
                sibling = where.worker_id == self._worker_id and where.replica_id != replica.replica_id
                if where.revision_id == replica.revision.revision_id and (itself or sibling):
                    before = found.get(replica.replica_id, item.first_at)
                    found[replica.replica_id] = max(before, item.first_at)
        return found

    async def _test(self, ask: Ask) -> None:
        """Answer one ask for a self-test; where it cannot be made now, it is tried again with the next look."""
        try:
            result = await self.self_test(ask)
            if result is not None:
                tested, words = result
                log.info("canaries.self_test", revision=ask.revision_id, passed=tested.passed, words=words)
                await self._ports.store.answer(ask.ask_id, tested, words)
                self._polled_at = -POLL_SECONDS
        except Exception:  # a defect of ours, or a store that is away: the ask stays open
            log.exception("canaries.self_test_failed", revision=ask.revision_id)
        finally:
            await self._ports.clock.sleep(POLL_SECONDS)
            self._testing.discard(ask.ask_id)

    async def self_test(self, ask: Ask) -> tuple[SelfTested, str] | None:
        """Play the canaries on a replica that serves nobody; None where there is no room for one now."""
        revision = self._keeper.revision(ask.revision_id)
        if revision is None:
            return None
        if not revision.spec.quality.canaries.inputs:
            return self._tested(None), "the spec names no canaries; a person may `forestay quality release` the worker"
        if not self._keeper.has_room(revision):
            return None
        async with self._keeper.borrowed(revision) as replica:
            if replica is None:
                return self._tested(None), "a replica for the test did not become ready"
            played = await self.play(replica, Cause.SELF_TEST)
        return self._tested(played.ended), played.words

    def _tested(self, ended: Ended | None) -> SelfTested:
        return SelfTested(self._ports.clock.now(), passed=ended is Ended.PASSED, differed=ended is Ended.FAILED)

    async def _play(self, replica: Replica, cause: Cause) -> None:
        try:
            await self.play(replica, cause)
        except NoSlot:
            log.info("canaries.no_slot", replica=replica.replica_id, cause=cause.value)
        except Exception:  # a defect of ours, or a store that is away: the replica serves on
            log.exception("canaries.failed", replica=replica.replica_id)
            self._known.setdefault(replica.replica_id, Known()).played_at = self._ports.clock.now()
        finally:
            self._playing.discard(replica.replica_id)

    async def play(self, replica: Replica, cause: Cause) -> PlayedRound:
        """Play one round and keep it; NoSlot when no slot became free in time."""
        ports, revision = self._ports, replica.revision
        began_at = ports.clock.now()
        known = self._known.setdefault(replica.replica_id, Known())
        round_ = CanaryRound(ports, replica, cause, known)
        await round_.read()
        played = await round_.play(began_at)
        known.played_at = began_at
        await ports.store.note(played)
        ports.metrics.add(CANARY_ROUNDS, revision.model_id, cause.value, played.ended.value)
        log.info("canaries.played", replica=replica.replica_id, cause=cause.value, ended=played.ended.value,
                 seconds=round(played.device_seconds, 3), words=played.words)  # fmt: skip
        return played


def _names(replicas: Sequence[Replica]) -> frozenset[ReplicaId]:
    return frozenset(item.replica_id for item in replicas)
