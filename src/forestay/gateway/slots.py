"""Slots of live replicas, as one gateway holds them.

A replica whose server the gateway may speak to itself has its slots leased in blocks from its worker and counted here,
so that a call costs no question; a replica behind its worker is counted too, and the worker has the last word. Decides
which free slot a call gets: one that carries the caller's hint first, then the least used. Waiting is first come, first
served per revision. Called by the direct lane and realtime.
"""

import asyncio
import dataclasses
from collections import deque
from collections.abc import Sequence

from forestay.clock import Clock
from forestay.gateway.fleet_view import FleetView, LiveReplica
from forestay.ids import ReplicaId, RevisionId

LEASE_SECONDS = 10.0
RENEW_SECONDS = 2.0
IDLE_SECONDS = 5.0  # a block unused for so long is given back
BUSY_SECONDS = 0.1  # after "no slot" a replica is left alone for so long
SUSPECT_SECONDS = 2.0  # after a broken connection
LOOK_SECONDS = 0.25  # a waiting call looks again this often even if nobody wakes it
FIRST_BLOCK = 4


@dataclasses.dataclass(slots=True, eq=False)
class Pool:
    """One replica's slots at this gateway."""

    replica: LiveReplica
    granted: int = 0
    used: int = 0
    expires_at: float = 0.0  # monotonic; of the block
    used_at: float = 0.0
    closed_until: float = 0.0  # busy or suspect
    ask_again_at: float = 0.0  # the worker has just said that it lends no more than is used
    asking: bool = False
    recalled: int = 0  # of those granted: each goes back to the worker when it comes free, for a queued request
    returned: int = 0  # recalled slots that came free, and that the worker has not been told of

    @property
    def in_blocks(self) -> bool:
        """Tell whether slots are leased in blocks (one hop) rather than taken one by one at the worker."""
        return self.replica.report.direct_url is not None

    def free(self, now: float) -> int:
        """Return how many calls may start now."""
        if now < self.closed_until:
            return 0
        if not self.in_blocks:
            return self.replica.report.slots - self.used
        return self.granted - self.used if now < self.expires_at else 0

    def wanted(self, waiting: int) -> int:
        """Return how large a block to ask for: what is used and awaited, doubled, at most all."""
        return min(self.replica.report.slots, max(FIRST_BLOCK, 2 * (self.used + waiting)))


class Slots:
    """All pools, and who waits for them."""

    def __init__(self, fleet: FleetView, clock: Clock) -> None:
        self._fleet = fleet
        self._clock = clock
        self._pools: dict[ReplicaId, Pool] = {}
        self._by_revision: dict[RevisionId, tuple[tuple[LiveReplica, ...], list[Pool]]] = {}
        self.some_returned = asyncio.Event()
        self._queues: dict[RevisionId, deque[asyncio.Future[None]]] = {}

    def take(self, revision_id: RevisionId, hint: str | None) -> Pool | None:
        """Take a free slot now, or None."""
        now = self._clock.monotonic()
        best: Pool | None = None
        best_rank = (False, 0)
        for pool in self.pools_of(revision_id):
            free = pool.free(now)
            if free > 0:
                rank = (hint is not None and hint in pool.replica.report.hints, free)
                if rank > best_rank:
                    best, best_rank = pool, rank
        if best is not None:
            best.used += 1
            best.used_at = now
        return best

    def give_back(self, pool: Pool) -> None:
        """Return a slot and wake who has waited longest for this revision; one that is recalled goes to the worker."""
        pool.used -= 1
        pool.used_at = self._clock.monotonic()
        if pool.recalled > 0:
            self._return(pool, 1)
        self.wake(pool.replica.report.revision_id)

    def _return(self, pool: Pool, count: int) -> None:
        pool.granted -= count
        pool.recalled -= count
        pool.returned += count
        self.some_returned.set()

    def return_unused(self, pool: Pool) -> None:
        """Return recalled slots that nobody waits for."""
        unused = min(pool.recalled, pool.granted - pool.used - self.waiting(pool.replica.report.revision_id))
        if unused > 0:
            self._return(pool, unused)

    def with_returned(self) -> list[Pool]:
        """Return the pools whose worker has not been told of slots that came back, and is not being asked."""
        return [pool for pool in self._pools.values() if pool.returned > 0 and not pool.asking]

    def close(self, pool: Pool, seconds: float) -> None:
        """Start no calls on this replica for a while; then whoever has waited longest looks again."""
        pool.closed_until = self._clock.monotonic() + seconds
        asyncio.get_running_loop().call_later(seconds, self.wake, pool.replica.report.revision_id)

    def grant(self, pool: Pool, granted: int, seconds: float, recalled: int = 0) -> None:
        """Note a leased block; after one without a free slot the worker is not asked again for a moment.

        The slots that are held go on being used meanwhile: one that comes free in that moment is for the next in line.
        What was returned while the question was on its way is not in the answer yet.
        """
        pool.granted, pool.recalled = granted - pool.returned, max(0, recalled - pool.returned)
        now = self._clock.monotonic()
        pool.expires_at = now + seconds
        if granted <= pool.used:
            pool.ask_again_at = now + BUSY_SECONDS
        for _ in range(max(0, pool.granted - pool.used)):
            self.wake(pool.replica.report.revision_id)
        if pool.recalled > 0:
            asyncio.get_running_loop().call_later(LOOK_SECONDS, self.return_unused, pool)

    def pools_of(self, revision_id: RevisionId) -> Sequence[Pool]:
        """Return the pools of a revision's live replicas."""
        live = self._fleet.live(revision_id)
        known = self._by_revision.get(revision_id)
        if known is not None and known[0] is live:  # the same load of the fleet as last time
            return known[1]
        pools = [self._pool_of(replica) for replica in live]
        self._by_revision[revision_id] = (live, pools)
        return pools

    def _pool_of(self, replica: LiveReplica) -> Pool:
        pool = self._pools.get(replica.report.replica_id)
        if pool is None:
            pool = self._pools[replica.report.replica_id] = Pool(replica)
        pool.replica = replica
        return pool

    def askable(self, revision_id: RevisionId) -> Pool | None:
        """Return a pool from whose worker a larger block may be asked."""
        now = self._clock.monotonic()
        for pool in self.pools_of(revision_id):
            if not pool.in_blocks or pool.asking or now < max(pool.closed_until, pool.ask_again_at):
                continue
            if now >= pool.expires_at or pool.granted < pool.replica.report.slots:
                return pool
        return None

    def waiting(self, revision_id: RevisionId) -> int:
        """Return how many calls wait for this revision."""
        return len(self._queues.get(revision_id, ()))

    async def wait(self, revision_id: RevisionId, seconds: float) -> None:
        """Wait for one's turn to look again, at most a quarter of a second."""
        queue = self._queues.setdefault(revision_id, deque())
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(future)
        try:
            async with asyncio.timeout(min(seconds, LOOK_SECONDS)):
                await future
        except TimeoutError:
            return
        finally:
            if future in queue:
                queue.remove(future)
            if not queue:
                self._queues.pop(revision_id, None)

    def wake(self, revision_id: RevisionId) -> None:
        """Let the call that has waited longest look again."""
        queue = self._queues.get(revision_id)
        while queue:
            future = queue.popleft()
            if not future.done():
                future.set_result(None)
                return

    def leased(self) -> list[Pool]:
        """Return the pools that hold a block; forgets replicas that are gone and unused."""
        live = self._fleet.replicas()
        for replica_id in [item for item, pool in self._pools.items() if item not in live and pool.used <= 0]:
            del self._pools[replica_id]
            self._by_revision.clear()
        return [pool for pool in self._pools.values() if pool.in_blocks and pool.granted > 0]

    def totals(self) -> tuple[int, int]:
        """Return slots granted and used, for the metrics."""
        pools = self._pools.values()
        return sum(pool.granted for pool in pools), sum(pool.used for pool in pools)
