"""Counts status polls and result reads by the minute: what was answered as asked and in time, and what was not.

The call itself costs one addition: no row, no lock, no look at the clock. The loop wakes at the turn of each minute,
takes the counts and writes a row; the last minute is written at shutdown, a crash loses it. A minute that cannot be
written now is kept while there is room; beyond that the oldest are dropped and counted. Called by `asgi`.
"""

import datetime as dt
import uuid
from collections import deque

from forestay.errors import Unavailable
from forestay.gateway.exchange import Exchange
from forestay.gateway.ports import GatewayPorts
from forestay.gateway.routing import Operation
from forestay.telemetry.metrics import FACTS_LOST
from forestay.telemetry.poll_facts import PollMinute

POLLS = frozenset({Operation.STATUS.value, Operation.RESULT.value})
SLOW_SECONDS = 0.25  # beyond the refresh that an answer may wait for, and the time that a poll is held
MAX_KEPT = 1_440  # minutes: a day
MAX_BATCH = 500
CALLERS_PACE_BYTES = 65_536  # a longer answer takes as long as its caller reads: servers buffer so much
_MINUTE_SECONDS = 60.0


def decide_poll(call: Exchange, seconds: float, slow_seconds: float) -> bool | None:
    """Tell whether a poll or read counts as good (True), bad (False) or neither (None).

    A stored answer that was read is good whatever status it has: the model's own error is what was asked for. Neither:
    the caller's own errors, a caller that left, and lateness that the caller made by a slow body or slow reading.
    """
    if not call.told and not 200 <= call.status_code < 400:
        return False if call.status_code >= 500 else None
    if seconds <= slow_seconds + call.held_seconds:
        return True
    return None if _at_callers_pace(call) else False


class StatusPolls:
    """What this gateway counted and has not written yet."""

    def __init__(self, ports: GatewayPorts, gateway_id: str) -> None:
        self._ports = ports
        self._gateway_id = gateway_id
        self._slow_seconds = SLOW_SECONDS + ports.settings.gateway.status_refresh_seconds
        self._good = self._bad = 0
        self._minute = _minute_of(ports.clock.now())  # the one that is being counted
        self._kept: deque[PollMinute] = deque()

    def count(self, call: Exchange, seconds: float) -> None:
        """Count one answered call; `seconds` from its start to its end."""
        good = decide_poll(call, seconds, self._slow_seconds)
        if good:
            self._good += 1
        elif good is not None:
            self._bad += 1

    async def run(self) -> None:
        """Write for ever, once a minute."""
        while True:
            now = self._ports.clock.now()
            await self._ports.clock.sleep(_MINUTE_SECONDS - now.timestamp() % _MINUTE_SECONDS)
            await self.flush()

    async def flush(self, *, last: bool = False) -> None:
        """Write the minutes that are over, the last time also the one that is not; raises Unavailable.

        What the database refuses stays for the next round.
        """
        minute = _minute_of(self._ports.clock.now())
        if last or minute != self._minute:
            self._close(minute)
        while self._kept:
            batch = [self._kept.popleft() for _ in range(min(MAX_BATCH, len(self._kept)))]
            try:
                await self._ports.facts.write_polls(batch)
            except Unavailable:
                self._kept.extendleft(reversed(batch))
                raise

    def _close(self, minute: dt.datetime) -> None:
        """Keep what the counted minute came to, if anything, and begin the next."""
        if self._good or self._bad:
            if len(self._kept) >= MAX_KEPT:
                self._kept.popleft()
                self._ports.metrics.add(FACTS_LOST)
            count_id = uuid.UUID(int=self._ports.chance.bits(128))
            self._kept.append(PollMinute(self._minute, count_id, self._gateway_id, self._good, self._bad))
        self._good = self._bad = 0
        self._minute = minute


def _at_callers_pace(call: Exchange) -> bool:
    body = call.headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in call.headers
    return body or call.sent_bytes > CALLERS_PACE_BYTES


def _minute_of(moment: dt.datetime) -> dt.datetime:
    return moment.astimezone(dt.UTC).replace(second=0, microsecond=0)
