"""`slo_false_pages`: pages in 30 days of a service that is truly twice as good as its SLO, by traffic.

99.9 % over 30 days, a true error rate of 0.05 %, Poisson arrivals, 200 seeds a rate. A page is counted when it opens.
Beside it the workbook's and Pyrra's rules on the same traffic, and our own at an error rate of the whole budget, where
the guarantee (0.1 in 30 days, derived in `docs/explanation/slo-engine.md`) is tight; and composites of a quieter and a
busy part, which must keep the same bound.
"""

import numpy as np

from bench.slo_rules import WORKBOOK, alerting, pyrra, starts
from bench.slo_traces import BUDGET, REPORTED_ON, Ints, composite_paging, paging, traffic
from bench.table import Row
from forestay.slo.model import MINUTES_OF_30_DAYS

RATES = (30, 60, 300, 3_000)
SEEDS, FULL_SEEDS = 200, 50
PARTS, COMPOSITES = ((30, 3_000), (300, 3_000)), 25
"""Of the first pair every rule is held, of the second they speak."""
MOST = 0.1


def run(rounds: int) -> list[Row]:
    """Simulate `SEEDS` services a rate; the seeds are fixed, so `rounds` changes nothing."""
    del rounds
    cells = [(per_hour, BUDGET / 2, SEEDS) for per_hour in RATES] + [
        (per_hour, BUDGET, FULL_SEEDS) for per_hour in RATES
    ]
    made = [
        traffic(np.random.default_rng([REPORTED_ON, 0, number]), *cell[:2], MINUTES_OF_30_DAYS, cell[2])
        for number, cell in enumerate(cells)
    ]
    bad, total = (np.hstack(counts) for counts in zip(*made, strict=True))
    ours = starts(paging(bad, total))
    rows: list[Row] = []
    at = 0
    for (per_hour, error_rate, seeds), (some_bad, some) in zip(cells, made, strict=True):
        mine = ours[at : at + seeds]
        at += seeds
        if error_rate == BUDGET:
            rows.append(_row(f"{per_hour}/h: ours, all of the budget spent", mine))
            continue
        rows.append(_row(f"{per_hour}/h: ours", mine, MOST))
        for name, rules in (("the workbook's", WORKBOOK), ("Pyrra's", pyrra(MINUTES_OF_30_DAYS))):
            rows.append(_row(f"{per_hour}/h: {name}", starts(alerting(rules, some_bad, some, BUDGET))))
    return [*rows, *_composites()]


def _composites() -> list[Row]:
    """Composites of a quiet and a busy part, both twice as good as their SLO; weights are equal."""
    made = [
        traffic(np.random.default_rng([REPORTED_ON, 1, number]), per_hour, BUDGET / 2, MINUTES_OF_30_DAYS, COMPOSITES)
        for number, per_hour in enumerate(rate for pair in PARTS for rate in pair)
    ]
    both = [
        np.hstack(
            [
                np.stack(pair, axis=2).reshape(MINUTES_OF_30_DAYS, -1)
                for pair in zip(counts[::2], counts[1::2], strict=True)
            ]
        )
        for counts in zip(*made, strict=True)
    ]
    pages = starts(composite_paging(*both))
    return [
        _row(f"composite of {quiet}/h and {busy:,}/h: ours", some, MOST)
        for (quiet, busy), some in zip(PARTS, np.split(pages, len(PARTS)), strict=True)
    ]


def _row(name: str, pages: Ints, target: float | None = None) -> Row:
    mean = float(pages.mean())
    error = np.sqrt(max(float(pages.var()), 1 / len(pages)) / len(pages))
    return Row(name, mean, "pages in 30 d", target, "<=", f"{len(pages)} seeds, standard error {error:.3f}")
