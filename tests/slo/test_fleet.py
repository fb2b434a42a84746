"""The fleet's engine decides what the decision for one SLO decides."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.slo.objectives import slo

from forestay.slo.decide import Decision, Kind, Opened, SloState, decide_slo
from forestay.slo.fleet import FleetEngine, WindowRing
from forestay.slo.model import Minute, Window

FLEET = (slo(), slo(0.99), slo(0.9), slo(0.9999), slo(0.5), slo(0.999, Window(minutes=7 * 1440)), slo(0.95))


@given(steps=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=60))
def test_running_sums_are_sums_of_what_is_in_the_window(steps: list[tuple[int, int]]) -> None:
    """Whatever comes, each window holds its last minutes and nothing else."""
    ring = WindowRing(1, 1, (1, 5, 30))
    for number, (bad, total) in enumerate(steps, start=1):
        ring.add(np.array([[bad], [total]], dtype=np.float64))
        for minutes in ring.windows:
            inside = steps[max(0, number - minutes) : number]
            expected = [sum(pair[place] for pair in inside) for place in (0, 1)]
            assert ring[minutes][:, 0].tolist() == ring.some(minutes, np.array([0]))[:, 0].tolist() == expected


def as_read(seen: SloState, opened: Opened, *, on_five: bool) -> SloState:
    """Return what the decision reads: what was open before, and tickets only every fifth minute."""
    if on_five:
        return dataclasses.replace(seen, opened=opened)
    windows = {minutes: sums for minutes, sums in seen.windows.items() if minutes in {1, 5, 30, 60, 360}}
    return dataclasses.replace(
        seen, windows=windows, ticket_evidence=0.0, opened=dataclasses.replace(opened, ticket_evidence=False)
    )


def opened_after(decision: Decision, before: Opened, *, on_five: bool) -> Opened:
    """Return what is open: tickets stand still between their minutes."""
    if on_five:
        return decision.opened
    tickets = before.pairs & {"day", "three_days"}
    return Opened(decision.opened.evidence, before.ticket_evidence, decision.opened.pairs | tickets)


def play(seed: int, minutes: int) -> None:
    """Run the engine and, minute by minute, the decision for each SLO with what was open before; compare."""
    chance = np.random.default_rng(seed)
    engine = FleetEngine(FLEET)
    hourly = chance.choice([6, 30, 120, 360, 3_000], len(FLEET))
    opened = [Opened()] * len(FLEET)
    spoken = 0
    for minute in range(minutes):
        harm = engine.budget * (60 if minutes // 3 <= minute <= 2 * minutes // 3 else 0.5)
        total = chance.poisson(hourly / 60)
        bad = chance.binomial(total, np.minimum(harm, 0.97))
        engine.tick(Minute(minute), np.stack([bad, total]).astype(np.float64))
        on_five = (minute + 1) % 5 == 0
        for index, before in enumerate(opened):
            seen = engine.state_of(index)
            decision = decide_slo(as_read(seen, before, on_five=on_five), Minute(minute))
            found = {finding.kind for finding in decision.findings}
            opened[index] = opened_after(decision, before, on_five=on_five or Kind.NO_DATA in found)
            assert (Kind.PAGE in found) == engine.paging[index], (minute, index)
            assert (Kind.TICKET in found) == engine.ticketing[index] or not on_five, (minute, index)
            spoken += len(found - {Kind.NO_DATA})
    assert spoken > 0


@pytest.mark.parametrize("seed", [1, 2])  # a seed plays 4,200 decisions; a failure names its minute
def test_the_engine_and_the_decision_agree_in_every_minute(seed: int) -> None:
    """Pages and tickets of the arrays are those of the ladder, through harm and recovery."""
    play(seed, 600)


def test_what_was_paged_is_told_in_words() -> None:
    """The state of an SLO that pages gives a page with its reason."""
    engine = FleetEngine([slo(0.99)])
    for minute in range(120):
        engine.tick(Minute(minute), np.array([[2.0 if minute > 90 else 0.0], [4.0]]))
    assert engine.paging[0]
    [page, *_] = decide_slo(engine.state_of(0), Minute(119)).findings
    assert page.kind is Kind.PAGE
    assert "model acme/digits" in page.reason
