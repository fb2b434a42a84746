"""`drift_arl`: whether the promised rate of false alarms holds with references of 1,000 outputs.

Ten groups of seeds; in each, healthy streams with references of their own are followed, and the average run length is
all outputs divided by all false alarms. The lower bound is exact for a Poisson number of alarms (F. Garwood, 1936).
"""

from scipy.stats import chi2

from bench.drift_world import average_run
from bench.table import Row

THRESHOLD = 10_000.0
GROUPS = 10
STREAMS = 50


def run(rounds: int) -> list[Row]:
    """Follow 50 streams a group for 500 outputs a round."""
    lengths: list[float] = []
    total, wrong = 0, 0
    for group in range(GROUPS):
        outputs, alarms = average_run(STREAMS, 500 * rounds, THRESHOLD, seed=100 + group)
        lengths.append(outputs / max(1, alarms))
        total, wrong = total + outputs, wrong + alarms
    lower = total / (float(chi2.ppf(0.975, 2 * (wrong + 1))) / 2)
    note = f"{wrong} false alarms in {total:,} outputs"
    return [
        Row("groups at or above 10,000", sum(length >= THRESHOLD for length in lengths), "of 10", 9, ">=", note),
        Row("average run length", total / max(1, wrong), "outputs"),
        Row("its lower 95 % bound", lower, "outputs"),
        Row("lowest group", min(lengths), "outputs"),
    ]
