"""What is told of reviews to FORESTAY_REVIEW_URL, as it waits in Postgres: at least once, under a stable id.

A row is written with the change that it tells of, in one transaction, so that none is told that did not happen and
none is forgotten. Claiming counts a try and hides the row for a while; the try's number is the fence. Decides
nothing. Written by `postgres_store`, worked off by `delivery/review_export`, listed by the admin API.
"""

# The driver's pooled connection is partly untyped: this adapter is where types begin.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from forestay.storage.postgres import Database, load_queries

_SQL = load_queries("forestay.safety.review", "sql/events.sql")
_MAX_ERROR = 500
EventState = Literal["pending", "delivered", "dead"]


@dataclasses.dataclass(frozen=True, slots=True)
class DueEvent:
    """One thing to tell now; `tries` counts this try."""

    event_id: str
    body: Mapping[str, object]
    tries: int


@dataclasses.dataclass(frozen=True, slots=True)
class ToldEvent:
    """One thing told, or not, as people see it."""

    event_id: str
    item_id: str
    state: str
    tries: int
    due_at: dt.datetime
    last_status: int | None
    last_error: str
    made_at: dt.datetime


class PostgresReviewEvents:
    """What is to be told."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, count: int, lease_seconds: float) -> Sequence[DueEvent]:
        """Take what is due, oldest first; each is hidden from others for the lease."""
        rows = await self._database.fetch(_SQL["claim"], count, lease_seconds)
        return [DueEvent(str(row["event_id"]), row["body"], int(row["tries"])) for row in rows]

    async def settle(
        self, due: DueEvent, state: EventState, at: dt.datetime | None, status: int | None, error: str
    ) -> bool:
        """Write what followed from this try; False when a later one has taken over."""
        values = (due.event_id, due.tries, state, at, status, error[:_MAX_ERROR])
        return await self._database.fetchrow(_SQL["settle"], *values) is not None

    async def listed(self, state: EventState, limit: int) -> Sequence[ToldEvent]:
        """List events of one state, newest first."""
        return [msgspec.convert(dict(row), ToldEvent) for row in await self._database.fetch(_SQL["list"], state, limit)]

    async def revive(self, event_id: str) -> bool:
        """Make a dead event due now; False when it is not dead."""
        return await self._database.fetchrow(_SQL["revive"], event_id) is not None

    async def forget(self, older_than_seconds: float, limit: int) -> int:
        """Delete events that nothing will ever try again, older than that; returns how many."""
        return len(await self._database.fetch(_SQL["forget"], older_than_seconds, limit))
