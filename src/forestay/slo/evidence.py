"""The evidence test: a wager against "the error rate is within the budget" that may be looked at every minute.

It decides how wealth grows and when it is enough. Called by the fleet's engine; `explanation/slo-engine.md` has the
derivation in words.

- One bet: wealth is multiplied by 1 + r (x - b) for a request, x = 1 if bad, b the budget, 0 <= r <= 1/b. While the
  error rate, given all that went before, is at most b, its expectation does not grow. Source: Waudby-Smith and Ramdas
  (2024), "Estimating means of bounded random variables by betting", JRSS B 86, section 4.
- When harm begins is unknown: each minute a new wager of `stake` is opened, and all run on together, the
  Shiryaev-Roberts e-detector. Source: Shin, Ramdas and Rinaldo (2024), "E-detectors: a nonparametric framework for
  sequential change detection", NEJSDS 2, definition 2.2 and theorem 2.4. How bad it is is unknown too: the stake is
  spread over a few error rates (their section 4).
- The sum of wealth less the sum of stakes cannot be expected to grow. It is paid out, that is a page, at `goal`; then
  all begins at 0. So goal x E[pages] <= E[stakes] <= minutes: with the goal 43,200 / 0.1 = 432,000 at most 0.1 pages
  in 30 days, whatever the traffic, however often one looks, independent requests or not.
- Nothing is gained beyond the goal, so no more is put at risk than reaches it with the next bad request. Source of
  the idea: Fischer and Ramdas (2024), "Improving the (approximate) sequential probability ratio test by avoiding
  overshoot", arXiv 2410.16076. Rates are chosen before a minute's outcomes are looked at, so the above still holds.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from forestay.slo.model import MINUTES_OF_30_DAYS

Floats = npt.NDArray[np.float64]

PAGE_BURNS, TICKET_BURNS = 20.0, (2.0, 5.0)
"""The mildest burn rate bet on for a page, and those for a ticket. A bet on burn rate k wins in the long run from
(k - 1) / ln k on, 6.3 for 20: where the workbook's slower page begins."""
WORST_RATE = 0.98
THIN_WEIGHTS, BUSY_WEIGHTS = (0.1, 0.35, 0.1, 0.45), (0.85, 0.05, 0.05, 0.05)
"""How a page's stake is spread over its error rates, mildest first. In thin traffic nothing mild can be proved within
hours, so little is bet on it; in busy traffic what is worse is proved within minutes anyway."""
BUSY_REQUESTS_PER_HOUR = 120
TICKET_WEIGHTS = (0.5, 0.5)
_MOST_LOG_GAIN = 600.0  # far beyond any goal, and within what a float holds
_ROOM = 0.5  # where a burn rate leaves no room below certainty: the middle between budget and certainty


@dataclasses.dataclass(frozen=True, slots=True)
class Bets:
    """What is bet for each of n SLOs on k error rates."""

    budget: Floats
    """`[n]`: the error rate that is allowed."""
    rates: Floats
    """`[k, n]`: r, how much of the wealth is at risk per unit of budget."""
    thin: Floats
    """`[k, 1]`: how a stake is spread in thin traffic."""
    busy: Floats
    """`[k, 1]`: how it is spread in busy traffic."""
    goal: Floats
    """`[n]`: wealth at which it is enough."""
    win: Floats
    """`[k, n]`: what a bad request multiplies by."""
    log_win: Floats
    log_lose: Floats
    """`[k, n]`: ln of what a good request multiplies by, below 0."""


def page_bets(budgets: Sequence[float] | Floats, false_pages_per_30_days: float | Floats = 0.1) -> Bets:
    """Return bets on four error rates, evenly spaced in ratio from 20 times the budget to 98 %."""
    budget = np.asarray(budgets, dtype=np.float64)
    low = np.minimum(PAGE_BURNS * budget, budget + _ROOM * (np.maximum(WORST_RATE, budget) - budget))
    high = np.maximum(WORST_RATE, (1.0 + budget) / 2)
    steps = np.linspace(0.0, 1.0, len(THIN_WEIGHTS))[:, None]
    return _bets(budget, low * (high / low) ** steps, (THIN_WEIGHTS, BUSY_WEIGHTS), false_pages_per_30_days)


def ticket_bets(budgets: Sequence[float] | Floats, false_tickets_per_30_days: float | Floats = 0.1) -> Bets:
    """Return bets on 2 and 5 times the budget."""
    budget = np.asarray(budgets, dtype=np.float64)
    rates = [
        np.minimum(burn * budget, budget + _ROOM * (1.0 - budget) * burn / TICKET_BURNS[1]) for burn in TICKET_BURNS
    ]
    return _bets(budget, np.stack(rates), (TICKET_WEIGHTS, TICKET_WEIGHTS), false_tickets_per_30_days)


def _bets(
    budget: Floats, alternatives: Floats, weights: tuple[Sequence[float], Sequence[float]], per_30_days: float | Floats
) -> Bets:
    thin, busy = (np.asarray(item, dtype=np.float64)[:, None] for item in weights)
    rates = (alternatives - budget) / (budget * (1.0 - budget))
    goal = np.broadcast_to(MINUTES_OF_30_DAYS / np.asarray(per_30_days, dtype=np.float64), budget.shape).copy()
    return Bets(
        budget,
        rates,
        thin,
        busy,
        goal,
        1.0 + rates * (1.0 - budget),
        np.log1p(rates * (1.0 - budget)),
        np.log1p(-rates * budget),
    )


def nothing_wagered(bets: Bets) -> Floats:
    """Return the wealth to begin with: `[k, n]` of 0."""
    return np.zeros_like(bets.rates)


def stakes(bets: Bets, stake: Floats, requests_per_hour: Floats) -> Floats:
    """Return `[k, n]`: a minute's stake `[n]`, spread over the error rates as the traffic has it."""
    return stake * np.where(requests_per_hour >= BUSY_REQUESTS_PER_HOUR, bets.busy, bets.thin)


def wager(wealth: Floats, bets: Bets, bad: Floats, total: Floats, staked: Floats) -> Floats:
    """Carry wealth `[k, n]` over one minute, in place, and return its sum `[n]`.

    `bad` of `total` requests `[n]`; `staked` `[k, n]`, in sum at most 1 for each SLO, is what is newly wagered this
    minute, chosen without looking at `bad`. Where one bad request would overshoot the goal, less is put at risk.
    """
    wealth += staked
    near = np.flatnonzero(np.einsum("kn,kn->n", wealth, bets.win) > bets.goal)
    near = near[total[near] > 0]
    held = wealth[:, near]
    lose = bets.log_lose * total
    np.multiply(wealth, np.exp(lose, out=lose), out=wealth)
    hit = np.flatnonzero(bad)
    if hit.size:
        gain = (bets.log_win[:, hit] - bets.log_lose[:, hit]) * bad[hit]
        wealth[:, hit] *= np.exp(np.minimum(gain, _MOST_LOG_GAIN))
    if near.size:
        wealth[:, near] = _capped(held, bets, near, bad[near], total[near])
    return wealth.sum(axis=0)


def wager_on_mean(wealth: Floats, bets: Bets, bad: Floats, worth: Floats, staked: Floats) -> Floats:
    """Carry wealth `[k, n]` over one look at n means of shares, in place, and return its sum `[n]`; worth 0: no look.

    The mean is `bad / worth`: a sum of terms in [0, 1], one for each request, whose expectation is at most budget x
    `worth` while the mean of the error rates is within the budget. A bet on the rate q is multiplied by (q/b)^bad
    exp(-worth (q - b)). Its expectation does not grow, however many terms there are: E[exp(s X)] <= exp(m (e^s - 1))
    for X in [0, 1] of mean m, by convexity; here e^s = q/b. Source: Hoeffding (1963), "Probability inequalities for
    sums of bounded random variables", JASA 58, lemma 1.
    """
    wealth += staked
    beyond = bets.rates * bets.budget * (1.0 - bets.budget)  # q - b
    gain = bad * np.log1p(bets.rates * (1.0 - bets.budget)) - worth * beyond
    wealth *= np.exp(np.minimum(gain, _MOST_LOG_GAIN))
    return wealth.sum(axis=0)


def _capped(held: Floats, bets: Bets, near: npt.NDArray[np.intp], bad: Floats, total: Floats) -> Floats:
    """Scale all rates by one factor, so that one bad and `total - 1` good requests end at the goal or just above."""
    rates, budget, goal = bets.rates[:, near], bets.budget[near], bets.goal[near]
    rest = held * np.exp(bets.log_lose[:, near] * (total - 1))  # as if at full rates: a little too careful
    gain = (rest * rates).sum(axis=0) * (1.0 - budget)
    scale = np.clip((goal - rest.sum(axis=0)) / np.maximum(gain, 1e-300), 0.0, 1.0)
    scaled = rates * scale
    wins, losses = np.log1p(scaled * (1.0 - budget)), np.log1p(-scaled * budget)
    return held * np.exp(np.minimum(wins * bad + losses * (total - bad), _MOST_LOG_GAIN))
