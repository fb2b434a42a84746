"""The workbook's rules: two windows burn fast enough at once. Rescaled to the SLO, capped, and held at thin traffic.

It decides what each pair of windows asks for, whether it can be met at all, and from which traffic on its own
false-page rate is small enough for it to speak alone. Called by the decision, the fleet's engine, lint and export.

Sources: "The Site Reliability Workbook", chapter 5, table 5-8 (percent of budget, long and short windows: 2 % in 1 h,
5 % in 6 h page; 10 % in 1 d, 10 % in 3 d ticket). The factor of a pair is (percent of budget) x (window of the SLO) /
(long window). What the workbook does not say is how often a pair speaks falsely: `false_starts_per_minute`.
"""

import dataclasses
import enum
import functools
import math

from forestay.slo.model import MINUTES_OF_30_DAYS

MOST_BURN_SHARE = 0.95
"""A pair that asks for more than this share of bad requests cannot be met in practice: its factor is capped."""
DIP = 0.75
"""A pair is also held while its long window has less than this share of the traffic from which it may speak."""
_SURELY_QUIET = 80.0  # bad requests that a threshold asks for: from there on chance never gets that far
_STEPS = (1.25, 1.02)  # of the search for the traffic from which a pair is quiet, wide and then narrow
_DEVIATIONS = 6.0
_POINTS = 49  # at most so many numbers of requests stand for those that the traffic may bring


class Severity(enum.StrEnum):
    """Whom a finding wakes."""

    PAGE = "page"  # somebody, now
    TICKET = "ticket"  # somebody, in working hours


@dataclasses.dataclass(frozen=True, slots=True)
class PairShape:
    """A pair as the workbook has it: `budget_share` of the budget within `long_minutes`."""

    name: str
    severity: Severity
    budget_share: float
    long_minutes: int
    short_minutes: int
    false_share: float
    """The most it may take of the false-page rate; the evidence test has what is left."""
    at_rate: float = 1.0
    """False pages are counted at this burn rate: at the whole budget, or at half of it for the slowest."""


SHAPES = (
    PairShape("fast", Severity.PAGE, 0.02, 60, 5, 0.6),
    PairShape("slow", Severity.PAGE, 0.05, 360, 30, 0.05),
    PairShape("day", Severity.TICKET, 0.10, 1440, 120, 0.25),
    PairShape("three_days", Severity.TICKET, 0.10, 4320, 360, 0.25, at_rate=0.5),
)
TICKET_EVERY_MINUTES = 5
TRAFFIC_MINUTES = 360
"""Traffic is what came in so long, or in the long window if that is longer."""


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """A pair fitted to one SLO. It burns when both windows hold a share of bad requests above `threshold`."""

    name: str
    severity: Severity
    long_minutes: int
    short_minutes: int
    factor: float
    """Burn rate asked for, after the cap."""
    threshold: float
    """The share of bad requests that both windows must exceed."""
    capped: bool
    traffic_minutes: int
    speaks_from: int
    """Requests within `traffic_minutes` from which it may speak alone."""
    long_from: int
    """Requests that the long window must hold for it to speak alone."""
    false_share: float
    """What it takes of the false-page rate while it may speak, up to twice that traffic; beyond, `busy_share`."""
    busy_share: float

    def may_speak(self, long_requests: float, traffic_requests: float) -> bool:
        """Tell whether it may speak alone at this traffic."""
        return traffic_requests >= self.speaks_from and long_requests >= self.long_from

    def taken(self, long_requests: float, traffic_requests: float) -> float:
        """Return what it takes of the false-page rate at this traffic, 0 while it is held."""
        if not self.may_speak(long_requests, traffic_requests):
            return 0.0
        return self.false_share if traffic_requests < 2 * self.speaks_from else self.busy_share


@functools.lru_cache(maxsize=4096)
def pairs_for(budget_ratio: float, window_minutes: int, false_pages_per_30_days: float = 0.1) -> tuple[Pair, ...]:
    """Return the pairs of an SLO, by the workbook's percentages of the budget.

    A pair whose long window is not well below the SLO's own is left out: it would ask for the whole budget or more.
    """
    return tuple(
        _fitted(shape, budget_ratio, window_minutes, false_pages_per_30_days / MINUTES_OF_30_DAYS)
        for shape in SHAPES
        if 4 * shape.long_minutes <= window_minutes
    )


def _fitted(shape: PairShape, budget_ratio: float, window_minutes: int, rate_per_minute: float) -> Pair:
    wanted = shape.budget_share * window_minutes / shape.long_minutes
    threshold = min(wanted * budget_ratio, MOST_BURN_SHARE)
    rule = _Rule(threshold, shape.at_rate * budget_ratio, shape.long_minutes)
    quiet = _quiet_from(rule, rate_per_minute * shape.false_share)
    traffic = max(TRAFFIC_MINUTES, shape.long_minutes)
    return Pair(
        name=shape.name,
        severity=shape.severity,
        long_minutes=shape.long_minutes,
        short_minutes=shape.short_minutes,
        factor=threshold / budget_ratio,
        threshold=threshold,
        capped=threshold < wanted * budget_ratio,
        traffic_minutes=traffic,
        speaks_from=math.ceil(quiet * traffic / shape.long_minutes),
        long_from=math.ceil(quiet * DIP),
        false_share=shape.false_share,
        busy_share=min(shape.false_share, _worst_from(rule, 2 * quiet) / rate_per_minute),
    )


@dataclasses.dataclass(frozen=True, slots=True)
class _Rule:
    threshold: float
    true_rate: float
    long_minutes: int

    def false_starts(self, requests: float) -> float:
        """Return `false_starts_per_minute`, on average over what a traffic of `requests` may bring (Poisson)."""
        spread = _DEVIATIONS * math.sqrt(requests)
        low, high = max(1, math.floor(requests - spread)), math.ceil(requests + spread)
        step = max(1, (high - low) // _POINTS)
        points = range(low, high + 1, step)
        weights = [math.exp(number * math.log(requests) - requests - math.lgamma(number + 1)) for number in points]
        starts = [
            false_starts_per_minute(number, least_bad(number, self.threshold), self.true_rate, self.long_minutes)
            for number in points
        ]
        return math.fsum(map(float.__mul__, weights, starts)) / math.fsum(weights)


def _quiet_from(rule: _Rule, most_per_minute: float) -> float:
    """Return the requests a window, on average, from which on a rule starts falsely at most so often."""
    requests = _SURELY_QUIET / rule.threshold
    for step in _STEPS:
        while requests > 1.0 and rule.false_starts(requests / step) <= most_per_minute:
            requests /= step
    return requests


def _worst_from(rule: _Rule, requests: float) -> float:
    return max(rule.false_starts(requests * more) for more in (1.0, 1.05, 1.1, 1.2, 1.4, 2.0))


def least_bad(requests: int, threshold: float) -> int:
    """Return the fewest bad ones of `requests` whose share is above a threshold."""
    least = math.floor(threshold * requests)
    while least / requests <= threshold:  # the division that the rule itself makes
        least += 1
    return least


def false_starts_per_minute(requests: int, least: int, true_rate: float, long_minutes: int) -> float:
    """Bound how often a minute by chance brings a window of `requests` to `least` bad ones; all independent.

    A page of a pair begins only in a minute with a bad request. That request is bad with probability `true_rate`, and
    the window must hold `least - 1` bad ones beside it: requests / long_minutes x true_rate x P(Bin(requests - 1,
    true_rate) >= least - 1), the union over the requests of a minute. The short window is left out: it can only make it
    rarer.
    """
    return requests / long_minutes * true_rate * tail_bound((requests - 1) * true_rate, least - 1)


def tail_bound(mean: float, least: int) -> float:
    """Bound P(Bin(n, p) >= least) with n p = `mean` by the tail of a Poisson of the same mean.

    It bounds from `least` = mean + 1 on (Anderson and Samuels 1967, "Some inequalities among binomial and Poisson
    probabilities", theorem 2.1); below, 1 is returned.
    """
    if least < mean + 1.0:
        return 1.0
    if mean <= 0.0:
        return 0.0
    term = math.exp(least * math.log(mean) - mean - math.lgamma(least + 1))
    total, count = 0.0, least
    while term > total * 1e-12:
        total += term
        count += 1
        term *= mean / count
    return min(1.0, total)
