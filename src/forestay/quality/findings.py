"""What has been found wrong with a model, a revision or a replica, whoever found it. Values and a port.

A finding is a suspicion with its evidence, never a decision: whoever drains, quarantines or alerts reads findings and
says why. Canaries, probes, contracts, drift detectors and the search for duplicates write them; the same thing found
again is the same finding, with a later `last_at`.
"""

import dataclasses
import datetime as dt
import enum
import hashlib
from collections.abc import Mapping, Sequence
from typing import Protocol

from forestay.ids import ModelId, ReplicaId, RevisionId, WorkerId

MAX_WORDS = 500
MAX_EVIDENCE = 32  # numbers of one finding
_NO_REVISION, _NO_WORKER, _NO_REPLICA = RevisionId(""), WorkerId(""), ReplicaId("")


class Source(enum.StrEnum):
    """Who found it."""

    CANARY = "canary"
    CONTRACT = "contract"
    DRIFT = "drift"
    PROBE = "probe"
    DUPLICATE = "duplicate"
    DEVICE = "device"  # what a device or its driver says of itself
    SCORER = "scorer"  # a scorer that gives no scores: said of the scorer, of no model


@dataclasses.dataclass(frozen=True, slots=True)
class Where:
    """As far as it is localised; empty: not told apart."""

    model_id: ModelId
    revision_id: RevisionId = _NO_REVISION
    worker_id: WorkerId = _NO_WORKER
    replica_id: ReplicaId = _NO_REPLICA
    device: str = ""
    parameter: str = ""  # "num_inference_steps=50", "stage=vae", "adapter=film-noir"


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One thing found. `what` is a sentence without prompts, for people."""

    what: str
    catalogue: int  # row of the catalogue of failures; 0: none is named
    where: Where
    evidence: Mapping[str, float]  # numbers by name, units in the names
    since: dt.datetime  # estimate of when it began
    source: Source

    @property
    def finding_id(self) -> str:
        """Return what is the same for the same thing found again, in 16 hex digits."""
        parts = (self.source.value, str(self.catalogue), *dataclasses.astuple(self.where))
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True, slots=True)
class Kept:
    """A finding as it is stored. `finding` is as it was found last, but `since` is the earliest."""

    finding: Finding
    first_at: dt.datetime
    last_at: dt.datetime
    times: int
    closed_at: dt.datetime | None = None
    closed_for: str = ""


class FindingStore(Protocol):
    """Where findings lie."""

    async def keep(self, findings: Sequence[Finding], now: dt.datetime) -> list[str]:
        """Store them; returns the ids of those that were not open before, in order: they are to be told, once."""
        ...

    async def found(self, model_id: ModelId | None, since: dt.datetime, *, closed: bool = False) -> list[Kept]:
        """Read those that were last found at `since` or later, the newest first; closed ones only where asked for."""
        ...

    async def close(self, finding_id: str, now: dt.datetime, reason: str) -> bool:
        """Note that it is over; False where no open one has this id."""
        ...

    async def forget(self, before: dt.datetime, most: int) -> int:
        """Remove those last found before then, at most so many; returns how many went."""
        ...


def bounded(finding: Finding) -> Finding:
    """Return it with words and evidence within their limits, and without numbers that are none."""
    kept = {name[:64]: value for name, value in finding.evidence.items() if abs(value) <= 1e300}
    few = dict(list(kept.items())[:MAX_EVIDENCE])
    return dataclasses.replace(finding, what=finding.what[:MAX_WORDS], evidence=few)
