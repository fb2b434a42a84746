"""People and their sessions: who signs in to the admin API, as what, and for how long.

A person is known by an issuer and the issuer's own name for them: an OIDC provider and its subject, or nobody (a local
password) and the e-mail address. Two are never joined because their addresses are alike. A session is an opaque random
token of which only the hash is kept; its person and role are read with every use, so a disabled person or a changed
role is felt at once. It decides no role's rights (`roles`) and checks no password (`passwords`). Called by the gateway.
"""

import dataclasses
import datetime as dt
import enum
import hashlib
import re
from typing import NewType, Protocol

from forestay.chance import Chance
from forestay.errors import UsageError
from forestay.fleet.roles import Role

PersonId = NewType("PersonId", str)
SESSION_PREFIX = "fs_"  # tells a session's token from a key and from a signed token, in a header or a leaked log
_EMAIL = re.compile(r"[^@\s\x00-\x1f]{1,64}@[^@\s\x00-\x1f]{1,190}")
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # 32, none of which looks like another (Crockford's)
_TOKEN = re.compile(rf"{SESSION_PREFIX}[A-Za-z0-9_-]{{40,80}}")


class Way(enum.StrEnum):
    """How a person signed in."""

    PASSWORD = "password"  # noqa: S105 - a word, no secret
    OIDC = "oidc"


@dataclasses.dataclass(frozen=True, slots=True)
class Person:
    """A person as they may be shown."""

    person_id: PersonId
    issuer: str  # empty: signs in here, by password
    subject: str
    email: str
    role: Role
    created_at: dt.datetime
    one_time_until: dt.datetime | None = None  # set: the password is one that was handed out, good until then
    disabled_at: dt.datetime | None = None
    signed_in_at: dt.datetime | None = None

    @property
    def is_local(self) -> bool:
        """Tell whether the person signs in here, by password."""
        return not self.issuer


@dataclasses.dataclass(frozen=True, slots=True)
class StoredPerson:
    """A person with the hash of their password, None without one."""

    person: Person
    password: str | None = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Session:
    """A session as it may be shown."""

    session_id: str
    person_id: PersonId
    way: Way
    created_at: dt.datetime
    seen_at: dt.datetime
    expires_at: dt.datetime


@dataclasses.dataclass(frozen=True, slots=True)
class OpenedSession:
    """A new session and the only sight of its token."""

    session: Session
    token: str = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Claimed:
    """Who an identity provider says someone is."""

    issuer: str
    subject: str
    email: str
    role: Role


class PeopleStore(Protocol):
    """Where people and sessions live. `actor` names who acts, for the audit row written in the same transaction."""

    async def add(
        self, email: str, role: Role, password: str, one_time_until: dt.datetime | None, *, actor: str
    ) -> Person | None:
        """Add a local person with the hash of a password; None when the address is taken."""
        ...

    async def people(self) -> list[Person]:
        """List people by address, at most 10,000."""
        ...

    async def find(self, person_id: PersonId) -> StoredPerson | None:
        """Read one person."""
        ...

    async def find_local(self, email: str) -> StoredPerson | None:
        """Read the local person of an address (`clean_email`)."""
        ...

    async def admit(self, claimed: Claimed) -> Person:
        """Know a person whom an identity provider vouches for, adding or updating them; disabled ones stay disabled."""
        ...

    async def set_role(self, person_id: PersonId, role: Role, *, actor: str) -> Person | None:
        """Change a role; None when there is no such person."""
        ...

    async def set_enabled(self, person_id: PersonId, enabled: bool, *, actor: str, reason: str) -> Person | None:
        """Let a person in again, or keep them out and end their sessions; None when there is no such person."""
        ...

    async def set_password(
        self, person_id: PersonId, password: str, one_time_until: dt.datetime | None, *, actor: str, keep: str = ""
    ) -> Person | None:
        """Replace the hash of a password and end every session but `keep`; None when there is no such person."""
        ...

    async def refresh_hash(self, person_id: PersonId, before: str, password: str) -> None:
        """Store the same password at another cost, unless it was changed since `before` was read."""
        ...

    async def open_session(self, person_id: PersonId, way: Way, life_seconds: float) -> OpenedSession:
        """Sign a person in."""
        ...

    async def use_session(self, token_hash: bytes, idle_seconds: float) -> tuple[Session, Person] | None:
        """Find a live session of an enabled person that was used within `idle_seconds`, and note that it is used."""
        ...

    async def close_sessions(self, person_id: PersonId, session_id: str | None, *, actor: str) -> int:
        """Sign a person out of one session, or (None) of all; returns how many ended."""
        ...


def clean_email(text: str) -> str:
    """Return an e-mail address in the form in which it is compared; UsageError when it is none."""
    if _EMAIL.fullmatch(text.strip()) is None:
        raise UsageError("email", "must be an e-mail address")
    return text.strip().lower()


def new_session_token(chance: Chance) -> str:
    """Make a token of 256 random bits."""
    return SESSION_PREFIX + chance.token(32)


def new_password(chance: Chance) -> str:
    """Make a one-time password of 100 random bits, fit for reading out: groups of letters and digits."""
    number = chance.bits(100)
    letters = [_ALPHABET[(number >> (5 * place)) & 31] for place in range(20)]
    return "-".join("".join(letters[start : start + 5]) for start in range(0, 20, 5))


def hash_token(token: str) -> bytes | None:
    """Return the hash by which a session's token is found; None when it cannot be one."""
    return hashlib.sha256(token.encode()).digest() if _TOKEN.fullmatch(token) else None
