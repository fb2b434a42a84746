"""`drift_fleet`: a thousand healthy streams and twenty changed ones under one rate of false alarms for all of them.

Each stream has a reference of its own; the changes (1 sd in one of eight features) begin between outputs 300 and 900.
Every 50 outputs `decide_fleet` (e-BH) names the streams that have changed; who was named once counts as alarmed.
Beside it, each stream alone at a p-value of .05, as batches of 100 are tested.
"""

import numpy as np

from bench.drift_world import FEATURES, Array, Fleet
from bench.table import Row
from forestay.quality.drift import decide_fleet

HEALTHY, CHANGED = 1_000, 20
RATE = 0.1


def run(rounds: int) -> list[Row]:
    """Follow all of them for 250 outputs a round."""
    outputs = 250 * rounds
    chance = np.random.default_rng(9)
    fleet = Fleet(HEALTHY + CHANGED, chance, staked=True)
    starts = np.full(HEALTHY + CHANGED, outputs + 1)
    starts[HEALTHY:] = chance.integers(outputs // 4, 3 * outputs // 4, CHANGED)
    where = np.eye(FEATURES)[chance.integers(0, FEATURES, HEALTHY + CHANGED)]

    def change(number: int, values: Array) -> Array:
        return values + where * (number > starts)[:, None]

    alarmed: set[str] = set()
    for number in range(1, outputs + 1):
        evidence = fleet.step(change)
        if number % 50 == 0:
            alarmed |= set(decide_fleet({str(place): float(e) for place, e in enumerate(evidence)}, RATE))
    right = sum(int(name) >= HEALTHY for name in alarmed)
    wrong = len(alarmed) - right
    per_stream = 1 - 0.95 ** (outputs / 100)
    return [
        Row("false among alarmed", 100 * wrong / max(1, len(alarmed)), "%", 10.0, "<=", f"{len(alarmed)} alarmed"),
        Row("changed streams found", right, "of 20", 19, ">=", f"{outputs:,} outputs a stream"),
        Row("false among alarmed, each stream alone at .05", 100 * 1000 * per_stream / (1000 * per_stream + 20), "%",
            note="by arithmetic"),
    ]  # fmt: skip
