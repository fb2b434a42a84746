"""Composites, minute by minute: the weighted mean of their parts' shares of bad events, judged like any other SLO.

It decides what a mean of shares is worth as evidence; whether it burns, `decide` says, by the same ladder as for a
plain SLO. One bad request of a quiet part moves the mean far more than one of a busy part, so a window counts as no
more requests than if each bad one weighed as much as the heaviest does: bounds that hold for so many requests hold for
the mean. Called by `watching`, after the engine has taken the same minute.

The wager waits until every part that has traffic was seen again: each step is then a mean over the same parts, whatever
came in between. When it waits depends on what arrives, never on how it ends.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from forestay.slo.burn_rules import TICKET_EVERY_MINUTES, Severity
from forestay.slo.decide import ENOUGH, Kind, Opened, Piece, SloState, Sums, decide_slo, pairs_of, stake_left
from forestay.slo.evidence import Bets, nothing_wagered, page_bets, stakes, ticket_bets, wager_on_mean
from forestay.slo.fleet import BUCKET_WINDOWS, MINUTE_WINDOWS, FleetEngine
from forestay.slo.model import Minute, Slo

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Windows = dict[int, Sums]
_HOUR = 60
_CLOSED = Opened()
_JUST_BELOW = 1.0 - 1e-9  # of a threshold: what comes this near is divided


@dataclasses.dataclass(frozen=True, slots=True)
class _Held:
    """What the windows of c composites hold, `[w, c]` each."""

    lengths: tuple[int, ...]
    bad: Floats
    worth: Floats

    def of(self, index: int) -> Windows:
        """Return one composite's; of two windows of one length the later stands."""
        both = zip(self.bad[:, index].tolist(), self.worth[:, index].tolist(), strict=True)
        return {minutes: Sums(*pair) for minutes, pair in zip(self.lengths, both, strict=True)}


class PartTable:
    """The parts of c composites one after another: m in all, each with its weight; every composite has at least one."""

    def __init__(self, parts: Sequence[Sequence[tuple[int, float]]]) -> None:
        """Take places in the engine and weights; a weight of 0 takes no side."""
        flat = [pair for some in parts for pair in some]
        self.which = np.array([place for place, _ in flat], dtype=np.intp)
        self.weights = np.array([weight for _, weight in flat], dtype=np.float64)
        self.owner = np.repeat(np.arange(len(parts)), [len(some) for some in parts])
        self.starts = np.searchsorted(self.owner, np.arange(len(parts)))

    def means(self, counts: Floats) -> tuple[Floats, Floats]:
        """Return means of shares as bad ones of so many requests, `[w, c]` each: `counts` `[w, 2, m]` (bad, all).

        Parts without any take no side. The number is the least of W n / w over the parts, W being the sum of their
        weights: the mean is then a sum of terms in [0, 1], one for each request, divided by it.
        """
        bad, total = counts[:, 0], counts[:, 1]
        seen = (total > 0) & (self.weights > 0)
        weights = np.where(seen, self.weights, 1.0)
        whole = np.add.reduceat(np.where(seen, weights, 0.0), self.starts, axis=1)
        harm = np.add.reduceat(np.where(seen, weights * bad / np.maximum(total, 1.0), 0.0), self.starts, axis=1)
        least = np.minimum.reduceat(np.where(seen, total / weights, np.inf), self.starts, axis=1)
        least[whole == 0.0] = 0.0
        return harm * least, whole * least  # the share is harm / whole


class _Wagers:
    """What is wagered against c composites, for one severity."""

    def __init__(self, slos: Sequence[Slo], bets: Bets, severity: Severity) -> None:
        self._slos = slos
        self.bets = bets
        self._severity = severity
        self._wealth = nothing_wagered(bets)
        self._staked = np.zeros_like(self._wealth)
        self.evidence = np.zeros(len(slos))

    def stake(self, windows: Sequence[Windows], step_minutes: int, hourly: Floats) -> None:
        """Settle what each step wagers until the traffic is looked at again."""
        left = [stake_left(pairs_of(slo), held, self._severity) for slo, held in zip(self._slos, windows, strict=True)]
        self._staked = stakes(self.bets, step_minutes * np.maximum(np.array(left), 0.0), hourly)

    def step(self, bad: Floats, worth: Floats, *, staked: bool) -> None:
        """Carry everything over what was seen of means, `[c]` each, and over a new stake."""
        new = self._staked if staked else np.zeros_like(self._staked)
        self.evidence = wager_on_mean(self._wealth, self.bets, bad, worth, new) / self.bets.goal

    def spent(self, which: Flags) -> None:
        """Begin anew where evidence has opened something."""
        self._wealth[:, which] = 0.0
        self.evidence[which] = 1.0


class Composites:
    """The composites of a fleet; parts that the engine does not have take no side."""

    def __init__(self, slos: Sequence[Slo], engine: FleetEngine) -> None:
        self._engine = engine
        self._slos = tuple(slos)
        places = {slo.slo_id: index for index, slo in enumerate(engine.slos)}
        nobody = [(0, 0.0)]
        known = [[(places[part.slo_id], part.weight) for part in slo.parts if part.slo_id in places] for slo in slos]
        self._parts = PartTable([parts or nobody for parts in known])
        budget = np.array([slo.budget_ratio for slo in self._slos])
        rates = np.array([slo.alerting.false_pages_per_30_days for slo in self._slos])
        self._page = _Wagers(self._slos, page_bets(budget, rates), Severity.PAGE)
        self._ticket = _Wagers(self._slos, ticket_bets(budget, rates), Severity.TICKET)
        self._waiting = np.zeros((2, len(self._parts.which)))
        self._least = _least_thresholds(self._slos)
        self._opened = [_CLOSED] * len(self._slos)
        self._last_seen = np.full(len(self._slos), -1, dtype=np.int64)

    def tick(self, now: Minute, counts: Floats) -> None:
        """Carry every composite over the minute `now`, which the engine has taken: `counts` are the engine's."""
        if not self._slos or not self._engine.count:
            return
        on_five = (now + 1) % TICKET_EVERY_MINUTES == 0
        parts = self._parts
        live = ~self._engine.silent(now)[parts.which] & (parts.weights > 0)
        some = np.logical_or.reduceat(live, parts.starts)
        newest = np.maximum.reduceat(np.where(parts.weights > 0, self._engine.last_seen[parts.which], -1), parts.starts)
        self._last_seen = np.where(some, now, newest)
        held = self._windows(on_five=on_five)
        bad, worth = self._settled(counts, live, some)
        if on_five or now % TICKET_EVERY_MINUTES == 0:
            windows = [held.of(index) for index in range(len(self._slos))]
            if on_five:
                hourly = np.array([one[120].total / 2 for one in windows])
                self._ticket.stake(windows, TICKET_EVERY_MINUTES, hourly)
            else:
                self._page.stake(windows, 1, np.array([one[_HOUR].total for one in windows]))
        self._page.step(bad, worth, staked=True)
        self._ticket.step(bad, worth, staked=on_five)
        for index in np.flatnonzero(self._stirs(held)).tolist():
            self._opened[index] = self._decided(index, held.of(index), now, on_five=on_five)
        self._page.spent(np.array([one.evidence for one in self._opened]))
        self._ticket.spent(np.array([one.ticket_evidence for one in self._opened]))

    def fixed(self) -> tuple[object, ...]:
        """Return what no tick changes: what need not be saved."""
        return (self._slos, self._parts, self._least, self._page.bets, self._ticket.bets)

    def awake(self) -> list[Slo]:
        """Return those of which a page or a ticket is open."""
        return [slo for slo, opened in zip(self._slos, self._opened, strict=True) if opened != _CLOSED]

    @property
    def opened(self) -> tuple[Opened, ...]:
        """What is open of each, in the order in which they were given."""
        return tuple(self._opened)

    def states(self) -> list[SloState]:
        """Return every composite as `decide_slo` reads it, with its parts; what is open is what was decided last."""
        if not self._slos:
            return []
        if not self._engine.count:
            return [SloState(slo, dict.fromkeys(MINUTE_WINDOWS, Sums(0, 0)), 0.0) for slo in self._slos]
        parts, pieces = self._parts, [list[Piece]() for _ in self._slos]
        seen = {int(place): self._engine.state_of(int(place)) for place in np.unique(parts.which)}
        for place, weight, owner in zip(
            parts.which.tolist(), parts.weights.tolist(), parts.owner.tolist(), strict=True
        ):
            if weight > 0:
                pieces[owner].append(Piece(seen[place].slo.slo_id, weight, seen[place].windows))
        held = self._windows(on_five=True)
        states = [
            self._state(index, held.of(index), self._opened[index], on_five=True) for index in range(len(self._slos))
        ]
        return [dataclasses.replace(state, parts=tuple(some)) for state, some in zip(states, pieces, strict=True)]

    def _settled(self, counts: Floats, live: Flags, some: Flags) -> tuple[Floats, Floats]:
        """Return the means of what waited where every part with traffic was seen; nothing elsewhere, `[c]` each."""
        parts = self._parts
        self._waiting += counts[:, parts.which]
        ready = some & np.logical_and.reduceat(~live | (self._waiting[1] > 0), parts.starts)
        bad, worth = (found[0] for found in parts.means(np.where(live, self._waiting, 0.0)[None]))
        self._waiting[:, ready[parts.owner]] = 0.0
        return np.where(ready, bad, 0.0), np.where(ready, worth, 0.0)

    def _stirs(self, held: _Held) -> Flags:
        """Return `[c]`: something is open, evidence is sure, or a long window is not clearly below its threshold.

        Of the others no rung of the ladder says anything.
        """
        found = np.array([one != _CLOSED for one in self._opened])
        found |= np.maximum(self._page.evidence, self._ticket.evidence) >= ENOUGH
        for minutes, bad, worth in zip(held.lengths, held.bad, held.worth, strict=True):
            if minutes in self._least:
                found |= bad > self._least[minutes] * _JUST_BELOW * worth
        return found

    def _decided(self, index: int, windows: Windows, now: Minute, *, on_five: bool) -> Opened:
        """Return what is open after a minute; tickets are looked at every fifth, in between what is open stays."""
        before, slo = self._opened[index], self._slos[index]
        opened = before if on_five else dataclasses.replace(before, ticket_evidence=False)
        decided = decide_slo(self._state(index, windows, opened, on_five=on_five), now)
        if on_five or any(finding.kind is Kind.NO_DATA for finding in decided.findings):
            return decided.opened
        tickets = {pair.name for pair in pairs_of(slo) if pair.severity is Severity.TICKET}
        return Opened(decided.opened.evidence, before.ticket_evidence, decided.opened.pairs | (before.pairs & tickets))

    def _state(self, index: int, windows: Windows, opened: Opened, *, on_five: bool) -> SloState:
        seen = int(self._last_seen[index])
        return SloState(
            self._slos[index],
            windows,
            float(self._page.evidence[index]),
            float(self._ticket.evidence[index]) if on_five else 0.0,
            opened,
            None,
            Minute(seen) if seen >= 0 else None,
        )

    def _windows(self, *, on_five: bool) -> _Held:
        """Return the windows of every composite; the minutes' own come last, since they are the fresher ones."""
        engine = self._engine
        rings = [(engine.buckets, BUCKET_WINDOWS)] if on_five else []
        asked = [(ring, minutes) for ring, lengths in (*rings, (engine.minutes, MINUTE_WINDOWS)) for minutes in lengths]
        bad, worth = self._parts.means(np.stack([ring.some(minutes, self._parts.which) for ring, minutes in asked]))
        return _Held(tuple(minutes for _, minutes in asked), bad, worth)


def _least_thresholds(slos: Sequence[Slo]) -> dict[int, Floats]:
    """Return by long window, in minutes, the share `[c]` above which it may burn; 2 where no pair of an SLO has it."""
    found: dict[int, Floats] = {}
    for index, slo in enumerate(slos):
        for pair in pairs_of(slo):
            least = found.setdefault(pair.long_minutes, np.full(len(slos), 2.0))
            least[index] = min(least[index], pair.threshold)
    return found
