"""History under other SLOs: what a changed objective would have said, and which past incidents it would have caught.

It decides nothing new: the same engine runs over kept minutes. Called by `forestay slo what-if`.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from forestay.slo.burn_rules import Severity
from forestay.slo.fleet import FleetEngine
from forestay.slo.ledger import BudgetLedger, Floats
from forestay.slo.model import Counts, Measure, Minute, SliKind, Slo, SloId, Window
from forestay.slo.slices import OpenSlices
from forestay.slo.windows import longest_minutes, words_of_window


@dataclasses.dataclass(frozen=True, slots=True)
class Episode:
    """An alert from its first minute to the first one after it; `until` is None where it is open at the end."""

    severity: Severity
    first: Minute
    until: Minute | None


@dataclasses.dataclass(frozen=True, slots=True)
class Replay:
    """What one SLO says of a stretch of history."""

    slo_id: SloId
    episodes: tuple[Episode, ...]
    worst_spent_ratio: float
    last_spent_ratio: float
    says: tuple[str, ...] = ()
    """What a reader must know: minutes that nobody saw, a history shorter than the window."""


@dataclasses.dataclass(frozen=True, slots=True)
class PastIncident:
    """An incident of the past, as its record has it."""

    name: str
    first: Minute
    until: Minute


@dataclasses.dataclass(frozen=True, slots=True)
class Caught:
    """Whether an SLO would have caught an incident: by which alert, and how many minutes after it began."""

    incident: str
    severity: Severity | None
    after_minutes: int | None


def replay(slos: Sequence[Slo], minutes: Mapping[Minute, Counts]) -> tuple[Replay, ...]:
    """Run SLOs over kept minutes, all over the same; minutes between them that are not kept were empty."""
    if not minutes or not slos:
        return tuple(Replay(slo.slo_id, (), 0.0, 0.0) for slo in slos)
    first, last = min(minutes), max(minutes)
    engine, ledger = FleetEngine(slos), BudgetLedger(slos, first)
    open_since: list[dict[Severity, Minute]] = [{} for _ in slos]
    episodes: list[list[Episode]] = [[] for _ in slos]
    worst = np.zeros(len(slos))
    sliced, slices = [at for at, slo in enumerate(slos) if slo.sli.kind is SliKind.TIME_SLICE], OpenSlices()
    ones = np.ones(len(slos))
    for number in range(first, last + 1):
        now = Minute(number)
        counts = minutes.get(now, _EMPTY)
        seen, organic = (pair[:, None] * ones for pair in _pairs(counts))
        for at in sliced:
            seen[:, at], organic[:, at] = _pairs(slices.happened(slos[at], counts, now))
        engine.tick(now, seen)
        ledger.tick(now, organic)
        worst = np.maximum(worst, ledger.spent())
        _follow(engine, now, open_since, episodes)
    for held, found in zip(open_since, episodes, strict=True):
        found += [Episode(severity, since, None) for severity, since in held.items()]
    spent = ledger.spent()
    return tuple(
        Replay(
            slo.slo_id,
            tuple(sorted(found, key=lambda item: item.first)),
            float(worst[index]),
            float(spent[index]),
            _says(slo, minutes),
        )
        for index, (slo, found) in enumerate(zip(slos, episodes, strict=True))
    )


_EMPTY = Counts()


def _pairs(counts: Counts) -> tuple[Floats, Floats]:
    """Return bad and all of everything that was seen, and of organic requests alone."""
    return (
        np.array([counts.seen_bad, counts.seen], dtype=np.float64),
        np.array([counts.bad, counts.total], dtype=np.float64),
    )


def _says(slo: Slo, minutes: Mapping[Minute, Counts]) -> tuple[str, ...]:
    """Return what a reader must know of the history itself."""
    first, last = min(minutes), max(minutes)
    missing = sum(counts.missing_minutes for counts in minutes.values())
    says = [f"{missing} minutes were not seen: they are neither good nor bad"] if missing else []
    held = last + 1 - first
    if held < longest_minutes(slo.window):
        lengths = f"{words_of_window(Window(held))}, and the window is {words_of_window(slo.window)}"
        says.append(f"the history has {lengths}: a budget is told of what there is")
    if slo.sli.measure is Measure.THROUGHPUT:
        says.append("throughput: these minutes do not say what was asked for, so nothing in them is overdue")
    if slo.parts:
        says.append("a composite: all of its parts are taken to have seen these minutes")
    return tuple(says)


def _follow(
    engine: FleetEngine, now: Minute, open_since: list[dict[Severity, Minute]], episodes: list[list[Episode]]
) -> None:
    for severity, flags in ((Severity.PAGE, engine.paging), (Severity.TICKET, engine.ticketing)):
        for index, firing in enumerate(flags):
            held = open_since[index]
            if firing and severity not in held:
                held[severity] = now
            elif not firing and severity in held:
                episodes[index].append(Episode(severity, held.pop(severity), now))


def catches(
    found: Replay, incidents: Sequence[PastIncident], grace_minutes: int = 60
) -> tuple[tuple[Caught, ...], tuple[Episode, ...]]:
    """Return what became of each incident, and the pages that belong to none.

    An alert belongs to an incident if it is open at any time from its beginning to `grace_minutes` after its end; the
    first page counts, else the first ticket.
    """
    told: list[Caught] = []
    for incident in incidents:
        near = [item for item in found.episodes if _overlaps(item, incident, grace_minutes)]
        best = min(near, key=lambda item: (item.severity is not Severity.PAGE, item.first), default=None)
        after = None if best is None else max(0, best.first - incident.first)
        told.append(Caught(incident.name, None if best is None else best.severity, after))
    others = [
        item
        for item in found.episodes
        if item.severity is Severity.PAGE
        and not any(_overlaps(item, incident, grace_minutes) for incident in incidents)
    ]
    return tuple(told), tuple(others)


def _overlaps(episode: Episode, incident: PastIncident, grace_minutes: int) -> bool:
    ends_after = episode.until is None or episode.until > incident.first
    return ends_after and episode.first < incident.until + grace_minutes
