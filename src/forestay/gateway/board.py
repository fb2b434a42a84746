"""The status board: every status that callers watch, in memory, refreshed by batched reads.

A poll never reads the database by itself. Ids that callers asked about lately are read together, at most every 250 ms,
and at once (with a short pause between) when `forestay:changed` names them. Queue positions come from one sample per
model and second. While the database is away the last known status is served, and counted. Decides when to read and
when to wait, not what is said (`status`). Called by the queue's routes; submit primes it.
"""

import asyncio
import dataclasses
import datetime as dt
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence

from forestay.errors import Unavailable
from forestay.gateway.ports import GatewayPorts
from forestay.ids import ModelId, RequestId
from forestay.queue.model import FINAL, LogLine, Snapshot, State
from forestay.queue.positions import queue_position
from forestay.telemetry.metrics import GUARD_OPEN, STATUS_READS, STATUS_WATCHED

DEBOUNCE_SECONDS = 0.02
POSITIONS_SECONDS = 1.0
ACTIVE_SECONDS = 10.0  # asked about so lately: read in every round
FORGET_SECONDS = 60.0
MAX_WATCHED = 50_000
MAX_BATCH = 5_000
PATIENCE_SECONDS = 5.0  # how long a first status may wait for the database
LOG_SECONDS = 0.25
LOG_PAGE = 1_000
LATE_LOG_SECONDS = 2.0  # lines may reach the store a little after the finish
MAX_LOG_LINES = 5_000  # kept in memory per request; the newest


Waiters = list[asyncio.Future[None]]


@dataclasses.dataclass(slots=True, eq=False)
class Watched:
    """One request that somebody watches."""

    request_id: RequestId
    snapshot: Snapshot | None = None
    position: int = 0
    read_at: float = -1e9  # monotonic, of the last database read that covered it
    asked_at: float = 0.0
    told: tuple[object, ...] | None = None  # what the last poll was told
    encoded: tuple[tuple[object, ...], bytes] | None = None  # the last answer without logs, and what it was made of
    logs: list[LogLine] = dataclasses.field(default_factory=list[LogLine])
    log_position: int = 0
    logs_dropped: int = 0
    logs_read_at: float = -1e9
    logs_complete: bool = False
    readers: Waiters = dataclasses.field(default_factory=list[asyncio.Future[None]])  # want the next read
    watchers: Waiters = dataclasses.field(default_factory=list[asyncio.Future[None]])  # want the next change

    @property
    def final(self) -> bool:
        """Tell whether nothing can change any more."""
        return self.snapshot is not None and self.snapshot.state in FINAL

    @property
    def signature(self) -> tuple[object, ...]:
        """Return what makes a status new to its caller."""
        snapshot = self.snapshot
        if snapshot is None:
            return ()
        lines = self.logs_dropped + len(self.logs)
        return (snapshot.state, snapshot.attempt, self.position if snapshot.state is State.QUEUED else -1, lines)


class StatusBoard:
    """All watched requests of this gateway."""

    def __init__(self, ports: GatewayPorts) -> None:
        self._ports = ports
        self._watched: OrderedDict[RequestId, Watched] = OrderedDict()  # the least lately asked about first
        self._hasty: set[RequestId] = set()  # to be read at once
        self._wake = asyncio.Event()
        self._positions: dict[ModelId, list[dt.datetime]] = {}
        self._positions_at = -1e9

    def prime(self, snapshot: Snapshot) -> None:
        """Note a request that was just committed here: its first polls need no read."""
        watched = self._watch(snapshot.request_id)
        if watched.snapshot is None:
            watched.snapshot = snapshot
            watched.read_at = self._ports.clock.monotonic()
            watched.position = self.queue_length(snapshot.model_id)

    def queue_length(self, model_id: ModelId) -> int:
        """Return the last sampled length of a model's queue, 0 when nobody watches it."""
        return len(self._positions.get(model_id, ()))

    def changed(self, request_ids: Iterable[RequestId]) -> None:
        """Note that these changed: those watched here are read at once."""
        known = [item for item in request_ids if item in self._watched and not self._watched[item].final]
        if known:
            self._hasty.update(known)
            self._wake.set()

    async def find(self, request_id: RequestId) -> Watched | None:
        """Return what is known, no older than the refresh setting; None for an unknown id. Unavailable after 5 s."""
        watched = self._watch(request_id)
        if watched.final:
            return watched
        now = self._ports.clock.monotonic()
        if now - watched.read_at > self._ports.settings.gateway.status_refresh_seconds:
            await self._read_soon(watched, now)
        if watched.snapshot is None:
            self._watched.pop(request_id, None)
            return None
        return watched

    async def wait_news(self, watched: Watched, told: tuple[object, ...] | None, seconds: float) -> None:
        """Wait until the status differs from `told`, at most `seconds`."""
        deadline = self._ports.clock.monotonic() + seconds
        while watched.signature == told and not watched.final:
            left = deadline - self._ports.clock.monotonic()
            if left <= 0:
                return
            self._touch(watched)
            self._wake.set()
            await _wait(watched.watchers, left)

    async def read_logs(self, watched: Watched) -> None:
        """Fetch the log lines that are new since the last read, at most four times a second and request."""
        now = self._ports.clock.monotonic()
        if watched.logs_complete or (now - watched.logs_read_at < LOG_SECONDS and not watched.final):
            return
        watched.logs_read_at = now
        final = watched.final
        for _ in range(MAX_LOG_LINES // LOG_PAGE):
            self._ports.metrics.add(STATUS_READS, "logs")
            page = await self._ports.queue.logs(watched.request_id, watched.log_position)
            fresh = [(position, line) for position, line in page if position > watched.log_position]
            if fresh:
                watched.log_position = fresh[-1][0]
                watched.logs.extend(line for _, line in fresh)
            if len(page) < LOG_PAGE:
                watched.logs_complete = final and now - watched.read_at > LATE_LOG_SECONDS
                break
        surplus = len(watched.logs) - MAX_LOG_LINES
        if surplus > 0:
            del watched.logs[:surplus]
            watched.logs_dropped += surplus

    async def run(self) -> None:
        """Read for ever: hasty ids after a short pause, active ones each round, nothing when nobody asks."""
        every = self._ports.settings.gateway.status_refresh_seconds
        next_round = 0.0
        while True:
            await self._await_work(next_round)
            now = self._ports.clock.monotonic()
            wanted, self._hasty = self._hasty, set()
            if now >= next_round:
                wanted |= {item.request_id for item in self._active(now)}
                next_round = now + every
                self._forget(now)
            await self._read(list(wanted), now)
            await self._ports.clock.sleep(min(DEBOUNCE_SECONDS, every))

    async def _await_work(self, next_round: float) -> None:
        """Wait for something hasty, or for the next round when somebody is waiting for news."""
        while not self._hasty:
            now = self._ports.clock.monotonic()
            busy = next(self._active(now), None) is not None
            if busy and now >= next_round:
                return
            self._wake.clear()
            try:
                async with asyncio.timeout(max(next_round - now, 0.001) if busy else None):
                    await self._wake.wait()
            except TimeoutError:
                return

    def _active(self, now: float) -> Iterator[Watched]:
        for item in reversed(self._watched.values()):
            if now - item.asked_at > ACTIVE_SECONDS and not item.watchers:
                return
            if not item.final:
                yield item

    async def _read(self, request_ids: Sequence[RequestId], now: float) -> None:
        for start in range(0, len(request_ids), MAX_BATCH):
            batch = request_ids[start : start + MAX_BATCH]
            self._ports.metrics.add(STATUS_READS, "snapshots")
            try:
                found = await self._ports.queue.snapshots(batch)
                await self._read_positions(found.values(), now)
            except Unavailable:
                self._ports.metrics.add(GUARD_OPEN, "status_stale")
                self._serve_stale(batch)
                continue
            for request_id in batch:
                self._take(request_id, found.get(request_id), now)

    async def _read_positions(self, snapshots: Iterable[Snapshot], now: float) -> None:
        models = {item.model_id for item in snapshots if item.state is State.QUEUED}
        if models and (now - self._positions_at >= POSITIONS_SECONDS or not models <= self._positions.keys()):
            self._ports.metrics.add(STATUS_READS, "positions")
            found = await self._ports.queue.queued_ahead(sorted(models))
            self._positions = {model: found.get(model, []) for model in models}
            self._positions_at = now

    def _take(self, request_id: RequestId, snapshot: Snapshot | None, now: float) -> None:
        watched = self._watched.get(request_id)
        if watched is None:
            return
        before = watched.signature
        watched.read_at = now
        watched.snapshot = snapshot
        if snapshot is not None and snapshot.state is State.QUEUED:
            watched.position = queue_position(self._positions.get(snapshot.model_id, []), snapshot.order_at)
        _release(watched.readers)
        if before != watched.signature:
            _release(watched.watchers)

    def _serve_stale(self, request_ids: Sequence[RequestId]) -> None:
        """Let those go on whose last status is known; the others keep waiting for the database."""
        for request_id in request_ids:
            watched = self._watched.get(request_id)
            if watched is not None and watched.snapshot is not None:
                _release(watched.readers)

    async def _read_soon(self, watched: Watched, asked_at: float) -> None:
        """Wait for a read that began after the question, or (stale but known) for the database's refusal.

        An id never read before is read at once; a known one waits for the next round, which is due soon or now.
        """
        if watched.snapshot is None:
            self._hasty.add(watched.request_id)
        self._wake.set()
        deadline = asked_at + PATIENCE_SECONDS
        while watched.read_at < asked_at:
            left = deadline - self._ports.clock.monotonic()
            if left <= 0:
                if watched.snapshot is None:
                    raise Unavailable("the status could not be read in time")
                return
            await _wait(watched.readers, left)
            if watched.snapshot is not None:
                return
            if watched.read_at < asked_at:
                self._hasty.add(watched.request_id)
                self._wake.set()

    def _watch(self, request_id: RequestId) -> Watched:
        watched = self._watched.get(request_id)
        if watched is None:
            watched = Watched(request_id)
            self._watched[request_id] = watched
            if len(self._watched) > MAX_WATCHED:
                self._watched.popitem(last=False)
        self._touch(watched)
        return watched

    def _touch(self, watched: Watched) -> None:
        """Note that somebody asks: the order of the watched is the order in which they were last asked about."""
        watched.asked_at = self._ports.clock.monotonic()
        if watched.request_id in self._watched:
            self._watched.move_to_end(watched.request_id)

    def _forget(self, now: float) -> None:
        while self._watched:
            oldest = next(iter(self._watched.values()))
            if now - oldest.asked_at < FORGET_SECONDS or oldest.watchers:
                break
            del self._watched[oldest.request_id]
        self._ports.metrics.set(STATUS_WATCHED, len(self._watched))


async def _wait(waiters: Waiters, seconds: float) -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waiters.append(future)
    try:
        async with asyncio.timeout(seconds):
            await future
    except TimeoutError:
        return
    finally:
        if future in waiters:
            waiters.remove(future)


def _release(waiters: Waiters) -> None:
    for future in waiters:
        if not future.done():
            future.set_result(None)
    waiters.clear()
