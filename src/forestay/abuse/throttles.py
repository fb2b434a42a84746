"""Calls whose content was let go and counts against their caller all the same: a policy's `throttle`.

Of an input's text the gateway knows when it notes the call. What is judged later (files of an input, outputs, pieces of
streams, frames, lines) stands in its verdict record; here the call is noted once more, as refused, at that moment. A
call counts once, however much of it was found. A direct call is noted by its gateway when it ends, so it is waited for.
It begins with the last minutes, so that a controller that takes over misses nothing. Decides nothing else; run by the
controller's loop.
"""

import datetime as dt
import uuid
from collections.abc import Sequence
from typing import Protocol

from forestay.abuse.refusals import LateRefusals, RefusalSink
from forestay.clock import Clock
from forestay.ids import RequestId, made_at
from forestay.telemetry.call_facts import CONTENT_THROTTLED, LateRefusal

BATCH = 1_000
LOOK_BACK = dt.timedelta(minutes=10)  # at the first run; later records are written within seconds
PATIENCE = dt.timedelta(minutes=15)  # for a call that lasts: its gateway notes it at its end


class Touches(Protocol):
    """Where verdicts that count against a caller are read."""

    async def throttled(
        self, after: int | None, since: dt.datetime, limit: int
    ) -> tuple[Sequence[tuple[uuid.UUID, dt.datetime]], int | None]:
        """Return requests with the moment of the judgement, written after a position, and where to go on."""
        ...


class ThrottleLoop:
    """The loop's run."""

    def __init__(self, verdicts: Touches, calls: RefusalSink, clock: Clock) -> None:
        self._verdicts = verdicts
        self._late = LateRefusals(calls, clock)
        self._clock = clock
        self._position: int | None = None

    async def run_once(self) -> int:
        """Note what was found since the last run; returns how many judgements were read. Raises Unavailable."""
        since = self._clock.now() - LOOK_BACK
        found, self._position = await self._verdicts.throttled(self._position, since, BATCH)
        for request_id, at in found:
            submitted_at = made_at(RequestId(request_id)) or at
            self._late.take(LateRefusal(str(request_id), submitted_at, at, CONTENT_THROTTLED, 200), PATIENCE)
        await self._late.note()
        return len(found)
