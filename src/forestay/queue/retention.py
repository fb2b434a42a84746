"""The loop that makes room: partitions for the coming days, and nothing kept longer than promised.

It decides what is too old. Rows go before objects: a crash in between leaves an object without a row, never a row
without its object. The controller runs it every few minutes under its leader lease.
"""

import datetime as dt

from forestay.clock import Clock
from forestay.queue.partitions import make_partitions
from forestay.queue.store import QueueStore
from forestay.storage.objects import ObjectStore
from forestay.storage.postgres import Database

_KEYS_AT_ONCE = 500


async def run_once(
    store: QueueStore, database: Database, objects: ObjectStore, clock: Clock, retention_seconds: float
) -> int:
    """Make partitions ahead, forget what is old, delete its objects; returns how many objects went."""
    now = clock.now()
    await make_partitions(database, now)
    keys = await store.forget(now - dt.timedelta(seconds=retention_seconds))
    for start in range(0, len(keys), _KEYS_AT_ONCE):
        await objects.delete(keys[start : start + _KEYS_AT_ONCE])
    return len(keys)
