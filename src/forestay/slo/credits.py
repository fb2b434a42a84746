"""What a bad month gives back: bands of availability and the share of the month's fee that each returns. Pure.

It decides which table holds for a tenant and which band a month falls into. No sum of money is known here. Called by
`customer_report`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from fractions import Fraction

from forestay.slo.model import CreditBand, Measure, SliKind, Slo, SloId

DEFAULT_CREDITS = (CreditBand(0.999, 0.1), CreditBand(0.99, 0.25), CreditBand(0.95, 1.0))
"""Below 99.9, 99 and 95 % a month gives back 10, 25 and 100 %: the bands of the Amazon S3 service level agreement."""
DEFAULT_ORIGIN = "default"


@dataclasses.dataclass(frozen=True, slots=True)
class Credit:
    """What a month gives back, and by which table; ratios are shares of 1."""

    slo_id: str
    """The SLO whose adjustments were taken out of what is counted; empty where the tenant has none on availability."""
    origin: str
    """Where the table is from: an SLO's file and line, or `default`."""
    bands: tuple[CreditBand, ...]
    good: int
    bad: int
    """What is counted: without what was adjusted away."""
    credit_ratio: float

    @property
    def availability(self) -> float | None:
        """The share that is good; None where nothing is counted."""
        return ratio_of(self.good, self.bad)


def ratio_of(good: int, bad: int) -> float | None:
    """Return the share of good ones; None where there was neither good nor bad."""
    return good / (good + bad) if good + bad else None


def credit_ratio(bands: Sequence[CreditBand], good: int, bad: int) -> float:
    """Return what is given back, 0 where nothing happened; 999 of 1000 are not below 99.9 %, whatever binary says."""
    if good + bad == 0:
        return 0.0
    share = Fraction(good, good + bad)
    return max((band.credit_ratio for band in bands if share < Fraction(repr(band.below_ratio))), default=0.0)


def decide_credit(slos: Sequence[Slo], counted: Mapping[SloId, tuple[int, int]], measured: tuple[int, int]) -> Credit:
    """Return the credit of a tenant's month: `counted` is good and bad by SLO, `measured` where there is none.

    Tables that files name go before the default. Of several the one that gives back most holds, then the first by id.
    """
    fit = [slo for slo in slos if slo.sli.measure is Measure.AVAILABILITY and slo.sli.kind is SliKind.RATIO]
    named = [slo for slo in fit if slo.credits is not None] or fit
    found = [_credit(slo, counted.get(slo.slo_id, measured)) for slo in sorted(named, key=lambda slo: slo.slo_id)]
    if not found:
        good, bad = measured
        return Credit("", DEFAULT_ORIGIN, DEFAULT_CREDITS, good, bad, credit_ratio(DEFAULT_CREDITS, good, bad))
    return max(found, key=lambda credit: credit.credit_ratio)  # the first of equals


def _credit(slo: Slo, counted: tuple[int, int]) -> Credit:
    good, bad = counted
    bands, origin = DEFAULT_CREDITS, DEFAULT_ORIGIN
    if slo.credits is not None:
        bands, origin = slo.credits, slo.origin or slo.slo_id
    return Credit(slo.slo_id, origin, bands, good, bad, credit_ratio(bands, good, bad))
