"""Alerts in Postgres: what deciding remembers, and what the loop writes, in one transaction with its messages.

The head's row is the fence: it is locked first, and a decision made on another version than the head's is not written.
It decides nothing. `postgres_outbox` sends on, `postgres_desk` is for people.
"""

# The driver's pooled connection is partly untyped: this adapter is where types begin.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import dataclasses
import datetime as dt
import json
from collections.abc import Mapping, Sequence

import asyncpg
import msgspec

from forestay.alerts import postgres_outbox
from forestay.alerts.actions import Action, Forget, Notify, applied
from forestay.alerts.model import Ack, Alert, Group, State
from forestay.alerts.rules import Silence, read_matcher
from forestay.alerts.store import Held, Message
from forestay.storage.postgres import Connection, Database, load_queries

_SQL = load_queries("forestay.alerts", "sql/alerts.sql")
_MAX_REASON = 500
_BATCH = 1_000


class PostgresAlerts:
    """AlertStore over the table `alerts` and its neighbours."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self, now: dt.datetime) -> Held:
        """Read what deciding needs, the version first: what changes while the rest is read spoils the commit."""
        version = await self._database.fetchval(_SQL["head"])
        rows = await self._database.fetch(_SQL["live"])
        alerts = {alert.alert_id: alert for alert in map(alert_of, rows)}
        groups = {row["group_key"]: Group(row["group_key"], row["notified_at"]) for row in await self._groups()}
        silences = await self._database.fetch(_SQL["in_force"], now)
        return Held(int(str(version)), State(alerts, groups), tuple(silence_of(row) for row in silences))

    async def _groups(self) -> list[asyncpg.Record]:
        return await self._database.fetch(_SQL["groups"])

    async def commit(
        self, held: Held, actions: Sequence[Action], messages: Sequence[Message], now: dt.datetime
    ) -> bool:
        """Write a decision with its messages, all or none; False when somebody else has decided since `held`."""
        async with self._database.transaction() as connection:
            if await connection.fetchrow(_SQL["take"], held.version, now, int(bool(actions))) is None:
                return False
            if actions:
                await _write(connection, held.state, actions, now)
                await postgres_outbox.put(connection, messages, now)
        return True

    async def tell_routes(self, known: Mapping[str, object]) -> None:
        """Note what the controller has read of routes and receivers, for gateways to show."""
        await self._database.execute(_SQL["tell_routes"], json.dumps(known, sort_keys=True))

    async def decided_at(self) -> dt.datetime | None:
        """Read when alerts were last decided, by whichever controller."""
        row = await self._database.fetchrow(_SQL["routes"])
        return None if row is None else row["decided_at"]

    async def forget(self, before: dt.datetime) -> None:
        """Delete a batch of what is over since before that moment."""
        await self._database.execute(_SQL["forget_alerts"], before, _BATCH)
        await self._database.execute(_SQL["forget_events"], before, 10 * _BATCH)
        await self._database.execute(_SQL["forget_silences"], before)


async def _write(connection: Connection, before: State, actions: Sequence[Action], now: dt.datetime) -> None:
    after = applied(before, actions)
    forgotten = [action.alert for action in actions if isinstance(action, Forget)]
    changed = [alert for alert_id, alert in after.alerts.items() if before.alerts.get(alert_id) != alert]
    rows = [_row(alert, live=True) for alert in changed] + [_row(alert, live=False) for alert in forgotten]
    # Ends first: an alert that opens anew must not meet its own former episode in the index of open ones.
    rows.sort(key=lambda row: str(row["state"]), reverse=True)
    if rows:
        await connection.execute(_SQL["save"], json.dumps(rows))
    for key, group in after.groups.items():
        if before.groups.get(key) != group:
            await connection.execute(_SQL["save_group"], key, group.notified_at)
    gone = sorted(before.groups.keys() - after.groups.keys())
    if gone:
        await connection.execute(_SQL["drop_groups"], gone)
    await connection.executemany(_SQL["note"], [event for action in actions for event in _events(action, now)])


def _row(alert: Alert, *, live: bool) -> dict[str, object]:
    return {
        "alert_id": alert.alert_id,
        "fingerprint": alert.fingerprint,
        "state": alert.state.value,
        "severity": alert.condition.severity.value,
        "live": live,
        "opened_at": alert.opened_at.isoformat(),
        "data": msgspec.to_builtins(dataclasses.replace(alert, ack=None)),  # people's, in a table of their own
    }


def _events(action: Action, now: dt.datetime) -> list[tuple[str, dt.datetime, str, str]]:
    if isinstance(action, Forget):
        return []
    what = type(action).__name__.lower()
    if not isinstance(action, Notify):
        return [(action.alert.alert_id, now, what, action.reason[:_MAX_REASON])]
    items = {item.item_id: item for notification in action.notifications for item in notification.items}
    heard: dict[str, list[str]] = {}
    for notification in action.notifications:
        for item in notification.items:
            heard.setdefault(item.item_id, []).append(notification.receiver)
    return [
        (item.alert.alert_id, now, what, f"{item.transition} to {', '.join(heard[key])}: {item.reason}"[:_MAX_REASON])
        for key, item in items.items()
    ]


def alert_of(row: asyncpg.Record) -> Alert:
    """Read an alert with its newest acknowledgement."""
    alert = msgspec.convert(row["data"], Alert)
    ack = None if row["ack_at"] is None else Ack(row["ack_by"], row["ack_why"], row["ack_at"])
    return dataclasses.replace(alert, ack=ack)


def silence_of(row: asyncpg.Record) -> Silence:
    """Read a silence."""
    return Silence(
        silence_id=row["silence_id"],
        matchers=tuple(read_matcher(text) for text in row["matchers"]),
        until=row["until"],
        by=row["by"],
        why=row["why"],
        since=row["since"],
        ended_at=row["ended_at"],
    )
