"""Keys and tenants in Postgres: the adapter of `fleet/keys.KeyStore`. Each change and its audit row commit together."""

# The driver's pooled connection is partly untyped: this adapter is where types begin.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import datetime as dt
from collections.abc import Mapping

import asyncpg
import msgspec

from forestay.chance import Chance
from forestay.clock import Clock
from forestay.fleet import postgres_audit
from forestay.fleet.audit import AuditEntry
from forestay.fleet.keys import (
    IssuedKey,
    Key,
    KeyRequest,
    StoredKey,
    Tenant,
    hash_secret,
    new_credential,
)
from forestay.ids import KeyId, TenantId
from forestay.storage.postgres import Database, load_queries

_QUERIES = load_queries("forestay.fleet", "sql/keys.sql")
_LIST_LIMIT = 10_000


class PostgresKeyStore:
    """Keys and tenants; `writer` names this process's audit chain."""

    def __init__(self, database: Database, clock: Clock, chance: Chance, writer: str = "keys") -> None:
        self._database = database
        self._clock = clock
        self._chance = chance
        self._writer = writer

    async def create_tenant(self, tenant_id: TenantId, name: str, *, actor: str) -> Tenant | None:
        """Add a tenant; None when the id is taken."""
        async with self._database.transaction() as connection:
            record = await connection.fetchrow(_QUERIES["insert_tenant"], tenant_id, name)
            if record is None:
                return None
            entry = self._entry(actor, "create_tenant", tenant_id, {"name": name}, "asked for")
            await postgres_audit.append(connection, self._writer, [entry])
        return _tenant(record)

    async def tenants(self) -> list[Tenant]:
        """List tenants, at most 10,000."""
        return [_tenant(record) for record in await self._database.fetch(_QUERIES["select_tenants"], _LIST_LIMIT)]

    async def create(self, wanted: KeyRequest, *, actor: str) -> IssuedKey | None:
        """Issue a key; None when there is no such tenant."""
        key_id, secret = new_credential(self._chance)
        scopes = sorted(scope.value for scope in wanted.scopes)
        async with self._database.transaction() as connection:
            record = await connection.fetchrow(
                _QUERIES["insert_key"], key_id, wanted.tenant_id, wanted.name,
                hash_secret(secret), scopes, wanted.expires_at,
            )  # fmt: skip
            if record is None:
                return None
            expiry = wanted.expires_at.isoformat() if wanted.expires_at else None
            detail = {"tenant_id": wanted.tenant_id, "name": wanted.name, "scopes": scopes, "expires_at": expiry}
            await postgres_audit.append(
                connection, self._writer, [self._entry(actor, "create_key", key_id, detail, "asked for")]
            )
        return IssuedKey(_stored(record).key, secret)

    async def keys(self, tenant_id: TenantId | None = None) -> list[Key]:
        """List keys, newest first, at most 10,000."""
        records = await self._database.fetch(_QUERIES["select_keys"], tenant_id, _LIST_LIMIT)
        return [_stored(record).key for record in records]

    async def revoke(self, key_id: KeyId, *, actor: str, reason: str) -> Key | None:
        """Revoke for good, idempotently; None when there is no such key."""
        async with self._database.transaction() as connection:
            before = await connection.fetchrow(_QUERIES["select_key"], key_id)
            record = await connection.fetchrow(_QUERIES["revoke_key"], key_id)
            if record is None:
                return None
            if before is None or before["revoked_at"] is None:
                entry = self._entry(actor, "revoke_key", key_id, {"tenant_id": record["tenant_id"]}, reason)
                await postgres_audit.append(connection, self._writer, [entry])
        return _stored(record).key

    async def find(self, key_id: KeyId) -> StoredKey | None:
        """Read one key."""
        record = await self._database.fetchrow(_QUERIES["select_key"], key_id)
        return None if record is None else _stored(record)

    async def revoked_within(self, seconds: float) -> set[KeyId]:
        """Name the keys revoked in the last `seconds` by the database's clock."""
        records = await self._database.fetch(_QUERIES["select_revoked_since"], seconds)
        return {KeyId(record["key_id"]) for record in records}

    async def mark_used(self, used: Mapping[KeyId, dt.datetime]) -> None:
        """Note when keys were last used."""
        await self._database.execute(_QUERIES["mark_used"], list(used), list(used.values()))

    def _entry(self, actor: str, action: str, subject: str, detail: Mapping[str, object], reason: str) -> AuditEntry:
        return AuditEntry(self._clock.now(), actor, action, subject, detail, reason)


def _tenant(record: asyncpg.Record) -> Tenant:
    return msgspec.convert(dict(record), Tenant)


def _stored(record: asyncpg.Record) -> StoredKey:
    return StoredKey(msgspec.convert(dict(record), Key), record["secret_hash"])
