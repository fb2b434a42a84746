"""Months of a service with one labelled incident each, of the ten kinds that media fleets have.

A month is 30 days of minutes of an availability SLO of 99.9 %, traffic 30 to 3,000 requests an hour, a true error rate
of 0.02 to 0.05 % while nothing is wrong. Counts are what a rule sees: of a scrape gap only what counters tell
afterwards, of bad outputs with status 200 only what a check of outputs tells. Nothing here knows a rule.
"""

import dataclasses

import numpy as np
import numpy.typing as npt

MONTH = 43_200
KINDS = (
    "sudden", "ramp", "one tenant", "one bad GPU", "cold-start storm", "queue growth", "day and night", "scrape gap",
    "counter reset", "bad outputs",
)  # fmt: skip
RATES = (30.0, 60.0, 300.0, 1_000.0, 3_000.0)
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True)
class Month:
    """One month: what is seen of it, and when the incident was."""

    kind: str
    per_hour: float
    bad: Ints
    """Bad requests as a status or time-out shows them: of bad outputs nothing."""
    checked_bad: Ints
    """Bad requests as a check of outputs shows them too: what our SLI of validity counts."""
    total: Ints
    first: int
    until: int


def month(kind: str, seed: int) -> Month:
    """Make a month of a kind; the same seed makes the same month."""
    chance = np.random.default_rng([seed, KINDS.index(kind)])
    per_hour = float(chance.choice(RATES))
    first = int(chance.integers(3 * 1440, 27 * 1440))
    calm = float(chance.uniform(0.0002, 0.0005))
    traffic = np.full(MONTH, per_hour / 60)
    if kind == "day and night":
        traffic = traffic * (1.0 + 0.9 * np.sin(np.arange(MONTH) / 1440 * 2 * np.pi))
    rates, until = _errors(kind, calm, first, chance)
    if kind == "cold-start storm":
        traffic[first:until] *= 3.0
    total = chance.poisson(traffic)
    harmed = chance.binomial(total, np.minimum(rates, 1.0))
    status = chance.binomial(total, calm) if kind == "bad outputs" else harmed
    made = Month(kind, per_hour, status, harmed, total, first, until)
    return _scraped(made, chance) if kind in {"scrape gap", "counter reset"} else made


def _errors(kind: str, calm: float, first: int, chance: np.random.Generator) -> tuple[Floats, int]:
    """Return the error rate of each minute and the first minute after the incident."""
    length = int(chance.integers(90, 720))
    rates = np.full(MONTH, calm)
    until = first + length
    inside = np.arange(length)
    worst = float(np.exp(chance.uniform(np.log(0.03), np.log(0.6))))
    shape: Floats = np.full(length, worst)
    if kind in {"ramp", "queue growth"}:
        shape = worst * (inside / length) ** (1.0 if kind == "ramp" else 2.0)
    elif kind == "one tenant":
        shape = np.full(length, float(chance.uniform(0.05, 0.25)))  # its share of the traffic, all of which fails
    elif kind == "one bad GPU":
        shape = np.full(length, 1.0 / float(chance.integers(4, 17)))  # one of so many replicas
    elif kind == "cold-start storm":
        shape = worst * np.exp(-(inside % 90) / 20.0)  # waves of time-outs, each dying away
    rates[first:until] = np.maximum(shape, calm)
    return rates, until


def _scraped(made: Month, chance: np.random.Generator) -> Month:
    """Return the month as counters tell it: gaps of up to an hour, or restarts that lose what was not scraped."""
    bad, total = made.bad.copy(), made.total.copy()
    places = [*chance.integers(0, MONTH - 60, 20), int(chance.integers(made.first, made.until - 30))]
    for start in (int(place) for place in places):
        if made.kind == "counter reset":
            bad[start], total[start] = 0, 0  # counted in the minute of the restart, and never scraped
            continue
        end = start + int(chance.integers(5, 55))
        bad[end], total[end] = bad[start : end + 1].sum(), total[start : end + 1].sum()
        bad[start:end], total[start:end] = 0, 0
    return dataclasses.replace(made, bad=bad, checked_bad=bad, total=total)
