"""What a sample of released outputs, looked at once more, says of all of them. Pure.

It decides the estimate of how many are released wrongly, its sampling error, and how large a sample must be for a
wanted precision. Who looks, and at which, `audit_store` and people decide. That every release was judged is counted
exactly (`telemetry.measures`, SAFETY); whether it was judged rightly only a sample can tell. Called by the admin API.
"""

import dataclasses
import math

CONFIDENCE = 0.95
_Z = 1.959963984540054  # the standard normal's quantile of 0.975: two-sided 95 %
_MOST_LOOKS = 10_000_000


@dataclasses.dataclass(frozen=True, slots=True)
class Labels:
    """What was found in a sample."""

    right: int
    wrong: int

    @property
    def looked_at(self) -> int:
        """How many were looked at."""
        return self.right + self.wrong


@dataclasses.dataclass(frozen=True, slots=True)
class Estimate:
    """The share of releases that were wrong, with its interval at 95 %."""

    looked_at: int
    wrong: int
    ratio: float
    low: float
    high: float
    looks_for_half: int
    """How many must be looked at, all in all, for an interval half as wide."""


def estimate_of(labels: Labels) -> Estimate | None:
    """Return the estimate; None where nothing was looked at, which is neither good nor bad."""
    if labels.looked_at == 0:
        return None
    low, high = wilson(labels.wrong, labels.looked_at)
    needed = looks_needed(labels.wrong / labels.looked_at, (high - low) / 4.0)
    return Estimate(labels.looked_at, labels.wrong, labels.wrong / labels.looked_at, low, high, needed)


def wilson(wrong: int, looked_at: int) -> tuple[float, float]:
    """Return the score interval of a share, low and high in [0, 1]; `looked_at` is above 0.

    Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22 (1927); advised for
    few and for rare ones by Brown, Cai and DasGupta, "Interval Estimation for a Binomial Proportion", Statistical
    Science 16 (2001), section 4. Where none was wrong it still has a width, which the plain normal interval has not.
    """
    center, half = _score(wrong / looked_at, looked_at)
    low = 0.0 if wrong == 0 else max(0.0, center - half)
    return low, 1.0 if wrong == looked_at else min(1.0, center + half)


def looks_needed(ratio: float, half_width: float) -> int:
    """Return the smallest sample whose interval is at most so wide each way, were its share wrong `ratio`.

    Both in (0, 1]; at most ten million. The width falls with the sample, so that it is found by halving.
    """
    least, most = 1, _MOST_LOOKS
    while least < most:
        middle = (least + most) // 2
        if _score(ratio, middle)[1] <= half_width:
            most = middle
        else:
            least = middle + 1
    return least


def words_of(estimate: Estimate | None) -> str:
    """Say it in a sentence."""
    if estimate is None:
        return "no released output was looked at again (`forestay safety audit`): how many are wrong is not known"
    return (
        f"{estimate.looked_at:,} released outputs were looked at again, {estimate.wrong:,} should not have gone out: "
        f"{_percent(estimate.ratio)}, and by 95 % between {_percent(estimate.low)} and {_percent(estimate.high)}; "
        f"{estimate.looks_for_half:,} would halve this"
    )


def _score(ratio: float, looked_at: int) -> tuple[float, float]:
    """Return center and half width of the score interval."""
    square = _Z * _Z / looked_at
    center = (ratio + square / 2.0) / (1.0 + square)
    half = _Z * math.sqrt(ratio * (1.0 - ratio) / looked_at + square / (4.0 * looked_at)) / (1.0 + square)
    return center, half


def _percent(share: float) -> str:
    return f"{share * 100:.3g} %"
