"""One behaviour suite for every key store: Postgres and the fake."""

import datetime as dt

import pytest
from tests.conformance.memory_fleet import MemoryKeyStore

from forestay.chance import SeededChance
from forestay.clock import SystemClock
from forestay.fleet.keys import Caller, KeyRequest, KeyStore, Rejected, Scope, verify
from forestay.fleet.postgres_keys import PostgresKeyStore
from forestay.ids import KeyId, TenantId
from forestay.storage.postgres import Database

ACME = TenantId("acme")
BOTH = frozenset({Scope.API, Scope.ADMIN})


@pytest.fixture(params=["memory", "postgres"])
def maybe_database(request: pytest.FixtureRequest) -> Database | None:
    """A database for the adapter that needs one."""
    return request.getfixturevalue("database") if request.param == "postgres" else None


@pytest.fixture
async def store(maybe_database: Database | None) -> KeyStore:
    """Each adapter in turn, with one tenant."""
    keys: KeyStore = MemoryKeyStore(SystemClock(), SeededChance(1))
    if maybe_database is not None:
        keys = PostgresKeyStore(maybe_database, SystemClock(), SeededChance(1))
    await keys.create_tenant(ACME, "Acme", actor="system:test")
    return keys


async def test_a_tenant_is_created_once(store: KeyStore) -> None:
    """A second one of the same id is none."""
    assert await store.create_tenant(ACME, "Other", actor="human:k") is None
    assert [(item.tenant_id, item.name) for item in await store.tenants()] == [(ACME, "Acme")]


async def test_a_key_is_read_back_without_its_secret(store: KeyStore) -> None:
    """Name, scopes and expiry survive; only the hash of the secret is kept."""
    until = dt.datetime(2040, 1, 1, tzinfo=dt.UTC)
    issued = await store.create(KeyRequest(ACME, "n", BOTH, until), actor="human:k")
    assert issued is not None
    assert issued.secret not in repr(issued)
    [key] = await store.keys(ACME)
    assert key == issued.key
    assert (key.name, key.scopes, key.expires_at) == ("n", BOTH, until)
    stored = await store.find(key.key_id)
    assert stored is not None
    assert len(stored.secret_hash) == 32
    assert await verify(store, issued.credential, SystemClock().now()) == Caller(key.key_id, ACME, BOTH)


async def test_there_is_no_key_without_a_tenant(store: KeyStore) -> None:
    """An unknown tenant gives no key."""
    assert await store.create(KeyRequest(TenantId("nobody"), "", BOTH), actor="human:k") is None


async def test_a_revocation_is_final_and_heard_of(store: KeyStore) -> None:
    """Revoking again keeps the first moment; an unknown key is none."""
    issued = await store.create(KeyRequest(ACME, "", BOTH), actor="human:k")
    assert issued is not None
    assert await store.revoked_within(60) == set()
    first = await store.revoke(issued.key.key_id, actor="human:k", reason="leaked")
    again = await store.revoke(issued.key.key_id, actor="human:k", reason="again")
    assert first is not None
    assert first == again
    assert await store.revoked_within(60) == {issued.key.key_id}
    assert await verify(store, issued.credential, SystemClock().now()) is Rejected.REVOKED
    assert await store.revoke(KeyId("0" * 16), actor="human:k", reason="x") is None


async def test_last_use_never_runs_backwards(store: KeyStore) -> None:
    """The later of two batches stands."""
    issued = await store.create(KeyRequest(ACME, "", BOTH), actor="human:k")
    assert issued is not None
    moment = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
    await store.mark_used({issued.key.key_id: moment})
    await store.mark_used({issued.key.key_id: moment - dt.timedelta(seconds=9), KeyId("0" * 16): moment})
    [key] = await store.keys()
    assert key.last_used_at == moment


async def test_changes_of_keys_are_in_the_audit_log(database: Database) -> None:
    """Tenant, key and revocation each leave one row that names who did it; the secret is in none of them."""
    keys = PostgresKeyStore(database, SystemClock(), SeededChance(1))
    await keys.create_tenant(ACME, "Acme", actor="human:k1")
    issued = await keys.create(KeyRequest(ACME, "n", BOTH), actor="human:k1")
    assert issued is not None
    for _ in range(2):
        await keys.revoke(issued.key.key_id, actor="human:k1", reason="leaked")
    rows = await database.fetch("SELECT action, actor, audit_log::text AS whole FROM audit_log ORDER BY sequence")
    assert [(row["action"], row["actor"]) for row in rows] == [
        ("create_tenant", "human:k1"),
        ("create_key", "human:k1"),
        ("revoke_key", "human:k1"),
    ]
    assert not any(issued.secret in row["whole"] for row in rows)
