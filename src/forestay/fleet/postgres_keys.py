"""Keys and tenants in Postgres: the adapter of `fleet/keys.KeyStore`. Each change and its audit row commit together."""

# The driver's pooled connection is partly untyped: this adapter is where types begin.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import datetime as dt
import json
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
    Unrotatable,
    decide_rotation,
    new_credential,
)
from forestay.fleet.peppers import NO_PEPPERS, Peppers
from forestay.ids import KeyId, TenantId
from forestay.storage.postgres import Connection, Database, load_queries

_QUERIES = load_queries("forestay.fleet", "sql/keys.sql")
_LIST_LIMIT = 10_000


class PostgresKeyStore:
    """Keys and tenants; `writer` names this process's audit chain."""

    def __init__(
        self, database: Database, clock: Clock, chance: Chance, writer: str = "keys", peppers: Peppers = NO_PEPPERS
    ) -> None:
        self._database = database
        self._peppers = peppers
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

    async def tenant(self, tenant_id: TenantId) -> Tenant | None:
        """Read one tenant."""
        record = await self._database.fetchrow(_QUERIES["select_tenant"], tenant_id)
        return None if record is None else _tenant(record)

    async def create(self, wanted: KeyRequest, *, actor: str) -> IssuedKey | None:
        """Issue a key; None when there is no such tenant."""
        async with self._database.transaction() as connection:
            return await self._insert(connection, wanted, actor, None)

    async def _insert(
        self, connection: Connection, wanted: KeyRequest, actor: str, successor_of: KeyId | None
    ) -> IssuedKey | None:
        key_id, secret = new_credential(self._chance)
        scopes = sorted(scope.value for scope in wanted.scopes)
        privileges = sorted(privilege.value for privilege in wanted.privileges)
        grants = msgspec.json.encode(wanted.grants, order="deterministic").decode()
        record = await connection.fetchrow(
            _QUERIES["insert_key"], key_id, wanted.tenant_id, wanted.name, self._peppers.hash(secret),
            self._peppers.form, scopes, wanted.expires_at, grants, list(wanted.networks), privileges, successor_of,
        )  # fmt: skip
        if record is None:
            return None
        detail = {
            "tenant_id": wanted.tenant_id,
            "name": wanted.name,
            "scopes": scopes,
            "expires_at": wanted.expires_at.isoformat() if wanted.expires_at else None,
            "grants": json.loads(grants),
            "networks": wanted.networks,
            "privileges": privileges,
            "successor_of": successor_of,
        }
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
            before = await connection.fetchrow(_QUERIES["lock_key"], key_id)
            record = await connection.fetchrow(_QUERIES["revoke_key"], key_id)
            if record is None:
                return None
            if before is None or before["revoked_at"] is None:
                entry = self._entry(actor, "revoke_key", key_id, {"tenant_id": record["tenant_id"]}, reason)
                await postgres_audit.append(connection, self._writer, [entry])
        return _stored(record).key

    async def rotate(self, key_id: KeyId, overlap_seconds: float, *, actor: str) -> IssuedKey | Unrotatable:
        """Issue the key's successor, its equal, and let the key itself expire after the overlap."""
        async with self._database.transaction() as connection:
            record = await connection.fetchrow(_QUERIES["lock_key"], key_id)
            key = None if record is None else _stored(record).key
            taken = bool(await connection.fetchval(_QUERIES["has_successor"], key_id))
            wanted = decide_rotation(key, self._clock.now(), has_successor=taken)
            if isinstance(wanted, Unrotatable):
                return wanted
            issued = await self._insert(connection, wanted, actor, key_id)
            expired = await connection.fetchrow(_QUERIES["expire_key"], key_id, overlap_seconds)
            if issued is None or expired is None:
                return Unrotatable.UNKNOWN
            detail = {"successor": issued.key.key_id, "expires_at": expired["expires_at"].isoformat()}
            reason = f"replaced by {issued.key.key_id}"
            entry = self._entry(actor, "rotate_key", key_id, detail, reason)
            await postgres_audit.append(connection, self._writer, [entry])
        return issued

    async def find(self, key_id: KeyId) -> StoredKey | None:
        """Read one key."""
        record = await self._database.fetchrow(_QUERIES["select_key"], key_id)
        return None if record is None else _stored(record)

    async def changed_within(self, seconds: float) -> set[KeyId]:
        """Name the keys revoked or changed in the last `seconds` by the database's clock."""
        records = await self._database.fetch(_QUERIES["select_changed_since"], seconds)
        return {KeyId(record["key_id"]) for record in records}

    async def rehash(self, stored: StoredKey, secret_hash: bytes, secret_form: str) -> None:
        """Replace the hash of a key's secret, unless it was replaced since it was read."""
        key_id = stored.key.key_id
        async with self._database.transaction() as connection:
            changed = await connection.fetchval(
                _QUERIES["rehash_key"], key_id, stored.secret_hash, secret_hash, secret_form
            )
            if changed is not None:
                entry = self._entry(
                    "system:keys", "rehash_key", key_id, {"form": secret_form}, "shown under an older pepper"
                )
                await postgres_audit.append(connection, self._writer, [entry])

    async def mark_used(self, used: Mapping[KeyId, dt.datetime]) -> None:
        """Note when keys were last used."""
        await self._database.execute(_QUERIES["mark_used"], list(used), list(used.values()))

    def _entry(self, actor: str, action: str, subject: str, detail: Mapping[str, object], reason: str) -> AuditEntry:
        return AuditEntry(self._clock.now(), actor, action, subject, detail, reason)


def _tenant(record: asyncpg.Record) -> Tenant:
    return msgspec.convert(dict(record), Tenant)


def _stored(record: asyncpg.Record) -> StoredKey:
    return StoredKey(msgspec.convert(dict(record), Key), record["secret_hash"], str(record["secret_form"]))
