"""The ring of keys: verified credentials in memory, for a gateway's hot path.

It answers from memory and asks the store each second what was revoked or changed: that is felt within two seconds. It
fails closed: when the store has been silent for `trust_seconds`, a known key is looked up again, which raises
Unavailable. A secret stored under an older pepper is hashed anew when it is shown. What a credential is worth is for
`keys.judge` to say. Called by the gateway's authentication.
"""

import asyncio
import contextlib
import dataclasses
import hmac
from collections import OrderedDict
from collections.abc import Iterable

from forestay.clock import Clock
from forestay.errors import Unavailable
from forestay.fleet.keys import (
    MAX_SECRET,
    Caller,
    KeyStore,
    Rejected,
    StoredKey,
    judge,
    judge_standing,
    split_credential,
)
from forestay.fleet.peppers import NO_PEPPERS, PLAIN, Peppers, hash_secret
from forestay.ids import KeyId


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
    pepper: bytes | None
    caller: Caller
    until: float


class KeyRing:
    """Verified keys in memory, for one gateway."""

    def __init__(
        self, store: KeyStore, clock: Clock, limits: RingLimits | None = None, peppers: Peppers = NO_PEPPERS
    ) -> None:
        self._store = store
        self._clock = clock
        self._peppers = peppers
        self._limits = limits or RingLimits()
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._unknown: OrderedDict[str, float] = OrderedDict()
        self._used: set[KeyId] = set()
        self._watchers: dict[KeyId, set[asyncio.Event]] = {}
        self._heard_at = clock.monotonic()
        self._flushed_at = clock.monotonic()
        self._lookups = asyncio.Semaphore(self._limits.lookups)
        self.failures = 0  # refreshes that the store did not answer: the gateway exports it

    def cached(self, credential: str) -> Caller | Rejected | None:
        """Answer from memory, in microseconds; None means that `verify` must ask the store."""
        key_id, _, secret = credential.partition(":")
        known = self._known.get(key_id)
        if known is None:
            return self._cached_refusal(key_id, credential)
        if not self._trusted(known):
            return None
        if len(secret) > MAX_SECRET or not hmac.compare_digest(hash_secret(secret, known.pepper), known.secret_hash):
            return Rejected.WRONG_SECRET
        return self._used_now(known)

    def remembers(self, credential: str) -> bool:
        """Tell whether this very credential was proven here and is not forgotten; it may have to be read again."""
        key_id, _, secret = credential.partition(":")
        known = self._known.get(key_id)
        if known is None or len(secret) > MAX_SECRET:
            return False
        return hmac.compare_digest(hash_secret(secret, known.pepper), known.secret_hash)

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
            stored = await self._look_up(key_id)
        answer = Rejected.UNKNOWN if stored is None else judge(stored, secret, self._clock.now(), self._peppers)
        if isinstance(answer, Caller) and stored is not None:
            self._used.add(answer.key_id)
            await self._hash_anew(stored, secret)
        return answer

    async def stands(self, key_id: KeyId) -> Caller | Rejected:
        """Tell whether a key stands that a short-lived token names; the token proved itself, so no secret is asked."""
        known = self._known.get(key_id)
        if known is not None and self._trusted(known):
            return self._used_now(known)
        async with self._lookups:
            stored = await self._look_up(key_id)
        return Rejected.UNKNOWN if stored is None else judge_standing(stored.key, self._clock.now())

    async def refresh(self) -> int:
        """Forget keys revoked or changed since the last time; returns how many. Raises Unavailable."""
        asked_at = self._clock.monotonic()
        changed = await self._store.changed_within(asked_at - self._heard_at + self._limits.overlap_seconds)
        self._heard_at = asked_at
        gone = self.forget(changed)
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

    def forget(self, key_ids: Iterable[KeyId]) -> int:
        """Drop keys, and tell who watches them; returns how many were known. Whoever revokes one here calls it too."""
        gone = 0
        for key_id in key_ids:
            gone += self._known.pop(key_id, None) is not None
            for watcher in self._watchers.get(key_id, ()):
                watcher.set()
        return gone

    async def until_ended(self, key_id: KeyId) -> Rejected:
        """Return once a key stands no longer: for sessions that outlive the proof with which they began."""
        changed = asyncio.Event()
        self._watchers.setdefault(key_id, set()).add(changed)
        try:
            while True:
                answer = await self._standing(key_id)
                if isinstance(answer, Rejected):
                    return answer
                left = None if answer.expires_at is None else (answer.expires_at - self._clock.now()).total_seconds()
                await self._until(changed, left)
                changed.clear()
        finally:
            self._watchers[key_id].discard(changed)
            if not self._watchers[key_id]:
                del self._watchers[key_id]

    async def _standing(self, key_id: KeyId) -> Caller | Rejected:
        """Ask whether a key stands, waiting out a store that is silent: what is open already stays open meanwhile."""
        while True:
            try:
                return await self.stands(key_id)
            except Unavailable as error:
                await self._clock.sleep(error.retry_after_seconds)

    async def _until(self, event: asyncio.Event, seconds: float | None) -> None:
        async with asyncio.TaskGroup() as group:
            waits: list[asyncio.Task[object]] = [group.create_task(event.wait())]
            if seconds is not None:
                waits.append(group.create_task(self._clock.sleep(max(0.0, seconds))))
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()

    def _trusted(self, known: _Known) -> bool:
        now = self._clock.monotonic()
        return now <= known.until and now - self._heard_at <= self._limits.trust_seconds

    def _used_now(self, known: _Known) -> Caller | Rejected:
        caller = known.caller
        if caller.expires_at is not None and caller.expires_at <= self._clock.now():
            return Rejected.EXPIRED
        self._used.add(caller.key_id)
        return caller

    async def _look_up(self, key_id: str) -> StoredKey | None:
        asked_at = self._clock.monotonic()
        stored = await self._store.find(KeyId(key_id))
        if stored is None or stored.key.revoked_at is not None:
            self._known.pop(key_id, None)
            self._remember_unknown(key_id)
        elif self._peppers.knows(stored.secret_form):
            self._remember(key_id, stored, asked_at)
        return stored

    async def _hash_anew(self, stored: StoredKey, secret: str) -> None:
        """Bring a proven secret under the pepper in use; when the store is silent, the next proof does it."""
        if stored.secret_form != self._peppers.form != PLAIN:
            with contextlib.suppress(Unavailable):
                await self._store.rehash(stored, self._peppers.hash(secret), self._peppers.form)

    def _cached_refusal(self, key_id: str, credential: str) -> Rejected | None:
        if split_credential(credential) is None:
            return Rejected.MALFORMED
        until = self._unknown.get(key_id)
        if until is None or self._clock.monotonic() > until:
            return None
        return Rejected.UNKNOWN

    def _remember(self, key_id: str, stored: StoredKey, asked_at: float) -> None:
        until = asked_at + self._limits.reread_seconds
        if self._clock.monotonic() - self._heard_at > self._limits.trust_seconds:
            until = asked_at  # revocations are not heard now: every call asks
        pepper = self._peppers.pepper_of(stored.secret_form)
        self._known[key_id] = _Known(stored.secret_hash, pepper, stored.key.caller(), until)
        self._unknown.pop(key_id, None)
        if len(self._known) > self._limits.known:
            self._known.popitem(last=False)

    def _remember_unknown(self, key_id: str) -> None:
        self._unknown[key_id] = self._clock.monotonic() + self._limits.unknown_seconds
        self._unknown.move_to_end(key_id)
        if len(self._unknown) > self._limits.unknown:
            self._unknown.popitem(last=False)
