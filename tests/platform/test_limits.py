"""Limits over several real gateways: exact together, live in a second, and not one error when Valkey dies."""

import concurrent.futures
import contextlib
import http.client
import http.server
import json
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.platform.platform import RunningPlatform, run_cli, wait_for

from forestay.clock import SystemClock

GATEWAYS = 3
CLOCK = SystemClock()
SPEC = """\
version: 0
model: acme/quick
description: A constant answer, at once or when it is let go.
owner: {{team: tests, contact: tests@acme.invalid}}
licence: Apache-2.0
host: {{kind: http_server, url: "{url}", health_path: /health}}
endpoints: [{{path: /}}, {{path: /slow}}]
resources: {{pool: cpu, devices: 1, memory_mb: 0}}
limits: {{max_multiplexing: 32}}
"""


class Model:
    """A model server whose slow calls wait until they are let go."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.let_go = threading.Event()
        model = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._reply()

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/slow":
                    model.entered.release()
                    model.let_go.wait(60)
                self._reply()

            def _reply(self) -> None:
                with contextlib.suppress(OSError):
                    self.send_response(200)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", "2")
                    self.end_headers()
                    self.wfile.write(b"{}")

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's signature
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


class Fleet:
    """The platform with its model, as tests call it."""

    def __init__(self, platform: RunningPlatform, model: Model) -> None:
        self.platform = platform
        self.model = model
        parts = urllib.parse.urlsplit(platform.url)
        self._host, self._port = str(parts.hostname), parts.port

    def send(self, method: str, path: str, body: object, key: str) -> tuple[int, dict[str, object]]:
        """Make one call on a connection of its own: whichever gateway takes it."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=30)
        try:
            connection.request(method, path, json.dumps(body), {"authorization": f"Key {key}"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"{}")
        finally:
            connection.close()

    def call(self, key: str, path: str = "/run/acme/quick") -> int:
        """Call the model and return the status."""
        return self.send("POST", path, {}, key)[0]

    def tenant(self, name: str, **limits: float) -> str:
        """Make a tenant with limits and return a key of it."""
        self.send("POST", "/admin/tenants", {"tenant_id": name}, self.platform.admin_key)
        made = self.send("POST", "/admin/keys", {"tenant_id": name}, self.platform.admin_key)[1]
        if limits:
            self.limit(name, **limits)
        return str(made["key"])

    def limit(self, tenant: str, **limits: float) -> None:
        """Set limits."""
        body = {"subject": f"tenant:{tenant}", **limits}
        status, answer = self.send("PUT", "/admin/limits", body, self.platform.admin_key)
        assert status == 200, answer

    def usage(self, subject: str) -> dict[str, object]:
        """What a subject has used."""
        return self.send("GET", f"/admin/limits/usage?subject={subject}", None, self.platform.admin_key)[1]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Three gateways, one worker, one model whose server is this test's own."""
    folder, model = tmp_path_factory.mktemp("limits"), Model()
    thread = threading.Thread(target=model.server.serve_forever, daemon=True)
    thread.start()
    (folder / "model.yaml").write_text(SPEC.format(url=model.url))
    (folder / "fleet.yaml").write_text("models: [model.yaml]\n")
    arguments = ("--gateways", str(GATEWAYS), "--tls-port", "-1")
    with RunningPlatform(*arguments, fleet=Path(folder / "fleet.yaml")) as platform:
        one = Fleet(platform, model)
        assert wait_for(lambda: one.call(platform.api_key) == 200, 60)
        yield one
        model.let_go.set()
    model.server.shutdown()
    model.server.server_close()
    thread.join()


def test_a_rate_is_one_rate_over_all_gateways(fleet: Fleet) -> None:
    """Of calls that arrive as fast as three gateways take them, the rate and one burst are granted, and no more."""
    key = fleet.tenant("rated", requests_per_second=5, burst=5)
    CLOCK.block(1.0)  # until every gateway knows it
    started = CLOCK.monotonic()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: fleet.call(key), range(150)))
    seconds = CLOCK.monotonic() - started
    assert set(statuses) == {200, 429}
    assert 0.9 * 5 * seconds <= statuses.count(200) <= 5 * seconds + 5


def test_a_limit_that_is_changed_holds_on_every_gateway_within_a_second(fleet: Fleet) -> None:
    """No restart: after a second no gateway knows the old one."""
    key = fleet.tenant("changed", requests_per_second=1000, burst=1000)
    assert [fleet.call(key) for _ in range(6)] == [200] * 6
    fleet.limit("changed", requests_per_second=0.001, burst=1)
    CLOCK.block(1.0)  # what is promised
    assert [fleet.call(key) for _ in range(30)].count(200) <= 1


def test_a_valkey_that_dies_in_mid_traffic_costs_no_caller_an_error(fleet: Fleet) -> None:
    """Calls of both lanes go on while it is away and when it is back; none is refused below the limit's share."""
    key = fleet.tenant("steady", requests_per_second=100_000, burst=100_000, in_flight=1000, gpu_seconds_per_month=1e6)
    stop, statuses = threading.Event(), list[int]()

    def go_on(path: str) -> None:
        while not stop.is_set():
            statuses.append(fleet.call(key, path))

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        for path in ("/run/acme/quick", "/run/acme/quick", "/queue/acme/quick"):
            pool.submit(go_on, path)
        assert wait_for(lambda: len(statuses) > 20)
        for _ in range(2):
            old = fleet.platform.kill("valkey")
            before = len(statuses)
            fleet.platform.wait_replaced("valkey", old)
            assert wait_for(lambda at=before: len(statuses) > at + 30)
        stop.set()
    assert set(statuses) == {200}


def test_usage_counts_each_request_of_both_lanes_once_though_the_controller_dies(fleet: Fleet) -> None:
    """What was sent is what is counted."""
    key = fleet.tenant("counted", gpu_seconds_per_month=1e6)
    for number in range(30):
        path = "/queue/acme/quick" if number % 3 else "/run/acme/quick"
        assert fleet.call(key, path) == 200
        if number == 15:
            fleet.platform.kill("controller")

    def requests() -> object:
        return fleet.usage("tenant:counted")["spent"]["requests"]  # type: ignore[index]

    assert wait_for(lambda: requests() == 30, 40), fleet.usage("tenant:counted")
    CLOCK.block(2.5)  # two rounds of settlement more
    assert requests() == 30
    shown = run_cli(
        "limit", "usage", "tenant:counted",
        environment={"FORESTAY_URL": fleet.platform.url, "FORESTAY_KEY": fleet.platform.admin_key},
    )  # fmt: skip
    assert "30 requests" in shown.stdout, shown.stderr


@pytest.mark.slow
def test_what_a_killed_gateway_had_in_flight_lapses(fleet: Fleet) -> None:
    """Its calls are gone with it; the limit is free again after the lease of half a minute, not never."""
    key = fleet.tenant("killed", in_flight=2)
    assert wait_for(lambda: fleet.usage("tenant:killed")["limits"] != [])
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        slow = [pool.submit(fleet.call, key, "/run/acme/quick/slow") for _ in range(2)]
        for _ in range(2):
            assert fleet.model.entered.acquire(timeout=20)
        assert fleet.call(key) == 429
        for number in range(1, GATEWAYS + 1):
            fleet.platform.kill(f"gateway-{number}")
        assert wait_for(lambda: all(one.done() for one in slow), 20)
    fleet.model.let_go.set()

    def free() -> bool:
        try:
            return fleet.call(key) == 200
        except OSError:  # the gateways are being started again
            return False

    assert wait_for(free, 60)
