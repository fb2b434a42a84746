"""procrastinate on the given Postgres: enqueue one by one from N clients, then process with one worker process.

`queue_procrastinate.py DSN JOBS CLIENTS [PROCESSED]` prints {"enqueue_per_second": .., "process_per_second": ..}.
"""

import asyncio
import contextlib
import json
import sys
import time

import procrastinate
from procrastinate import PsycopgConnector


async def main() -> None:
    """Measure both in a schema of its own."""
    dsn, jobs, clients = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    wanted = int(sys.argv[4]) if len(sys.argv) > 4 else jobs
    app = procrastinate.App(connector=PsycopgConnector(conninfo=dsn, min_size=clients, max_size=clients))
    seen = 0
    began = 0.0
    done = asyncio.Event()

    @app.task(name="noop")
    async def noop(prompt: str) -> None:
        nonlocal seen, began
        began = began or time.perf_counter()
        seen += 1 if prompt else 0
        if seen >= wanted:
            done.set()

    async with app.open_async():
        await app.connector.execute_query_async("DROP SCHEMA public CASCADE")
        await app.connector.execute_query_async("CREATE SCHEMA public")
        await app.schema_manager.apply_schema_async()

        async def client() -> None:
            for _ in range(jobs // clients):
                await noop.defer_async(prompt="a red seven")

        started = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(clients)))
        enqueued = (jobs // clients) * clients / (time.perf_counter() - started)
        wanted = min(wanted, (jobs // clients) * clients)
        task = asyncio.create_task(app.run_worker_async(concurrency=20, install_signal_handlers=False))
        await asyncio.wait_for(done.wait(), 120)
        processed = wanted / (time.perf_counter() - began)
        print(json.dumps({"enqueue_per_second": enqueued, "process_per_second": processed}), flush=True)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await asyncio.wait_for(task, 10)


asyncio.run(main())
