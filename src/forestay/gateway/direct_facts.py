"""Facts of the direct lane: one per call, gathered here and written in batches off the path.

A fact that cannot be written now is kept while there is room; beyond that the oldest are dropped and counted. Replicas
that were used are reported in the same rounds, for the rule that unloads the least recently used. Called by the direct
lane and realtime.
"""

from collections import deque

from forestay.errors import Unavailable
from forestay.gateway.ports import GatewayPorts
from forestay.ids import ReplicaId
from forestay.telemetry.facts import RequestFact
from forestay.telemetry.metrics import FACTS_LOST

FLUSH_SECONDS = 1.0
MAX_BATCH = 1_000
MAX_KEPT = 50_000


class DirectFacts:
    """What happened and is not written yet."""

    def __init__(self, ports: GatewayPorts) -> None:
        self._ports = ports
        self._kept: deque[RequestFact] = deque()
        self._used: set[ReplicaId] = set()

    def add(self, fact: RequestFact) -> None:
        """Keep a fact for the next round."""
        if not self._ports.settings.observe.telemetry:
            return
        if len(self._kept) >= MAX_KEPT:
            self._kept.popleft()
            self._ports.metrics.add(FACTS_LOST)
        self._kept.append(fact)
        if fact.replica_id is not None:
            self._used.add(fact.replica_id)

    async def run(self) -> None:
        """Write for ever."""
        while True:
            await self._ports.clock.sleep(FLUSH_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Write what is kept; what the database refuses stays for the next round. Raises Unavailable."""
        left = len(self._kept)  # what comes meanwhile is the next round's, or a busy gateway would write row by row
        while left > 0 and self._kept:
            batch = [self._kept.popleft() for _ in range(min(MAX_BATCH, left, len(self._kept)))]
            left -= len(batch)
            try:
                await self._ports.facts.write(batch)
            except Unavailable:
                self._kept.extendleft(reversed(batch))
                raise
        if self._used:
            used, self._used = self._used, set()
            await self._ports.fleet.touch(sorted(used))
