"""`canary_type1`: how often a candidate that is like the control is rolled back, looked at without end.

Six hours, a look every ten seconds, the weight raised in steps of 5, 10, 25 and 50 %, at an alpha of 5 %, so that
an excess can be seen. The error mark has all of alpha; "20 metrics" are twenty marks together that share one cause in
part. Beside it the two-sided test that people loop over (two proportions, z, each ten minutes). `--rounds N` takes
400 N seeds, of which a quarter for the twenty metrics.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bench.canary_world import Array, Judge
from bench.table import Row
from forestay.rollouts.canary.model import Mark, Policy

ALPHA = 0.05
LOOK_SECONDS, SECONDS = 10.0, 6 * 3600.0
PER_SECOND = 2.0
LOOKS = int(SECONDS / LOOK_SECONDS)
STEPS = ((0.0, 0.05), (0.25, 0.10), (0.5, 0.25), (0.75, 0.5))
Rates = Callable[[int, np.random.Generator], tuple[Array, Array]]  # look -> requests per look, chance of an error


class _Steady:
    """A traffic and an error rate that never move."""

    def __init__(self, seeds: int, errors: float) -> None:
        self._traffic = np.full(seeds, PER_SECOND * LOOK_SECONDS)
        self._errors = np.full(seeds, errors)

    def __call__(self, look: int, chance: np.random.Generator) -> tuple[Array, Array]:
        del look, chance
        return self._traffic, self._errors


class _Day:
    """Traffic that moves tenfold and errors that move twentyfold, against each other."""

    def __init__(self, seeds: int) -> None:
        self._ones = np.ones(seeds)

    def __call__(self, look: int, chance: np.random.Generator) -> tuple[Array, Array]:
        del chance
        wave = 0.5 + 0.5 * math.sin(2 * math.pi * look / LOOKS * 3)
        return self._ones * PER_SECOND * LOOK_SECONDS * (0.1 + 0.9 * wave), self._ones * (0.002 + 0.04 * (1 - wave))


class _Bursts:
    """Errors of 1 % with bursts of 40 % that last five minutes, under both arms; traffic triples in them (retries)."""

    def __init__(self, seeds: int) -> None:
        self._bad = np.zeros(seeds, dtype=bool)

    def __call__(self, look: int, chance: np.random.Generator) -> tuple[Array, Array]:
        del look
        drawn = chance.random(len(self._bad))
        self._bad = np.where(self._bad, drawn > 1 / 30, drawn < 1 / 300)
        return PER_SECOND * LOOK_SECONDS * np.where(self._bad, 3.0, 1.0), np.where(self._bad, 0.4, 0.01)


class _BadDevice:
    """One device of eight under both arms fails half of its requests while it is bad: ten minutes in every forty."""

    def __init__(self, seeds: int) -> None:
        self._bad = np.zeros(seeds, dtype=bool)

    def __call__(self, look: int, chance: np.random.Generator) -> tuple[Array, Array]:
        del look
        drawn = chance.random(len(self._bad))
        self._bad = np.where(self._bad, drawn > 1 / 60, drawn < 1 / 180)
        return np.full(len(self._bad), PER_SECOND * LOOK_SECONDS), np.where(self._bad, 0.01 + 0.5 / 8, 0.01)


def _weight(look: int) -> float:
    return [weight for since, weight in STEPS if look >= since * LOOKS][-1]


def _once(seeds: int, seed: int, rates: Rates, marks: int) -> tuple[float, float]:
    """Return the share of seeds rolled back by ours, and by the looped z test on the first mark."""
    chance = np.random.default_rng(seed)
    names = tuple(Mark(f"m{number}", f"m{number}", 1.0 / marks) for number in range(marks))
    judge = Judge(seeds, Policy(marks=names, alpha=ALPHA), [mark.name for mark in names])
    ours = np.zeros(seeds, dtype=bool)
    looped = np.zeros(seeds, dtype=bool)
    sums = np.zeros((seeds, 2, 2))
    for look in range(LOOKS):
        weight = _weight(look)
        traffic, errors = rates(look, chance)
        counts = _counts(chance, traffic, errors, weight, marks)
        ours |= judge.look(counts, weight) >= -math.log(ALPHA)
        sums += counts[:, 0]
        if (look + 1) % 60 == 0:
            looped |= _z(sums) > 1.96
    return float(ours.mean()), float(looped.mean())


def _counts(chance: np.random.Generator, traffic: Array, errors: Array, weight: float, marks: int) -> Array:
    """Draw `[seed, mark, arm, mark or not]`; of twenty marks half of each follows the first one's."""
    counts = np.empty((len(traffic), marks, 2, 2))
    for arm, share in enumerate((1.0 - weight, weight)):
        requests = chance.poisson(traffic * share)
        first = chance.binomial(requests, errors)
        for mark in range(marks):
            found = first if mark == 0 else chance.binomial(first, 0.5) + chance.binomial(requests - first, errors / 2)
            counts[:, mark, arm, 1] = found
            counts[:, mark, arm, 0] = requests - found
    return counts


def _z(sums: Array) -> NDArray[np.float64]:
    seen, marked = sums.sum(axis=2), sums[:, :, 1]
    with np.errstate(invalid="ignore", divide="ignore"):
        pooled = marked.sum(axis=1) / seen.sum(axis=1)
        spread = np.sqrt(pooled * (1 - pooled) * (1 / seen[:, 0] + 1 / seen[:, 1]))
        return np.nan_to_num(np.abs(marked[:, 1] / seen[:, 1] - marked[:, 0] / seen[:, 0]) / spread)


def run(rounds: int) -> list[Row]:
    """Measure every regime."""
    seeds = 400 * rounds
    limit = ALPHA + 2 * math.sqrt(ALPHA * (1 - ALPHA) / seeds)
    regimes: tuple[tuple[str, Rates, int, int], ...] = (
        ("same rate all the time", _Steady(seeds, 0.01), 1, seeds),
        ("day and night", _Day(seeds), 1, seeds),
        ("bursts", _Bursts(seeds), 1, seeds),
        ("a bad device under both", _BadDevice(seeds), 1, seeds),
        ("rare, 0.05 %", _Steady(seeds, 0.0005), 1, seeds),
        ("20 metrics together", _Steady(seeds // 4, 0.01), 20, seeds // 4),
    )
    rows: list[Row] = []
    for number, (name, rates, marks, count) in enumerate(regimes):
        mine, looped = _once(count, 50_000 + number, rates, marks)
        target = limit if count == seeds else ALPHA + 2 * math.sqrt(ALPHA * (1 - ALPHA) / count)
        rows.append(Row(f"{name}: rolled back", mine, "share", target, "<=", f"{count} seeds, {LOOKS} looks"))
        rows.append(Row(f"{name}: z test looped", looped, "share"))
    return rows
