"""Opens items for what the guard stopped, and seals the copy that people will look at.

It decides when a copy is kept: where the policy keeps what it refused, the caller did not forbid it (X-Fal-Store-IO:
0), retention is not 0, and not too many inputs of the same key wait already. It never stands in a caller's way: what
cannot be opened within two seconds is counted and logged, and stays blocked all the same. Called by the gateway
(inputs) and the worker (outputs).
"""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable

from forestay.errors import ForestayError
from forestay.ids import KeyId, ModelId, RequestId, TenantId
from forestay.queue.model import Options
from forestay.safety.decide import Judgement
from forestay.safety.policy import Policy, ReviewRules
from forestay.safety.records import Point
from forestay.safety.review.kept import KeptInput, KeptOutput, packed
from forestay.safety.review.model import NewItem
from forestay.safety.review.postgres_store import PostgresReviews
from forestay.safety.review.sealed import Label, SealedStore
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import REVIEW_OPENED, REVIEW_UNOPENED, Metrics

PATIENCE_SECONDS = 2.0
MAX_KEPT_BYTES = 32 * 1024 * 1024
_LOG = logger("safety.review")


@dataclasses.dataclass(frozen=True, slots=True)
class Stopped:
    """What was stopped: whose, where, and by which judgement."""

    request_id: RequestId
    attempt: int
    tenant_id: TenantId
    key_id: KeyId
    model_id: ModelId
    endpoint: str
    policy_id: str
    policy: Policy | None
    judgement: Judgement

    def item(self, point: Point, sealed_id: str) -> NewItem:
        """Return the item to open."""
        judgement, policy = self.judgement, self.policy
        return NewItem(
            request_id=self.request_id,
            attempt=self.attempt,
            point=point,
            tenant_id=self.tenant_id,
            key_id=self.key_id,
            model_id=self.model_id,
            endpoint=self.endpoint,
            policy_id=self.policy_id,
            policy_version=-1 if policy is None else policy.version,
            verdict=judgement.verdict,
            category=judgement.category,
            place=judgement.where,
            reason=judgement.reason,
            rules=ReviewRules() if policy is None else policy.review,
            sealed_id=sealed_id,
        )


class Opener:
    """Opens items in one process."""

    def __init__(
        self, reviews: PostgresReviews, sealed: SealedStore, metrics: Metrics, retention_seconds: float
    ) -> None:
        self._reviews = reviews
        self._sealed = sealed
        self._metrics = metrics
        self._keeps = retention_seconds > 0

    async def input_refused(self, stopped: Stopped, kept: KeptInput | None, point: Point = Point.INPUT) -> None:
        """Open an item for a refused input; `kept` is None for one that cannot be submitted again."""
        if stopped.policy is None or not stopped.policy.review.keep_refused:
            return
        await self._patiently(stopped, lambda: self._open_input(stopped, kept, point))

    async def output_stopped(self, stopped: Stopped, kept: KeptOutput, *, blocked: bool) -> None:
        """Open an item for an output that was withheld, or blocked where the policy keeps what it blocked."""
        keeps = stopped.policy is not None and stopped.policy.review.keep_refused
        if blocked and not keeps:
            return
        await self._patiently(stopped, lambda: self._open_output(stopped, kept))

    async def _patiently(self, stopped: Stopped, work: Callable[[], Awaitable[None]]) -> None:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await work()
        except (ForestayError, TimeoutError) as error:
            self._metrics.add(REVIEW_UNOPENED, "unavailable")
            why = str(error) or type(error).__name__
            _LOG.warning("review.not_opened", request_id=str(stopped.request_id), reason=why)

    async def _open_input(self, stopped: Stopped, kept: KeptInput | None, point: Point) -> None:
        if not await self._reviews.has_room(stopped.key_id):
            self._metrics.add(REVIEW_UNOPENED, "too_many")
            return
        label = Label("input", str(stopped.request_id), stopped.tenant_id)
        sealed_id = "" if kept is None else await self._seal(label, packed(kept), kept.options, len(kept.body))
        await self._open(stopped.item(point, sealed_id))

    async def _open_output(self, stopped: Stopped, kept: KeptOutput) -> None:
        label = Label("output", str(stopped.request_id), stopped.tenant_id, str(stopped.attempt))
        sealed_id = await self._seal(label, packed(kept), kept.options, len(kept.body))
        await self._open(stopped.item(Point.OUTPUT, sealed_id))

    async def _seal(self, label: Label, data: bytes, options: Options, size_bytes: int) -> str:
        if not self._keeps or not options.store_io or size_bytes > MAX_KEPT_BYTES:
            return ""
        return await self._sealed.put(label, data)

    async def _open(self, item: NewItem) -> None:
        if await self._reviews.open(item):
            self._metrics.add(REVIEW_OPENED, item.point.value)
