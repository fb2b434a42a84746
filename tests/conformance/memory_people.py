"""People, sessions and the brakes on signing in, in memory: adapters of the ports, for tests of whoever uses them."""

import dataclasses
import datetime as dt
from collections.abc import Sequence

from forestay.chance import Chance
from forestay.clock import Clock
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


class MemoryPeopleStore:
    """People and sessions in memory; `acts` holds what would be audit rows."""

    def __init__(self, clock: Clock, chance: Chance) -> None:
        self._clock = clock
        self._chance = chance
        self._people: dict[PersonId, StoredPerson] = {}
        self._sessions: dict[bytes, Session] = {}
        self._ended: set[str] = set()
        self.acts: list[tuple[str, str, str]] = []

    async def add(
        self, email: str, role: Role, password: str, one_time_until: dt.datetime | None, *, actor: str
    ) -> Person | None:
        """Add a local person with the hash of a password; None when the address is taken."""
        if await self.find_local(email) is not None:
            return None
        person = Person(self._new_id(), "", email, email, role, self._clock.now(), one_time_until)
        self._people[person.person_id] = StoredPerson(person, password)
        self.acts.append((actor, "add_person", person.person_id))
        return person

    async def people(self) -> list[Person]:
        """List people by address."""
        return sorted((item.person for item in self._people.values()), key=lambda person: person.email)

    async def find(self, person_id: PersonId) -> StoredPerson | None:
        """Read one person."""
        return self._people.get(person_id)

    async def find_local(self, email: str) -> StoredPerson | None:
        """Read the local person of an address."""
        return self._by_subject("", email)

    def _by_subject(self, issuer: str, subject: str) -> StoredPerson | None:
        found = [
            item for item in self._people.values() if (item.person.issuer, item.person.subject) == (issuer, subject)
        ]
        return found[0] if found else None

    async def admit(self, claimed: Claimed) -> Person:
        """Know a person whom an identity provider vouches for."""
        known = self._by_subject(claimed.issuer, claimed.subject)
        if known is None:
            person = Person(
                self._new_id(), claimed.issuer, claimed.subject, claimed.email, claimed.role, self._clock.now()
            )
            self._people[person.person_id] = StoredPerson(person, None)
            self.acts.append(("system:oidc", "add_person", person.person_id))
            return person
        if known.person.role is not claimed.role:
            self.acts.append(("system:oidc", "set_role", known.person.person_id))
        return self._change(known.person.person_id, email=claimed.email, role=claimed.role)

    async def set_role(self, person_id: PersonId, role: Role, *, actor: str) -> Person | None:
        """Change a role; None when there is no such person."""
        if person_id not in self._people:
            return None
        self.acts.append((actor, "set_role", person_id))
        return self._change(person_id, role=role)

    async def set_enabled(self, person_id: PersonId, enabled: bool, *, actor: str, reason: str) -> Person | None:
        """Let a person in again, or keep them out and end their sessions; None when there is no such person."""
        assert reason
        known = self._people.get(person_id)
        if known is None:
            return None
        self.acts.append((actor, "enable_person" if enabled else "disable_person", person_id))
        if not enabled:
            self._end(person_id, None, "")
        return self._change(person_id, disabled_at=None if enabled else known.person.disabled_at or self._clock.now())

    async def set_password(
        self, person_id: PersonId, password: str, one_time_until: dt.datetime | None, *, actor: str, keep: str = ""
    ) -> Person | None:
        """Replace the hash of a password and end every session but `keep`; None when there is no such local person."""
        known = self._people.get(person_id)
        if known is None or not known.person.is_local:
            return None
        self.acts.append((actor, "set_password", person_id))
        self._end(person_id, None, keep)
        person = self._change(person_id, one_time_until=one_time_until)
        self._people[person_id] = StoredPerson(person, password)
        return person

    async def refresh_hash(self, person_id: PersonId, before: str, password: str) -> None:
        """Store the same password at another cost, unless it was changed since `before` was read."""
        known = self._people[person_id]
        if known.password == before:
            self._people[person_id] = StoredPerson(known.person, password)

    async def open_session(self, person_id: PersonId, way: Way, life_seconds: float) -> OpenedSession:
        """Sign a person in."""
        token, now = new_session_token(self._chance), self._clock.now()
        session_id = f"s-{self._chance.bits(64):016x}"
        session = Session(session_id, person_id, way, now, now, now + dt.timedelta(seconds=life_seconds))
        digest = hash_token(token)
        assert digest is not None
        self._sessions[digest] = session
        self._change(person_id, signed_in_at=now)
        self.acts.append((f"human:{person_id}", "sign_in", person_id))
        return OpenedSession(session, token)

    async def use_session(self, token_hash: bytes, idle_seconds: float) -> tuple[Session, Person] | None:
        """Find a live session of an enabled person that was used within `idle_seconds`, and note that it is used."""
        session, now = self._sessions.get(token_hash), self._clock.now()
        if session is None or session.session_id in self._ended or session.expires_at <= now:
            return None
        person = self._people[session.person_id].person
        if person.disabled_at is not None or session.seen_at <= now - dt.timedelta(seconds=idle_seconds):
            return None
        if session.seen_at < now - dt.timedelta(minutes=1):
            self._sessions[token_hash] = dataclasses.replace(session, seen_at=now)
        return session, person

    async def close_sessions(self, person_id: PersonId, session_id: str | None, *, actor: str) -> int:
        """Sign a person out of one session, or (None) of all; returns how many ended."""
        ended = self._end(person_id, session_id, "")
        if ended:
            self.acts.append((actor, "sign_out", person_id))
        return ended

    def _end(self, person_id: PersonId, session_id: str | None, keep: str) -> int:
        ids = (
            {item.session_id for item in self._sessions.values() if item.person_id == person_id} - self._ended - {keep}
        )
        ended = ids if session_id is None else ids & {session_id}
        self._ended |= ended
        return len(ended)

    def _new_id(self) -> PersonId:
        return PersonId(f"p-{self._chance.bits(64):016x}")

    def _change(self, person_id: PersonId, **changes: object) -> Person:
        stored = self._people[person_id]
        person = dataclasses.replace(stored.person, **changes)  # type: ignore[arg-type]
        self._people[person_id] = StoredPerson(person, stored.password)
        return person


class MemorySignInStore:
    """Failures and proofs in memory."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: dict[str, Failures] = {}
        self._proofs: set[bytes] = set()

    async def begin(self, subjects: Sequence[str]) -> float:
        """Count a try for each subject and return 0; or, when one must wait, count nothing and return the seconds."""
        now = self._clock.now()
        wait = max(decide_wait(subject, self._failures.get(subject), now) for subject in subjects)
        if wait > 0:
            return wait
        for subject in subjects:
            self._failures[subject] = counted(self._failures.get(subject), now)
        return 0.0

    async def succeeded(self, subjects: Sequence[str]) -> None:
        """Take the try back; the account's earlier failures are forgotten, the network's are not."""
        for subject in subjects:
            failures = self._failures.get(subject)
            if subject.startswith("account:"):
                self._failures.pop(subject, None)
            elif failures is not None and failures.count > 0:
                self._failures[subject] = dataclasses.replace(failures, count=failures.count - 1)

    async def use_once(self, digest: bytes, life_seconds: float) -> bool:
        """Note that a proof was shown; False when it was shown before."""
        assert life_seconds > 0
        if digest in self._proofs:
            return False
        self._proofs.add(digest)
        return True
