"""Flood control: an entry that suddenly matches everywhere is wrong about something, and stops blocking on its own.

A hash of a blank page, a company's logo or a stolen template in a bank would otherwise block half of the traffic. An
entry that matches for more tenants, or in more requests, than a window may hold is suspended: it then leads to review.
Only a person lets it block again. Pure; each process counts for itself. Called by the matcher's shell.
"""

import dataclasses
import datetime as dt


@dataclasses.dataclass(frozen=True, slots=True)
class FloodLimits:
    """What one entry may match in a window before it is suspended."""

    window_seconds: float = 3_600.0
    max_tenants: int = 20
    max_requests: int = 1_000


@dataclasses.dataclass(frozen=True, slots=True)
class Sightings:
    """What one entry matched since its window began."""

    entry_id: int
    since: dt.datetime
    requests: int = 0
    tenants: frozenset[str] = frozenset()
    suspended: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Suspend:
    """Keep an entry from blocking."""

    entry_id: int
    reason: str


def sighted(before: Sightings, tenant_id: str, limits: FloodLimits, now: dt.datetime) -> Sightings:
    """Return the sightings with one more request; an old window gives way to a new one.

    No more tenants are remembered than decide the matter.
    """
    if (now - before.since).total_seconds() >= limits.window_seconds:
        before = Sightings(before.entry_id, now)  # a person may have let it block again since
    tenants = before.tenants if len(before.tenants) > limits.max_tenants else before.tenants | {tenant_id}
    return dataclasses.replace(before, requests=before.requests + 1, tenants=tenants)


def decide_flood(state: Sightings, limits: FloodLimits, now: dt.datetime) -> list[Suspend]:
    """Say whether an entry must stop blocking."""
    # What is suspended already needs no second act.
    if state.suspended:
        return []
    # An old window says nothing about now.
    if (now - state.since).total_seconds() >= limits.window_seconds:
        return []
    within = f"within {limits.window_seconds:g} s"
    if len(state.tenants) > limits.max_tenants:
        return [Suspend(state.entry_id, f"matched for more than {limits.max_tenants} tenants {within}")]
    if state.requests > limits.max_requests:
        return [Suspend(state.entry_id, f"matched in more than {limits.max_requests} requests {within}")]
    return []
