"""Snapshot and rules in Postgres: the adapter of `abuse/store.AbuseStore`."""

# The driver's pooled connection is partly untyped: this adapter is where types begin.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import hashlib
from collections.abc import Mapping, Sequence

import asyncpg
import msgspec

from forestay.abuse.store import BROUGHT, RuleSet
from forestay.fleet import postgres_audit
from forestay.fleet.audit import AuditEntry
from forestay.storage.postgres import Database, load_queries

_SQL = load_queries("forestay.abuse", "sql/state.sql")


class PostgresAbuseStore:
    """Snapshot and rules; `writer` names this process's audit chain."""

    def __init__(self, database: Database, *, writer: str = "abuse") -> None:
        self._database = database
        self._writer = writer

    async def load(self) -> Mapping[str, bytes]:
        """Read the snapshot's parts; empty when there is none."""
        return {str(row["part"]): bytes(row["data"]) for row in await self._database.fetch(_SQL["load"])}

    async def parts(self, names: Sequence[str]) -> Mapping[str, bytes]:
        """Read the named parts, those that there are."""
        rows = await self._database.fetch(_SQL["parts"], list(names))
        return {str(row["part"]): bytes(row["data"]) for row in rows}

    async def meta(self) -> bytes | None:
        """Read the part that says how far the snapshot goes."""
        row = await self._database.fetchrow(_SQL["meta"])
        return None if row is None else bytes(row["data"])

    async def save(self, parts: Mapping[str, bytes]) -> None:
        """Write parts, all or none."""
        await self._database.executemany(_SQL["save"], sorted(parts.items()))

    async def rules(self) -> RuleSet:
        """Read the rules in force."""
        return _rule_set(await self._database.fetchrow(_SQL["rules"]))

    async def set_rules(self, text: str, *, actor: str) -> RuleSet:
        """Put checked rules in force, with an audit row."""
        async with self._database.transaction() as connection:
            made = _rule_set(await connection.fetchrow(_SQL["set_rules"], text, actor))
            digest = hashlib.sha256(text.encode()).hexdigest()
            detail = {"version": made.version, "sha256": digest, "size_bytes": len(text.encode())}
            if made.set_at is not None:
                entry = AuditEntry(made.set_at, actor, "set_abuse_rules", "abuse:rules", detail, "asked for")
                await postgres_audit.append(connection, self._writer, [entry])
        return made


def _rule_set(row: asyncpg.Record | None) -> RuleSet:
    return BROUGHT if row is None else msgspec.convert(dict(row), RuleSet)
