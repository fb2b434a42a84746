"""`slo_delay`: minutes from the onset of harm to the page, at the false-page rates that `slo_false_pages` shows.

99.9 % over 30 days; a day at half the budget, then a sudden error rate. Medians over seeds (the anchors' figures are
medians), means beside them. 30/h is measured without probes and, beside it, with one probe a minute that fails as
requests do. The anchors for 30/h are those of a daily e-process at the same false-page rate: 66 and 527 minutes.
"""

import numpy as np
import numpy.typing as npt

from bench.slo_rules import WORKBOOK, alerting, first_minutes, pyrra
from bench.slo_traces import BUDGET, REPORTED_ON, paging, traffic
from bench.table import Row
from forestay.slo.model import MINUTES_OF_30_DAYS

BEFORE = 1_440
CELLS = (  # requests an hour, probes an hour, error rate, minutes looked at, seeds, most minutes
    (30, 60, 0.5, 60, 2_000, 8.0),
    (30, 0, 0.5, 120, 2_000, None),
    (30, 0, 0.1, 200, 12_000, 0.8 * 66),  # so many that the standard error of the median is 0.3 minutes
    (30, 60, 0.1, 300, 1_000, None),
    (30, 0, 0.02, 2_000, 1_000, 0.8 * 527),
    (30, 60, 0.02, 1_000, 500, None),
    (60, 0, 0.5, 60, 1_000, None),
    (60, 0, 0.1, 200, 1_000, None),
    (60, 0, 0.02, 1_200, 500, None),
    (300, 0, 0.5, 60, 2_000, "workbook"),
    (300, 0, 0.1, 90, 2_000, "workbook"),
    (300, 0, 0.02, 300, 6_000, "workbook"),
    (3_000, 0, 0.5, 30, 500, "workbook"),
    (3_000, 0, 0.1, 60, 500, "workbook"),
    (3_000, 0, 0.02, 120, 500, "workbook"),
)
Delays = npt.NDArray[np.float64]


def run(rounds: int) -> list[Row]:
    """Simulate every cell; the seeds are fixed, so `rounds` changes nothing."""
    del rounds
    rows: list[Row] = []
    for number, (per_hour, probes, error_rate, minutes, seeds, most) in enumerate(CELLS):
        chance = np.random.default_rng([REPORTED_ON, 1, number])
        calm = traffic(chance, per_hour + probes, BUDGET / 2, BEFORE, seeds)
        harm = traffic(chance, per_hour + probes, error_rate, minutes, seeds)
        bad, total = (np.vstack(pair) for pair in zip(calm, harm, strict=True))
        ours = _delays(paging(bad, total))
        book = _delays(alerting(WORKBOOK, bad, total, BUDGET))
        theirs = _delays(alerting(pyrra(MINUTES_OF_30_DAYS), bad, total, BUDGET))
        name = f"{per_hour}/h{f' and {probes} probes' if probes else ''}, {error_rate:.0%} errors"
        target = float(np.median(book)) if most == "workbook" else most
        note = f"mean {_mean(ours)}; workbook {np.median(book):.0f} (mean {_mean(book)}), Pyrra {np.median(theirs):.0f}"
        rows.append(Row(name, float(np.median(ours)), "min", float(target) if target else None, "<=", note))
    return rows


def _delays(firing: npt.NDArray[np.bool_]) -> Delays:
    """Return the delays of those that were quiet when the harm began."""
    quiet = ~firing[BEFORE - 1]
    return first_minutes(firing[BEFORE:][:, quiet])


def _mean(delays: Delays) -> str:
    found = delays[np.isfinite(delays)]
    late = len(delays) - len(found)
    return f"{found.mean():.1f}" + (f", {late} not in time" if late else "")
