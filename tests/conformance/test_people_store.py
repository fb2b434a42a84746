"""One behaviour suite for every store of people and sign-ins: Postgres and the fake."""

import asyncio
import datetime as dt

import pytest
from tests.conformance.memory_people import MemoryPeopleStore, MemorySignInStore

from forestay.chance import SeededChance
from forestay.clock import SystemClock
from forestay.fleet.people import Claimed, PeopleStore, Person, PersonId, Way, hash_token
from forestay.fleet.postgres_people import PostgresPeopleStore, PostgresSignInStore
from forestay.fleet.roles import Role
from forestay.fleet.sign_in import ACCOUNT, SignInStore
from forestay.storage.postgres import Database

IDLE = 3600.0
UNTIL = dt.datetime(2040, 1, 1, tzinfo=dt.UTC)


@pytest.fixture(params=["memory", "postgres"])
def maybe_database(request: pytest.FixtureRequest) -> Database | None:
    """A database for the adapter that needs one."""
    return request.getfixturevalue("database") if request.param == "postgres" else None


@pytest.fixture
def store(maybe_database: Database | None) -> PeopleStore:
    """Each adapter in turn."""
    if maybe_database is None:
        return MemoryPeopleStore(SystemClock(), SeededChance(1))
    return PostgresPeopleStore(maybe_database, SystemClock(), SeededChance(1))


@pytest.fixture
def sign_ins(maybe_database: Database | None) -> SignInStore:
    """Each adapter in turn."""
    return MemorySignInStore(SystemClock()) if maybe_database is None else PostgresSignInStore(maybe_database)


async def add(store: PeopleStore, email: str = "a@b.c", role: Role = Role.OPERATOR) -> Person:
    """Add a local person."""
    person = await store.add(email, role, "hash", None, actor="human:k")
    assert person is not None
    return person


async def session_of(store: PeopleStore, token: str, idle_seconds: float = IDLE) -> Person | None:
    """Return whose session a token is."""
    digest = hash_token(token)
    assert digest is not None
    found = await store.use_session(digest, idle_seconds)
    return None if found is None else found[1]


async def test_a_person_is_added_once_and_read_back(store: PeopleStore) -> None:
    """By id and by address; the hash of the password only where it is checked."""
    person = await store.add("a@b.c", Role.VIEWER, "hash", UNTIL, actor="human:k")
    assert person is not None
    assert (person.email, person.role, person.one_time_until, person.is_local) == ("a@b.c", Role.VIEWER, UNTIL, True)
    assert await store.add("a@b.c", Role.ADMIN, "other", None, actor="human:k") is None
    assert await store.people() == [person]
    stored = await store.find(person.person_id)
    assert stored is not None
    assert (stored.person, stored.password) == (person, "hash")
    assert stored == await store.find_local("a@b.c")
    assert "hash" not in repr(stored)
    assert await store.find(PersonId("p-none")) is None
    assert await store.find_local("x@b.c") is None


async def test_a_session_lives_until_it_is_closed(store: PeopleStore) -> None:
    """Its token finds the person, another's token or none does not; signing in is noted."""
    person = await add(store)
    one = await store.open_session(person.person_id, Way.PASSWORD, 60.0)
    two = await store.open_session(person.person_id, Way.PASSWORD, 60.0)
    assert one.token not in repr(one)
    found = await session_of(store, one.token)
    assert found is not None
    assert (found.person_id, found.role) == (person.person_id, Role.OPERATOR)
    assert found.signed_in_at is not None
    assert await session_of(store, "fs_" + "A" * 43) is None
    assert await store.close_sessions(person.person_id, one.session.session_id, actor="human:p") == 1
    assert await session_of(store, one.token) is None
    assert await session_of(store, two.token) is not None
    assert await store.close_sessions(person.person_id, None, actor="human:p") == 1
    assert await store.close_sessions(person.person_id, None, actor="human:p") == 0
    assert await session_of(store, two.token) is None


async def test_an_expired_and_an_idle_session_are_none(store: PeopleStore) -> None:
    """Whichever comes first."""
    person = await add(store)
    expired = await store.open_session(person.person_id, Way.PASSWORD, 0.0)
    assert await session_of(store, expired.token) is None
    idle = await store.open_session(person.person_id, Way.PASSWORD, 60.0)
    assert await session_of(store, idle.token, idle_seconds=0.0) is None
    assert await session_of(store, idle.token) is not None


async def test_a_changed_role_is_felt_at_once(store: PeopleStore) -> None:
    """By the session that is open."""
    person = await add(store)
    opened = await store.open_session(person.person_id, Way.PASSWORD, 60.0)
    changed = await store.set_role(person.person_id, Role.VIEWER, actor="human:k")
    assert changed is not None
    assert changed.role is Role.VIEWER
    found = await session_of(store, opened.token)
    assert found is not None
    assert found.role is Role.VIEWER
    assert await store.set_role(PersonId("p-none"), Role.VIEWER, actor="human:k") is None


async def test_a_disabled_persons_sessions_end_for_good(store: PeopleStore) -> None:
    """Letting them in again opens none of the old ones."""
    person = await add(store)
    opened = await store.open_session(person.person_id, Way.PASSWORD, 60.0)
    out = await store.set_enabled(person.person_id, False, actor="human:k", reason="left")
    assert out is not None
    assert out.disabled_at is not None
    assert await session_of(store, opened.token) is None
    late = await store.open_session(person.person_id, Way.PASSWORD, 60.0)
    assert await session_of(store, late.token) is None
    again = await store.set_enabled(person.person_id, True, actor="human:k", reason="back")
    assert again is not None
    assert again.disabled_at is None
    assert await session_of(store, opened.token) is None
    assert await store.set_enabled(PersonId("p-none"), False, actor="human:k", reason="x") is None


async def test_a_new_password_ends_the_other_sessions(store: PeopleStore) -> None:
    """All but the one in which it was chosen."""
    person = await add(store)
    kept = await store.open_session(person.person_id, Way.PASSWORD, 60.0)
    other = await store.open_session(person.person_id, Way.PASSWORD, 60.0)
    changed = await store.set_password(person.person_id, "new", None, actor="human:p", keep=kept.session.session_id)
    assert changed is not None
    stored = await store.find(person.person_id)
    assert stored is not None
    assert stored.password == "new"
    assert await session_of(store, kept.token) is not None
    assert await session_of(store, other.token) is None


async def test_a_hash_is_refreshed_only_while_the_password_is_the_same(store: PeopleStore) -> None:
    """A sign-in that races with a change of password does not bring the old one back."""
    person = await add(store)
    await store.refresh_hash(person.person_id, "hash", "costlier")
    await store.refresh_hash(person.person_id, "hash", "lost the race")
    stored = await store.find(person.person_id)
    assert stored is not None
    assert stored.password == "costlier"


async def test_whom_an_issuer_vouches_for_is_known_by_its_name_for_them(store: PeopleStore) -> None:
    """The same subject is the same person; the same address at another issuer, or here, is another."""
    local = await add(store, "a@b.c", Role.ADMIN)
    claimed = Claimed("https://id.example", "42", "a@b.c", Role.VIEWER)
    first = await store.admit(claimed)
    assert first.person_id != local.person_id
    assert (first.role, first.is_local) == (Role.VIEWER, False)
    assert (await store.admit(claimed)).person_id == first.person_id
    changed = await store.admit(Claimed("https://id.example", "42", "new@b.c", Role.ANALYST))
    assert (changed.person_id, changed.email, changed.role) == (first.person_id, "new@b.c", Role.ANALYST)
    other = await store.admit(Claimed("https://other.example", "42", "a@b.c", Role.VIEWER))
    assert other.person_id not in {first.person_id, local.person_id}
    assert await store.set_password(first.person_id, "p", None, actor="human:k") is None


async def test_an_issuers_word_lets_no_disabled_person_in(store: PeopleStore) -> None:
    """Keeping somebody out is decided here."""
    claimed = Claimed("https://id.example", "42", "a@b.c", Role.VIEWER)
    person = await store.admit(claimed)
    await store.set_enabled(person.person_id, False, actor="human:k", reason="left")
    assert (await store.admit(claimed)).disabled_at is not None


async def test_failures_wait_and_a_success_forgets_the_accounts(sign_ins: SignInStore) -> None:
    """Nothing is counted while one waits; the network's other failures stay."""
    subjects = ["account:a", "network:192.0.2.1"]
    for _ in range(ACCOUNT.free + 1):
        assert await sign_ins.begin(subjects) == 0
    wait = await sign_ins.begin(subjects)
    assert 0 < wait <= 1
    assert await sign_ins.begin(["account:b", "network:192.0.2.1"]) == 0
    await sign_ins.succeeded(subjects)
    assert await sign_ins.begin(subjects) == 0


async def test_tries_sent_together_are_counted_one_after_another(sign_ins: SignInStore) -> None:
    """A crowd of parallel guesses gets no further than one guess after another."""
    waits = await asyncio.gather(*(sign_ins.begin(["account:a", "network:n"]) for _ in range(20)))
    assert sum(wait == 0 for wait in waits) == ACCOUNT.free + 1


async def test_a_proof_is_good_once(sign_ins: SignInStore) -> None:
    """The second showing is refused, also when both come at once."""
    shown = await asyncio.gather(*(sign_ins.use_once(b"x" * 32, 60.0) for _ in range(5)))
    assert sorted(shown) == [False] * 4 + [True]
    assert await sign_ins.use_once(b"y" * 32, 60.0)


async def test_what_people_do_is_in_the_audit_log(database: Database) -> None:
    """One row an act, naming who by id; no address and no secret in any of them."""
    store = PostgresPeopleStore(database, SystemClock(), SeededChance(1))
    person = await add(store, "someone@example.com")
    opened = await store.open_session(person.person_id, Way.PASSWORD, 60.0)
    await store.set_role(person.person_id, Role.ADMIN, actor="human:k")
    await store.set_password(person.person_id, "a new hash", None, actor=f"human:{person.person_id}")
    await store.set_enabled(person.person_id, False, actor="human:k", reason="left")
    await store.admit(Claimed("https://id.example", "42", "else@example.com", Role.VIEWER))
    rows = await database.fetch("SELECT action, actor, audit_log::text AS whole FROM audit_log ORDER BY sequence")
    me = f"human:{person.person_id}"
    assert [(row["action"], row["actor"]) for row in rows] == [
        ("add_person", "human:k"),
        ("sign_in", me),
        ("set_role", "human:k"),
        ("set_password", me),
        ("disable_person", "human:k"),
        ("add_person", "system:oidc"),
    ]
    for row in rows:
        assert not any(text in row["whole"] for text in ("example.com", opened.token, "a new hash"))


async def test_what_speaks_for_nobody_any_more_is_dropped(database: Database) -> None:
    """Old sessions, old failures, expired proofs; nothing that still counts."""
    store, sign_ins = PostgresPeopleStore(database, SystemClock(), SeededChance(1)), PostgresSignInStore(database)
    person = await add(store)
    for life in (60.0, -40 * 86_400.0):
        await store.open_session(person.person_id, Way.PASSWORD, life)
    await sign_ins.use_once(b"x" * 32, -1.0)
    await sign_ins.use_once(b"y" * 32, 60.0)
    await sign_ins.begin(["account:a"])
    await sign_ins.begin(["account:b"])
    await database.execute(
        "UPDATE sign_in_failures SET failed_at = now() - interval '3 days' WHERE subject = 'account:a'"
    )
    assert await store.forget_old() == 3
    assert await store.forget_old() == 0
