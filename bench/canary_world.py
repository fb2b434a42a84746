"""What the canary benches share: a world of arms and marks, our judge over many seeds at once, and its rivals.

Our judge is `rollouts/canary/bets` with the default policy's marks and shares, looked at after each batch; that this
gives what `evidence.absorb` gives is tested (tests/rollouts/test_canary_decide.py). The rivals are written from their
documented rules: a plain e-process (a block a minute, a plug-in alternative of at least 1.5 times, all control
traffic), Kayenta's judge (Mann-Whitney on a point a minute against a baseline of equal size, confidence 0.98,
tolerance 0.25, every ten minutes) and Flagger's check (a success rate a minute, a count of failed checks).
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from forestay.rollouts.canary import bets
from forestay.rollouts.canary.model import DEFAULT_MARKS, Policy

Array = NDArray[np.float64]
MINUTES = 60
WEIGHT = 0.1
BASE_ERRORS = 0.01
PRIOR_SEEN, PRIOR_MARKED = 50.0, 0.5
LATENCY_SIGMA = 0.5


@dataclasses.dataclass(frozen=True)
class Arm:
    """What an arm's requests are like: chance of an error, share of slow ones (three times), shift of quality."""

    errors: float = BASE_ERRORS
    slow: float = 0.0
    quality_sigmas: float = 0.0


HEALTHY = Arm()


def normal_cdf(value: float) -> float:
    """Return the standard normal distribution function."""
    return 0.5 * math.erfc(-value / math.sqrt(2.0))


def _beyond(arm: Arm, z: float) -> float:
    """Return the chance that a request of the arm is slower than the control's quantile at `z` sigmas."""
    slowed = z - math.log(3.0) / LATENCY_SIGMA
    return (1.0 - arm.slow) * normal_cdf(-z) + arm.slow * normal_cdf(-slowed)


_P50, _P95, _P99, _P10 = 0.0, 1.6449, 2.3263, -1.2816
_LATENCY = {"latency p50": _P50, "latency p95": _P95, "latency p99": _P99}


def _mark_counts(chance: np.random.Generator, arm: Arm, requests: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """Draw the marks of `requests` requests of one arm, per mark of the default policy."""
    failed = chance.binomial(requests, arm.errors)
    done = requests - failed
    beyond = [_beyond(arm, z) for z in _LATENCY.values()]
    regions = [1.0 - beyond[0], beyond[0] - beyond[1], beyond[1] - beyond[2], beyond[2]]
    drawn = chance.multinomial(done, regions)
    blocked = chance.binomial(requests, 0.02)
    return {
        "errors": failed,
        "refusals": chance.binomial(requests, 0.03),
        "broken outputs": chance.binomial(done, 0.002),
        "latency p50": drawn[:, 1:].sum(axis=1),
        "latency p95": drawn[:, 2:].sum(axis=1),
        "latency p99": drawn[:, 3],
        "blocked more": blocked,
        "blocked less": requests - blocked,
        "quality p10": chance.binomial(done, normal_cdf(_P10 - arm.quality_sigmas)),
        "cost p50": chance.binomial(done, 0.5),
        "_done": done,
    }


_OF_ALL = frozenset({"errors", "refusals", "blocked more", "blocked less"})
_QUANTILES = {mark.name: mark for mark in DEFAULT_MARKS if mark.quantile is not None}


class Judge:
    """Our judge for many seeds at once; `names` limits it to some marks, which then share the whole of alpha."""

    def __init__(self, seeds: int, policy: Policy, names: Sequence[str] | None = None) -> None:
        """Begin with nothing seen."""
        self.marks = [mark for mark in policy.marks if names is None or mark.name in names]
        total = sum(mark.share for mark in self.marks)
        kept = 1.0 if names is not None else 1.0 - policy.slice_share
        self.shares = np.array([kept * mark.share / total for mark in self.marks])
        self.rest = 1.0 - self.shares.sum()
        self.log_capital = np.zeros((seeds, len(self.marks)))
        self.held = np.tile(bets.PRIOR, (seeds, len(self.marks), 1))
        self.control = np.zeros((seeds, len(self.marks), 2))  # seen, marked
        self._prior = np.array([_prior(mark.name, absent=mark.absent) for mark in self.marks])

    def look(self, counts: Array, weight: float) -> Array:
        """Take `[seed, mark, arm, mark or not]` and return the log capital of the family for each seed."""
        base = (self.control[..., 1] + self._prior[:, 1]) / (self.control[..., 0] + self._prior[:, 0])
        growth = bets.harm_growth(base, np.full(base.shape, weight), counts)
        self.log_capital, self.held = bets.grow_harm(
            self.log_capital, self.held, growth, counts[..., 1, 0] + counts[..., 1, 1]
        )
        self.control[..., 0] += counts[..., 0, 0] + counts[..., 0, 1]
        self.control[..., 1] += counts[..., 0, 1]
        top = np.maximum(self.log_capital.max(axis=-1), 0.0)
        summed = (self.shares * np.exp(self.log_capital - top[:, None])).sum(axis=-1) + self.rest * np.exp(-top)
        return top + np.log(summed)

    def keep(self, which: NDArray[np.bool_]) -> None:
        """Forget the seeds that are done."""
        self.log_capital, self.held, self.control = self.log_capital[which], self.held[which], self.control[which]


def _prior(name: str, *, absent: bool) -> tuple[float, float]:
    mark = _QUANTILES.get(name)
    if mark is not None and mark.quantile is not None:  # the control's history of the hour before gives its quantiles
        beyond = 1.0 - mark.quantile if name != "quality p10" else mark.quantile
        return 100.0, 100.0 * beyond
    return PRIOR_SEEN, PRIOR_SEEN - PRIOR_MARKED if absent else PRIOR_MARKED


def ours(seeds: int, seed: int, per_minute: float, candidate: Arm, names: Sequence[str] | None = None) -> Array:
    """Return how many candidate requests each seed exposed until the rollback; infinite where none came in an hour."""
    chance = np.random.default_rng(seed)
    policy = Policy()
    judge = Judge(seeds, policy, names)
    step = min(10.0, 1200.0 / per_minute)  # seconds between looks: one or two requests of the candidate
    exposed, found = np.zeros(seeds), np.full(seeds, np.inf)
    alive = np.arange(seeds)
    for _ in range(int(MINUTES * 60 / step)):
        counts = np.empty((len(alive), len(judge.marks), 2, 2))
        for arm, (what, share) in enumerate(((HEALTHY, 1.0 - WEIGHT), (candidate, WEIGHT))):
            requests = chance.poisson(per_minute / 60.0 * step * share, len(alive))
            drawn = _mark_counts(chance, what, requests)
            for place, mark in enumerate(judge.marks):
                whole = requests if mark.name in _OF_ALL else drawn["_done"]
                counts[:, place, arm, 1] = drawn[mark.name]
                counts[:, place, arm, 0] = whole - drawn[mark.name]
            if arm:
                exposed[alive] += requests
        hit = judge.look(counts, WEIGHT) >= -math.log(policy.alpha)
        found[alive[hit]] = exposed[alive[hit]]
        if hit.any():
            judge.keep(~hit)
            alive = alive[~hit]
        if not len(alive):
            break
    return found


# Rivals -------------------------------------------------------------------------------------------------------------
def minutes_of(
    chance: np.random.Generator, seeds: int, per_minute: float, rate: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw requests and errors of an arm, a row a seed, a column a minute."""
    requests = chance.poisson(per_minute, (seeds, MINUTES))
    return requests, chance.binomial(requests, rate)


def plain(seeds: int, seed: int, per_minute: float, errors: float, alpha: float = 0.01) -> Array:
    """Return the exposure of the plain e-process: a block a minute, the estimate so far as the alternative."""
    chance = np.random.default_rng(seed)
    n1, k1 = minutes_of(chance, seeds, per_minute * WEIGHT, errors)
    n0, k0 = minutes_of(chance, seeds, per_minute * (1.0 - WEIGHT), BASE_ERRORS)
    log_capital, found = np.zeros(seeds), np.full(seeds, np.inf)
    seen1 = marked1 = seen0 = marked0 = np.zeros(seeds)
    for minute in range(MINUTES):
        base = np.clip((marked0 + 0.5) / (seen0 + 50.0), 1e-6, 0.6)
        rate = np.clip(np.maximum(1.5 * base, (marked1 + 0.5) / (seen1 + 50.0)), None, 0.95)
        pooled = WEIGHT * rate + (1.0 - WEIGHT) * base
        log_capital = log_capital + (
            k1[:, minute] * np.log(rate / pooled)
            + (n1 - k1)[:, minute] * np.log((1.0 - rate) / (1.0 - pooled))
            + k0[:, minute] * np.log(base / pooled)
            + (n0 - k0)[:, minute] * np.log((1.0 - base) / (1.0 - pooled))
        )
        seen1, marked1 = seen1 + n1[:, minute], marked1 + k1[:, minute]
        seen0, marked0 = seen0 + n0[:, minute], marked0 + k0[:, minute]
        found = np.where((found == np.inf) & (log_capital >= -math.log(alpha)), seen1, found)
    return found


def flagger(requests: NDArray[np.int64], errors: NDArray[np.int64], success: float, failures: int) -> Array:
    """Return the exposure of Flagger's check: below the rate, or without data, a check has failed; failures add up."""
    with np.errstate(invalid="ignore", divide="ignore"):
        failed = ~(1.0 - errors / requests >= success)
    count = failed.cumsum(axis=1)
    return _exposed_at(requests, count >= failures)


def _exposed_at(requests: NDArray[np.int64], hit: NDArray[np.bool_]) -> Array:
    first = hit.argmax(axis=1)
    exposed = requests.cumsum(axis=1)[np.arange(len(requests)), first].astype(float)
    return np.where(hit.any(axis=1), exposed, np.inf)


def tuned_flagger(seeds: int, seed: int, per_minute: float, effects: Sequence[float]) -> tuple[float, int]:
    """Return the success rate and count that expose least at a false rollback of at most 1 %, for one traffic."""
    chance = np.random.default_rng(seed)
    worlds = [minutes_of(chance, seeds, per_minute * WEIGHT, rate) for rate in (BASE_ERRORS, *effects)]
    best, choice = math.inf, (0.99, 10)
    for success in (0.995, 0.99, 0.985, 0.98, 0.97, 0.96, 0.95, 0.94, 0.92, 0.9, 0.85, 0.8):
        for failures in range(1, 31):
            if caught(flagger(*worlds[0], success, failures)) > 0.01:
                continue
            score = sum(math.log(median(flagger(*world, success, failures))) for world in worlds[1:])
            if score < best:
                best, choice = score, (success, failures)
    return choice


def kayenta(candidate: Array, baseline: Array, requests: NDArray[np.int64]) -> Array:
    """Return the exposure of Kayenta's judge over points of a minute; direction "increase", looked at every ten."""
    hit = np.zeros((len(candidate), MINUTES), dtype=bool)
    for minute in range(9, MINUTES, 10):
        hit[:, minute] = _is_high(candidate[:, : minute + 1], baseline[:, : minute + 1])
    return _exposed_at(requests, hit)


def _is_high(candidate: Array, baseline: Array) -> NDArray[np.bool_]:
    """Tell where the shift's lower bound exceeds a quarter of its estimate and the mean has not fallen."""
    points = candidate.shape[1]
    shifts = np.sort((candidate[:, :, None] - baseline[:, None, :]).reshape(len(candidate), -1), axis=1)
    spread = 2.3263 * math.sqrt(points * points * (2 * points + 1) / 12.0)
    lower = shifts[:, max(0, math.floor(points * points / 2 - spread))]
    estimate = np.median(shifts, axis=1)
    return (lower > 0.25 * np.abs(estimate)) & (candidate.mean(axis=1) >= baseline.mean(axis=1))


def minute_means(requests: NDArray[np.int64], draw: Callable[[int], Array]) -> Array:
    """Return the mean of each minute's values, drawn by `draw(n)`; a minute without any takes the mean of all."""
    values = draw(int(requests.sum()))
    edges = np.concatenate([[0], requests.ravel().cumsum()])
    sums = np.concatenate([[0.0], values.cumsum()])
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (sums[edges[1:]] - sums[edges[:-1]]) / requests.ravel()
    return np.where(np.isnan(means), values.mean(), means).reshape(requests.shape)


def caught(found: Array) -> float:
    """Return the share of seeds with a rollback."""
    return float(np.isfinite(found).mean())


def quantile(found: Array, share: float) -> float:
    """Return a quantile of the exposure, misses counting as infinite."""
    return float(np.sort(found)[min(len(found) - 1, math.ceil(share * len(found)) - 1)])


def median(found: Array) -> float:
    """Return the median exposure, misses counting as infinite."""
    return quantile(found, 0.5)
