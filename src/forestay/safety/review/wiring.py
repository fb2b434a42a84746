"""Puts reviews together from the settings, for gateways, workers and the controller.

Decides the sealing key: FORESTAY_SEAL_KEY, else FORESTAY_INTERNAL_KEY; old ones open old copies. Called by the wiring.
"""

import dataclasses

from forestay.chance import Chance
from forestay.clock import Clock
from forestay.media.store import MediaStore
from forestay.queue.store import QueueStore
from forestay.safety.records import VerdictSink
from forestay.safety.review.carrying import Carrier, CarryPorts, Finisher
from forestay.safety.review.desk import ReviewDesk
from forestay.safety.review.events import PostgresReviewEvents
from forestay.safety.review.opening import Opener
from forestay.safety.review.postgres_store import PostgresReviews, Rules
from forestay.safety.review.seal import ContentSeal
from forestay.safety.review.sealed import SealedStore
from forestay.settings import Secrets, Settings
from forestay.storage.objects import ObjectStore
from forestay.storage.postgres import Database
from forestay.storage.valkey import Wakeups
from forestay.telemetry.metrics import Metrics


@dataclasses.dataclass(frozen=True, slots=True)
class ReviewGround:
    """What reviews rest on."""

    database: Database
    objects: ObjectStore
    queue: QueueStore
    media: MediaStore
    verdicts: VerdictSink
    wakeups: Wakeups
    settings: Settings
    clock: Clock
    chance: Chance
    metrics: Metrics
    finisher: Finisher
    writer: str  # this process's audit chain


def seal_of(secrets: Secrets, chance: Chance) -> ContentSeal:
    """Return the seal: new copies under the newest key."""
    newest = secrets.seal_key or secrets.internal_key
    return ContentSeal([newest, *secrets.old_seal_keys.split(), secrets.internal_key], chance)


def desk_of(ground: ReviewGround) -> ReviewDesk:
    """Return everything of reviews."""
    safety, clock = ground.settings.safety, ground.clock
    rules = Rules(ground.settings.queue.cell, safety.refused_kept, told=bool(safety.review_url))
    reviews = PostgresReviews(ground.database, clock, ground.chance, rules, ground.writer)
    seal = seal_of(ground.settings.secrets, ground.chance)
    sealed = SealedStore(ground.database, ground.objects, seal, clock, ground.writer)
    carrier = Carrier(
        CarryPorts(
            reviews=reviews,
            sealed=sealed,
            queue=ground.queue,
            media=ground.media,
            verdicts=ground.verdicts,
            wakeups=ground.wakeups,
            clock=clock,
            chance=ground.chance,
            metrics=ground.metrics,
            finisher=ground.finisher,
        )
    )
    opener = Opener(reviews, sealed, ground.metrics, safety.sealed_retention_seconds)
    return ReviewDesk(reviews, sealed, opener, carrier, PostgresReviewEvents(ground.database))
