"""Throughput: whether what was asked for was done in time, or else as much as is promised. Pure but for its memory.

It decides what a slice of time owed and how much of that was done; whether the slice was good, `budget` says by its own
objective, as of any slice. Of a slice that ends now,

    owed = min(demand, promised),  demand = done + failed + overdue,  promised = the rate x the slice, rounded down

where overdue is what was asked for longer than `threshold_seconds` ago and has not ended. So a slice in which all was
done that was asked for is good however little that was, and one in which the promised rate was kept is good however
much more was asked for: the shape of a promise to a rate-latency server (Le Boudec and Thiran 2001, "Network Calculus",
section 1.3), looked at once a slice. What was asked for and never heard of again is let go after six hours. Minutes
come in order and each once. Called by `watching`, and for whole months by `customer_month`.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from forestay.slo.fleet import WindowRing
from forestay.slo.model import Counts, Measure, Minute, Sli, Slo, SloId

LOOKED_BACK_MINUTES = 360
"""How long something overdue is held against a model: an end that never comes is let go then."""
_NOTHING = Counts()


def owed(done: int, failed: int, overdue: int, promised: float) -> Counts:
    """Return what was done of what a slice owed as good, and what was not as bad: all of `done` counts."""
    room = max(0, math.floor(promised + 1e-9) - done)  # 0.1 x 60 x 5 is 30, whatever it is in binary
    return Counts(good=done, bad=min(failed + max(0, overdue), room))


def grace_minutes(sli: Sli) -> int:
    """Return after how many whole minutes what was asked for is overdue: never sooner than `threshold_seconds`."""
    return max(1, math.ceil((sli.threshold_seconds or 0.0) / 60))


class Flows:
    """What was asked for and what ended, of those SLOs that are about throughput."""

    def __init__(self, slos: Sequence[Slo], rewound_minutes: int = 0) -> None:
        """Take the SLOs, and how far back their windows may be rewound."""
        self._slos = tuple(slo for slo in slos if slo.sli.measure is Measure.THROUGHPUT)
        self._ids = frozenset(slo.slo_id for slo in self._slos)
        graces = {grace_minutes(slo.sli) for slo in self._slos}
        lengths = sorted(graces | {grace + LOOKED_BACK_MINUTES for grace in graces} or {1})
        slices = sorted({slo.sli.slice_minutes for slo in self._slos} or {1})
        self._waiting = WindowRing(len(self._slos), 1, lengths, rewound_minutes)  # ended, asked
        self._made = WindowRing(len(self._slos), 1, slices, rewound_minutes)  # failed, done

    def settled(self, seen: Mapping[SloId, Counts], now: Minute) -> Mapping[SloId, Counts]:
        """Return what SLOs count of a minute: those about throughput at the end of a slice, in what it owed."""
        if not self._slos:
            return seen
        held = [seen.get(slo.slo_id, _NOTHING) for slo in self._slos]
        failed = np.array([one.bad + one.probes_bad for one in held], dtype=np.float64)
        done = np.array([one.good + one.probes_good for one in held], dtype=np.float64)
        self._waiting.add(np.stack([failed + done, np.array([one.asked for one in held], dtype=np.float64)]))
        self._made.add(np.stack([failed, done]))
        found = {slo_id: counts for slo_id, counts in seen.items() if slo_id not in self._ids}
        for index, slo in enumerate(self._slos):
            counts = self._of_slice(index, slo.sli) if (now + 1) % slo.sli.slice_minutes == 0 else _NOTHING
            if counts.total:
                found[slo.slo_id] = counts
        return found

    def fixed(self) -> tuple[object, ...]:
        """Return what need not be saved: the windows are rewound."""
        return (self._slos, self._ids, self._waiting, self._made)

    def rewind(self, minutes: int) -> None:
        """Take the last minutes back."""
        if self._slos:
            self._waiting.rewind(minutes)
            self._made.rewind(minutes)

    def _of_slice(self, index: int, sli: Sli) -> Counts:
        failed, done = (int(value) for value in self._made[sli.slice_minutes][:, index])
        grace = grace_minutes(sli)
        ended, asked = self._waiting[grace + LOOKED_BACK_MINUTES][:, index]
        overdue = int(asked - self._waiting[grace][1, index] - ended)
        return owed(done, failed, overdue, (sli.per_second or 0.0) * 60 * sli.slice_minutes)


def settled_minutes(slo: Slo, minutes: Mapping[Minute, Counts], until: Minute) -> Mapping[Minute, Counts]:
    """Return the same of all minutes before `until` at once; those of other measures as they are."""
    if slo.sli.measure is not Measure.THROUGHPUT or not minutes:
        return minutes
    flows = Flows([slo])
    found: dict[Minute, Counts] = {}
    for number in range(min(minutes), until):
        now = Minute(number)
        counts = flows.settled({slo.slo_id: minutes.get(now, _NOTHING)}, now)
        if slo.slo_id in counts:
            found[now] = counts[slo.slo_id]
    return found
