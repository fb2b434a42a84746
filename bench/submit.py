"""`submit`: submits through HTTP, acknowledged after commit with fsync on, beside three queues on the same Postgres.

We pay for HTTP, the key, the model's look-up and the commit; the peers enqueue from Python with 32 connections of their
own and pay for the commit alone. Two gateways, one for each core. The model's server does not exist, so nothing is
claimed meanwhile. Each round runs us and each peer once, one after another.
"""

import asyncio
import pathlib
import shutil
import tempfile

from tests.platform.platform import RunningPlatform

from bench.load import Call, load
from bench.peers.queues import CLIENTS, PEERS, measure
from bench.queue import PEER_DATABASE, make_database
from bench.table import Row, median, ratio
from forestay.storage.embedded import EmbeddedPostgres

SECONDS = 5
SPEC = """\
version: 0
model: bench/nobody
description: A model whose server does not exist, so that its requests stay in the queue.
owner: {team: bench, contact: bench@forestay.invalid}
licence: Apache-2.0
visibility: shared
host: {kind: http_server, url: "http://127.0.0.1:9"}
endpoints: [{path: /}]
"""


def run(rounds: int) -> list[Row]:
    """Measure `rounds` interleaved rounds."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="fs-bench-"))
    folder.chmod(0o755)
    try:
        (folder / "model.yaml").write_text(SPEC)
        fleet = folder / "fleet.yaml"
        fleet.write_text("models: [model.yaml]\n")
        with RunningPlatform("--tls-port", "-1", "--gateways", "2", data_dir=folder, fleet=fleet) as platform:
            return _measure(platform, rounds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _measure(platform: RunningPlatform, rounds: int) -> list[Row]:
    superuser_url = EmbeddedPostgres(platform.data_dir).superuser_url
    call = Call(
        "POST",
        '{"prompt": "a red seven on a dark background"}',
        {"Authorization": f"Key {platform.api_key}", "Content-Type": "application/json"},
    )
    ours: list[float] = []
    failed = 0
    theirs: dict[str, list[float]] = {peer.name: [] for peer in PEERS}
    load(f"{platform.url}/queue/bench/nobody", call, connections=CLIENTS, seconds=1)  # warm-up
    for _ in range(rounds):
        seen = load(f"{platform.url}/queue/bench/nobody", call, connections=CLIENTS, seconds=SECONDS)
        ours.append(seen.per_second)
        failed += seen.failed
        for peer in PEERS:
            peer_url = asyncio.run(make_database(superuser_url, PEER_DATABASE))
            theirs[peer.name].append(measure(peer, peer_url)["enqueue_per_second"])
    rows = [Row("Forestay, submitted over HTTP", median(ours), "requests/s", note=f"{CLIENTS} clients, fsync on")]
    rows += [Row(f"{name}, enqueued without HTTP", median(values), "jobs/s") for name, values in theirs.items()]
    rows += [Row(f"Forestay / {p.name}", ratio(ours, theirs[p.name]), "x", p.submit_target) for p in PEERS]
    rows.append(Row("submits that failed", failed, "requests", 0, "<="))
    return rows
