"""The evidence test: fair wagers, a goal, and nothing put at risk beyond it."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.slo.evidence import Bets, Floats, nothing_wagered, page_bets, stakes, ticket_bets, wager


def after(wealth: Floats, bets: Bets, bad: int, total: int) -> float:
    """Return the wealth in sum after a minute without a new stake."""
    held = wealth.copy()
    return float(wager(held, bets, np.array([float(bad)]), np.array([float(total)]), np.zeros_like(held))[0])


@given(
    budget=st.floats(1e-5, 0.6),
    true=st.floats(0.0, 1.0),
    total=st.integers(1, 12),
    held=st.lists(st.floats(0.0, 300_000.0), min_size=4, max_size=4),
)
def test_a_wager_is_never_better_than_fair_within_the_budget(
    budget: float, true: float, total: int, held: list[float]
) -> None:
    """Whatever is held, at an error rate within the budget no minute's expectation is above what was held."""
    bets = page_bets([budget])
    wealth = np.array(held)[:, None]
    rate = true * budget
    expected = math.fsum(
        math.comb(total, bad) * rate**bad * (1 - rate) ** (total - bad) * after(wealth, bets, bad, total)
        for bad in range(total + 1)
    )
    assert expected <= wealth.sum() * (1 + 1e-9)


@given(held=st.lists(st.floats(0.0, 400_000.0), min_size=4, max_size=4), total=st.integers(1, 30))
def test_one_bad_request_is_enough_where_it_can_be(held: list[float], total: int) -> None:
    """Risking less than all never keeps a page back that risking all would have opened."""
    bets = page_bets([0.001])
    wealth = np.array(held)[:, None]
    bold = float((wealth * np.exp(bets.log_win + bets.log_lose * (total - 1))).sum())
    if bold >= bets.goal[0]:
        assert after(wealth, bets, 1, total) >= bets.goal[0] * (1 - 1e-9)


def test_risking_less_near_the_goal_loses_less() -> None:
    """A good request costs next to nothing where little more is needed."""
    bets = page_bets([0.001])
    wealth = np.full((4, 1), 107_000.0)
    assert after(wealth, bets, 0, 1) > 0.999 * wealth.sum()


@pytest.mark.parametrize("budget", [1e-5, 0.001, 0.05, 0.3, 0.9])
def test_every_bet_is_on_an_error_rate_above_the_budget_and_below_certainty(budget: float) -> None:
    """Rates lie in [0, 1 / budget), so no wealth becomes negative."""
    for bets in (page_bets([budget]), ticket_bets([budget])):
        assert (bets.rates > 0).all()
        assert (bets.rates * budget < 1).all()
        assert np.isfinite(bets.log_lose).all()
        assert bets.thin.sum() == pytest.approx(1.0)
        assert bets.busy.sum() == pytest.approx(1.0)


def test_a_minute_stakes_no_more_than_it_may() -> None:
    """However the stake is spread, in sum it is what was allowed."""
    bets = page_bets([0.001, 0.001])
    spread = stakes(bets, np.array([1.0, 0.25]), np.array([30.0, 30_000.0]))
    assert spread.sum(axis=0) == pytest.approx([1.0, 0.25])


def test_pages_by_chance_stay_within_what_is_promised() -> None:
    """At an error rate of the whole budget: 400 services, two days each, 60 requests an hour.

    The goal is lowered for more events: 30 pages in 30 days are promised, so two each, with the standard error on top.
    """
    services, minutes, promised = 400, 2_880, 30.0
    bets = page_bets(np.full(services, 0.001), promised)
    wealth, chance, pages = nothing_wagered(bets), np.random.default_rng(5), 0
    staked = stakes(bets, np.ones(services), np.full(services, 60.0))
    for _ in range(minutes):
        total = chance.poisson(1.0, services).astype(np.float64)
        sums = wager(wealth, bets, chance.binomial(total.astype(np.int64), 0.001).astype(np.float64), total, staked)
        sure = sums >= bets.goal * (1 - 1e-9)
        pages += int(sure.sum())
        wealth[:, sure] = 0.0
    allowed = promised * minutes / 43_200 * services
    assert pages <= allowed + 3 * math.sqrt(allowed)
    assert pages > 0.3 * allowed  # the promise is not kept by never paging


def test_the_order_of_slos_changes_nothing() -> None:
    """Each SLO's evidence is its own."""
    budgets = [0.001, 0.01, 0.1]
    bad, total = np.array([1.0, 0.0, 3.0]), np.array([2.0, 5.0, 9.0])
    sums: dict[int, float] = {}
    for order in itertools.permutations(range(3)):
        bets = page_bets([budgets[index] for index in order])
        wealth = np.ones_like(bets.rates)
        found = wager(wealth, bets, bad[list(order)], total[list(order)], np.ones_like(bets.rates))
        for place, index in enumerate(order):
            assert sums.setdefault(index, float(found[place])) == pytest.approx(found[place], rel=1e-12)
