"""Rollouts in Postgres: the adapters of `rollouts/store`.

It decides nothing. A rollout, its journal line and its audit row are written in one transaction.
"""

from collections.abc import Sequence

import asyncpg
import msgspec

from forestay.fleet import postgres_audit
from forestay.fleet.audit import AuditEntry
from forestay.fleet.postgres_store import raise_step
from forestay.ids import ModelId, RequestId
from forestay.rollouts.model import Cursor, JournalEntry, Rollout, Stage
from forestay.rollouts.observe import FinishedRequest
from forestay.storage.postgres import Database, load_queries

SETTLED_SECONDS = 3.0  # facts are shipped within about a second; later ones are not waited for
_SQL = load_queries("forestay.rollouts", "sql/rollouts.sql")
_FACTS = load_queries("forestay.rollouts", "sql/facts.sql")


class PostgresRolloutStore:
    """RolloutStore over the main database; `writer` names this process's audit chain."""

    def __init__(self, database: Database, *, writer: str) -> None:
        self._database = database
        self._writer = writer

    async def begin(self, rollout: Rollout, audit: AuditEntry) -> bool:
        """Store a new one with its audit row; False when the model has one that is not settled."""
        text = msgspec.json.encode(rollout).decode()
        async with self._database.transaction() as connection:
            made = await connection.fetchrow(
                _SQL["begin"], rollout.rollout_id, rollout.model_id, rollout.version, rollout.settled, text
            )
            if made is None:
                return False
            entry = JournalEntry(
                rollout.version, rollout.started_at, rollout.started_by, rollout.stage, rollout.weight, rollout.reason
            )
            await connection.execute(_SQL["note"], rollout.rollout_id, *_columns(entry))
            await raise_step(connection, rollout.model_id, (rollout.rollout_id, rollout.version))
            await postgres_audit.append(connection, self._writer, [audit])
        return True

    async def open(self) -> list[Rollout]:
        """Return those that are not settled, oldest first."""
        return [_rollout(row) for row in await self._database.fetch(_SQL["open"])]

    async def get(self, rollout_id: str) -> Rollout | None:
        """Return one, None when it is not known."""
        row = await self._database.fetchrow(_SQL["get"], rollout_id)
        return None if row is None else _rollout(row)

    async def newest(self, model_id: ModelId | None, limit: int) -> list[Rollout]:
        """Return the newest first, of one model or of all."""
        return [_rollout(row) for row in await self._database.fetch(_SQL["newest"], model_id or "", limit)]

    async def save(self, rollout: Rollout, entry: JournalEntry | None = None, audit: AuditEntry | None = None) -> bool:
        """Store version N if N-1 is stored, with its journal line and audit row; False when it is not."""
        text = msgspec.json.encode(rollout).decode()
        async with self._database.transaction() as connection:
            saved = await connection.fetchrow(_SQL["save"], rollout.rollout_id, rollout.version, rollout.settled, text)
            if saved is None:
                return False
            await raise_step(connection, rollout.model_id, (rollout.rollout_id, rollout.version))
            if entry is not None:
                await connection.execute(_SQL["note"], rollout.rollout_id, *_columns(entry))
            if audit is not None:
                await postgres_audit.append(connection, self._writer, [audit])
        return True

    async def journal(self, rollout_id: str) -> list[JournalEntry]:
        """Return every step, first to last."""
        rows = await self._database.fetch(_SQL["journal"], rollout_id)
        return [
            JournalEntry(
                row["version"], row["at"], row["actor"], Stage(row["stage"]), float(row["weight"]), row["reason"]
            )
            for row in rows
        ]


class PostgresRolloutFacts:
    """RolloutFacts over the facts database."""

    def __init__(self, facts: Database, settled_seconds: float = SETTLED_SECONDS) -> None:
        self._facts = facts
        self._settled_seconds = settled_seconds

    async def after(self, model_id: ModelId, cursor: Cursor, limit: int) -> Sequence[FinishedRequest]:
        """Read what ended after the cursor and at least a moment ago, in order; raises Unavailable."""
        rows = await self._facts.fetch(
            _FACTS["after"], model_id, cursor.finished_at, cursor.request_id, self._settled_seconds, limit
        )
        return [_fact(row) for row in rows]


def _columns(entry: JournalEntry) -> tuple[object, ...]:
    return entry.version, entry.at, entry.actor, entry.stage.value, entry.weight, entry.reason


def _rollout(row: asyncpg.Record) -> Rollout:
    return msgspec.json.decode(row["state"], type=Rollout)


def _fact(row: asyncpg.Record) -> FinishedRequest:
    return FinishedRequest(
        RequestId(row["request_id"]),
        row["endpoint"],
        row["outcome"],
        row["submitted_at"],
        row["started_at"],
        row["finished_at"],
        float(row["device_seconds"]),
        msgspec.json.decode(row["work"], type=dict[str, object]),
        row["tenant_id"],
    )
