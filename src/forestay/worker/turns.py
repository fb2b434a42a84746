"""Whose turn a slot is: a queued request's or a direct call's.

The rule, for each replica by itself: a lane that wants slots alone may use every one. While both want, each may hold
half of them; an odd one changes hands with every use, so that with a single slot turns alternate. Nothing that runs is
interrupted: a slot beyond a lane's half goes over when its call ends. So a lane that wants waits, from the end of the
other's next call beyond its half, no longer than `WANT_SECONDS` and one round trip, whatever the other's backlog.

`may_take` and `decide_grant` are pure; `Turns` remembers which lane wants, for one replica. It decides no order inside
a lane (the queue's claim and the gateways' lines do). Called by `worker/replica.py`, `claiming.py` and
`slot_blocks.py`.
"""

import dataclasses
import enum

from forestay.clock import Clock

WANT_SECONDS = 0.6  # a direct call without a slot asks again within a quarter of a second; a silent one has left
PROBE_SECONDS = 5.0  # a queue that could not be asked for so long may have requests, with every wake-up lost


class Lane(enum.Enum):
    """The two ways to a replica."""

    QUEUE = "queue"
    DIRECT = "direct"

    @property
    def other(self) -> "Lane":
        """Return the other one."""
        return Lane.DIRECT if self is Lane.QUEUE else Lane.QUEUE


@dataclasses.dataclass(frozen=True, slots=True)
class Share:
    """How a replica's slots are held, and who wants more."""

    total: int
    queued: int  # running from the queue
    direct: int  # running from the direct lane, and lent to gateways
    queue_wants: bool
    direct_wants: bool
    odd_to: Lane  # whose turn it is with the slot that halves leave over

    def held(self, lane: Lane) -> int:
        """Return what the lane holds."""
        return self.queued if lane is Lane.QUEUE else self.direct

    def wants(self, lane: Lane) -> bool:
        """Tell whether the lane is known to want more."""
        return self.queue_wants if lane is Lane.QUEUE else self.direct_wants

    def allowed(self, lane: Lane) -> int:
        """Return how many slots the lane may hold while both want."""
        half, odd = divmod(self.total, 2)
        return half + (odd if self.odd_to is lane else 0)


def may_take(share: Share, lane: Lane) -> int:
    """Return how many of the free slots the lane may take now."""
    free = max(0, share.total - share.queued - share.direct)
    if not share.wants(lane.other):
        return free
    return max(0, min(free, share.allowed(lane) - share.held(lane)))


@dataclasses.dataclass(frozen=True, slots=True)
class Grant:
    """A block of slots for a gateway; `recalled` of them come back after one more call, or at once when none waits."""

    slots: int
    recalled: int


def decide_grant(share: Share, former: int, wanted: int, awaited: int) -> Grant:
    """Return the block for a gateway that holds `former` and asks for `wanted`; `share` does not count its own.

    What it holds is not cut while calls may run on it. While the queue wants too, what goes beyond the direct lane's
    half, or beyond the calls that the gateway has (`awaited`), is recalled instead.
    """
    room = max(0, share.total - share.queued - share.direct)
    if not share.queue_wants:
        return Grant(max(0, min(wanted, room)), 0)
    allowed = max(0, min(share.allowed(Lane.DIRECT) - share.direct, awaited))
    granted = max(0, min(wanted, room, max(allowed, former)))
    kept = max(0, min(share.total // 2 - share.direct, awaited))
    return Grant(granted, max(0, granted - kept))


class Turns:
    """What is known of one replica's lanes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.queue_wants = False
        self._told_meanwhile = False
        self.odd_to = Lane.DIRECT  # a direct caller is waiting, a queued one has been told to
        self.offered = 0  # slots that a claim on its way may fill
        self._asked_queue_at = clock.monotonic()
        self._direct_wanted_at: dict[str, float] = {}  # by gateway; "" for calls that are relayed here

    @property
    def direct_wants(self) -> bool:
        """Tell whether a direct call was refused a slot a moment ago."""
        oldest = self._clock.monotonic() - WANT_SECONDS
        return any(at >= oldest for at in self._direct_wanted_at.values())

    def want_queue(self) -> None:
        """Note that the queue has new requests for this replica's model."""
        self.queue_wants = self._told_meanwhile = True

    def want_direct(self, gateway: str, *, more: bool) -> None:
        """Note that a gateway asked, and whether it wants more than it got."""
        if not more:
            self._direct_wanted_at.pop(gateway, None)
            return
        now = self._clock.monotonic()
        if not self.direct_wants:
            self._direct_wanted_at.clear()  # those that have fallen silent
        self._direct_wanted_at[gateway] = now

    def took(self, lane: Lane, held: int, total: int) -> None:
        """Note that a lane holds so many slots now: beyond its half, the next odd one is the other's."""
        if held > total // 2:
            self.odd_to = lane.other

    def offer(self, slots: int) -> None:
        """Note that a claim is on its way."""
        self.offered = slots
        self._told_meanwhile = False
        self._asked_queue_at = self._clock.monotonic()

    def claimed(self, *, all_filled: bool) -> None:
        """Note the claim's end: when it filled everything that was offered, the queue may have more."""
        self.offered = 0
        self.queue_wants = all_filled or self._told_meanwhile

    def close_queue(self) -> None:
        """Note that no queued request can come: the revision has no share of the traffic (any more)."""
        self.queue_wants = self._told_meanwhile = False
        self._asked_queue_at = self._clock.monotonic()

    def probe(self) -> None:
        """Take the queue for a waiting one when it could not be asked for long: its wake-ups may be lost."""
        if self._clock.monotonic() - self._asked_queue_at >= PROBE_SECONDS:
            self.want_queue()
