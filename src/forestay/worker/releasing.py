"""Makes an output whole that people let go: what its policy asks for, and its way into the caller's own bucket.

A worker does the same for an output that is allowed at once (`judging`, `attempt`). It decides nothing: the item names
what the policy asked for when it stopped the output, the request what its caller chose. The files as the model made
them stay until the release is committed, so that a process which dies in between loses nothing. Called through
`safety/review/carrying`, by gateways and the controller.
"""

import dataclasses
import hashlib
import pathlib
import tempfile
from collections.abc import Sequence

from forestay.chance import Chance
from forestay.clock import Clock
from forestay.errors import Refused
from forestay.ids import KeyId
from forestay.media.bucket import Bucket, BucketLimits
from forestay.media.decode import Decoder, limits_of
from forestay.media.store import MediaStore
from forestay.media.urls import stored_ids
from forestay.safety.guard import Subject
from forestay.safety.provenance.stamp import Stamps, Wishes
from forestay.safety.provenance.wiring import stamps_of
from forestay.safety.records import Point
from forestay.safety.review.carrying import LetGo, Whole
from forestay.settings import Settings
from forestay.storage.postgres import Database
from forestay.telemetry.metrics import Metrics
from forestay.worker.bucket_outputs import FAILED_DEPENDENCY, BucketOutputs
from forestay.worker.stamping import Stamping


@dataclasses.dataclass(frozen=True, slots=True)
class ReleasingGround:
    """What releasing rests on."""

    database: Database
    media: MediaStore
    settings: Settings
    clock: Clock
    chance: Chance
    metrics: Metrics


class Releasing:
    """Finishes outputs that were let go."""

    def __init__(self, stamping: Stamping, outputs: BucketOutputs) -> None:
        self._stamping = stamping
        self._outputs = outputs
        self._media = outputs.media

    async def whole(self, let_go: LetGo) -> Whole:
        """Return the answer as it leaves, with the digests of it and its files; Refused where a file is gone."""
        answer, digests = let_go.answer, list[str]()
        before = stored_ids(answer.body)
        for media_id in before:
            if await self._media.find(media_id) is None:
                raise Refused("a file of the output is gone: it cannot be released")
        asked = let_go.opened.rules.provenance
        if asked and before:
            wishes = Wishes("manifest" in asked, "watermark" in asked, "fingerprint" in asked)
            stored = await self._stamping.apply(_subject(let_go), answer.body, before, wishes, keep=True)
            answer = dataclasses.replace(answer, body=stored.body)
        after = stored_ids(answer.body)
        digests += [await self._digest(media_id) for media_id in after]
        policy = let_go.options.upload_policy
        if policy is not None and after:
            owners = (let_go.request_id, let_go.opened.request_id)
            moved = await self._outputs.deliver(policy, answer, owners, keep=True)
            moved_away = (*before, *(name for name in after if name not in before))
            digests.append(_digest(moved.body))
            return Whole(moved, tuple(digests), moved_away, failed=moved.status_code == FAILED_DEPENDENCY)
        return Whole(answer, (*digests, _digest(answer.body)), tuple(name for name in before if name not in after))

    async def forget(self, media_ids: Sequence[str]) -> None:
        """Delete files that the released answer names no more."""
        await self._media.delete(media_ids)

    async def _digest(self, media_id: str) -> str:
        item = await self._media.find(media_id)
        if item is None:
            raise Refused("a file of the output is gone: it cannot be released")
        digest = hashlib.sha256()
        async for piece in self._media.open(item, 0, item.size_bytes):
            digest.update(piece)
        return f"sha256:{digest.hexdigest()}"


def releasing_of(ground: ReleasingGround, stamps: Stamps | None = None) -> Releasing:
    """Return what makes released outputs whole in this process; its decoder starts with the first file."""
    settings, folder = ground.settings, pathlib.Path(tempfile.gettempdir())
    if stamps is None:
        decoder = Decoder(limits_of(settings.ingress))
        stamps = stamps_of(settings.safety, decoder, ground.database, ground.clock.now())
    delivery = settings.delivery
    bucket = Bucket(
        ground.clock,
        ground.chance,
        allow_private=delivery.allow_private_buckets,
        limits=BucketLimits(delivery.bucket_timeout_seconds, delivery.bucket_tries),
    )
    return Releasing(
        Stamping(stamps, ground.media, folder, ground.clock, ground.metrics),
        BucketOutputs(ground.media, bucket, folder, delivery.allow_private_buckets, ground.metrics),
    )


def _subject(let_go: LetGo) -> Subject:
    opened = let_go.opened
    return Subject(
        request_id=let_go.request_id,
        attempt=let_go.attempt,
        point=Point.OUTPUT,
        tenant_id=opened.tenant_id,
        key_id=KeyId(""),
        model_id=opened.model_id,
        revision_id=let_go.revision_id,
        policy_id=opened.policy_id,
    )


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
