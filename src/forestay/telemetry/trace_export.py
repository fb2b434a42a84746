"""Sends the spans of ended requests to a collector, off every request's path. Run by the controller.

Spans are made from facts, read by position, so nothing is lost while the collector is away and a crash sends the last
batch again, under the same ids. It decides how many facts go together, and that a batch which the collector refuses for
good is counted and left behind. What spans there are is decided in `spans`.
"""

import datetime as dt
from collections.abc import Sequence
from typing import Protocol, cast

from forestay.errors import Refused
from forestay.storage.postgres import Database, load_queries
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import SPANS, Metrics
from forestay.telemetry.spans import Fact, Span, Told, late_spans, moment, spans_of

BATCH = 500  # positions of one run
_SQL = load_queries("forestay.telemetry", "sql/traces.sql")
_LATEST = dt.timedelta(hours=1)
_log = logger("telemetry")


class Sink(Protocol):
    """Where spans go (`otlp.Collector`)."""

    async def send_spans(self, spans: Sequence[Span], service: str) -> None:
        """Send spans; raises Unavailable when they should be sent again, Refused when that would not help."""
        ...


class TraceLoop:
    """One batch after another."""

    def __init__(self, facts: Database, sink: Sink, service: str, metrics: Metrics) -> None:
        self._facts = facts
        self._sink = sink
        self._service = service
        self._metrics = metrics

    async def run_once(self) -> int:
        """Send the next batch; returns how many positions it covered. Raises Unavailable, having moved nowhere."""
        place = await self._facts.fetchrow(_SQL["place"])
        head = 0 if place is None else cast("int", place["head"])
        known = None if place is None else cast("int | None", place["position"])
        if known is None:  # the first run: what happened before is not told
            await self._facts.execute(_SQL["moved"], head)
            return 0
        until = min(head, known + BATCH)
        if until <= known:
            return 0
        spans = await self._spans(known, until)
        try:
            if spans:
                await self._sink.send_spans(spans, self._service)
                self._metrics.add(SPANS, "sent", amount=len(spans))
        except Refused as error:
            self._metrics.add(SPANS, "refused", amount=len(spans))
            _log.warning("traces.refused", spans=len(spans), reason=str(error))
        await self._facts.execute(_SQL["moved"], until)
        return until - known

    async def _spans(self, after: int, until: int) -> list[Span]:
        found: list[Span] = []
        requests = cast("list[Fact]", await self._facts.fetch(_SQL["requests"], after, until))
        if requests:
            ids = [fact["request_id"] for fact in requests]
            since = min(moment(fact["submitted_at"]) for fact in requests)
            last = max(moment(fact["finished_at"]) for fact in requests) + _LATEST
            attempts = _by_request(await self._facts.fetch(_SQL["attempts_of"], ids, since, last))
            verdicts = _by_request(await self._facts.fetch(_SQL["verdicts_of"], ids, since, last))
            for fact in requests:
                own = fact["request_id"]
                found += spans_of(Told(fact, attempts.get(own, ()), verdicts=verdicts.get(own, ())))
        for fact in cast("list[Fact]", await self._facts.fetch(_SQL["late_attempts"], after, until)):
            found += late_spans(Told(fact, attempts=(fact,)))
        for fact in cast("list[Fact]", await self._facts.fetch(_SQL["deliveries"], after, until)):
            found += late_spans(Told(fact, deliveries=(fact,)))
        return found


def _by_request(rows: Sequence[object]) -> dict[object, list[Fact]]:
    found: dict[object, list[Fact]] = {}
    for row in cast("Sequence[Fact]", rows):
        found.setdefault(row["request_id"], []).append(row)
    return found
