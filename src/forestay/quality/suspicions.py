"""Which findings ask for a remedy, whoever found them: canaries, contracts, probes, detectors. Pure.

It decides what is sure enough: what a canary or a contract found, what a device says that makes it unfit, and what a
detector found beyond the false alarms of the whole fleet. A duplicate across tenants is alerted on; draining does not
empty a cache that others share, and a scorer that fails says nothing of a model. Called by `loop`.
"""

from collections.abc import Sequence

from forestay.fleet.model import Fleet, ReplicaState
from forestay.quality.findings import Finding, Kept, Source
from forestay.quality.remedies import Suspicion

_LEAST_FAILED = 2  # broken outputs; one alone is bad luck
_OF_NOBODY = frozenset({Source.DUPLICATE, Source.SCORER})
_LEAVES = frozenset({Source.CONTRACT, Source.CANARY, Source.PROBE})  # a drift of a revision may be what was wanted


def suspicions_of(kept: Sequence[Kept], fleet: Fleet) -> list[Suspicion]:
    """Return what asks for a remedy."""
    open_ones = [item for item in kept if item.closed_at is None]
    return [
        Suspicion(
            finding_id=item.finding.finding_id,
            model_id=item.finding.where.model_id,
            revision_id=item.finding.where.revision_id,
            replica_id=item.finding.where.replica_id,
            sure=_is_sure(item.finding),
            peers_healthy=_has_healthy_peers(item.finding, open_ones, fleet),
            at=item.last_at,
            reason=item.finding.what,
            of_device=item.finding.source is Source.DEVICE,
        )
        for item in open_ones
        if item.finding.where.revision_id and item.finding.source not in _OF_NOBODY
    ]


def _is_sure(finding: Finding) -> bool:
    where = finding.where
    if not where.replica_id and (where.parameter or finding.source not in _LEAVES):
        return False
    if finding.source is Source.DRIFT:
        return finding.evidence.get("sure", 0.0) > 0
    if finding.source is Source.DEVICE:
        return finding.evidence.get("unfit", 0.0) > 0
    return finding.source is not Source.CONTRACT or finding.evidence.get("failed", 0.0) >= _LEAST_FAILED


def _has_healthy_peers(finding: Finding, kept: Sequence[Kept], fleet: Fleet) -> bool:
    """Tell whether another ready replica of the revision is under no suspicion, and was seen to be healthy."""
    if finding.source in {Source.DRIFT, Source.CONTRACT} and not finding.evidence.get("healthy_replicas", 0.0):
        return False
    of_all = any(
        item.finding.where.revision_id == finding.where.revision_id
        and not item.finding.where.replica_id
        and item.finding.source in _LEAVES
        and not (item.finding.source is Source.CANARY and item.finding.where.parameter)  # a dispute: of nobody
        for item in kept
    )
    ill = {item.finding.where.replica_id for item in kept}
    return not of_all and any(
        replica.revision_id == finding.where.revision_id
        and replica.state is ReplicaState.READY
        and replica.replica_id not in ill
        for replica in fleet.replicas.values()
    )
