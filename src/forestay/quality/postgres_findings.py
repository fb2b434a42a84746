"""Findings in Postgres. Decides nothing; the port is in `findings`."""

import dataclasses
import datetime as dt
from collections.abc import Sequence
from typing import cast

import msgspec

from forestay.ids import ModelId
from forestay.quality.findings import Finding, Kept, bounded
from forestay.storage.postgres import Database, Record, load_queries

MAX_FOUND = 1_000
_SQL = load_queries("forestay.quality", "sql/findings.sql")


class PostgresFindings:
    """FindingStore over the table `quality_findings`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep(self, findings: Sequence[Finding], now: dt.datetime) -> list[str]:
        """Store them; returns the ids of those that were not open before."""
        told = {item.finding_id: _row(bounded(item)) for item in findings}
        if not told:
            return []
        rows = await self._database.fetch(_SQL["keep"], msgspec.json.encode(list(told.values())).decode(), now)
        fresh = {cast("str", row["finding_id"]) for row in rows}
        return [finding_id for finding_id in told if finding_id in fresh]

    async def found(self, model_id: ModelId | None, since: dt.datetime, *, closed: bool = False) -> list[Kept]:
        """Read those that were last found at `since` or later, the newest first."""
        rows = await self._database.fetch(_SQL["found"], model_id, since, closed, MAX_FOUND)
        return [_kept(row) for row in rows]

    async def close(self, finding_id: str, now: dt.datetime, reason: str) -> bool:
        """Note that it is over; False where no open one has this id."""
        return await self._database.fetchrow(_SQL["close"], finding_id, now, reason) is not None

    async def forget(self, before: dt.datetime, most: int) -> int:
        """Remove those last found before then; returns how many went."""
        return cast("int", await self._database.fetchval(_SQL["forget"], before, most))


def _row(finding: Finding) -> dict[str, object]:
    return {
        "finding_id": finding.finding_id,
        "model_id": finding.where.model_id,
        "source": finding.source.value,
        "since": finding.since,
        "finding": finding,
    }


def _kept(row: Record) -> Kept:
    finding = msgspec.json.decode(cast("str", row["finding"]), type=Finding)
    return Kept(
        finding=dataclasses.replace(finding, since=cast("dt.datetime", row["since"])),
        first_at=cast("dt.datetime", row["first_at"]),
        last_at=cast("dt.datetime", row["last_at"]),
        times=cast("int", row["times"]),
        closed_at=cast("dt.datetime | None", row["closed_at"]),
        closed_for=cast("str", row["closed_for"]),
    )
