"""One trace from its client to the collector: gateway, queue, worker, the model's own process, and OTLP on the wire.

A platform of its own, since a collector is named at its start; the collector is a plain HTTP server of the test.
"""

import http.server
import json
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from tests.platform.platform import RunningPlatform

from forestay.demo import studio

TRACE_ID, CLIENT_SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
WAIT_SECONDS = 60.0
Span = dict[str, Any]


class Collector(http.server.ThreadingHTTPServer):
    """An OTLP/HTTP receiver on a free port of loopback: what is posted comes out of `posts`, path and JSON."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.posts: queue.Queue[tuple[str, str, Any]] = queue.Queue()

    @property
    def url(self) -> str:
        """Base URL, as FORESTAY_OTLP_ENDPOINT names it."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def trace(self, until: set[str]) -> dict[str, Span]:
        """Wait for the spans of our trace, until those of these names are there; returns them by name."""
        found: dict[str, Span] = {}
        while not until <= found.keys():
            path, kind, body = self.posts.get(timeout=WAIT_SECONDS)
            assert (path, kind) == ("/v1/traces", "application/json")
            for resource in body["resourceSpans"]:
                names = {item["key"]: item["value"] for item in resource["resource"]["attributes"]}
                assert names["service.name"] == {"stringValue": "forestay"}
                spans = [span for scope in resource["scopeSpans"] for span in scope["spans"]]
                found |= {span["name"]: span for span in spans if span["traceId"] == TRACE_ID}
        return found


class _Handler(http.server.BaseHTTPRequestHandler):
    """Takes a POST."""

    def do_POST(self) -> None:
        """Keep the body and answer as a collector does."""
        body = self.rfile.read(int(self.headers["content-length"]))
        cast("Collector", self.server).posts.put((self.path, self.headers["content-type"], json.loads(body)))
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the parent's name
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector that listens."""
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)


def fleet_in(folder: Path) -> Path:
    """Write a fleet of one model that answers with the context it was told."""
    (folder / "app.py").write_bytes(studio.APP)
    (folder / "model.yaml").write_text(json.dumps(studio.spec("demo/traced")))
    (folder / "fleet.yaml").write_text("models: [model.yaml]\n")
    return folder / "fleet.yaml"


def ask(client: httpx.Client) -> tuple[str, str]:
    """Submit one request within the client's trace; returns its id and the context that the model's process read."""
    context = {"traceparent": f"00-{TRACE_ID}-{CLIENT_SPAN}-01"}
    submitted = client.post("/queue/demo/traced", json={"prompt": "follow me"}, headers=context).raise_for_status()
    request_id = submitted.json()["request_id"]
    path = f"/queue/demo/traced/requests/{request_id}"
    with client.stream("GET", f"{path}/status/stream", timeout=WAIT_SECONDS) as events:
        assert any('"COMPLETED"' in line for line in events.iter_lines())
    return request_id, client.get(path).raise_for_status().json()["traceparent"]


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_trace_is_followed_from_the_client_into_the_model_s_process_and_out_to_a_collector(
    collector: Collector, tmp_path: Path
) -> None:
    """Every span hangs below another of the same trace, the first below the client's own; the model read its own."""
    environment = {"FORESTAY_OTLP_ENDPOINT": collector.url}
    tmp_path.chmod(0o755)
    arguments = ("--tls-port", "-1", "--workers", "1")
    with RunningPlatform(*arguments, fleet=fleet_in(tmp_path), environment=environment) as platform:
        headers = {"Authorization": f"Key {platform.api_key}"}
        with httpx.Client(base_url=platform.url, headers=headers, timeout=WAIT_SECONDS, trust_env=False) as client:
            request_id, told = ask(client)
        spans = collector.trace({"request", "queue", "attempt 1", "model", "store"})
    parents = {name: span.get("parentSpanId") for name, span in spans.items()}
    ids = {name: span["spanId"] for name, span in spans.items()}
    assert parents["request"] == CLIENT_SPAN
    assert {parents[name] for name in ("queue", "attempt 1", "store")} == {ids["request"]}
    assert parents["model"] == ids["attempt 1"]
    assert told == f"00-{TRACE_ID}-{ids['model']}-01"  # in the model's process, word for word
    assert len(set(ids.values())) == len(ids)
    attributes = {item["key"]: item["value"] for item in spans["request"]["attributes"]}
    assert attributes["forestay.request_id"] == {"stringValue": request_id}
    assert "follow me" not in json.dumps(spans)  # no prompt in a trace
    begins = {name: int(span["startTimeUnixNano"]) for name, span in spans.items()}
    assert begins["request"] <= begins["queue"] <= begins["attempt 1"] <= begins["model"] <= begins["store"]
