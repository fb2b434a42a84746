"""The loops of reviews: carrying out what a crash has left, freeing claims, and forgetting what is old.

It decides nothing about items: `decide` and `carrying` do. Level-triggered: running it twice changes nothing more. Run
by the controller under its leader's lease.
"""

from forestay.clock import Clock
from forestay.errors import Unavailable
from forestay.safety.review.desk import ReviewDesk
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import REVIEW_OLDEST_SECONDS, REVIEW_WAITING, Metrics

BATCH = 50
LEASE_SECONDS = 30.0  # a decision that is being carried out is hidden from others for so long
FORGET_BATCH = 500
_LOG = logger("safety.review")


async def run_once(desk: ReviewDesk, clock: Clock, metrics: Metrics) -> int:
    """Free claims that have run out and carry out what is decided and not done; returns how many were carried out."""
    await desk.reviews.free()
    carried = 0
    for item in await desk.reviews.due(BATCH, LEASE_SECONDS):
        try:
            await desk.carrier.carry(item)
            carried += 1
        except Unavailable as error:
            await desk.reviews.not_done(item, str(error))
            _LOG.warning("review.carried_later", item_id=item.opened.item_id, reason=str(error))
    now = clock.now()
    stats = await desk.reviews.stats(now)
    metrics.set(REVIEW_WAITING, stats.waiting)
    age = 0.0 if stats.oldest_at is None else max(0.0, (now - stats.oldest_at).total_seconds())
    metrics.set(REVIEW_OLDEST_SECONDS, age)
    return carried


async def forget_once(desk: ReviewDesk, retention_seconds: float) -> int:
    """Forget sealed copies that are old, and close items that nobody has decided; returns how many copies."""
    for name in await desk.reviews.stale(retention_seconds, FORGET_BATCH):
        await desk.reviews.lapse(name, "its sealed copy was forgotten before anybody had decided")
    return await desk.sealed.forget(retention_seconds, FORGET_BATCH)
