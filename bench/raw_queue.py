"""How fast the queue is at its store, without HTTP: group-committed submits, and claim + finish of no-op requests.

`python -m bench.raw_queue [--url URL] [--rounds R]` prints one line of JSON a round; without a URL it starts
an embedded Postgres with fsync on in a temporary folder. For profiling; `bench.queue` and `bench.submit` compare.
"""

import argparse
import asyncio
import dataclasses
import datetime as dt
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop

from forestay.chance import SystemChance
from forestay.ids import BUCKETS, KeyId, ModelId, ReplicaId, RevisionId, TenantId, WorkerId, new_request_id
from forestay.queue.model import Answer, AttemptReport, Finish, Lease, Outcome, State, Submission
from forestay.queue.partitions import make_partitions
from forestay.queue.postgres_store import open_queue_store
from forestay.queue.store import Offer, QueueStore
from forestay.settings import Queue
from forestay.storage.embedded import EmbeddedPostgres
from forestay.storage.objects import open_object_store
from forestay.storage.postgres import Database, migrate

MODEL = ModelId("bench/noop")
_chance = SystemChance()


@dataclasses.dataclass(frozen=True, slots=True)
class Size:
    """How much to do."""

    requests: int
    clients: int
    batch: int
    lanes: int


def make_submission() -> Submission:
    """Make a small request."""
    now = dt.datetime.now(dt.UTC)
    request_id = new_request_id(now, 0, _chance)
    body = b'{"prompt": "a red seven on a dark background", "seed": 7}'
    return Submission(request_id, TenantId("t"), KeyId("k"), MODEL, "/", body, now, fingerprint=request_id.bytes)


async def submit_all(store: QueueStore, size: Size) -> float:
    """Submit from concurrent clients, each waiting for its acknowledgement; returns seconds."""
    left = size.requests

    async def client() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await store.submit([make_submission()], {})

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(size.clients):
            group.create_task(client())
    return time.perf_counter() - started


def finishes(leases: Sequence[Lease]) -> list[Finish]:
    """Answer no-op requests."""
    now = dt.datetime.now(dt.UTC)
    report = AttemptReport(Outcome.SUCCEEDED, now, now, now, 0.0)
    answer = Answer(200, {"content-type": "application/json"}, b'{"ok": true}')
    return [Finish(lease, State.SUCCEEDED, answer, report) for lease in leases]


async def work_all(store: QueueStore, size: Size) -> float:
    """Claim and finish in batches over a few lanes of one process until the queue is empty; returns seconds."""
    done = 0

    async def lane(number: int) -> None:
        nonlocal done
        offer = Offer(ReplicaId(f"r{number}"), RevisionId("v"), MODEL, ((0, BUCKETS),), size.batch, idle=True)
        while True:
            leases = await store.claim(WorkerId("w"), [offer], 15.0)
            if not leases:
                return
            finished = await store.finish(finishes(leases))
            done += len(finished)

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(size.lanes):
            group.create_task(lane(number))
    assert done == size.requests, (done, size.requests)  # noqa: S101 - a benchmark that loses requests is void
    return time.perf_counter() - started


async def measure(url: str, folder: Path, size: Size, rounds: int) -> dict[str, float]:
    """Run both parts on a migrated database `rounds` times; returns the last round's rates."""
    await migrate(url, kind="main")
    database = await Database.connect(
        url, pool_size=8, statement_timeout_seconds=60.0, application_name="forestay bench"
    )
    objects = open_object_store((folder / "objects").as_uri())
    await make_partitions(database, dt.datetime.now(dt.UTC))
    rates: dict[str, float] = {}
    async with open_queue_store(database, objects, Queue(), SystemChance()) as store:
        for _ in range(rounds):
            rates["enqueue_per_second"] = size.requests / await submit_all(store, size)
            rates["process_per_second"] = size.requests / await work_all(store, size)
            print(json.dumps({name: round(rate) for name, rate in rates.items()}), flush=True)
    await database.close()
    return rates


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="", help="an empty Postgres database; an embedded one is started without it")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--lanes", type=int, default=3)
    arguments = parser.parse_args()
    size = Size(arguments.requests, arguments.clients, arguments.batch, arguments.lanes)
    folder = Path(tempfile.mkdtemp(prefix="forestay-bench-"))
    server = EmbeddedPostgres(folder)
    try:
        url = arguments.url or server.start()
        uvloop.run(measure(url, folder, size, arguments.rounds))
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
