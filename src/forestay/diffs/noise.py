"""From distances to a verdict: is the candidate further from the control than the control is from itself? Pure.

Each request is answered up to three times with one seed: by the control (the caller's own answer), by the candidate,
and by the control again. While the two revisions are alike, the second answer of the control and the candidate's are
two draws of the same kind, whatever noise kernels, batches and devices make, and however it differs from request to
request. `wagers` bets on that; by Ville's inequality (1939) its capital passes 1/alpha with a chance of at most alpha,
whenever one looks. The control is asked again for every request of a stratum in which something lay outside the
tolerance before, and elsewhere only for a request whose candidate lies outside: where nothing differs, there is no
noise to measure. Two distances that lie within the tolerance of each other are told apart by nobody: such a request
says nothing for either side.

It judges sameness, not quality. What is expected to differ is judged by `diffs/distribution`.
"""

import dataclasses
import enum
import math
from collections.abc import Mapping, Sequence

import numpy as np

from forestay.diffs.wagers import Seen, log_capital_of

MISSING = "missing"  # no output at all where the control has one
# In each measure's own unit: what nobody sees or hears. Those of pictures are about 1.5 times what a cast of the
# example model's weights to bfloat16 does, on other requests than `bench shadow_diff` reports; of the hash it is the
# bound of its own authors.
TOLERANCES: Mapping[str, float] = {
    MISSING: 0.5,
    "size": 0.5,
    "structure": 0.0014,
    "colour": 0.003,
    "edges": 0.035,
    "level": 0.0035,
    "hash": 31 / 256,  # where PDQ calls two pictures the same
    "worst_frame": 0.02,
    "motion": 0.02,
    "length": 0.005,
    "spectrum": 0.02,
    "loudness": 0.01,
    "wave": 0.02,
    "not_a_number": 0.0001,
}
OUTSIDE = 1.0  # tolerances
_LEVEL = 0.05  # of the bound of a share


class Said(enum.StrEnum):
    """What one request, or all of them, say."""

    SAME = "same"
    DIFFERS = "differs"
    INCONCLUSIVE = "inconclusive"


@dataclasses.dataclass(frozen=True, slots=True)
class Compared:
    """One request answered again. Distances by measure, from the control's first answer."""

    name: str
    stratum: str  # endpoint and size
    floor: Mapping[str, float]  # the control's second answer; empty where it was not asked for one
    found: Mapping[str, float]  # the candidate's
    asks_first: bool = True  # the control was asked whatever the candidate would answer

    @property
    def noise(self) -> float:
        """Return the largest distance of the control from itself, in tolerances."""
        return strength(self.floor)[0]

    @property
    def excess(self) -> float:
        """Return the largest distance of the candidate, in tolerances."""
        return strength(self.found)[0]

    @property
    def said(self) -> Said:
        """Tell what this request says by itself: the candidate is further away, or as near as the control."""
        noise, excess = self.noise, self.excess
        if excess > noise + OUTSIDE:
            return Said.DIFFERS
        return Said.INCONCLUSIVE if noise > excess + OUTSIDE else Said.SAME

    def told(self) -> str:
        """Return it in a few words."""
        size, measure = strength(self.found)
        return f"{self.name} ({self.stratum}): {measure} at {size:.1f} of what is tolerated, {self.noise:.1f} by noise"


@dataclasses.dataclass(frozen=True, slots=True)
class Sameness:
    """What all requests say together."""

    said: Said
    log_capital: float  # natural; alarm at log(1 / alpha)
    compared: int
    differing: int
    share_at_most: float  # of requests that differ, at 95 %
    reason: str


def strength(distances: Mapping[str, float]) -> tuple[float, str]:
    """Return the largest distance in units of its tolerance, and its measure; what is no number is beyond all."""
    best, name = 0.0, "nothing"
    for measure, value in distances.items():
        size = value / TOLERANCES[measure] if math.isfinite(value) else math.inf
        if size > best:
            best, name = size, measure
    return best, name


def judge_sameness(compared: Sequence[Compared], alpha: float, wanted: int) -> Sameness:
    """Return the verdict: differs at any time, the same once `wanted` requests are compared and none of that is so."""
    capital = log_capital(compared)
    differing = [item for item in compared if item.said is Said.DIFFERS]
    share = share_at_most(len(differing), len(compared))
    if capital >= math.log(1.0 / alpha):
        said, reason = Said.DIFFERS, _why(compared, differing)
    elif len(compared) >= wanted:
        said = Said.SAME
        reason = f"{len(compared)} requests compared, {len(differing)} differ; at most {share:.0%} do (95 %)"
    else:
        said = Said.INCONCLUSIVE
        reason = f"{len(compared)} of {wanted} requests compared, {len(differing)} differ"
    return Sameness(said, capital, len(compared), len(differing), share, reason)


def ranked(compared: Sequence[Compared]) -> list[Compared]:
    """Return the requests, those that differ most beyond the noise first."""
    return sorted(compared, key=lambda item: (-(item.excess - item.noise), item.name))


def log_capital(compared: Sequence[Compared]) -> float:
    """Return the logarithm of what a bettor has who began with 1: an e-value at every look."""
    return log_capital_of([_seen(item) for item in compared])


def asks_first(compared: Sequence[Compared], stratum: str) -> bool:
    """Tell whether the next request of a stratum is asked of the control as well, whatever the candidate answers."""
    return any(item.stratum == stratum and item.excess > OUTSIDE for item in compared)


def share_at_most(count: int, of: int) -> float:
    """Return the upper 95 % bound of a share (Clopper and Pearson 1934, one-sided), by bisection."""
    if count >= of:
        return 1.0
    counts = np.arange(count + 1)
    ways = np.array([math.lgamma(of + 1) - math.lgamma(k + 1) - math.lgamma(of - k + 1) for k in range(count + 1)])
    low, high = count / of, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        below = float(np.exp(ways + counts * math.log(middle or 1e-300) + (of - counts) * math.log1p(-middle)).sum())
        low, high = (middle, high) if below > _LEVEL else (low, middle)
    return high


def _seen(item: Compared) -> Seen:
    again = item.noise > OUTSIDE if item.floor else None
    toss = {Said.DIFFERS: 1, Said.INCONCLUSIVE: -1}.get(item.said, 0)
    return Seen(item.stratum, item.excess > OUTSIDE, again, item.asks_first, toss)


def _why(compared: Sequence[Compared], differing: Sequence[Compared]) -> str:
    worst = ranked(differing)[0]
    said = f"{len(differing)} of {len(compared)} requests differ beyond the control's own noise"
    return f"{said}; most: {worst.told()}"
