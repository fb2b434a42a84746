"""What the SLO benches share: an SLO like those of the anchors, traffic by chance, and our engine run over it."""

import dataclasses

import numpy as np
import numpy.typing as npt

from forestay.slo.burn_rules import Severity
from forestay.slo.composite import Composites
from forestay.slo.decide import pairs_of
from forestay.slo.fleet import FleetEngine
from forestay.slo.model import Measure, Minute, Part, Sli, SliKind, Slo, SloId, Subject, SubjectKind

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


def composite_paging(bad: Ints, total: Ints) -> Flags:
    """Return `[minutes, n]`: pages of n composites are open, each the plain mean of two neighbouring columns."""
    plain = [slo(number) for number in range(total.shape[1])]
    engine = FleetEngine(plain)
    pairs = list(zip(plain[::2], plain[1::2], strict=True))
    made = [
        dataclasses.replace(
            first,
            slo_id=SloId(f"whole-{first.slo_id}"),
            subject=Subject(SubjectKind.COMPOSITE),
            parts=(Part(first.slo_id), Part(second.slo_id)),
        )
        for first, second in pairs
    ]
    composites = Composites(made, engine)
    names = {pair.name for one in made[:1] for pair in pairs_of(one) if pair.severity is Severity.PAGE}
    pages = np.zeros((len(total), len(made)), dtype=np.bool_)
    for minute in range(len(total)):
        counts = np.stack([bad[minute], total[minute]]).astype(np.float64)
        engine.tick(Minute(minute), counts)
        composites.tick(Minute(minute), counts)
        pages[minute] = [bool(one.evidence or one.pairs & names) for one in composites.opened]
    return pages


def paging(bad: Ints, total: Ints) -> Flags:
    """Return `[minutes, n]`: our engine's pages are open; each column is an SLO of its own."""
    engine = FleetEngine([slo(number) for number in range(total.shape[1])])
    pages = np.zeros(total.shape, dtype=np.bool_)
    for minute in range(len(total)):
        engine.tick(Minute(minute), np.stack([bad[minute], total[minute]]).astype(np.float64))
        pages[minute] = engine.paging
    return pages
