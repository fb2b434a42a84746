"""Composites, minute by minute: the weighted mean of their parts' shares of bad events, judged like any other SLO.

It decides what a mean of shares is worth as evidence; whether it burns, `decide` says, by the same ladder as for a
plain SLO. One bad request of a quiet part moves the mean far more than one of a busy part, so a window counts as no
more requests than if each bad one weighed as much as the heaviest does: bounds that hold for so many requests hold for
the mean. Called by `watching`, after the engine has taken the same minute.

The wager waits until every part that has traffic was seen again: each step is then a mean over the same parts, whatever
came in between. When it waits depends on what arrives, never on how it ends.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from forestay.slo.burn_rules import TICKET_EVERY_MINUTES, Severity
from forestay.slo.decide import Kind, Opened, Piece, SloState, Sums, decide_slo, pairs_of, stake_left
from forestay.slo.evidence import Bets, nothing_wagered, page_bets, stakes, ticket_bets, wager_on_mean
from forestay.slo.fleet import BUCKET_WINDOWS, MINUTE_WINDOWS, FleetEngine
from forestay.slo.model import Minute, Slo, SloId

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
_HOUR = 60
_NOTHING = Sums(0.0, 0.0)


def mean_of(weights: Floats, counts: Floats) -> Sums:
    """Return the mean of shares as bad ones of so many requests: `weights` `[m]`, `counts` `[2, m]` (bad, all).

    Parts without any take no side. The number is the least of W n / w over the parts, W being the sum of their weights:
    the mean is then a sum of terms in [0, 1], one for each request, divided by it.
    """
    seen = counts[1] > 0
    if not seen.any():
        return _NOTHING
    weight, bad, total = weights[seen], counts[0, seen], counts[1, seen]
    whole = weight.sum()
    worth = float((whole * total / weight).min())
    return Sums(float((weight * bad / total).sum() / whole) * worth, worth)


class _Wagers:
    """What is wagered against one composite, for one severity."""

    def __init__(self, bets: Bets) -> None:
        self.bets = bets
        self.wealth = nothing_wagered(bets)

    def step(self, stake: float, hourly: float, seen: Sums | None) -> None:
        """Stake, and settle where a mean was seen."""
        staked = stakes(self.bets, np.array([stake]), np.array([hourly]))
        found = _NOTHING if seen is None else seen
        wager_on_mean(self.wealth, self.bets, found.bad, found.total, staked)

    @property
    def evidence(self) -> float:
        """As a share of its goal."""
        return float(self.wealth.sum() / self.bets.goal[0])


@dataclasses.dataclass(slots=True)
class _Composite:
    """One composite and what is open of it."""

    slo: Slo
    which: Indices
    weights: Floats
    page: _Wagers
    ticket: _Wagers
    waiting: Floats
    opened: Opened = dataclasses.field(default_factory=Opened)
    last_seen: Minute | None = None


class Composites:
    """The composites of a fleet; parts that the engine does not have take no side."""

    def __init__(self, slos: Sequence[Slo], engine: FleetEngine) -> None:
        self._engine = engine
        places = {slo.slo_id: index for index, slo in enumerate(engine.slos)}
        self._all = [_made(slo, places) for slo in slos]

    def tick(self, now: Minute, counts: Floats) -> None:
        """Carry every composite over the minute `now`, which the engine has taken: `counts` are the engine's."""
        for one in self._all:
            self._carry(one, now, counts[:, one.which])

    def awake(self) -> list[Slo]:
        """Return those of which a page or a ticket is open."""
        return [one.slo for one in self._all if one.opened != Opened()]

    def state_of(self, index: int) -> SloState:
        """Return one composite as `decide_slo` reads it, with its parts; what is open is what was decided last."""
        one = self._all[index]
        pieces = [self._piece(one, place) for place in range(len(one.which))]
        state = _state(one, self._windows(one, on_five=True), on_five=True)
        return dataclasses.replace(state, parts=tuple(pieces))

    def _carry(self, one: _Composite, now: Minute, fresh: Floats) -> None:
        on_five = (now + 1) % TICKET_EVERY_MINUTES == 0
        live = ~self._engine.silent(now)[one.which]
        newest = int(self._engine.last_seen[one.which].max(initial=-1))
        one.last_seen = now if live.any() else Minute(newest) if newest >= 0 else None
        windows = self._windows(one, on_five=on_five)
        self._wager(one, windows, self._settled(one, fresh, live), on_five=on_five)
        before = one.opened
        decided = decide_slo(_state(one, windows, on_five=on_five), now)
        silent = any(finding.kind is Kind.NO_DATA for finding in decided.findings)
        one.opened = decided.opened if on_five or silent else _tickets_stay(decided.opened, before, one.slo)
        for proved, wagers in ((one.opened.evidence, one.page), (one.opened.ticket_evidence, one.ticket)):
            if proved:
                wagers.wealth[:] = 0.0

    def _settled(self, one: _Composite, fresh: Floats, live: npt.NDArray[np.bool_]) -> Sums | None:
        """Return the mean of what waited, once every part with traffic was seen; None until then."""
        one.waiting += fresh
        if not live.any() or not (one.waiting[1, live] > 0).all():
            return None
        found = mean_of(one.weights[live], one.waiting[:, live])
        one.waiting[:] = 0.0
        return found

    def _wager(self, one: _Composite, windows: dict[int, Sums], seen: Sums | None, *, on_five: bool) -> None:
        pairs = pairs_of(one.slo)
        one.page.step(max(0.0, stake_left(pairs, windows, Severity.PAGE)), windows[_HOUR].total, seen)
        slow = TICKET_EVERY_MINUTES * max(0.0, stake_left(pairs, windows, Severity.TICKET)) if on_five else 0.0
        one.ticket.step(slow, windows[2 * _HOUR].total / 2 if on_five else 0.0, seen)

    def _windows(self, one: _Composite, *, on_five: bool) -> dict[int, Sums]:
        engine = self._engine
        rings = [(engine.buckets, BUCKET_WINDOWS)] if on_five else []
        return {  # the minutes' own windows are the fresher ones
            minutes: mean_of(one.weights, ring.some(minutes, one.which))
            for ring, lengths in (*rings, (engine.minutes, MINUTE_WINDOWS))
            for minutes in lengths
        }

    def _piece(self, one: _Composite, place: int) -> Piece:
        windows = self._engine.state_of(int(one.which[place])).windows
        return Piece(self._engine.slos[int(one.which[place])].slo_id, float(one.weights[place]), windows)


def _state(one: _Composite, windows: dict[int, Sums], *, on_five: bool) -> SloState:
    opened = one.opened if on_five else dataclasses.replace(one.opened, ticket_evidence=False)
    page = 1.0 if opened.evidence else one.page.evidence
    ticket = 1.0 if opened.ticket_evidence else one.ticket.evidence if on_five else 0.0
    return SloState(one.slo, windows, page, ticket, opened, None, one.last_seen)


def _made(slo: Slo, places: Mapping[SloId, int]) -> _Composite:
    parts = [part for part in slo.parts if part.slo_id in places]
    which = np.array([places[part.slo_id] for part in parts], dtype=np.intp)
    weights = np.array([part.weight for part in parts], dtype=np.float64)
    budget, rate = [slo.budget_ratio], np.array([slo.alerting.false_pages_per_30_days])
    page, ticket = _Wagers(page_bets(budget, rate)), _Wagers(ticket_bets(budget, rate))
    return _Composite(slo, which, weights, page, ticket, np.zeros((2, len(parts))))


def _tickets_stay(decided: Opened, before: Opened, slo: Slo) -> Opened:
    """Tickets are looked at every fifth minute; in between, what is open stays."""
    tickets = {pair.name for pair in pairs_of(slo) if pair.severity is Severity.TICKET}
    return Opened(decided.evidence, before.ticket_evidence, decided.pairs | (before.pairs & tickets))
