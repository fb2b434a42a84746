"""The loop that gives requests of dead workers back to the queue.

It decides nothing (queue/retry does); it repeats until nothing is left, so that a dead rack is rescued in one run. The
controller runs it about every second under its leader lease.
"""

from forestay.queue.model import State
from forestay.queue.store import QueueStore
from forestay.storage.valkey import Wakeups

BATCH = 500
_MOST_BATCHES = 200


async def run_once(store: QueueStore, wakeups: Wakeups) -> int:
    """Rescue every request whose lease has run out; returns how many."""
    total = 0
    for _ in range(_MOST_BATCHES):
        rescued = await store.rescue(BATCH)
        total += len(rescued)
        if not rescued:
            break
        await wakeups.publish("forestay:changed", " ".join(request_id.hex for request_id, _ in rescued))
        if any(state is State.FAILED for _, state in rescued):
            await wakeups.publish("forestay:webhooks", "")
        if any(state is State.QUEUED for _, state in rescued):
            await wakeups.publish("forestay:queue", "")
        if len(rescued) < BATCH:
            break
    return total
