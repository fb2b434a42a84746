"""What people ask of alerts and say to them, in Postgres: each act that changes something commits with its audit row.

It decides nothing: what an acknowledgement or a silence leads to is `decide`'s, at the next look.
"""

# The driver's pooled connection is partly untyped: this adapter is where types begin.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import datetime as dt
from collections.abc import Mapping, Sequence

import msgspec

from forestay.alerts import postgres_outbox
from forestay.alerts.model import Alert
from forestay.alerts.postgres_outbox import view_of
from forestay.alerts.postgres_store import alert_of, silence_of
from forestay.alerts.rules import Silence
from forestay.alerts.store import Event, Message, NotificationView
from forestay.clock import Clock
from forestay.fleet import postgres_audit
from forestay.fleet.audit import AuditEntry
from forestay.storage.postgres import Connection, Database, load_queries

_SQL = load_queries("forestay.alerts", "sql/alerts.sql")
_OUTBOX = postgres_outbox.SQL


class PostgresAlertDesk:
    """AlertDesk over the tables of alerting; `writer` names this process's audit chain."""

    def __init__(self, database: Database, clock: Clock, writer: str = "alerts") -> None:
        self._database = database
        self._clock = clock
        self._writer = writer

    async def alerts(self, state: str | None, limit: int) -> list[Alert]:
        """List alerts, newest first."""
        return [alert_of(row) for row in await self._database.fetch(_SQL["list"], state, limit)]

    async def find(self, alert_id: str) -> Alert | None:
        """Read one alert."""
        row = await self._database.fetchrow(_SQL["find"], alert_id)
        return None if row is None else alert_of(row)

    async def events(self, alert_id: str, limit: int) -> list[Event]:
        """Read what was decided about it, in order."""
        rows = await self._database.fetch(_SQL["events"], alert_id, limit)
        return [msgspec.convert(dict(row), Event) for row in rows]

    async def acknowledge(self, alert_id: str, *, actor: str, why: str) -> bool:
        """Note that somebody has a firing alert in hand; False when it does not fire."""
        now = self._clock.now()
        async with self._database.transaction() as connection:
            if await connection.fetchrow(_SQL["ack"], alert_id, now, actor, why) is None:
                return False
            await connection.execute(_SQL["note"], alert_id, now, "ack", f"{actor}: {why}")
            await self._audit(connection, actor, "acknowledge_alert", f"alert:{alert_id}", {}, why)
        return True

    async def silence(self, silence: Silence) -> None:
        """Put a silence in force."""
        matchers = [str(matcher) for matcher in silence.matchers]
        async with self._database.transaction() as connection:
            await connection.execute(
                _SQL["silence"], silence.silence_id, matchers, silence.since, silence.until, silence.by, silence.why
            )
            detail: dict[str, object] = {"matchers": matchers, "until": silence.until.isoformat()}
            subject = f"silence:{silence.silence_id}"
            await self._audit(connection, silence.by, "silence_alerts", subject, detail, silence.why)

    async def end_silence(self, silence_id: str, *, actor: str, why: str) -> bool:
        """End a silence before its time; False when none is in force."""
        async with self._database.transaction() as connection:
            if await connection.fetchrow(_SQL["end_silence"], silence_id, self._clock.now(), actor) is None:
                return False
            await self._audit(connection, actor, "end_silence", f"silence:{silence_id}", {}, why)
        return True

    async def silences(self, *, ended: bool, limit: int) -> list[Silence]:
        """List silences, newest first."""
        rows = await self._database.fetch(_SQL["silences"], ended, self._clock.now(), limit)
        return [silence_of(row) for row in rows]

    async def routes(self) -> tuple[Mapping[str, object], dt.datetime | None]:
        """Read what the controller has read of routes and receivers, and when it last decided."""
        row = await self._database.fetchrow(_SQL["routes"])
        return ({}, None) if row is None else (row["routes"], row["decided_at"])

    async def put_tests(self, messages: Sequence[Message], *, actor: str) -> None:
        """Have test notifications sent."""
        receivers = [message.receiver for message in messages]
        async with self._database.transaction() as connection:
            await postgres_outbox.put(connection, messages, self._clock.now())
            await self._audit(connection, actor, "test_receivers", "alerts", {"receivers": receivers}, "asked for")

    async def notifications(self, state: str | None, limit: int) -> list[NotificationView]:
        """List notifications, newest first."""
        return [view_of(row) for row in await self._database.fetch(_OUTBOX["list"], state, limit)]

    async def named(self, notification_ids: Sequence[str]) -> list[NotificationView]:
        """Read notifications by id."""
        return [view_of(row) for row in await self._database.fetch(_OUTBOX["named"], list(notification_ids))]

    async def revive(self, notification_id: str, *, actor: str, why: str) -> bool:
        """Have a dead notification sent anew; False when it is not dead."""
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(_OUTBOX["revive"], notification_id, self._clock.now())
            if row is None:
                return False
            await self._audit(connection, actor, "resend_notification", f"notification:{notification_id}", {}, why)
        return True

    async def _audit(
        self,
        connection: Connection,
        actor: str,
        action: str,
        subject: str,
        detail: Mapping[str, object],
        why: str,
    ) -> None:
        entry = AuditEntry(self._clock.now(), actor, action, subject, detail, why)
        await postgres_audit.append(connection, self._writer, [entry])
