"""Facts of one minute added up: counts by indicator, histograms of durations, device-seconds, work. Pure.

Tallies are exact and can be merged in any order: counts and bins are whole numbers, sums are added at full precision
(`math.fsum`). It decides how facts are grouped; what is good or bad is said in `measures`. Called by `rollup_store`.
"""

import dataclasses
import datetime as dt
import math
import uuid
from collections.abc import Collection, Iterable, Mapping
from typing import cast

from forestay.telemetry.causes import CANCELLED, SUCCEEDED, Traffic
from forestay.telemetry.histogram import bin_of, merged
from forestay.telemetry.measures import (
    SIGNED,
    UNSIGNED,
    Fact,
    Measure,
    available,
    cause_in,
    durations,
    valid,
    work_done,
    work_in,
)

QUEUE = "queue"  # the lane whose device-seconds are told by attempts
JUDGED_POINTS = frozenset({"output", "piece"})


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Group:
    """What is added up together; empty text where something is not known."""

    minute: dt.datetime  # in which it ended
    model_id: str
    tenant_id: str
    endpoint: str
    revision_id: str
    lane: str  # queue | direct | stream | realtime | outside; of attempts queue
    cause: str  # empty: nothing went wrong
    traffic: str


@dataclasses.dataclass(slots=True)
class Tally:
    """What one group holds."""

    requests: int = 0
    good: int = 0
    bad: int = 0
    excluded: int = 0
    valid: int = 0
    invalid: int = 0
    judged: int = 0
    unjudged: int = 0
    signed: int = 0  # released files with a manifest, where a policy asks for one
    unsigned: int = 0
    delivered: int = 0
    undelivered: int = 0
    submits_good: int = 0
    submits_bad: int = 0
    guard_good: int = 0
    guard_bad: int = 0
    polls_good: int = 0
    polls_bad: int = 0
    asked: int = 0  # in this minute, whenever they end; in lanes without a queue, as they end
    cancelled: int = 0  # of excluded: the caller cancelled it, or left
    attempts: int = 0
    device_ms_good: int = 0  # milliseconds that went into valid outputs
    device_ms_bad: int = 0  # and those that did not, by no fault of a caller's
    device_seconds: list[float] = dataclasses.field(default_factory=list[float])
    work: dict[str, list[float]] = dataclasses.field(default_factory=dict[str, list[float]])
    latency: dict[str, dict[int, int]] = dataclasses.field(default_factory=dict[str, dict[int, int]])

    def took(self, measure: Measure, seconds: float) -> None:
        """Count one duration."""
        bins, number = self.latency.setdefault(measure, {}), bin_of(seconds)
        bins[number] = bins.get(number, 0) + 1

    def spend(self, seconds: float, *, good: bool | None) -> None:
        """Count device-seconds."""
        self.device_seconds.append(seconds)
        if good is not None:
            milliseconds = round(seconds * 1000.0)
            self.device_ms_good += milliseconds if good else 0
            self.device_ms_bad += 0 if good else milliseconds

    def add(self, other: "Tally") -> None:
        """Take what another holds."""
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.device_seconds.extend(other.device_seconds)
        for unit, amounts in other.work.items():
            self.work.setdefault(unit, []).extend(amounts)
        for stage, bins in other.latency.items():
            self.latency[stage] = merged((self.latency.get(stage, {}), bins))

    def row(self, group: Group) -> dict[str, object]:
        """Return it as a row of the table."""
        counts: dict[str, object] = {name: getattr(self, name) for name in COUNTS}
        return {
            **{field.name: getattr(group, field.name) for field in dataclasses.fields(Group)},
            **counts,
            "device_seconds": math.fsum(self.device_seconds),
            "work": {unit: math.fsum(amounts) for unit, amounts in self.work.items()},
            "latency": self.latency,
        }


COUNTS = tuple(field.name for field in dataclasses.fields(Tally) if field.type is int)
Tallies = dict[Group, Tally]


def add_requests(tallies: Tallies, facts: Iterable[Fact], judged: Collection[uuid.UUID]) -> None:
    """Add what requests came to; `judged` are those whose output has a verdict."""
    for fact in facts:
        tally = _of(tallies, fact, str(fact["lane"]))
        good, whole = available(cause_in(fact)), valid(fact)
        tally.requests += 1
        tally.asked += fact["lane"] != QUEUE
        tally.good += good is True
        tally.bad += good is False
        tally.excluded += good is None
        tally.cancelled += good is None and fact["outcome"] == CANCELLED
        tally.valid += whole is True
        tally.invalid += whole is False
        if fact["outcome"] == SUCCEEDED:
            released = fact["request_id"] in judged
            tally.judged += released
            tally.unjudged += not released
            work = work_in(fact)
            tally.signed += round(work.get(SIGNED, 0.0))
            tally.unsigned += round(work.get(UNSIGNED, 0.0))
            for unit, amount in work_done(work).items():
                tally.work.setdefault(unit, []).append(amount)
        for measure, seconds in durations(fact).items():
            tally.took(measure, seconds)
        if fact["lane"] != QUEUE:
            tally.attempts += 1 if fact.get("started_at") is not None else 0
            tally.spend(cast("float", fact["device_seconds"]), good=whole if good else good)


def add_attempts(tallies: Tallies, facts: Iterable[Fact]) -> None:
    """Add what attempts of queued requests took, each by its own cause."""
    for fact in facts:
        tally = _of(tallies, fact, QUEUE)
        good = available(cause_in(fact))
        tally.attempts += 1
        tally.spend(cast("float", fact["device_seconds"]), good=valid(fact) if good else good)


def add_deliveries(tallies: Tallies, facts: Iterable[Fact]) -> None:
    """Add what became of webhooks."""
    for fact in facts:
        tally = _of(tallies, {**fact, "cause": ""}, QUEUE)
        arrived = fact["outcome"] == "delivered"
        tally.delivered += arrived
        tally.undelivered += not arrived
        if arrived:
            ended, began = cast("dt.datetime", fact["finished_at"]), cast("dt.datetime", fact["request_finished_at"])
            tally.took(Measure.NOTICE, max(0.0, (ended - began).total_seconds()))


def add_submits(tallies: Tallies, facts: Iterable[Fact]) -> None:
    """Add how submits were answered: 5xx is bad, a refusal of the caller's own is neither.

    Asked for is what was accepted, once however often the same submit was sent, and what we could not take.
    """
    for fact in facts:
        status = cast("int", fact["status_code"])
        tally = _of(tallies, {**fact, "cause": ""}, QUEUE)
        tally.submits_good += status < 400
        tally.submits_bad += status >= 500
        tally.asked += status >= 500 or (status < 400 and not fact["again"])


def add_polls(tallies: Tallies, facts: Iterable[Fact]) -> None:
    """Add what gateways counted of status polls and result reads."""
    for fact in facts:
        tally = _of(tallies, {**fact, "cause": ""}, QUEUE)
        tally.polls_good += cast("int", fact["good"])
        tally.polls_bad += cast("int", fact["bad"])


def add_judgements(tallies: Tallies, facts: Iterable[Fact]) -> None:
    """Add whether the guard came to a verdict."""
    for fact in facts:
        tally = _of(tallies, {**fact, "cause": ""}, "")
        said = fact["verdict"] != "inconclusive"
        tally.guard_good += said
        tally.guard_bad += not said


def merge(parts: Iterable[Mapping[Group, Tally]]) -> Tallies:
    """Add tallies up, group by group."""
    total: Tallies = {}
    for part in parts:
        for group, tally in part.items():
            total.setdefault(group, Tally()).add(tally)
    return total


def minute_of(moment: dt.datetime) -> dt.datetime:
    """Return the minute in which a moment lies."""
    return moment.astimezone(dt.UTC).replace(second=0, microsecond=0)


def _of(tallies: Tallies, fact: Fact, lane: str) -> Tally:
    cause = "" if fact.get("cause") == "" else cause_in(fact) or ""
    group = Group(
        minute=minute_of(cast("dt.datetime", fact["finished_at"])),
        model_id=str(fact["model_id"]),
        tenant_id=str(fact["tenant_id"]),
        endpoint=str(fact.get("endpoint") or ""),
        revision_id=str(fact.get("revision_id") or ""),
        lane=lane,
        cause=str(cause),
        traffic=str(fact.get("traffic") or Traffic.CALLER),
    )
    return tallies.setdefault(group, Tally())
