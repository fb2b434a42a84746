"""People, sessions and the brakes on signing in, in Postgres: the adapter of `people.PeopleStore` and `sign_in`'s port.

Each change and its audit row commit together. The log names people by their ids: an address can be deleted, a row of
the log cannot.
"""

# The driver's pooled connection is partly untyped: this adapter is where types begin.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import datetime as dt
from collections.abc import Mapping, Sequence

import asyncpg
import msgspec

from forestay.chance import Chance
from forestay.clock import Clock
from forestay.fleet import postgres_audit
from forestay.fleet.audit import AuditEntry
from forestay.fleet.people import (
    Claimed,
    OpenedSession,
    Person,
    PersonId,
    Session,
    StoredPerson,
    Way,
    hash_token,
    new_session_token,
)
from forestay.fleet.roles import Role
from forestay.fleet.sign_in import Failures, counted, decide_wait
from forestay.storage.postgres import Connection, Database, load_queries

_QUERIES = load_queries("forestay.fleet", "sql/people.sql")
_LIST_LIMIT = 10_000


class PostgresPeopleStore:
    """People and sessions; `writer` names this process's audit chain."""

    def __init__(self, database: Database, clock: Clock, chance: Chance, writer: str = "people") -> None:
        self._database = database
        self._clock = clock
        self._chance = chance
        self._writer = writer

    async def add(
        self, email: str, role: Role, password: str, one_time_until: dt.datetime | None, *, actor: str
    ) -> Person | None:
        """Add a local person with the hash of a password; None when the address is taken."""
        async with self._database.transaction() as connection:
            record = await connection.fetchrow(
                _QUERIES["insert_person"], self._new_id(), "", email, email, role.value, password, one_time_until
            )
            if record is None:
                return None
            person = _stored(record).person
            await self._note(connection, actor, "add_person", person.person_id, {"role": role.value, "issuer": ""})
        return person

    async def people(self) -> list[Person]:
        """List people by address, at most 10,000."""
        return [_stored(record).person for record in await self._database.fetch(_QUERIES["select_people"], _LIST_LIMIT)]

    async def find(self, person_id: PersonId) -> StoredPerson | None:
        """Read one person."""
        record = await self._database.fetchrow(_QUERIES["select_person"], person_id)
        return None if record is None else _stored(record)

    async def find_local(self, email: str) -> StoredPerson | None:
        """Read the local person of an address."""
        record = await self._database.fetchrow(_QUERIES["select_by_subject"], "", email)
        return None if record is None else _stored(record)

    async def admit(self, claimed: Claimed) -> Person:
        """Know a person whom an identity provider vouches for, adding or updating them; disabled ones stay disabled."""
        async with self._database.transaction() as connection:
            record = await connection.fetchrow(
                _QUERIES["insert_person"], self._new_id(), claimed.issuer, claimed.subject, claimed.email,
                claimed.role.value, None, None,
            )  # fmt: skip
            if record is not None:
                person = _stored(record).person
                detail = {"role": claimed.role.value, "issuer": claimed.issuer}
                await self._note(connection, "system:oidc", "add_person", person.person_id, detail)
                return person
            record = await connection.fetchrow(_QUERIES["lock_by_subject"], claimed.issuer, claimed.subject)
            before = _required(record)
            if (before.email, before.role) == (claimed.email, claimed.role):
                return before
            record = await connection.fetchrow(
                _QUERIES["set_claims"], before.person_id, claimed.email, claimed.role.value
            )
            if before.role is not claimed.role:
                detail = {"before": before.role.value, "role": claimed.role.value}
                await self._note(connection, "system:oidc", "set_role", before.person_id, detail, "as the issuer says")
        return _required(record)

    async def set_role(self, person_id: PersonId, role: Role, *, actor: str) -> Person | None:
        """Change a role; None when there is no such person."""
        async with self._database.transaction() as connection:
            record = await connection.fetchrow(_QUERIES["set_role"], person_id, role.value)
            if record is not None:
                await self._note(connection, actor, "set_role", person_id, {"role": role.value})
        return None if record is None else _stored(record).person

    async def set_enabled(self, person_id: PersonId, enabled: bool, *, actor: str, reason: str) -> Person | None:
        """Let a person in again, or keep them out and end their sessions; None when there is no such person."""
        async with self._database.transaction() as connection:
            record = await connection.fetchrow(_QUERIES["set_enabled"], person_id, enabled)
            if record is not None:
                ended = [] if enabled else await connection.fetch(_QUERIES["close_sessions"], person_id, None, "")
                action = "enable_person" if enabled else "disable_person"
                await self._note(connection, actor, action, person_id, {"sessions_ended": len(ended)}, reason)
        return None if record is None else _stored(record).person

    async def set_password(
        self, person_id: PersonId, password: str, one_time_until: dt.datetime | None, *, actor: str, keep: str = ""
    ) -> Person | None:
        """Replace the hash of a password and end every session but `keep`; None when there is no such local person."""
        async with self._database.transaction() as connection:
            record = await connection.fetchrow(_QUERIES["set_password"], person_id, password, one_time_until)
            if record is not None:
                ended = await connection.fetch(_QUERIES["close_sessions"], person_id, None, keep)
                detail = {"one_time": one_time_until is not None, "sessions_ended": len(ended)}
                await self._note(connection, actor, "set_password", person_id, detail)
        return None if record is None else _stored(record).person

    async def refresh_hash(self, person_id: PersonId, before: str, password: str) -> None:
        """Store the same password at another cost, unless it was changed since `before` was read."""
        await self._database.execute(_QUERIES["refresh_hash"], person_id, before, password)

    async def open_session(self, person_id: PersonId, way: Way, life_seconds: float) -> OpenedSession:
        """Sign a person in."""
        token = new_session_token(self._chance)
        session_id = f"s-{self._chance.bits(64):016x}"
        async with self._database.transaction() as connection:
            record = await connection.fetchrow(
                _QUERIES["insert_session"], session_id, hash_token(token), person_id, way.value, life_seconds
            )
            detail = {"session_id": session_id, "way": way.value}
            await self._note(connection, f"human:{person_id}", "sign_in", person_id, detail)
        return OpenedSession(msgspec.convert(_fields(record), Session), token)

    async def use_session(self, token_hash: bytes, idle_seconds: float) -> tuple[Session, Person] | None:
        """Find a live session of an enabled person that was used within `idle_seconds`, and note that it is used."""
        record = await self._database.fetchrow(_QUERIES["use_session"], token_hash, idle_seconds)
        if record is None:
            return None
        fields = _fields(record)
        session = msgspec.convert(fields, Session)
        return session, msgspec.convert({**fields, "created_at": fields["person_created_at"]}, Person)

    async def close_sessions(self, person_id: PersonId, session_id: str | None, *, actor: str) -> int:
        """Sign a person out of one session, or (None) of all; returns how many ended."""
        async with self._database.transaction() as connection:
            ended = await connection.fetch(_QUERIES["close_sessions"], person_id, session_id, "")
            if ended:
                detail = {"session_id": session_id, "sessions_ended": len(ended)}
                await self._note(connection, actor, "sign_out", person_id, detail)
        return len(ended)

    async def forget_old(self) -> int:
        """Drop long ended sessions, old failures and expired proofs; returns how many."""
        return int(str(await self._database.fetchval(_QUERIES["forget_old"])))

    def _new_id(self) -> str:
        return f"p-{self._chance.bits(64):016x}"

    async def _note(
        self,
        connection: Connection,
        actor: str,
        action: str,
        person_id: str,
        detail: Mapping[str, object],
        reason: str = "asked for",
    ) -> None:
        entry = AuditEntry(self._clock.now(), actor, action, f"person:{person_id}", detail, reason)
        await postgres_audit.append(connection, self._writer, [entry])


class PostgresSignInStore:
    """Failures and proofs shown, for all gateways together."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, subjects: Sequence[str]) -> float:
        """Count a try for each subject and return 0; or, when one must wait, count nothing and return the seconds."""
        async with self._database.transaction() as connection:
            await connection.execute(_QUERIES["begin_failures"], list(subjects))
            known: dict[str, Failures] = {}
            for row in await connection.fetch(_QUERIES["lock_failures"], list(subjects)):
                known[str(row["subject"])] = Failures(int(row["failures"]), row["failed_at"])
            now = await connection.fetchval(_QUERIES["clock"])
            moment = msgspec.convert(now, dt.datetime)
            wait = max(decide_wait(subject, known.get(subject), moment) for subject in subjects)
            if wait > 0:
                return wait
            after = [counted(known.get(subject), moment) for subject in subjects]
            counts, moments = [item.count for item in after], [item.last_at for item in after]
            await connection.execute(_QUERIES["count_failures"], list(subjects), counts, moments)
        return 0.0

    async def succeeded(self, subjects: Sequence[str]) -> None:
        """Take the try back; the account's earlier failures are forgotten, the network's are not."""
        async with self._database.transaction() as connection:
            await connection.execute(_QUERIES["forget_failures"], list(subjects))
            await connection.execute(_QUERIES["take_back_failures"], list(subjects))

    async def use_once(self, digest: bytes, life_seconds: float) -> bool:
        """Note that a proof was shown; False when it was shown before."""
        return await self._database.fetchval(_QUERIES["use_proof"], digest, life_seconds) is not None


def _stored(record: asyncpg.Record) -> StoredPerson:
    return StoredPerson(msgspec.convert(dict(record), Person), record["password"])


def _required(record: asyncpg.Record | None) -> Person:
    if record is None:
        message = "a person vanished inside a transaction that locked them; report this as a defect"
        raise RuntimeError(message)
    return _stored(record).person


def _fields(record: asyncpg.Record | None) -> dict[str, object]:
    return dict(record) if record is not None else {}
