"""pgqueuer on the given Postgres: enqueue one by one from N clients, then process all with one worker process.

`queue_pgqueuer.py DSN JOBS CLIENTS` prints {"enqueue_per_second": .., "process_per_second": ..}.
"""

import asyncio
import contextlib
import json
import sys
import time

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.queries import Queries


async def enqueue(dsn: str, jobs: int, clients: int) -> float:
    """Enqueue `jobs` from `clients` connections, each awaiting every answer; returns jobs per second."""
    pool = await asyncpg.create_pool(dsn, min_size=clients, max_size=clients)
    queries = Queries.from_asyncpg_pool(pool)

    async def client() -> None:
        for _ in range(jobs // clients):
            await queries.enqueue("noop", b'{"prompt": "a red seven"}')

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    took = time.perf_counter() - began
    await pool.close()
    return (jobs // clients) * clients / took


async def process(dsn: str, jobs: int) -> float:
    """Process `jobs` no-ops with one worker, batches of 20, until all are acknowledged; returns jobs per second."""
    connection = await asyncpg.connect(dsn)
    queuer = PgQueuer.from_asyncpg_connection(connection)
    done = asyncio.Event()
    seen = 0
    began = 0.0

    @queuer.entrypoint("noop")
    async def noop(_job: object) -> None:
        nonlocal seen, began
        began = began or time.perf_counter()
        seen += 1
        if seen >= jobs:
            done.set()

    task = asyncio.create_task(queuer.run(batch_size=20))
    await asyncio.wait_for(done.wait(), 120)
    watcher = await asyncpg.connect(dsn)
    while await watcher.fetchval("SELECT count(*) FROM pgqueuer"):  # finished means acknowledged in the database
        await asyncio.sleep(0.005)
    took = time.perf_counter() - began
    await watcher.close()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await task
    return jobs / took


async def main() -> None:
    """Install the schema, measure both, remove the schema."""
    dsn, jobs, clients = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    connection = await asyncpg.connect(dsn)
    queries = Queries.from_asyncpg_connection(connection)
    await connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    await queries.install()
    enqueued = await enqueue(dsn, jobs, clients)
    processed = await process(dsn, (jobs // clients) * clients)
    await connection.close()
    print(json.dumps({"enqueue_per_second": enqueued, "process_per_second": processed}), flush=True)


asyncio.run(main())
