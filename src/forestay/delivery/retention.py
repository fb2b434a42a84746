"""The loop that forgets webhooks which nothing will try again. Run by the controller.

Rows live as long as results do (`FORESTAY_RETENTION`), so that a person can still retry a dead one while its result is
there to be sent.
"""

from forestay.delivery.outbox import Outbox

BATCH = 1000


async def run_once(outbox: Outbox, retention_seconds: float) -> int:
    """Delete at most one batch of old rows; returns how many."""
    return await outbox.forget(retention_seconds, BATCH)
