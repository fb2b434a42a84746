"""The loops of reviews: carrying out what a crash has left, freeing claims, and forgetting what is old.

It decides nothing about items: `decide` and `carrying` do. Level-triggered: running it twice changes nothing more. Run
by the controller under its leader's lease.
"""

from forestay.clock import Clock
from forestay.errors import Unavailable
from forestay.queue.listing import ListedRequest, RequestList
from forestay.queue.model import State
from forestay.queue.store import QueueStore
from forestay.safety.policy import ReviewRules
from forestay.safety.records import Point
from forestay.safety.review.desk import ReviewDesk
from forestay.safety.review.events import PostgresReviewEvents
from forestay.safety.review.model import NewItem, item_id_of
from forestay.safety.review.postgres_store import Filter
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import REVIEW_OLDEST_SECONDS, REVIEW_WAITING, Metrics
from forestay.verdicts import Verdict

BATCH = 50
LEASE_SECONDS = 30.0  # a decision that is being carried out is hidden from others for so long
FORGET_BATCH = 500
MEND_BATCH = 500
_ENDED = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.EXPIRED})  # blocked ones may be appealed
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


async def mend_once(desk: ReviewDesk, requests: RequestList, queue: QueueStore) -> int:
    """Open items of withheld outputs that have none, and close those whose request has ended; returns how many."""
    withheld = await requests.newest(None, [State.WITHHELD], MEND_BATCH, {})
    missing = set(await desk.reviews.without_item([item.request_id for item in withheld]))
    for item in withheld:
        if item.request_id in missing:
            await desk.reviews.open(_unknown(item))
    waiting = await desk.reviews.listed(Filter(state="waiting", point=Point.OUTPUT), 0, MEND_BATCH)
    ids = [one.item.opened.request_id for one in waiting]
    closed = 0
    for name, found in (await queue.snapshots(ids)).items():
        if found.state in _ENDED:
            closed += await desk.reviews.lapse(item_id_of(name, Point.OUTPUT), f"its request is {found.state}")
    return len(missing) + closed


def _unknown(item: ListedRequest) -> NewItem:
    """Return an item for an output whose worker died before it opened one: nobody knows its policy, so two people."""
    return NewItem(
        request_id=item.request_id,
        attempt=item.attempt,
        point=Point.OUTPUT,
        tenant_id=item.tenant_id,
        key_id=item.key_id,
        model_id=item.model_id,
        endpoint=item.endpoint,
        policy_id="",
        policy_version=-1,
        verdict=Verdict.INCONCLUSIVE,
        category=None,
        place="",
        reason="withheld; how it was judged stands in its verdict records",
        rules=ReviewRules(release_needs=2),
    )


async def forget_once(desk: ReviewDesk, events: PostgresReviewEvents, retention_seconds: float) -> int:
    """Forget sealed copies that are old, and close items that nobody has decided; returns how many copies."""
    for name in await desk.reviews.stale(retention_seconds, FORGET_BATCH):
        await desk.reviews.lapse(name, "its sealed copy was forgotten before anybody had decided")
    await events.forget(retention_seconds, FORGET_BATCH)
    return await desk.sealed.forget(retention_seconds, FORGET_BATCH)
