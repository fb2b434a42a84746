"""Chance, behind one door.

Shells that need random numbers (ids, jitter, secrets) receive a `Chance`; a lint bans `random`, `secrets`, `os.urandom`
and `uuid4` outside this file, so that a simulation with a seeded source repeats exactly.
"""

import random
import secrets
from typing import Protocol


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

    def bits(self, count: int) -> int:
        """Return `count` random bits as a non-negative integer."""
        return secrets.randbits(count)

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
