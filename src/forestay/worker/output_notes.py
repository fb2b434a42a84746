"""Notes of outputs: what was measured of each file, written in batches off the path of requests.

It decides nothing about outputs. What cannot be written now is kept while there is room and time; beyond that the
oldest are dropped and counted: those who watch quality then see fewer outputs, and no caller waits. Filled by
`output_quality`, run by the worker's process.
"""

import dataclasses
import hashlib
import uuid
from collections import OrderedDict, deque
from collections.abc import Sequence

from forestay.clock import Clock
from forestay.errors import Unavailable
from forestay.ids import RequestId, RevisionId, TenantId
from forestay.quality.findings import Where
from forestay.quality.fingerprints import Fingerprint
from forestay.quality.noting import Noted
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import OUTPUTS_NOT_NOTED, Metrics
from forestay.telemetry.output_facts import LATEST, OutputFact, OutputSink

FLUSH_SECONDS = 0.5
MAX_BATCH = 500
MAX_KEPT = 10_000  # some 5 MiB
DESCRIBED_SECONDS = 3600.0  # a fingerprint is told in words so often
MAX_TOLD = 1_000
log = logger("worker")


@dataclasses.dataclass(frozen=True, slots=True)
class Made:
    """By which attempt, at which endpoint, an output was made; attempt 0: on the direct lane."""

    attempt: int
    endpoint: str
    fingerprint: Fingerprint | None = None  # of what it was made with


def notes_key(secret: str) -> bytes:
    """Return the key of the digests in notes, which is the same for all workers of a deployment."""
    return hashlib.blake2b((secret or "no key").encode(), digest_size=32, person=b"forestay-outputs").digest()


class OutputNotes:
    """Outputs that were measured and are not written yet."""

    def __init__(self, sink: OutputSink | None, clock: Clock, metrics: Metrics, device: str = "") -> None:
        """`device` is this worker's; without a sink nothing is kept."""
        self._sink = sink
        self._clock = clock
        self._metrics = metrics
        self._device = device
        self._kept: deque[OutputFact] = deque()
        self._told: OrderedDict[tuple[RevisionId, str], float] = OrderedDict()  # fingerprints, and when

    def note(self, ids: tuple[RequestId, TenantId], where: Where, made: Made, files: Sequence[Noted]) -> None:
        """Note the files of one answer."""
        if self._sink is None:
            return
        now = self._clock.now()
        printed = made.fingerprint.digest if made.fingerprint is not None else ""
        described = self._described(where, made.fingerprint) if files else ""
        for file in files:
            if len(self._kept) >= MAX_KEPT:
                self._kept.popleft()
                self._metrics.add(OUTPUTS_NOT_NOTED, "full")
            self._kept.append(OutputFact(
                at=now, request_id=uuid.UUID(str(ids[0])), attempt=made.attempt, place=file.place,
                tenant_id=ids[1], model_id=where.model_id, endpoint=made.endpoint, revision_id=where.revision_id,
                replica_id=where.replica_id, worker_id=where.worker_id,
                device=where.device or self._device or where.worker_id,
                kind=file.kind, parameters=file.parameters, cluster=file.cluster, failed=file.failed,
                features=[float(f"{value:.6g}") for value in file.features], likeness=file.likeness,
                content=file.content, prompt=file.prompt, seed=file.seed,
                fingerprint=printed, described=described,
            ))  # fmt: skip
            described = ""

    def _described(self, where: Where, fingerprint: Fingerprint | None) -> str:
        """Return a fingerprint in words, once an hour for each revision."""
        if fingerprint is None:
            return ""
        key, now = (where.revision_id, fingerprint.digest), self._clock.monotonic()
        told_at = self._told.pop(key, -DESCRIBED_SECONDS)
        due = now - told_at >= DESCRIBED_SECONDS
        self._told[key] = now if due else told_at
        while len(self._told) > MAX_TOLD:
            self._told.popitem(last=False)
        return fingerprint.described if due else ""

    async def run(self) -> None:
        """Write for ever."""
        while True:
            await self._clock.sleep(FLUSH_SECONDS)
            try:
                await self.flush()
            except Unavailable as error:
                log.warning("outputs.not_written", kept=len(self._kept), reason=str(error))

    async def flush(self) -> None:
        """Write what is kept; what the database refuses stays for the next round. Raises Unavailable."""
        oldest = self._clock.now() - LATEST / 2
        while self._kept and self._kept[0].at < oldest:  # a reader does not look for older ones
            self._kept.popleft()
            self._metrics.add(OUTPUTS_NOT_NOTED, "late")
        while self._kept and self._sink is not None:
            batch = [self._kept.popleft() for _ in range(min(MAX_BATCH, len(self._kept)))]
            try:
                await self._sink.write(batch)
            except Unavailable:
                self._kept.extendleft(reversed(batch))
                raise
