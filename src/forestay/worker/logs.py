"""Takes the lines that models write, gives each to a request, and stores them in batches.

It decides to whom a line belongs: to the running request that the model process names, or, when it names none and
exactly one request runs on the replica, to that one; any other line belongs to nobody and only shows in the worker's
own debug log. Where a policy judges text, lines are judged before they are stored (`line_judging`). Bounded everywhere:
what is too much is dropped and counted, and the request's log says so.
"""

import asyncio
import collections
import dataclasses
from collections.abc import Awaitable, Callable, Sequence

from forestay.clock import Clock
from forestay.errors import Unavailable
from forestay.ids import parse_request_id
from forestay.queue.model import LogLine
from forestay.queue.store import QueueStore
from forestay.safety.guard import Subject
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import WORKER_LOG_LINES, Metrics
from forestay.worker.batches import Batcher
from forestay.worker.line_judging import Key, LineJudge, subject_of_lines
from forestay.worker.replica import Replica, Running

log = logger("worker")
SHIP_SECONDS = 0.25
MAX_LINES_PER_ATTEMPT = 10_000
MAX_LINE_CHARS = 65_536
MAX_WAITING = 50_000
BATCH = 1_000
LEVELS = frozenset({"STDOUT", "STDERR", "DEBUG", "INFO", "WARN", "ERROR"})


@dataclasses.dataclass(frozen=True, slots=True)
class _Waiting:
    """A line, and whose it is where it must be judged before it is stored."""

    line: LogLine
    subject: Subject | None = None


class _Shelf:
    """Lines that wait, stored in their order: one batch at a time is on its way."""

    def __init__(self, store: Callable[[list[_Waiting]], Awaitable[list[_Waiting]]], clock: Clock) -> None:
        """`store` returns what it could not store now."""
        self.waiting: collections.deque[_Waiting] = collections.deque()
        self._store = store
        self._turn = asyncio.Lock()
        self._flushes = Batcher(self._flush, clock)

    async def flush(self) -> None:
        """Store what waits now; free when there is nothing."""
        if self.waiting or self._turn.locked():
            await self._flushes.put(None)

    async def keep_flushing(self) -> None:
        """Serve `flush`."""
        await self._flushes.run()

    async def ship(self) -> None:
        """Store what waits; what cannot be stored stays."""
        async with self._turn:
            while self.waiting:
                batch = [self.waiting.popleft() for _ in range(min(BATCH, len(self.waiting)))]
                left = await self._store(batch)
                if left:
                    self.waiting.extendleft(reversed(left))
                    return

    async def _flush(self, asked: Sequence[None]) -> Sequence[None]:
        await self.ship()
        return asked


class LogBook:
    """The lines of one worker that wait to be stored; those that must be judged first hold up no others."""

    def __init__(self, queue: QueueStore, clock: Clock, metrics: Metrics, judge: LineJudge | None = None) -> None:
        """Without a judge every line is told: for models that no policy covers."""
        self._queue = queue
        self._clock = clock
        self._metrics = metrics
        self._judge = judge
        self._plain, self._covered = _Shelf(self._stored, clock), _Shelf(self._judged, clock)
        self._counts: dict[Key, int] = {}
        self._held: set[Key] = set()  # attempts with lines that must be judged

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
        waiting = len(self._plain.waiting) + len(self._covered.waiting)
        if sequence > MAX_LINES_PER_ATTEMPT or waiting >= MAX_WAITING:
            self._metrics.add(WORKER_LOG_LINES, "dropped")
            return
        if sequence == MAX_LINES_PER_ATTEMPT:
            level, message = "WARN", f"more than {MAX_LINES_PER_ATTEMPT} lines: the rest of this attempt is not kept"
        text = message[:MAX_LINE_CHARS].replace("\0", "\\x00")  # Postgres text cannot hold NUL
        line = LogLine(
            request_id=running.request_id,
            attempt=running.attempt,
            sequence=sequence,
            at=self._clock.now(),
            level=level if level in LEVELS else "STDOUT",
            message=text.encode("utf-8", "backslashreplace").decode(),
        )
        self._put(replica, running, line)
        self._metrics.add(WORKER_LOG_LINES, "kept")

    def forget(self, running: Running) -> None:
        """Stop counting lines of an attempt that has ended."""
        key = (running.request_id, running.attempt)
        self._counts.pop(key, None)
        self._held.discard(key)
        if self._judge is not None:
            self._judge.forget(key)

    async def flush(self, running: Running) -> None:
        """Store what waits now, so that an answer never overtakes its own lines; free when there is nothing."""
        await self._plain.flush()
        if (running.request_id, running.attempt) in self._held:
            await self._covered.flush()

    async def keep_flushing(self) -> None:
        """Serve `flush`."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._plain.keep_flushing())
            group.create_task(self._covered.keep_flushing())

    async def run(self) -> None:
        """Ship every quarter of a second."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._ship_for_ever(self._plain))
            group.create_task(self._ship_for_ever(self._covered))

    async def ship(self) -> None:
        """Store what waits; what cannot be stored stays, up to the bound."""
        await self._plain.ship()
        await self._covered.ship()

    async def _ship_for_ever(self, shelf: _Shelf) -> None:
        while True:
            await self._clock.sleep(SHIP_SECONDS)
            await shelf.ship()

    def _put(self, replica: Replica, running: Running, line: LogLine) -> None:
        """Let a line wait to be stored, or to be judged first."""
        if self._judge is not None:
            subject = subject_of_lines(replica, running)
            if self._judge.holds(subject):
                self._held.add((running.request_id, running.attempt))
                self._covered.waiting.append(_Waiting(line, subject))
                return
        self._plain.waiting.append(_Waiting(line))

    async def _judged(self, batch: list[_Waiting]) -> list[_Waiting]:
        """Judge lines, all attempts at once and each one's in their order, and store them."""
        own: dict[Subject, list[LogLine]] = {}
        for item in batch:
            if item.subject is not None:
                own.setdefault(item.subject, []).append(item.line)
        if own and self._judge is not None:
            made = await asyncio.gather(*(self._judge.judged(subject, lines) for subject, lines in own.items()))
            told = {subject: iter(lines) for subject, lines in zip(own, made, strict=True)}
            batch = [item if item.subject is None else _Waiting(next(told[item.subject])) for item in batch]
        return await self._stored(batch)

    async def _stored(self, batch: list[_Waiting]) -> list[_Waiting]:
        try:
            await self._queue.append_logs([item.line for item in batch])
        except Unavailable:
            return batch
        except Exception:  # lines that the store cannot hold must not stop those of other requests
            self._metrics.add(WORKER_LOG_LINES, "dropped", amount=len(batch))
            log.exception("logs.refused", lines=len(batch))
        return []


def _owner(replica: Replica, request: str | None) -> Running | None:
    if request is None:
        return replica.owner_of(None)
    request_id = parse_request_id(request)
    return None if request_id is None else replica.owner_of(request_id)
