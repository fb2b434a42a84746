"""Keys and tenants: who calls, and the credential `id:secret` that proves it.

Only the sha-256 of a secret is stored: the secret is 256 random bits, so a slow hash would add nothing but load. The
`KeyRing` answers the gateway's hot path from memory and asks the store each second what was revoked: a revocation is
felt within two seconds. It fails closed: when the store has been silent for `trust_seconds`, a known key is looked up
again, which raises Unavailable. Called by the gateway (auth), the admin API and `forestay up` (first keys).
"""

import asyncio
import dataclasses
import datetime as dt
import enum
import hashlib
import hmac
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Protocol

from forestay.chance import Chance
from forestay.clock import Clock
from forestay.errors import Unavailable
from forestay.ids import KeyId, TenantId

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


@dataclasses.dataclass(frozen=True, slots=True)
class Caller:
    """A proven credential."""

    key_id: KeyId
    tenant_id: TenantId
    scopes: frozenset[Scope]


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


@dataclasses.dataclass(frozen=True, slots=True)
class StoredKey:
    """A key with the hash that proves its secret."""

    key: Key
    secret_hash: bytes


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

    async def create(self, wanted: KeyRequest, *, actor: str) -> IssuedKey | None:
        """Issue a key; None when there is no such tenant."""
        ...

    async def keys(self, tenant_id: TenantId | None = None) -> list[Key]:
        """List keys, newest first, at most 10,000."""
        ...

    async def revoke(self, key_id: KeyId, *, actor: str, reason: str) -> Key | None:
        """Revoke for good, idempotently; None when there is no such key."""
        ...

    async def find(self, key_id: KeyId) -> StoredKey | None:
        """Read one key."""
        ...

    async def revoked_within(self, seconds: float) -> set[KeyId]:
        """Name the keys revoked in the last `seconds` by the store's own clock."""
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


def hash_secret(secret: str) -> bytes:
    """Return the 32 bytes by which a secret is recognised."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def judge(stored: StoredKey, secret: str, now: dt.datetime) -> Caller | Rejected:
    """Compare in constant time, then look at revocation and expiry."""
    if not hmac.compare_digest(hash_secret(secret), stored.secret_hash):
        return Rejected.WRONG_SECRET
    key = stored.key
    if key.revoked_at is not None:
        return Rejected.REVOKED
    if key.expires_at is not None and key.expires_at <= now:
        return Rejected.EXPIRED
    return Caller(key.key_id, key.tenant_id, key.scopes)


async def verify(store: KeyStore, credential: str, now: dt.datetime) -> Caller | Rejected:
    """Prove `id:secret` against the store itself, without a cache."""
    key_id, separator, secret = credential.partition(":")
    if not separator or _KEY_ID.fullmatch(key_id) is None or not 0 < len(secret) <= MAX_SECRET:
        return Rejected.MALFORMED
    stored = await store.find(KeyId(key_id))
    return Rejected.UNKNOWN if stored is None else judge(stored, secret, now)


@dataclasses.dataclass(frozen=True, slots=True)
class RingLimits:
    """Bounds of a key ring; seconds."""

    known: int = 100_000  # keys remembered
    unknown: int = 10_000  # ids remembered as unknown
    unknown_seconds: float = 2.0  # a key issued after a failed try works at the latest then
    reread_seconds: float = 60.0  # a remembered key is read again after this long
    trust_seconds: float = 30.0  # how long a silent store is forgiven
    overlap_seconds: float = 30.0  # revocations whose transaction was slow to commit are still seen
    flush_seconds: float = 15.0  # how often `last_used_at` is written
    lookups: int = 4  # look-ups of unknown keys at a time, so that garbage cannot flood the store


@dataclasses.dataclass(slots=True)
class _Known:
    """A remembered key: `caller` is shared by all hits, `until` is monotonic."""

    secret_hash: bytes
    caller: Caller
    expires_at: dt.datetime | None
    until: float


class KeyRing:
    """Verified keys in memory, for one gateway."""

    def __init__(self, store: KeyStore, clock: Clock, limits: RingLimits | None = None) -> None:
        self._store = store
        self._clock = clock
        self._limits = limits or RingLimits()
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._unknown: OrderedDict[str, float] = OrderedDict()
        self._used: set[KeyId] = set()
        self._heard_at = clock.monotonic()
        self._flushed_at = clock.monotonic()
        self._lookups = asyncio.Semaphore(self._limits.lookups)
        self.failures = 0  # refreshes that the store did not answer: the gateway exports it

    def cached(self, credential: str) -> Caller | Rejected | None:
        """Answer from memory, in microseconds; None means that `verify` must ask the store."""
        key_id, _, secret = credential.partition(":")
        known = self._known.get(key_id)
        if known is None:
            return self._cached_refusal(key_id, secret)
        now = self._clock.monotonic()
        if now > known.until or now - self._heard_at > self._limits.trust_seconds:
            return None
        if len(secret) > MAX_SECRET or not hmac.compare_digest(hash_secret(secret), known.secret_hash):
            return Rejected.WRONG_SECRET
        if known.expires_at is not None and known.expires_at <= self._clock.now():
            return Rejected.EXPIRED
        self._used.add(known.caller.key_id)
        return known.caller

    async def verify(self, credential: str) -> Caller | Rejected:
        """Prove `id:secret`; raises Unavailable when the store is needed and does not answer."""
        answer = self.cached(credential)
        if answer is not None:
            return answer
        key_id, _, secret = credential.partition(":")
        async with self._lookups:
            answer = self.cached(credential)  # another caller may have read it while this one waited
            if answer is not None:
                return answer
            asked_at = self._clock.monotonic()
            stored = await self._store.find(KeyId(key_id))
        if stored is None or stored.key.revoked_at is not None:
            self._known.pop(key_id, None)
            self._remember_unknown(key_id)
        else:
            self._remember(key_id, stored, asked_at)
        answer = Rejected.UNKNOWN if stored is None else judge(stored, secret, self._clock.now())
        if isinstance(answer, Caller):
            self._used.add(answer.key_id)
        return answer

    async def refresh(self) -> int:
        """Forget keys revoked since the last time; returns how many. Raises Unavailable when the store is silent."""
        asked_at = self._clock.monotonic()
        revoked = await self._store.revoked_within(asked_at - self._heard_at + self._limits.overlap_seconds)
        self._heard_at = asked_at
        gone = sum(self._known.pop(key_id, None) is not None for key_id in revoked)
        if self._used and asked_at - self._flushed_at >= self._limits.flush_seconds:
            await self.flush()
        return gone

    async def flush(self) -> None:
        """Write `last_used_at` of the keys used since the last flush, in one batch."""
        used, self._used = self._used, set()
        self._flushed_at = self._clock.monotonic()
        if used:
            now = self._clock.now()
            await self._store.mark_used(dict.fromkeys(used, now))

    async def run(self, every_seconds: float = 1.0) -> None:
        """Refresh for ever; a silent store is waited for, and known keys stop being trusted after `trust_seconds`."""
        while True:
            try:
                await self.refresh()
            except Unavailable as error:
                self.failures += 1
                await self._clock.sleep(min(every_seconds, error.retry_after_seconds))
                continue
            await self._clock.sleep(every_seconds)

    def forget(self, key_ids: Iterable[KeyId]) -> None:
        """Drop keys at once: for the gateway that revokes one itself."""
        for key_id in key_ids:
            self._known.pop(key_id, None)

    def _cached_refusal(self, key_id: str, secret: str) -> Rejected | None:
        if _KEY_ID.fullmatch(key_id) is None or not 0 < len(secret) <= MAX_SECRET:
            return Rejected.MALFORMED
        until = self._unknown.get(key_id)
        if until is None or self._clock.monotonic() > until:
            return None
        return Rejected.UNKNOWN

    def _remember(self, key_id: str, stored: StoredKey, asked_at: float) -> None:
        until = asked_at + self._limits.reread_seconds
        if self._clock.monotonic() - self._heard_at > self._limits.trust_seconds:
            until = asked_at  # revocations are not heard now: every call asks
        key = stored.key
        caller = Caller(key.key_id, key.tenant_id, key.scopes)
        self._known[key_id] = _Known(stored.secret_hash, caller, key.expires_at, until)
        self._unknown.pop(key_id, None)
        if len(self._known) > self._limits.known:
            self._known.popitem(last=False)

    def _remember_unknown(self, key_id: str) -> None:
        self._unknown[key_id] = self._clock.monotonic() + self._limits.unknown_seconds
        self._unknown.move_to_end(key_id)
        if len(self._unknown) > self._limits.unknown:
            self._unknown.popitem(last=False)
