"""SLOs as rules of a user's own Prometheus: recording rules that count as this engine counts, and alerts on them.

It decides the text of the rules. Each minute's increase is recorded once, across resets and gaps as in `counters`;
windows are sums of these, so an alert is the engine's own arithmetic and fires in the same minutes (of tickets: a
Prometheus chooses with which minute five of them end, Forestay takes the clock's). The evidence test
can't be written in PromQL: it is read from the gauge `forestay_slo_evidence_ratio`, which Forestay exports; without it
the rules of the workbook stand alone, held at thin traffic. Written for Prometheus 2.26 and later: no newer function is
used, and ranges end short of whole minutes so that open and closed left ends give the same: by half a minute in the
group that records, by a thousandth of a second in the other, which is evaluated anywhere between two evaluations of the
first. Called by the command line.
"""

from collections.abc import Iterator, Mapping, Sequence

import yaml

from forestay.slo.burn_rules import TICKET_EVERY_MINUTES, Pair, Severity
from forestay.slo.counters import LONGEST_GAP_MINUTES
from forestay.slo.decide import pairs_of
from forestay.slo.model import SliKind, Slo, SubjectKind
from forestay.slo.openslo import Loss
from forestay.slo.standing import subject_of
from forestay.telemetry.metrics import SLO_EVIDENCE

EVIDENCE_METRIC = SLO_EVIDENCE.name
TOTAL, BAD, SHARE, OPEN = "slo:total:increase1m", "slo:bad:increase1m", "slo:bad:share", "slo:rule:open"
PAGE_ALERT, TICKET_ALERT = "SloPage", "SloTicket"
RUNBOOKS: Mapping[Severity, str] = {
    Severity.PAGE: "docs/runbooks/slo_burns.md#a-page",
    Severity.TICKET: "docs/runbooks/slo_burns.md#a-ticket",
}
"""Where somebody reads on whose SLO names no runbook of its own."""
Rule = dict[str, object]


def render_rules(slos: Sequence[Slo]) -> tuple[str, tuple[Loss, ...]]:
    """Return a file of rules and what could not be written."""
    losses = [loss for slo in slos if (loss := _why_not(slo)) is not None]
    groups = [group for slo in slos if _why_not(slo) is None for group in _groups(slo)]
    return yaml.safe_dump({"groups": groups}, sort_keys=False, width=1_000), tuple(losses)


def exportable(slo: Slo) -> bool:
    """Tell whether rules can be written for an SLO."""
    return _why_not(slo) is None


def _why_not(slo: Slo) -> Loss | None:
    if slo.subject.kind is SubjectKind.COMPOSITE:
        return Loss(slo.slo_id, "parts", "a composite burns by what Forestay keeps of its parts: no rules")
    if slo.sli.kind is SliKind.TIME_SLICE:
        return Loss(slo.slo_id, "sli.kind", "slices of time are counted by Forestay only: no rules")
    if slo.sli.series is None:
        return Loss(slo.slo_id, "sli.series", "names no counters of your Prometheus: no rules; add `series`")
    return None


def _groups(slo: Slo) -> Iterator[Rule]:
    pairs = pairs_of(slo)
    for severity, minutes in ((Severity.PAGE, 1), (Severity.TICKET, TICKET_EVERY_MINUTES)):
        chosen = [pair for pair in pairs if pair.severity is severity]
        rules: list[Rule] = list(_increases(slo)) if severity is Severity.PAGE else []
        lengths = sorted({length for pair in chosen for length in (pair.short_minutes, pair.long_minutes)})
        rules += [_share(slo, length, severity) for length in lengths]
        rules += [_open(slo, pair, minutes) for pair in chosen]
        wanted = slo.alerting.page if severity is Severity.PAGE else slo.alerting.ticket
        if wanted:
            rules.append(_alert(slo, severity))
        yield {"name": f"slo-{slo.slo_id}-{severity}", "interval": f"{minutes}m", "rules": rules}


def _increases(slo: Slo) -> Iterator[Rule]:
    series = slo.sli.series
    assert series is not None  # noqa: S101 - `_why_not` has looked
    total = _increase(series.total)
    probes = f"({_increase(series.probes_total)} or vector(0))" if series.probes_total else ""
    yield _record(TOTAL, slo, f"{total} + {probes}" if probes else total)
    nothing = f"sum(0 * {TOTAL}{_of(slo)})"
    if series.bad:
        bad = f"({_increase(series.bad)} or {nothing})"
    else:
        bad = f"({total} - ({_increase(series.good)} or {nothing}))"
    failed = f" + ({_increase(series.probes_bad)} or vector(0))" if series.probes_bad else ""
    yield _record(BAD, slo, f"{bad}{failed}")


def _increase(selector: str) -> str:
    """Return what a counter grew by since its last sample of the past hour; if it fell, its value."""
    before = f"last_over_time({selector}[{LONGEST_GAP_MINUTES - 1}m30s] offset 1m)"
    return f"sum(({selector} - {before} >= 0) or ({selector} < {before}))"


def _over(metric: str, slo: Slo, minutes: int, severity: Severity) -> str:
    short = "30s" if severity is Severity.PAGE else "59s999ms"
    return f"sum_over_time({metric}{_of(slo)}[{minutes - 1}m{short}])"


def _share(slo: Slo, minutes: int, severity: Severity) -> Rule:
    labels = {"window": f"{minutes}m", "severity": severity.value}
    return _record(SHARE, slo, f"{_over(BAD, slo, minutes, severity)} / {_over(TOTAL, slo, minutes, severity)}", labels)


def _open(slo: Slo, pair: Pair, every_minutes: int) -> Rule:
    """It burns, and it was open before or begins now: with a bad request, at traffic at which it may speak."""
    long, short = (
        f"{SHARE}{_of(slo, window=f'{minutes}m', severity=pair.severity)} > {pair.threshold!r}"
        for minutes in (pair.long_minutes, pair.short_minutes)
    )
    fresh = f"{BAD}{_of(slo)} > 0" if every_minutes == 1 else f"{_over(BAD, slo, every_minutes, pair.severity)} > 0"
    speaks = (
        f"{fresh} and on (slo) {_over(TOTAL, slo, pair.long_minutes, pair.severity)} >= {pair.long_from}"
        f" and on (slo) {_over(TOTAL, slo, pair.traffic_minutes, pair.severity)} >= {pair.speaks_from}"
    )
    before = f"{OPEN}{_of(slo, rule=pair.name)} offset {every_minutes}m"
    burns = f"max by (slo) ({long}) and on (slo) ({short})"
    labels = {"rule": pair.name, "severity": pair.severity.value}
    return _record(OPEN, slo, f"{burns} and on (slo) (({speaks}) or on (slo) {before})", labels)


def _alert(slo: Slo, severity: Severity) -> Rule:
    rules = f"max by (slo) ({OPEN}{_of(slo, severity=severity)})"
    evidence = f"max by (slo) ({EVIDENCE_METRIC}{_of(slo, severity=severity)}) >= 1"
    whom = f"{slo.subject.kind} {slo.subject.name}".strip()
    notes = {
        "summary": f"{slo.slo_id}: {whom} spends its error budget too fast",
        "description": (
            f"More requests fail than an objective of {slo.objective * 100:.10g} % allows. "
            f"`forestay slo explain {slo.slo_id}` says who is hurt and how much of the budget is left."
        ),
    }
    notes["runbook_url"] = slo.alerting.runbook or RUNBOOKS[severity]
    name = PAGE_ALERT if severity is Severity.PAGE else TICKET_ALERT
    labels = {
        "severity": severity.value,
        "owner": slo.owner_team,
        "subject": subject_of(slo),  # as Forestay's own alert has it, so that one file of routes fits both
        "source": "slo",
        **{key.replace("-", "_"): v for key, v in slo.labels},
    }
    return {"alert": name, "expr": f"{rules} or {evidence}", "labels": labels, "annotations": notes}


def _record(name: str, slo: Slo, expression: str, labels: dict[str, str] | None = None) -> Rule:
    return {"record": name, "expr": expression, "labels": {"slo": str(slo.slo_id), **(labels or {})}}


def _of(slo: Slo, **labels: str) -> str:
    words = [f'slo="{slo.slo_id}"', *(f'{name}="{text}"' for name, text in labels.items())]
    return "{" + ",".join(words) + "}"
