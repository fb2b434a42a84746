"""A pool of slots on a virtual clock, with callers, a queue and a policy; what happened is returned, nothing waits.

The world decides nothing: a `Policy` (`simulator/policies`) says who is admitted, who is next and who is given up.
Called by benches and tests.
"""

import dataclasses
import datetime as dt
import heapq
import itertools
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from forestay.ids import RequestId, TenantId
from forestay.simulator.demand import Arrival

EPOCH = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
TICK_SECONDS = 1.0


@dataclasses.dataclass(slots=True)
class Story:
    """What becomes of one request. Times in seconds from the start of the world."""

    request_id: RequestId
    arrival: Arrival
    predicted_seconds: float = 1.0
    start_expected: float | None = None  # as admission predicted it
    refused: str = ""  # why, and when to come back
    retry_after_seconds: int = 0
    shed: str = ""  # why it was ended early
    started: float | None = None
    ended: float | None = None

    @property
    def tenant_id(self) -> TenantId:
        """Return whose it is."""
        return TenantId(self.arrival.tenant)

    @property
    def start_limit(self) -> float | None:
        """Return by when it must have started."""
        within = self.arrival.start_within
        return None if within is None else self.arrival.at + within

    @property
    def in_time(self) -> bool:
        """Tell whether it started before its limit."""
        return self.started is not None and (self.start_limit is None or self.started <= self.start_limit)


class Policy(Protocol):
    """Everything that is decided about requests."""

    def submit(self, story: Story, now: float) -> bool:
        """Look at a request that arrives; False turns it away, with the reason in it."""
        ...

    def claim(self, now: float) -> Story | None:
        """Return the request that a free slot takes now, None when none waits."""
        ...

    def ended(self, story: Story, now: float) -> None:
        """Hear that a request has ended."""
        ...

    def tick(self, slots: int, now: float) -> None:
        """Look around, once a second and at every change; `slots` are there now."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """The number of slots becomes another: replicas came or went. What runs on them runs to its end."""

    at: float
    slots: int


@dataclasses.dataclass(frozen=True, slots=True)
class _Ends:
    story: Story


class World:
    """Slots of one model, each on a device of its own."""

    def __init__(self, policy: Policy, slots: int) -> None:
        self._policy = policy
        self._slots = slots
        self._busy = 0
        self._events: list[tuple[float, int, Story | _Ends | Change | None]] = []
        self._numbers = itertools.count(1)
        self._stories: list[Story] = []

    def run(self, arrivals: Iterable[Arrival], seconds: float, changes: Sequence[Change] = ()) -> list[Story]:
        """Let the arrivals come, and stop after `seconds`; what waits or runs then stays unfinished."""
        for change in changes:
            self._plan(change.at, change)
        for tick in range(int(seconds / TICK_SECONDS) + 1):
            self._plan(tick * TICK_SECONDS, None)
        for arrival in arrivals:
            story = Story(_request_id(arrival.at, next(self._numbers)), arrival)
            self._stories.append(story)
            self._plan(arrival.at, story)
        while self._events and self._events[0][0] <= seconds:
            now, _, event = heapq.heappop(self._events)
            self._meet(event, now)
            self._serve(now)
        return self._stories

    def _plan(self, at: float, event: "Story | _Ends | Change | None") -> None:
        heapq.heappush(self._events, (at, next(self._numbers), event))

    def _meet(self, event: "Story | _Ends | Change | None", now: float) -> None:
        match event:
            case Story():
                self._policy.submit(event, now)
            case _Ends(story):
                self._busy -= 1
                story.ended = now
                self._policy.ended(story, now)
            case Change(_, slots):
                self._slots = slots
                self._policy.tick(slots, now)
            case None:
                self._policy.tick(self._slots, now)

    def _serve(self, now: float) -> None:
        while self._busy < self._slots:
            story = self._policy.claim(now)
            if story is None:
                return
            self._busy += 1
            story.started = now
            self._plan(now + story.arrival.device_seconds, _Ends(story))


def moment(seconds: float) -> dt.datetime:
    """Return the moment of the virtual calendar."""
    return EPOCH + dt.timedelta(seconds=seconds)


def requests_served(stories: Iterable[Story]) -> Mapping[TenantId, int]:
    """Count by tenant the requests that ran to their end."""
    counts: dict[TenantId, int] = {}
    for story in stories:
        if story.ended is not None:
            counts[story.tenant_id] = counts.get(story.tenant_id, 0) + 1
    return counts


def _request_id(at: float, number: int) -> RequestId:
    """Make ids that order by time, as the real ones do, without chance."""
    milliseconds = int(moment(at).timestamp() * 1000)
    return RequestId(uuid.UUID(int=(milliseconds << 80) | (0x7 << 76) | (0b10 << 62) | number))
