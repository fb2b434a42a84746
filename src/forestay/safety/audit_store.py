"""The sample of released outputs, and what people or a second detector found in it, in Postgres.

Which outputs are in the sample follows from a seed, a ratio and the request's id alone, so that nobody picks and every
process picks the same; they come in the order of a hash, so that the first so many are a random sample too. A label is
kept once, with its audit row in the same transaction, and never edited. It holds no content. It decides nothing about
what the labels mean (`audit`). Called by the admin API.
"""

import dataclasses
import datetime as dt
import uuid
from typing import cast

from forestay.fleet import postgres_audit
from forestay.fleet.audit import AuditEntry
from forestay.safety.audit import Labels
from forestay.storage.postgres import Database, Record, load_queries

_SQL = load_queries("forestay.safety", "sql/audit.sql")
_WHOLE = 1 << 32
MOST_SAMPLED = 5_000  # of one time that is looked through


@dataclasses.dataclass(frozen=True, slots=True)
class Sampling:
    """Which outputs are looked at: those whose hash under `seed` lies below `ratio`."""

    seed: str
    ratio: float

    @property
    def below(self) -> int:
        """The bound of the hash, of 2^32."""
        return round(min(max(self.ratio, 0.0), 1.0) * _WHOLE)


@dataclasses.dataclass(frozen=True, slots=True)
class Released:
    """One released output of the sample; `verdict` is empty where it went out unjudged."""

    request_id: uuid.UUID
    model_id: str
    tenant_id: str
    released_at: dt.datetime
    verdict: str
    policy_id: str
    policy_version: int


@dataclasses.dataclass(frozen=True, slots=True)
class Label:
    """What somebody found."""

    released: Released
    wrong: bool
    by: str
    reason: str


class PostgresAudits:
    """Samples from the facts database, labels in the main one; `writer` names this process's audit chain."""

    def __init__(self, database: Database, facts: Database, *, writer: str) -> None:
        self._database = database
        self._facts = facts
        self._writer = writer

    async def due(self, sampling: Sampling, since: dt.datetime, until: dt.datetime, limit: int) -> list[Released]:
        """Read the sampled outputs of a time that nobody has looked at, in the order in which they are due."""
        rows = await self._facts.fetch(_SQL["sampled"], since, until, sampling.seed, sampling.below, MOST_SAMPLED)
        ids = [row["request_id"] for row in rows]
        done = {row["request_id"] for row in await self._database.fetch(_SQL["labelled"], ids)}
        return [_released(row) for row in rows if row["request_id"] not in done][:limit]

    async def find(self, sampling: Sampling, request_id: uuid.UUID, since: dt.datetime) -> Released | None:
        """Read one output; None where it is not in the sample of what was released since."""
        row = await self._facts.fetchrow(_SQL["sampled_one"], request_id, since, sampling.seed, sampling.below)
        return None if row is None else _released(row)

    async def label(self, label: Label, audit: AuditEntry) -> bool:
        """Keep a label with its audit row; False where that output was looked at already."""
        found = label.released
        async with self._database.transaction() as connection:
            kept = await connection.fetchrow(
                _SQL["label"], found.request_id, found.model_id, found.tenant_id, found.policy_id,
                found.policy_version, found.released_at, label.wrong, label.by, label.reason, audit.at,
            )  # fmt: skip
            if kept is not None:
                await postgres_audit.append(connection, self._writer, [audit])
        return kept is not None

    async def labels(
        self,
        since: dt.datetime,
        model_id: str | None = None,
        tenant_id: str | None = None,
        until: dt.datetime | None = None,
    ) -> Labels:
        """Count what was found in outputs released since then, and before `until`, of one model or tenant or all."""
        row = await self._database.fetchrow(_SQL["counts"], since, model_id, tenant_id, until)
        return Labels(0, 0) if row is None else Labels(cast("int", row["right"]), cast("int", row["wrong"]))


def _released(row: Record) -> Released:
    return Released(**{field.name: row[field.name] for field in dataclasses.fields(Released)})
