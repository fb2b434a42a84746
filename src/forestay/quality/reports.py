"""Turns what the watch has seen into findings: the sentence, the place, the numbers. Pure.

It decides how far a change is localised: to one replica where others of the revision are healthy, to a size, an adapter
or a caller where outputs without it are, else to the revision. Scores that got better are told, and nothing follows
from them. It says what else happened shortly before: a deploy, a replica that began. Called by `loop`.
"""

import datetime as dt
from collections.abc import Sequence

from forestay.fleet.model import Fleet
from forestay.ids import ModelId, ReplicaId, RevisionId, WorkerId
from forestay.quality.diagnosis import Diagnosis
from forestay.quality.duplicates import Duplicate
from forestay.quality.findings import Finding, Source, Where
from forestay.quality.scorers.model import direction_of, scorer_of
from forestay.quality.watching import Broke, Event
from forestay.telemetry.output_facts import OutputFact

BEFORE = dt.timedelta(minutes=30)
AFTER = dt.timedelta(minutes=1)  # a change is told as later than it was, never by more than this
_ONE_PLACE = frozenset({"replica", "device", "worker"})


def report_of(event: Event, diagnosis: Diagnosis, fleet: Fleet, *, sure: bool) -> Finding:
    """Return the finding of a change; `sure`: beyond the false alarms of the whole fleet."""
    where = _where(event, diagnosis)
    named = diagnosis.named[0] if diagnosis.named else None
    place = f"replica {where.replica_id}" if where.replica_id else f"revision {where.revision_id}"
    if where.parameter:
        place += f" ({where.parameter})"
    scorer, way = scorer_of(event.key.kind), direction_of(event.key.kind, diagnosis.shifts)
    said = named.name if named is not None else "outputs have changed in a way that the catalogue does not name"
    said = f"scorer {scorer} rates outputs {way} than it did" if scorer else said
    before = changed_before(fleet, where.model_id, event.since)
    of_what = "outputs" if scorer else f"{event.key.kind}s"
    what = f"{said}: {of_what} of {place} since {event.since:%Y-%m-%d %H:%M} UTC, {_numbers(event, diagnosis)}"
    evidence = {
        "evidence": min(event.evidence if isinstance(event, Broke) else event.alarm.evidence, 1e30),
        "sure": float(sure and way != "better"),
        "healthy_replicas": float(len(diagnosis.healthy)),
        "bad_replicas": float(len(diagnosis.bad)),
        **{f"row_{item.row}": item.score for item in diagnosis.named[:3]},
        **{f"{name}_sd": value for name, value in diagnosis.shifts.items()},
    }
    if isinstance(event, Broke):
        evidence |= {"failed": float(event.failed), "of": float(event.of)}
    if diagnosis.contrast is not None:
        evidence |= {"inside": diagnosis.contrast.inside, "outside": diagnosis.contrast.outside}
    source = Source.CONTRACT if isinstance(event, Broke) else Source.DRIFT
    sentence = what + (f"; shortly before: {before}" if before else "")
    return Finding(sentence, named.row if named is not None else 0, where, evidence, event.since, source)


def report_duplicate(found: Duplicate) -> Finding:
    """Return the finding of an output that was given before. It names no tenant."""
    fact, whose = found.fact, "another tenant's" if found.across_tenants else "another"
    what = (
        f"the same output for different requests (a cache): replica {fact.replica_id} gave {whose} request the "
        f"{fact.kind} that replica {found.first.replica_id} had made {_age(fact, found.first)} before"
    )
    where = _place_of(fact, replica=True)
    evidence = {"across_tenants": float(found.across_tenants), "times": float(found.times), "sure": 1.0}
    return Finding(what, 34, where, evidence, fact.at, Source.DUPLICATE)


def changed_before(fleet: Fleet, model_id: str, since: dt.datetime) -> str:
    """Say what of the fleet changed shortly before a moment, the latest first; empty where nothing did."""
    found = [
        (item.created_at, f"revision {item.revision_id} was deployed")
        for item in fleet.revisions.values()
        if item.model_id == model_id
    ]
    found += [
        (item.started_at, f"replica {item.replica_id} began on {item.worker_id}")
        for item in fleet.replicas.values()
        if item.model_id == model_id
    ]
    near = sorted((item for item in found if since - BEFORE <= item[0] <= since + AFTER), reverse=True)
    return ", ".join(f"{words} at {at:%H:%M} UTC" for at, words in near[:2])


def _where(event: Event, diagnosis: Diagnosis) -> Where:
    contrast, fact = diagnosis.contrast, event.fact
    alone = bool(diagnosis.healthy) and diagnosis.bad == frozenset({fact.replica_id})
    if contrast is None and not alone:
        return _place_of(fact, replica=False)
    if contrast is None or contrast.dimension in _ONE_PLACE:
        return _place_of(fact, replica=True)
    value = "one tenant" if contrast.dimension == "tenant" else f"{contrast.dimension}={contrast.value}"
    return _place_of(fact, replica=False, parameter=value)


def _place_of(fact: OutputFact, *, replica: bool, parameter: str = "") -> Where:
    model_id, revision_id = ModelId(fact.model_id), RevisionId(fact.revision_id)
    if not replica:
        return Where(model_id, revision_id, parameter=parameter)
    return Where(
        model_id, revision_id, WorkerId(fact.worker_id), ReplicaId(fact.replica_id), fact.device, parameter
    )  # fmt: skip


def _numbers(event: Event, diagnosis: Diagnosis) -> str:
    if isinstance(event, Broke):
        return f"{event.failed} of the last {event.of} failed the check {event.check}"
    most: Sequence[tuple[str, float]] = list(diagnosis.shifts.items())[:3]
    return ", ".join(f"{name} {value:+.1f} sd" for name, value in most) or event.alarm.kind


def _age(fact: OutputFact, first: OutputFact) -> str:
    return f"{max(0.0, (fact.at - first.at).total_seconds()):.0f} s"
