"""One tenant's month as its customer may read it: numbers in, report out. Pure.

It decides what is told and what is left out, and says so: a caller's own errors, refused content, probes, minutes that
a person took out. No traffic is neither good nor bad, and a month that is not over says so. It knows one tenant only.
Months and days are UTC's. Read by `customer_month`, shown by `customer_pages`, called by the admin API.
"""

import dataclasses
import datetime as dt
import re
from collections.abc import Iterable, Mapping, Sequence

from forestay.errors import UsageError
from forestay.slo.budget import Adjustment, Budget, DataState, History, budget_of
from forestay.slo.credits import decide_credit, ratio_of
from forestay.slo.model import CalendarUnit, Counts, CreditBand, Minute, Slo, SloId, Window
from forestay.telemetry.causes import Cause
from forestay.telemetry.histogram import Bins, quantile
from forestay.telemetry.rollup_reader import ModelCounts, minute_number, minute_start

DAY_MINUTES = 1440
MONTH_WINDOW = Window(calendar=CalendarUnit.MONTH)
UNKNOWN_CAUSE = "unknown"
# What a customer reads beside each cause of a failure (`telemetry.causes.Cause`); callers' own are never among them.
_MEANS = {
    Cause.MODEL.value: "the model answered with an error, crashed, or took too long",
    Cause.WORKER.value: "the machine that worked on it was lost",
    Cause.COLD_START.value: "no copy of the model was ready in time",
    Cause.MEMORY.value: "the machine ran out of memory",
    Cause.PLATFORM.value: "the platform had nothing free in time, or failed itself",
    Cause.UPSTREAM.value: "a provider behind the model failed",
}
_MONTH = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])", re.ASCII)


@dataclasses.dataclass(frozen=True, slots=True)
class Month:
    """A calendar month in UTC: from `first` to before `until`."""

    name: str  # 2026-11
    first: Minute
    until: Minute


@dataclasses.dataclass(frozen=True, slots=True)
class Customer:
    """Whom the report is about."""

    tenant_id: str
    name: str
    since: dt.datetime  # when the tenant was made


@dataclasses.dataclass(frozen=True, slots=True)
class SampleLine:
    """What a random sample of released outputs, looked at once more, says of all of them; shares of 1, at 95 %."""

    looked_at: int
    wrong: int
    ratio: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True, slots=True)
class MonthFacts:
    """What is known of a tenant's month; all of it is that tenant's alone."""

    tenant: Customer
    month: Month
    now: dt.datetime
    seen_until: Minute  # the first minute that is not complete; at most the month's end
    minutes: Mapping[Minute, Counts]  # of availability; one without requests is absent
    models: Mapping[str, ModelCounts]
    slos: Sequence[tuple[Slo, Budget]]  # each with its budget of this month
    adjustments: Sequence[Adjustment]  # of these SLOs, in force
    notes: tuple[str, ...] = ()
    sample: SampleLine | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Availability:
    """Requests that ended without a fault of ours, and those that did not; `ratio` is None where there were none."""

    good: int
    bad: int
    ratio: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class DayLine:
    """One day in UTC."""

    date: str
    good: int
    bad: int
    ratio: float | None
    state: str  # seen | no_traffic | partial: not all of it is over | unseen


@dataclasses.dataclass(frozen=True, slots=True)
class ModelLine:
    """One model: its requests, and how long its successes took, in seconds from accepted to finished."""

    model_id: str
    good: int
    bad: int
    ratio: float | None
    p50_seconds: float | None
    p95_seconds: float | None
    p99_seconds: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class SloLine:
    """One of the tenant's objectives over this month; ratios are shares of the budget."""

    slo_id: str
    description: str
    measure: str
    threshold_seconds: float | None
    objective: float
    events: int
    bad: int
    used_ratio: float | None
    left_ratio: float | None
    says: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class ExclusionLine:
    """What counts as neither good nor bad, how many requests that were, and why.

    `share` is of all requests that callers made, counted or not; None of what is not of these, or lies in other lines.
    """

    what: str
    requests: int
    share: float | None
    why: str


@dataclasses.dataclass(frozen=True, slots=True)
class FailureLine:
    """Failures that count against us, by what they were put down to; `share` is of all requests that count."""

    cause: str
    requests: int
    share: float
    means: str


@dataclasses.dataclass(frozen=True, slots=True)
class CreditLine:
    """What the month gives back, by which table, on which count."""

    credit_ratio: float
    availability: Availability
    slo_id: str
    origin: str
    bands: tuple[CreditBand, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class CustomerReport:
    """A tenant's month."""

    tenant_id: str
    tenant_name: str
    month: str
    made_at: dt.datetime
    covers_from: dt.datetime
    covers_until: dt.datetime
    finished: bool
    availability: Availability  # as measured, before anything was adjusted away
    days: tuple[DayLine, ...]
    models: tuple[ModelLine, ...]
    slos: tuple[SloLine, ...]
    credit: CreditLine
    failures: tuple[FailureLine, ...]
    exclusions: tuple[ExclusionLine, ...]
    notes: tuple[str, ...]
    sample: SampleLine | None = None  # None: nothing was looked at again, so how many were wrong is not known


def month_of(text: str) -> Month:
    """Return the month that a text such as 2026-11 names; raises UsageError."""
    if _MONTH.fullmatch(text) is None or text.startswith("0000"):
        raise UsageError("month", f"{text[:20]!r} is no month such as 2026-11")
    year, month = int(text[:4]), int(text[5:])
    first = dt.datetime(year, month, 1, tzinfo=dt.UTC)
    if year == dt.MAXYEAR:
        raise UsageError("month", f"{text} is beyond the calendar")
    after = dt.datetime(year + month // 12, month % 12 + 1, 1, tzinfo=dt.UTC)
    return Month(text, Minute(minute_number(first)), Minute(minute_number(after)))


def month_budget(
    slo: Slo, minutes: Mapping[Minute, Counts], covers: tuple[Month, Minute], adjustments: Sequence[Adjustment]
) -> Budget:
    """Return an SLO's budget of a month as far as it was seen; `covers` is the month and the first unseen minute."""
    month, seen_until = covers
    if seen_until <= month.first:
        return Budget(slo.slo_id, DataState.NO_DATA, 0, 0, 0.0, 0.0, 0.0, None, month.first)
    monthly = dataclasses.replace(slo, window=MONTH_WINDOW)
    return budget_of(monthly, History(minutes, month.first), Minute(seen_until - 1), adjustments)


def report_of(facts: MonthFacts) -> CustomerReport:
    """Return the report."""
    month, good, bad = facts.month, *_sum(facts.minutes.values())
    finished = facts.seen_until >= month.until
    return CustomerReport(
        tenant_id=facts.tenant.tenant_id,
        tenant_name=facts.tenant.name,
        month=month.name,
        made_at=facts.now,
        covers_from=minute_start(month.first),
        covers_until=minute_start(max(month.first, min(month.until, facts.seen_until))),
        finished=finished,
        availability=Availability(good, bad, ratio_of(good, bad)),
        days=tuple(_days(facts)),
        models=tuple(_model(name, counts) for name, counts in sorted(facts.models.items()) if _is_told(counts)),
        slos=tuple(_slo(slo, budget) for slo, budget in sorted(facts.slos, key=lambda pair: pair[0].slo_id)),
        credit=_credit(facts, (good, bad)),
        failures=tuple(_failures(facts)),
        exclusions=tuple(_exclusions(facts)),
        notes=tuple(_notes(facts, finished=finished)),
        sample=facts.sample,
    )


def _sum(counts: Iterable[Counts]) -> tuple[int, int]:
    good = bad = 0
    for one in counts:
        good, bad = good + one.good, bad + one.bad
    return good, bad


def _days(facts: MonthFacts) -> Iterable[DayLine]:
    by_day: dict[int, list[int]] = {}
    for minute, counts in facts.minutes.items():
        held = by_day.setdefault((minute - facts.month.first) // DAY_MINUTES, [0, 0])
        held[0] += counts.good
        held[1] += counts.bad
    for number, first in enumerate(range(facts.month.first, facts.month.until, DAY_MINUTES)):
        good, bad = by_day.get(number, (0, 0))
        if facts.seen_until <= first:
            state = "unseen"
        elif facts.seen_until < first + DAY_MINUTES:
            state = "partial"
        else:
            state = "seen" if good + bad else "no_traffic"
        yield DayLine(f"{minute_start(first):%Y-%m-%d}", good, bad, ratio_of(good, bad), state)


def _is_told(counts: ModelCounts) -> bool:
    return bool(counts.good + counts.bad or counts.excluded or counts.latency)


def _model(model_id: str, counts: ModelCounts) -> ModelLine:
    p50, p95, p99 = (_rounded(counts.latency, share) for share in (0.5, 0.95, 0.99))
    return ModelLine(model_id, counts.good, counts.bad, ratio_of(counts.good, counts.bad), p50, p95, p99)


def _rounded(bins: Bins, share: float) -> float | None:
    """Return a quantile to three significant digits: the histogram knows no more."""
    found = quantile(bins, share)
    return None if found is None else float(f"{found:.3g}")


def _slo(slo: Slo, budget: Budget) -> SloLine:
    known = budget.events > 0
    return SloLine(
        slo_id=slo.slo_id,
        description=slo.description,
        measure=slo.sli.measure.value,
        threshold_seconds=slo.sli.threshold_seconds,
        objective=slo.objective,
        events=round(budget.events),
        bad=round(budget.bad),
        used_ratio=budget.spent_ratio if known else None,
        left_ratio=budget.left_ratio if known else None,
        says=budget.says,
    )


def _credit(facts: MonthFacts, measured: tuple[int, int]) -> CreditLine:
    counted: dict[SloId, tuple[int, int]] = {}
    for slo, _ in facts.slos:
        taken = [item for item in facts.adjustments if item.slo_id == slo.slo_id and not item.forgiven]
        if taken:
            counted[slo.slo_id] = _sum(counts for minute, counts in facts.minutes.items() if not _in(minute, taken))
    found = decide_credit([slo for slo, _ in facts.slos], counted, measured)
    availability = Availability(found.good, found.bad, found.availability)
    return CreditLine(found.credit_ratio, availability, found.slo_id, found.origin, found.bands)


def _in(minute: Minute, adjustments: Iterable[Adjustment]) -> bool:
    return any(item.first <= minute < item.until for item in adjustments)


def _failures(facts: MonthFacts) -> Iterable[FailureLine]:
    """Put down what failed, the most frequent first."""
    models = facts.models.values()
    counted = sum(counts.good + counts.bad for counts in models)
    causes = _by_cause(counts.failed for counts in models)
    for cause, count in sorted(causes.items(), key=lambda item: (-item[1], item[0])):
        yield FailureLine(cause or UNKNOWN_CAUSE, count, count / counted, _MEANS.get(cause, "it is not known"))


def _by_cause(found: Iterable[Mapping[str, int]]) -> dict[str, int]:
    causes: dict[str, int] = {}
    for counts in found:
        for cause, count in counts.items():
            causes[cause] = causes.get(cause, 0) + count
    return causes


def _exclusions(facts: MonthFacts) -> Iterable[ExclusionLine]:
    models = facts.models.values()
    causes = _by_cause(counts.excluded for counts in models)
    asked = sum(counts.good + counts.bad for counts in models) + sum(causes.values())

    def line(what: str, requests: int, why: str) -> ExclusionLine:
        return ExclusionLine(what, requests, ratio_of(requests, asked - requests), why)

    cancelled = sum(counts.cancelled for counts in models)
    own, refused = causes.pop(Cause.CALLER.value, 0), causes.pop(Cause.SAFETY.value, 0)
    yield line("caller errors", own - cancelled, "inputs that the platform or the model refused as faulty")
    yield line("cancelled", cancelled, "requests that the caller cancelled, or did not wait for")
    yield line("refused content", refused, "content that may not go through")
    for cause, count in sorted(causes.items()):
        yield line(cause, count, "counts for or against nobody")
    probes = sum(counts.probes for counts in models)
    yield ExclusionLine("probes", probes, None, "synthetic requests of the platform's operator")
    for item in sorted(facts.adjustments, key=lambda one: (one.first, one.slo_id)):
        why = f"{item.reason} (by {item.by})"
        if item.forgiven:
            yield ExclusionLine(f"given back to {item.slo_id}, {_utc(item.first)}", item.forgiven, None, why)
            continue
        span = f"{_utc(item.first)} to {_utc(item.until)}"
        requests = sum(counts.total for minute, counts in facts.minutes.items() if _in(minute, (item,)))
        yield ExclusionLine(f"adjustment of {item.slo_id}, {span}", requests, None, why)


def _notes(facts: MonthFacts, *, finished: bool) -> Iterable[str]:
    month = facts.month
    if facts.seen_until <= month.first:
        yield "Nothing of this month is counted yet."
    elif not finished:
        yield f"This month is not over: everything here covers it until {_utc(facts.seen_until)}, and may still change."
        yield "A budget that is used is told as if the rest of the month were as busy."
    if month.first < minute_number(facts.tenant.since) < month.until:
        yield f"The account exists since {_utc(Minute(minute_number(facts.tenant.since)))}."
    if not any(counts.total for counts in facts.minutes.values()):
        yield "No request counted in this time: that is neither good nor bad, and gives nothing back."
    yield from facts.notes


def _utc(minute: Minute) -> str:
    return f"{minute_start(minute):%Y-%m-%d %H:%M} UTC"
