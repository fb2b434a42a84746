"""Keys and tenants: who calls, and the credential `id:secret` that proves it.

A key says what it may do (`grants`), from where (`networks`) and which headers of its calls count (`privileges`). Only
a keyed hash of its secret is stored (`peppers`). A key is rotated by issuing a successor that is its equal, and letting
the old one expire after an overlap. It decides who a credential proves; what that opens is asked by the gateway.
Called by the key ring (`key_ring`), the admin API and `forestay up` (first keys).
"""

import dataclasses
import datetime as dt
import enum
import hmac
import re
from collections.abc import Mapping
from typing import Protocol

from forestay.chance import Chance
from forestay.fleet.grants import Grant, Privilege, Verb
from forestay.fleet.networks import Network, parse_network
from forestay.fleet.peppers import NO_PEPPERS, PLAIN, Peppers, hash_secret
from forestay.ids import KeyId, ModelId, TenantId

_KEY_ID = re.compile(r"[0-9a-f]{16}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TENANT_ID = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
MAX_SECRET = 256


class Scope(enum.StrEnum):
    """What a key may do. ADMIN does not include API: a key names every scope that it has."""

    API = "API"
    ADMIN = "ADMIN"


class Rejected(enum.StrEnum):
    """Why a credential is refused: for counters and logs; the caller only learns 401."""

    MALFORMED = "malformed"
    UNKNOWN = "unknown"
    WRONG_SECRET = "wrong_secret"  # noqa: S105 - a reason, not a secret
    REVOKED = "revoked"
    EXPIRED = "expired"
    NO_PEPPER = "no_pepper"  # hashed under a pepper that this process was not given: the operator's mistake


class Unrotatable(enum.StrEnum):
    """Why a key cannot be rotated."""

    UNKNOWN = "unknown"
    ENDED = "ended"  # revoked or expired
    HAS_SUCCESSOR = "has_successor"


@dataclasses.dataclass(frozen=True, slots=True)
class Caller:
    """A proven credential, and what it may do."""

    key_id: KeyId
    tenant_id: TenantId
    scopes: frozenset[Scope]
    grants: tuple[Grant, ...] = ()  # none: everything
    networks: tuple[Network, ...] = ()  # none: everywhere
    privileges: frozenset[Privilege] = frozenset()
    expires_at: dt.datetime | None = None
    narrowed: Grant | None = None  # set when a short-lived token was shown: it opens this much of its key, at most

    def may(self, verb: Verb, model_id: ModelId | None = None) -> bool:
        """Tell whether the key, and the token if there is one, open `verb` on the model."""
        if self.narrowed is not None and not self.narrowed.covers(verb, model_id):
            return False
        return not self.grants or any(grant.covers(verb, model_id) for grant in self.grants)


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """A key as it may be shown: never its secret."""

    key_id: KeyId
    tenant_id: TenantId
    name: str
    scopes: frozenset[Scope]
    created_at: dt.datetime
    expires_at: dt.datetime | None = None
    revoked_at: dt.datetime | None = None
    last_used_at: dt.datetime | None = None
    grants: tuple[Grant, ...] = ()
    networks: tuple[str, ...] = ()
    privileges: frozenset[Privilege] = frozenset()
    successor_of: KeyId | None = None

    def caller(self) -> Caller:
        """Return whom this key proves."""
        networks = tuple(network for text in self.networks if (network := parse_network(text)) is not None)
        return Caller(self.key_id, self.tenant_id, self.scopes, self.grants, networks, self.privileges, self.expires_at)


@dataclasses.dataclass(frozen=True, slots=True)
class StoredKey:
    """A key with the hash that proves its secret, and how it was made (`peppers`)."""

    key: Key
    secret_hash: bytes
    secret_form: str = PLAIN


@dataclasses.dataclass(frozen=True, slots=True)
class IssuedKey:
    """A new key and the only sight of its secret; `credential` is what clients put into FAL_KEY."""

    key: Key
    secret: str = dataclasses.field(repr=False)

    @property
    def credential(self) -> str:
        """Return `id:secret`."""
        return f"{self.key.key_id}:{self.secret}"


@dataclasses.dataclass(frozen=True, slots=True)
class KeyRequest:
    """What a new key shall be."""

    tenant_id: TenantId
    name: str
    scopes: frozenset[Scope]
    expires_at: dt.datetime | None = None
    grants: tuple[Grant, ...] = ()
    networks: tuple[str, ...] = ()
    privileges: frozenset[Privilege] = frozenset()


@dataclasses.dataclass(frozen=True, slots=True)
class Tenant:
    """Who calls, and is charged."""

    tenant_id: TenantId
    name: str
    created_at: dt.datetime


class KeyStore(Protocol):
    """Where keys and tenants live. `actor` names who acts, for the audit row written in the same transaction."""

    async def create_tenant(self, tenant_id: TenantId, name: str, *, actor: str) -> Tenant | None:
        """Add a tenant; None when the id is taken."""
        ...

    async def tenants(self) -> list[Tenant]:
        """List tenants, at most 10,000."""
        ...

    async def tenant(self, tenant_id: TenantId) -> Tenant | None:
        """Read one tenant."""
        ...

    async def create(self, wanted: KeyRequest, *, actor: str) -> IssuedKey | None:
        """Issue a key; None when there is no such tenant."""
        ...

    async def keys(self, tenant_id: TenantId | None = None) -> list[Key]:
        """List keys, newest first, at most 10,000."""
        ...

    async def revoke(self, key_id: KeyId, *, actor: str, reason: str) -> Key | None:
        """Revoke for good, idempotently; None when there is no such key."""
        ...

    async def rotate(self, key_id: KeyId, overlap_seconds: float, *, actor: str) -> IssuedKey | Unrotatable:
        """Issue the key's successor, its equal, and let the key itself expire after the overlap."""
        ...

    async def find(self, key_id: KeyId) -> StoredKey | None:
        """Read one key."""
        ...

    async def changed_within(self, seconds: float) -> set[KeyId]:
        """Name the keys revoked or changed in the last `seconds` by the store's own clock."""
        ...

    async def rehash(self, stored: StoredKey, secret_hash: bytes, secret_form: str) -> None:
        """Replace the hash of a key's secret, unless it was replaced since it was read."""
        ...

    async def mark_used(self, used: Mapping[KeyId, dt.datetime]) -> None:
        """Note when keys were last used."""
        ...


def is_tenant_id(text: str) -> bool:
    """Tell whether `text` may name a tenant: lower-case letters, digits, `_`, `.`, `-`; at most 63."""
    return _TENANT_ID.fullmatch(text) is not None


def new_credential(chance: Chance) -> tuple[KeyId, str]:
    """Make a key id (16 hex characters) and a secret (64 hex characters)."""
    return KeyId(f"{chance.bits(64):016x}"), f"{chance.bits(256):064x}"


def judge(stored: StoredKey, secret: str, now: dt.datetime, peppers: Peppers = NO_PEPPERS) -> Caller | Rejected:
    """Compare in constant time, then look at revocation and expiry."""
    if not peppers.knows(stored.secret_form):
        return Rejected.NO_PEPPER
    if not hmac.compare_digest(hash_secret(secret, peppers.pepper_of(stored.secret_form)), stored.secret_hash):
        return Rejected.WRONG_SECRET
    return judge_standing(stored.key, now)


def judge_standing(key: Key, now: dt.datetime) -> Caller | Rejected:
    """Tell whether a key stands, whoever shows it: for tokens, which name a key and carry no secret."""
    if key.revoked_at is not None:
        return Rejected.REVOKED
    if key.expires_at is not None and key.expires_at <= now:
        return Rejected.EXPIRED
    return key.caller()


def decide_rotation(key: Key | None, now: dt.datetime, *, has_successor: bool) -> KeyRequest | Unrotatable:
    """Decide what the successor of a key shall be: its equal, with a life as long as the key's own was to be.

    A key whose successor stands is not rotated twice: revoke that one first (its secret may have been lost).
    """
    if key is None:
        return Unrotatable.UNKNOWN
    if not isinstance(judge_standing(key, now), Caller):
        return Unrotatable.ENDED
    if has_successor:
        return Unrotatable.HAS_SUCCESSOR
    expires_at = None if key.expires_at is None else now + (key.expires_at - key.created_at)
    return KeyRequest(key.tenant_id, key.name, key.scopes, expires_at, key.grants, key.networks, key.privileges)


def split_credential(credential: str) -> tuple[KeyId, str] | None:
    """Read `id:secret`; None when it cannot be one."""
    key_id, separator, secret = credential.partition(":")
    if not separator or _KEY_ID.fullmatch(key_id) is None or not 0 < len(secret) <= MAX_SECRET:
        return None
    return KeyId(key_id), secret


async def verify(
    store: KeyStore, credential: str, now: dt.datetime, peppers: Peppers = NO_PEPPERS
) -> Caller | Rejected:
    """Prove `id:secret` against the store itself, without a cache."""
    parts = split_credential(credential)
    if parts is None:
        return Rejected.MALFORMED
    stored = await store.find(parts[0])
    return Rejected.UNKNOWN if stored is None else judge(stored, parts[1], now, peppers)
