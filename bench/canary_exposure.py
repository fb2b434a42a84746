"""`canary_exposure`: how many candidate requests are exposed until the rollback, at a false rollback of at most 1 %.

One hour, ten percent of the traffic, control errors of 1 %. Ours is the default policy with every mark and its slices'
share (ten marks looked at together), and beside it the error mark alone, which is what the rivals look at. The plain
e-process counts with the better of our own run and what was once measured of it elsewhere (`PUBLISHED`). Flagger is
tuned for each traffic on other seeds than are reported; `--rounds N` takes 400 N seeds. A miss counts as an infinite
exposure.
"""

import math

import numpy as np

from bench import canary_world as world
from bench.canary_world import Arm
from bench.table import Row

TUNING_SEED, SEED = 100_000, 1
TRAFFIC = (60.0, 300.0, 600.0)
ERRORS = (0.05, 0.10, 0.30)
PUBLISHED = {
    (60.0, 0.05): 166,
    (60.0, 0.1): 64,
    (60.0, 0.3): 21,
    (600.0, 0.05): 234,
    (600.0, 0.1): 124,
    (600.0, 0.3): 62,
}
TAIL, QUALITY = Arm(slow=0.10), Arm(quality_sigmas=-0.5)


def run(rounds: int) -> list[Row]:
    """Measure every cell."""
    seeds = 400 * rounds
    rows: list[Row] = []
    against_plain: list[float] = []
    alone: list[float] = []
    for number, per_minute in enumerate(TRAFFIC):
        rows += _false_rollbacks(seeds, SEED + 10 * number, per_minute)
        setting = world.tuned_flagger(seeds, TUNING_SEED + number, per_minute, ERRORS)
        for place, errors in enumerate(ERRORS):
            seed = SEED + 1_000 * (number + 1) + place
            family = world.ours(seeds, seed, per_minute, Arm(errors=errors))
            single = world.ours(seeds, seed, per_minute, Arm(errors=errors), ("errors",))
            own_plain = world.median(world.plain(seeds, seed, per_minute, errors))
            yardstick = min(own_plain, PUBLISHED.get((per_minute, errors), math.inf))
            against_plain.append(world.median(family) / yardstick)
            alone.append(world.median(single) / yardstick)
            rows += _cell(seeds, seed, (per_minute, errors, *setting), family, yardstick)
        rows += _others(seeds, SEED + 5_000 + number, per_minute)
    rows.append(
        Row("exposure against the plain e-process, all marks", _mean(against_plain), "x, geometric mean", 0.8, "<=")
    )
    rows.append(Row("exposure against the plain e-process, errors alone", _mean(alone), "x, geometric mean", 0.8, "<="))
    return rows


def _mean(ratios: list[float]) -> float:
    return math.exp(sum(math.log(ratio) for ratio in ratios) / len(ratios))


def _false_rollbacks(seeds: int, seed: int, per_minute: float) -> list[Row]:
    found = world.caught(world.ours(seeds, seed, per_minute, world.HEALTHY))
    single = world.caught(world.ours(seeds, seed + 1, per_minute, world.HEALTHY, ("errors",)))
    chance = np.random.default_rng(seed)
    usual = world.flagger(*world.minutes_of(chance, seeds, per_minute * world.WEIGHT, world.BASE_ERRORS), 0.99, 5)
    name = f"{per_minute:g}/min, healthy: rolled back"
    return [
        Row(name, 100 * found, "%", 1.0, "<=", "all marks"),
        Row(f"{name}, errors alone", 100 * single, "%", 1.0, "<="),
        Row(f"{name}, Flagger 99 %, 5 checks", 100 * world.caught(usual), "%"),
    ]


def _cell(seeds: int, seed: int, cell: tuple[float, float, float, int], family: world.Array, plain: float) -> list[Row]:
    per_minute, errors, success, failures = cell
    chance = np.random.default_rng(seed)
    requests, failed = world.minutes_of(chance, seeds, per_minute * world.WEIGHT, errors)
    rival = world.flagger(requests, failed, success, failures)
    few = slice(0, min(seeds, 300))
    base_requests, base_failed = world.minutes_of(chance, seeds, per_minute * world.WEIGHT, world.BASE_ERRORS)
    theirs = world.kayenta(
        (failed / np.maximum(requests, 1))[few], (base_failed / np.maximum(base_requests, 1))[few], requests[few]
    )
    name = f"{per_minute:g}/min, errors {100 * errors:g} %"
    limit = world.median(rival)
    note = f"rolled back in {100 * world.caught(family):.0f} %; P90 {world.quantile(family, 0.9):g}"
    tuned = f"success {100 * success:g} %, {failures} checks, tuned for this traffic"
    return [
        Row(f"{name}: ours", world.median(family), "requests", limit, "<=", note),
        Row(f"{name}: plain e-process", plain, "requests"),
        Row(f"{name}: Flagger", limit, "requests", note=f"{tuned}; {100 * world.caught(rival):.0f} %"),
        Row(f"{name}: Kayenta", world.median(theirs), "requests", note=f"{100 * world.caught(theirs):.0f} %"),
    ]


def _others(seeds: int, seed: int, per_minute: float) -> list[Row]:
    """Measure a slow tail (one request in ten takes three times as long) and a quality lower by half a sigma."""
    rows: list[Row] = []
    chance = np.random.default_rng(seed)
    few = min(seeds, 300)
    requests, _ = world.minutes_of(chance, few, per_minute * world.WEIGHT, 0.0)
    others, _ = world.minutes_of(chance, few, per_minute * world.WEIGHT, 0.0)

    def latency(n: int) -> world.Array:
        return chance.lognormal(0.0, world.LATENCY_SIGMA, n)

    def tail(n: int) -> world.Array:
        return latency(n) * np.where(chance.random(n) < TAIL.slow, 3.0, 1.0)

    def quality(n: int) -> world.Array:
        return 5.0 - chance.normal(0.0, 1.0, n)  # as a loss, so that more is worse

    def lower_quality(n: int) -> world.Array:
        return quality(n) - QUALITY.quality_sigmas

    cases = (("latency tail", TAIL, tail, latency), ("quality shift", QUALITY, lower_quality, quality))
    for name, arm, bad, good in cases:
        found = world.ours(seeds, seed, per_minute, arm)
        theirs = world.kayenta(world.minute_means(requests, bad), world.minute_means(others, good), requests)
        note = f"rolled back in {100 * world.caught(found):.0f} %; P90 {world.quantile(found, 0.9):g}"
        rows.append(Row(f"{per_minute:g}/min, {name}: ours", world.median(found), "requests", note=note))
        caught = f"rolled back in {100 * world.caught(theirs):.0f} %"
        rows.append(Row(f"{per_minute:g}/min, {name}: Kayenta", world.median(theirs), "requests", note=caught))
    return rows
