"""Tests for the exported rules, as `promtool test rules` reads them: calm does not page, harm does, in a stated minute.

It decides the traffic of the tests and what the engine says of it; the minutes expected are the engine's own. Called
by the command line, and with traces of its own by the bench that compares with a real Prometheus.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import yaml

from forestay.errors import UsageError
from forestay.slo.burn_rules import Severity
from forestay.slo.decide import ENOUGH, pairs_of
from forestay.slo.fleet import FleetEngine
from forestay.slo.made_series import Labels, made_series, matches
from forestay.slo.model import Minute, Slo
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
    tickets_open: npt.NDArray[np.bool_]
    """The same of a rule that writes tickets; it changes each fifth minute."""
    ticket_evidence: Floats


def play(slo: Slo, bad: Floats, total: Floats, first: int = 0) -> Played:
    """Run the engine over a trace of minutes, of which the first is the minute `first`."""
    engine = FleetEngine([slo])
    pages, tickets = np.zeros((2, len(total)), dtype=np.bool_)
    evidence, ticket_evidence = np.zeros((2, len(total)))
    for minute in range(len(total)):
        engine.tick(Minute(first + minute), np.array([[bad[minute]], [total[minute]]]))
        pages[minute] = any(flags[0] for flags in engine.page.pairs_open.values())
        tickets[minute] = any(flags[0] for flags in engine.ticket.pairs_open.values())
        evidence[minute] = engine.page.evidence[0]
        ticket_evidence[minute] = engine.ticket.evidence[0]
    return Played(pages, evidence, tickets, ticket_evidence)


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


def alerts(slo: Slo, name: str = PAGE_ALERT) -> str:
    """Return an expression that is 1 while the SLO's alert of that name fires, and nothing else."""
    return f'max(ALERTS{{alertname="{name}",alertstate="firing",slo="{slo.slo_id}"}})'


def input_series(slo: Slo, bad: Floats, total: Floats, evidence: Floats | None = None) -> list[Values]:
    """Return an SLO's counters, and its gauge, sampled each minute from the beginning on; a NaN total is no sample."""
    found = [_counter(labels, increases) for labels, increases in counters(slo, bad, total)]
    if evidence is not None:
        values = " ".join(["0", *(repr(1.0 if value >= ENOUGH else float(value)) for value in evidence)])
        name = f'{EVIDENCE_METRIC}{{slo="{slo.slo_id}",severity="page"}}'
        found.append({"series": name, "values": values})
    return found


def counters(slo: Slo, bad: Floats, total: Floats) -> list[tuple[Labels, Floats]]:
    """Return two series, with what each grows by a minute, which the SLO's selectors count as `bad` of `total`."""
    series = slo.sli.series
    assert series is not None  # noqa: S101 - only exportable SLOs come here
    selector, part = (series.bad, bad) if series.bad else (series.good, total - bad)
    made = made_series(series.total, selector)
    if made is None:
        raise UsageError("sli.series", f"{slo.slo_id}: no series is matched by {series.total} and not by {selector}")
    rest = total - part if matches(series.total, made[1]) else total
    return [(made[0], rest), (made[1], part)]


def _counter(labels: Labels, increases: Floats) -> Values:
    name = labels.get("__name__", "")
    plain = ",".join(f'{key}="{value}"' for key, value in labels.items() if key != "__name__")
    values = np.concatenate([[0.0], np.nancumsum(increases)])
    lost = np.concatenate([[False], np.isnan(increases)])
    text = " ".join("_" if gone else f"{value:.0f}" for value, gone in zip(values, lost, strict=True))
    return {"series": f"{name}{{{plain}}}", "values": text}
