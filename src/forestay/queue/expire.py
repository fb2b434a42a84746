"""The loop that ends requests past a deadline.

It decides nothing: the store's clock says what is late. The controller runs it about every half second under its
leader lease.
"""

from forestay.queue.store import QueueStore
from forestay.storage.valkey import Wakeups

BATCH = 500
_MOST_BATCHES = 200


async def run_once(store: QueueStore, wakeups: Wakeups) -> int:
    """End every request whose time to start or total time has passed; returns how many."""
    total = 0
    for _ in range(_MOST_BATCHES):
        ended = await store.expire(BATCH)
        total += len(ended)
        if ended:
            await wakeups.publish("forestay:changed", " ".join(request_id.hex for request_id in ended))
            await wakeups.publish("forestay:webhooks", "")
        if len(ended) < BATCH:
            break
    return total
