"""What the SLO benches share: an SLO like those of the anchors, traffic by chance, and our engine run over it."""

import numpy as np
import numpy.typing as npt

from forestay.slo.fleet import FleetEngine
from forestay.slo.model import Measure, Minute, Sli, SliKind, Slo, SloId, Subject, SubjectKind

Ints = npt.NDArray[np.integer[npt.NBitBase]]
Flags = npt.NDArray[np.bool_]
BUDGET = 0.001
REPORTED_ON = 20_261_126
"""Seed of every figure that is printed. How stakes are spread was chosen on other seeds, all below 100."""


def slo(number: int = 0, objective: float = 1.0 - BUDGET) -> Slo:
    """Return an availability SLO over 30 days."""
    subject = Subject(SubjectKind.MODEL, f"acme/model-{number}")
    return Slo(SloId(f"slo-{number}"), subject, objective, Sli(SliKind.RATIO, Measure.AVAILABILITY), "acme")


def traffic(
    chance: np.random.Generator, per_hour: float, error_rate: float, minutes: int, count: int
) -> tuple[Ints, Ints]:
    """Return (bad, total), `[minutes, count] int16`: Poisson arrivals, independent errors."""
    total = np.empty((minutes, count), dtype=np.int16)
    bad = np.empty_like(total)
    for first in range(0, minutes, 1_440):  # a day at a time: the generator's own numbers are four times as wide
        held = chance.poisson(per_hour / 60, total[first : first + 1_440].shape)
        total[first : first + 1_440] = held
        bad[first : first + 1_440] = chance.binomial(held, error_rate)
    return bad, total


def paging(bad: Ints, total: Ints) -> Flags:
    """Return `[minutes, n]`: our engine's pages are open; each column is an SLO of its own."""
    engine = FleetEngine([slo(number) for number in range(total.shape[1])])
    pages = np.zeros(total.shape, dtype=np.bool_)
    for minute in range(len(total)):
        engine.tick(Minute(minute), np.stack([bad[minute], total[minute]]).astype(np.float64))
        pages[minute] = engine.paging
    return pages
