"""`slo_prometheus`: the exported rules, evaluated by a real Prometheus, against our engine, minute by minute.

One month of each kind of the corpus, with restarts and scrape gaps strewn over every one. Three looks at it:
- a running Prometheus with short minutes, from an hour before the incident on: scheduling, storage and all, pages and
  tickets, every SLO in groups of its own (`slo_live`); what the machine was too slow to evaluate is counted;
- `promtool test rules` for pages, from seven hours before the incident to two hours after;
- the same for tickets, from three days before, so that each of their windows is full.
In each the evidence is handed over as the gauge that Forestay exports, and an alert must fire exactly where our engine
has one. Where Debian's `prometheus` is not installed the bench says so and fails.
"""

import dataclasses
import pathlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import yaml

from bench.prometheus_live import PROMETHEUS, prometheus
from bench.slo_corpus import SEED
from bench.slo_live import Trace, compare
from bench.slo_world import KINDS, Month, month
from bench.table import Row
from forestay.slo.burn_rules import TICKET_EVERY_MINUTES, Severity
from forestay.slo.decide import ENOUGH
from forestay.slo.model import Measure, Series, Sli, SliKind, Slo, SloId, Subject, SubjectKind
from forestay.slo.prometheus import BAD, EVIDENCE_METRIC, TICKET_ALERT, TOTAL, render_rules
from forestay.slo.promtool_tests import alerts, play

MINUTE_MS = 250
# Minutes before the incident, the most of it that is looked at, and minutes after.
LIVE, PAGES, TICKETS = (60, 120, 60), (420, 720, 120), (4_400, 720, 120)
Floats = npt.NDArray[np.float64]
Values = dict[str, object]


def run(rounds: int) -> list[Row]:
    """Compare every minute of ten traces; the seed is fixed, so `rounds` changes nothing."""
    del rounds
    tool = shutil.which("promtool")
    if tool is None or PROMETHEUS is None:
        return [Row("Prometheus installed", 0.0, "", 1.0, ">=", "apt-get install prometheus")]
    months = [month(kind, SEED + number) for number, kind in enumerate(KINDS)]
    return [*_live(months), *_pages(tool, months), *_tickets(tool, months)]


def _live(months: Sequence[Month]) -> list[Row]:
    """Play a part of each month in a running Prometheus; takes a minute."""
    traces = [_trace(_slo(number), _part(made, *LIVE), number) for number, made in enumerate(months)]
    with tempfile.TemporaryDirectory() as name, prometheus(pathlib.Path(name), lookback_ms=5 * MINUTE_MS) as server:
        found = compare(server, traces, MINUTE_MS)
        missed, version = server.missed_evaluations(), server.get("/api/v1/status/buildinfo")["version"]
    minutes = sum(len(one.pages) for one in found)
    note = f"of {minutes:,} for pages and {sum(len(one.tickets) for one in found):,} for tickets; Prometheus {version}"
    return [
        Row("live: disagreeing minutes", sum(one.differing for one in found), "", 0.0, "<=", note),
        Row("live: minutes with a page open", sum(int(one.pages.sum()) for one in found), ""),
        Row("live: five minutes with a ticket open", sum(int(one.tickets.sum()) for one in found), ""),
        Row("live: evaluations left out", missed, "", note="0 but on a machine that is too busy to tell"),
    ]


def _pages(tool: str, months: Sequence[Month]) -> list[Row]:
    slos, series, checks, paging = list[Slo](), list[Values](), list[Values](), 0
    for number, made in enumerate(months):
        slo = _slo(number)
        trace = _trace(slo, _part(made, *PAGES), number)
        played = play(slo, trace.bad, trace.total)
        pages = played.rules_open | (played.evidence >= ENOUGH)
        slos.append(slo)
        series += [*_counters(trace), _gauge(slo, Severity.PAGE, played.evidence)]
        checks += _checks(alerts(slo), pages)
        paging += int(pages.sum())
    return _judged("pages", tool, _rules(slos, Severity.PAGE), Test("1m", series, checks, paging))


def _tickets(tool: str, months: Sequence[Month]) -> list[Row]:
    """The group of tickets alone, on minutes as the other group records them: promtool knows one interval only."""
    slos, series, checks, open_ = list[Slo](), list[Values](), list[Values](), 0
    for number, made in enumerate(months):
        slo = _slo(number)
        trace = _trace(slo, _part(made, *TICKETS), number)
        played = play(slo, trace.bad, trace.total)
        tickets = played.tickets_open | (played.ticket_evidence >= ENOUGH)
        slos.append(slo)
        for name, counts in ((BAD, trace.bad), (TOTAL, trace.total)):
            values = " ".join(["0", *(f"{value:.0f}" for value in counts)])
            series.append({"series": f'{name}{{slo="{slo.slo_id}"}}', "values": values})
        series.append(_gauge(slo, Severity.TICKET, played.ticket_evidence))
        checks += _checks(alerts(slo, TICKET_ALERT), tickets)[TICKET_EVERY_MINUTES - 1 :: TICKET_EVERY_MINUTES]
        open_ += int(tickets[TICKET_EVERY_MINUTES - 1 :: TICKET_EVERY_MINUTES].sum())
    interval = f"{TICKET_EVERY_MINUTES}m"
    return _judged("tickets", tool, _rules(slos, Severity.TICKET), Test(interval, series, checks, open_))


@dataclasses.dataclass(frozen=True, slots=True)
class Test:
    """A test of rules as promtool takes it, and how often an alert is expected."""

    interval: str
    series: list[Values]
    checks: list[Values]
    alerting: int


def _judged(name: str, tool: str, rules: str, test: Test) -> list[Row]:
    whole = {"interval": "1m", "input_series": test.series, "promql_expr_test": test.checks}
    differing, version = _disagreements(tool, rules, whole, test.interval)
    note = f"of {len(test.checks):,} in {len(KINDS)} traces; {version}"
    return [
        Row(f"{name}: disagreeing evaluations", differing, "", 0.0, "<=", note),
        Row(f"{name}: evaluations in which one was open", test.alerting, ""),
    ]


def _rules(slos: Sequence[Slo], severity: Severity) -> str:
    groups = yaml.safe_load(render_rules(slos)[0])["groups"]
    return yaml.safe_dump({"groups": [group for group in groups if group["name"].endswith(f"-{severity}")]})


def _slo(number: int) -> Slo:
    slo_id = SloId(f"slo-{number}")
    sli = Sli(SliKind.RATIO, Measure.AVAILABILITY, series=_series(slo_id))
    return Slo(slo_id, Subject(SubjectKind.PLATFORM), 0.999, sli, "acme")


def _series(slo_id: SloId) -> Series:
    name = slo_id.replace("-", "")
    return Series(f"{name}_requests_total", bad=f'{name}_failures_total{{kind="any"}}')


def _part(made: Month, before: int, most: int, after: int) -> tuple[Floats, Floats]:
    """Return bad and all requests of minutes around the incident."""
    part = slice(max(0, made.first - before), min(made.until, made.first + most) + after)
    return made.bad[part].astype(np.float64), made.total[part].astype(np.float64)


def _trace(slo: Slo, counts: tuple[Floats, Floats], number: int) -> Trace:
    """Return a trace with three scrape gaps and three restarts."""
    (bad, total), chance = counts, np.random.default_rng([SEED, number])
    lost = np.zeros(len(total), dtype=np.bool_)
    for start in chance.integers(5, len(total) - 60, 3):
        end = int(start + chance.integers(2, 40))
        for each in (bad, total):
            each[end] += each[start:end].sum()
            each[start:end] = 0.0
        lost[start:end] = True
    anew = np.zeros(len(total), dtype=np.bool_)
    anew[chance.integers(1, len(total), 3)] = True
    anew &= ~lost
    bad[anew], total[anew] = 0.0, 0.0  # counted before the restart, and never scraped
    return Trace(slo, bad, total, lost, anew)


def _counters(trace: Trace) -> list[Values]:
    series = _series(trace.slo.slo_id)
    return [
        {"series": series.total, "values": _values(trace.total, trace)},
        {"series": series.bad, "values": _values(trace.bad, trace)},
    ]


def _values(increases: Floats, trace: Trace) -> str:
    """Return the samples of a counter: `_` where no scrape succeeded, from 0 again after a restart."""
    value, words = 0.0, ["0"]
    for more, gone, anew in zip(increases, trace.lost, trace.anew, strict=True):
        value = 0.0 if anew else value + more
        words.append("_" if gone else f"{value:.0f}")
    return " ".join(words)


def _gauge(slo: Slo, severity: Severity, evidence: Floats) -> Values:
    values = " ".join(["0", *(repr(1.0 if value >= ENOUGH else float(value)) for value in evidence)])
    return {"series": f'{EVIDENCE_METRIC}{{slo="{slo.slo_id}",severity="{severity}"}}', "values": values}


def _checks(expression: str, firing: npt.NDArray[np.bool_]) -> list[Values]:
    return [
        {
            "expr": expression,
            "eval_time": f"{minute + 1}m",
            "exp_samples": [{"labels": "{}", "value": 1}] if fires else [],
        }
        for minute, fires in enumerate(firing.tolist())
    ]


def _disagreements(tool: str, rules: str, test: Values, interval: str) -> tuple[float, str]:
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "rules.yaml").write_text(rules, encoding="utf-8")
        whole = {"rule_files": ["rules.yaml"], "evaluation_interval": interval, "tests": [test]}
        (folder / "tests.yaml").write_text(yaml.safe_dump(whole), encoding="utf-8")
        command = [tool, "test", "rules", "tests.yaml"]
        ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=900)
    version = subprocess.run([tool, "--version"], capture_output=True, text=True, check=False).stdout
    words = version.splitlines()[0].split(" (")[0] if version else "promtool"
    differing = len(re.findall(r"^\s*expr: .*time: ", ran.stdout + ran.stderr, re.MULTILINE))
    if ran.returncode != 0 and differing == 0:
        return float("inf"), f"{words}: {(ran.stdout + ran.stderr)[-300:]}"
    return float(differing), words
