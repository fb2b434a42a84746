"""OpenSLO v1 out: SLOs as documents of the open format, with a list of what it has no word for.

What OpenSLO can't say goes into annotations `forestay.dev/...`, which `openslo` reads back; every such field is listed,
because other tools ignore it. Called by the command line.
"""

import json
from collections.abc import Iterator, Sequence

import yaml

from forestay.slo.burn_rules import Pair
from forestay.slo.decide import pairs_of
from forestay.slo.model import STEPS, Alerting, CalendarUnit, SliKind, Slo, SubjectKind
from forestay.slo.openslo import API_VERSION, OWN_SOURCE, PREFIX, Loss
from forestay.slo.slo_text import Values, alerting_values, credit_values, duration, percent, policy_values

_CALENDARS = {
    CalendarUnit.DAY: "1d",
    CalendarUnit.WEEK: "1w",
    CalendarUnit.MONTH: "1M",
    CalendarUnit.QUARTER: "1Q",
    CalendarUnit.YEAR: "1Y",
}
_STARTS = {CalendarUnit.WEEK: "2024-01-01 00:00:00"}  # a Monday


def export_openslo(slos: Sequence[Slo]) -> tuple[str, tuple[Loss, ...]]:
    """Return YAML documents, one a SLO, and what other readers of them will not see."""
    losses: list[Loss] = []
    documents: list[Values] = []
    for slo in slos:
        if slo.subject.kind is SubjectKind.COMPOSITE:
            losses.append(Loss(slo.slo_id, "parts", "OpenSLO v1 has no composites: left out"))
            continue
        documents.append(_document(slo))
        losses += _losses(slo)
    return yaml.safe_dump_all(documents, sort_keys=False, width=110), tuple(losses)


def _document(slo: Slo) -> Values:
    metadata: Values = {"name": str(slo.slo_id)}
    if slo.labels:
        metadata["labels"] = dict(slo.labels)
    metadata["annotations"] = {f"{PREFIX}{name}": text for name, text in _annotations(slo)}
    spec: Values = {"description": slo.description} if slo.description else {}
    spec |= {
        "service": slo.subject.name.rpartition("/")[2] or "platform",
        "indicator": _indicator(slo),
        "timeWindow": [_window(slo)],
        "budgetingMethod": "Timeslices" if slo.sli.kind is SliKind.TIME_SLICE else "Occurrences",
        "objectives": [_objective(slo)],
        "alertPolicies": [_policy(slo, pair) for pair in pairs_of(slo)],
    }
    return {"apiVersion": API_VERSION, "kind": "SLO", "metadata": metadata, "spec": spec}


def _annotations(slo: Slo) -> Iterator[tuple[str, str]]:
    subject = slo.subject
    yield "subject", f"{subject.kind}:{subject.name}" if subject.name else subject.kind.value
    yield "measure", slo.sli.measure.value
    if slo.sli.threshold_seconds is not None:
        yield "threshold-seconds", repr(slo.sli.threshold_seconds)
    if slo.sli.per_second is not None:
        yield "per-second", repr(slo.sli.per_second)
    yield "owner-team", slo.owner_team
    if slo.owner_contact:
        yield "owner-contact", slo.owner_contact
    if slo.policy != STEPS or slo.thaw_margin != 0.1:
        yield "policy", json.dumps(policy_values(slo))
    if slo.alerting != Alerting():
        yield "alerting", json.dumps(alerting_values(slo.alerting))
    if slo.credits is not None:
        yield "credits", json.dumps(credit_values(slo.credits))
    series = slo.sli.series
    if series is not None and series.probes_total:
        yield "probes-total", series.probes_total
        yield "probes-bad", series.probes_bad


def _indicator(slo: Slo) -> Values:
    series = slo.sli.series
    queries = (
        {"total": f"forestay:{slo.sli.measure}:total", "bad": f"forestay:{slo.sli.measure}:bad"}
        if series is None
        else {"total": series.total, **({"bad": series.bad} if series.bad else {"good": series.good})}
    )
    kind = OWN_SOURCE if series is None else "Prometheus"
    ratio: Values = {"counter": True}
    for part, query in queries.items():
        ratio[part] = {"metricSource": {"type": kind, "spec": {"query": query}}}
    return {"metadata": {"name": f"{slo.slo_id}-{slo.sli.measure}".replace("_", "-")}, "spec": {"ratioMetric": ratio}}


def _window(slo: Slo) -> Values:
    unit = slo.window.calendar
    if unit is None:
        return {"duration": duration(slo.window.minutes), "isRolling": True}
    start = {"startTime": _STARTS.get(unit, "2024-01-01 00:00:00"), "timeZone": slo.window.time_zone}
    return {"duration": _CALENDARS[unit], "calendar": start, "isRolling": False}


def _objective(slo: Slo) -> Values:
    values: Values = {"targetPercent": percent(slo.objective)}
    if slo.sli.kind is SliKind.TIME_SLICE:
        values |= {"timeSliceTarget": slo.sli.slice_objective, "timeSliceWindow": duration(slo.sli.slice_minutes)}
    return values


def _policy(slo: Slo, pair: Pair) -> Values:
    condition = {
        "kind": "burnrate",
        "threshold": round(pair.factor, 9),
        "lookbackWindow": duration(pair.long_minutes),
        "alertAfter": "0m",
    }
    name = f"{slo.slo_id}-{pair.name}".replace("_", "-")
    inner = {
        "kind": "AlertCondition",
        "metadata": {"name": name},
        "spec": {"severity": pair.severity.value, "condition": condition},
    }
    spec = {"alertWhenBreaching": True, "alertWhenResolved": True, "alertWhenNoData": False, "conditions": [inner]}
    return {"kind": "AlertPolicy", "metadata": {"name": name}, "spec": {**spec, "notificationTargets": []}}


def _losses(slo: Slo) -> Iterator[Loss]:
    name = slo.slo_id
    yield Loss(name, "alerting", "OpenSLO has one window a condition: the short windows of the rules are left out")
    yield Loss(name, "alerting", "OpenSLO has no evidence test and no traffic below which a rule is held: left out")
    for field, _ in _annotations(slo):
        yield Loss(name, field.replace("-", "_"), f"OpenSLO has no word for it: in the annotation {PREFIX}{field}")
    if slo.sli.series is None:
        yield Loss(name, "sli.series", "counts come from Forestay's facts, which no other tool reads")
