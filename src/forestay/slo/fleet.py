"""Every SLO of a fleet, minute by minute, in arrays: the decision of `decide` for thousands at once.

It holds what a decision needs and no more: sums of windows (minutes for six hours, five-minute buckets for three days)
and the evidence. It decides which SLOs page and which have tickets; the words for those few come from `decide_slo`,
fed by `state_of`. A property test holds the two to the same answers. Called by the loop that watches SLOs, by replay,
and by the benches.
"""

import dataclasses
from collections.abc import Mapping, Sequence

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
)
from forestay.slo.evidence import Bets, nothing_wagered, page_bets, stakes, ticket_bets, wager
from forestay.slo.model import Minute, Slo

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
MINUTE_WINDOWS = (1, 5, 30, 60, 360)
BUCKET_WINDOWS = (5, 120, 360, 1440, 4320)


class WindowRing:
    """Running sums of bad and of all requests over several windows, in steps of `step_minutes`, for n SLOs."""

    def __init__(self, count: int, step_minutes: int, windows_minutes: Sequence[int]) -> None:
        self._steps = {minutes: minutes // step_minutes for minutes in windows_minutes}
        self._size = max(self._steps.values()) + 1
        self._kept = np.zeros((self._size, 2, count), dtype=np.uint32)
        self._at = 0
        self.sums: dict[int, Ints] = {minutes: np.zeros((2, count), dtype=np.int64) for minutes in windows_minutes}

    def add(self, bad: Ints, total: Ints) -> None:
        """Add one step; what has left a window is taken off its sums. At most 4,294,967,295 requests a step."""
        self._at = (self._at + 1) % self._size
        now = self._kept[self._at]
        now[0], now[1] = bad, total
        for minutes, sums in self.sums.items():
            np.add(sums, now, out=sums)
            np.subtract(sums, self._kept[(self._at - self._steps[minutes]) % self._size], out=sums)


@dataclasses.dataclass(frozen=True, slots=True)
class PairTable:
    """One pair for n SLOs; where an SLO does not have it its threshold is never exceeded."""

    name: str
    long_minutes: int
    short_minutes: int
    threshold: Floats
    traffic_minutes: int
    speaks_from: Ints
    long_from: Ints
    false_share: Floats
    busy_share: Floats

    def burns(self, sums: Mapping[int, Ints]) -> Flags:
        """Return `[n]`: both windows are above the threshold. The division is the one that Prometheus makes."""
        with np.errstate(divide="ignore", invalid="ignore"):
            long = sums[self.long_minutes][0] / sums[self.long_minutes][1] > self.threshold
            if not long.any():
                return long
            return long & (sums[self.short_minutes][0] / sums[self.short_minutes][1] > self.threshold)

    def may_speak(self, sums: Mapping[int, Ints]) -> Flags:
        """Return `[n]`: at this traffic it may speak alone."""
        quiet = sums[self.traffic_minutes][1] >= self.speaks_from
        return quiet & (sums[self.long_minutes][1] >= self.long_from)

    def taken(self, sums: Mapping[int, Ints], speaks: Flags) -> Floats:
        """Return `[n]`: what it takes of the false-page rate."""
        busy = sums[self.traffic_minutes][1] >= 2 * self.speaks_from
        return np.where(busy, self.busy_share, self.false_share) * speaks


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
    numbers = {"threshold": np.full(count, np.inf)}
    numbers |= {field: np.zeros(count) for field in ("speaks_from", "long_from", "false_share", "busy_share")}
    for field, values in numbers.items():
        values[where] = [getattr(pair, field) for _, pair in pairs]
    return PairTable(
        name=name,
        long_minutes=shape.long_minutes,
        short_minutes=shape.short_minutes,
        traffic_minutes=shape.traffic_minutes,
        threshold=numbers["threshold"],
        speaks_from=numbers["speaks_from"].astype(np.int64),
        long_from=numbers["long_from"].astype(np.int64),
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

    def step(self, sums: Mapping[int, Ints], fresh: Ints, step_minutes: int) -> Flags:
        """Carry everything over one step in which `fresh` `[2, n]` (bad, total) was seen; return `[n]`: it is open."""
        stake = np.full(fresh.shape[1], float(step_minutes))
        bad_now = fresh[0] > 0
        for table in self.tables:
            speaks = table.may_speak(sums)
            stake -= step_minutes * table.taken(sums, speaks)
            burns = table.burns(sums)
            if burns.any() or self.pairs_open[table.name].any():
                self.pairs_open[table.name] = burns & ((speaks & bad_now) | self.pairs_open[table.name])
        np.maximum(stake, 0.0, out=stake)
        hourly = sums[60][1] if step_minutes == 1 else sums[120][1] // 2
        staked = stakes(self.bets, stake, hourly)
        self.evidence = wager(self.wealth, self.bets, fresh[0], fresh[1], staked) / self.bets.goal
        sure = self.evidence >= ENOUGH
        if sure.any() or self.evidence_open.any():
            self.evidence_open = np.where(self.evidence_open, ~self._recovered(sums), sure)
            self.wealth[:, self.evidence_open] = 0.0
            self.evidence[self.evidence_open] = np.maximum(self.evidence[self.evidence_open], 1.0)
        opened = self.evidence_open.copy()
        for flags in self.pairs_open.values():
            opened |= flags
        return opened

    def close(self, silent: Flags) -> None:
        """Close what is open where nothing was seen for so long that nothing can be claimed."""
        self.evidence_open &= ~silent
        for flags in self.pairs_open.values():
            flags[silent] = False

    def _recovered(self, sums: Mapping[int, Ints]) -> Flags:
        burn, lengths = RECOVERY[self._severity]
        chosen = sums[lengths[-1]].copy()
        for minutes in reversed(lengths[:-1]):
            enough = sums[minutes][1] >= RECOVERY_REQUESTS
            chosen[:, enough] = sums[minutes][:, enough]
        share = np.minimum(burn * self.bets.budget, MOST_BURN_SHARE)
        return chosen[0] < np.maximum(1.0, share * chosen[1])


class FleetEngine:
    """All SLOs of a fleet; `tick` carries them over one minute."""

    def __init__(self, slos: Sequence[Slo]) -> None:
        self.slos = tuple(slos)
        self.count = len(self.slos)
        self.budget = np.asarray([slo.budget_ratio for slo in self.slos])
        rates = np.asarray([slo.alerting.false_pages_per_30_days for slo in self.slos])
        self.page = Alarm(self.slos, Severity.PAGE, page_bets(self.budget, rates))
        self.ticket = Alarm(self.slos, Severity.TICKET, ticket_bets(self.budget, rates))
        self.minutes = WindowRing(self.count, 1, MINUTE_WINDOWS)
        self.buckets = WindowRing(self.count, TICKET_EVERY_MINUTES, BUCKET_WINDOWS)
        self.paging = np.zeros(self.count, dtype=np.bool_)
        self.ticketing = np.zeros(self.count, dtype=np.bool_)
        self.last_seen = np.full(self.count, -SILENT_MINUTES, dtype=np.int64)
        self._bucket = np.zeros((2, self.count), dtype=np.int64)

    def tick(self, now: Minute, bad: Ints, total: Ints) -> None:
        """Carry the fleet over the minute `now`: `bad` of `total` `[n]` requests and probes. Every minute must come."""
        self.minutes.add(bad, total)
        self._bucket[0] += bad
        self._bucket[1] += total
        self.last_seen[total > 0] = now
        self.paging = self.page.step(self.minutes.sums, self.minutes.sums[1], 1)
        if (now + 1) % TICKET_EVERY_MINUTES == 0:
            self.buckets.add(self._bucket[0], self._bucket[1])
            self._bucket[:] = 0
            self.ticketing = self.ticket.step(self.buckets.sums, self.buckets.sums[5], TICKET_EVERY_MINUTES)
        silent = now - self.last_seen >= SILENT_MINUTES
        if silent.any():
            self.page.close(silent)
            self.ticket.close(silent)
            self.paging &= ~silent
            self.ticketing &= ~silent

    def state_of(self, index: int) -> SloState:
        """Return one SLO's state as `decide_slo` reads it; what is open is what was decided in this minute."""
        windows = {minutes: _sums_of(sums, index) for minutes, sums in self.minutes.sums.items()}
        windows |= {minutes: _sums_of(sums, index) for minutes, sums in self.buckets.sums.items() if minutes > 360}
        windows[120] = _sums_of(self.buckets.sums[120], index)
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


def _sums_of(sums: Ints, index: int) -> Sums:
    return Sums(int(sums[0, index]), int(sums[1, index]))
