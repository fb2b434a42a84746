"""The exported rules in a running Prometheus whose minutes are short, against the engine, minute by minute.

Each SLO's counters and gauges are handed over before their time comes, so that every evaluation sees exactly the
samples of its minutes. A Prometheus chooses for itself when within a minute a group is evaluated, and with which minute
five of them end; both are read from it, and the engine's minutes are numbered alike. It decides nothing about rules.
Called by the bench `slo_prometheus` and by tests.
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from bench.prometheus_live import GroupTiming, Prometheus
from bench.prometheus_wire import STALE, Line, with_short_minutes
from forestay.slo.burn_rules import TICKET_EVERY_MINUTES, Severity
from forestay.slo.decide import ENOUGH
from forestay.slo.model import Slo
from forestay.slo.prometheus import EVIDENCE_METRIC, PAGE_ALERT, TICKET_ALERT, render_rules
from forestay.slo.promtool_tests import Played, counters, play

MARGIN = 0.25  # of a minute: the least between a group that pages and the one that reads what it records
_TRIES = 60
_SETTLE_SECONDS = 30.0
_LEAD_MS = 700  # from handing the samples over to the first of them
Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True)
class Trace:
    """Minutes of an SLO: what came in each, where nothing was scraped, where the counters began anew."""

    slo: Slo
    bad: Floats
    total: Floats
    lost: Flags
    anew: Flags


@dataclasses.dataclass(frozen=True, slots=True)
class Placed:
    """A trace in time: when its first sample is taken, and the number of its first minute."""

    trace: Trace
    start_ms: float
    first: int
    played: Played


@dataclasses.dataclass(frozen=True, slots=True)
class Compared:
    """What the two say of an SLO's minutes."""

    pages: Flags
    expected_pages: Flags
    tickets: Flags  # of the minutes with which five end
    expected_tickets: Flags

    @property
    def differing(self) -> int:
        """Return the minutes of which they say different things."""
        return int((self.pages != self.expected_pages).sum() + (self.tickets != self.expected_tickets).sum())


def quiet(bad: Floats, total: Floats, slo: Slo) -> Trace:
    """Return a trace without gaps and restarts."""
    nothing = np.zeros(len(total), dtype=np.bool_)
    return Trace(slo, bad, total, nothing, nothing)


def compare(server: Prometheus, traces: Sequence[Trace], minute_ms: int) -> list[Compared]:
    """Play traces, all at once, and compare; takes as long as the longest of them."""
    timings = _timings(server, [trace.slo for trace in traces], minute_ms)
    begin = time.time() * 1000 + _LEAD_MS
    placed = [_placed(trace, timings[str(trace.slo.slo_id)], begin, minute_ms) for trace in traces]
    for one in placed:
        server.write(_lines(one, minute_ms))
    end = max(one.start_ms + len(one.trace.total) * minute_ms for one in placed) + 2 * TICKET_EVERY_MINUTES * minute_ms
    time.sleep(max(0.0, end / 1000 - time.time()))
    return [_compared(server, one, minute_ms, end) for one in placed]


def _timings(server: Prometheus, slos: Sequence[Slo], minute_ms: int) -> Mapping[str, Mapping[Severity, GroupTiming]]:
    """Load the rules, and have the two groups of each SLO evaluated well apart.

    When a group is evaluated follows from its file's name, so another name moves it. In the field nobody looks after
    that; of minutes as short as these the time between the two would be that of a few instructions.
    """
    salts = {str(slo.slo_id): 0 for slo in slos}
    for _ in range(_TRIES):
        names = {slo_id: f"{slo_id}.{salt}" for slo_id, salt in salts.items()}
        texts = {names[str(slo.slo_id)]: with_short_minutes(render_rules([slo])[0], minute_ms) for slo in slos}
        server.load_rules(texts)
        found = _evaluated(server, slos)
        near = [name for name, timing in found.items() if not _apart(timing, minute_ms)]
        if not near:
            return found
        for name in near:
            salts[name] += 1
    raise RuntimeError("no names of files were found whose groups are evaluated well apart")


def _evaluated(server: Prometheus, slos: Sequence[Slo]) -> Mapping[str, Mapping[Severity, GroupTiming]]:
    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:
        groups = server.groups()
        found = {
            str(slo.slo_id): {severity: groups.get(f"slo-{slo.slo_id}-{severity}") for severity in Severity}
            for slo in slos
        }
        ready = {
            name: {severity: timing for severity, timing in each.items() if timing is not None}
            for name, each in found.items()
        }
        if all(len(each) == len(Severity) for each in ready.values()):
            return ready
        if time.monotonic() > deadline:
            raise RuntimeError("the groups of rules were not evaluated in time")
        time.sleep(0.05)


def _apart(timing: Mapping[Severity, GroupTiming], minute_ms: int) -> bool:
    between = (timing[Severity.TICKET].phase_ms - timing[Severity.PAGE].phase_ms) % minute_ms
    return MARGIN * minute_ms < between < (1 - MARGIN) * minute_ms


def _placed(trace: Trace, timing: Mapping[Severity, GroupTiming], begin_ms: float, minute_ms: int) -> Placed:
    """Put each sample half a minute before the evaluation that is to see it."""
    page, ticket = timing[Severity.PAGE], timing[Severity.TICKET]
    start = begin_ms + (page.phase_ms + minute_ms / 2 - begin_ms) % minute_ms
    # The minute, counted from the start, whose evaluation is the last before one of the group of tickets.
    five = TICKET_EVERY_MINUTES * minute_ms
    ends_with = int(((ticket.phase_ms - start - minute_ms / 2) % five) // minute_ms)
    first = (TICKET_EVERY_MINUTES - 1 - ends_with) % TICKET_EVERY_MINUTES
    return Placed(trace, start, first, play(trace.slo, trace.bad, trace.total, first))


def _lines(placed: Placed, minute_ms: int) -> list[Line]:
    trace = placed.trace
    times = [round(placed.start_ms + minute * minute_ms) for minute in range(-1, len(trace.total))]
    found = [
        Line(labels, list(zip(times, _counter(increases, trace), strict=True)))
        for labels, increases in counters(trace.slo, trace.bad, trace.total)
    ]
    for severity, evidence in (
        (Severity.PAGE, placed.played.evidence),
        (Severity.TICKET, placed.played.ticket_evidence),
    ):
        values = [0.0, *(1.0 if value >= ENOUGH else float(value) for value in evidence)]
        labels = {"__name__": EVIDENCE_METRIC, "slo": str(trace.slo.slo_id), "severity": severity.value}
        found.append(Line(labels, list(zip(times, values, strict=True))))
    return found


def _counter(increases: Floats, trace: Trace) -> list[float]:
    value, values = 0.0, [0.0]
    for more, gone, anew in zip(increases, trace.lost, trace.anew, strict=True):
        value = 0.0 if anew else value + more
        values.append(STALE if gone else value)
    return values


def _compared(server: Prometheus, placed: Placed, minute_ms: int, end_ms: float) -> Compared:
    played, count = placed.played, len(placed.trace.total)
    minutes = np.arange(count)
    ends_five = (minutes + placed.first + 1) % TICKET_EVERY_MINUTES == 0
    reading = _Reading(server, placed, minute_ms, end_ms)
    # What pages is evaluated half a minute after its sample; a ticket between that and the next such evaluation.
    pages, tickets = reading.firing(PAGE_ALERT, 0.0), reading.firing(TICKET_ALERT, 0.5)
    return Compared(
        pages,
        played.rules_open | (played.evidence >= ENOUGH),
        tickets[ends_five],
        (played.tickets_open | (played.ticket_evidence >= ENOUGH))[ends_five],
    )


@dataclasses.dataclass(frozen=True, slots=True)
class _Reading:
    server: Prometheus
    placed: Placed
    minute_ms: int
    end_ms: float

    def firing(self, alert: str, begins_at: float) -> Flags:
        """Return the minutes of which an alert fired; they begin so much of a minute after their samples."""
        flags = np.zeros(len(self.placed.trace.total), dtype=np.bool_)
        selector = f'ALERTS{{alertname="{alert}",alertstate="firing",slo="{self.placed.trace.slo.slo_id}"}}'
        start = self.placed.start_ms + begins_at * self.minute_ms
        seconds = int((self.end_ms - self.placed.start_ms) / 1000) + 10
        for _, samples in self.server.samples(selector, seconds, self.end_ms / 1000):
            for moment, value in samples:
                minute = int((moment - start) // self.minute_ms)
                if value == 1.0 and 0 <= minute < len(flags):
                    flags[minute] = True
        return flags
