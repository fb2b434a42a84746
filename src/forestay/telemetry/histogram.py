"""Histograms of durations whose bins grow by a fixed factor: exact to merge, with a stated relative error. Pure.

Bin i holds values in (1.02^(i-1), 1.02^i] seconds. The value that stands for a bin is within 0.991 % of every value in
it ((g - 1) / (g + 1) with g = 1.02), whatever was merged; see Masson, Rim and Lee, "DDSketch", VLDB 2019, section 2.
Decides nothing. Used by the roll-ups and whoever reads them.
"""

import math
from collections.abc import Iterable, Mapping

GROWTH = 1.02
RELATIVE_ERROR = (GROWTH - 1.0) / (GROWTH + 1.0)
LEAST_SECONDS, MOST_SECONDS = 1e-6, 1e8  # what lies outside counts as this
_PER_BIN = 1.0 / math.log(GROWTH)

Bins = Mapping[int, int]  # bin -> how many


def bin_of(seconds: float) -> int:
    """Return the bin of a value; what is not positive is in the lowest."""
    bounded = min(max(seconds, LEAST_SECONDS), MOST_SECONDS)
    return math.ceil(math.log(bounded) * _PER_BIN - 1e-9)


def value_of(number: int) -> float:
    """Return the value that stands for a bin: its relative error is the same to both of the bin's edges."""
    return 2.0 * GROWTH**number / (GROWTH + 1.0)


def merged(histograms: Iterable[Bins]) -> dict[int, int]:
    """Add histograms up; the order does not matter."""
    total: dict[int, int] = {}
    for bins in histograms:
        for number, count in bins.items():
            total[number] = total.get(number, 0) + count
    return total


def at_most(bins: Bins, seconds: float) -> int:
    """Count the values up to a threshold; one that is at most 2 % above it may be counted too."""
    last = bin_of(seconds)
    return sum(count for number, count in bins.items() if number <= last)


def quantile(bins: Bins, share: float) -> float | None:
    """Return the value below which `share` of all lie, within `RELATIVE_ERROR`; None where there are none."""
    total = sum(bins.values())
    if total == 0:
        return None
    wanted, seen = max(1, math.ceil(share * total)), 0
    for number in sorted(bins):
        seen += bins[number]
        if seen >= wanted:
            return value_of(number)
    return value_of(max(bins))
