"""From counters to minutes: what a scraped counter says about each minute, across resets and gaps.

A counter that falls has begun anew: its new value is what has been added. What was counted while nobody looked lands
in the first minute that was seen again, if the gap was at most an hour; the minutes between are missing, not empty.
After a longer gap what happened in between is unknown, and is not put into one minute. The first sample of all tells
nothing. The generated Prometheus rules follow the same three sentences. Called by what reads counters of others.
"""

import dataclasses
from collections.abc import Mapping

from forestay.slo.model import Counts, Minute

LONGEST_GAP_MINUTES = 60


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """What two counters stood at in one minute; None where one was not to be had."""

    total: int | None
    bad: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """Minutes read from counters, and what was noticed."""

    minutes: Mapping[Minute, Counts]
    resets: int
    gaps: int
    lost_gaps: int
    """Gaps too long to tell what happened in them."""


def read_counters(samples: Mapping[Minute, Sample]) -> Reading:
    """Return the counts of each minute after the first sample; bad is held to total where the two disagree."""
    minutes: dict[Minute, Counts] = {}
    resets = gaps = lost = 0
    before: tuple[Minute, int, int] | None = None
    for minute in sorted(samples):
        total, bad = samples[minute].total, samples[minute].bad
        if total is None or bad is None:
            if before is not None:
                minutes[minute] = Counts(missing_minutes=1)
            continue
        if before is not None:
            since = minute - before[0]
            _fill(minutes, before[0], minute)
            if since > 1:
                gaps += 1
            if since > LONGEST_GAP_MINUTES:
                lost += 1
                minutes[minute] = Counts(missing_minutes=1)
            else:
                resets += total < before[1] or bad < before[2]
                minutes[minute] = _added(total, bad, before)
        before = (minute, total, bad)
    return Reading(minutes, resets, gaps, lost)


def _fill(minutes: dict[Minute, Counts], after: Minute, until: Minute) -> None:
    for minute in range(after + 1, until):
        minutes[Minute(minute)] = Counts(missing_minutes=1)


def _added(total: int, bad: int, before: tuple[Minute, int, int]) -> Counts:
    more = total - before[1] if total >= before[1] else total
    worse = min(bad - before[2] if bad >= before[2] else bad, more)
    return Counts(good=more - worse, bad=worse)
