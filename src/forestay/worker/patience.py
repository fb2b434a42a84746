"""Judging again while nobody can tell: a judge that died is back within seconds.

Decides how often it is tried and when it is given up. Called by the queue's checks of inputs and outputs.
"""

import dataclasses
from collections.abc import Awaitable, Callable
from typing import TypeVar

from forestay.clock import Clock

FIRST_PAUSE_SECONDS = 0.25  # each further one is twice as long
Said = TypeVar("Said")


@dataclasses.dataclass(frozen=True, slots=True)
class Patience:
    """For how long somebody may wait for a judgement."""

    clock: Clock
    seconds: float

    async def ask(self, once: Callable[[], Awaitable[Said]], again: Callable[[Said], bool]) -> Said:
        """Ask until `again` says no of an answer, or the time is over; return the last answer."""
        ends, pause = self.clock.monotonic() + self.seconds, FIRST_PAUSE_SECONDS
        said = await once()
        while again(said) and self.clock.monotonic() + pause < ends:
            await self.clock.sleep(pause)
            pause *= 2
            said = await once()
        return said
