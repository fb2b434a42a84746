"""Conditions of outputs: what was found wrong with them and still stands, and what is held back because of it.

`conditions_of` is pure. What is wrong was decided by those who found it, what is drained by `quality/remedies`; here it
is told, once for each place. Outputs of one replica are a ticket where others are healthy; those of a whole revision,
and one tenant's output in another's hands, are a page. A scorer that fails is told as its own trouble, of no model.
"""

import datetime as dt
from collections.abc import Sequence

from forestay.alerts.catalogue import QUALITY
from forestay.alerts.model import Condition, Severity
from forestay.quality.findings import FindingStore, Kept, Source
from forestay.quality.watch_store import Hold, HoldStore

STANDS = dt.timedelta(minutes=30)  # after it was last seen
_BREAKS = frozenset({Source.CONTRACT, Source.PROBE, Source.CANARY})


def conditions_of(kept: Sequence[Kept], holds: Sequence[Hold], now: dt.datetime) -> list[Condition]:
    """Return what holds. What a person drained is no news to anybody: `forestay quality status` shows it."""
    found = [_found(item) for item in kept if item.closed_at is None and now - item.last_at <= STANDS]
    return [*found, *(_held(hold) for hold in holds if not hold.by_person)]


def _found(kept: Kept) -> Condition:
    finding = kept.finding
    if finding.source is Source.SCORER:
        return _of_scorer(kept)
    where, repeated = finding.where, finding.source is Source.DUPLICATE
    facts = {name: round(value, 4) for name, value in list(finding.evidence.items())[:10]}
    return Condition(
        source=QUALITY,
        subject=f"model:{where.model_id}",
        name="outputs_repeated" if repeated else "outputs_degraded",
        severity=_severity(kept),
        since=finding.since,
        summary=finding.what,
        labels={
            "revision": where.revision_id,
            "replica": where.replica_id,
            "row": str(finding.catalogue),
            "found_by": finding.source.value,
        },
        facts={**facts, "times": kept.times},
        part="repeated" if repeated else _part(kept),
    )


def _of_scorer(kept: Kept) -> Condition:
    """Return what is told of a scorer: its own trouble, which says nothing of any model."""
    finding = kept.finding
    return Condition(
        source=QUALITY,
        subject=finding.where.parameter.replace("scorer=", "scorer:"),
        name="scorer_silent",
        severity=Severity.TICKET,
        since=finding.since,
        summary=finding.what,
        labels={"worker": finding.where.worker_id},
        facts={"times": kept.times},
        part=finding.where.worker_id,
    )


def _part(kept: Kept) -> str:
    """Return what makes it one alert: whoever finds the same replica, or the same revision, bad adds to it."""
    where = kept.finding.where
    return where.replica_id or f"{where.revision_id} {where.parameter}".strip()


def _severity(kept: Kept) -> Severity:
    finding = kept.finding
    if finding.source is Source.DUPLICATE:
        return Severity.PAGE if finding.evidence.get("across_tenants") else Severity.TICKET
    everywhere = not finding.where.replica_id and not finding.where.parameter
    return Severity.PAGE if everywhere and finding.source in _BREAKS else Severity.TICKET


def _held(hold: Hold) -> Condition:
    what = f"{hold.worker_id} runs no replica of revision {hold.revision_id}"
    if hold.alone:
        what = f"{hold.worker_id} runs no replica in place of {hold.replica_id} of revision {hold.revision_id}"
    return Condition(
        source=QUALITY,
        subject=f"worker:{hold.worker_id}",
        name="replica_held_back",
        severity=Severity.TICKET,
        since=hold.held_at,
        summary=f"{what} since {hold.held_at:%H:%M} UTC: {hold.reason}",
        labels={"model": hold.model_id, "revision": hold.revision_id, "replica": hold.replica_id},
        part=hold.revision_id,
    )


class QualitySource:
    """Reads what was found and what is held back."""

    def __init__(self, findings: FindingStore, holds: HoldStore) -> None:
        self._findings = findings
        self._holds = holds

    @property
    def name(self) -> str:
        """Return the source's name."""
        return QUALITY

    async def conditions(self, now: dt.datetime) -> Sequence[Condition]:
        """Return what holds now."""
        kept = await self._findings.found(None, now - STANDS)
        told: dict[str, Condition] = {}
        for condition in conditions_of(kept, await self._holds.holds(), now):
            told.setdefault(condition.fingerprint, condition)  # the newest of several that say the same
        return list(told.values())
