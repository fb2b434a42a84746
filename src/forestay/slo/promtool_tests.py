"""Tests for the exported rules, as `promtool test rules` reads them: calm does not page, harm does, in a stated minute.

It decides the traffic of the tests and what the engine says of it; the minutes expected are the engine's own. Called
by the command line, and with traces of its own by the bench that compares with a real Prometheus.
"""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import yaml

from forestay.slo.burn_rules import Severity
from forestay.slo.decide import ENOUGH, pairs_of
from forestay.slo.fleet import FleetEngine
from forestay.slo.model import Minute, Series, Slo
from forestay.slo.prometheus import EVIDENCE_METRIC, PAGE_ALERT, exportable

CALM_MINUTES, HARM_MINUTES = 400, 30
Floats = npt.NDArray[np.float64]
Values = dict[str, object]


@dataclasses.dataclass(frozen=True, slots=True)
class Played:
    """What the engine says of a trace, minute by minute."""

    rules_open: npt.NDArray[np.bool_]
    """A rule of the workbook that pages is open."""
    evidence: Floats


def play(slo: Slo, bad: Floats, total: Floats) -> Played:
    """Run the engine over a trace of minutes."""
    engine = FleetEngine([slo])
    rules, evidence = np.zeros(len(total), dtype=np.bool_), np.zeros(len(total))
    for minute in range(len(total)):
        engine.tick(Minute(minute), np.array([[bad[minute]], [total[minute]]]))
        rules[minute] = any(flags[0] for flags in engine.page.pairs_open.values())
        evidence[minute] = engine.page.evidence[0]
    return Played(rules, evidence)


def render_tests(slos: Sequence[Slo], rules_file: str) -> str:
    """Return a file of tests for the rules of `slos`, which lie in `rules_file`."""
    tests = [_test(slo) for slo in slos if exportable(slo) and slo.alerting.page and _pages(slo)]
    return yaml.safe_dump({"rule_files": [rules_file], "evaluation_interval": "1m", "tests": tests}, sort_keys=False)


def _pages(slo: Slo) -> bool:
    return any(pair.severity is Severity.PAGE for pair in pairs_of(slo))


def _test(slo: Slo) -> Values:
    pairs = [pair for pair in pairs_of(slo) if pair.severity is Severity.PAGE]
    per_minute = max(2 + 2 * pair.speaks_from // pair.traffic_minutes for pair in pairs)
    total = np.full(CALM_MINUTES + HARM_MINUTES, float(per_minute))
    bad = np.where(np.arange(len(total)) < CALM_MINUTES, 0.0, total)
    played = play(slo, bad, total)
    first = int(np.flatnonzero(played.rules_open)[0])
    moments = [CALM_MINUTES - 1, first - 1, first] if first > CALM_MINUTES else [CALM_MINUTES - 1, first]
    return {
        "name": f"{slo.slo_id}: calm traffic does not page, an outage does",
        "interval": "1m",
        "input_series": input_series(slo, bad, total),
        "promql_expr_test": [
            {
                "expr": alerts(slo),
                "eval_time": f"{moment + 1}m",
                "exp_samples": [{"labels": "{}", "value": 1}] if played.rules_open[moment] else [],
            }
            for moment in sorted(set(moments))
        ],
    }


def alerts(slo: Slo) -> str:
    """Return an expression that is 1 while the SLO pages, and nothing else."""
    return f'max(ALERTS{{alertname="{PAGE_ALERT}",alertstate="firing",slo="{slo.slo_id}"}})'


def input_series(slo: Slo, bad: Floats, total: Floats, evidence: Floats | None = None) -> list[Values]:
    """Return an SLO's counters, and its gauge, sampled each minute from the beginning on; a NaN total is no sample."""
    series = slo.sli.series
    assert series is not None  # noqa: S101 - only exportable SLOs come here
    found = [_counter(series.total, total), _counter(_second(series), bad if series.bad else total - bad)]
    if evidence is not None:
        values = " ".join(["0", *(repr(1.0 if value >= ENOUGH else float(value)) for value in evidence)])
        name = f'{EVIDENCE_METRIC}{{slo="{slo.slo_id}",severity="page"}}'
        found.append({"series": name, "values": values})
    return found


def _second(series: Series) -> str:
    return series.bad or series.good


def _counter(selector: str, increases: Floats) -> Values:
    """Return one series that the selector matches; regular expressions and negations are not made up here."""
    name, _, labels = selector.partition("{")
    plain = re.findall(r'([a-zA-Z_]\w*)="([^"]*)"', labels)
    values = np.concatenate([[0.0], np.nancumsum(increases)])
    lost = np.concatenate([[False], np.isnan(increases)])
    text = " ".join("_" if gone else f"{value:.0f}" for value, gone in zip(values, lost, strict=True))
    return {"series": name + "{" + ",".join(f'{key}="{value}"' for key, value in plain) + "}", "values": text}
