"""Opens evidence for findings, whoever found them: seals a sample for each that has none, and writes down what it is.

It decides nothing (`evidence` does). A finding whose outputs have not ended yet is looked at again for ten minutes.
Called by the controller.
"""

import dataclasses
import datetime as dt

from forestay.clock import Clock
from forestay.errors import Unavailable
from forestay.quality.evidence import (
    BEFORE,
    KINDS,
    PATIENCE,
    EvidenceStore,
    Sealer,
    decide_due,
    decide_sample,
    told_of,
)
from forestay.quality.findings import FindingStore, Kept
from forestay.telemetry.logs import logger
from forestay.telemetry.output_facts import OutputFact, OutputSource

FRESH = dt.timedelta(hours=1)  # a finding that was not found again since is over
LOOKED_AT = 200  # outputs of a revision and a kind of medium
AT_A_TIME = 5
_LOG = logger("quality")


@dataclasses.dataclass(frozen=True, slots=True)
class EvidencePorts:
    """What opening evidence may use of the world."""

    findings: FindingStore
    outputs: OutputSource
    evidence: EvidenceStore
    sealer: Sealer
    clock: Clock
    retention_seconds: float  # of copies under seal


async def run_once(ports: EvidencePorts) -> int:
    """Open evidence for what has none; returns for how many findings."""
    now = ports.clock.now()
    kept = await ports.findings.found(None, now - FRESH)
    known = await ports.evidence.of([item.finding.finding_id for item in kept])
    opened = 0
    for item in decide_due(kept, known)[:AT_A_TIME]:
        opened += await _open(ports, item, now)
    return opened


async def forget(ports: EvidencePorts) -> None:
    """Remove what is written down of copies whose time is over."""
    await ports.evidence.forget(ports.clock.now() - dt.timedelta(seconds=ports.retention_seconds))


async def _open(ports: EvidencePorts, item: Kept, now: dt.datetime) -> int:
    finding = item.finding
    facts: list[OutputFact] = []
    for kind in ("", *KINDS):
        since = finding.since - BEFORE
        facts += await ports.outputs.of_revision(finding.where.revision_id, kind, since, LOOKED_AT)
    sample = decide_sample(finding, facts)
    try:
        copies = await ports.sealer.seal(finding.finding_id, [fact.request_id for fact in sample])
    except Unavailable as error:
        _LOG.warning("evidence.not_sealed", finding=finding.finding_id, reason=str(error))
        return 0
    if not copies and now - item.first_at < PATIENCE:
        return 0
    evidence = told_of(finding, sample, copies, now)
    await ports.evidence.keep(evidence)
    _LOG.info("evidence.opened", finding=finding.finding_id, copies=len(copies), requests=len(sample))
    return 1
