"""Carries a fleet's SLOs over minutes of counts, one after another, and says how each stands. No I/O.

It decides when what woke somebody began; what wakes them, `decide` says, and the budgets are `budget`'s. Minutes come
in order and each once; who has changed minutes goes back to before them (`back_to`), or starts anew. Called by `loop`.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence

import msgspec

from forestay.slo.budget import (
    Adjustment,
    Budget,
    History,
    budget_of,
    composite_of,
    minutes_to_empty,
)
from forestay.slo.carried import SAVED, SAVED_EVERY_MINUTES, Carried
from forestay.slo.decide import Decision, SloState, decide_slo
from forestay.slo.model import Counts, Minute, Slo, SloId, SubjectKind
from forestay.slo.standing import URGENT, PartStanding, Standing, standing_of
from forestay.slo.windows import bounds, longest_minutes

SHOWN_WINDOWS = (5, 60, 360, 4320)
MinuteCounts = Mapping[SloId, Counts]


class Watching:
    """The SLOs of a fleet and what was seen of them from `start` on."""

    def __init__(self, slos: Sequence[Slo], start: Minute, evidence_from: Minute) -> None:
        """Budgets count from `start`; tests of burning see minutes from `evidence_from` on."""
        self.slos = tuple(slos)
        self.until = start  # the first minute that has not been taken
        self.start = start
        self._evidence_from = evidence_from
        self._simple = [slo for slo in self.slos if slo.subject.kind is not SubjectKind.COMPOSITE]
        whole = [slo for slo in self.slos if slo.subject.kind is SubjectKind.COMPOSITE]
        self._carried = Carried(self._simple, whole)
        self._saved = collections.deque[tuple[Minute, Carried]](maxlen=SAVED)  # before which minute, and what was then
        self._kept: dict[SloId, dict[Minute, Counts]] = {slo.slo_id: {} for slo in self._simple}
        self.budgets: dict[SloId, Budget] = {}  # of every SLO, as of the last standings

    def take(self, seen: MinuteCounts) -> None:
        """Take the next minute: the counts of those SLOs that had any."""
        now = self.until
        seen = self._carried.settled(seen, now)
        for slo_id, counts in seen.items():
            if slo_id in self._kept:
                self._kept[slo_id][now] = counts
        if now >= self._evidence_from:
            self._carried.tick(seen, now)
        self.until = Minute(now + 1)
        if now >= self._evidence_from and self.until % SAVED_EVERY_MINUTES == 0:
            self._saved.append((self.until, self._carried.saved()))

    def back_to(self, minute: Minute) -> bool:
        """Go back to `minute`, or a little before it, so that it is taken again; False where that is too long ago."""
        while self._saved and self._saved[-1][0] > minute:
            self._saved.pop()
        if not self._saved:
            return False
        before, saved = self._saved[-1]
        self._carried.rewind(self.until, before)
        self._carried = saved.saved()
        for kept in self._kept.values():
            while kept and next(reversed(kept)) >= before:
                kept.popitem()
        self.until = before
        return True

    def standings(self, adjustments: Sequence[Adjustment] = ()) -> list[Standing]:
        """Say how every SLO stands after the last minute that was taken; empty before the first."""
        now = Minute(self.until - 1)
        if now < self.start:
            return []
        self._forget(now)
        budgets = {slo.slo_id: self._budget(slo, now, adjustments) for slo in self._simple}
        states = [self._carried.engine.state_of(at) for at in range(len(self._simple))]
        found = [self._standing(state, now, budgets[state.slo.slo_id]) for state in states]
        for state in self._carried.composites.states():
            slo = state.slo
            budgets[slo.slo_id] = _with_pace(composite_of(slo, budgets), slo, state)
            standing = self._standing(state, now, budgets[slo.slo_id])
            found.append(msgspec.structs.replace(standing, parts=_parts_of(slo, budgets)))
        self.budgets = budgets
        return found

    def _standing(self, state: SloState, now: Minute, budget: Budget) -> Standing:
        slo, state = state.slo, dataclasses.replace(state, budget=budget)
        decision: Decision = decide_slo(state, now)
        burns = {
            str(minutes): share / slo.budget_ratio
            for minutes in SHOWN_WINDOWS
            if minutes in state.windows and (share := state.windows[minutes].share) is not None
        }
        urgent = any(finding.kind in URGENT for finding in decision.findings)
        since = self._carried.since.get(slo.slo_id, now) if urgent else None
        evidence = min(1.0, state.evidence), min(1.0, state.ticket_evidence)
        return standing_of(slo, now, budget, decision.findings, (burns, evidence, since))

    def _budget(self, slo: Slo, now: Minute, adjustments: Sequence[Adjustment]) -> Budget:
        return budget_of(slo, History(self._kept[slo.slo_id], self.start), now, adjustments)

    def _forget(self, now: Minute) -> None:
        """Drop minutes that no window reaches any more."""
        for slo in self._simple:
            kept = self._kept[slo.slo_id]
            first = bounds(slo.window, now)[0]
            while kept and (oldest := next(iter(kept))) < first:
                del kept[oldest]


def _with_pace(budget: Budget, slo: Slo, state: SloState) -> Budget:
    """Add when a composite's budget will be gone, at the pace of the last hour."""
    share = state.windows[60].share
    if share is None or budget.events == 0:
        return budget
    empty = minutes_to_empty(budget.left_ratio, share / slo.budget_ratio, longest_minutes(slo.window))
    return dataclasses.replace(budget, minutes_to_empty=empty)


def _parts_of(slo: Slo, budgets: Mapping[SloId, Budget]) -> list[PartStanding]:
    """Return what each part does to a composite, the most hurtful first."""
    known = [(part, budgets[part.slo_id]) for part in slo.parts if part.slo_id in budgets]
    harm = {part.slo_id: part.weight * budget.bad / budget.events if budget.events else 0.0 for part, budget in known}
    whole = sum(harm.values())
    parts = [
        PartStanding(part.slo_id, part.weight, harm[part.slo_id] / whole if whole else 0.0, budget.events, budget.bad)
        for part, budget in known
    ]
    return sorted(parts, key=lambda part: (-part.harm_ratio, part.slo_id))


def history_minutes(slos: Sequence[Slo]) -> int:
    """Return how far back counts are needed."""
    return max((longest_minutes(slo.window) for slo in slos), default=0)
