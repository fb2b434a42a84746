"""`queue`: claim and finish of no-op requests by one worker process, beside three queues on the same Postgres.

Every round runs us and each peer once, in turn, on the same embedded server with fsync on. A peer's job counts
when it is acknowledged in the database; a request of ours when its answer, its facts and its leaving the queue are
committed.
"""

import asyncio
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import asyncpg

from bench.peers.queues import PEERS, measure
from bench.table import Row, median, ratio
from forestay.storage.embedded import EmbeddedPostgres

REQUESTS = 10_000
PEER_DATABASE = "peer"


async def make_database(superuser_url: str, name: str) -> str:
    """Create an empty database and return its URL for the superuser."""
    connection = await asyncpg.connect(superuser_url)
    try:
        await connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
    finally:
        await connection.close()
    return superuser_url.replace("@/postgres?", f"@/{name}?")


def run_ours(url: str) -> dict[str, float]:
    """Run our side in a process of its own, as the peers run in theirs."""
    command = [sys.executable, "-m", "bench.raw_queue", "--url", url, "--requests", str(REQUESTS)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=180)
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))


def run(rounds: int) -> list[Row]:
    """Measure `rounds` interleaved rounds."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="fs-bench-"))
    folder.chmod(0o755)
    server = EmbeddedPostgres(folder)
    ours: list[float] = []
    theirs: dict[str, list[float]] = {peer.name: [] for peer in PEERS}
    try:
        server.start()
        for _ in range(rounds):
            url = asyncio.run(make_database(server.superuser_url, "ours"))
            ours.append(run_ours(url)["process_per_second"])
            for peer in PEERS:
                peer_url = asyncio.run(make_database(server.superuser_url, PEER_DATABASE))
                theirs[peer.name].append(measure(peer, peer_url)["process_per_second"])
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    rows = [Row("Forestay, claimed and finished", median(ours), "requests/s")]
    rows += [Row(f"{name}, processed", median(values), "jobs/s") for name, values in theirs.items()]
    rows += [Row(f"Forestay / {p.name}", ratio(ours, theirs[p.name]), "x", p.process_target) for p in PEERS]
    return rows
