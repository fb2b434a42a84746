"""The loop that forgets alerts that are over and notifications that nothing will try again. Run by the controller.

Deciding never looks at what is deleted here: an alert is history once it is over, told and past its flap window.
"""

import datetime as dt

from forestay.alerts.postgres_outbox import PostgresOutbox
from forestay.alerts.postgres_store import PostgresAlerts
from forestay.clock import Clock


async def run_once(store: PostgresAlerts, outbox: PostgresOutbox, clock: Clock, retention_seconds: float) -> int:
    """Delete at most one batch of each kind; returns how many notifications went."""
    before = clock.now() - dt.timedelta(seconds=retention_seconds)
    await store.forget(before)
    return await outbox.forget(before)
