"""Takes the lines that models write, gives each to a request, and stores them in batches.

It decides to whom a line belongs: to the running request that the model process names, or, when it names none and
exactly one request runs on the replica, to that one; any other line belongs to nobody and only shows in the worker's
own debug log. Bounded everywhere: what is too much is dropped and counted, and the request's log says so.
"""

import collections
from collections.abc import Sequence

from forestay.clock import Clock
from forestay.errors import Unavailable
from forestay.ids import RequestId, parse_request_id
from forestay.queue.model import LogLine
from forestay.queue.store import QueueStore
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import WORKER_LOG_LINES, Metrics
from forestay.worker.batches import Batcher
from forestay.worker.replica import Replica, Running

log = logger("worker")
SHIP_SECONDS = 0.25
MAX_LINES_PER_ATTEMPT = 10_000
MAX_LINE_CHARS = 65_536
MAX_WAITING = 50_000
BATCH = 1_000
LEVELS = frozenset({"STDOUT", "STDERR", "DEBUG", "INFO", "WARN", "ERROR"})


class LogBook:
    """The lines of one worker that wait to be stored."""

    def __init__(self, queue: QueueStore, clock: Clock, metrics: Metrics) -> None:
        self._queue = queue
        self._clock = clock
        self._metrics = metrics
        self._waiting: collections.deque[LogLine] = collections.deque()
        self._flushes = Batcher(self._flush, clock)
        self._counts: dict[tuple[RequestId, int], int] = {}

    def take(self, replica: Replica, request: str | None, level: str, message: str) -> None:
        """Take one line of a replica."""
        running = _owner(replica, request)
        if running is None:
            log.debug("model.output", replica=replica.replica_id, level=level, line=message)
            return
        if running.attempt == 0:  # the direct lane keeps no logs: its answer is already on its way to the caller
            return
        key = (running.request_id, running.attempt)
        sequence = self._counts.get(key, 0)
        self._counts[key] = sequence + 1
        if sequence > MAX_LINES_PER_ATTEMPT or len(self._waiting) >= MAX_WAITING:
            self._metrics.add(WORKER_LOG_LINES, "dropped")
            return
        if sequence == MAX_LINES_PER_ATTEMPT:
            level, message = "WARN", f"more than {MAX_LINES_PER_ATTEMPT} lines: the rest of this attempt is not kept"
        text = message[:MAX_LINE_CHARS].replace("\0", "\\x00")  # Postgres text cannot hold NUL
        self._waiting.append(
            LogLine(
                request_id=running.request_id,
                attempt=running.attempt,
                sequence=sequence,
                at=self._clock.now(),
                level=level if level in LEVELS else "STDOUT",
                message=text.encode("utf-8", "backslashreplace").decode(),
            )
        )
        self._metrics.add(WORKER_LOG_LINES, "kept")

    def forget(self, running: Running) -> None:
        """Stop counting lines of an attempt that has ended."""
        self._counts.pop((running.request_id, running.attempt), None)

    async def flush(self) -> None:
        """Store what waits now, so that an answer never overtakes its own lines; free when there is nothing."""
        if self._waiting:
            await self._flushes.put(None)

    async def _flush(self, asked: Sequence[None]) -> Sequence[None]:
        await self.ship()
        return asked

    async def keep_flushing(self) -> None:
        """Serve `flush`."""
        await self._flushes.run()

    async def run(self) -> None:
        """Ship every quarter of a second."""
        while True:
            await self._clock.sleep(SHIP_SECONDS)
            await self.ship()

    async def ship(self) -> None:
        """Store what waits; what cannot be stored stays, up to the bound."""
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            try:
                await self._queue.append_logs(batch)
            except Unavailable:
                self._waiting.extendleft(reversed(batch))
                return
            except Exception:  # lines that the store cannot hold must not stop those of other requests
                self._metrics.add(WORKER_LOG_LINES, "dropped", amount=len(batch))
                log.exception("logs.refused", lines=len(batch))


def _owner(replica: Replica, request: str | None) -> Running | None:
    if request is None:
        return replica.owner_of(None)
    request_id = parse_request_id(request)
    return None if request_id is None else replica.owner_of(request_id)
