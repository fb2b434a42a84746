"""Waivers, admissions and score cards in Postgres, and what was measured of a revision. Decides nothing."""

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence

import msgspec

from forestay.fleet import postgres_audit
from forestay.fleet.audit import AuditEntry
from forestay.ids import ModelId, RevisionId
from forestay.readiness.model import Card, Measured, Waiver
from forestay.storage.postgres import Database, load_queries

_SQL = load_queries("forestay.readiness", "sql/readiness.sql")
_FACTS = load_queries("forestay.readiness", "sql/facts.sql")


@dataclasses.dataclass(frozen=True, slots=True)
class Standing:
    """How a model stands: who let it in and when, and since when its card says no."""

    admitted_at: dt.datetime | None
    admitted_by: str | None
    ready: bool
    reviewed_at: dt.datetime
    unready_since: dt.datetime | None

    @property
    def state(self) -> str:
        """Return it in a word or two: admitted, rotted (let in, and ready no more), ready or not ready."""
        if self.admitted_at is not None:
            return "admitted" if self.ready else "rotted"
        return "ready" if self.ready else "not ready"


class PostgresReadiness:
    """The readiness tables of the main database, and the facts database; `writer` names the audit chain."""

    def __init__(self, database: Database, facts: Database, *, writer: str) -> None:
        self._database = database
        self._facts = facts
        self._writer = writer

    async def waive(self, model_id: ModelId, waiver: Waiver, audit: AuditEntry) -> None:
        """Store a waiver with its audit row, instead of the one for the same item."""
        async with self._database.transaction() as connection:
            await connection.execute(
                _SQL["waive"], model_id, waiver.item, waiver.owner, waiver.reason, waiver.until, audit.actor
            )
            await postgres_audit.append(connection, self._writer, [audit])

    async def waivers(self, model_id: ModelId) -> Sequence[Waiver]:
        """Read the waivers of a model, also those that have ended."""
        rows = await self._database.fetch(_SQL["waivers"], model_id)
        return [Waiver(row["item"], row["owner"], row["reason"], row["until"]) for row in rows]

    async def admit(self, card: Card, audit: AuditEntry) -> None:
        """Note that a model was let in, with its audit row."""
        async with self._database.transaction() as connection:
            await connection.execute(_SQL["admit"], card.model_id, card.at, audit.actor, _text(card))
            await postgres_audit.append(connection, self._writer, [audit])

    async def keep(self, card: Card) -> None:
        """Keep the newest card."""
        await self._database.execute(_SQL["keep"], card.model_id, _text(card), card.ready, card.at)

    async def standing(self, model_id: ModelId) -> Standing | None:
        """Read how a model stands; None when it was never reviewed."""
        row = await self._database.fetchrow(_SQL["standing"], model_id)
        return None if row is None else Standing(**dict(row))

    async def standings(self) -> Mapping[ModelId, Standing]:
        """Read how every model stands that was ever reviewed."""
        rows = [dict(row) for row in await self._database.fetch(_SQL["standings"])]
        return {ModelId(row.pop("model_id")): Standing(**row) for row in rows}

    async def measured(self, model_id: ModelId, revision_id: RevisionId, since: dt.datetime) -> Measured:
        """Add up what ended on a revision since then."""
        row = await self._facts.fetchrow(_FACTS["measured"], revision_id, since, model_id)
        return Measured() if row is None else Measured(**dict(row))


def _text(card: Card) -> str:
    return msgspec.json.encode(card).decode()
