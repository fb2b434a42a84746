"""What a run of the world comes to: goodput, promises kept, fairness. Pure. Called by benches and tests."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from forestay.ids import TenantId
from forestay.simulator.world import Story


@dataclasses.dataclass(frozen=True, slots=True)
class Overload:
    """How a policy does when more is asked than can be served. Ratios."""

    offered: float  # of capacity
    goodput: float  # device-seconds of requests that started in time, of capacity
    wasted: float  # device-seconds of requests that started too late for anybody to wait, of capacity
    in_time: float  # of those admitted and decided by the end, how many started in time
    refused: float  # of those asked
    admitted: int


def overload(stories: Sequence[Story], slots: int, seconds: float, warm_up: float = 0.0) -> Overload:
    """Add up what happened after `warm_up`; what runs over the end counts for the part before it."""
    capacity = slots * (seconds - warm_up)
    good = wasted = 0.0
    for story in stories:
        if story.started is not None:
            part = max(0.0, min(story.started + story.arrival.device_seconds, seconds) - max(story.started, warm_up))
            good += part if story.in_time else 0.0
            wasted += 0.0 if story.in_time else part
    asked = [story for story in stories if story.arrival.at >= warm_up]
    admitted = [story for story in asked if not story.refused]
    decided = [item for item in admitted if item.started is not None or item.shed or (item.start_limit or 0) <= seconds]
    return Overload(
        offered=sum(story.arrival.device_seconds for story in asked) / capacity,
        goodput=good / capacity,
        wasted=wasted / capacity,
        in_time=sum(story.in_time for story in decided) / max(len(decided), 1),
        refused=1.0 - len(admitted) / max(len(asked), 1),
        admitted=len(admitted),
    )


def received(stories: Iterable[Story], at: float) -> Mapping[TenantId, float]:
    """Return the device-seconds that each tenant has been given by then, what runs included as far as it has run."""
    found: dict[TenantId, float] = {}
    for story in stories:
        if story.started is not None and story.started < at:
            ran = min(at - story.started, story.arrival.device_seconds)
            found[story.tenant_id] = found.get(story.tenant_id, 0.0) + ran
    return found


def given_out(stories: Iterable[Story]) -> list[tuple[float, TenantId, float]]:
    """Return (time, tenant, device-seconds) of every start, in order: service as turns count it."""
    started = [story for story in stories if story.started is not None]
    ordered = sorted(started, key=lambda story: (story.started or 0.0, story.request_id))
    return [(story.started or 0.0, story.tenant_id, story.arrival.device_seconds) for story in ordered]


def worst_gap(
    stories: Sequence[Story], weights: Mapping[TenantId, float], until: float | None = None
) -> tuple[float, float]:
    """Return how far a tenant ever was from its weighted share of what these were given, and the largest request.

    Device-seconds, over every start while all of them wait (until `until`).
    """
    given = dict.fromkeys(weights, 0.0)
    whole = sum(weights.values())
    worst = largest = 0.0
    for at, tenant_id, seconds in given_out(stories):
        if until is not None and at > until:
            break
        if tenant_id not in given:
            continue
        given[tenant_id] += seconds
        largest = max(largest, seconds)
        total = sum(given.values())
        worst = max(worst, *(abs(given[name] - total * weight / whole) for name, weight in weights.items()))
    return worst, largest


def worst_served_gap(stories: Sequence[Story], weights: Mapping[TenantId, float], until: float) -> tuple[float, float]:
    """Return how far a tenant ever was from its weighted share of what these had been served, and the largest request.

    Device-seconds that have run by then, until `until`: what a tenant has, not what it was promised. Between two starts
    or ends it grows evenly, so those moments show the worst.
    """
    ran = [story for story in stories if story.started is not None and story.tenant_id in weights]
    steps: list[tuple[float, int, TenantId]] = []
    for story in ran:
        began = story.started or 0.0
        steps += [(began, 1, story.tenant_id), (began + story.arrival.device_seconds, -1, story.tenant_id)]
    given, running = dict.fromkeys(weights, 0.0), dict.fromkeys(weights, 0)
    whole, worst, before = sum(weights.values()), 0.0, 0.0
    for at, step, tenant_id in sorted(steps):
        if at > until:
            break
        for name in given:
            given[name] += running[name] * (at - before)
        total = sum(given.values())
        worst = max(worst, *(abs(given[name] - total * weight / whole) for name, weight in weights.items()))
        running[tenant_id] += step
        before = at
    return worst, max((story.arrival.device_seconds for story in ran), default=0.0)


def jain(values: Sequence[float]) -> float:
    """Return Jain's index of equality: 1 when all are equal, 1/n when one has all (Jain, Chiu and Hawe, 1984)."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0


def percentile(values: Iterable[float], share: float) -> float:
    """Return the value below which so large a share lies; 0 without values."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0


def waits(stories: Iterable[Story], tenant_id: TenantId) -> list[float]:
    """Return the waits of one tenant's requests that started, in seconds."""
    return [
        story.started - story.arrival.at
        for story in stories
        if story.started is not None and story.tenant_id == tenant_id
    ]
