"""Accepting requests: commit, wake the workers, and see to the submit whose answer never reached its caller.

The store commits submits that arrive together as one (group commit); a caller is answered only after its commit. While
it runs, a standing `receive()` watches the caller: one that left is recorded, so that its identical retry adopts the
stored request instead of doubling it (architecture, decision 5). Called by `queue_routes`.
"""

import asyncio

from forestay.errors import Unavailable
from forestay.gateway.ports import GatewayPorts
from forestay.ids import ModelId, RequestId
from forestay.queue.model import Submission
from forestay.queue.store import Accepted, IdempotencyConflict, QueueFull
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import SUBMITTED, UNDELIVERED

Outcome = Accepted | IdempotencyConflict | QueueFull
WAKE_PAUSE_SECONDS = 0.005  # between two wake-ups: submits of that time share one
LONG_WAKE_PAUSE_SECONDS = 0.02  # the same in a flood: each wake-up costs gateway, controller and every worker
_FEW = 4  # submits that one wake-up is worth
_LOG = logger("gateway")


class QueueWaker:
    """Tells workers which models have new requests: one message for all submits since the last one."""

    def __init__(self, ports: GatewayPorts) -> None:
        self._ports = ports
        self._models: set[ModelId] = set()
        self._count = 0
        self._some = asyncio.Event()

    def add(self, model_id: ModelId) -> None:
        """Note a committed submit."""
        self._models.add(model_id)
        self._count += 1
        self._some.set()

    async def run(self) -> None:
        """Publish for ever; what is lost is made good by the workers' own polls."""
        while True:
            await self._some.wait()
            self._some.clear()
            models, self._models, carried, self._count = self._models, set(), self._count, 0
            await self._ports.wakeups.publish("forestay:queue", " ".join(sorted(models)))
            await self._ports.clock.sleep(decide_wake_pause(carried))


def decide_wake_pause(carried: int) -> float:
    """Decide the seconds until the next wake-up from how many submits this one told of.

    Below some 800 submits a second it stays the short one; in a flood it grows, since workers have plenty to do then.
    """
    return min(max(WAKE_PAUSE_SECONDS, WAKE_PAUSE_SECONDS * carried / _FEW), LONG_WAKE_PAUSE_SECONDS)


async def commit(ports: GatewayPorts, submission: Submission, max_queue_length: int | None) -> Outcome:
    """Commit one submission.

    Raises Unavailable when the database did not answer in time: the submit may have been committed all the same, and
    its identical retry finds it.
    """
    limits = {} if max_queue_length is None else {submission.request_id: max_queue_length}
    (outcome,) = await ports.queue.submit([submission], limits)
    if isinstance(outcome, Accepted):
        ports.metrics.add(SUBMITTED, submission.model_id, "replayed" if outcome.replayed else "new")
    return outcome


async def record_undelivered(ports: GatewayPorts, submission: Submission, request_id: RequestId) -> None:
    """Remember that the answer never reached its caller; when even that fails the request stays and it is logged."""
    ports.metrics.add(UNDELIVERED)
    try:
        await ports.queue.mark_undelivered(request_id, submission.key_id, submission.fingerprint)
    except Unavailable as error:
        _LOG.warning("gateway.undelivered_not_recorded", request_id=str(request_id), reason=str(error))
