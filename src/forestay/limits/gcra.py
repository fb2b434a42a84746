"""The generic cell rate algorithm: the pure reference that every counter is compared with.

Virtual scheduling form (ITU-T Recommendation I.371, annex A; ATM Forum Traffic Management 4.1, section 4.4.2): a
bucket is one number, the theoretical arrival time (TAT) of the next cell. A call of cost `c` moves it on by `c`
emission intervals, and conforms when it does not end up further ahead of the clock than `capacity`. In any window of
`w` seconds the granted cost is therefore at most `w / interval + capacity / interval`: the rate and one burst.

A call that costs more than the whole capacity (only device-seconds can) conforms when nothing is owed; what it is over
is then waited out by those that follow, so the average still holds. Times are microseconds here, as in
`lua/counters.lua`, which does the same on the server. Decides nothing about whose bucket it is.
"""

import dataclasses
import math

MICROSECONDS = 1_000_000.0
GRAIN = 16.0  # intervals are whole sixteenths of a microsecond, rounded up: exact in a double for 17 years of clock


@dataclasses.dataclass(frozen=True, slots=True)
class Bucket:
    """How fast a bucket empties and how much it holds; both in microseconds, see `bucket_of`."""

    interval: float  # for one unit of cost
    capacity: float  # for one burst


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one call."""

    granted: bool
    tat: float  # of the bucket afterwards
    wait: float  # microseconds until the same call would conform; 0 when granted
    left: float  # units of cost that would conform now
    next_unit: float  # microseconds until one more unit conforms


def bucket_of(per_second: float, burst: float) -> Bucket:
    """Return the bucket of a rate and a burst (both in units of cost); rounding never grants more than asked for."""
    interval = math.ceil(MICROSECONDS * GRAIN / per_second) / GRAIN
    return Bucket(interval, burst * interval)


def shared(bucket: Bucket, share: float) -> Bucket:
    """Return the bucket for one gateway that may grant `share` (0..1] of it; always room for one unit."""
    interval = bucket.interval / share
    return Bucket(interval, max(bucket.capacity, interval))


def decide(bucket: Bucket, tat: float, now: float, cost: float = 1.0) -> Verdict:
    """Decide one call of `cost` at `now`."""
    start = max(tat, now)
    need = cost * bucket.interval
    spare = 0.0 if need > bucket.capacity else bucket.capacity - need  # larger than the bucket: when nothing is owed
    wait = start - now - spare
    if wait > 0:
        return _verdict(bucket, start, now, granted=False, wait=wait)
    return _verdict(bucket, start + need, now, granted=True, wait=0.0)


def give_back(bucket: Bucket, tat: float, now: float, cost: float) -> float:
    """Return the arrival time after `cost` is given back (negative: more was used than was taken).

    A bucket that has run empty since gains nothing: it never holds more than its capacity.
    """
    return (tat if cost > 0 else max(tat, now)) - cost * bucket.interval


def _verdict(bucket: Bucket, tat: float, now: float, *, granted: bool, wait: float) -> Verdict:
    left = max(0.0, (bucket.capacity - (tat - now)) / bucket.interval)
    missing = (left // 1 + 1 - left) * bucket.interval if tat > now else 0.0
    owed = max(0.0, tat - now - bucket.capacity)
    return Verdict(granted, tat, wait, left, missing + owed)
