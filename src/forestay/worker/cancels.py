"""Learns that a running request was taken away (cancelled, expired, rescued elsewhere) and tells the model.

It decides nothing: the queue says which leases are lost. A wake-up on `forestay:changed` names requests; those that run
here are looked up at once. Without wake-ups everything that runs is looked up every half second. Run by
`worker/process.py`.
"""

import asyncio
from collections.abc import Collection, Mapping

from forestay.clock import Clock
from forestay.errors import Unavailable
from forestay.ids import RequestId, WorkerId
from forestay.queue.store import QueueStore
from forestay.storage.valkey import Wakeups
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import LEASES_LOST, Metrics
from forestay.worker.attempt import Attempt
from forestay.worker.desk import Desk

log = logger("worker")
Fence = tuple[RequestId, int]


class CancelWatch:
    """Watches the leases of one worker."""

    def __init__(
        self, worker_id: WorkerId, attempts: Mapping[Fence, Attempt], desk: Desk, clock: Clock, metrics: Metrics
    ) -> None:
        self._worker_id = worker_id
        self._attempts = attempts
        self._desk = desk
        self._clock = clock
        self._metrics = metrics
        self._taking: asyncio.Queue[Fence] = asyncio.Queue()

    def take_away(self, fences: Collection[Fence]) -> None:
        """These leases are lost: tell their attempts. Called on the worker's loop."""
        for fence in fences:
            attempt = self._attempts.get(fence)
            if attempt is not None and not attempt.lost:
                self._taking.put_nowait(fence)

    async def run(self, queue: QueueStore, wakeups: Wakeups, poll_seconds: float) -> None:
        """Watch for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tell(group))
            group.create_task(self._listen(queue, wakeups))
            group.create_task(self._poll(queue, poll_seconds))

    async def _listen(self, queue: QueueStore, wakeups: Wakeups) -> None:
        async with wakeups.subscribe("forestay:changed") as messages:
            async for _, message in messages:
                named = {text for text in message.split() if not self._desk.is_own_announcement(text)}
                await self._look_up(queue, [fence for fence in self._attempts if fence[0].hex in named])

    async def _poll(self, queue: QueueStore, poll_seconds: float) -> None:
        while True:
            await self._clock.sleep(poll_seconds)
            await self._look_up(queue, list(self._attempts))

    async def _look_up(self, queue: QueueStore, fences: list[Fence]) -> None:
        asked = [fence for fence in fences if (attempt := self._attempts.get(fence)) is not None and not attempt.lost]
        if not asked:
            return
        try:
            lost = await queue.lost_to(self._worker_id, asked)
        except Unavailable as error:
            log.warning("cancel.look_up_failed", reason=str(error))
            return
        self.take_away(lost)

    async def _tell(self, group: asyncio.TaskGroup) -> None:
        while True:
            attempt = self._attempts.get(await self._taking.get())
            if attempt is not None and not attempt.lost:
                self._metrics.add(LEASES_LOST, "taken_away")
                group.create_task(self._take(attempt))

    @staticmethod
    async def _take(attempt: Attempt) -> None:
        try:
            await attempt.take_away()
        except Exception:  # a model that cannot be told goes on until it returns or its limit kills it
            log.exception("cancel.not_told", request=str(attempt.lease.request_id))
