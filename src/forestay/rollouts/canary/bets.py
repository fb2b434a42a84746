"""The bets behind the canary's judgement: capital that grows only where the candidate differs. Pure arithmetic.

A request goes to the candidate with a known chance, the weight, whatever comes of it: its bucket is drawn before it is
run. So while candidate and control are alike, knowing what came of a request (the *mark*: it failed, it was slower than
the control's 95 %) tells nothing of its arm, however the rate of marks moves with the hour, with bursts or with a bad
device under both. A bettor who guesses the arm from the mark at fair odds cannot expect to gain, and by Ville's
inequality multiplies its capital by 1/alpha with a chance of at most alpha, looked at as often as one likes.

- Harm: bets that the odds of a mark are `ODDS` times the control's. Testing by betting: Shafer (2021), JRSS A 184;
  two samples by betting: Shekhar and Ramdas (2023), IEEE Trans. Inf. Theory 70; the case of counts with a known share
  is Lindon and Malek (2022), NeurIPS 35. The capital is spread over the bets and over cash, and a little flows back
  after each request (fixed share: Herbster and Warmuth, 1998, Machine Learning 32), so that harm which begins late is
  found as well; moving capital between bets before the next request keeps the game fair.
- Non-inferiority: bets that the rate of marks of the candidate is less than `margin` above the control's, by the
  inverse-weighted difference of one request, which is bounded: Waudby-Smith and Ramdas (2024), JRSS B 86, section 4.
- `upper_rate`: the Beta mixture of Robbins (1970), Ann. Math. Stat. 41; see Howard et al. (2021), Ann. Stat. 49.

All functions take arrays with any leading shape, so that one call judges one mark or ten thousand simulated ones.
`evidence` applies them to facts, `bench/canary_*` to simulations.
"""

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

ODDS = (2.0, 5.0, 20.0)  # how many times the control's odds each bet assumes
CASH = 0.2  # share of the capital that bets nothing
FLOW_BACK = 0.001  # of the capital that is spread anew, for each request of the candidate
FRACTIONS = (0.05, 0.1, 0.2, 0.4, 0.7)  # of the largest allowed bet, for non-inferiority
PRIOR = np.array([CASH, *[(1.0 - CASH) / len(ODDS)] * len(ODDS)])  # the first is cash
_ODDS = np.array([1.0, *ODDS])
_LEAST_RATE = 1e-6
_LEAST_FLOW = 1e-300  # so that the log of a share is a number
_BISECTIONS = 50


def harm_growth(base_rate: Array, weight: Array, counts: Array) -> Array:
    """Return by how much the log of each bet's capital grows, `[..., bet]`, with cash as the first bet.

    `base_rate` is the control's rate of marks as known before the requests, `weight` the candidate's chance in (0, 1),
    `counts` the requests, `[..., arm, mark]`. A bet multiplies by the chance of the mark in the arm that it fell to, as
    the bet assumes it, over that chance in both arms together.
    """
    base = np.clip(base_rate, _LEAST_RATE, 1.0 - _LEAST_RATE)[..., None]
    rate = _ODDS * base / (1.0 - base + _ODDS * base)
    pooled = base + np.asarray(weight, dtype=np.float64)[..., None] * (rate - base)
    cells = counts[..., None]  # [..., arm, mark, 1]
    marked, unmarked = cells[..., 0, 1, :] + cells[..., 1, 1, :], cells[..., 0, 0, :] + cells[..., 1, 0, :]
    growth = cells[..., 1, 1, :] * np.log(rate) + cells[..., 1, 0, :] * np.log1p(-rate)
    growth += cells[..., 0, 1, :] * np.log(base) + cells[..., 0, 0, :] * np.log1p(-base)
    return growth - marked * np.log(pooled) - unmarked * np.log1p(-pooled)


def grow_harm(log_capital: Array, shares: Array, growth: Array, candidates: Array) -> tuple[Array, Array]:
    """Return the log capital `[...]` and its shares `[..., bet]` after requests; `candidates` went to the candidate."""
    held = np.log(shares) + growth
    top = held.max(axis=-1, keepdims=True)
    total = top + np.log(np.exp(held - top).sum(axis=-1, keepdims=True))
    flow = 1.0 - (1.0 - FLOW_BACK) ** candidates[..., None]
    return log_capital + total[..., 0], (1.0 - flow) * np.exp(held - total) + np.maximum(flow, _LEAST_FLOW) * PRIOR


def safe_log_factors(base_rate: Array, weight: Array, margin: float) -> Array:
    """Return by how much the log capital of each non-inferiority bet grows, `[..., bet, arm, mark]`."""
    base = np.clip(base_rate, _LEAST_RATE, 1.0 - _LEAST_RATE)
    share = np.asarray(weight, dtype=np.float64)
    worst = np.maximum((1.0 - base) / share, base / (1.0 - share))
    bet = np.array(FRACTIONS) / np.maximum(worst - margin, worst * 1e-3)[..., None]
    control = np.stack([base / (1.0 - share), (base - 1.0) / (1.0 - share)], axis=-1)
    candidate = np.stack([-base / share, (1.0 - base) / share], axis=-1)
    difference = np.stack([control, candidate], axis=-2)  # one request's say of candidate minus control
    return np.log1p(np.maximum(bet[..., None, None] * (margin - difference[..., None, :, :]), -1.0 + 1e-9))


def grow_safe(log_capitals: Array, log_factors: Array, counts: Array) -> Array:
    """Return the log capital of each non-inferiority bet after requests, `[..., bet]`."""
    return log_capitals + np.einsum("...bam,...am->...b", log_factors, counts)


def log_mean(log_values: Array) -> Array:
    """Return the log of the mean over the last axis."""
    top = log_values.max(axis=-1, keepdims=True)
    return (top + np.log(np.exp(log_values - top).mean(axis=-1, keepdims=True)))[..., 0]


def upper_rate(marked: int, seen: int, alpha: float) -> float:
    """Return a rate in [0, 1] that the true one exceeds, at any look, with a chance of at most `alpha`."""
    if seen <= 0:
        return 1.0
    rest = seen - marked
    mixed = (
        math.lgamma(marked + 0.5) + math.lgamma(rest + 0.5) - math.lgamma(seen + 1.0) - math.log(math.pi)
    )  # the Beta(1/2, 1/2) mixture of likelihoods
    low, high = marked / seen, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2.0
        likelihood = (marked * math.log(middle) if marked else 0.0) + (rest * math.log1p(-middle) if rest else 0.0)
        low, high = (middle, high) if mixed - likelihood < -math.log(alpha) else (low, middle)
    return high
