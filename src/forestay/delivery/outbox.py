"""The port of due webhooks, and its Postgres adapter.

A row is written in the statement that finishes its request (queue), so no finished request lacks its notice. Claiming a
row counts a try and hides it for a while (a short lease): a controller that dies in the middle of a delivery costs one
try and a delay, never the notice. The try's number is the fence: a late answer of a former claim changes nothing.
"""

import dataclasses
import datetime as dt
import uuid
from collections.abc import Sequence
from typing import Protocol

import asyncpg

from forestay.delivery.decide import Dead, Decision, Delivered, Retry
from forestay.ids import RequestId, TenantId
from forestay.storage.postgres import Database, load_queries

_SQL = load_queries("forestay.delivery", "sql/outbox.sql")
_MAX_ERROR = 500


@dataclasses.dataclass(frozen=True, slots=True)
class DueWebhook:
    """One notice to deliver now; `tries` counts this try."""

    request_id: RequestId
    tenant_id: TenantId
    url: str
    tries: int


@dataclasses.dataclass(frozen=True, slots=True)
class ClaimLimits:
    """Bounds of one claim: the lease outlives the time-out of the try it covers."""

    count: int
    per_tenant: int
    first_lease_seconds: float
    later_lease_seconds: float


class Outbox(Protocol):
    """Webhooks that are due."""

    async def claim(self, limits: ClaimLimits, busy: Sequence[TenantId]) -> list[DueWebhook]:
        """Claim due webhooks, oldest first, within the limits, and none of the `busy` tenants."""
        ...

    async def settle(self, due: DueWebhook, decision: Decision, status_code: int | None) -> bool:
        """Write what followed from this try; False when a later try has taken over."""
        ...

    async def forget(self, older_than_seconds: float, limit: int) -> int:
        """Delete delivered and dead webhooks made longer ago than that; returns how many."""
        ...


class PostgresOutbox:
    """Outbox over the table `webhooks`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, limits: ClaimLimits, busy: Sequence[TenantId]) -> list[DueWebhook]:
        """Claim in one statement; see the port."""
        rows = await self._database.fetch(
            _SQL["claim"],
            limits.count,
            limits.first_lease_seconds,
            limits.later_lease_seconds,
            limits.per_tenant,
            list(busy),
        )
        return [_due_from(row) for row in rows]

    async def settle(self, due: DueWebhook, decision: Decision, status_code: int | None) -> bool:
        """Write the outcome, fenced by the try's number."""
        match decision:
            case Delivered():
                state, at, error = "delivered", None, None
            case Retry():
                state, at, error = "pending", decision.at, decision.reason
            case Dead():
                state, at, error = "dead", None, decision.reason
        return await self._write(due, state, at, status_code, error)

    async def forget(self, older_than_seconds: float, limit: int) -> int:
        """Delete old rows that nothing will ever try again."""
        return len(await self._database.fetch(_SQL["forget"], older_than_seconds, limit))

    async def _write(
        self, due: DueWebhook, state: str, at: dt.datetime | None, status_code: int | None, error: str | None
    ) -> bool:
        cut = error[:_MAX_ERROR] if error else None
        row = await self._database.fetchrow(_SQL["settle"], due.request_id, due.tries, state, at, status_code, cut)
        return row is not None


def _due_from(row: asyncpg.Record) -> DueWebhook:
    request_id = RequestId(uuid.UUID(str(row["request_id"])))
    return DueWebhook(request_id, TenantId(row["tenant_id"]), row["url"], row["tries"])
