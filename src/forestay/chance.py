"""Chance, behind one door.

Shells that need random numbers (ids, jitter, secrets) receive a `Chance`; a lint bans `random`, `secrets`, `os.urandom`
and `uuid4` outside this file, so that a simulation with a seeded source repeats exactly.
"""

import random
import secrets
import threading
from typing import Protocol

_POOL_BYTES = 4096


class Chance(Protocol):
    """What a shell may ask of chance."""

    def bits(self, count: int) -> int:
        """Return `count` random bits as a non-negative integer."""
        ...

    def uniform(self, low: float, high: float) -> float:
        """Return a number in [low, high]."""
        ...

    def token(self, size_bytes: int) -> str:
        """Return `size_bytes` of unguessable randomness as URL-safe text without padding."""
        ...


class SystemChance:
    """The operating system's cryptographic source."""

    def __init__(self) -> None:
        self._random = random.SystemRandom()
        self._pool = b""  # asking the system once for many ids: a call for each costs more than the rest of an id
        self._used = 0
        self._lock = threading.Lock()

    def bits(self, count: int) -> int:
        """Return `count` random bits as a non-negative integer."""
        size = (count + 7) // 8
        with self._lock:  # no two threads may be given the same bytes
            if self._used + size > len(self._pool):
                self._pool, self._used = secrets.token_bytes(max(_POOL_BYTES, size)), 0
            value = int.from_bytes(self._pool[self._used : self._used + size])
            self._used += size
        return value >> (size * 8 - count)

    def uniform(self, low: float, high: float) -> float:
        """Return a number in [low, high]."""
        return self._random.uniform(low, high)

    def token(self, size_bytes: int) -> str:
        """Return `size_bytes` of unguessable randomness as URL-safe text without padding."""
        return secrets.token_urlsafe(size_bytes)


class SeededChance:
    """A repeatable source for tests and simulations; never for secrets in production."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - repeatability is the point here

    def bits(self, count: int) -> int:
        """Return `count` random bits as a non-negative integer."""
        return self._random.getrandbits(count)

    def uniform(self, low: float, high: float) -> float:
        """Return a number in [low, high]."""
        return self._random.uniform(low, high)

    def token(self, size_bytes: int) -> str:
        """Return `size_bytes` of repeatable text."""
        return self._random.randbytes(size_bytes).hex()
