"""SLOs as text of our own format: what `slo_file` reads, written. Called by the import and by whoever shows an SLO."""

from collections.abc import Iterable, Sequence

import yaml

from forestay.slo.model import STEPS, Alerting, CreditBand, Series, Slo, SubjectKind, Window

Values = dict[str, object]


def render_slos(slos: Iterable[Slo]) -> str:
    """Return a YAML file that reads back as the same SLOs; what is as by default is left out."""
    return yaml.safe_dump({"version": 1, "slos": [values_of(slo) for slo in slos]}, sort_keys=False, width=110)


def values_of(slo: Slo) -> Values:
    """Return one SLO as plain values of the file."""
    values: Values = {"id": str(slo.slo_id)}
    if slo.description:
        values["description"] = slo.description
    if slo.subject.kind is SubjectKind.COMPOSITE:
        values["parts"] = [{"slo": str(part.slo_id), "weight": part.weight} for part in slo.parts]
    else:
        values["subject"] = {slo.subject.kind.value: slo.subject.name or True}
        values["sli"] = sli_values(slo)
    values["objective"] = percent(slo.objective)
    values["window"] = window_values(slo.window)
    values["owner"] = {"team": slo.owner_team, **({"contact": slo.owner_contact} if slo.owner_contact else {})}
    if slo.policy != STEPS or slo.thaw_margin != 0.1:
        values["policy"] = policy_values(slo)
    if slo.alerting != Alerting():
        values["alerting"] = alerting_values(slo.alerting)
    if slo.credits is not None:
        values["credits"] = credit_values(slo.credits)
    if slo.labels:
        values["labels"] = dict(slo.labels)
    return values


def percent(share: float) -> float:
    """Return a share as a percentage, as a person writes it."""
    return round(share * 100, 12)


def sli_values(slo: Slo) -> Values:
    """Return the indicator."""
    values: Values = {"kind": slo.sli.kind.value, "measure": slo.sli.measure.value}
    if slo.sli.threshold_seconds is not None:
        values["threshold_seconds"] = slo.sli.threshold_seconds
    if slo.sli.per_second is not None:
        values["per_second"] = slo.sli.per_second
    if slo.sli.slice_minutes:
        values["slice"] = duration(slo.sli.slice_minutes)
        values["slice_objective"] = percent(slo.sli.slice_objective)
    if slo.sli.series is not None:
        values["series"] = series_values(slo.sli.series)
    return values


def series_values(series: Series) -> Values:
    """Return the selectors that are given."""
    named = {
        "total": series.total,
        "bad": series.bad,
        "good": series.good,
        "probes_total": series.probes_total,
        "probes_bad": series.probes_bad,
    }
    return {name: text for name, text in named.items() if text}


def window_values(window: Window) -> Values:
    """Return the window."""
    if window.calendar is None:
        return {"rolling": duration(window.minutes)}
    return {"calendar": window.calendar.value, "time_zone": window.time_zone}


def policy_values(slo: Slo) -> Values:
    """Return the budget policy."""
    steps = [{"left": percent(step.left_ratio), "action": step.action.value} for step in slo.policy]
    return {"steps": steps, "thaw_margin": percent(slo.thaw_margin)}


def alerting_values(alerting: Alerting) -> Values:
    """Return when people are told."""
    values: Values = {
        "page": alerting.page,
        "ticket": alerting.ticket,
        "false_pages_per_30_days": alerting.false_pages_per_30_days,
    }
    if alerting.runbook:
        values["runbook"] = alerting.runbook
    return values


def credit_values(bands: Sequence[CreditBand]) -> list[Values]:
    """Return the credit table."""
    return [{"below": percent(band.below_ratio), "credit": percent(band.credit_ratio)} for band in bands]


def duration(minutes: int) -> str:
    """Return minutes as the shortest duration: 43200 is 30d."""
    for size, unit in ((1440, "d"), (60, "h")):
        if minutes % size == 0:
            return f"{minutes // size}{unit}"
    return f"{minutes}m"
