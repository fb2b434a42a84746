"""Composites burn when the mean of their parts does, and say by whom they are hurt."""

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.slo.objectives import slo

from forestay.slo.composite import Composites, PartTable
from forestay.slo.decide import Kind, Sums
from forestay.slo.evidence import page_bets, wager_on_mean
from forestay.slo.fleet import FleetEngine
from forestay.slo.model import Counts, Minute, Part, Slo, SloId, Subject, SubjectKind
from forestay.slo.standing import Standing
from forestay.slo.watching import Watching

START = 29_000_000
BUSY, THIN, WHOLE = SloId("busy"), SloId("thin"), SloId("whole")
Traffic = dict[SloId, Counts]


def fleet(busy_weight: float = 1.0, thin_weight: float = 1.0) -> list[Slo]:
    """Return two plain SLOs of 99.9 % and a composite of them."""
    plain = [dataclasses.replace(slo(), slo_id=name) for name in (BUSY, THIN)]
    parts = Part(BUSY, busy_weight), Part(THIN, thin_weight)
    return [*plain, dataclasses.replace(slo(), slo_id=WHOLE, subject=Subject(SubjectKind.COMPOSITE), parts=parts)]


def lived(slos: list[Slo], stretches: list[tuple[int, Traffic]]) -> dict[str, Standing]:
    """Return how SLOs stand after stretches of minutes, each with what every one of its minutes held."""
    watching = Watching(slos, Minute(START), Minute(START))
    for length, traffic in stretches:
        for _ in range(length):
            watching.take(traffic)
    return {standing.slo_id: standing for standing in watching.standings()}


def mean_of(weights: Sequence[float], counts: Sequence[Sequence[float]]) -> Sums:
    """Return the mean of parts in one window: bad and all of each."""
    table = PartTable([list(enumerate(weights))])
    bad, worth = table.means(np.array([counts], dtype=np.float64))
    return Sums(float(bad[0, 0]), float(worth[0, 0]))


def of(good: int, bad: int = 0) -> Counts:
    """Return a minute."""
    return Counts(good=good, bad=bad)


CALM: Traffic = {BUSY: of(50), THIN: of(50)}


@given(
    weights=st.lists(st.floats(0.01, 100.0), min_size=2, max_size=5),
    counts=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=5, max_size=5),
)
def test_a_mean_is_that_of_shares_and_worth_no_more_than_the_heaviest_request_allows(
    weights: list[float], counts: list[tuple[int, int]]
) -> None:
    """Each bad request moves the mean by at most 1 / worth; parts without any take no side."""
    held = np.array([[min(bad, total), total] for bad, total in counts[: len(weights)]], dtype=np.float64).T
    found = mean_of(weights, held.tolist())
    seen = [(weight, *pair) for weight, pair in zip(weights, held.T.tolist(), strict=True) if pair[1]]
    if not seen:
        assert (found.bad, found.total) == (0.0, 0.0)
        return
    whole = sum(weight for weight, _, _ in seen)
    assert found.share == pytest.approx(sum(weight * bad / total for weight, bad, total in seen) / whole)
    assert found.total == pytest.approx(min(whole * total / weight for weight, _, total in seen))
    assert found.total <= sum(total for _, _, total in seen) * (1 + 1e-9)


def test_the_mean_of_one_part_is_its_own_count() -> None:
    """Nothing is gained or lost by wrapping an SLO."""
    found = mean_of([7.0], [[3.0], [40.0]])
    assert (found.bad, found.total) == pytest.approx((3.0, 40.0))


@given(
    budget=st.floats(1e-4, 0.4),
    weights=st.tuples(st.floats(0.05, 20.0), st.floats(0.05, 20.0)),
    totals=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    split=st.floats(0.0, 1.0),
    held=st.lists(st.floats(0.0, 300_000.0), min_size=4, max_size=4),
)
def test_a_wager_on_a_mean_is_never_better_than_fair_within_the_budget(
    budget: float, weights: tuple[float, float], totals: tuple[int, int], split: float, held: list[float]
) -> None:
    """However the harm is split over parts, over weights and over requests: summed up over everything that may come."""
    whole = sum(weights)
    rates = [min(1.0, part * budget * whole / weight) for part, weight in zip((split, 1 - split), weights, strict=True)]
    bets, wealth, expected = page_bets([budget]), np.array(held)[:, None], list[float]()
    for bad in itertools.product(*(range(total + 1) for total in totals)):
        chance = math.prod(
            math.comb(total, one) * rate**one * (1 - rate) ** (total - one)
            for one, total, rate in zip(bad, totals, rates, strict=True)
        )
        seen = mean_of(weights, [bad, totals])
        after = wager_on_mean(wealth.copy(), bets, np.array([seen.bad]), np.array([seen.total]), np.zeros_like(wealth))
        expected.append(chance * float(after[0]))
    assert math.fsum(expected) <= wealth.sum() * (1 + 1e-9)


def test_a_composite_burns_by_its_busy_parts_outage_and_names_it() -> None:
    """With whom it hurts, how much of the harm each part is, since when, and how long the budget lasts."""
    found = lived(fleet(), [(360, CALM), (12, {BUSY: of(20, 30), THIN: of(50)})])
    whole = found[WHOLE]
    assert whole.urgent is not None
    assert whole.word == Kind.PAGE
    assert "It is hurt by busy (100%: " in whole.urgent.reason
    assert "whole (composite): by the weights of its parts " in whole.urgent.reason
    assert whole.since is not None
    assert START + 360 <= whole.since < START + 372
    assert [part.slo_id for part in whole.parts] == [BUSY, THIN]
    assert [part.harm_ratio for part in whole.parts] == pytest.approx([1.0, 0.0])
    assert whole.burns["60"] == pytest.approx(found[BUSY].burns["60"] / 2)
    assert whole.left_ratio is not None
    assert whole.left_ratio < 0


def test_parts_that_each_stay_below_a_page_of_their_own_never_make_a_page_together() -> None:
    """A mean is no sum: what none of them burns, the composite does not burn either."""
    found = lived(fleet(), [(360, CALM), (300, {BUSY: of(4_990, 10), THIN: of(4_990, 10)})])
    assert {standing.word for standing in found.values()} <= {"kept", "ticket"}


def test_one_bad_request_of_a_thin_part_is_no_page() -> None:
    """It moves the mean as much as many of the busy part: the mean is worth so much less."""
    hour = [(1, {BUSY: of(50), THIN: of(1)}), (9, {BUSY: of(50)})] * 40
    found = lived(fleet(), [*hour, (1, {BUSY: of(50), THIN: of(0, 1)})])
    assert found[WHOLE].word == Kind.HELD
    assert "At this traffic the rule" in found[WHOLE].findings[0].reason


def test_thin_parts_that_fail_for_long_are_proved_by_evidence() -> None:
    """One request in ten minutes each, all of them bad."""
    calm = [(1, {BUSY: of(1), THIN: of(1)}), (9, dict[SloId, Counts]())] * 36
    bad = [(1, {BUSY: of(0, 1), THIN: of(0, 1)}), (9, dict[SloId, Counts]())] * 8
    found = lived(fleet(), [*calm, *bad])[WHOLE]
    assert found.urgent is not None
    assert "evidence" in found.urgent.rules


def test_parts_that_are_busy_at_other_times_are_judged_together() -> None:
    """By turns half an hour each, one far beyond the budget and one far within it: their mean is within."""
    *plain, whole = (dataclasses.replace(one, objective=0.5) for one in fleet())
    engine = FleetEngine(plain)
    composites = Composites([whole], engine)
    for minute in range(390):
        counts = np.array([[8.0, 0.0], [10.0, 0.0]] if minute // 30 % 2 else [[0.0, 1.0], [0.0, 10.0]])
        engine.tick(Minute(START + minute), counts)
        composites.tick(Minute(START + minute), counts)
        assert composites.awake() == [], minute


def test_weights_decide_how_much_a_part_hurts() -> None:
    """The same outage in a part that weighs little is no page of the whole."""
    outage = [(360, CALM), (12, {BUSY: of(40, 10), THIN: of(50)})]
    assert lived(fleet(100.0, 1.0), outage)[WHOLE].word == Kind.PAGE
    assert lived(fleet(1.0, 100.0), outage)[WHOLE].word != Kind.PAGE


def test_a_composite_is_over_when_its_parts_are() -> None:
    """And where no part is seen any more, nothing is claimed."""
    outage = [(360, CALM), (12, {BUSY: of(20, 30), THIN: of(50)})]
    assert lived(fleet(), [*outage, (420, CALM)])[WHOLE].word in {"kept", "ticket"}
    silent = lived(fleet(), [*outage, (61, dict[SloId, Counts]())])[WHOLE]
    assert silent.word == Kind.NO_DATA


def test_a_composite_none_of_whose_parts_is_watched_has_no_data() -> None:
    """Alone, and beside SLOs that are watched."""
    orphan = dataclasses.replace(fleet()[2], parts=(Part(SloId("gone")),))
    for slos in ([orphan], [fleet()[0], orphan]):
        found = lived(slos, [(10, {BUSY: of(0, 50)})])[WHOLE]
        assert (found.word, found.parts, found.left_ratio) == (Kind.NO_DATA, [], None)


def test_a_part_that_nobody_watches_takes_no_side() -> None:
    """Its weight is left out, as in the budget."""
    orphan = dataclasses.replace(fleet()[2], parts=(Part(BUSY), Part(SloId("gone"), 9.0)))
    found = lived([fleet()[0], orphan], [(360, {BUSY: of(50)}), (12, {BUSY: of(20, 30)})])
    assert found[WHOLE].word == Kind.PAGE
    assert [part.slo_id for part in found[WHOLE].parts] == [BUSY]


class Thorough(Composites):
    """Composites of which each is looked at by itself in every minute."""

    def _stirs(self, held: object) -> npt.NDArray[np.bool_]:
        del held
        return np.ones(len(self.opened), dtype=np.bool_)


@settings(max_examples=2)
@given(st.integers(0, 2**32), st.floats(0.01, 0.3))
def test_a_composite_that_is_passed_over_would_have_said_nothing(seed: int, harm: float) -> None:
    """Only those of which something is open or near its threshold are looked at one by one."""
    chance = np.random.default_rng(seed)
    *plain, whole = fleet(1.0, 3.0)
    engine = FleetEngine(plain)
    quick, thorough = Composites([whole], engine), Thorough([whole], engine)
    hurts = (chance.random((15, 2)) < 0.3).repeat(20, axis=0)
    for minute in range(300):
        total = chance.poisson([20.0, 3.0])
        counts = np.stack([chance.binomial(total, np.where(hurts[minute], harm, 0.0005)), total]).astype(np.float64)
        engine.tick(Minute(START + minute), counts)
        for one in (quick, thorough):
            one.tick(Minute(START + minute), counts)
        assert quick.opened == thorough.opened, minute
