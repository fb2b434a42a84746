"""What is generated for a stack of one's own: a dashboard of every metric, and the routes for an Alertmanager."""

import json
import pathlib
import re
import shutil
import subprocess

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from forestay.alerts.alertmanager_config import alertmanager_config
from forestay.alerts.rules import BROUGHT
from forestay.alerts.rules_file import read_routing
from forestay.telemetry.dashboards import grafana_dashboard, queries_of
from forestay.telemetry.metrics import Metric, Metrics, table

ROUTES = """
receivers:
  - {name: phone, kind: webhook, url: "https://phone.example/hook"}
  - {name: chat, kind: apprise, url: "slack://token"}
routes:
  - name: media
    match: ["owner=media", "subject=model:acme/*", "severity!=info"]
    to: [phone, chat]
    escalate: [{after: 10m, to: [chat]}]
  - {name: default, to: [chat], group_by: [owner, name], page_wait: 0s, group_interval: 0s}
"""


def test_every_metric_has_its_panel_and_no_two_share_a_place() -> None:
    """Ids and places are unique; queries name the metric and its own labels."""
    board = json.loads(json.dumps(grafana_dashboard(table())))
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    assert [panel["title"] for panel in panels] != []
    assert {panel["title"] for panel in panels} == {metric.name for metric in table()}
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]]
    assert len(places) == len(set(places))
    for metric in table():
        for query, _ in queries_of(metric):
            assert metric.name in query


def test_every_name_and_label_in_a_dashboard_is_exported() -> None:
    """By a process that has counted each metric once, as a Prometheus reads it."""
    metrics = Metrics()
    for metric in table():
        _count(metrics, metric)
    families = [family for family in text_string_to_metric_families(metrics.exposition().decode()) if family.samples]
    exported = {sample.name: set(sample.labels) for family in families for sample in family.samples}
    panels = grafana_dashboard(table())["panels"]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", [])]  # type: ignore[attr-defined]
    assert queries
    for query in queries:
        [name] = re.findall(r"\b((?:forestay|fal)_\w+)\b", query)
        assert name in exported, query
        labels = {label for found in re.findall(r"by \(([^)]*)\)", query) for label in found.split(", ")}
        assert labels <= exported[name], query


def test_what_the_engine_calls_slo_burns_is_matched_under_the_exported_rules_names_too(tmp_path: pathlib.Path) -> None:
    """One file of routes fits both; a name that has nothing to do with SLOs stays as it is."""
    text = ROUTES.replace('"owner=media", "subject=model:acme/*"', '"name=slo_*", "name!=queue_age"')
    config, _ = alertmanager_config(read_routing(text, "routes.yaml", tmp_path))
    first = config["route"]["routes"][0]  # type: ignore[index, call-overload]
    assert first["matchers"][:2] == ['alertname =~ "slo_.*|SloPage|SloTicket"', 'alertname != "queue_age"']


def _count(metrics: Metrics, metric: Metric) -> None:
    labels = ["x"] * len(metric.labels)
    if metric.kind == "counter":
        metrics.add(metric, *labels)
    elif metric.kind == "gauge":
        metrics.set(metric, 1.0, *labels)
    else:
        metrics.observe(metric, 1.0, *labels)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="Debian's prometheus is not installed")
def test_a_real_prometheus_reads_every_query(tmp_path: pathlib.Path) -> None:
    """As rules, which promtool parses with the engine's own parser."""
    queries = [query for metric in table() for query, _ in queries_of(metric)]
    rules = [
        {"record": f"check:{number}", "expr": query.replace("$__rate_interval", "5m")}
        for number, query in enumerate(queries)
    ]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "check", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_routes_become_alertmanagers_and_what_is_lost_is_said(tmp_path: pathlib.Path) -> None:
    """Matchers with stars become anchored patterns; escalation and apprise have no counterpart."""
    config, lost = alertmanager_config(read_routing(ROUTES, "routes.yaml", tmp_path))
    routes = config["route"]["routes"]  # type: ignore[index, call-overload]
    assert [(route["receiver"], route["continue"]) for route in routes] == [
        ("phone", True), ("chat", False), ("chat", False),
    ]  # fmt: skip
    assert routes[0]["matchers"] == ['owner = "media"', 'subject =~ "model:acme/.*"', 'severity != "info"']
    assert routes[2]["group_by"] == ["owner", "alertname"]
    assert any("escalation has no counterpart" in line for line in lost)
    assert any("chat reaches nobody" in line for line in lost)


@pytest.mark.skipif(shutil.which("amtool") is None, reason="Debian's prometheus-alertmanager is not installed")
def test_a_real_alertmanager_reads_the_routes(tmp_path: pathlib.Path) -> None:
    """Amtool check-config says so."""
    config, _ = alertmanager_config(read_routing(ROUTES, "routes.yaml", tmp_path))
    file = tmp_path / "alertmanager.yml"
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    done = subprocess.run(["amtool", "check-config", file], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(BROUGHT)} inhibit rules" in done.stdout
