"""`history`: the queue with a million finished requests behind it, beside a long scan of the facts.

Compared with the same queue on an empty, quiet database.

Each side is a server of its own as `forestay up` starts it, the facts in their own database beside the queue's; the
rounds take turns. What is timed is one call at
the store at a time: a group of 32 submits, a claim of 20 with its finish, and the statuses of 100 requests.
"""

import asyncio
import contextlib
import dataclasses
import datetime as dt
import pathlib
import shutil
import statistics
import tempfile
import time
from collections.abc import AsyncIterator

import asyncpg
import uvloop

from bench.raw_queue import MODEL, finishes, make_submission
from bench.table import Row, median, ratio
from forestay.chance import SystemChance
from forestay.ids import BUCKETS, ReplicaId, RevisionId, WorkerId, first_request_id_at
from forestay.queue.partitions import make_partitions
from forestay.queue.postgres_store import open_queue_store
from forestay.queue.store import Offer, QueueStore
from forestay.settings import Queue
from forestay.storage.embedded import EmbeddedPostgres
from forestay.storage.objects import open_object_store
from forestay.storage.postgres import Database, migrate

FINISHED = 1_000_000
CALLS = 60  # of each kind, per round
SLOWER_AT_MOST = 1.3
KINDS = ("submit", "claim", "status")
Started = tuple[str, EmbeddedPostgres]  # the URL of the queue's database, and its server
Times = dict[str, float]  # median milliseconds by kind of call

_FINISHED_SQL = """
INSERT INTO finished_requests (
    request_id, tenant_id, key_id, model_id, endpoint, state, attempt, revision_id, replica_id, submitted_at,
    started_at, finished_at, inference_seconds, status_code, headers, body)
SELECT overlay(gen_random_uuid()::text placing left($1::text, 13) || '-7' from 1 for 15)::uuid, 't' || n % 50, 'k',
    'bench/m' || n % 20, '/', 'succeeded', 1, 'r', 'p', now() - interval '1 hour', now(), now(), 0.5, 200,
    '{"content-type": "application/json"}', convert_to('{"images": [{"url": "forestay-media://x/y.png"}]}', 'UTF8')
FROM generate_series(1, $2::int) AS n
"""
_FACTS_SQL = """
INSERT INTO request_facts (
    finished_at, request_id, lane, tenant_id, key_id, model_id, endpoint, attempts, state, outcome, status_code,
    submitted_at, started_at, device_seconds, work)
SELECT now() - n * interval '0.1 second', gen_random_uuid(), 'queue', 't' || n % 50, 'k', 'bench/m' || n % 20, '/', 1,
    'succeeded', 'succeeded', 200, now() - n * interval '0.1 second', now(), random(), '{"images": 1}'
FROM generate_series(1, $1::int) AS n
"""
_SCAN_SQL = """
SELECT model_id, tenant_id, count(*), percentile_cont(0.99) WITHIN GROUP (ORDER BY device_seconds)
FROM request_facts GROUP BY model_id, tenant_id
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Side:
    """One of the two databases with its store."""

    url: str
    store: QueueStore


async def times(store: QueueStore) -> Times:
    """Return the median milliseconds of each kind of call."""
    taken: dict[str, list[float]] = {kind: [] for kind in KINDS}
    offer = Offer(ReplicaId("r"), RevisionId("v"), MODEL, ((0, BUCKETS),), 20, idle=True)
    for _ in range(CALLS):
        items = [make_submission() for _ in range(32)]
        began = time.perf_counter()
        await store.submit(items, {})
        taken["submit"].append(time.perf_counter() - began)
        began = time.perf_counter()
        await store.snapshots([item.request_id for item in items] * 3)
        taken["status"].append(time.perf_counter() - began)
        began = time.perf_counter()
        leases = await store.claim(WorkerId("w"), [offer], 15.0)
        taken["claim"].append(time.perf_counter() - began)
        await store.finish(finishes(leases))
    while leases := await store.claim(WorkerId("w"), [offer], 15.0):
        await store.finish(finishes(leases))
    return {kind: statistics.median(values) * 1000 for kind, values in taken.items()}


async def fill(url: str, facts_url: str) -> None:
    """Put a million finished requests and their facts behind the queue."""
    first = str(first_request_id_at(dt.datetime.now(dt.UTC)))
    async with _unhurried(url) as connection:
        for _ in range(10):
            await connection.execute(_FINISHED_SQL, first, FINISHED // 10)
        await connection.execute("ANALYZE")
    async with _unhurried(facts_url) as connection:
        await connection.execute(_FACTS_SQL, FINISHED)
        await connection.execute("ANALYZE")


@contextlib.asynccontextmanager
async def _unhurried(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SET synchronous_commit = off")
        yield connection
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def scanning(url: str) -> AsyncIterator[None]:
    """Keep a long analytic query of the facts running."""

    async def scan() -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute("SET max_parallel_workers_per_gather = 0")
            while True:
                await connection.fetch(_SCAN_SQL)
        finally:
            connection.terminate()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(scan())
        yield
        task.cancel()


async def measure(servers: dict[str, Started], folder: pathlib.Path, rounds: int) -> dict[str, list[Times]]:
    """Fill one server and measure both in turn."""
    seen: dict[str, list[Times]] = {name: [] for name in servers}
    async with contextlib.AsyncExitStack() as stack:
        sides: dict[str, Side] = {}
        for name, (url, server) in servers.items():
            await migrate(url, kind="main")
            await migrate(server.facts_url, kind="facts")
            database = await Database.connect(
                url, pool_size=4, statement_timeout_seconds=60.0, application_name="forestay bench"
            )
            stack.push_async_callback(database.close)
            await make_partitions(database, dt.datetime.now(dt.UTC))
            objects = open_object_store((folder / name).as_uri())
            store = await stack.enter_async_context(open_queue_store(database, objects, Queue(), SystemChance()))
            sides[name] = Side(url, store)
            await times(store)  # warm-up
        full_url, full = servers["full"]
        await fill(full_url, full.facts_url)
        for _ in range(rounds):
            seen["empty"].append(await times(sides["empty"].store))
            async with scanning(full.facts_url):
                seen["full"].append(await times(sides["full"].store))
    return seen


def run(rounds: int) -> list[Row]:
    """Measure `rounds` rounds in turn."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="fs-bench-"))
    folder.chmod(0o755)
    servers = {name: EmbeddedPostgres(folder / name) for name in ("empty", "full")}
    try:
        for name in servers:
            (folder / name).mkdir()
        started = {name: (server.start(), server) for name, server in servers.items()}
        seen = uvloop.run(measure(started, folder, rounds))
    finally:
        for server in servers.values():
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    rows: list[Row] = []
    for kind in KINDS:
        empty, full = ([round_[kind] for round_ in seen[name]] for name in ("empty", "full"))
        rows.append(Row(f"{kind}, empty and quiet", median(empty), "ms"))
        rows.append(Row(f"{kind}, a million finished and a scan", median(full), "ms"))
        rows.append(Row(f"{kind}, full / empty", ratio(full, empty), "x", SLOWER_AT_MOST, "<="))
    return rows
