"""What readings of a device over time say of its health: evidence in words, and findings against who runs on it. Pure.

It decides what is worth telling (an error the driver noted, lost data in memory, rows that wait for replacement,
clocks held down by heat or supply for long), and which of it makes a device unfit, so that the quality loop may drain
what runs there. Heat and supply never do: they make outputs late, not wrong. Called by `worker/device_watch`.
"""

import dataclasses
import datetime as dt
import itertools
from collections.abc import Iterator, Sequence

from forestay.fleet.devices import Reading, Slowdown, XidEvent
from forestay.quality.findings import Finding, Source, Where
from forestay.quality.xids import XIDS

STANDS = dt.timedelta(minutes=15)  # how long an error of the driver, or a rise, is told again after it happened
LONG_SLOWED = dt.timedelta(seconds=30)  # clocks are held down for moments in ordinary work
HELD_BACK = {Slowdown.THERMAL: "heat", Slowdown.POWER_BRAKE: "the machine's supply"}
CORRUPT, FALL_BACK = 29, 44  # rows of the catalogue: silent corruption; slower than it should be


@dataclasses.dataclass(frozen=True, slots=True)
class Evidence:
    """One thing that is wrong with a device. `kind` is the same for the same thing, whatever its numbers."""

    kind: str  # "xid=48", "ecc", "rows", "thermal", "lost"
    what: str
    unfit: bool
    since: dt.datetime
    number: float  # the one that matters: an error's number, a rise, seconds


def decide_evidence(readings: Sequence[Reading], events: Sequence[XidEvent], now: dt.datetime) -> list[Evidence]:
    """Return what is wrong with one device by its readings, oldest first, and by what the driver noted of it."""
    found = [*_xids(events, now)]
    if not readings:
        return found
    last = readings[-1]
    if last.lost:
        first = next(item for item in readings if item.lost)
        words = "the driver no longer reaches the device"
        found.append(Evidence("lost", words, unfit=True, since=first.at, number=1.0))
        return found
    return [*found, *_ecc(readings, now), *_rows(last), *_slowed(readings, now)]


def _xids(events: Sequence[XidEvent], now: dt.datetime) -> Iterator[Evidence]:
    recent = [item for item in events if item.xid in XIDS and now - item.at <= STANDS]
    for number in sorted({item.xid for item in recent}):
        times = [item.at for item in recent if item.xid == number]
        known, often = XIDS[number], f", {len(times)} times" if len(times) > 1 else ""
        yield Evidence(f"xid={number}", f"Xid {number}: {known.meaning}{often}", known.unfit, min(times), float(number))


def _ecc(readings: Sequence[Reading], now: dt.datetime) -> Iterator[Evidence]:
    """A rise of uncorrected errors within the time that it stands; a fall is a driver that was loaded anew."""
    rose, since = 0, now
    for before, after in itertools.pairwise(readings):
        one, two = before.ecc.uncorrected_since_boot, after.ecc.uncorrected_since_boot
        if one is not None and two is not None and two > one and now - after.at <= STANDS:
            rose, since = rose + two - one, min(since, after.at)
    if rose:
        yield Evidence("ecc", f"uncorrected ECC errors rose by {rose}", unfit=True, since=since, number=float(rose))


def _rows(last: Reading) -> Iterator[Evidence]:
    if last.rows_failed:
        yield Evidence("rows", "a row of memory could not be replaced", unfit=True, since=last.at, number=1.0)
    elif last.rows_pending:
        words = "rows of memory wait to be replaced: reset the device when nothing runs on it"
        yield Evidence("rows", words, unfit=False, since=last.at, number=1.0)


def _slowed(readings: Sequence[Reading], now: dt.datetime) -> Iterator[Evidence]:
    for reason, words in HELD_BACK.items():
        since = None
        for item in reversed(readings):
            if reason not in item.slowed:
                break
            since = item.at
        if since is not None and now - since >= LONG_SLOWED:
            seconds = (now - since).total_seconds()
            told = f"slowed by {words} for {seconds:.0f} s"
            yield Evidence(reason.value, told, unfit=False, since=since, number=seconds)


def findings_of(uuid: str, evidence: Sequence[Evidence], places: Sequence[Where], now: dt.datetime) -> list[Finding]:
    """Return the findings of a device's evidence: one of each kind against each replica that runs there."""
    return [
        Finding(
            what=f"device {uuid}: {item.what}",
            catalogue=CORRUPT if item.unfit else FALL_BACK if item.kind in _SLOW else 0,
            where=dataclasses.replace(place, device=uuid, parameter=item.kind),
            evidence={"unfit": float(item.unfit), "number": item.number, "seconds": (now - item.since).total_seconds()},
            since=item.since,
            source=Source.DEVICE,
        )
        for place in places
        for item in evidence
    ]


_SLOW = frozenset(reason.value for reason in HELD_BACK)
