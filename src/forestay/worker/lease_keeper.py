"""Renews leases from a thread of its own, with its own event loop and its own way to the queue.

It decides nothing: a lease that the queue no longer grants is lost, and `on_lost` is told so on the worker's loop. A
blocked main loop, a full pool of connections or a busy model cannot keep a renewal from happening. While the queue does
not answer, attempts go on: nobody else can take them over either, and the fence refuses whatever comes too late.
"""

import asyncio
import threading
from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager, suppress

from forestay.errors import Unavailable
from forestay.ids import RequestId, WorkerId
from forestay.queue.store import QueueStore
from forestay.telemetry.logs import logger

log = logger("worker")
Fence = tuple[RequestId, int]
QueueOpener = Callable[[], AbstractAsyncContextManager[QueueStore]]  # opened and used on the thread's own loop
RENEWALS_PER_LEASE = 3.0
RETRY_SECONDS = 0.25
JOIN_SECONDS = 5.0


class LeaseKeeper:
    """Keeps what it is given until told to drop it."""

    def __init__(self, worker_id: WorkerId, open_queue: QueueOpener, lease_seconds: float) -> None:
        self._worker_id = worker_id
        self._open_queue = open_queue
        self._lease_seconds = lease_seconds
        self._lock = threading.Lock()
        self._held: set[Fence] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._on_lost: Callable[[Collection[Fence]], None] = _nothing
        self._main_loop: asyncio.AbstractEventLoop | None = None
        self.renewals = 0

    def start(self, on_lost: Callable[[Collection[Fence]], None]) -> None:
        """Start the thread; `on_lost` is called on the loop that runs now."""
        self._on_lost = on_lost
        self._main_loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name="lease-keeper", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """End the thread."""
        if self._loop is not None and self._stop is not None:
            with suppress(RuntimeError):  # its loop has ended already
                self._loop.call_soon_threadsafe(self._stop.set)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, JOIN_SECONDS)

    def keep(self, fences: Collection[Fence]) -> None:
        """Renew these from now on."""
        with self._lock:
            self._held.update(fences)

    def drop(self, fence: Fence) -> None:
        """Renew it no more."""
        with self._lock:
            self._held.discard(fence)

    def _work(self) -> None:
        asyncio.run(self._renew_until_stopped())

    async def _renew_until_stopped(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        pause = self._lease_seconds / RENEWALS_PER_LEASE
        while not self._stop.is_set():
            try:
                async with self._open_queue() as queue:
                    while not await self._stopped_within(self._stop, pause):
                        await self._renew(queue)
            except Unavailable as error:
                log.warning("lease.renewal_failed", reason=str(error), held=len(self._held))
                await self._stopped_within(self._stop, RETRY_SECONDS)

    async def _renew(self, queue: QueueStore) -> None:
        with self._lock:
            asked = list(self._held)
        if not asked:
            return
        granted = await self._renewed(queue, asked)
        self.renewals += 1
        with self._lock:
            lost = [fence for fence in asked if fence not in granted and fence in self._held]
            self._held.difference_update(lost)
        if lost and self._main_loop is not None:
            with suppress(RuntimeError):  # the worker's loop has ended: its attempts have too
                self._main_loop.call_soon_threadsafe(self._on_lost, lost)

    async def _renewed(self, queue: QueueStore, asked: list[Fence]) -> set[Fence]:
        """Renew, trying again for as long as it takes: the pause between tries is far shorter than a lease."""
        while True:
            try:
                held = await queue.renew(self._worker_id, asked, self._lease_seconds)
            except Unavailable as error:
                log.warning("lease.renewal_failed", reason=str(error), held=len(asked))
                if self._stop is None or await self._stopped_within(self._stop, RETRY_SECONDS):
                    return set(asked)
            else:
                return {(item.request_id, item.attempt) for item in held}

    @staticmethod
    async def _stopped_within(stop: asyncio.Event, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await stop.wait()
        return stop.is_set()


def _nothing(_fences: Collection[Fence]) -> None:
    """Stand in until started."""
