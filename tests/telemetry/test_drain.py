"""Log drains: every line arrives signed while somebody takes them; while nobody does, a bounded number waits."""

import hashlib
import hmac
import json
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast

import pytest

from forestay.errors import UsageError
from forestay.telemetry.drain import MAX_KEPT_BYTES, SIGNATURE, Drain, otlp_logs

SECRET = "s" * 64


class Taker(ThreadingHTTPServer):
    """An endpoint that keeps what it was sent; `answers` are given in turn, then 200."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.bodies: list[bytes] = []
        self.signatures: list[str] = []
        self.got = threading.Semaphore(0)
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        """Return where it is."""
        return f"http://127.0.0.1:{self.server_port}/in?x=1"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        """Keep a body, then answer."""
        taker = cast("Taker", self.server)
        body = self.rfile.read(int(self.headers["content-length"]))
        status = taker.answers.pop(0) if taker.answers else 200
        if status == 200:
            taker.bodies.append(body)
            taker.signatures.append(self.headers.get(SIGNATURE, ""))
        self.send_response(status)
        self.end_headers()
        taker.got.release()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@pytest.fixture
def taker() -> Iterator[Taker]:
    """A running endpoint."""
    server = Taker()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def _drain(url: str, fates: Counter[str], form: str = "ndjson", secret: str = SECRET) -> Drain:
    return Drain(url, form=form, secret=secret, service="here", count=lambda fate, n: fates.update({fate: n}))


def test_every_line_arrives_signed_also_after_an_answer_that_asks_for_another_try(taker: Taker) -> None:
    """In their order, in batches; the last ones are sent when the process ends."""
    fates: Counter[str] = Counter()
    taker.answers = [503]
    drain = _drain(taker.url, fates)
    drain.start()
    drain.take(b'{"n":1}\n{"n":2}\n')
    assert taker.got.acquire(timeout=10)
    assert taker.got.acquire(timeout=10)
    drain.take(b'{"n":3}\n')
    drain.stop()
    assert b"".join(taker.bodies).splitlines() == [b'{"n":1}', b'{"n":2}', b'{"n":3}']
    for body, signature in zip(taker.bodies, taker.signatures, strict=True):
        assert signature == "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    assert fates == {"sent": 3}


def test_what_an_endpoint_refuses_for_good_is_counted_and_left_behind(taker: Taker) -> None:
    """The next lines go on."""
    fates: Counter[str] = Counter()
    taker.answers = [403]
    drain = _drain(taker.url, fates, secret="")
    drain.start()
    drain.take(b"a\n")
    assert taker.got.acquire(timeout=10)
    drain.take(b"b\n")
    drain.stop()
    assert (taker.bodies, taker.signatures) == ([b"b\n"], [""])
    assert fates == {"refused": 1, "sent": 1}


def test_lines_that_nobody_takes_do_not_grow_without_end() -> None:
    """The oldest are dropped, and counted one by one."""
    fates: Counter[str] = Counter()
    drain = _drain("http://127.0.0.1:9/", fates)
    line = b"x" * 1023 + b"\n"
    for _ in range(MAX_KEPT_BYTES // 1024 + 10):
        drain.take(line)
    assert fates == {"dropped": 10}


def test_lines_are_written_as_opentelemetry_s_logs_are() -> None:
    """The action is the body, the level a severity; what is no JSON is a body as it is."""
    line = json.dumps(
        {"action": "gateway.call", "level": "warning", "status": 200, "seconds": 0.5, "ok": True, "x": None}
    )
    sent = json.loads(otlp_logs(line.encode() + b"\nnot json\n", "here"))
    first, second = sent["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    assert (first["body"], first["severityNumber"]) == ({"stringValue": "gateway.call"}, 13)
    assert first["attributes"] == [
        {"key": "status", "value": {"intValue": "200"}},
        {"key": "seconds", "value": {"doubleValue": 0.5}},
        {"key": "ok", "value": {"boolValue": True}},
    ]
    assert second == {"body": {"stringValue": "not json"}}


def test_a_line_keeps_its_time_and_its_trace() -> None:
    """So that a collector puts it beside the spans of its request."""
    line = {"action": "a", "at": "2026-05-04T03:02:00.25Z", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    sent = json.loads(otlp_logs(json.dumps(line).encode() + b"\n", "here"))
    [record] = sent["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    assert record["timeUnixNano"] == "1777863720250000000"
    assert (record["traceId"], record["spanId"]) == ("a" * 32, "b" * 16)


@pytest.mark.parametrize(
    ("url", "form", "secret", "variable"),
    [
        ("logs.example", "ndjson", "", "FORESTAY_LOG_DRAIN_URL"),
        ("https://logs.example", "xml", "", "FORESTAY_LOG_DRAIN_FORMAT"),
        ("https://logs.example", "otlp", "short", "FORESTAY_LOG_DRAIN_SECRET"),
    ],
)
def test_a_drain_that_cannot_work_is_refused_at_start(url: str, form: str, secret: str, variable: str) -> None:
    """By the name of the setting, without repeating a secret."""
    with pytest.raises(UsageError, match=variable) as told:
        _drain(url, Counter(), form, secret)
    assert "short" not in str(told.value).replace("shorter", "")
