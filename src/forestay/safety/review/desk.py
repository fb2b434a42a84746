"""Everything of reviews that a gateway needs, in one value. Decides nothing. Put together by `wiring`."""

import dataclasses

from forestay.errors import Unavailable
from forestay.safety.review.carrying import Carrier
from forestay.safety.review.events import PostgresReviewEvents
from forestay.safety.review.model import Item
from forestay.safety.review.opening import Opener
from forestay.safety.review.postgres_store import PostgresReviews
from forestay.safety.review.sealed import SealedStore
from forestay.telemetry.logs import logger

_LOG = logger("safety.review")


@dataclasses.dataclass(frozen=True, slots=True)
class ReviewDesk:
    """Items, copies, and who opens and carries out."""

    reviews: PostgresReviews
    sealed: SealedStore
    opener: Opener
    carrier: Carrier
    events: PostgresReviewEvents

    async def carry(self, item: Item, actor: str = "loop:review") -> bool:
        """Carry out a decision at once; what cannot be done now is the controller's loop's, and False is told."""
        try:
            await self.carrier.carry(item, actor)
        except Unavailable as error:
            _LOG.warning("review.carried_later", item_id=item.opened.item_id, reason=str(error))
            return False
        return True
