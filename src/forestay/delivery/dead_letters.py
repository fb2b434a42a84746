"""Webhooks for a person's eyes: which are dead, and how one is tried again.

It decides nothing. Called by the gateway's admin API; delivering them is the controller's business.
"""

import dataclasses
import datetime as dt
import uuid
from typing import Protocol

import msgspec

from forestay.ids import RequestId, TenantId
from forestay.storage.postgres import Database, load_queries

_SQL = load_queries("forestay.delivery", "sql/dead_letters.sql")


@dataclasses.dataclass(frozen=True, slots=True)
class WebhookView:
    """One webhook as it stands."""

    request_id: uuid.UUID
    tenant_id: TenantId
    url: str
    state: str  # pending | delivered | dead
    tries: int
    next_try_at: dt.datetime
    last_status: int | None
    last_error: str | None
    created_at: dt.datetime
    delivered_at: dt.datetime | None


class DeadLetters(Protocol):
    """Webhooks by state."""

    async def webhooks(self, state: str, limit: int) -> list[WebhookView]:
        """List at most `limit` webhooks in that state, newest first."""
        ...

    async def revive(self, request_id: RequestId) -> bool:
        """Make a dead webhook due now; False when it is not dead."""
        ...


class PostgresDeadLetters:
    """DeadLetters over the table `webhooks`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def webhooks(self, state: str, limit: int) -> list[WebhookView]:
        """List at most `limit` webhooks in that state, newest first."""
        rows = await self._database.fetch(_SQL["list"], state, limit)
        return [msgspec.convert(dict(row), WebhookView) for row in rows]

    async def revive(self, request_id: RequestId) -> bool:
        """Make a dead webhook due now; False when it is not dead."""
        return await self._database.fetchrow(_SQL["revive"], request_id) is not None
