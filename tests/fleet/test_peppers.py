"""Peppers: keyed hashes of secrets, and the move from one pepper to the next."""

import pytest
from tests.conformance.memory_fleet import ManualClock, MemoryKeyStore

from forestay.chance import SeededChance
from forestay.errors import UsageError
from forestay.fleet.key_ring import KeyRing
from forestay.fleet.keys import Caller, KeyRequest, Rejected, Scope, verify
from forestay.fleet.peppers import NO_PEPPERS, PLAIN, Peppers, hash_secret
from forestay.ids import KeyId, TenantId

FIRST, SECOND = "first " * 8, "second " * 8
ACME = TenantId("acme")


async def a_store(peppers: Peppers) -> tuple[MemoryKeyStore, str, KeyId]:
    """A store with one key made under these peppers."""
    store = MemoryKeyStore(ManualClock(), SeededChance(1), peppers)
    await store.create_tenant(ACME, "Acme", actor="system:test")
    issued = await store.create(KeyRequest(ACME, "t", frozenset({Scope.API})), actor="system:test")
    assert issued is not None
    return store, issued.credential, issued.key.key_id


async def form_of(store: MemoryKeyStore, key_id: KeyId) -> str:
    """How the key's secret is hashed now."""
    stored = await store.find(key_id)
    assert stored is not None
    return stored.secret_form


def test_a_hash_depends_on_the_pepper() -> None:
    """The same secret under another pepper, or none, has another hash."""
    hashes = {hash_secret("s"), Peppers(FIRST).hash("s"), Peppers(SECOND).hash("s")}
    assert len(hashes) == 3
    assert NO_PEPPERS.form == PLAIN
    assert Peppers(FIRST).form != Peppers(SECOND).form


def test_a_form_does_not_give_the_pepper_away() -> None:
    """It names a pepper by a hash, and nothing shows the pepper itself."""
    peppers = Peppers(FIRST, [SECOND])
    assert FIRST not in peppers.form
    assert "first" not in repr(peppers)


def test_short_peppers_and_old_ones_alone_are_refused() -> None:
    """The message names the variable."""
    with pytest.raises(UsageError, match="FORESTAY_KEY_PEPPER: is too short"):
        Peppers("short")
    with pytest.raises(UsageError, match="FORESTAY_OLD_KEY_PEPPERS: is too short"):
        Peppers(FIRST, ["short"])
    with pytest.raises(UsageError, match="FORESTAY_KEY_PEPPER: is not set"):
        Peppers("", [FIRST])


@pytest.mark.parametrize(("made_under", "old"), [(NO_PEPPERS, []), (Peppers(FIRST), [FIRST])])
async def test_a_key_moves_to_the_pepper_in_use_when_it_is_shown(made_under: Peppers, old: list[str]) -> None:
    """A plain row and one of an older pepper go on working; after their next use the older form is not needed."""
    store, credential, key_id = await a_store(made_under)
    now = Peppers(SECOND, old)
    assert isinstance(await KeyRing(store, ManualClock(), peppers=now).verify(credential), Caller)
    assert await form_of(store, key_id) == now.form
    later = KeyRing(store, ManualClock(), peppers=Peppers(SECOND))
    assert isinstance(await later.verify(credential), Caller)
    assert isinstance(later.cached(credential), Caller)


async def test_a_wrong_secret_moves_nothing(ring_clock: ManualClock) -> None:
    """Only a proven secret is hashed anew."""
    store, credential, key_id = await a_store(NO_PEPPERS)
    ring = KeyRing(store, ring_clock, peppers=Peppers(FIRST))
    assert await ring.verify(credential[:-1] + ("0" if credential[-1] != "0" else "1")) is Rejected.WRONG_SECRET
    assert await form_of(store, key_id) == PLAIN


async def test_a_key_of_an_unknown_pepper_is_refused_and_told_apart(ring_clock: ManualClock) -> None:
    """A gateway that was given the wrong pepper refuses; the count says why; no hash is touched."""
    store, credential, key_id = await a_store(Peppers(FIRST))
    ring = KeyRing(store, ring_clock, peppers=Peppers(SECOND))
    assert await ring.verify(credential) is Rejected.NO_PEPPER
    assert await verify(store, credential, ring_clock.now()) is Rejected.NO_PEPPER
    assert await form_of(store, key_id) == Peppers(FIRST).form


async def test_a_hash_is_never_moved_to_a_plain_one(ring_clock: ManualClock) -> None:
    """Without a pepper in use nothing is weakened."""
    store, credential, key_id = await a_store(Peppers(FIRST))
    ring = KeyRing(store, ring_clock, peppers=NO_PEPPERS)
    assert await ring.verify(credential) is Rejected.NO_PEPPER
    assert await form_of(store, key_id) == Peppers(FIRST).form


async def test_a_silent_store_does_not_keep_a_proven_key_out(ring_clock: ManualClock) -> None:
    """Moving the hash can wait."""
    store, credential, key_id = await a_store(NO_PEPPERS)
    store.refuses_writes = True
    ring = KeyRing(store, ring_clock, peppers=Peppers(FIRST))
    assert isinstance(await ring.verify(credential), Caller)
    assert await form_of(store, key_id) == PLAIN


@pytest.fixture
def ring_clock() -> ManualClock:
    """A clock that moves only when told."""
    return ManualClock()
