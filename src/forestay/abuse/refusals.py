"""Refusals that come after the submit: a queued request that a model refused for its content becomes a call fact.

The gateway noted the call when it was accepted; what the model said of its content stands in the request's fact. Each
such fact is looked up among the calls, and the call is noted once more, as refused, at the moment of its end. A call
that the gateway has not written yet is looked for again, for a while, in memory: a controller that dies then loses
those few. It decides which causes are about content (`calls`). A settler of `telemetry.facts.ship`.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Protocol

from forestay.abuse.calls import CONTENT, category_of
from forestay.clock import Clock
from forestay.telemetry.call_facts import LateRefusal, moment_of

MAX_WAITING = 10_000
PATIENCE = dt.timedelta(minutes=2)


class RefusalSink(Protocol):
    """Where refusals are added to their calls."""

    async def refuse(self, batch: Sequence[LateRefusal]) -> set[str]:
        """Note the calls again, as refused; returns the request ids that were found. Raises Unavailable."""
        ...


class LateRefusals:
    """Refusals whose call is not found yet; request id -> refusal and until when it is looked for."""

    def __init__(self, calls: RefusalSink, clock: Clock) -> None:
        self._calls = calls
        self._clock = clock
        self._waiting: dict[str, tuple[LateRefusal, dt.datetime]] = {}

    async def settle(
        self, _connection: object, requests: Sequence[Mapping[str, object]], _attempts: Sequence[object]
    ) -> None:
        """Take requests' facts as they are shipped; raises Unavailable."""
        for fact in requests:
            ran = fact["lane"] == "queue" and bool(fact["attempts"])  # what was refused at submit is noted already
            if ran and category_of(str(fact["error_type"] or "")) == CONTENT:
                self.take(_refusal(fact))
        await self.note()

    def take(self, refusal: LateRefusal, patience: dt.timedelta = PATIENCE) -> None:
        """Keep a refusal until its call is found, at most so long; of one request the first counts."""
        self._waiting.setdefault(refusal.request_id, (refusal, self._clock.now() + patience))
        while len(self._waiting) > MAX_WAITING:
            del self._waiting[next(iter(self._waiting))]

    async def note(self) -> None:
        """Look for the calls of what is kept; raises Unavailable, and keeps it."""
        now = self._clock.now()
        if not self._waiting:
            return
        found = await self._calls.refuse([refusal for refusal, _ in self._waiting.values()])
        self._waiting = {
            request_id: (refusal, until)
            for request_id, (refusal, until) in self._waiting.items()
            if request_id not in found and until > now
        }


def _refusal(fact: Mapping[str, object]) -> LateRefusal:
    return LateRefusal(
        request_id=str(fact["request_id"]),
        submitted_at=moment_of(fact["submitted_at"]),
        finished_at=moment_of(fact["finished_at"]),
        cause=str(fact["error_type"])[:60],
        status_code=int(str(fact["status_code"])),
    )
