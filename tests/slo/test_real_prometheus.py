"""The exported rules in a running Prometheus, its alerts through a running Alertmanager to a receiver.

Debian's programs, on loopback, their minutes shortened; where they are not installed this is skipped and says so.
"""

import dataclasses
import http.server
import json
import pathlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import pytest
import yaml
from bench import prometheus_live as live
from bench.prometheus_wire import shortened
from bench.slo_live import Compared, Trace, compare, quiet
from tests.slo.objectives import slo

from forestay.alerts.alertmanager_config import alertmanager_config
from forestay.alerts.rules_file import read_routing
from forestay.slo.model import Measure, Series, Sli, SliKind, Slo, SloId

COUNTED = Sli(SliKind.RATIO, Measure.AVAILABILITY, series=Series("req_total", bad='req_total{outcome="failed"}'))
needs_prometheus = pytest.mark.skipif(
    live.PROMETHEUS is None or live.ALERTMANAGER is None,
    reason="apt-get install prometheus prometheus-alertmanager: their programs are not installed",
)
ROUTES = """
receivers:
  - {name: phone, kind: webhook, url: "URL/pages"}
  - {name: desk, kind: webhook, url: "URL/tickets"}
routes:
  - name: pages
    match: ["name=slo_burns", "severity=page", "subject=model:acme/*"]
    to: [phone]
    group_wait: 0s
    group_interval: 1s
  - {name: rest, to: [desk], group_wait: 0s, group_interval: 1s}
"""


class Hook(http.server.ThreadingHTTPServer):
    """A receiver that keeps what Alertmanager sends it, by path."""

    def __init__(self) -> None:
        self.bodies: list[tuple[str, dict[str, Any]]] = []
        self.came = threading.Condition()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        """Return where it is."""
        return f"http://127.0.0.1:{self.server_port}"

    def told(self, path: str, status: str) -> list[dict[str, Any]]:
        """Return the notifications of a status that came to a path."""
        return [body for to, body in self.bodies if to == path and body["status"] == status]

    def wait_for(self, path: str, status: str) -> bool:
        """Wait until there is one, twenty seconds at most."""
        with self.came:
            return self.came.wait_for(lambda: bool(self.told(path, status)), 20)


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        """Keep a body."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        hook = cast("Hook", self.server)
        with hook.came:
            hook.bodies.append((self.path, body))
            hook.came.notify_all()
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@contextmanager
def stack(folder: pathlib.Path, minute_ms: int) -> Iterator[tuple[live.Prometheus, Hook]]:
    """Run Prometheus and Alertmanager with the exported routes, and a receiver."""
    hook = Hook()
    thread = threading.Thread(target=hook.serve_forever, daemon=True)
    thread.start()
    config, _ = alertmanager_config(read_routing(ROUTES.replace("URL", hook.url), "routes.yaml", folder))
    try:
        with (
            live.alertmanager(folder, yaml.safe_dump(config)) as manager,
            live.prometheus(folder, lookback_ms=5 * minute_ms, alertmanager=manager.url) as server,
        ):
            yield server, hook
    finally:
        hook.shutdown()
        hook.server_close()
        thread.join()


def harmed(watched: Slo, minutes: int, harm: tuple[int, int], per_minute: int = 300) -> Trace:
    """Return traffic of which three in ten fail for a while."""
    chance = np.random.default_rng(8)
    total = chance.poisson(per_minute, minutes).astype(np.float64)
    inside = (np.arange(minutes) >= harm[0]) & (np.arange(minutes) < harm[1])
    bad = chance.binomial(total.astype(np.int64), np.where(inside, 0.3, 0.0002)).astype(np.float64)
    return quiet(bad, total, watched)


def compared(server: live.Prometheus, traces: list[Trace], minute_ms: int) -> list[Compared]:
    """Compare; a machine so busy that evaluations were left out is given another go, twice."""
    found: list[Compared] = []
    for _ in range(3):
        missed = server.missed_evaluations()
        found = compare(server, traces, minute_ms)
        if server.missed_evaluations() == missed:
            return found
    return found


def test_only_times_are_shortened_and_what_is_short_of_a_minute_stays_short() -> None:
    """Six minutes less half of one, and five less a thousandth of a second."""
    assert shortened("5m30s", 200) == "1100ms"
    assert shortened("4m59s999ms", 200) == "999ms"
    assert shortened("60m", 250) == "15000ms"


@needs_prometheus
def test_an_alert_opens_in_the_engines_minutes_and_reaches_its_receiver_once(tmp_path: pathlib.Path) -> None:
    """By the exported rules and routes alone; ten seconds, since a Prometheus knows no other time than the real one."""
    with stack(tmp_path, 120) as (server, hook):
        [found] = compared(server, [harmed(slo(sli=COUNTED), 26, (12, 16))], 120)
        assert found.expected_pages.any()
        assert found.expected_tickets.any()
        assert found.differing == 0
        assert hook.wait_for("/pages", "firing")
        assert hook.wait_for("/tickets", "firing")
    [page], [ticket] = hook.told("/pages", "firing"), hook.told("/tickets", "firing")
    assert page["commonLabels"]["alertname"] == "SloPage"
    assert page["commonLabels"]["subject"] == "model:acme/digits"
    assert page["commonAnnotations"]["runbook_url"].startswith("docs/runbooks/slo_burns.md#")
    assert ticket["commonLabels"]["alertname"] == "SloTicket"


@needs_prometheus
@pytest.mark.slow
def test_thin_and_busy_models_agree_through_gaps_restarts_and_recovery(tmp_path: pathlib.Path) -> None:
    """Two SLOs for a hundred minutes: both page and recover, the thin one by evidence; the end is told once too."""
    busy = harmed(dataclasses.replace(slo(sli=COUNTED), slo_id=SloId("busy")), 100, (20, 26))
    lost = np.zeros(100, dtype=np.bool_)
    lost[30:34] = True
    anew = np.zeros(100, dtype=np.bool_)
    anew[24] = True
    bad, total = busy.bad.copy(), busy.total.copy()
    for counts in (bad, total):
        counts[34] += counts[30:34].sum()
        counts[30:34] = 0.0
        counts[24] = 0.0
    thin_counts = Sli(SliKind.RATIO, Measure.AVAILABILITY, series=Series("thin_total", bad="thin_failed_total"))
    thin = harmed(dataclasses.replace(slo(sli=thin_counts), slo_id=SloId("thin")), 100, (40, 70), per_minute=1)
    with stack(tmp_path, 200) as (server, hook):
        found = compared(server, [Trace(busy.slo, bad, total, lost, anew), thin], 200)
        assert [one.differing for one in found] == [0, 0]
        assert all(one.expected_pages.any() for one in found)
        assert not found[0].expected_pages[-1]
        assert hook.wait_for("/pages", "resolved")
