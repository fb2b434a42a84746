"""The desk at which passwords are checked and hashed: one at a time, in a thread, for few who wait.

A check takes a good part of a second of one core, so that a crowd of sign-ins would take the calls' time. It decides
how many may wait; beyond, Unavailable. Called by the sign-in and the routes of people.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from forestay.chance import Chance
from forestay.errors import Unavailable
from forestay.fleet.passwords import COST, Cost, hash_password, is_outdated, proves, unprovable

MAX_WAITING = 8


class PasswordDesk:
    """Checks and hashes passwords, one at a time."""

    def __init__(self, chance: Chance, cost: Cost = COST) -> None:
        self._chance = chance
        self._cost = cost
        self._nobody = unprovable(chance, cost)
        self._turn = asyncio.Semaphore(1)
        self._waiting = 0

    async def proves(self, password: str, stored: str | None) -> bool:
        """Tell whether the password is the stored one; None takes as long and is never."""
        async with self._in_turn():
            proven = await asyncio.to_thread(proves, password, stored or self._nobody)
        return proven and stored is not None

    async def hash(self, password: str) -> str:
        """Hash a new password."""
        async with self._in_turn():
            return await asyncio.to_thread(hash_password, password, self._chance, self._cost)

    def is_outdated(self, stored: str) -> bool:
        """Tell whether a hash should be made anew."""
        return is_outdated(stored, self._cost)

    @asynccontextmanager
    async def _in_turn(self) -> AsyncGenerator[None]:
        if self._waiting >= MAX_WAITING:
            raise Unavailable("too many people sign in at once; try again", retry_after_seconds=5.0)
        self._waiting += 1
        try:
            async with self._turn:
                yield
        finally:
            self._waiting -= 1
