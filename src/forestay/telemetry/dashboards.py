"""Grafana dashboards out of the declared metrics: one row a family, one panel a metric. Pure.

Whoever adds a metric adds its panel; nothing here names one. Queries avoid what older Prometheus servers do not know.
The JSON is Grafana's dashboard model (schema version 39); the data source is chosen at import. Called by
`forestay observe export`.
"""

import itertools
from collections.abc import Iterable, Sequence

from forestay.telemetry.metrics import Metric

SCHEMA_VERSION = 39
QUANTILES = (0.5, 0.95, 0.99)
_WIDTH, _HEIGHT, _COLUMNS = 8, 7, 3
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
Panel = dict[str, object]


def grafana_dashboard(metrics: Iterable[Metric]) -> dict[str, object]:
    """Return the dashboard of all metrics, by family in the order of the table."""
    families: dict[str, list[Metric]] = {}
    for metric in metrics:
        families.setdefault(family_of(metric), []).append(metric)
    panels: list[Panel] = []
    top = 0
    for number, (family, members) in enumerate(families.items(), 1):
        panels.append(_row(family, 1_000 + number, top))
        top += 1
        panels += [_panel(metric, len(panels) + place, top, place) for place, metric in enumerate(members)]
        top += _HEIGHT * -(-len(members) // _COLUMNS)
    return {
        "title": "Forestay",
        "uid": "forestay",
        "tags": ["forestay"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [{"name": "datasource", "type": "datasource", "query": "prometheus"}]},
        "panels": panels,
    }


def family_of(metric: Metric) -> str:
    """Return the word after the prefix: what the metric is about."""
    return metric.name.removeprefix("forestay_").split("_", 1)[0]


def queries_of(metric: Metric) -> list[tuple[str, str]]:
    """Return PromQL with its legend: rates of counters, values of gauges, quantiles of histograms."""
    legend = " ".join(f"{{{{{label}}}}}" for label in metric.labels) or metric.name
    by = f" by ({', '.join(metric.labels)})" if metric.labels else ""
    match metric.kind:
        case "counter":
            return [(f"sum{by} (rate({metric.name}[$__rate_interval]))", legend)]
        case "gauge":
            return [(f"max{by} ({metric.name})", legend)]
        case "histogram":
            rate = f"sum by (le) (rate({metric.name}_bucket[$__rate_interval]))"
            return [(f"histogram_quantile({quantile:g}, {rate})", f"p{quantile * 100:g}") for quantile in QUANTILES]


def _row(family: str, number: int, top: int) -> Panel:
    place = {"x": 0, "y": top, "w": _WIDTH * _COLUMNS, "h": 1}
    return {"id": number, "type": "row", "title": family, "gridPos": place, "collapsed": False, "panels": []}


def _panel(metric: Metric, number: int, top: int, place: int) -> Panel:
    line, column = divmod(place, _COLUMNS)
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": metric.name,
        "description": metric.doc,
        "datasource": _SOURCE,
        "gridPos": {"x": column * _WIDTH, "y": top + line * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": _unit(metric)}, "overrides": []},
        "targets": _targets(queries_of(metric)),
    }


def _targets(queries: Sequence[tuple[str, str]]) -> list[Panel]:
    letters = itertools.chain("ABCDEFGHIJ")
    return [
        {"refId": letter, "datasource": _SOURCE, "expr": query, "legendFormat": legend}
        for letter, (query, legend) in zip(letters, queries, strict=False)
    ]


def _unit(metric: Metric) -> str:
    words = set(metric.name.split("_"))
    if metric.kind == "counter":
        return "Bps" if "bytes" in words else "ops"
    return "s" if "seconds" in words else ("bytes" if "bytes" in words else "short")
