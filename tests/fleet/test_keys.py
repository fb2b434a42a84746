"""Keys: proving a credential, and the ring that does it from memory."""

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conformance.memory_fleet import ManualClock, MemoryKeyStore

from forestay.chance import SeededChance
from forestay.errors import Unavailable
from forestay.fleet.grants import Grant, Privilege
from forestay.fleet.key_ring import KeyRing, RingLimits
from forestay.fleet.keys import (
    Caller,
    Key,
    KeyRequest,
    Rejected,
    Scope,
    Unrotatable,
    decide_rotation,
    is_tenant_id,
    new_credential,
    verify,
)
from forestay.ids import KeyId, TenantId

API = frozenset({Scope.API})


@pytest.fixture
def manual() -> ManualClock:
    """A clock that moves only when told."""
    return ManualClock()


@pytest.fixture
async def store(manual: ManualClock) -> MemoryKeyStore:
    """A key store with one tenant."""
    keys = MemoryKeyStore(manual, SeededChance(1))
    await keys.create_tenant(TenantId("acme"), "Acme", actor="system:test")
    return keys


async def issue(store: MemoryKeyStore, expires_at: dt.datetime | None = None) -> str:
    """Issue an API key and return its credential."""
    issued = await store.create(KeyRequest(TenantId("acme"), "t", API, expires_at), actor="system:test")
    assert issued is not None
    return issued.credential


async def test_a_new_key_is_proved_and_then_answered_from_memory(store: MemoryKeyStore, manual: ManualClock) -> None:
    """The first proof asks the store; later ones do not."""
    credential, ring = await issue(store), KeyRing(store, manual)
    assert ring.cached(credential) is None
    caller = await ring.verify(credential)
    assert isinstance(caller, Caller)
    assert (caller.tenant_id, caller.scopes) == ("acme", API)
    asked = store.lookups
    assert ring.cached(credential) == caller
    assert await ring.verify(credential) == caller
    assert store.lookups == asked


@pytest.mark.threat("API2:2023", "AML.T0012")
async def test_a_revocation_is_felt_at_the_next_refresh(store: MemoryKeyStore, manual: ManualClock) -> None:
    """One refresh, due each second, after the revocation suffices."""
    credential, ring = await issue(store), KeyRing(store, manual)
    await ring.verify(credential)
    await store.revoke(KeyId(credential[:16]), actor="human:x", reason="leaked")
    manual.advance(1)
    assert await ring.refresh() == 1
    assert await ring.verify(credential) is Rejected.REVOKED
    asked = store.lookups
    assert await ring.verify(credential) is Rejected.UNKNOWN  # remembered: no second look-up
    assert store.lookups == asked


async def test_a_rotation_is_felt_at_the_next_refresh(store: MemoryKeyStore, manual: ManualClock) -> None:
    """A ring that remembers a key hears that it will end sooner, and keeps to that moment."""
    credential, ring = await issue(store), KeyRing(store, manual)
    await ring.verify(credential)
    await store.rotate(KeyId(credential[:16]), 10.0, actor="human:x")
    manual.advance(1)
    assert await ring.refresh() == 1
    assert isinstance(await ring.verify(credential), Caller)
    manual.advance(9)
    assert await ring.verify(credential) is Rejected.EXPIRED


@pytest.mark.threat("API2:2023")
async def test_a_token_stands_as_long_as_its_key(store: MemoryKeyStore, manual: ManualClock) -> None:
    """By id alone, from memory; a revocation is felt at the next refresh."""
    credential, ring = await issue(store), KeyRing(store, manual)
    key_id = KeyId(credential[:16])
    assert isinstance(await ring.stands(key_id), Caller)
    asked = store.lookups
    assert isinstance(await ring.stands(key_id), Caller)
    assert store.lookups == asked
    await store.revoke(key_id, actor="human:x", reason="leaked")
    manual.advance(1)
    await ring.refresh()
    assert await ring.stands(key_id) is Rejected.REVOKED
    assert await ring.stands(KeyId("0" * 16)) is Rejected.UNKNOWN


@given(st.none() | st.timedeltas(dt.timedelta(seconds=1), dt.timedelta(days=999)), st.booleans(), st.booleans())
def test_a_successor_is_its_keys_equal_with_as_long_a_life(
    life: dt.timedelta | None, revoked: bool, has_successor: bool
) -> None:
    """Never for a key that has ended, never a second one, never with more rights."""
    made = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
    key = Key(
        KeyId("k"), TenantId("t"), "n", API, made, made + life if life else None, made if revoked else None,
        grants=(Grant(frozenset({"a/b"})),), networks=("10.0.0.0/8",), privileges=frozenset(Privilege),
    )  # fmt: skip
    now = made + dt.timedelta(milliseconds=500)
    decided = decide_rotation(key, now, has_successor=has_successor)
    if isinstance(decided, Unrotatable):
        assert decided is (Unrotatable.ENDED if revoked else Unrotatable.HAS_SUCCESSOR)
        return
    assert not revoked
    assert not has_successor
    assert (decided.scopes, decided.grants, decided.networks) == (key.scopes, key.grants, key.networks)
    assert (decided.tenant_id, decided.name, decided.privileges) == (key.tenant_id, key.name, key.privileges)
    assert decided.expires_at == (now + life if life else None)


async def test_a_revocation_during_a_silence_of_the_store_is_still_found(
    store: MemoryKeyStore, manual: ManualClock
) -> None:
    """The question asked after a silence covers all of it."""
    credential, ring = await issue(store), KeyRing(store, manual, RingLimits(trust_seconds=1e9, reread_seconds=1e9))
    await ring.verify(credential)
    await store.revoke(KeyId(credential[:16]), actor="human:x", reason="leaked")
    manual.advance(500)
    assert await ring.refresh() == 1


async def test_a_known_key_is_not_trusted_when_the_store_has_long_been_silent(
    store: MemoryKeyStore, manual: ManualClock
) -> None:
    """The ring fails closed after its trust has run out."""
    credential, ring = await issue(store), KeyRing(store, manual)
    await ring.verify(credential)
    store.silent = True
    manual.advance(29)
    assert isinstance(await ring.verify(credential), Caller)
    manual.advance(2)
    with pytest.raises(Unavailable):
        await ring.verify(credential)


@pytest.mark.threat("API2:2023", "AML.T0012")
async def test_a_wrong_secret_is_refused_with_and_without_memory(store: MemoryKeyStore, manual: ManualClock) -> None:
    """A right id does not help; nor does asking often cost look-ups."""
    credential, ring = await issue(store), KeyRing(store, manual)
    wrong = credential[:-1] + ("0" if credential[-1] != "0" else "1")
    assert await ring.verify(wrong) is Rejected.WRONG_SECRET
    asked = store.lookups
    assert await ring.verify(wrong) is Rejected.WRONG_SECRET
    assert isinstance(await ring.verify(credential), Caller)
    assert store.lookups == asked


async def test_an_expired_key_is_refused_at_its_moment(store: MemoryKeyStore, manual: ManualClock) -> None:
    """Expiry needs no refresh."""
    credential = await issue(store, manual.now() + dt.timedelta(seconds=5))
    ring = KeyRing(store, manual)
    assert isinstance(await ring.verify(credential), Caller)
    manual.advance(5)
    assert await ring.verify(credential) is Rejected.EXPIRED
    assert await verify(store, credential, manual.now()) is Rejected.EXPIRED


@pytest.mark.parametrize("text", ["", ":", "abc", "abc:def", "0" * 16, "0" * 16 + ":", "0" * 16 + ":" + "a" * 257])
async def test_a_malformed_credential_never_reaches_the_store(
    store: MemoryKeyStore, manual: ManualClock, text: str
) -> None:
    """Garbage costs no look-up."""
    ring = KeyRing(store, manual)
    assert await ring.verify(text) is Rejected.MALFORMED
    assert store.lookups == 0


async def test_unknown_ids_are_remembered_within_bounds(store: MemoryKeyStore, manual: ManualClock) -> None:
    """The memory of unknown ids is bounded and short, so that a key issued later works soon."""
    ring = KeyRing(store, manual, RingLimits(unknown=3))
    for number in range(10):
        assert await ring.verify(f"{number:016x}:s") is Rejected.UNKNOWN
    assert len(ring._unknown) == 3
    asked = store.lookups
    await ring.verify(f"{9:016x}:s")
    assert store.lookups == asked
    manual.advance(3)
    await ring.verify(f"{9:016x}:s")
    assert store.lookups == asked + 1


async def test_known_keys_are_remembered_within_bounds(store: MemoryKeyStore, manual: ManualClock) -> None:
    """The ring forgets the oldest key beyond its bound."""
    ring = KeyRing(store, manual, RingLimits(known=2))
    for _ in range(5):
        await ring.verify(await issue(store))
    assert len(ring._known) == 2


async def test_last_use_is_written_in_batches(store: MemoryKeyStore, manual: ManualClock) -> None:
    """Many calls become one write per flush."""
    credential, ring = await issue(store), KeyRing(store, manual)
    for _ in range(10):
        await ring.verify(credential)
    manual.advance(16)
    await ring.refresh()
    assert store.flushes == 1
    [key] = await store.keys()
    assert key.last_used_at == manual.now()


def test_a_credential_has_256_bits_of_secret() -> None:
    """Id and secret are hexadecimal, of the lengths that the store and clients expect."""
    key_id, secret = new_credential(SeededChance(2))
    assert (len(key_id), len(secret)) == (16, 64)
    assert int(key_id, 16) != int(secret, 16)


@pytest.mark.parametrize(
    ("text", "good"), [("acme", True), ("a.b-c_1", True), ("", False), ("A", False), ("-a", False)]
)
def test_tenant_ids_are_plain(text: str, *, good: bool) -> None:
    """Tenant ids stay fit for paths and metrics."""
    assert is_tenant_id(text) is good
