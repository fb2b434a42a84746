"""What was sealed for findings, in Postgres. Decides nothing; the port is in `evidence`."""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import cast

import msgspec

from forestay.quality.evidence import Copy, Evidence
from forestay.storage.postgres import Database, load_queries

_SQL = load_queries("forestay.quality", "sql/evidence.sql")


class PostgresEvidence:
    """EvidenceStore over the table `quality_evidence`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep(self, evidence: Evidence) -> None:
        """Note what was sealed; opened again, the newer one stands."""
        copies = msgspec.json.encode(evidence.copies).decode()
        await self._database.execute(_SQL["keep"], evidence.finding_id, evidence.opened_at, evidence.words, copies)

    async def of(self, finding_ids: Sequence[str]) -> Mapping[str, Evidence]:
        """Read what was sealed for findings."""
        rows = await self._database.fetch(_SQL["of"], list(finding_ids))
        found: dict[str, Evidence] = {}
        for row in rows:
            copies = msgspec.json.decode(cast("str", row["copies"]), type=tuple[Copy, ...])
            opened_at, words = cast("dt.datetime", row["opened_at"]), cast("str", row["words"])
            found[cast("str", row["finding_id"])] = Evidence(cast("str", row["finding_id"]), opened_at, words, copies)
        return found

    async def forget(self, before: dt.datetime) -> None:
        """Remove what was opened before then."""
        await self._database.execute(_SQL["forget"], before)
