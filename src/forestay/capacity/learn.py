"""The learning loop: reads new facts, teaches the cost models, stores them.

The controller runs it under a leader lease. Pure is what a new model begins with (`model_for`), which facts teach
(`decide_taught`) and how much each counts (`observations_of`); the arithmetic is `capacity/regress`'s. A run that meets
nothing new changes nothing; two learners at once cannot both move the cursor. A fact that arrives more than a few
seconds after its end is not learned from: enough others are.
"""

import dataclasses
import datetime as dt
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

from forestay.capacity.costs import CostKey, CostStore, Learned, StoredModel
from forestay.capacity.features import input_schema, reader_of
from forestay.capacity.predict import CostModel, cold_model, inherited_model
from forestay.capacity.regress import Observation, learn
from forestay.clock import Clock
from forestay.fleet.model import Revision
from forestay.fleet.store import FleetStore
from forestay.ids import RevisionId
from forestay.telemetry.cost_facts import CostFact, Cursor, first_cursor

BATCH = 2_000
FIRST_LOOK_SECONDS = 86_400.0  # how far back learning looks when it begins
MAX_ENDPOINTS = 64  # of one revision; paths with a variable part are without number
MOST_TAUGHT = 400  # facts of an endpoint in a batch; half of what is known is forgotten after 140 (`regress`)
_TENANT_FACTS = 20  # that one tenant may always teach in a batch
_TENANT_SHARE = 0.25  # ... and beyond, at most this share of the batch


class CostFacts(Protocol):
    """Facts of costs in order (`telemetry.cost_facts.PostgresCostFacts`)."""

    async def after(self, cursor: Cursor, limit: int) -> list[CostFact]:
        """Read at most `limit` facts after the cursor; raises Unavailable."""
        ...


def model_for(key: CostKey, known: Mapping[CostKey, StoredModel], revision: Revision) -> CostModel:
    """Return what a revision's endpoint begins with: the model's newest for that endpoint, else the spec's word."""
    former = [
        item
        for item in known.values()
        if item.model_id == revision.model_id and item.endpoint == key[1] and item.revision_id != key[0]
    ]
    if former:
        return inherited_model(former[-1].model, former[-1].revision_id)
    return cold_model_of(revision, key[1])


def cold_model_of(revision: Revision, endpoint: str) -> CostModel:
    """Return the model that the revision's spec and schema alone make."""
    said = revision.spec.capacity
    document = revision.openapi or {}
    reader = reader_of(input_schema(document, endpoint), document, said.scales_with)
    return cold_model(reader.usual, said.gpu_seconds, said.scales_with)


def observations_of(facts: Sequence[CostFact]) -> list[Observation]:
    """Weigh facts so that no tenant teaches more than its share: many alike would teach the rest what they cost."""
    counts = Counter(fact.tenant_id for fact in facts)
    most = max(_TENANT_FACTS, _TENANT_SHARE * len(facts))
    return [Observation(fact.features, fact.device_seconds, min(1.0, most / counts[fact.tenant_id])) for fact in facts]


def decide_taught(facts: Sequence[CostFact]) -> Sequence[CostFact]:
    """Return the facts of one endpoint to learn from: all, or where there are more than it can remember, every so many.

    They are spread evenly over the batch, so that tenants and times keep their shares.
    """
    if len(facts) <= MOST_TAUGHT:
        return facts
    return [facts[number * len(facts) // MOST_TAUGHT] for number in range(MOST_TAUGHT)]


class LearningLoop:
    """One controller's learner; it keeps what it has read, and reads it again when another has learned meanwhile."""

    def __init__(self, facts: CostFacts, costs: CostStore, fleet: FleetStore, clock: Clock) -> None:
        self._facts = facts
        self._costs = costs
        self._fleet = fleet
        self._clock = clock
        self._learned: Learned | None = None

    async def run_once(self) -> int:
        """Learn from at most a batch of facts; returns from how many."""
        learned = self._learned or await self._costs.learned()
        start = first_cursor(self._clock.now() - dt.timedelta(seconds=FIRST_LOOK_SECONDS))
        facts = await self._facts.after(learned.cursor or start, BATCH)
        if not facts:
            self._learned = learned
            return 0
        changed = await self._teach(facts, learned)
        after = facts[-1].cursor
        if not await self._costs.save(changed, learned.cursor, after):
            self._learned = None
            return 0
        kept = {key: item for key, item in learned.models.items() if key not in {one.key for one in changed}}
        self._learned = Learned(after, {**kept, **{item.key: item for item in changed}})
        return len(facts)

    async def _teach(self, facts: Sequence[CostFact], learned: Learned) -> list[StoredModel]:
        groups: dict[CostKey, list[CostFact]] = {}
        for fact in facts:
            groups.setdefault((fact.revision_id, fact.endpoint), []).append(fact)
        known = dict(learned.models)
        revisions: Mapping[RevisionId, Revision] = {}
        if any(key not in known for key in groups):
            revisions = (await self._fleet.load()).revisions
        endpoints = Counter(revision_id for revision_id, _ in known)
        changed: list[StoredModel] = []
        for key, own in groups.items():
            before = known.get(key)
            revision = revisions.get(key[0])
            if before is None and revision is not None and endpoints[key[0]] < MAX_ENDPOINTS:
                endpoints[key[0]] += 1
                before = StoredModel(revision.model_id, key[0], key[1], model_for(key, known, revision))
            if before is not None:
                taught = dataclasses.replace(before, model=learn(before.model, observations_of(decide_taught(own))))
                known[key] = taught
                changed.append(taught)
        return changed
