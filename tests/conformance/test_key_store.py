"""One behaviour suite for every key store: Postgres and the fake."""

import datetime as dt

import pytest
from tests.conformance.memory_fleet import MemoryKeyStore

from forestay.chance import SeededChance
from forestay.clock import SystemClock
from forestay.fleet.grants import Grant, Privilege, Verb
from forestay.fleet.keys import Caller, IssuedKey, KeyRequest, KeyStore, Rejected, Scope, Unrotatable, verify
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
    assert await verify(store, issued.credential, SystemClock().now()) == Caller(
        key.key_id, ACME, BOTH, expires_at=until
    )


async def test_there_is_no_key_without_a_tenant(store: KeyStore) -> None:
    """An unknown tenant gives no key."""
    assert await store.create(KeyRequest(TenantId("nobody"), "", BOTH), actor="human:k") is None


async def test_a_revocation_is_final_and_heard_of(store: KeyStore) -> None:
    """Revoking again keeps the first moment; an unknown key is none."""
    issued = await store.create(KeyRequest(ACME, "", BOTH), actor="human:k")
    assert issued is not None
    assert await store.changed_within(60) == set()
    first = await store.revoke(issued.key.key_id, actor="human:k", reason="leaked")
    again = await store.revoke(issued.key.key_id, actor="human:k", reason="again")
    assert first is not None
    assert first == again
    assert await store.changed_within(60) == {issued.key.key_id}
    assert await verify(store, issued.credential, SystemClock().now()) is Rejected.REVOKED
    assert await store.revoke(KeyId("0" * 16), actor="human:k", reason="x") is None


NARROW = KeyRequest(
    ACME,
    "narrow",
    frozenset({Scope.API}),
    grants=(Grant(frozenset({"acme/*", "b/c"}), frozenset({Verb.RUN, Verb.READ})), Grant(frozenset({"*"}))),
    networks=("10.0.0.0/8", "2001:db8::/32"),
    privileges=frozenset({Privilege.DISABLE_FILTER}),
)


async def test_what_a_key_may_do_is_read_back(store: KeyStore) -> None:
    """Grants, networks and privileges survive, and are what its caller may do."""
    issued = await store.create(NARROW, actor="human:k")
    assert issued is not None
    [key] = await store.keys(ACME)
    assert key == issued.key
    assert (key.grants, key.networks, key.privileges) == (NARROW.grants, NARROW.networks, NARROW.privileges)
    caller = await verify(store, issued.credential, SystemClock().now())
    assert isinstance(caller, Caller)
    assert (caller.grants, caller.privileges) == (NARROW.grants, NARROW.privileges)
    assert [str(network) for network in caller.networks] == list(NARROW.networks)


async def test_a_rotated_key_has_an_equal_successor_and_ends_after_the_overlap(store: KeyStore) -> None:
    """Both work meanwhile; rings hear that the old one changed; its audit reason names the new one."""
    old = await store.create(NARROW, actor="human:k")
    assert old is not None
    new = await store.rotate(old.key.key_id, 3600.0, actor="human:k")
    assert isinstance(new, IssuedKey)
    assert (new.key.successor_of, new.key.name, new.key.grants) == (old.key.key_id, "narrow", NARROW.grants)
    assert (new.key.networks, new.key.privileges, new.key.tenant_id) == (NARROW.networks, NARROW.privileges, ACME)
    assert new.key.expires_at is None
    now = SystemClock().now()
    for issued in (old, new):
        assert isinstance(await verify(store, issued.credential, now), Caller)
    assert await verify(store, old.credential, now + dt.timedelta(seconds=3601)) is Rejected.EXPIRED
    assert isinstance(await verify(store, new.credential, now + dt.timedelta(days=1)), Caller)
    assert await store.changed_within(60) == {old.key.key_id}


async def test_a_key_has_one_successor_at_a_time(store: KeyStore) -> None:
    """A second rotation needs the first successor revoked; an ended or unknown key has none."""
    old = await store.create(NARROW, actor="human:k")
    assert old is not None
    first = await store.rotate(old.key.key_id, 60.0, actor="human:k")
    assert isinstance(first, IssuedKey)
    assert await store.rotate(old.key.key_id, 60.0, actor="human:k") is Unrotatable.HAS_SUCCESSOR
    await store.revoke(first.key.key_id, actor="human:k", reason="its secret was lost")
    assert isinstance(await store.rotate(old.key.key_id, 60.0, actor="human:k"), IssuedKey)
    assert await store.rotate(first.key.key_id, 60.0, actor="human:k") is Unrotatable.ENDED
    assert await store.rotate(KeyId("0" * 16), 60.0, actor="human:k") is Unrotatable.UNKNOWN


async def test_a_hash_is_replaced_only_while_it_is_the_one_that_was_read(store: KeyStore) -> None:
    """Two gateways that bring a key under a new pepper at once do not undo one another."""
    issued = await store.create(KeyRequest(ACME, "", BOTH), actor="human:k")
    assert issued is not None
    stored = await store.find(issued.key.key_id)
    assert stored is not None
    await store.rehash(stored, b"1" * 32, "hmac-sha256:one")
    await store.rehash(stored, b"2" * 32, "hmac-sha256:two")
    again = await store.find(issued.key.key_id)
    assert again is not None
    assert (again.secret_hash, again.secret_form) == (b"1" * 32, "hmac-sha256:one")


async def test_one_tenant_is_read(store: KeyStore) -> None:
    """By its id, and none by another."""
    found = await store.tenant(ACME)
    assert found is not None
    assert found.name == "Acme"
    assert await store.tenant(TenantId("nobody")) is None


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
    successor = await keys.rotate(issued.key.key_id, 60.0, actor="human:k1")
    assert isinstance(successor, IssuedKey)
    for _ in range(2):
        await keys.revoke(issued.key.key_id, actor="human:k1", reason="leaked")
    rows = await database.fetch("SELECT action, actor, audit_log::text AS whole FROM audit_log ORDER BY sequence")
    assert [(row["action"], row["actor"]) for row in rows] == [
        ("create_tenant", "human:k1"),
        ("create_key", "human:k1"),
        ("create_key", "human:k1"),
        ("rotate_key", "human:k1"),
        ("revoke_key", "human:k1"),
    ]
    assert not any(secret in row["whole"] for row in rows for secret in (issued.secret, successor.secret))
