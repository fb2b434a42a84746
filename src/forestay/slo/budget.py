"""How much of an error budget is spent, how fast it burns, and when it will be gone. Exact, by events.

It decides arithmetic only. A budget is counted in what the SLI counts: requests, or slices of time. Sums of minutes
are sums of integers, so a long window is as exact as a short one; a mean of ratios is never taken, since it gives a
quiet hour the weight of a busy one. A window of which nothing was seen has no state: it is neither kept nor broken.
Called by whoever shows, decides or reports budgets.
"""

import dataclasses
import enum
import math
from collections.abc import Iterable, Mapping, Sequence

from forestay.slo.model import Counts, Minute, Sli, SliKind, Slo, SloId
from forestay.slo.windows import bounds


class DataState(enum.StrEnum):
    """What can be said of a window."""

    NO_DATA = "no_data"  # no event at all: neither good nor bad
    PARTIAL = "partial"  # some of it lies before what is kept, or was not seen
    WHOLE = "whole"


@dataclasses.dataclass(frozen=True, slots=True)
class Adjustment:
    """Events taken out of a window by a person, or put back: kept for ever, never edited."""

    slo_id: SloId
    first: Minute
    until: Minute
    """The first minute after it."""
    by: str
    reason: str
    at: Minute
    forgiven: int = 0
    """Bad events given back while `first` is in the window; 0: what happened in the minutes does not count."""


@dataclasses.dataclass(frozen=True, slots=True)
class Budget:
    """An error budget over one window. Ratios are shares of the whole budget; above 1 more than all is spent."""

    slo_id: SloId
    state: DataState
    events: float
    bad: float
    allowed: float
    """How many of these events may be bad."""
    spent_ratio: float
    burn_rate: float
    """Spent in proportion to time: 1 spends exactly all of it within the window."""
    minutes_to_empty: float | None
    """At the burn rate of the last hour (twelve slices, if that is longer); None while it would last the window out."""
    seen_from: Minute
    """The first minute that is covered: later than the window's own where less is kept."""
    says: tuple[str, ...] = ()
    """What a reader must know: what is missing, what was adjusted."""

    @property
    def left_ratio(self) -> float:
        """The share of the budget that is left, below 0 when it is overdrawn."""
        return 1.0 - self.spent_ratio


@dataclasses.dataclass(frozen=True, slots=True)
class History:
    """Minutes of one SLO that are kept, from `kept_from` on; a minute that is not in it was seen and was empty."""

    minutes: Mapping[Minute, Counts]
    kept_from: Minute


def events_of(sli: Sli, minutes: Mapping[Minute, Counts], first: Minute, until: Minute) -> tuple[int, int, int]:
    """Return (events, bad events, missing minutes) of [first, until): requests, or slices of time that had requests.

    Slices are aligned to multiples of their length since 1970. A slice without a request is no event.
    """
    if sli.kind is not SliKind.TIME_SLICE:
        chosen = [counts for minute, counts in minutes.items() if first <= minute < until]
        total = sum(counts.total for counts in chosen)
        return total, sum(counts.bad for counts in chosen), sum(counts.missing_minutes for counts in chosen)
    slices: dict[int, list[int]] = {}
    missing = 0
    for minute, counts in minutes.items():
        if first <= minute < until:
            missing += counts.missing_minutes
            held = slices.setdefault(minute // sli.slice_minutes, [0, 0])
            held[0] += counts.total
            held[1] += counts.bad
    seen = [(total, bad) for total, bad in slices.values() if total > 0]
    return len(seen), sum(not slice_is_good(sli, total, bad) for total, bad in seen), missing


def slice_is_good(sli: Sli, total: int, bad: int) -> bool:
    """Tell whether a slice keeps its own objective; `total` is above 0."""
    return total - bad >= sli.slice_objective * total - 1e-9  # 99 of 100 keep 99 %, whatever 0.99 * 100 is in binary


def budget_of(slo: Slo, history: History, now: Minute, adjustments: Iterable[Adjustment] = ()) -> Budget:
    """Return the budget of the window that holds `now`, without what was adjusted away."""
    start, end = bounds(slo.window, now)
    first, until = max(start, history.kept_from), Minute(min(end, now + 1))
    taken = [item for item in adjustments if item.slo_id == slo.slo_id and item.first < until and item.until > first]
    minutes = _without(history.minutes, [item for item in taken if not item.forgiven])
    events, bad, missing = events_of(slo.sli, minutes, first, until)
    bad = max(0, bad - sum(item.forgiven for item in taken))
    says = [_says_kept(start, first)] if first > start else []
    says += [f"{missing} minutes were not seen: they are neither good nor bad"] if missing else []
    says += [_says_adjusted(item) for item in taken]
    recent = events_of(slo.sli, minutes, Minute(max(first, until - _recent_minutes(slo.sli))), until)
    return _budget(slo, (events, bad), (recent[0], recent[1]), (start, first, end, now), says)


def _recent_minutes(sli: Sli) -> int:
    return max(60, 12 * sli.slice_minutes)


def _budget(
    slo: Slo,
    counted: tuple[int, int],
    recent: tuple[int, int],
    when: tuple[Minute, Minute, Minute, Minute],
    says: list[str],
) -> Budget:
    (events, bad), (start, first, end, now) = counted, when
    state = DataState.NO_DATA if events == 0 else DataState.PARTIAL if first > start or says else DataState.WHOLE
    allowed = slo.budget_ratio * events
    elapsed = now + 1 - first
    whole = events * (end - first) / elapsed  # of a calendar window: if the rest is as busy as what has passed
    spent = bad / (slo.budget_ratio * whole) if events else 0.0
    pace = recent[1] / recent[0] / slo.budget_ratio if recent[0] else 0.0
    empty = minutes_to_empty(1.0 - spent, pace, end - start)
    burn = bad / events / slo.budget_ratio if events else 0.0
    return Budget(slo.slo_id, state, events, bad, allowed, spent, burn, empty, first, tuple(says))


def minutes_to_empty(left_ratio: float, burn_rate: float, window_minutes: int) -> float | None:
    """Return when a budget is gone at a burn rate; None when it never is, 0 when it is already."""
    if left_ratio <= 0.0:
        return 0.0
    if burn_rate <= 0.0:
        return None
    minutes = left_ratio * window_minutes / burn_rate
    return minutes if math.isfinite(minutes) and minutes < window_minutes else None


def composite_of(slo: Slo, parts: Mapping[SloId, Budget]) -> Budget:
    """Return the budget of a composite: the weighted mean of its parts' shares of bad events, over those with data.

    A part without data takes no side: its weight is left out, and that is said. Source: OpenSLO v2alpha, composite
    weights; the mean is over shares, so a busy part does not outvote a quiet one unless its weight says so.
    """
    seen = [(part.weight, parts[part.slo_id]) for part in slo.parts if _has_data(parts.get(part.slo_id))]
    silent = [part.slo_id for part in slo.parts if not _has_data(parts.get(part.slo_id))]
    says = [f"{name} has no data: it takes no side" for name in silent]
    weight = math.fsum(item for item, _ in seen)
    if not seen or weight == 0.0:
        return Budget(slo.slo_id, DataState.NO_DATA, 0, 0, 0.0, 0.0, 0.0, None, Minute(0), tuple(says))
    share = math.fsum(item * budget.bad / budget.events for item, budget in seen) / weight
    spent = share / slo.budget_ratio
    first = Minute(max(budget.seen_from for _, budget in seen))
    events = math.fsum(budget.events for _, budget in seen)
    whole = not says and all(budget.state is DataState.WHOLE for _, budget in seen)
    state = DataState.WHOLE if whole else DataState.PARTIAL
    return Budget(
        slo.slo_id, state, events, share * events, slo.budget_ratio * events, spent, spent, None, first, tuple(says)
    )


def _has_data(budget: Budget | None) -> bool:
    return budget is not None and budget.state is not DataState.NO_DATA


def _without(minutes: Mapping[Minute, Counts], taken: Sequence[Adjustment]) -> Mapping[Minute, Counts]:
    if not taken:
        return minutes
    return {
        minute: counts
        for minute, counts in minutes.items()
        if not any(item.first <= minute < item.until for item in taken)
    }


def _says_adjusted(item: Adjustment) -> str:
    what = (
        f"{item.forgiven:,} bad events given back" if item.forgiven else f"{item.until - item.first} minutes taken out"
    )
    return f"{what} by {item.by}: {item.reason}"


def _says_kept(start: Minute, first: Minute) -> str:
    return f"the first {(first - start) / 1440:.1f} days of the window are not kept: what is said covers the rest"
