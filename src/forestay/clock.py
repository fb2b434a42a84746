"""Time, behind one door.

Decisions receive `now` as a value; shells receive a `Clock`. Nothing else in the package may read a clock: a lint
bans `datetime.now` and the `time` module outside this file. Wall-clock time is for records and deadlines, monotonic
time for durations (a wall clock steps).
"""

import asyncio
import datetime as dt
import time
from typing import Protocol


class Clock(Protocol):
    """What a shell may ask about time."""

    def now(self) -> dt.datetime:
        """Return the wall-clock time, aware, in UTC: for records and deadlines."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never run backwards: for durations and local time-outs."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait `seconds`; cancellation ends the wait."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> dt.datetime:
        """Return the wall-clock time, aware, in UTC."""
        return dt.datetime.now(dt.UTC)

    def monotonic(self) -> float:
        """Return the monotonic clock in seconds."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait `seconds` on the running event loop."""
        await asyncio.sleep(seconds)

    def block(self, seconds: float) -> None:
        """Block the calling thread for `seconds`: for threads and start-up code, never on an event loop."""
        time.sleep(seconds)
