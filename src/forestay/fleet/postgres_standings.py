"""Standings and appeals in Postgres: the adapter of `fleet/standing_store.StandingStore`, and what `apply` carries out.

Each change and its audit row commit together; what changes who may call bumps the fleet's version and wakes
`forestay:fleet`. It decides nothing.
"""

# The driver's pooled connection is partly untyped: this adapter is where types begin.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import datetime as dt
from collections.abc import Sequence

import asyncpg
import msgspec

from forestay.chance import Chance
from forestay.fleet import postgres_audit
from forestay.fleet.actions import LiftStanding, Origin, SetStanding
from forestay.fleet.audit import AuditEntry
from forestay.fleet.model import Fleet
from forestay.fleet.standing import Standing, renews
from forestay.fleet.standing_store import Appeal, Ending, StandingRow
from forestay.storage.postgres import Connection, Database, load_queries
from forestay.storage.valkey import Wakeups

CHANNEL = "forestay:fleet"
_FLEET = load_queries("forestay.fleet", "sql/fleet.sql")
_SQL = load_queries("forestay.fleet", "sql/standings.sql")


async def carry_out(
    connection: Connection, action: SetStanding | LiftStanding, *, origin: Origin, actor: str, fleet: Fleet
) -> None:
    """Do what was decided, in the transaction that decided it."""
    if isinstance(action, LiftStanding):
        await connection.execute(_SQL["lift"], action.subject, actor, action.reason, action.pardon_until)
        return
    wanted, by = action.standing, origin.name.lower()
    evidence = msgspec.json.encode(wanted.evidence).decode()
    current = fleet.standings.get(wanted.subject)
    if renews(wanted, current):
        await connection.execute(_SQL["renew"], wanted.subject, wanted.reason, wanted.expires_at, evidence, by)
        return
    await connection.execute(_SQL["end_current"], wanted.subject, actor, wanted.reason)
    await connection.execute(
        _SQL["insert"], wanted.standing_id, wanted.subject, wanted.kind.value, wanted.code, wanted.rule, wanted.reason,
        wanted.since, wanted.expires_at, wanted.factor, wanted.freeze_results, by, evidence,
    )  # fmt: skip


class PostgresStandings:
    """Standings and appeals as people read them; `writer` names this process's audit chain."""

    def __init__(self, database: Database, wakeups: Wakeups, chance: Chance, *, writer: str = "standings") -> None:
        self._database = database
        self._wakeups = wakeups
        self._chance = chance
        self._writer = writer

    async def rows(self, *, subject: str | None, ended: bool, limit: int) -> list[StandingRow]:
        """Read standings, newest first."""
        return [_row(record) for record in await self._database.fetch(_SQL["rows"], subject, ended, limit)]

    async def find(self, standing_id: str) -> StandingRow | None:
        """Read one."""
        record = await self._database.fetchrow(_SQL["find"], standing_id)
        return None if record is None else _row(record)

    async def advised(self, *, limit: int) -> Sequence[dict[str, object]]:
        """Read what automation would have set, or was held from setting, newest first."""
        records = await self._database.fetch(_SQL["advised"], limit)
        return [{**dict(record), "detail": msgspec.json.decode(record["detail"])} for record in records]

    async def appeal(self, standing_id: str, words: str, *, actor: str) -> Appeal | None:
        """Make an appeal; the one that is open already is returned as it is; None when the standing is over."""
        async with self._database.transaction() as connection:
            appeal_id = f"ap_{self._chance.bits(64):016x}"
            made = await connection.fetchrow(_SQL["appeal"], appeal_id, standing_id, actor, words)
            record = await connection.fetchrow(_SQL["open_appeal"], standing_id)
            if record is None:
                return None
            appeal = msgspec.convert(dict(record), Appeal)
            if made is not None:
                entry = _entry(appeal.made_at, actor, "appeal", appeal, "asked for")
                await postgres_audit.append(connection, self._writer, [entry])
        return appeal

    async def appeals(self, *, state: str | None, standing_id: str | None, limit: int) -> list[Appeal]:
        """Read appeals, newest first; None means in every state, against every standing."""
        records = await self._database.fetch(_SQL["appeals"], state, standing_id, limit)
        return [msgspec.convert(dict(record), Appeal) for record in records]

    async def deny(self, appeal_id: str, decision: str, *, actor: str) -> Appeal | None:
        """Turn an open appeal down; None when there is none."""
        async with self._database.transaction() as connection:
            record = await connection.fetchrow(_SQL["deny"], appeal_id, actor, decision)
            if record is None:
                return None
            appeal = msgspec.convert(dict(record), Appeal)
            entry = _entry(appeal.decided_at or appeal.made_at, actor, "deny_appeal", appeal, decision)
            await postgres_audit.append(connection, self._writer, [entry])
        return appeal

    async def expire(self) -> int:
        """End the standings whose time is over; returns how many."""
        if not await self._database.fetchval(_SQL["is_due"]):
            return 0
        async with self._database.transaction() as connection:
            await connection.execute(_FLEET["lock"])
            ended = await connection.fetch(_SQL["expire"])
            if not ended:
                return 0
            now = msgspec.convert(await connection.fetchval("SELECT now()"), dt.datetime)
            entries = [
                AuditEntry(
                    now, "loop:abuse", "expire_standing", f"standing:{record['subject']}",
                    {name: record[name] for name in ("standing_id", "kind", "rule")}, "its time was over",
                )
                for record in ended
            ]  # fmt: skip
            await postgres_audit.append(connection, self._writer, entries)
            await connection.execute(_FLEET["bump"])
        await self._wakeups.publish(CHANNEL, "")
        return len(ended)


def _entry(at: dt.datetime, actor: str, action: str, appeal: Appeal, reason: str) -> AuditEntry:
    detail = {"appeal_id": appeal.appeal_id, "standing_id": appeal.standing_id}
    return AuditEntry(at, actor, action, f"standing:{appeal.subject}", detail, reason)


def _row(record: asyncpg.Record) -> StandingRow:
    values = dict(record)
    ended = {name: values.pop(f"ended_{name}") for name in ("at", "how", "by", "why")}
    values["evidence"] = msgspec.json.decode(values["evidence"])
    ending = None if ended["at"] is None else msgspec.convert(ended, Ending)
    return StandingRow(msgspec.convert(values, Standing), ending)
