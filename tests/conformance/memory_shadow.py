"""Offers and pairs in memory: an adapter of `rollouts/shadow/store`."""

import dataclasses
import datetime as dt
from collections.abc import Sequence

from forestay.ids import ModelId, RequestId
from forestay.rollouts.shadow.model import Offered, Pair
from forestay.rollouts.shadow.postgres_store import MOST_OFFERS


class MemoryShadowStore:
    """ShadowStore in memory."""

    def __init__(self) -> None:
        self.offered: dict[RequestId, Offered] = {}
        self.noted: dict[str, dict[RequestId, Pair]] = {}

    async def offer(self, offered: Offered) -> None:
        """Keep it for a while; a second time changes nothing."""
        key = (offered.model_id, offered.revision_id, offered.stratum)
        alike = sum((item.model_id, item.revision_id, item.stratum) == key for item in self.offered.values())
        if alike < MOST_OFFERS:
            self.offered.setdefault(offered.request_id, offered)

    async def offers(self, model_id: ModelId, limit: int) -> Sequence[Offered]:
        """Return the newest offers of a model."""
        found = [item for item in self.offered.values() if item.model_id == model_id]
        return sorted(found, key=lambda item: (item.at, str(item.request_id)), reverse=True)[:limit]

    async def begin(self, rollout_id: str, pair: Pair) -> bool:
        """Note a pair before its copies are sent; False when the request is noted already."""
        pairs = self.noted.setdefault(rollout_id, {})
        if pair.request_id in pairs:
            return False
        pairs[pair.request_id] = pair
        return True

    async def end(self, rollout_id: str, pair: Pair) -> None:
        """Note what came of a pair; the first word stands."""
        if self.noted[rollout_id][pair.request_id].open:
            self.noted[rollout_id][pair.request_id] = dataclasses.replace(pair, body=b"", answer=b"")

    async def pairs(self, rollout_id: str) -> Sequence[Pair]:
        """Return the pairs of a rollout in the order in which they were begun."""
        return list(self.noted.get(rollout_id, {}).values())

    async def forget(self, offers_before: dt.datetime, pairs_before: dt.datetime) -> Sequence[str]:
        """Drop old offers and pairs; returns object keys that may be deleted."""
        self.offered = {name: item for name, item in self.offered.items() if item.at >= offers_before}
        gone = [
            (rollout_id, pair)
            for rollout_id, pairs in self.noted.items()
            for pair in pairs.values()
            if pair.begun_at < pairs_before
        ]
        for rollout_id, pair in gone:
            del self.noted[rollout_id][pair.request_id]
        return [pair.outcome.sheet_key for _, pair in gone if pair.outcome is not None and pair.outcome.sheet_key]
