"""Findings in memory: an adapter of the port for tests, held to the same suite as Postgres."""

import dataclasses
import datetime as dt
from collections.abc import Sequence

from forestay.ids import ModelId
from forestay.quality.findings import Finding, Kept, bounded


class MemoryFindings:
    """Findings that are forgotten when it is dropped."""

    def __init__(self) -> None:
        self.kept: dict[str, Kept] = {}

    async def keep(self, findings: Sequence[Finding], now: dt.datetime) -> list[str]:
        """Store them; returns the ids of those that were not open before."""
        fresh: list[str] = []
        for item in {item.finding_id: bounded(item) for item in findings}.values():
            old = self.kept.get(item.finding_id)
            if old is None or old.closed_at is not None:
                fresh.append(item.finding_id)
                self.kept[item.finding_id] = Kept(item, now, now, 1)
            else:
                since = min(item.since, old.finding.since)
                again = dataclasses.replace(item, since=since)
                self.kept[item.finding_id] = dataclasses.replace(old, finding=again, last_at=now, times=old.times + 1)
        return fresh

    async def found(self, model_id: ModelId | None, since: dt.datetime, *, closed: bool = False) -> list[Kept]:
        """Read those that were last found at `since` or later, the newest first."""
        wanted = [
            item
            for item in self.kept.values()
            if (model_id is None or item.finding.where.model_id == model_id)
            and item.last_at >= since
            and (closed or item.closed_at is None)
        ]
        return sorted(wanted, key=lambda item: (-item.last_at.timestamp(), item.finding.finding_id))

    async def close(self, finding_id: str, now: dt.datetime, reason: str) -> bool:
        """Note that it is over; False where no open one has this id."""
        old = self.kept.get(finding_id)
        if old is None or old.closed_at is not None:
            return False
        self.kept[finding_id] = dataclasses.replace(old, closed_at=now, closed_for=reason)
        return True

    async def forget(self, before: dt.datetime, most: int) -> int:
        """Remove those last found before then; returns how many went."""
        gone = sorted((item.last_at, name) for name, item in self.kept.items() if item.last_at < before)[:most]
        for _, name in gone:
            del self.kept[name]
        return len(gone)
