"""Every SLO of a fleet, minute by minute, in arrays: the decision of `decide` for thousands at once.

It holds what a decision needs and no more: sums of windows (minutes for six hours, five-minute buckets for three days)
and the evidence. It decides which SLOs page and which have tickets; the words for those few come from `decide_slo`,
fed by `state_of`. A property test holds the two to the same answers. Called by the loop that watches SLOs, by replay,
and by the benches.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from forestay.slo.burn_rules import MOST_BURN_SHARE, TICKET_EVERY_MINUTES, Pair, Severity
from forestay.slo.decide import (
    ENOUGH,
    RECOVERY,
    RECOVERY_REQUESTS,
    SILENT_MINUTES,
    Opened,
    SloState,
    Sums,
    pairs_of,
    silent_minutes,
)
from forestay.slo.evidence import Bets, nothing_wagered, page_bets, stakes, ticket_bets, wager
from forestay.slo.model import Minute, Slo

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]
Counted = npt.NDArray[np.uint32 | np.float64]
MINUTE_WINDOWS = (1, 5, 30, 60, 360)
BUCKET_WINDOWS = (5, 120, 360, 1440, 4320)
_MOST_COUNTED = float(np.iinfo(np.uint32).max)  # a step with more (milliseconds of a very large fleet) widens all
_JUST_BELOW = 1.0 - 1e-9
"""A product is compared first, since it is cheap; what comes this near is divided, as Prometheus divides."""


class WindowRing:
    """What bad and all requests add up to over several windows, in steps of `step_minutes`, for n SLOs.

    Steps are kept as they came, four bytes a count: half of what sums since the beginning would take. Each window's sum
    is carried on: what comes is added, what leaves it is taken off. Sums are whole numbers in floats, exact to 2^53.
    """

    def __init__(self, count: int, step_minutes: int, windows_minutes: Sequence[int], rewound_minutes: int = 0) -> None:
        """Take how far back `rewind` may go: steps are kept so much longer than the longest window."""
        self.windows = tuple(windows_minutes)
        steps = (max(windows_minutes) + rewound_minutes) // step_minutes
        self._kept: Counted = np.zeros((steps, 2, count), dtype=np.uint32)
        self._steps = {minutes: minutes // step_minutes for minutes in windows_minutes}
        self._sums = {minutes: np.zeros((2, count)) for minutes in windows_minutes}
        self._next = 0

    def add(self, counts: Floats) -> None:
        """Add one step, `[2, n]` (bad, all)."""
        if self._kept.dtype == np.uint32 and counts.max(initial=0.0) > _MOST_COUNTED:
            self._kept = self._kept.astype(np.float64)
        size = len(self._kept)
        for minutes, steps in self._steps.items():
            sums = self._sums[minutes]
            sums += counts
            sums -= self._kept[(self._next - steps) % size]  # of the longest: the step whose place this one takes
        self._kept[self._next] = counts
        self._next = (self._next + 1) % size

    def rewind(self, steps: int) -> None:
        """Take the last steps back, as if they had never been added."""
        size = len(self._kept)
        for _ in range(steps):
            self._next = (self._next - 1) % size
            for minutes, length in self._steps.items():
                self._sums[minutes] -= self._kept[self._next]
                self._sums[minutes] += self._kept[(self._next - length) % size]

    def __getitem__(self, minutes: int) -> Floats:
        """Return `[2, n]`: what the last `minutes` hold, until the next step is added."""
        return self._sums[minutes]

    def some(self, minutes: int, which: Indices) -> Floats:
        """Return `[2, m]`: the same for some SLOs only."""
        return self._sums[minutes][:, which]


@dataclasses.dataclass(frozen=True, slots=True)
class PairTable:
    """One pair for n SLOs; where an SLO does not have it its threshold is never exceeded."""

    name: str
    long_minutes: int
    short_minutes: int
    threshold: Floats
    traffic_minutes: int
    speaks_from: Floats
    long_from: Floats
    false_share: Floats
    busy_share: Floats

    def burning(self, sums: WindowRing) -> Indices:
        """Return the indices of SLOs of which both windows are above the threshold."""
        long = sums[self.long_minutes]
        near = np.flatnonzero(long[0] > self.threshold * _JUST_BELOW * long[1])
        if not near.size:
            return near
        short = sums.some(self.short_minutes, near)
        threshold = self.threshold[near]
        burns = (long[0, near] / long[1, near] > threshold) & (short[0] > 0)
        return near[burns & (short[0] / np.maximum(short[1], 1.0) > threshold)]

    def may_speak(self, sums: WindowRing, which: Indices | slice) -> Flags:
        """Return whether each of `which` may speak alone at its traffic."""
        quiet = sums[self.traffic_minutes][1, which] >= self.speaks_from[which]
        return quiet & (sums[self.long_minutes][1, which] >= self.long_from[which])

    def taken(self, sums: WindowRing) -> Floats:
        """Return `[n]`: what it takes of the false-page rate."""
        busy = sums[self.traffic_minutes][1] >= 2 * self.speaks_from
        return np.where(busy, self.busy_share, self.false_share) * self.may_speak(sums, slice(None))


def _tables(slos: Sequence[Slo], severity: Severity) -> tuple[PairTable, ...]:
    found: dict[str, list[tuple[int, Pair]]] = {}
    for index, slo in enumerate(slos):
        for pair in pairs_of(slo):
            if pair.severity is severity:
                found.setdefault(pair.name, []).append((index, pair))
    return tuple(_table(name, len(slos), pairs) for name, pairs in found.items())


def _table(name: str, count: int, pairs: Sequence[tuple[int, Pair]]) -> PairTable:
    shape = pairs[0][1]
    where = np.asarray([index for index, _ in pairs])
    numbers = {"threshold": np.full(count, 2.0)}  # a share is never above 1
    numbers |= {field: np.zeros(count) for field in ("speaks_from", "long_from", "false_share", "busy_share")}
    for field, values in numbers.items():
        values[where] = [getattr(pair, field) for _, pair in pairs]
    return PairTable(
        name=name,
        long_minutes=shape.long_minutes,
        short_minutes=shape.short_minutes,
        traffic_minutes=shape.traffic_minutes,
        threshold=numbers["threshold"],
        speaks_from=numbers["speaks_from"],
        long_from=numbers["long_from"],
        false_share=numbers["false_share"],
        busy_share=numbers["busy_share"],
    )


class Alarm:
    """One severity for n SLOs: its pairs, its evidence, and what of them is open."""

    def __init__(self, slos: Sequence[Slo], severity: Severity, bets: Bets) -> None:
        count = len(slos)
        self.tables = _tables(slos, severity)
        self.bets = bets
        self._severity = severity
        self.wealth = nothing_wagered(bets)
        self.evidence = np.zeros(count)
        self.evidence_open = np.zeros(count, dtype=np.bool_)
        self.pairs_open = {table.name: np.zeros(count, dtype=np.bool_) for table in self.tables}
        self._staked = stakes(bets, np.zeros(count), np.zeros(count))

    def stake(self, sums: WindowRing, step_minutes: int, hourly: Floats) -> None:
        """Look at the traffic, and settle what each step wagers until it is looked at again."""
        left = 1.0 - sum((table.taken(sums) for table in self.tables), np.zeros(len(hourly)))
        self._staked = stakes(self.bets, step_minutes * np.maximum(left, 0.0), hourly)

    def step(self, sums: WindowRing, fresh: Floats) -> Flags:
        """Carry everything over one step in which `fresh` `[2, n]` (bad, all) was seen; return `[n]`: it is open."""
        for table in self.tables:
            burning = table.burning(sums)
            before = self.pairs_open[table.name]
            now = np.zeros_like(before)
            if burning.size:
                now[burning] = before[burning] | (table.may_speak(sums, burning) & (fresh[0, burning] > 0))
            self.pairs_open[table.name] = now
        wealth = wager(self.wealth, self.bets, fresh[0], fresh[1], self._staked)
        self.evidence = np.divide(wealth, self.bets.goal, out=wealth)
        opened = np.flatnonzero(self.evidence_open)
        sure = np.flatnonzero(self.evidence >= ENOUGH)
        if opened.size or sure.size:
            self.evidence_open[sure] = True
            self.evidence_open[opened] = ~self._recovered(sums, opened)
            self.wealth[:, self.evidence_open] = 0.0
            self.evidence[self.evidence_open] = 1.0
        result = self.evidence_open.copy()
        for flags in self.pairs_open.values():
            result |= flags
        return result

    def close(self, silent: Flags) -> None:
        """Close what is open where nothing was seen for so long that nothing can be claimed."""
        self.evidence_open &= ~silent
        for flags in self.pairs_open.values():
            flags[silent] = False

    def _recovered(self, sums: WindowRing, which: Indices) -> Flags:
        burn, lengths = RECOVERY[self._severity]
        chosen = sums.some(lengths[-1], which)
        for minutes in reversed(lengths[:-1]):
            shorter = sums.some(minutes, which)
            chosen = np.where(shorter[1] >= RECOVERY_REQUESTS, shorter, chosen)
        share = np.minimum(burn * self.bets.budget[which], MOST_BURN_SHARE)
        return chosen[0] < np.maximum(1.0, share * chosen[1])


class FleetEngine:
    """All SLOs of a fleet; `tick` carries them over one minute."""

    def __init__(self, slos: Sequence[Slo], rewound_minutes: int = 0) -> None:
        """Take the SLOs, and how far back their windows may be rewound."""
        self.slos = tuple(slos)
        self.count = len(self.slos)
        self.budget = np.asarray([slo.budget_ratio for slo in self.slos])
        rates = np.asarray([slo.alerting.false_pages_per_30_days for slo in self.slos])
        self.page = Alarm(self.slos, Severity.PAGE, page_bets(self.budget, rates))
        self.ticket = Alarm(self.slos, Severity.TICKET, ticket_bets(self.budget, rates))
        self.minutes = WindowRing(self.count, 1, MINUTE_WINDOWS, rewound_minutes)
        self.buckets = WindowRing(self.count, TICKET_EVERY_MINUTES, BUCKET_WINDOWS, rewound_minutes)
        self.paging = np.zeros(self.count, dtype=np.bool_)
        self.ticketing = np.zeros(self.count, dtype=np.bool_)
        self.last_seen = np.full(self.count, -SILENT_MINUTES, dtype=np.int64)
        self._silent_after = np.asarray([silent_minutes(slo) for slo in self.slos], dtype=np.int64)
        self._bucket = np.zeros((2, self.count))

    def tick(self, now: Minute, counts: Floats) -> None:
        """Carry the fleet over the minute `now`: `counts` `[2, n]`, bad and all requests and probes. None may lack."""
        self.minutes.add(counts)
        self._bucket += counts
        self.last_seen[counts[1] > 0] = now
        if now % TICKET_EVERY_MINUTES == 0:
            self.page.stake(self.minutes, 1, self.minutes[60][1])
        self.paging = self.page.step(self.minutes, counts)
        if (now + 1) % TICKET_EVERY_MINUTES == 0:
            self.buckets.add(self._bucket)
            self.ticket.stake(self.buckets, TICKET_EVERY_MINUTES, self.buckets[120][1] / 2)
            self.ticketing = self.ticket.step(self.buckets, self._bucket)
            self._bucket[:] = 0.0
        silent = self.silent(now)
        if silent.any():
            self._close(silent)

    def fixed(self) -> tuple[object, ...]:
        """Return what no tick changes, and the windows, which are rewound: what need not be saved."""
        tables = (alarm.tables for alarm in (self.page, self.ticket))
        bets = (self.page.bets, self.ticket.bets)
        return (self.slos, self.budget, self._silent_after, self.minutes, self.buckets, *tables, *bets)

    def silent(self, now: Minute) -> Flags:
        """Return `[n]`: nothing was seen for so long that nothing can be claimed."""
        return now - self.last_seen >= self._silent_after

    def _close(self, silent: Flags) -> None:
        self.page.close(silent)
        self.ticket.close(silent)
        self.paging &= ~silent
        self.ticketing &= ~silent

    def state_of(self, index: int) -> SloState:
        """Return one SLO's state as `decide_slo` reads it; what is open is what was decided in this minute."""
        which = np.asarray([index])
        windows = {
            minutes: Sums(*(int(value) for value in ring.some(minutes, which)[:, 0]))
            for ring in (self.buckets, self.minutes)  # the minutes' own windows are the fresher ones
            for minutes in ring.windows
        }
        names = [name for alarm in (self.page, self.ticket) for name, flags in alarm.pairs_open.items() if flags[index]]
        opened = Opened(bool(self.page.evidence_open[index]), bool(self.ticket.evidence_open[index]), frozenset(names))
        seen = int(self.last_seen[index])
        return SloState(
            self.slos[index],
            windows,
            float(self.page.evidence[index]),
            float(self.ticket.evidence[index]),
            opened,
            None,
            None if seen < 0 else Minute(seen),
        )
