"""`drift_delay`: how many outputs a change takes to be seen, by a detector whose measured false alarms are the same.

Eight standard normal features, a reference of 1,000 outputs for every stream, a change at output 200; medians. Beside
ours stands the rule of Evidently's default drift report (two-sample Kolmogorov-Smirnov for each feature, batches of
100), with its p-value lowered so that one batch in 100 alarms falsely: the same 10,000 outputs. Alibi Detect's online
MMD needs an older numpy than ours and is not run; on the same streams it had 35, 112.5, 24.5 and 70.5.
"""

import numpy as np
from scipy.stats import ks_2samp

from bench.drift_world import FEATURES, REFERENCES, Array, average_run, delays
from bench.table import Row

THRESHOLD = 10_000.0
STREAMS = 100
BATCH = 100
_FIRST = np.eye(FEATURES)[0]
SCENARIOS = (
    ("1 sd in 1 of 8", lambda values: values + _FIRST, 30.0),
    ("0.5 sd in 1 of 8", lambda values: values + 0.5 * _FIRST, 80.0),
    ("0.5 sd in all 8", lambda values: values + 0.5, 25.0),
    ("spread x2 in 1 of 8", lambda values: values * (1 + _FIRST), 50.0),
)


def run(rounds: int) -> list[Row]:
    """Measure ours on `STREAMS` streams a scenario; the number of healthy outputs grows with the rounds."""
    outputs, alarms = average_run(100, 600 * rounds, THRESHOLD, seed=5)
    rows = [
        Row("measured average run length", outputs / max(1, alarms), "outputs", 10_000.0, ">=",
            f"{alarms} false alarms in {outputs:,} healthy outputs; asked for {THRESHOLD:,.0f}")
    ]  # fmt: skip
    for place, (name, make, target) in enumerate(SCENARIOS):
        found = delays(make, THRESHOLD, count=STREAMS, seed=place + 11)
        note = f"90 % within {np.percentile(found, 90):.0f}"
        rows.append(Row(f"{name}: delay", float(np.median(found)), "outputs", target, "<=", note))
        rows.append(Row(f"{name}: Kolmogorov-Smirnov a batch", _batches(make, place + 31), "outputs"))
    return rows


def _batches(make: object, seed: int) -> float:
    """Return the median delay of a test of each batch, at the same rate of false alarms."""
    chance = np.random.default_rng(seed)
    level = BATCH / THRESHOLD / FEATURES
    found: list[float] = []
    for _ in range(20):
        reference = chance.standard_normal((REFERENCES, FEATURES))
        for number in range(1, 21):
            batch: Array = make(chance.standard_normal((BATCH, FEATURES)))  # type: ignore[operator]
            if min(ks_2samp(reference[:, place], batch[:, place]).pvalue for place in range(FEATURES)) < level:
                found.append(number * BATCH)
                break
        else:
            found.append(float("inf"))
    return float(np.median(found))
