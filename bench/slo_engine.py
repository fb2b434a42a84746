"""`slo_engine`: 10,000 SLOs over 30 days of minutes, and one live tick of them.

Two processes, one a core, each replay 43,200 minutes of half of the SLOs: evidence, rules and budgets. The slower one's
processor time and the sum of their largest resident sizes count; making the traffic is not counted. Traffic is 3 to
3,000 requests an hour, one SLO in fifty has an hour of harm each day; counts come a day at a time, as from a store. A
live tick carries the whole fleet over one minute, with tickets, in one process, and puts what speaks in words.
"""

import multiprocessing
import resource
import time

import numpy as np
import numpy.typing as npt

from bench.slo_traces import slo
from bench.table import Row, median
from forestay.slo.decide import decide_slo
from forestay.slo.fleet import FleetEngine
from forestay.slo.ledger import BudgetLedger
from forestay.slo.model import MINUTES_OF_30_DAYS, Minute

SLOS, PROCESSES = 10_000, 2
DAY = 1_440
OBJECTIVES = (0.9, 0.95, 0.99, 0.995, 0.999, 0.9995)


def run(rounds: int) -> list[Row]:
    """Replay once in processes of their own, then time `rounds` live ticks."""
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        parts = pool.map(replay, range(PROCESSES), chunksize=1)
    seconds, megabytes = max(part[0] for part in parts), sum(part[1] for part in parts)
    pages = sum(part[2] for part in parts)
    ticks = live(max(rounds, 5))
    return [
        Row("replay of 30 days", seconds, "s", 60.0, "<=", f"{SLOS:,} SLOs in {PROCESSES} processes, {pages:,} pages"),
        Row("replay, largest resident size", megabytes, "MB", 512.0, "<="),
        Row(
            "a live tick", 1000 * median(ticks), "ms", 250.0, "<=", f"slowest of {len(ticks)}: {1000 * max(ticks):.0f}"
        ),
    ]


def replay(part: int) -> tuple[float, float, int]:
    """Return (seconds, megabytes, pages opened) of 30 days of a part; making the traffic is not counted."""
    engine, ledger, chance = *_fleet(range(part, SLOS, PROCESSES)), np.random.default_rng([3, part])
    spent, pages = 0.0, 0
    for first in range(0, MINUTES_OF_30_DAYS, DAY):
        day = _day(engine, chance)
        began = time.process_time()
        for minute in range(DAY):
            now = Minute(first + minute)
            before = engine.paging
            counts = day[minute].astype(np.float64)
            engine.tick(now, counts)
            ledger.tick(now, counts)
            pages += int(np.count_nonzero(engine.paging & ~before))
        spent += time.process_time() - began
    return spent, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000, pages


def live(count: int) -> list[float]:
    """Return the seconds of `count` ticks of a fleet that has run for six hours, some of it burning."""
    engine, ledger, chance = *_fleet(range(SLOS)), np.random.default_rng(4)
    day = _day(engine, chance)
    took: list[float] = []
    for minute in range(360 + count * 5):
        now = Minute(minute)
        began = time.perf_counter()
        counts = day[minute].astype(np.float64)
        engine.tick(now, counts)
        ledger.tick(now, counts)
        speaking = np.flatnonzero(engine.paging | engine.ticketing)
        for index in speaking:
            decide_slo(engine.state_of(int(index)), now)
        if minute >= 360 and (minute + 1) % 5 == 0:
            took.append(time.perf_counter() - began)
    return took


def _fleet(numbers: range) -> tuple[FleetEngine, BudgetLedger]:
    slos = [slo(number, OBJECTIVES[number // PROCESSES % len(OBJECTIVES)]) for number in numbers]
    return FleetEngine(slos), BudgetLedger(slos, Minute(0))


def _day(engine: FleetEngine, chance: np.random.Generator) -> npt.NDArray[np.uint16]:
    """Return `[1440, 2, n]`, bad and all requests, of a day."""
    count = engine.count
    hourly = 3 * 1000 ** (np.arange(count) / count)
    rates = np.broadcast_to(engine.budget / 2, (24, count)).copy()
    hurt = chance.choice(count, count // 50, replace=False)
    rates[chance.integers(0, 24, len(hurt)), hurt] = 0.3
    day = np.empty((DAY, 2, count), dtype=np.uint16)
    for hour in range(24):
        rows = slice(hour * 60, hour * 60 + 60)
        day[rows, 1] = chance.poisson(hourly / 60, (60, count))
        day[rows, 0] = chance.binomial(day[rows, 1], rates[hour])
    return day
