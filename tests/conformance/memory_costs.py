"""Cost models in memory: an adapter of the port for tests of gateways, held to the same suite as Postgres."""

import datetime as dt

from tests.conformance.memory_queue import Now

from forestay.capacity.costs import CostKey, Learned, StoredModel, StoredPredictor
from forestay.telemetry.cost_facts import Cursor


class MemoryCostStore:
    """Cost models that are forgotten when it is dropped."""

    def __init__(self, clock: Now) -> None:
        self._clock = clock
        self._cursor: Cursor | None = None
        self._models: dict[CostKey, tuple[StoredModel, dt.datetime]] = {}

    async def learned(self) -> Learned:
        """Read everything."""
        return Learned(self._cursor, {key: item for key, (item, _) in self._models.items()})

    async def save(self, models: list[StoredModel], before: Cursor | None, after: Cursor) -> bool:
        """Store models and move the cursor, both or neither."""
        if self._cursor is not None and self._cursor != before:
            return False
        self._cursor = after
        for item in models:
            self._models.pop(item.key, None)
            self._models[item.key] = item, self._clock.now()
        return True

    async def predictors(self, since: dt.datetime | None) -> list[StoredPredictor]:
        """Read the predictors changed since then."""
        return [
            StoredPredictor(
                item.model_id, item.revision_id, item.endpoint, item.model.predictor, item.model.learned, updated_at
            )
            for item, updated_at in self._models.values()
            if since is None or updated_at >= since
        ]
