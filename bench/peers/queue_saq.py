"""SAQ on the given Postgres: enqueue one by one from N clients, then process all with one worker process.

`queue_saq.py DSN JOBS CLIENTS` prints {"enqueue_per_second": .., "process_per_second": ..}.
"""

import asyncio
import contextlib
import json
import os
import sys
import time

from psycopg_pool import AsyncConnectionPool
from saq import Worker
from saq.queue.postgres import PostgresQueue

seen = 0
began = 0.0
wanted = 0
done = asyncio.Event()


async def noop(_context: object, **_arguments: object) -> None:
    """Count one job."""
    global seen, began  # noqa: PLW0603 - SAQ's functions are plain module functions
    began = began or time.perf_counter()
    seen += 1
    if seen >= wanted:
        done.set()


async def main() -> None:
    """Measure both in a schema of its own."""
    global wanted  # noqa: PLW0603
    dsn, jobs, clients = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    pool = AsyncConnectionPool(dsn, min_size=clients, max_size=clients, open=False, kwargs={"autocommit": True})
    queue = PostgresQueue(pool=pool, max_size=clients, min_size=clients)
    await pool.open()
    async with pool.connection() as connection:
        await connection.execute("DROP SCHEMA public CASCADE")
        await connection.execute("CREATE SCHEMA public")
    await queue.connect()

    async def client() -> None:
        for _ in range(jobs // clients):
            await queue.enqueue("noop", prompt="a red seven")

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    enqueued = (jobs // clients) * clients / (time.perf_counter() - started)
    wanted = min((jobs // clients) * clients, int(sys.argv[4]) if len(sys.argv) > 4 else jobs)
    worker = Worker(queue, functions=[noop], concurrency=20)
    task = asyncio.create_task(worker.start())
    await asyncio.wait_for(done.wait(), 120)
    processed = wanted / (time.perf_counter() - began)
    print(json.dumps({"enqueue_per_second": enqueued, "process_per_second": processed}), flush=True)
    with contextlib.suppress(asyncio.CancelledError, asyncio.TimeoutError, Exception):
        await asyncio.wait_for(worker.stop(), 5)
    task.cancel()
    sys.stdout.flush()
    os._exit(0)  # its shutdown waits for jobs that nobody wants any more


asyncio.run(main())
