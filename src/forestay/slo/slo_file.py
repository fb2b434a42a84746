"""Reading SLOs from YAML: the edge where what a person wrote becomes frozen values, or faults with their lines.

It decides what a valid file of SLOs is; whether its SLOs make sense is `lint`'s to say. pydantic is imported here, so
only who reads a file pays for it. Called by the command line, and for JSON by the admin API.
"""

import difflib
import itertools
import re
from collections.abc import Mapping
from typing import Annotated, Literal, cast

import pydantic
import yaml
from pydantic import BaseModel, Field, StringConstraints, model_validator
from pydantic_core import ErrorDetails

from forestay.fleet.spec_fields import Line, Strict, shape
from forestay.fleet.spec_yaml import SpecError, line_of, read_yaml
from forestay.slo.model import (
    MINUTES_OF_30_DAYS,
    TIMED,
    Alerting,
    BudgetAction,
    BudgetStep,
    CalendarUnit,
    CreditBand,
    Measure,
    Part,
    Series,
    Sli,
    SliKind,
    Slo,
    SloId,
    Subject,
    SubjectKind,
    Window,
)
from forestay.slo.windows import is_time_zone

VERSION = 1
MAX_SLOS, MAX_PARTS = 10_000, 100
_UNITS = {"m": 1, "h": 60, "d": 1440, "w": 7 * 1440}
_DURATION = r"[1-9][0-9]{0,5}[mhdw]"
_Id = Annotated[
    str,
    StringConstraints(max_length=63),
    *shape(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", "use lower-case letters, digits and `-`, no `-` at its ends"),
]
_Duration = Annotated[str, *shape(_DURATION, "write a duration such as 5m, 6h, 30d or 4w")]
_Selector = Annotated[
    str,
    StringConstraints(max_length=500),
    *shape(
        r"[a-zA-Z_:][a-zA-Z0-9_:]*(\{[^{}\n]*\})?",
        'write the selector of a counter, such as `requests_total{code="500"}`, without functions',
    ),
]
_Percent = Annotated[float, Field(gt=0, lt=100, allow_inf_nan=False)]


def minutes_of(duration: str) -> int:
    """Return the minutes of a duration such as `30d`; it must have the shape."""
    return int(duration[:-1]) * _UNITS[duration[-1]]


class SubjectFile(Strict):
    """Whom the SLO is about: exactly one of these."""

    platform: Literal[True] | None = None
    """`true`: Forestay itself."""
    model: Line | None = None
    """A model, as owner/alias."""
    tenant: Line | None = None
    """A tenant."""

    @model_validator(mode="after")
    def _one(self) -> "SubjectFile":
        if len(self.model_fields_set) != 1 or not any((self.platform, self.model, self.tenant)):
            message = "name exactly one of platform, model and tenant"
            raise ValueError(message)
        return self


class SeriesFile(Strict):
    """Where your own Prometheus has the same counts; needed only for `forestay slo export --to prometheus`."""

    total: _Selector
    """Counter of all requests."""
    bad: _Selector | None = None
    """Counter of bad ones; this or `good`."""
    good: _Selector | None = None
    """Counter of good ones; this or `bad`."""
    probes_total: _Selector | None = None
    """Counter of probes."""
    probes_bad: _Selector | None = None
    """Counter of probes that failed."""

    @model_validator(mode="after")
    def _one_of_two(self) -> "SeriesFile":
        if (self.bad is None) == (self.good is None):
            message = "give `bad` or `good`, one of them"
            raise ValueError(message)
        if (self.probes_bad is None) != (self.probes_total is None):
            message = "probes need both `probes_total` and `probes_bad`"
            raise ValueError(message)
        return self


class SliFile(Strict):
    """What is good and what is bad."""

    kind: SliKind
    """ratio: bad requests of all; threshold: slow ones are bad; time_slice: slices below an objective of their own."""
    measure: Measure
    """What of the facts is counted."""
    threshold_seconds: Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)] | None = None
    """threshold, or a time_slice of a measure in seconds: what takes longer is bad; throughput: overdue."""
    per_second: Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)] | None = None
    """throughput: requests that are promised; what is asked for beyond them is not owed."""
    slice: _Duration | None = None
    """time_slice: length of a slice, such as 5m; slices begin with the clock's."""
    slice_objective: _Percent | Literal[100] | None = None
    """time_slice: percent of good requests that makes a slice good."""
    series: SeriesFile | None = None

    @model_validator(mode="after")
    def _fits(self) -> "SliFile":
        self._promises()
        timed = self.measure in TIMED
        if (timed or self.measure is Measure.THROUGHPUT) != (self.threshold_seconds is not None):
            message = (
                f"{self.measure} has no `threshold_seconds`"
                if self.threshold_seconds is not None
                else f"{self.measure} needs `threshold_seconds`"
            )
            raise ValueError(message)
        if (self.kind is SliKind.THRESHOLD) != timed and self.kind is not SliKind.TIME_SLICE:
            message = f"{self.measure} is read as {'threshold' if timed else 'ratio'}, or as time_slice"
            raise ValueError(message)
        sliced = self.kind is SliKind.TIME_SLICE
        if sliced != (self.slice is not None) or sliced != (self.slice_objective is not None):
            message = f"{self.kind} {'needs' if sliced else 'has no'} `slice` and `slice_objective`"
            raise ValueError(message)
        return self

    def _promises(self) -> None:
        """Look at what only throughput has."""
        counted = self.measure is Measure.THROUGHPUT
        if counted and self.kind is not SliKind.TIME_SLICE:
            message = "throughput is read as time_slice: give it `slice` and `slice_objective`"
            raise ValueError(message)
        if counted != (self.per_second is not None):
            message = f"{self.measure} {'needs' if counted else 'has no'} `per_second`"
            raise ValueError(message)
        if counted and self.series is not None:
            message = "throughput is counted from Forestay's own facts: take `series` away"
            raise ValueError(message)
        if self.per_second is not None and self.slice is not None and self.per_second * 60 * minutes_of(self.slice) < 1:
            message = "one `slice` at `per_second` promises less than one request: write a longer slice"
            raise ValueError(message)


class WindowFile(Strict):
    """The time over which the objective holds: exactly one of these."""

    rolling: _Duration | None = None
    """So long back from now."""
    calendar: CalendarUnit | None = None
    """One day, week (from Monday), month, quarter or year."""
    time_zone: Line = "UTC"
    """calendar: where it begins at midnight, such as Europe/Berlin."""

    @model_validator(mode="after")
    def _one(self) -> "WindowFile":
        if (self.rolling is None) == (self.calendar is None):
            message = "name exactly one of rolling and calendar"
            raise ValueError(message)
        if self.rolling is not None and "time_zone" in self.model_fields_set:
            message = "a rolling window has no time_zone; take it away"
            raise ValueError(message)
        if not is_time_zone(self.time_zone):
            message = f"no time zone is called {self.time_zone}; write one of the IANA database, such as Europe/Berlin"
            raise ValueError(message)
        if self.rolling is not None and not 60 <= minutes_of(self.rolling) <= 366 * 1440:
            message = "rolling must be from 1h to 366d"
            raise ValueError(message)
        return self


class PartFile(Strict):
    """One SLO of a composite."""

    slo: _Id
    """Its id, in the same file."""
    weight: Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)] = 1.0
    """How much it weighs."""


class OwnerFile(Strict):
    """Who is told."""

    team: Line
    """Team that owns it."""
    contact: Line | None = None
    """Where that team is reached."""


class StepFile(Strict):
    """What is done when so much of the budget is left."""

    left: Annotated[float, Field(ge=0, lt=100, allow_inf_nan=False)]
    """Percent of the budget."""
    action: BudgetAction
    """slow_rollouts, require_approval or freeze."""


class PolicyFile(Strict):
    """Consequences of an error budget."""

    steps: tuple[StepFile, ...] = Field(
        (
            StepFile(left=50.0, action=BudgetAction.SLOW),
            StepFile(left=25.0, action=BudgetAction.APPROVE),
            StepFile(left=0.0, action=BudgetAction.FREEZE),
        ),
        max_length=10,
    )
    """From the mildest; an empty list has no consequences."""
    thaw_margin: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 10.0
    """Percent of the budget by which it must rise above a step before the step's action ends."""

    @model_validator(mode="after")
    def _falls(self) -> "PolicyFile":
        order = list(BudgetAction)
        for before, after in zip(self.steps, self.steps[1:], strict=False):
            if after.left >= before.left or order.index(after.action) <= order.index(before.action):
                message = (
                    f"each step must have less left and a stronger action; {after.action} at {after.left:g} has not"
                )
                raise ValueError(message)
        return self


class CreditFile(Strict):
    """What a tenant is given back for a month below an availability."""

    below: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]
    """Percent of availability, over the calendar month."""
    credit: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]
    """Percent of the month's fee."""


class AlertingFile(Strict):
    """When people are told."""

    page: bool = True
    """Wake somebody."""
    ticket: bool = True
    """Open a ticket for a slow burn."""
    false_pages_per_30_days: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] = 0.1
    """The most that may be expected while the service stays within its budget; less means later pages."""
    runbook: Line | None = None
    """A link that the alert carries."""


class SloFile(Strict):
    """One SLO."""

    id: _Id
    """Its name, once in the file."""
    description: Line | None = None
    """What is promised, in a sentence."""
    subject: SubjectFile | None = None
    """Left out for a composite."""
    objective: _Percent
    """Percent that shall be good."""
    sli: SliFile | None = None
    """Left out for a composite."""
    parts: tuple[PartFile, ...] = Field((), max_length=MAX_PARTS)
    """A composite's SLOs."""
    window: WindowFile = Field(default_factory=lambda: WindowFile(rolling="30d"))
    owner: OwnerFile
    policy: PolicyFile = Field(default_factory=lambda: PolicyFile.model_validate({}))
    alerting: AlertingFile = Field(default_factory=lambda: AlertingFile.model_validate({}))
    labels: Mapping[_Id, Line] = Field(default_factory=dict[str, str], max_length=30)
    """Words of your own; they travel with alerts and exports."""
    credits: tuple[CreditFile, ...] | None = Field(None, max_length=10)
    """A tenant's availability alone: what a bad month gives back, mildest band first; an empty list gives nothing."""

    @model_validator(mode="after")
    def _credits_fit(self) -> "SloFile":
        if self.credits is None:
            return self
        plain = self.sli is not None and self.sli.kind is SliKind.RATIO and self.sli.measure is Measure.AVAILABILITY
        if self.subject is None or self.subject.tenant is None or not plain:
            message = "`credits` go with `subject: {tenant: ...}` and `sli: {kind: ratio, measure: availability}`"
            raise ValueError(message)
        for before, after in itertools.pairwise(self.credits):
            if after.below >= before.below or after.credit <= before.credit:
                message = f"each band of `credits` must lie lower and give back more; below {after.below:g} does not"
                raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _is_counted(self) -> "SloFile":
        elsewhere = self.subject is not None and not self.subject.platform
        if elsewhere and self.sli is not None and self.sli.measure is Measure.STATUS and self.sli.series is None:
            message = "`measure: status` is counted of the platform alone: use `subject: {platform: true}`"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _is_one_or_the_other(self) -> "SloFile":
        if self.parts and (self.subject is not None or self.sli is not None):
            message = "a composite has `parts` and neither `subject` nor `sli`"
            raise ValueError(message)
        if not self.parts and (self.subject is None or self.sli is None):
            message = "needs `subject` and `sli`, or `parts`"
            raise ValueError(message)
        return self


class SlosFile(Strict):
    """A file of SLOs."""

    version: Literal[1]
    """Version of this format."""
    slos: tuple[SloFile, ...] = Field(min_length=1, max_length=MAX_SLOS)

    @model_validator(mode="after")
    def _ids_are_known_once(self) -> "SlosFile":
        ids = [item.id for item in self.slos]
        twice = sorted({name for name in ids if ids.count(name) > 1}) if len(set(ids)) < len(ids) else []
        if twice:
            message = f"id {twice[0]} is used twice"
            raise ValueError(message)
        plain = {item.id for item in self.slos if not item.parts}
        for item in self.slos:
            for part in item.parts:
                if part.slo not in plain:
                    message = f"{item.id} has the part {part.slo}, which is no plain SLO of this file"
                    raise ValueError(message)
        return self


def json_schema() -> dict[str, object]:
    """Return the published JSON Schema (draft 2020-12) of the file."""
    schema = cast("dict[str, object]", SlosFile.model_json_schema())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Forestay SLOs"}


def read_slos(text: str, file_name: str) -> tuple[Slo, ...]:
    """Read a file of SLOs; raises SpecError that names file, line, field and mend of every fault."""
    values, node = read_yaml(text, file_name)
    if not isinstance(values, dict):
        raise SpecError(file_name, ["1: the file must hold `version: 1` and a list `slos`"])
    return _validated(cast("dict[str, object]", values), file_name, node)


def from_values(values: object, name: str = "slos") -> tuple[Slo, ...]:
    """Check values that came as JSON over the wire, or from another format."""
    return _validated(values, name, None)


def _validated(values: object, file_name: str, node: yaml.Node | None) -> tuple[Slo, ...]:
    try:
        return tuple(frozen(item) for item in SlosFile.model_validate(values).slos)
    except pydantic.ValidationError as error:
        details = error.errors(include_url=False, include_context=True)
        inner = {detail["loc"][:1] for detail in details if len(detail["loc"]) > 1}
        told = [item for item in details if item["type"] != "too_short" or item["loc"] not in inner]
        raise SpecError(file_name, list(dict.fromkeys(_fault(detail, node) for detail in told))) from None


def _fault(detail: ErrorDetails, node: yaml.Node | None) -> str:
    place = tuple(part for part in detail["loc"] if not (isinstance(part, str) and re.search(r"[\[\]()]", part)))
    field = ".".join(str(part) for part in place) or "(file)"
    return f"{line_of(node, place)}: {field}: {_mend(detail, place)}"


_PARTS: Mapping[str, type[BaseModel]] = {
    "subject": SubjectFile,
    "sli": SliFile,
    "series": SeriesFile,
    "window": WindowFile,
    "parts": PartFile,
    "owner": OwnerFile,
    "policy": PolicyFile,
    "steps": StepFile,
    "alerting": AlertingFile,
    "credits": CreditFile,
}


def _mend(detail: ErrorDetails, place: tuple[int | str, ...]) -> str:
    kind, given = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        words = [part for part in place[:-1] if isinstance(part, str)]
        known = list(_PARTS.get(words[-1] if words else "", SloFile if words else SlosFile).model_fields)
        near = difflib.get_close_matches(str(place[-1]), known, n=1, cutoff=0.6)
        return f"no such field; did you mean `{near[0]}`?" if near else f"no such field; known: {', '.join(known)}"
    if kind == "missing":
        return "is missing; add it"
    message = detail["msg"].removeprefix("Value error, ")
    shown = repr(given) if isinstance(given, str | int | float | bool) or given is None else ""
    return f"{message[:1].lower()}{message[1:]}" + (f" (given: {shown[:80]})" if shown else "")


def frozen(file: SloFile) -> Slo:
    """Return the frozen value of one SLO of a file that has been checked."""
    return Slo(
        slo_id=SloId(file.id),
        subject=_subject(file.subject),
        objective=_share(file.objective),
        sli=_sli(file.sli),
        owner_team=file.owner.team,
        owner_contact=file.owner.contact or "",
        window=_window(file.window),
        description=file.description or "",
        parts=tuple(Part(SloId(part.slo), part.weight) for part in file.parts),
        policy=tuple(BudgetStep(_share(step.left), step.action) for step in file.policy.steps),
        thaw_margin=_share(file.policy.thaw_margin),
        alerting=Alerting(
            file.alerting.page,
            file.alerting.ticket,
            file.alerting.false_pages_per_30_days,
            file.alerting.runbook or "",
        ),
        labels=tuple(sorted(file.labels.items())),
        credits=None
        if file.credits is None
        else tuple(CreditBand(_share(band.below), _share(band.credit)) for band in file.credits),
    )


def _share(percent: float) -> float:
    """Return a percentage as a share, to the last digit that a person would write: 99.9 is 0.999."""
    return round(percent / 100, 14)


def _subject(file: SubjectFile | None) -> Subject:
    if file is None:
        return Subject(SubjectKind.COMPOSITE)
    if file.platform:
        return Subject(SubjectKind.PLATFORM)
    if file.model:
        return Subject(SubjectKind.MODEL, file.model)
    return Subject(SubjectKind.TENANT, file.tenant or "")


def _sli(file: SliFile | None) -> Sli:
    if file is None:
        return Sli(SliKind.RATIO, Measure.AVAILABILITY)
    series = file.series
    return Sli(
        kind=file.kind,
        measure=file.measure,
        threshold_seconds=file.threshold_seconds,
        slice_minutes=minutes_of(file.slice) if file.slice else 0,
        slice_objective=_share(file.slice_objective) if file.slice_objective else 0.0,
        per_second=file.per_second,
        series=None
        if series is None
        else Series(
            series.total, series.bad or "", series.good or "", series.probes_total or "", series.probes_bad or ""
        ),
    )


def _window(file: WindowFile) -> Window:
    if file.calendar is not None:
        return Window(MINUTES_OF_30_DAYS, file.calendar, file.time_zone)
    return Window(minutes_of(file.rolling or "30d"))
