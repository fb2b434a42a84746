"""`notify_faults`: 10,000 schedules of crash, retry and partition in notification, and some over the real database.

Each schedule is a world of its own (`notify_world`): truth comes and goes, two controllers decide and send over each
other, the network and the receivers fail in every way that is listed there; then it is calm until nothing moves.
Counted at receivers that honour the id: what was never heard, what had two effects, and what was heard out of order.
Beside it stands what the same schedules do to a sender that tries once and to receivers that honour no id. All is
drawn from seeds; the clock is the world's.
"""

import asyncio
import concurrent.futures
import multiprocessing
import os
import shutil
import tempfile
import time
from pathlib import Path

from tests.conformance.memory_alerts import MemoryAlerts, MemoryOutbox

from bench.notify_world import Schedule, Tally
from bench.table import Row
from forestay.alerts.postgres_outbox import PostgresOutbox
from forestay.alerts.postgres_store import PostgresAlerts
from forestay.storage.embedded import EmbeddedPostgres
from forestay.storage.postgres import Database, migrate

SCHEDULES = 10_000
REAL_SCHEDULES = 200
_EMPTY = (
    "TRUNCATE alerts, alert_groups, alert_events, alert_acks, alert_silences, alert_notifications;"
    "UPDATE alert_head SET version = 0"
)


async def in_memory(count: int) -> Tally:
    """Run so many schedules over the model of the store."""
    total = Tally()
    for seed in range(count):
        outbox = MemoryOutbox()
        total.add(await Schedule(seed, MemoryAlerts(outbox), outbox).run())
    return total


async def in_postgres(url: str, count: int) -> Tally:
    """Run so many schedules over the real store, each on emptied tables."""
    await migrate(url, kind="main")
    database = await Database.connect(
        url, pool_size=2, statement_timeout_seconds=30.0, application_name="forestay bench"
    )
    total = Tally()
    try:
        for seed in range(count):
            await database.execute(_EMPTY)
            total.add(await Schedule(1_000_000 + seed, PostgresAlerts(database), PostgresOutbox(database)).run())
    finally:
        await database.close()
    return total


def timed_model(count: int) -> tuple[Tally, float]:
    """Run the schedules over the model; returns the seconds of CPU that they took as well."""
    cpu = time.process_time()
    return asyncio.run(in_memory(count)), time.process_time() - cpu


def run(_rounds: int) -> list[Row]:
    """Run both, beside each other, and say what came of them; seeds make rounds needless."""
    began = time.perf_counter()
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        running = pool.submit(timed_model, SCHEDULES)
        real = _real()
        model, model_seconds = running.result()
    seconds = time.perf_counter() - began
    rows = [*_rows("model", model, SCHEDULES), *_rows("Postgres", real, REAL_SCHEDULES)]
    return [
        *rows,
        Row("model: faults", model.faults, "faults", note=f"in {SCHEDULES:,} schedules; {model_seconds:.0f} s of CPU"),
        Row("model: effects at receivers", model.effects, "effects"),
        Row("a sender that tries once: lost", model.naive_lost, "notifications", note="the same schedules"),
        Row("receivers that honour no id: doubled", model.naive_doubles, "arrivals", note="the same schedules"),
        Row("wall-clock time", seconds, "s", note=f"{os.cpu_count()} cores"),
    ]


def _rows(where: str, tally: Tally, schedules: int) -> list[Row]:
    note = f"{schedules:,} schedules"
    return [
        Row(f"{where}: lost", tally.lost, "notifications", 0, "<=", note),
        Row(f"{where}: duplicate effects", tally.doubled, "effects", 0, "<=", note),
        Row(f"{where}: ends missing or out of order", tally.disordered, "alerts", 0, "<=", note),
        Row(f"{where}: never came to rest", tally.unsettled, "schedules", 0, "<=", note),
    ]


def _real() -> Tally:
    folder = Path(tempfile.mkdtemp(prefix="forestay-bench-"))
    server = EmbeddedPostgres(folder)
    try:
        return asyncio.run(in_postgres(server.start(), REAL_SCHEDULES))
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
