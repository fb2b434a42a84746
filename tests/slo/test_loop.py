"""Watching SLOs: minutes taken in order, a fresh start where they changed, standings that people and alerting read."""

import asyncio
import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence

import pytest
from tests.slo.objectives import burning, slo

from forestay.alerts.model import Severity
from forestay.alerts.sources.slo import STALE_SECONDS, SloSource, conditions_of
from forestay.errors import Unavailable
from forestay.slo.budget import History, budget_of
from forestay.slo.decide import Kind
from forestay.slo.loop import ANEW_SECONDS, SloLoop, SloPorts, question_of, uncounted
from forestay.slo.model import (
    Alerting,
    CalendarUnit,
    Counts,
    Measure,
    Minute,
    Part,
    Sli,
    SliKind,
    Slo,
    SloId,
    Subject,
    SubjectKind,
    Window,
)
from forestay.slo.postgres_store import Kept, PostgresSloStandings
from forestay.slo.standing import Standing
from forestay.slo.watching import Watching
from forestay.storage.postgres import Database
from forestay.telemetry import measures
from forestay.telemetry.metrics import SLO_BUDGET_LEFT, SLO_BURN_RATE, SLO_EVIDENCE, Metrics
from forestay.telemetry.rollup_reader import Changed, MinuteCounts, Question

START = 29_000_000
MODEL = "acme/digits"
NOW = dt.datetime(2026, 11, 26, 12, 0, tzinfo=dt.UTC)


class HandClock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> dt.datetime:
        """The wall clock."""
        return NOW + dt.timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        """Seconds."""
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        """Never slept on here."""
        await asyncio.sleep(seconds)


@dataclasses.dataclass
class Rollups:
    """Roll-ups of one model in memory."""

    until: int = START
    minutes: dict[int, tuple[int, int]] = dataclasses.field(default_factory=dict[int, tuple[int, int]])
    written: list[int] = dataclasses.field(default_factory=list[int])  # minutes in order of their rolling up
    asked: list[tuple[int, int]] = dataclasses.field(default_factory=list[tuple[int, int]])

    def put(self, minute: int, good: int, bad: int) -> None:
        """Roll a minute up, or up again."""
        self.minutes[minute] = (good, bad)
        self.written.append(minute)

    async def complete_until(self) -> int | None:
        """Until where everything is there."""
        return self.until

    async def counts(self, question: Question, since: int, until: int) -> list[MinuteCounts]:
        """The counts between two minutes."""
        self.asked.append((since, until))
        if question.measure.value != Measure.AVAILABILITY:
            return []
        return [
            MinuteCounts(minute, MODEL, good, bad)
            for minute, (good, bad) in sorted(self.minutes.items())
            if since <= minute < until
        ]

    async def changed(self, after: int, limit: int = 10_000) -> Changed:
        """What was rolled up since."""
        found = self.written[after : after + limit]
        return Changed(tuple(found), after + len(found), len(found) == limit)


@dataclasses.dataclass
class Memory:
    """Standings in memory."""

    kept: Mapping[str, Standing] = dataclasses.field(default_factory=dict[str, Standing])

    async def keep(self, standings: Sequence[Standing], now: dt.datetime) -> None:  # noqa: ARG002 - the port's
        """Replace all of them."""
        self.kept = {standing.slo_id: standing for standing in standings}


def watched(rollups: Rollups, *slos: Slo) -> tuple[SloLoop, Memory, HandClock]:
    """A loop over these roll-ups."""
    memory, clock = Memory(), HandClock()

    async def named() -> tuple[Slo, ...]:
        return slos or (slo(),)

    return SloLoop(SloPorts(rollups, named, memory, clock, Metrics())), memory, clock


async def test_a_sudden_outage_wakes_somebody_within_minutes_and_its_end_is_seen() -> None:
    """The reason says how much is hurt; `since` stays at the first minute."""
    rollups = Rollups()
    loop, memory, _ = watched(rollups)
    for minute in range(START, START + 400):
        rollups.put(minute, 50, 0)
    rollups.until = START + 400
    assert await loop.run_once() > 400
    assert memory.kept["digits"].word == "kept"
    woken: int | None = None
    for minute in range(START + 400, START + 420):
        rollups.put(minute, 25, 25)
        rollups.until = minute + 1
        assert await loop.run_once() == 1
        if woken is None and memory.kept["digits"].word == Kind.PAGE:
            woken = minute
    burning = memory.kept["digits"]
    assert woken is not None
    assert woken - (START + 400) <= 3
    assert burning.since == woken
    assert burning.urgent is not None
    assert "acme/digits" in burning.urgent.reason
    assert burning.left_ratio is not None
    assert burning.left_ratio < 0  # half of 20 minutes is far more than 0.1 % of 400
    for minute in range(START + 420, START + 1500):
        rollups.put(minute, 50, 0)
    rollups.until = START + 1500
    await loop.run_once()
    assert memory.kept["digits"].word != Kind.PAGE


async def test_the_budget_is_that_of_all_minutes_kept() -> None:
    """To the last bit, in however many runs they came."""
    rollups = Rollups()
    loop, memory, _ = watched(rollups)
    for step in range(5):
        for minute in range(START + step * 37, START + (step + 1) * 37):
            rollups.put(minute, 10, minute % 3)
        rollups.until = START + (step + 1) * 37
        await loop.run_once()
    minutes = {Minute(m): Counts(good=good, bad=bad) for m, (good, bad) in rollups.minutes.items()}
    last = Minute(rollups.until - 1)
    whole = budget_of(slo(), History(minutes, Minute(last - 10 * 43_200)), last)
    assert (memory.kept["digits"].events, memory.kept["digits"].left_ratio) == (whole.events, whole.left_ratio)


async def test_a_minute_that_is_rolled_up_again_is_counted_as_it_is_now() -> None:
    """Late facts: the minutes since are read again, once a minute at most."""
    rollups = Rollups()
    loop, memory, clock = watched(rollups)
    rollups.put(START, 10, 0)
    rollups.until = START + 1
    await loop.run_once()
    rollups.put(START, 10, 4)
    rollups.put(START + 1, 10, 0)
    rollups.until = START + 2
    await loop.run_once()
    assert memory.kept["digits"].bad == 0  # too soon to look
    clock.seconds += ANEW_SECONDS
    rollups.until = START + 3
    await loop.run_once()
    assert (memory.kept["digits"].bad, memory.kept["digits"].events) == (4, 24)
    since, until = rollups.asked[-1]
    assert START - 5 < since <= START
    assert until == START + 3


async def test_a_fleet_that_stands_still_is_told_by_its_throughput() -> None:
    """From what was asked for and did not end, before anything of it fails."""

    class Flow(Rollups):
        async def counts(self, question: Question, since: int, until: int) -> list[MinuteCounts]:
            found = await super().counts(
                dataclasses.replace(question, measure=measures.Measure.AVAILABILITY), since, until
            )
            assert question.measure.value == Measure.THROUGHPUT
            return [dataclasses.replace(one, bad=0, asked=one.good + one.bad) for one in found]

    sli = Sli(SliKind.TIME_SLICE, Measure.THROUGHPUT, 60.0, 5, 0.95, per_second=1.0)
    rollups = Flow()
    loop, memory, _ = watched(rollups, slo(0.95, Window(1440), sli))
    for minute in range(START, START + 120):
        rollups.put(minute, 5 if minute < START + 60 else 0, 0 if minute < START + 60 else 5)  # `bad`: never ends
    rollups.until = START + 120
    await loop.run_once()
    standing = memory.kept["digits"]
    assert (standing.events, standing.bad) == (24, 12)
    assert standing.left_ratio is not None
    assert standing.left_ratio < 0


async def test_a_minute_without_traffic_is_neither_good_nor_bad() -> None:
    """After an hour of it nothing is claimed."""
    rollups = Rollups(until=START + 90)
    loop, memory, _ = watched(rollups)
    await loop.run_once()
    standing = memory.kept["digits"]
    assert (standing.word, standing.left_ratio, standing.events) == ("no_data", None, 0)


async def test_nothing_is_read_while_no_minute_is_complete() -> None:
    """An idle run costs no query of counts."""
    rollups = Rollups()
    loop, _, _ = watched(rollups)
    rollups.until = START + 1
    await loop.run_once()
    asked = len(rollups.asked)
    assert await loop.run_once() == 0
    assert len(rollups.asked) == asked


async def test_what_the_exported_rules_read_is_set_and_taken_away_with_the_lead() -> None:
    """Evidence is 1 exactly while it opens a page; a controller that leads no longer pages nobody."""
    rollups, metrics, memory, clock = Rollups(), Metrics(), Memory(), HandClock()

    async def named() -> tuple[Slo, ...]:
        return (slo(), dataclasses.replace(slo(sli=Sli(SliKind.RATIO, Measure.GUARD)), slo_id=SloId("quiet")))

    loop = SloLoop(SloPorts(rollups, named, memory, clock, metrics))
    for minute in range(START, START + 300):
        rollups.put(minute, 50 if minute < START + 290 else 0, 0 if minute < START + 290 else 50)
    rollups.until = START + 300
    await loop.run_once()
    assert memory.kept["digits"].word == Kind.PAGE
    assert metrics.value(SLO_EVIDENCE, "digits", "page") == 1.0
    assert metrics.value(SLO_EVIDENCE, "digits", "ticket") > 0.0
    assert metrics.value(SLO_EVIDENCE, "quiet", "page") == 0.0
    assert metrics.value(SLO_BUDGET_LEFT, "digits") == memory.kept["digits"].left_ratio
    assert metrics.value(SLO_BURN_RATE, "digits") == memory.kept["digits"].burns["60"] > 100
    assert b'forestay_slo_budget_left_ratio{slo="quiet"}' not in metrics.exposition()
    loop.lost()
    assert b'slo="digits"' not in metrics.exposition()
    rollups.put(START + 300, 50, 0)
    rollups.until = START + 301
    await loop.run_once()  # it leads again: from the beginning
    assert memory.kept["digits"].events == 301 * 50


async def test_a_budget_says_where_less_is_kept_than_its_window_is_long() -> None:
    """Ten days of thirty: what is older is not there, which is something else than no traffic."""
    rollups, memory = Rollups(until=START + 1), Memory()
    rollups.put(START, 99, 1)

    async def named() -> tuple[Slo, ...]:
        return (slo(),)

    ports = SloPorts(rollups, named, memory, HandClock(), Metrics(), kept_minutes=10 * 1440)
    await SloLoop(ports).run_once()
    standing = memory.kept["digits"]
    assert standing.state == "partial"
    assert standing.says == ["the first 20.0 days of the window are not kept: what is said covers the rest"]
    assert min(since for since, _ in rollups.asked) == START + 1 - 10 * 1440


async def test_a_composite_stands_on_its_parts() -> None:
    """Its budget is their weighted mean."""
    rollups = Rollups()
    whole = dataclasses.replace(
        slo(), slo_id=SloId("all"), subject=Subject(SubjectKind.COMPOSITE), parts=(Part(SloId("digits")),)
    )
    loop, memory, _ = watched(rollups, slo(), whole)
    rollups.put(START, 99, 1)
    rollups.until = START + 1
    await loop.run_once()
    assert memory.kept["all"].left_ratio == pytest.approx(memory.kept["digits"].left_ratio)


async def test_slices_of_time_burn_by_slices_and_not_by_requests() -> None:
    """One request in ten fails: each slice misses its own 95 %, however mild that is of an objective of 90 % of slices.

    The budget, the alert and its words count slices.
    """
    rollups = Rollups()
    sliced = Sli(SliKind.TIME_SLICE, Measure.AVAILABILITY, slice_minutes=5, slice_objective=0.95)
    objective = slo(0.9, sli=sliced)
    loop, memory, _ = watched(rollups, objective, dataclasses.replace(slo(0.8), slo_id=SloId("requests")))
    first = START - START % 5
    for minute in range(first, first + 900):
        rollups.put(minute, 90, 0 if minute < first + 600 else 10)
    rollups.until = first + 900
    await loop.run_once()
    standing = memory.kept["digits"]
    assert (standing.events, standing.bad) == (180, 60)
    assert standing.urgent is not None
    assert "slices of 5 min were bad" in standing.urgent.reason
    assert memory.kept["requests"].word == "kept"


async def test_a_calendar_window_counts_from_its_midnight_in_the_loop_too() -> None:
    """What was bad yesterday spends nothing of today."""
    rollups = Rollups()
    midnight = START - START % 1440
    today = slo(0.99, window=Window(calendar=CalendarUnit.DAY))
    loop, memory, _ = watched(rollups, today)
    for minute in range(midnight - 60, midnight + 60):
        rollups.put(minute, 10, 10 if minute < midnight else 0)
    rollups.until = midnight + 60
    await loop.run_once()
    assert (memory.kept["digits"].events, memory.kept["digits"].bad) == (600, 0)


def test_what_is_not_counted_is_not_asked_for() -> None:
    """A model's SLO on statuses has no data, the platform's has; one on latency asks with its threshold."""
    assert not uncounted()
    status = Sli(SliKind.RATIO, Measure.STATUS)
    assert question_of(slo(sli=status)) is None
    platform = question_of(dataclasses.replace(slo(sli=status), subject=Subject(SubjectKind.PLATFORM)))
    assert platform is not None
    assert platform.measure.value == "status"
    asked = question_of(slo(sli=Sli(SliKind.THRESHOLD, Measure.LATENCY, threshold_seconds=2.0)))
    assert asked is not None
    assert asked.threshold_seconds == 2.0


def test_minutes_before_those_of_evidence_count_for_the_budget_alone() -> None:
    """What lies further back than the longest window wakes nobody."""
    watching = Watching([slo()], Minute(START), Minute(START + 100))
    for minute in range(120):
        watching.take({SloId("digits"): Counts(good=0, bad=50) if minute < 100 else Counts(good=50)})
    [standing] = watching.standings()
    assert standing.bad == 5_000
    assert standing.word == "kept"


async def test_standings_are_kept_and_those_of_vanished_slos_forgotten(database: Database) -> None:
    """As written, with the time of writing."""
    store = PostgresSloStandings(database)
    watching = Watching([slo()], Minute(START), Minute(START))
    watching.take({SloId("digits"): Counts(good=1)})
    [standing] = watching.standings()
    other = Standing(
        **{name: getattr(standing, name) for name in standing.__struct_fields__ if name != "slo_id"}, slo_id="gone"
    )
    await store.keep([standing, other], NOW)
    await store.keep([standing], NOW)
    assert await store.all() == [Kept(standing, NOW)]
    assert await store.one("gone") is None
    assert await store.one("digits") == Kept(standing, NOW)


@pytest.mark.parametrize(("part_pages", "hurting"), [(True, "digits"), (False, None)])
def test_a_composite_names_the_burning_part_that_hurts_it(part_pages: bool, hurting: str | None) -> None:
    """None that asks for less of people than the composite does: a ticket must not hold a page back."""
    part = dataclasses.replace(slo(), alerting=Alerting(page=part_pages))
    whole = dataclasses.replace(
        slo(), slo_id=SloId("all"), subject=Subject(SubjectKind.COMPOSITE), parts=(Part(SloId("digits")),)
    )
    watching = Watching([part, whole], Minute(START), Minute(START))
    for minute in range(300):
        watching.take({SloId("digits"): Counts(good=50) if minute < 290 else Counts(bad=50)})
    found = {one.part: one for one in conditions_of([Kept(one, NOW) for one in watching.standings()], NOW)}
    assert found["all"].severity is Severity.PAGE
    assert found["all"].subject == "composite"
    assert found["all"].labels.get("hurting") == hurting


async def test_a_burning_slo_is_a_condition_and_a_stale_one_is_silence(database: Database) -> None:
    """Its owner, its numbers, its reason; nobody takes what was not looked at for kept."""
    standing = burning()
    [found] = conditions_of([Kept(standing, NOW)], NOW)
    assert (found.name, found.severity, found.subject, found.owner) == (
        "slo_burns", Severity.PAGE, "model:acme/digits", "vision",
    )  # fmt: skip
    assert found.facts["budget_left"] < 0
    assert found.since == dt.datetime.fromtimestamp((standing.since or 0) * 60, dt.UTC)
    await PostgresSloStandings(database).keep([standing], NOW)
    source = SloSource(database)
    assert await source.conditions(NOW) == [found]
    assert found.labels["hurting"] == "digits"
    with pytest.raises(Unavailable, match="no SLO has been looked at since 12:00 UTC"):
        await source.conditions(NOW + dt.timedelta(seconds=STALE_SECONDS + 1))
