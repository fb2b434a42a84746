"""The three best Python queues on a given Postgres, one fresh schema each, for the `submit` and `queue` benches."""

import dataclasses

from bench.peers.environment import peer_python, run_peer

PACKAGES = (
    "pgqueuer[asyncpg]==1.6.0",
    "saq[postgres]==0.26.4",
    "procrastinate==3.10.0",
    "asyncpg==0.32.0",
    "uvloop==0.23.0",
)
CLIENTS = 32
JOBS = 2_000  # enqueued and, by pgqueuer, processed
PROCESSED = 500  # by the two slow ones
TIMEOUT_SECONDS = 180.0


@dataclasses.dataclass(frozen=True, slots=True)
class QueuePeer:
    """A queue and how many times faster than it we must be."""

    name: str
    script: str
    submit_target: float
    process_target: float


PEERS = (
    QueuePeer("pgqueuer", "queue_pgqueuer.py", 5.0, 4.0),
    QueuePeer("SAQ", "queue_saq.py", 2.5, 20.0),
    QueuePeer("procrastinate", "queue_procrastinate.py", 3.0, 20.0),
)


def measure(peer: QueuePeer, url: str) -> dict[str, float]:
    """Run one peer once: {"enqueue_per_second": .., "process_per_second": ..}."""
    return run_peer(
        peer_python("queues", PACKAGES), peer.script, [url, str(JOBS), str(CLIENTS), str(PROCESSED)], TIMEOUT_SECONDS
    )
