"""SLOs as rules of a user's own Prometheus: recording rules that count as this engine counts, and alerts on them.

It decides the text of the rules. Each minute's increase is recorded once, across resets and gaps as in `counters`;
windows are sums of these, and of a composite the weighted means of its parts' shares over such windows. So an alert is
the engine's own arithmetic and fires in the same minutes (of tickets: a Prometheus chooses with which minute five of
them end, Forestay takes the clock's). The evidence test can't be written in PromQL: it is read from the gauge
`forestay_slo_evidence_ratio`, which Forestay exports; without it the rules of the workbook stand alone, held at thin
traffic. Slices of time are no counters: their alerts read that gauge and nothing else. Written for Prometheus 2.26 and
later: no newer function is used, and ranges end short of whole minutes so that open and closed left ends give the same:
by half a minute in the group that records, by a thousandth of a second in the other, which is evaluated anywhere
between two evaluations of the first. Called by the command line.
"""

import collections
from collections.abc import Iterator, Mapping, Sequence

import yaml

from forestay.slo.burn_rules import TICKET_EVERY_MINUTES, Pair, Severity
from forestay.slo.counters import LONGEST_GAP_MINUTES
from forestay.slo.decide import pairs_of
from forestay.slo.model import SliKind, Slo, SloId, SubjectKind
from forestay.slo.openslo import Loss
from forestay.slo.standing import subject_of
from forestay.telemetry.metrics import SLO_EVIDENCE

EVIDENCE_METRIC = SLO_EVIDENCE.name
TOTAL, BAD, SHARE, OPEN = "slo:total:increase1m", "slo:bad:increase1m", "slo:bad:share", "slo:rule:open"
PART_TOTAL, PART_BAD, WEIGHT = "slo:part:total:increase1m", "slo:part:bad:increase1m", "slo:part:weight"
"""Of each part of a composite, in the composite's own groups: all parts of one evaluation are of the same minute."""
PAGE_ALERT, TICKET_ALERT = "SloPage", "SloTicket"
RUNBOOKS: Mapping[Severity, str] = {
    Severity.PAGE: "docs/runbooks/slo_burns.md#a-page",
    Severity.TICKET: "docs/runbooks/slo_burns.md#a-ticket",
}
"""Where somebody reads on whose SLO names no runbook of its own."""
Rule = dict[str, object]


def render_rules(slos: Sequence[Slo]) -> tuple[str, tuple[Loss, ...]]:
    """Return a file of rules and what could not be written."""
    known = {slo.slo_id: slo for slo in slos}
    told = [(slo, _why_not(slo, known)) for slo in slos]
    losses = [loss for _, loss in told if loss is not None]
    groups = [group for slo, loss in told if loss is None or _sliced(slo) for group in _groups(slo, known)]
    return yaml.safe_dump({"groups": groups}, sort_keys=False, width=1_000), tuple(losses)


def exportable(slo: Slo) -> bool:
    """Tell whether rules can be written for an SLO by itself: not for a composite, which needs its parts."""
    return _why_not(slo, {}) is None


def _sliced(slo: Slo) -> bool:
    return slo.sli.kind is SliKind.TIME_SLICE


def _why_not(slo: Slo, known: Mapping[SloId, Slo]) -> Loss | None:
    if slo.subject.kind is SubjectKind.COMPOSITE:
        return _why_not_composite(slo, known)
    if _sliced(slo):
        return Loss(
            slo.slo_id, "sli.kind", "Forestay alone counts slices of time: alerts on its evidence, no other rules"
        )
    if slo.sli.series is None:
        return Loss(slo.slo_id, "sli.series", "names no counters of your Prometheus: no rules; add `series`")
    return None


def _why_not_composite(slo: Slo, known: Mapping[SloId, Slo]) -> Loss | None:
    for name, times in collections.Counter(part.slo_id for part in slo.parts).items():
        part = known.get(name)
        if part is None or not exportable(part):
            return Loss(slo.slo_id, "parts", f"its part {name} has no rules, so the composite has none")
        if times > 1:
            return Loss(slo.slo_id, "parts", f"its part {name} is there {times} times: no rules; name it once")
    return None


def _groups(slo: Slo, known: Mapping[SloId, Slo]) -> Iterator[Rule]:
    pairs = () if _sliced(slo) else pairs_of(slo)
    for severity, minutes in ((Severity.PAGE, 1), (Severity.TICKET, TICKET_EVERY_MINUTES)):
        chosen = [pair for pair in pairs if pair.severity is severity]
        counted = severity is Severity.PAGE and not _sliced(slo)
        rules: list[Rule] = list(_counted(slo, known)) if counted else []
        lengths = sorted({length for pair in chosen for length in (pair.short_minutes, pair.long_minutes)})
        rules += [_share(slo, length, severity) for length in lengths]
        rules += [_open(slo, pair, minutes) for pair in chosen]
        wanted = slo.alerting.page if severity is Severity.PAGE else slo.alerting.ticket
        if wanted:
            rules.append(_alert(slo, severity))
        if rules:
            yield {"name": f"slo-{slo.slo_id}-{severity}", "interval": f"{minutes}m", "rules": rules}


def _counted(slo: Slo, known: Mapping[SloId, Slo]) -> Iterator[Rule]:
    """Record what each minute counts: of an SLO, or of each part of a composite, with its weight."""
    if not slo.parts:
        yield from _increases(slo, (TOTAL, BAD), {"slo": str(slo.slo_id)})
    for part in slo.parts:
        labels = {"slo": str(slo.slo_id), "part": str(part.slo_id)}
        yield from _increases(known[part.slo_id], (PART_TOTAL, PART_BAD), labels)
        yield {"record": WEIGHT, "expr": f"vector({part.weight!r})", "labels": labels}


def _increases(slo: Slo, names: tuple[str, str], labels: dict[str, str]) -> Iterator[Rule]:
    series = slo.sli.series
    assert series is not None  # noqa: S101 - `_why_not` has looked
    total = _increase(series.total)
    probes = f"({_increase(series.probes_total)} or vector(0))" if series.probes_total else ""
    yield {"record": names[0], "expr": f"{total} + {probes}" if probes else total, "labels": dict(labels)}
    selected = ",".join(f'{name}="{text}"' for name, text in labels.items())
    nothing = f"sum(0 * {names[0]}{{{selected}}})"
    if series.bad:
        bad = f"({_increase(series.bad)} or {nothing})"
    else:
        bad = f"({total} - ({_increase(series.good)} or {nothing}))"
    failed = f" + ({_increase(series.probes_bad)} or vector(0))" if series.probes_bad else ""
    yield {"record": names[1], "expr": f"{bad}{failed}", "labels": dict(labels)}


def _increase(selector: str) -> str:
    """Return what a counter grew by since its last sample of the past hour; if it fell, its value."""
    before = f"last_over_time({selector}[{LONGEST_GAP_MINUTES - 1}m30s] offset 1m)"
    return f"sum(({selector} - {before} >= 0) or ({selector} < {before}))"


def _over(metric: str, slo: Slo, minutes: int, severity: Severity) -> str:
    short = "30s" if severity is Severity.PAGE else "59s999ms"
    return f"sum_over_time({metric}{_of(slo)}[{minutes - 1}m{short}])"


def _share(slo: Slo, minutes: int, severity: Severity) -> Rule:
    labels = {"window": f"{minutes}m", "severity": severity.value}
    if slo.parts:
        harm = f"{WEIGHT}{_of(slo)} * {_over(PART_BAD, slo, minutes, severity)} / {_seen(slo, minutes, severity)}"
        return _record(SHARE, slo, f"sum by (slo) ({harm}) / {_weights(slo, minutes, severity)}", labels)
    return _record(SHARE, slo, f"{_over(BAD, slo, minutes, severity)} / {_over(TOTAL, slo, minutes, severity)}", labels)


def _amount(slo: Slo, minutes: int, severity: Severity) -> str:
    """Return how many requests a window is worth: of a composite, as `PartTable.means` has it."""
    if not slo.parts:
        return _over(TOTAL, slo, minutes, severity)
    least = f"min by (slo) ({_seen(slo, minutes, severity)} / {WEIGHT}{_of(slo)})"
    return f"{_weights(slo, minutes, severity)} * {least}"


def _seen(slo: Slo, minutes: int, severity: Severity) -> str:
    """Return what parts had in a window, of those that had any."""
    return f"({_over(PART_TOTAL, slo, minutes, severity)} > 0)"


def _weights(slo: Slo, minutes: int, severity: Severity) -> str:
    return f"sum by (slo) ({WEIGHT}{_of(slo)} and {_seen(slo, minutes, severity)})"


def _fresh(slo: Slo, minutes: int, severity: Severity) -> str:
    """Return an expression that holds where the last step had a bad request."""
    metric = PART_BAD if slo.parts else BAD
    bad = f"{metric}{_of(slo)}" if minutes == 1 else _over(metric, slo, minutes, severity)
    return f"sum by (slo) ({bad}) > 0" if slo.parts else f"{bad} > 0"


def _open(slo: Slo, pair: Pair, every_minutes: int) -> Rule:
    """It burns, and it was open before or begins now: with a bad request, at traffic at which it may speak."""
    long, short = (
        f"{SHARE}{_of(slo, window=f'{minutes}m', severity=pair.severity)} > {pair.threshold!r}"
        for minutes in (pair.long_minutes, pair.short_minutes)
    )
    speaks = (
        f"{_fresh(slo, every_minutes, pair.severity)}"
        f" and on (slo) {_amount(slo, pair.long_minutes, pair.severity)} >= {pair.long_from}"
        f" and on (slo) {_amount(slo, pair.traffic_minutes, pair.severity)} >= {pair.speaks_from}"
    )
    before = f"{OPEN}{_of(slo, rule=pair.name)} offset {every_minutes}m"
    burns = f"max by (slo) ({long}) and on (slo) ({short})"
    labels = {"rule": pair.name, "severity": pair.severity.value}
    return _record(OPEN, slo, f"{burns} and on (slo) (({speaks}) or on (slo) {before})", labels)


def _alert(slo: Slo, severity: Severity) -> Rule:
    rules = f"max by (slo) ({OPEN}{_of(slo, severity=severity)})"
    evidence = f"max by (slo) ({EVIDENCE_METRIC}{_of(slo, severity=severity)}) >= 1"
    whom = f"{slo.subject.kind} {slo.subject.name}".strip()
    what = "By the weights of its parts, more fails than" if slo.parts else "More requests fail than"
    notes = {
        "summary": f"{slo.slo_id}: {whom} spends its error budget too fast",
        "description": (
            f"{what} an objective of {slo.objective * 100:.10g} % allows. "
            f"`forestay slo explain {slo.slo_id}` says who is hurt and how much of the budget is left."
        ),
    }
    notes["runbook_url"] = slo.alerting.runbook or RUNBOOKS[severity]
    name = PAGE_ALERT if severity is Severity.PAGE else TICKET_ALERT
    labels = {
        "slo": str(slo.slo_id),  # the expression says it too; `promtool check` tells two SLOs of one model apart by it
        "severity": severity.value,
        "owner": slo.owner_team,
        "subject": subject_of(slo),  # as Forestay's own alert has it, so that one file of routes fits both
        "source": "slo",
        **{key.replace("-", "_"): v for key, v in slo.labels},
    }
    return {
        "alert": name,
        "expr": evidence if _sliced(slo) else f"{rules} or {evidence}",
        "labels": labels,
        "annotations": notes,
    }


def _record(name: str, slo: Slo, expression: str, labels: dict[str, str] | None = None) -> Rule:
    return {"record": name, "expr": expression, "labels": {"slo": str(slo.slo_id), **(labels or {})}}


def _of(slo: Slo, **labels: str) -> str:
    words = [f'slo="{slo.slo_id}"', *(f'{name}="{text}"' for name, text in labels.items())]
    return "{" + ",".join(words) + "}"
