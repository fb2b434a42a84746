"""Which outputs a finding is shown by: a small sample, sealed when it is found, before retention takes them. Values.

It decides of which findings evidence is taken (those that name a revision, once for each time they open), and which
outputs: of the place that the finding names, broken ones first, then the newest, one of a request. It does not decide
what may be kept: the sealer leaves out what a caller forbade to keep. Only ids are written down here; content lies
under seal and nowhere else. Called by `evidence_loop` and the admin API.
"""

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Protocol
from uuid import UUID

from forestay.quality.diagnosis import value_of
from forestay.quality.findings import Finding, Kept, Source
from forestay.telemetry.output_facts import OutputFact

SAMPLE = 6  # requests of one finding
KINDS = ("image", "video", "audio")
BEFORE = dt.timedelta(minutes=1)  # estimates of a beginning are late
PATIENCE = dt.timedelta(minutes=10)  # so long outputs may still end, and be kept
NOTHING = "nothing could be kept: its outputs are gone, were called directly, or may not be kept (X-Fal-Store-IO: 0)"
_OF_NO_OUTPUT = frozenset({Source.SCORER, Source.DEVICE})
_DIMENSIONS = frozenset({"parameters", "endpoint", "cluster"})


@dataclasses.dataclass(frozen=True, slots=True)
class Copy:
    """One sealed copy."""

    sealed_id: str
    request_id: str
    what: str  # content type of a file, or "input"
    size_bytes: int
    replica_id: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Evidence:
    """What was sealed for a finding."""

    finding_id: str
    opened_at: dt.datetime
    words: str
    copies: tuple[Copy, ...] = ()


class EvidenceStore(Protocol):
    """Where it is written down what was sealed."""

    async def keep(self, evidence: Evidence) -> None:
        """Note what was sealed; opened again, the newer one stands."""
        ...

    async def of(self, finding_ids: Sequence[str]) -> Mapping[str, Evidence]:
        """Read what was sealed for findings."""
        ...

    async def forget(self, before: dt.datetime) -> None:
        """Remove what was opened before then."""
        ...


class Sealer(Protocol):
    """Puts what a request asked and made under seal, where that may be kept."""

    async def seal(self, finding_id: str, request_ids: Sequence[UUID]) -> Sequence[Copy]:
        """Return the copies; doing so twice is harmless. Raises Unavailable."""
        ...


def decide_due(kept: Sequence[Kept], known: Mapping[str, Evidence]) -> list[Kept]:
    """Return the open findings for which nothing was sealed since they opened."""
    return [
        item
        for item in kept
        if item.closed_at is None
        and item.finding.where.revision_id
        and item.finding.source not in _OF_NO_OUTPUT
        and not _is_open(item, known.get(item.finding.finding_id))
    ]


def decide_sample(finding: Finding, facts: Sequence[OutputFact]) -> list[OutputFact]:
    """Return the outputs that show what was found, at most SAMPLE; `facts` are of its revision since it began."""
    here = [fact for fact in facts if _concerns(finding, fact)]
    order = sorted(here, key=lambda fact: (not fact.failed, -fact.position))
    chosen: dict[UUID, OutputFact] = {}
    for fact in order:
        if len(chosen) < SAMPLE:
            chosen.setdefault(fact.request_id, fact)
    return list(chosen.values())


def told_of(finding: Finding, sample: Sequence[OutputFact], copies: Sequence[Copy], now: dt.datetime) -> Evidence:
    """Return what is written down: every copy with the replica whose output it is."""
    replicas = {str(fact.request_id): fact.replica_id for fact in sample}
    placed = tuple(dataclasses.replace(copy, replica_id=replicas.get(copy.request_id, "")) for copy in copies)
    requests = len({copy.request_id for copy in copies})
    files = sum(copy.what != "input" for copy in copies)
    words = f"{files} files of {requests} requests, with their inputs where they are kept" if copies else NOTHING
    return Evidence(finding.finding_id, now, words, placed)


def _is_open(item: Kept, evidence: Evidence | None) -> bool:
    return evidence is not None and evidence.opened_at >= item.first_at


def _concerns(finding: Finding, fact: OutputFact) -> bool:
    where = finding.where
    if fact.kind not in {*KINDS, ""} or fact.at < finding.since - BEFORE:
        return False
    if where.replica_id and fact.replica_id != where.replica_id:
        return False
    dimension, _, value = where.parameter.partition("=")
    return dimension not in _DIMENSIONS or value_of(fact, dimension) == value
