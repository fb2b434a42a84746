"""Traces made from facts: one tree a request, the same each time, sent without losing any while nobody listens."""

import datetime as dt
import json
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import cast

import msgspec
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from tests.conformance.queue_harness import finish, offer, postgres_harness, requeue, submission

from forestay.delivery.decide import Delivered
from forestay.delivery.outbox import ClaimLimits, PostgresOutbox
from forestay.errors import Refused, Unavailable, UsageError
from forestay.ids import KeyId, ModelId, RequestId, TenantId, WorkerId
from forestay.queue.model import Options
from forestay.storage.objects import ObjectStore
from forestay.storage.postgres import Database
from forestay.telemetry import tracing
from forestay.telemetry.facts import FactWriter, RequestFact, ship
from forestay.telemetry.metrics import SPANS, Metrics
from forestay.telemetry.otlp import Collector, encode_spans, parse_headers
from forestay.telemetry.spans import Kind, Span, Told, spans_of
from forestay.telemetry.trace_export import TraceLoop
from forestay.telemetry.waterfall import render_waterfall

BASE = dt.datetime(2026, 5, 4, 3, 2, tzinfo=dt.UTC)
REQUEST_ID = RequestId(uuid.UUID("01980f5e-7c1a-7000-8000-0123456789ab"))
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
STAGES = ("queued_at", "leased_at", "started_at", "answered_at", "checked_at", "finished_at")
Fact = dict[str, object]


def request_fact(lane: str = "queue", seconds: Sequence[float | None] = (0, 1, 2, 5, 6, 6.5)) -> Fact:
    """A request as its fact tells it."""
    moments = [None if value is None else BASE + dt.timedelta(seconds=value) for value in seconds]
    return {
        "request_id": REQUEST_ID,
        "lane": lane,
        "model_id": "a/b",
        "outcome": "succeeded",
        "cause": None,
        "submitted_at": BASE,
        "traceparent": CALLER,
        **dict(zip(STAGES, moments, strict=True)),
    }


def attempt_fact(number: int, request: Fact) -> Fact:
    """The attempt of that request, as its own fact tells it."""
    own = {name: request[name] for name in STAGES if name != "answered_at"}
    return {**request, **own, "attempt": number, "finished_at": request["answered_at"] or request["finished_at"]}


def by_name(spans: Sequence[Span]) -> Mapping[str, Span]:
    """Spans by their names."""
    return {span.name: span for span in spans}


def test_a_trace_goes_from_the_caller_through_queue_and_worker_into_the_model() -> None:
    """Each span hangs below its own parent, and the model was told the id that its span has."""
    request = request_fact()
    judged = {"at": BASE + dt.timedelta(seconds=6), "seconds": 1.0, "point": "output", "verdict": "allow"}
    notice = {
        "request_finished_at": request["finished_at"],
        "finished_at": BASE + dt.timedelta(seconds=8),
        "outcome": "delivered",
    }
    spans = spans_of(Told(request, [attempt_fact(1, request)], [notice], [judged]))
    named = by_name(spans)
    assert {span.trace_id for span in spans} == {"0af7651916cd43dd8448eb211c80319c"}
    root, attempt = named["request"], named["attempt 1"]
    assert root.parent_id == "b7ad6b7169203331"
    assert {named[name].parent_id for name in ("queue", "attempt 1", "judge output", "store", "webhook")} == {
        root.span_id
    }
    assert {named[name].parent_id for name in ("inputs", "model", "check")} == {attempt.span_id}
    told = tracing.read(tracing.for_model(CALLER, REQUEST_ID, 1))
    assert told is not None
    assert told.span_id == named["model"].span_id
    assert (named["model"].kind, root.kind) == (Kind.CLIENT, Kind.SERVER)
    seconds = {span.name: (span.ends_at - span.begins_at).total_seconds() for span in spans}
    assert seconds == {
        "request": 6.5, "queue": 1, "attempt 1": 5, "inputs": 1, "model": 3, "check": 1, "judge output": 1,
        "store": 0.5, "webhook": 1.5,
    }  # fmt: skip


def test_a_direct_call_shows_its_wait_its_model_and_the_first_piece_of_its_stream() -> None:
    """The gateway told the model the same id; without a caller's context the trace is named like the request."""
    request = request_fact("stream", (None, None, 2, 5, None, 5))
    request |= {"first_byte_at": BASE + dt.timedelta(seconds=3), "traceparent": tracing.accept(None, REQUEST_ID, 1.0)}
    named = by_name(spans_of(Told(request)))
    assert list(named) == ["request", "wait", "model"]
    assert named["request"].parent_id is None
    assert named["request"].trace_id == REQUEST_ID.hex
    assert named["model"].attributes["forestay.first_byte_seconds"] == 1.0
    assert named["model"].span_id in tracing.for_model(None, REQUEST_ID, 1)


@given(
    st.lists(st.none() | st.floats(-5, 50), min_size=6, max_size=6),
    st.integers(0, 3),
    st.sampled_from(["queue", "direct"]),
)
def test_whatever_was_reached_spans_are_one_tree(seconds: list[float | None], attempts: int, lane: str) -> None:
    """Ids differ, parents are there, nothing ends before it begins, and making them again gives the same."""
    seconds[-1] = seconds[-1] or 0.0
    request = request_fact(lane, seconds)
    told = Told(request, [attempt_fact(number + 1, request) for number in range(attempts)])
    spans = spans_of(told)
    assert spans == spans_of(told)
    ids = [span.span_id for span in spans]
    assert len(set(ids)) == len(ids)
    assert all(span.parent_id in ids for span in spans[1:])
    assert all(span.begins_at <= span.ends_at for span in spans)
    assert len(render_waterfall(spans, 80)) == len(spans)
    assert json.loads(encode_spans(spans, "here"))


def test_a_waterfall_is_drawn_to_scale_with_failures_marked() -> None:
    """A line each, children below their parents, no line wider than the terminal."""
    request = request_fact()
    failed = {**attempt_fact(1, request), "outcome": "model_crash", "cause": "model"}
    lines = render_waterfall(spans_of(Told(request, [failed])), 100)
    assert [line[:24].strip() for line in lines] == [
        "request",
        "queue",
        "attempt 1 !",
        "inputs",
        "model !",
        "check",
        "store",
    ]
    assert all(len(line) <= 100 for line in lines)
    assert lines[0].count("█") == 100 - 24 - 24 - 2
    assert "▒" in lines[4]
    assert "3.00 s" in lines[4]


class FakeCollector:
    """A real HTTP server that answers as told and keeps what it was sent."""

    def __init__(self) -> None:
        self.status = 200
        self.bodies: list[Mapping[str, object]] = []
        self.headers: list[Mapping[str, str]] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        """Keep what is good."""
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        if self.status == 200:
            self.bodies.append(await request.json())
        return web.Response(status=self.status)

    def spans(self) -> list[dict[str, object]]:
        """Return every span that was taken."""
        found: list[dict[str, object]] = []
        for body in self.bodies:
            [resource] = cast("list[dict[str, list[dict[str, list[dict[str, object]]]]]]", body["resourceSpans"])
            found += resource["scopeSpans"][0]["spans"]
        return found


@asynccontextmanager
async def serving() -> AsyncIterator[FakeCollector]:
    """Serve a collector on loopback."""
    collector = FakeCollector()
    app = web.Application()
    app.router.add_post("/v1/traces", collector.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield collector
    finally:
        await runner.cleanup()


async def test_spans_are_written_as_the_protocol_says() -> None:
    """Ids in hex, times in nanoseconds as text, kinds by number, the key in the header that was asked for."""
    request = request_fact()
    async with serving() as collector:
        sink = Collector(collector.url + "/", parse_headers("authorization=Bearer x, x-tenant = a"))
        await sink.send_spans(spans_of(Told(request)), "here")
    [root, *_] = collector.spans()
    assert (root["traceId"], root["parentSpanId"], root["kind"]) == (CALLER[3:35], CALLER[36:52], 2)
    assert root["startTimeUnixNano"] == "1777863720000000000"
    assert {"key": "forestay.model", "value": {"stringValue": "a/b"}} in cast("list[object]", root["attributes"])
    assert (collector.headers[0]["authorization"], collector.headers[0]["x-tenant"]) == ("Bearer x", "a")
    with pytest.raises(UsageError, match="FORESTAY_OTLP_HEADERS"):
        parse_headers("a=b,secret")


@pytest.mark.parametrize(("status", "error"), [(503, Unavailable), (429, Unavailable), (400, Refused), (302, Refused)])
async def test_what_a_collector_refuses_for_good_is_told_from_what_it_cannot_take_now(
    status: int, error: type[Exception]
) -> None:
    """By the protocol's own list of answers; nobody there is worth another try."""
    async with serving() as collector:
        collector.status = status
        with pytest.raises(error):
            await Collector(collector.url, {}).send_spans([], "here")
    with pytest.raises(Unavailable):
        await Collector(collector.url, {}).send_spans([], "here")


async def test_no_span_is_lost_while_the_collector_is_away(database: Database, objects: ObjectStore) -> None:
    """A retried request and its webhook, sent once the collector is back; unrecorded traces are not sent at all."""
    worker, metrics = WorkerId("w"), Metrics()
    async with serving() as collector:
        loop = TraceLoop(database, Collector(collector.url, {}), "here", metrics)
        await loop.run_once()
        async with postgres_harness(database, objects) as harness:
            options = Options(traceparent=CALLER, webhook_url="https://example.com/")
            quiet = Options(traceparent=CALLER[:-2] + "00")
            items = [submission(harness, options=options), submission(harness, options=quiet)]
            await harness.store.submit(items, {})
            leases = await harness.store.claim(worker, [offer(2)], 15)
            await harness.store.requeue([requeue(lease) for lease in leases])
            await harness.store.finish([finish(lease) for lease in await harness.store.claim(worker, [offer(2)], 15)])
        [due] = await PostgresOutbox(database).claim(ClaimLimits(10, 10, 15.0, 15.0), [])
        await ship(database, database)
        collector.status = 503
        with pytest.raises(Unavailable):
            await loop.run_once()
        collector.status = 200
        assert await loop.run_once() > 0
        first = [str(span["name"]) for span in collector.spans()]
        assert await loop.run_once() == 0
        await PostgresOutbox(database).settle(due, Delivered("200"), 200)
        await ship(database, database)
        await loop.run_once()
    assert (first.count("request"), first.count("attempt 1"), first.count("attempt 2")) == (1, 1, 1)
    [webhook] = collector.spans()[len(first) :]
    assert (webhook["name"], webhook["traceId"]) == ("webhook", CALLER[3:35])
    assert webhook["parentSpanId"] == tracing.span_id(items[0].request_id, tracing.REQUEST)
    assert metrics.value(SPANS, "sent") == len(first) + 1


async def test_a_batch_that_is_refused_for_good_is_counted_and_left_behind(database: Database) -> None:
    """Otherwise one bad batch would hold up every trace after it."""
    metrics = Metrics()
    async with serving() as collector:
        collector.status = 400
        loop = TraceLoop(database, Collector(collector.url, {}), "here", metrics)
        await loop.run_once()
        await FactWriter(database).write([_direct_fact()])
        assert await loop.run_once() == 1
        assert await loop.run_once() == 0
    assert metrics.value(SPANS, "refused") == 3


def _direct_fact() -> RequestFact:
    return RequestFact(
        request_id=REQUEST_ID,
        lane="direct",
        tenant_id=TenantId("t"),
        key_id=KeyId("k"),
        model_id=ModelId("a/b"),
        endpoint="/",
        revision_id=None,
        replica_id=None,
        attempts=1,
        state="succeeded",
        outcome="succeeded",
        status_code=200,
        error_type=None,
        submitted_at=BASE,
        started_at=BASE,
        finished_at=BASE,
        answered_at=BASE,
        device_seconds=0.0,
        traceparent=CALLER,
    )


def test_spans_are_told_as_json_with_attributes_or_without() -> None:
    """The admin API sends them as they are."""
    request = request_fact()
    spans = spans_of(Told(request, [attempt_fact(1, request)]))
    assert any(not span.attributes for span in spans)
    assert msgspec.json.decode(msgspec.json.encode(spans), type=list[Span]) == spans


def test_spans_say_what_failed_and_what_callers_did_themselves_is_no_failure() -> None:
    """A crash marks request and attempt; a refused input marks neither."""
    request = request_fact()
    crashed = {**request, "outcome": "model_crash", "cause": "model"}
    refused = {**request, "outcome": "caller_error", "cause": "caller"}
    assert spans_of(Told(crashed))[0].failed
    assert not any(span.failed for span in spans_of(Told(refused, [attempt_fact(1, refused)])))
