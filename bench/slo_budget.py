"""`slo_budget`: the budget's arithmetic against a recount of every event in exact fractions.

Random minutes (idle, quiet, busy by a factor of a million), random windows and objectives, requests and slices. The
property tests of `tests/slo/test_budget.py` do the same with hypothesis. Beside it, on the trough of a day with ten
times more traffic at noon, what a mean of five-minute ratios would say: the shortcut of a generator of rules.
"""

import math
from fractions import Fraction

import numpy as np

from bench.slo_traces import slo
from bench.table import Row
from forestay.slo.budget import History, budget_of
from forestay.slo.model import Counts, Measure, Minute, Sli, SliKind, Slo, Window

TRIALS = 400
SLICES = Sli(SliKind.TIME_SLICE, Measure.AVAILABILITY, slice_minutes=5, slice_objective=0.95)


def run(rounds: int) -> list[Row]:
    """Compare `TRIALS` random histories for each kind of budget; the seed is fixed, so `rounds` changes nothing."""
    del rounds
    chance = np.random.default_rng(9)
    by_requests = max(_error(chance, slices=False) for _ in range(TRIALS))
    by_slices = max(_error(chance, slices=True) for _ in range(TRIALS))
    return [
        Row("requests: largest relative error", by_requests, "", 1e-9, "<=", f"{TRIALS} histories"),
        Row("slices of time: largest relative error", by_slices, "", 1e-9, "<=", f"{TRIALS} histories"),
        Row(
            "an hour's outage at the trough, mean of ratios / ours", _shortcut(), "times", note="ours is the true count"
        ),
    ]


def _error(chance: np.random.Generator, *, slices: bool) -> float:
    length = int(chance.integers(5, 2_000))
    kept = {
        Minute(int(minute)): Counts(
            good=int(chance.integers(0, 10 ** int(chance.integers(1, 7)))), bad=int(chance.integers(0, 9))
        )
        for minute in chance.integers(0, 2_000, 300)
    }
    made = slo(0, 1.0 - 10.0 ** -int(chance.integers(1, 6)))
    made = Slo(made.slo_id, made.subject, made.objective, SLICES if slices else made.sli, "acme", window=Window(length))
    now = Minute(int(chance.integers(0, 2_000)))
    found = budget_of(made, History(kept, Minute(-10_000)), now)
    exact = _recount(kept, now, length, slices=slices) / (1 - Fraction(made.objective))
    return (
        0.0 if exact == 0 == found.spent_ratio else abs(found.spent_ratio / float(exact) - 1.0) if exact else math.inf
    )


def _recount(kept: dict[Minute, Counts], now: Minute, length: int, *, slices: bool) -> Fraction:
    """Count event by event; return the share of bad ones."""
    inside = {minute: counts for minute, counts in kept.items() if now - length < minute <= now}
    if not slices:
        total = sum(counts.good + counts.bad for counts in inside.values())
        return Fraction(sum(counts.bad for counts in inside.values()), total) if total else Fraction(0)
    numbers = {minute // 5 for minute in inside}
    whole = [[inside[minute] for minute in inside if minute // 5 == number] for number in numbers]
    seen = [(sum(item.total for item in held), sum(item.bad for item in held)) for held in whole]
    seen = [pair for pair in seen if pair[0]]
    missed = sum(Fraction(total - bad, total) < Fraction(19, 20) for total, bad in seen)
    return Fraction(missed, len(seen)) if seen else Fraction(0)


def _shortcut() -> float:
    """Return by how much the mean of five-minute ratios overstates an outage at 4 a.m. of one day in thirty."""
    hour = np.arange(43_200) / 60 % 24
    total = np.round(100 * (5.5 - 4.5 * np.cos((hour - 4) / 12 * np.pi))).astype(np.int64)
    bad = np.where((np.arange(43_200) // 60) == 10 * 24 + 4, total, 0)
    slices = bad.reshape(-1, 5).sum(axis=1) / total.reshape(-1, 5).sum(axis=1)
    kept = {Minute(minute): Counts(int(total[minute] - bad[minute]), int(bad[minute])) for minute in range(43_200)}
    found = budget_of(slo(), History(kept, Minute(0)), Minute(43_199))
    return float(slices.mean()) / (found.bad / found.events)
