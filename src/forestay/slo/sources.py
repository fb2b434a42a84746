"""Which SLOs hold: those that files name, those of models' own specs, and the defaults for what nobody named. Pure.

It decides precedence. A file's SLO replaces one of the same id in a spec; whatever is named for a subject and measure
replaces the default there. Called by `named`, which reads the files.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence

from forestay.fleet.model import ModelEntry
from forestay.fleet.spec_slos import SloSpec
from forestay.ids import ModelId
from forestay.slo.defaults import default_slos, short_name
from forestay.slo.model import (
    TIMED,
    Alerting,
    CalendarUnit,
    Measure,
    Sli,
    SliKind,
    Slo,
    SloId,
    Subject,
    SubjectKind,
    Window,
)

DEFAULT = "default"
SLICE_MINUTES, SLICE_OBJECTIVE = (5, 15, 60), 0.95
"""Of throughput in a spec: the shortest slice that promises a request, and the share of what it owes that it does."""


def decide_slos(files: Sequence[Slo], models: Mapping[ModelId, ModelEntry], *, signs: bool = False) -> tuple[Slo, ...]:
    """Return the SLOs that hold, each once, in order of their ids; `origin` says where each is from.

    `signs` tells that some policy asks for signed manifests: that has a default only then.
    """
    models = dict(sorted(models.items()))  # so that it is always the same of two that gets a further name
    named = _each_once([*files, *_of_specs(models)])
    held = {(slo.subject, slo.sli.measure) for slo in named.values()}
    others = [
        dataclasses.replace(slo, origin=DEFAULT, policy=())  # nobody promised it, so it stops nobody's rollout
        for slo in default_slos(models, signs=signs)
        if (slo.subject, slo.sli.measure) not in held
    ]
    found = _each_once([*named.values(), *others])
    return tuple(sorted(found.values(), key=lambda slo: slo.slo_id))


def _each_once(slos: Iterable[Slo]) -> dict[SloId, Slo]:
    """Keep the first of each id; another subject's takes a further name, so that no model is left unwatched."""
    found: dict[SloId, Slo] = {}
    for slo in slos:
        before = found.get(slo.slo_id)
        if before is None:
            found[slo.slo_id] = slo
        elif before.subject != slo.subject:
            mark = hashlib.sha256(slo.subject.name.encode()).hexdigest()[:6]
            other = SloId(f"{slo.slo_id}-{mark}")
            found.setdefault(other, dataclasses.replace(slo, slo_id=other))
    return found


def _of_specs(models: Mapping[ModelId, ModelEntry]) -> Iterable[Slo]:
    for model_id, entry in models.items():
        for promise in entry.spec.slos:
            yield _of_spec(model_id, entry, promise)


def _of_spec(model_id: ModelId, entry: ModelEntry, promise: SloSpec) -> Slo:
    measure = Measure(promise.indicator.value)
    calendar = CalendarUnit(promise.calendar) if promise.calendar else None
    name = promise.name or measure.value.replace("_", "-")
    return Slo(
        slo_id=SloId(f"{short_name(model_id)}-{name}"),
        subject=Subject(SubjectKind.MODEL, model_id),
        objective=round(promise.objective / 100, 14),
        sli=_sli(measure, promise),
        owner_team=entry.spec.owner_team,
        owner_contact=entry.spec.owner_contact,
        window=Window(promise.window_minutes, calendar),
        description=promise.description,
        alerting=Alerting(page=promise.page),
        origin=f"spec of {model_id}",
    )


def _sli(measure: Measure, promise: SloSpec) -> Sli:
    if promise.per_second is None:
        return Sli(SliKind.THRESHOLD if measure in TIMED else SliKind.RATIO, measure, promise.threshold_seconds)
    minutes = next((some for some in SLICE_MINUTES if promise.per_second * 60 * some >= 1), SLICE_MINUTES[-1])
    return Sli(
        SliKind.TIME_SLICE, measure, promise.threshold_seconds, minutes, SLICE_OBJECTIVE, per_second=promise.per_second
    )
