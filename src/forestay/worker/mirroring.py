"""Offers what this worker has answered to rollouts whose shadow mirrors requests.

It decides what may be copied at all: answers of the control while a candidate of its model is held loaded, that their
callers let us keep, of a size that is cheap to keep. Which of them are mirrored is `rollouts/shadow`'s. It runs after
the answer is stored and never makes anybody wait: what does not fit into a short queue, or meets a database that is
away, is dropped. Called by `attempt`.
"""

import asyncio
from collections.abc import Callable, Mapping

from forestay.clock import Clock
from forestay.errors import Unavailable
from forestay.ids import ModelId, RevisionId
from forestay.queue.model import Answer, AttemptReport, Lease
from forestay.rollouts.shadow.model import Offered
from forestay.rollouts.shadow.store import OfferStore
from forestay.rollouts.slices import size_of
from forestay.telemetry.logs import logger

MOST_BYTES = 256 * 1024  # of input and of answer, each
WAITING = 16
PAUSE_SECONDS = 1.0  # after a database that is away
log = logger("worker")


class Mirror:
    """One worker's offers."""

    def __init__(self, offers: OfferStore, held: Callable[[], Mapping[ModelId, RevisionId]], clock: Clock) -> None:
        self._offers = offers
        self._held = held
        self._clock = clock
        self._waiting: asyncio.Queue[Offered] = asyncio.Queue(WAITING)

    def offer(self, lease: Lease, answer: Answer, report: AttemptReport) -> None:
        """Offer an answer that was just stored, if it may be mirrored."""
        candidate = self._held().get(lease.model_id)
        if candidate is None or candidate == lease.revision_id or not may_mirror(lease, answer):
            return
        offered = Offered(
            request_id=lease.request_id,
            model_id=lease.model_id,
            revision_id=lease.revision_id,
            endpoint=lease.endpoint,
            stratum=stratum_of(lease),
            body=lease.body,
            answer=answer.body,
            device_seconds=report.device_seconds,
            at=report.finished_at,
        )
        if not self._waiting.full():
            self._waiting.put_nowait(offered)

    async def run(self) -> None:
        """Keep offers until cancelled."""
        while True:
            offered = await self._waiting.get()
            try:
                await self._offers.offer(offered)
            except Unavailable as error:
                log.warning("mirror.not_offered", request=str(offered.request_id), reason=str(error))
                await self._clock.sleep(PAUSE_SECONDS)


def may_mirror(lease: Lease, answer: Answer) -> bool:
    """Tell whether a copy may be kept: not of what its caller wants forgotten, or keeps in a bucket of their own."""
    options = lease.options
    fenced = options.shadow or not options.store_io or options.upload_policy is not None
    return not fenced and len(lease.body) <= MOST_BYTES and len(answer.body) <= MOST_BYTES and bool(answer.body)


def stratum_of(lease: Lease) -> str:
    """Return the request's endpoint and, where its input says so, the order of its size."""
    size = size_of(lease.options.features.get("pixels"))
    return f"{lease.endpoint} {size}" if size else lease.endpoint
