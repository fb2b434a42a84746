"""Where cost models are kept: the port of the learning loop (which alone writes) and of gateways (which read).

The SQL adapter is `capacity/postgres_costs`; a fake for gateways' tests is held to the same suite.
"""

import dataclasses
import datetime as dt
from collections.abc import Mapping
from typing import Protocol

from forestay.capacity.predict import CostModel, Predictor
from forestay.ids import ModelId, RevisionId
from forestay.telemetry.cost_facts import Cursor

CostKey = tuple[RevisionId, str]  # revision and endpoint


@dataclasses.dataclass(frozen=True, slots=True)
class StoredModel:
    """A cost model and whose it is."""

    model_id: ModelId
    revision_id: RevisionId
    endpoint: str
    model: CostModel

    @property
    def key(self) -> CostKey:
        """Return what it is stored under."""
        return self.revision_id, self.endpoint


@dataclasses.dataclass(frozen=True, slots=True)
class StoredPredictor:
    """What gateways need of a cost model."""

    model_id: ModelId
    revision_id: RevisionId
    endpoint: str
    predictor: Predictor
    learned: int
    updated_at: dt.datetime

    @property
    def key(self) -> CostKey:
        """Return what it is stored under."""
        return self.revision_id, self.endpoint


@dataclasses.dataclass(frozen=True, slots=True)
class Learned:
    """Everything that learning has come to: the models, those changed last at the end, and up to which fact."""

    cursor: Cursor | None
    models: Mapping[CostKey, StoredModel]


class CostStore(Protocol):
    """Cost models."""

    async def learned(self) -> Learned:
        """Read everything; raises Unavailable."""
        ...

    async def save(self, models: list[StoredModel], before: Cursor | None, after: Cursor) -> bool:
        """Store models and move the cursor, both or neither; False when another learner has moved it meanwhile."""
        ...

    async def predictors(self, since: dt.datetime | None) -> list[StoredPredictor]:
        """Read the predictors changed since then (None: all), oldest change first; raises Unavailable."""
        ...
