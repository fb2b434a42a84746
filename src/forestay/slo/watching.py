"""Carries a fleet's SLOs over minutes of counts, one after another, and says how each stands. No I/O.

It decides when what woke somebody began; what wakes them, `decide` says, and the budgets are `budget`'s. Minutes come
in order and each once: who has changed minutes starts anew. Called by `loop`.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from forestay.slo.budget import Adjustment, Budget, History, budget_of, composite_of, slice_is_good
from forestay.slo.decide import Decision, Opened, decide_slo
from forestay.slo.fleet import FleetEngine
from forestay.slo.model import Counts, Minute, SliKind, Slo, SloId, SubjectKind
from forestay.slo.standing import URGENT, Standing, standing_of
from forestay.slo.windows import bounds, longest_minutes

SHOWN_WINDOWS = (5, 60, 360, 4320)
_NOTHING, _GOOD_SLICE, _BAD_SLICE = Counts(), Counts(good=1), Counts(bad=1)
MinuteCounts = Mapping[SloId, Counts]


class Watching:
    """The SLOs of a fleet and what was seen of them from `start` on."""

    def __init__(self, slos: Sequence[Slo], start: Minute, evidence_from: Minute) -> None:
        """Budgets count from `start`; tests of burning see minutes from `evidence_from` on."""
        self.slos = tuple(slos)
        self.until = start  # the first minute that has not been taken
        self._start = start
        self._evidence_from = evidence_from
        self._simple = [slo for slo in self.slos if slo.subject.kind is not SubjectKind.COMPOSITE]
        self._engine = FleetEngine(self._simple)
        self._kept: dict[SloId, dict[Minute, Counts]] = {slo.slo_id: {} for slo in self._simple}
        self._opened: dict[SloId, Opened] = {}
        self._since: dict[SloId, Minute] = {}
        self._slices: dict[SloId, Counts] = {}  # what the slices of time that are not over have held so far
        self.budgets: dict[SloId, Budget] = {}  # of every SLO, as of the last standings

    def take(self, seen: MinuteCounts) -> None:
        """Take the next minute: the counts of those SLOs that had any."""
        now = self.until
        for slo_id, counts in seen.items():
            if slo_id in self._kept:
                self._kept[slo_id][now] = counts
        if now >= self._evidence_from:
            counts = [self._happened(slo, seen.get(slo.slo_id, _NOTHING), now) for slo in self._simple]
            bad, seen_of_all = [one.seen_bad for one in counts], [one.seen for one in counts]
            self._engine.tick(now, np.asarray([bad, seen_of_all], dtype=np.float64))
            self._note_since(now)
        self.until = Minute(now + 1)

    def _happened(self, slo: Slo, counts: Counts, now: Minute) -> Counts:
        """Return what the tests of burning see of a minute: its requests, or the slice of time that ends with it."""
        if slo.sli.kind is not SliKind.TIME_SLICE:
            return counts
        held = self._slices.get(slo.slo_id, _NOTHING) + counts
        if (now + 1) % slo.sli.slice_minutes:
            self._slices[slo.slo_id] = held
            return _NOTHING
        self._slices.pop(slo.slo_id, None)
        if not held.total:
            return _NOTHING
        return _GOOD_SLICE if slice_is_good(slo.sli, held.total, held.bad) else _BAD_SLICE

    def standings(self, adjustments: Sequence[Adjustment] = ()) -> list[Standing]:
        """Say how every SLO stands after the last minute that was taken; empty before the first."""
        now = Minute(self.until - 1)
        if now < self._start:
            return []
        self._forget(now)
        budgets = {slo.slo_id: self._budget(slo, now, adjustments) for slo in self._simple}
        found = [self._standing(index, slo, now, budgets[slo.slo_id]) for index, slo in enumerate(self._simple)]
        composites = [slo for slo in self.slos if slo.subject.kind is SubjectKind.COMPOSITE]
        whole = {slo.slo_id: composite_of(slo, budgets) for slo in composites}
        self.budgets = {**budgets, **whole}
        return found + [standing_of(slo, now, whole[slo.slo_id], ()) for slo in composites]

    def _standing(self, index: int, slo: Slo, now: Minute, budget: Budget) -> Standing:
        state = dataclasses.replace(self._engine.state_of(index), budget=budget)
        decision: Decision = decide_slo(state, now)
        burns = {
            str(minutes): share / slo.budget_ratio
            for minutes in SHOWN_WINDOWS
            if minutes in state.windows and (share := state.windows[minutes].share) is not None
        }
        urgent = any(finding.kind in URGENT for finding in decision.findings)
        since = self._since.get(slo.slo_id, now) if urgent else None
        evidence = min(1.0, state.evidence), min(1.0, state.ticket_evidence)
        return standing_of(slo, now, budget, decision.findings, (burns, evidence, since))

    def _budget(self, slo: Slo, now: Minute, adjustments: Sequence[Adjustment]) -> Budget:
        return budget_of(slo, History(self._kept[slo.slo_id], self._start), now, adjustments)

    def _note_since(self, now: Minute) -> None:
        """Remember since when each SLO wakes somebody without a break."""
        awake = np.flatnonzero(self._engine.paging | self._engine.ticketing)
        names = {self._simple[int(index)].slo_id for index in awake}
        self._since = {name: self._since.get(name, now) for name in names}

    def _forget(self, now: Minute) -> None:
        """Drop minutes that no window reaches any more."""
        for slo in self._simple:
            kept = self._kept[slo.slo_id]
            first = bounds(slo.window, now)[0]
            while kept and (oldest := next(iter(kept))) < first:
                del kept[oldest]


def history_minutes(slos: Sequence[Slo]) -> int:
    """Return how far back counts are needed."""
    return max((longest_minutes(slo.window) for slo in slos), default=0)
