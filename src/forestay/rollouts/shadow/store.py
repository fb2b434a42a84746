"""The port to what is offered, mirrored and compared."""

import datetime as dt
from collections.abc import Sequence
from typing import Protocol

from forestay.ids import ModelId
from forestay.rollouts.shadow.model import Offered, Pair


class OfferStore(Protocol):
    """Where workers leave what may be mirrored."""

    async def offer(self, offered: Offered) -> None:
        """Keep it for a while; a second time changes nothing."""
        ...


class ShadowStore(OfferStore, Protocol):
    """Offers and pairs."""

    async def offers(self, model_id: ModelId, limit: int) -> Sequence[Offered]:
        """Return the newest offers of a model."""
        ...

    async def begin(self, rollout_id: str, pair: Pair) -> bool:
        """Note a pair before its copies are sent; False when the request is noted already."""
        ...

    async def end(self, rollout_id: str, pair: Pair) -> None:
        """Note what came of a pair, its outcome or why it was given up; the first word stands."""
        ...

    async def pairs(self, rollout_id: str) -> Sequence[Pair]:
        """Return the pairs of a rollout in the order in which they were begun."""
        ...

    async def forget(self, offers_before: dt.datetime, pairs_before: dt.datetime) -> Sequence[str]:
        """Drop old offers, and pairs with their inputs; returns object keys that may be deleted."""
        ...
