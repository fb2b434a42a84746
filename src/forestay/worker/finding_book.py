"""Takes findings from a worker's parts and stores them, without any of them waiting.

It decides nothing. What cannot be stored now is tried again; beyond a limit the oldest are dropped and counted: the
same fault will be found again. Called by `output_quality`; run by `process`.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence

from forestay.clock import Clock
from forestay.errors import Unavailable
from forestay.quality.findings import Finding, FindingStore
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import FINDINGS, FINDINGS_DROPPED, Metrics

MAX_WAITING = 500
PAUSE_SECONDS = 1.0
log = logger("worker")


class FindingBook:
    """Findings on their way into the store; the same one waits once."""

    def __init__(self, store: FindingStore | None, clock: Clock, metrics: Metrics) -> None:
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._waiting: OrderedDict[str, Finding] = OrderedDict()
        self._some = asyncio.Event()

    def take(self, findings: Sequence[Finding]) -> None:
        """Take findings; never waits."""
        for finding in findings if self._store is not None else ():
            self._waiting[finding.finding_id] = finding
            self._some.set()
        while len(self._waiting) > MAX_WAITING:
            self._waiting.popitem(last=False)
            self._metrics.add(FINDINGS_DROPPED)

    async def run(self) -> None:
        """Store them for ever, at most once in PAUSE_SECONDS."""
        while True:
            await self._some.wait()
            self._some.clear()
            await self.ship()
            await self._clock.sleep(PAUSE_SECONDS)

    async def ship(self) -> None:
        """Store what waits; what cannot be stored waits on."""
        found = list(self._waiting.values())
        if self._store is None or not found:
            return
        self._waiting.clear()
        try:
            fresh = set(await self._store.keep(found, self._clock.now()))
        except Unavailable as error:
            log.warning("findings.not_kept", findings=len(found), reason=str(error))
            later = {finding.finding_id: finding for finding in found}
            self._waiting = OrderedDict({**later, **self._waiting})
            self._some.set()
            return
        for finding in found:
            if finding.finding_id in fresh:
                where, source = finding.where, finding.source.value
                self._metrics.add(FINDINGS, str(where.model_id), source)
                log.warning("quality.found", model=str(where.model_id), replica=str(where.replica_id), source=source,
                            catalogue=finding.catalogue, what=finding.what)  # fmt: skip
