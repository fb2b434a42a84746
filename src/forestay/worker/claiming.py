"""Offers free slots to the queue and starts an attempt for every lease that comes back.

`decide_offers` is the rule: a ready replica offers the slots that are the queue's turn (`worker/turns.py`) for the
buckets that the route gives its revision.
The shell claims when something may have changed (a wake-up, a freed slot, a replica ready, new routes) and at the
latest after the poll time, all replicas in one statement. Run by `worker/process.py`.
"""

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from forestay.errors import Unavailable
from forestay.fleet.model import ReplicaState, Revision, Route
from forestay.ids import (
    SHADOW_CANDIDATE_BUCKET,
    SHADOW_CONTROL_BUCKET,
    ModelId,
    RequestId,
    RevisionId,
    WorkerId,
)
from forestay.queue.model import Lease
from forestay.queue.store import Offer
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import SLOTS
from forestay.worker.attempt import Attempt, AttemptParts
from forestay.worker.replica import Replica, Running
from forestay.worker.turns import Lane

log = logger("worker")
RETRY_SECONDS = 0.5
ALONE_AFTER_LOST_LEASES = 2
Fence = tuple[RequestId, int]
_NOTHING_HELD: Mapping[ModelId, RevisionId] = {}


def decide_offers(
    replicas: Iterable[Replica], routes: Sequence[Route], held: Mapping[ModelId, RevisionId] = _NOTHING_HELD
) -> list[Offer]:
    """Return what can be claimed for now: free slots of ready replicas whose revision has a share of the traffic.

    Those whose last outputs were broken come last, so that what one of them broke is likely to reach another. `held`
    names the candidates that are loaded for a rollout: they and their controls take the rollout's copies too.
    """
    offers: list[Offer] = []
    for replica in sorted(replicas, key=lambda replica: replica.broken):
        revision = replica.revision
        buckets = buckets_of(revision, routes, held)
        slots = replica.open_slots(Lane.QUEUE)
        if buckets and slots > 0:
            offers.append(
                Offer(
                    replica_id=replica.replica_id,
                    revision_id=revision.revision_id,
                    model_id=revision.model_id,
                    buckets=buckets,
                    slots=slots,
                    idle=replica.idle,
                    hints=replica.description.hints,
                    pool=revision.spec.resources.pool,
                )
            )
    return offers


def buckets_of(
    revision: Revision, routes: Sequence[Route], held: Mapping[ModelId, RevisionId]
) -> tuple[tuple[int, int], ...]:
    """Return the buckets whose queued requests a revision may have now; none: it has no share of the traffic."""
    buckets = tuple(
        (route.bucket_from, route.bucket_to)
        for route in routes
        if (route.model_id, route.revision_id) == (revision.model_id, revision.revision_id)
    )
    candidate = held.get(revision.model_id)
    if candidate == revision.revision_id:
        return (*buckets, (SHADOW_CANDIDATE_BUCKET, SHADOW_CANDIDATE_BUCKET + 1))
    if candidate is not None and buckets:
        return (*buckets, (SHADOW_CONTROL_BUCKET, SHADOW_CONTROL_BUCKET + 1))
    return buckets


@dataclasses.dataclass(frozen=True, slots=True)
class Situation:
    """What a worker serves: its replicas, the routes, and the candidates that are loaded for rollouts."""

    replicas: Callable[[], Sequence[Replica]]
    routes: Callable[[], Sequence[Route]]
    held: Callable[[], Mapping[ModelId, RevisionId]]


class Claimer:
    """Claims for one worker and owns its running attempts."""

    def __init__(
        self,
        worker_id: WorkerId,
        situation: Situation,
        parts: AttemptParts,
    ) -> None:
        self._worker_id = worker_id
        self._situation = situation
        self._replicas = situation.replicas
        self._parts = parts
        self._woken = asyncio.Event()
        self._stopped = False
        self._tasks: set[asyncio.Task[None]] = set()
        self.attempts: dict[Fence, Attempt] = {}

    def wake(self) -> None:
        """Look again at once."""
        self._woken.set()

    def stop(self) -> None:
        """Claim nothing more."""
        self._stopped = True
        self._woken.set()

    async def run(self, group: asyncio.TaskGroup) -> None:
        """Claim until stopped; attempts run in `group`."""
        queue = self._parts.settings.queue
        while not self._stopped:
            self._woken.clear()
            routes, held = self._situation.routes(), self._situation.held()
            self._close_unrouted(routes, held)
            offers = decide_offers(self._replicas(), routes, held)
            self._show_slots()
            try:
                leases = await self._claim(offers)
            except Unavailable as error:
                log.warning("claim.failed", reason=str(error))
                await self._parts.clock.sleep(RETRY_SECONDS)
                continue
            self._begin(leases, group)
            if not leases or not any(replica.open_slots(Lane.QUEUE) for replica in self._replicas()):
                await self._wait(queue.poll_seconds)

    def _close_unrouted(self, routes: Sequence[Route], held: Mapping[ModelId, RevisionId]) -> None:
        """Take the queue's turns where no queued request can come; direct calls may still be on their way there."""
        for replica in self._replicas():
            if not buckets_of(replica.revision, routes, held):
                replica.turns.close_queue()
                replica.call_next()

    async def _claim(self, offers: Sequence[Offer]) -> list[Lease]:
        """Claim, and learn from the answer whether the queue wants more than it was offered."""
        offered = {offer.replica_id: offer.slots for offer in offers}
        leases: list[Lease] = []
        for replica in self._replicas():
            if replica.replica_id in offered:
                replica.turns.offer(offered[replica.replica_id])
            else:
                replica.turns.probe()
        try:
            if offers:
                seconds = self._parts.settings.queue.lease_seconds
                leases = await self._parts.queue.claim(self._worker_id, offers, seconds)
        finally:
            open_slots = Counter[RevisionId]()
            for offer in offers:
                open_slots[offer.revision_id] += offer.slots
            open_slots.subtract(lease.revision_id for lease in leases)
            for replica in self._replicas():
                if replica.replica_id in offered:
                    replica.turns.claimed(all_filled=open_slots[replica.revision.revision_id] <= 0)
                    replica.call_next()
        return leases

    async def settled(self, seconds: float) -> bool:
        """Wait until no attempt runs, at most `seconds`; tells whether that is so."""
        deadline = self._parts.clock.monotonic() + seconds
        while self.attempts and self._parts.clock.monotonic() < deadline:
            self._woken.clear()
            await self._wait(min(0.25, max(0.0, deadline - self._parts.clock.monotonic())))
        return not self.attempts

    def abandon_rest(self) -> None:
        """End what still runs, without a word to the queue: the worker is gone, and the leases run out."""
        for task in list(self._tasks):
            task.cancel()

    def _begin(self, leases: Sequence[Lease], group: asyncio.TaskGroup) -> None:
        self._parts.keeper.keep([(lease.request_id, lease.attempt) for lease in leases])
        by_id = {replica.replica_id: replica for replica in self._replicas()}
        for lease in leases:
            replica = by_id.get(lease.replica_id)
            if replica is None:
                log.error("claim.unknown_replica", replica=lease.replica_id)  # the lease runs out and is rescued
                self._parts.keeper.drop((lease.request_id, lease.attempt))
                continue
            running = Running(
                request_id=lease.request_id,
                attempt=lease.attempt,
                tenant_id=lease.tenant_id,
                alone=lease.lost_leases >= ALONE_AFTER_LOST_LEASES,
                object_lifetime_seconds=lease.options.object_lifetime_seconds,
                upload_policy=lease.options.upload_policy,
            )
            attempt = Attempt(lease, replica, running, self._parts)
            self.attempts[lease.request_id, lease.attempt] = attempt
            if replica.take(running) and not self._stopped:
                task = group.create_task(self._run(attempt))
            else:  # it drained, ended or lent its slots to a gateway while the claim was on its way
                task = group.create_task(self._give_back(attempt))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, attempt: Attempt) -> None:
        try:
            await attempt.run()
        except Exception:
            # A defect of ours in one attempt: its lease runs out and the queue rescues it; the others go on.
            log.exception("attempt.failed", request=str(attempt.lease.request_id))
        finally:
            self._forget(attempt)

    async def _give_back(self, attempt: Attempt) -> None:
        try:
            await attempt.give_back("its slot was gone when the claim came back")
        except Exception:
            log.exception("attempt.not_given_back", request=str(attempt.lease.request_id))
        finally:
            attempt.replica.release(attempt.running)
            self._forget(attempt)

    def _forget(self, attempt: Attempt) -> None:
        self.attempts.pop((attempt.lease.request_id, attempt.lease.attempt), None)
        self.wake()

    def _show_slots(self) -> None:
        ready = [replica for replica in self._replicas() if replica.state is ReplicaState.READY]
        self._parts.metrics.set(SLOTS, sum(replica.free_slots for replica in ready), "free")
        self._parts.metrics.set(SLOTS, sum(len(replica.running) for replica in ready), "running")
        self._parts.metrics.set(SLOTS, sum(replica.lent_slots for replica in ready), "lent")

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return
