"""The outbox of notifications in Postgres.

A row commits with the decision to tell, under an id that follows from what is told. Claiming counts a try and hides
the row for a short lease: a controller that dies in the middle of sending costs one try and a delay, never the
notification. The try's number is the fence: a late answer of a former claim changes nothing. Times are the sender's,
who alone holds the loop's lease. It decides nothing.
"""

import datetime as dt
from collections.abc import Mapping, Sequence

import asyncpg
import msgspec

from forestay.alerts.store import ClaimLimits, Due, Message, NotificationView
from forestay.delivery.decide import Dead, Decision, Delivered, Retry
from forestay.storage.postgres import Connection, Database, load_queries

SQL = load_queries("forestay.alerts", "sql/outbox.sql")
_MAX_ERROR = 500
_BATCH = 1_000


async def put(connection: Connection, messages: Sequence[Message], now: dt.datetime) -> None:
    """Keep messages in the caller's transaction; one that is there already stays as it is."""
    rows = [(item.notification_id, item.receiver, item.group, item.body, now) for item in messages]
    await connection.executemany(SQL["put"], rows)


class PostgresOutbox:
    """Outbox over the table `alert_notifications`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, limits: ClaimLimits, busy: Sequence[str], now: dt.datetime) -> list[Due]:
        """Claim in one statement; see the port."""
        rows = await self._database.fetch(
            SQL["claim"], now, limits.count, limits.lease_seconds, limits.per_receiver, list(busy)
        )
        return [_due(row) for row in rows]

    async def settle(self, due: Due, decision: Decision, now: dt.datetime) -> bool:
        """Write the outcome, fenced by the try's number."""
        match decision:
            case Delivered():
                state, at, error = "delivered", None, None
            case Retry():
                state, at, error = "pending", decision.at, decision.reason[:_MAX_ERROR]
            case Dead():
                state, at, error = "dead", None, decision.reason[:_MAX_ERROR]
        row = await self._database.fetchrow(
            SQL["settle"], due.message.notification_id, due.tries, state, at, error, now
        )
        return row is not None

    async def stuck(self, before: dt.datetime) -> int:
        """Count what has been due since before that moment and was never tried."""
        return int(str(await self._database.fetchval(SQL["stuck"], before)))

    async def dead_since(self, moment: dt.datetime) -> Mapping[str, int]:
        """Count what was given up, by receiver, of what was decided since that moment."""
        return {row["receiver"]: row["dead"] for row in await self._database.fetch(SQL["dead_since"], moment)}

    async def forget(self, before: dt.datetime) -> int:
        """Delete a batch of old rows that nothing will ever try again; returns how many."""
        return len(await self._database.fetch(SQL["forget"], before, _BATCH))


def view_of(row: asyncpg.Record) -> NotificationView:
    """Read a row for people."""
    return msgspec.convert(dict(row), NotificationView)


def _due(row: asyncpg.Record) -> Due:
    message = Message(row["notification_id"], row["receiver"], row["group_key"], row["body"])
    return Due(message, row["tries"])
