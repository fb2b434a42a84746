"""What is predicted of calls: the newest stored predictors, and readers of inputs, in memory. No I/O.

It decides which predictor speaks for a revision's endpoint: its own, else the model's newest for that endpoint, else
what the spec says; and that no request is predicted to take longer than its time-out lets it. Gateways hold one and
poll the store for it (`gateway/prediction`); the admin API makes one for a question.
"""

import dataclasses
import datetime as dt
from collections.abc import Iterable, Mapping

from forestay.capacity.costs import CostKey, StoredPredictor
from forestay.capacity.features import FeatureReader, input_schema, reader_of
from forestay.capacity.learn import cold_model_of
from forestay.capacity.predict import Prediction, Predictor
from forestay.fleet.model import Revision
from forestay.ids import ModelId
from forestay.values import hot_value

_MAX_KNOWN = 1_000


@hot_value
class Foretold:
    """What one call is predicted to take, and from what."""

    seconds: float  # device-seconds, never 0
    features: Mapping[str, float]


@dataclasses.dataclass(frozen=True, slots=True)
class _Known:
    reader: FeatureReader
    predictor: Predictor
    most: float  # device-seconds that the time-out allows
    usual: Foretold  # of an input that says nothing of work


class CostView:
    """Predictors by revision and endpoint."""

    def __init__(self) -> None:
        self._stored: dict[CostKey, StoredPredictor] = {}
        self._newest: dict[tuple[ModelId, str], StoredPredictor] = {}
        self._known: dict[CostKey, _Known] = {}
        self.read_to: dt.datetime | None = None  # the newest change that is in here

    def update(self, changed: Iterable[StoredPredictor]) -> int:
        """Take over what was stored; returns how much of it was new."""
        new = 0
        for item in changed:
            before = self._stored.get(item.key)
            if before is not None and before.updated_at >= item.updated_at:
                continue
            new += 1
            self._stored[item.key] = self._newest[item.model_id, item.endpoint] = item
            self.read_to = max(self.read_to or item.updated_at, item.updated_at)
        if new:
            self._known.clear()
        return new

    def foretell(self, revision: Revision, endpoint: str, value: object) -> Foretold:
        """Predict a call from its parsed input."""
        known = self._known.get((revision.revision_id, endpoint)) or self._know(revision, endpoint)
        features = known.reader.read(value)
        if not features:
            return known.usual
        return Foretold(min(known.predictor.seconds(features), known.most), features)

    def explain(self, revision: Revision, endpoint: str, value: object) -> tuple[Mapping[str, float], Prediction]:
        """Predict with the interval and its source, for a person."""
        known = self._know(revision, endpoint)
        features = known.reader.read(value)
        told = known.predictor.predict(features)
        low, seconds, high = (min(item, known.most) for item in (told.low, told.seconds, told.high))
        return features, Prediction(seconds, low, high, told.source)

    def interval(self, revision: Revision, endpoint: str, features: Mapping[str, float]) -> Prediction:
        """Predict from features that were read already, with the interval."""
        known = self._known.get((revision.revision_id, endpoint)) or self._know(revision, endpoint)
        return known.predictor.predict(features)

    def spread(self, revision: Revision, endpoint: str) -> float:
        """Return the standard deviation of the logarithm of a prediction's error."""
        known = self._known.get((revision.revision_id, endpoint)) or self._know(revision, endpoint)
        return known.predictor.spread

    def _know(self, revision: Revision, endpoint: str) -> _Known:
        spec, document = revision.spec, revision.openapi or {}
        reader = reader_of(input_schema(document, endpoint), document, spec.capacity.scales_with)
        most = spec.limits.request_timeout_seconds * max(1, spec.resources.devices)
        predictor = self._predictor(revision, endpoint)
        known = _Known(reader, predictor, most, Foretold(min(predictor.seconds({}), most), {}))
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        self._known[revision.revision_id, endpoint] = known
        return known

    def _predictor(self, revision: Revision, endpoint: str) -> Predictor:
        own = self._stored.get((revision.revision_id, endpoint))
        if own is not None:
            return own.predictor
        former = self._newest.get((revision.model_id, endpoint))
        if former is None:
            return cold_model_of(revision, endpoint).predictor
        return dataclasses.replace(former.predictor, source=f"revision {former.revision_id}: {former.predictor.source}")
