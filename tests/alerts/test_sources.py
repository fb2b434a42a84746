"""What the platform knows of itself, as conditions: thresholds, words, and the queries behind them."""

import dataclasses
import datetime as dt
import uuid
from pathlib import Path

import pytest
from tests.alerts.scenes import START
from tests.conformance.fleet_values import DIGITS, revision_of, route_all, worker_of
from tests.slo.objectives import burning

from forestay.alerts.catalogue import DECLARED, declared
from forestay.alerts.model import RANK, Condition, Severity
from forestay.alerts.sources import own, platform, quality, safety, slo, workers
from forestay.alerts.sources.platform import PlatformSource, Reading, Thresholds
from forestay.alerts.sources.safety import SafetySource
from forestay.alerts.sources.workers import WorkerView, WorkerWatch
from forestay.delivery.health import DeliveryHealth
from forestay.fleet.model import Fleet, WorkerReport
from forestay.fleet.postgres_store import PostgresFleetStore
from forestay.ids import ModelId, ReplicaId, RevisionId, WorkerId
from forestay.quality.findings import Finding, Source, Where
from forestay.quality.watch_store import Hold
from forestay.queue.health import Waiting, Withheld, read_waiting, read_withheld
from forestay.safety.health import Judged
from forestay.slo.postgres_store import Kept
from forestay.storage.leader import LoopLeaders
from forestay.storage.postgres import Database
from forestay.storage.valkey import LocalWakeups
from forestay.telemetry.metrics import LOOP_FAILURES, LOOP_RUNS, Metrics

ROOT = Path(__file__).resolve().parents[2]
THRESHOLDS = Thresholds(queue_seconds=600.0, worker_seconds=30.0)
QUIET = DeliveryHealth(0, 0, 0.0)


def fleet_at(seconds: float, *reports: WorkerReport) -> Fleet:
    """A fleet with one routed model, read so many seconds after the start."""
    revision = revision_of()
    routes = route_all(revision).routes
    return Fleet(
        version=1,
        now=START + dt.timedelta(seconds=seconds),
        models={},
        revisions={revision.revision_id: revision},
        routes=routes,
        placements=(),
        workers={report.worker_id: report for report in reports},
        replicas={},
        demand={},
    )


def heard(name: str, seconds: float, pool: str = "cpu") -> WorkerReport:
    """A worker that was last heard so many seconds after the start."""
    return dataclasses.replace(worker_of(name, pool=pool), seen_at=START + dt.timedelta(seconds=seconds))


def names(found: list[Condition]) -> list[tuple[str, Severity]]:
    """What is said, and how badly."""
    return [(item.name, item.severity) for item in found]


def test_a_silent_worker_is_lost_and_stays_so_after_the_fleet_forgets_it() -> None:
    """The fleet drops it after 45 seconds; whoever is told needs longer."""
    watch = WorkerWatch(30.0)
    other = [heard("w2", at) for at in (10.0, 40.0, 60.0, 4_000.0)]
    assert watch.look(fleet_at(10, heard("w1", 0), other[0])).lost == ()
    seen = watch.look(fleet_at(40, heard("w1", 0), other[1]))
    assert [worker.worker_id for worker in seen.lost] == ["w1"]
    assert [worker.worker_id for worker in watch.look(fleet_at(60, other[2])).lost] == ["w1"]
    assert watch.look(fleet_at(4_000, other[3])).lost == ()


def test_a_worker_that_left_in_good_order_is_not_lost() -> None:
    """It was heard until it vanished."""
    watch = WorkerWatch(30.0)
    watch.look(fleet_at(10, heard("w1", 9), heard("w2", 9)))
    assert watch.look(fleet_at(100, heard("w2", 99))).lost == ()


def test_a_pool_without_workers_pages_once_it_lasts() -> None:
    """Not while the first workers of a start are still on their way."""
    watch = WorkerWatch(30.0)
    elsewhere = [heard("w9", at, "gpu") for at in (0.0, 29.0, 31.0)]
    assert watch.look(fleet_at(0, elsewhere[0])).bare == {}
    assert watch.look(fleet_at(29, elsewhere[1])).bare == {}
    view = watch.look(fleet_at(31, elsewhere[2]))
    assert names(workers.conditions_of(view, START)) == [("pool_lost", Severity.PAGE)]


def test_a_fleet_without_workers_is_one_page() -> None:
    """Pools and workers are not listed beside it; it stands over everything that is not as wide."""
    view = WorkerView((heard("w1", 0),), {"cpu": START, "gpu": START}, frozenset())
    [found] = workers.conditions_of(view, START)
    assert found.name == "fleet_lost"
    assert found.labels == {"wide": "platform"}


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(599.0, []), (600.0, [("queue_age", Severity.TICKET)]), (1_800.0, [("queue_age", Severity.PAGE)])],
)
def test_a_queue_that_stands_is_a_ticket_and_then_a_page(seconds: float, expected: list[tuple[str, Severity]]) -> None:
    """At the threshold, and at three times it."""
    view = WorkerView((), {}, frozenset({"cpu"}))
    reading = Reading(fleet_at(0), view, [Waiting(DIGITS, seconds, 12)], QUIET, {})
    found = platform.conditions_of(reading, THRESHOLDS, START)
    assert names(found) == expected
    if found:
        assert found[0].summary == f"12 requests of acme/digits wait, the first for {seconds / 60:.0f} min"


def test_webhooks_given_up_and_overdue_are_told_with_who_is_hurt() -> None:
    """Tenants that were not told that their requests are done."""
    view = WorkerView((), {}, frozenset())
    reading = Reading(fleet_at(0), view, [], DeliveryHealth(7, 2, 1_900.0), {"facts": "its last 5 runs failed"})
    found = platform.conditions_of(reading, THRESHOLDS, START)
    assert names(found) == [
        ("webhook_dead_letters", Severity.TICKET),
        ("webhook_backlog", Severity.PAGE),
        ("control_loop_stopped", Severity.PAGE),
    ]
    assert "7 webhooks of the last hour were given up: 2 tenants" in found[0].summary


@pytest.mark.parametrize(
    ("judged", "withheld", "expected"),
    [
        (Judged(4, 4, 1, 1, START), Withheld(0, 0), []),
        (Judged(100, 4, 1, 1, START), Withheld(3, 60), []),
        (Judged(100, 5, 1, 1, START), Withheld(0, 0), [("safety_unjudged", Severity.TICKET)]),
        (Judged(100, 50, 1, 1, START), Withheld(0, 0), [("safety_unjudged", Severity.PAGE)]),
        (Judged(0, 0, 0, 0, None), Withheld(3, 900), [("outputs_withheld", Severity.TICKET)]),
        (Judged(0, 0, 0, 0, None), Withheld(3, 3_600), [("outputs_withheld", Severity.PAGE)]),
    ],
)
def test_a_judge_that_is_down_is_told_by_the_share_that_nobody_judged(
    judged: Judged, withheld: Withheld, expected: list[tuple[str, Severity]]
) -> None:
    """A handful of judgements says nothing about a share."""
    assert names(safety.conditions_of(judged, withheld, START)) == expected


def test_alerting_says_of_itself_what_it_can() -> None:
    """A source silent for two minutes, a broken file, a dead receiver; each with its own subject."""
    later = START + dt.timedelta(seconds=120)
    found = own.conditions_of({"slo": START, "safety": later}, "line 3: bad", {"phone": 4}, later)
    assert [(item.name, item.subject) for item in found] == [
        ("alert_source_silent", "source:slo"),
        ("alert_routes_broken", "platform"),
        ("notifications_dead", "receiver:phone"),
    ]


# The queries -------------------------------------------------------------------------------------------------------


async def enqueue(database: Database, model: str, *, minutes: float, state: str = "queued") -> None:
    """Put a request into the queue that was submitted so long ago."""
    await database.execute(
        "INSERT INTO requests (request_id, tenant_id, key_id, model_id, endpoint, state, bucket, order_at,"
        " available_at, submitted_at, withheld) SELECT $1, 't', 'k', $2, '/', $4, 0, at, at, at,"
        " CASE WHEN $4 = 'withheld' THEN '{}'::jsonb END FROM (SELECT now() - make_interval(mins => $3)) AS f (at)",
        uuid.UUID(int=hash((model, minutes)) % 2**128), model, int(minutes), state,
    )  # fmt: skip


async def test_the_oldest_of_each_queue_is_found_and_withheld_ones_apart(database: Database) -> None:
    """By model, with how many wait."""
    for model, minutes in (("acme/cat", 20), ("acme/cat", 5), ("acme/dog", 1)):
        await enqueue(database, model, minutes=minutes)
    await enqueue(database, "acme/cat", minutes=90, state="withheld")
    found = {item.model_id: (round(item.seconds / 60), item.requests) for item in await read_waiting(database)}
    assert found == {"acme/cat": (20, 2), "acme/dog": (1, 1)}
    kept = await read_withheld(database)
    assert (kept.requests, round(kept.seconds / 60)) == (1, 90)


async def test_real_sources_see_what_stands_in_the_database(database: Database) -> None:
    """An old queue, a dead webhook, an unled loop, a failing loop, an unjudged share."""
    metrics = Metrics()
    fleet = PostgresFleetStore(database, LocalWakeups(), writer="test")
    source = PlatformSource(database, fleet, metrics, THRESHOLDS, lambda: ["rescue", "facts", "shed"])
    now = fleet_now = (await fleet.load()).now
    assert list(await source.conditions(now)) == []
    await enqueue(database, "acme/cat", minutes=20)
    await database.execute(
        "INSERT INTO webhooks (request_id, tenant_id, url, state) VALUES ($1, 't', 'https://x.example', 'dead')",
        uuid.UUID(int=5),
    )
    leaders = LoopLeaders(database, "gone")
    for loop in ("rescue", "of_a_former_version"):
        assert await leaders.lead(loop, 1.0)
    await database.execute("UPDATE loop_leaders SET expires_at = now() - interval '5 minutes'")
    metrics.add(LOOP_RUNS, "facts")
    await source.conditions(now)
    for _ in range(platform.FAILURES):
        metrics.add(LOOP_FAILURES, "facts")
    found = sorted((item.name, item.subject) for item in await source.conditions(fleet_now))
    assert found == [
        ("control_loop_stopped", "loop:facts"),
        ("control_loop_stopped", "loop:rescue"),
        ("queue_age", "model:acme/cat"),
        ("webhook_dead_letters", "platform"),
    ]
    metrics.add(LOOP_RUNS, "facts")
    assert "loop:facts" not in [item.subject for item in await source.conditions(now)]


async def test_the_share_of_unjudged_content_is_read_from_the_verdicts(database: Database) -> None:
    """Judgements without effect do not count, nor do those of lines: of them only what stands out is recorded."""
    await database.execute(
        "INSERT INTO verdict_facts (at, verdict_id, request_id, attempt, point, tenant_id, key_id, model_id,"
        " revision_id, policy_id, policy_version, policy_digest, shadow, verdict, action, place, reason, checks,"
        " judged, seconds, salt)"
        " SELECT now(), gen_random_uuid(), gen_random_uuid(), 1, CASE WHEN n = 6 THEN 'lines' ELSE 'output' END,"
        " 't', 'k', 'acme/cat', 'r', 'p', 1, '', n > 10,"
        " CASE WHEN n <= 6 THEN 'inconclusive' ELSE 'allow' END, 'pass', '', '', '[]', '{}', 0.1, '' "
        " FROM generate_series(1, 20) AS n"
    )
    source = SafetySource(database, database)
    now = (await database.fetchrow("SELECT now() AS now"))["now"]  # type: ignore[index]
    [found] = await source.conditions(now)
    assert (found.name, found.severity) == ("safety_unjudged", Severity.PAGE)
    assert found.facts == {"unjudged": 5, "judged": 9, "models": 1}


# The catalogue and its runbooks -----------------------------------------------------------------------------------


def found_in_outputs() -> list[quality.Kept]:
    """A revision that breaks, a replica that drifts, and another tenant's output."""
    whole = Where(ModelId("acme/cat"), RevisionId("r1"))
    alone = dataclasses.replace(whole, replica_id=ReplicaId("a"))
    findings = [
        Finding("black", 1, whole, {}, START, Source.CONTRACT),
        Finding("dots", 19, alone, {}, START, Source.DRIFT),
        Finding("the same", 34, alone, {"across_tenants": 1.0}, START, Source.DUPLICATE),
    ]
    return [quality.Kept(item, START, START, 1) for item in findings]


def silent_scorer() -> quality.Kept:
    """A scorer that ended."""
    where = Where(ModelId(""), worker_id=WorkerId("w1"), parameter="scorer=judge@1")
    return quality.Kept(Finding("judge@1 gives no scores", 0, where, {}, START, Source.SCORER), START, START, 1)


def held_back() -> Hold:
    """A worker that was drained."""
    return Hold(WorkerId("w1"), RevisionId("r1"), ModelId("acme/cat"), ReplicaId("a"), "f", "dots", START)


def test_outputs_that_break_everywhere_are_a_page_and_those_of_one_replica_a_ticket() -> None:
    """Across tenants is a page too; what was not seen for long is over."""
    found = quality.conditions_of(found_in_outputs(), [], START)
    assert [item.severity for item in found] == [Severity.PAGE, Severity.TICKET, Severity.PAGE]
    assert quality.conditions_of(found_in_outputs(), [], START + dt.timedelta(hours=1)) == []
    assert len({item.fingerprint for item in found}) == 3


def test_a_scorer_that_is_silent_is_told_of_the_scorer_and_of_no_model() -> None:
    """A ticket, once for each worker."""
    (found,) = quality.conditions_of([silent_scorer()], [], START)
    assert (found.name, found.subject, found.part) == ("scorer_silent", "scorer:judge@1", "w1")
    assert found.severity is Severity.TICKET
    assert "model" not in found.labels


def test_a_hold_says_whether_the_worker_keeps_the_siblings() -> None:
    """A replica alone, or all of the revision on the worker."""
    (whole,) = quality.conditions_of([], [held_back()], START)
    (alone,) = quality.conditions_of([], [dataclasses.replace(held_back(), alone=True)], START)
    assert "w1 runs no replica of revision r1" in whole.summary
    assert "in place of a of revision r1" in alone.summary
    assert whole.fingerprint == alone.fingerprint


def every_condition() -> list[Condition]:
    """Everything that own sources can say."""
    view = WorkerView((heard("w1", 0),), {"cpu": START}, frozenset({"gpu"}))
    reading = Reading(fleet_at(0), view, [Waiting(DIGITS, 9e6, 1)], DeliveryHealth(1, 1, 9e6), {"facts": "failed"})
    return [
        *platform.conditions_of(reading, THRESHOLDS, START + dt.timedelta(hours=9)),
        *workers.conditions_of(WorkerView((), {"cpu": START}, frozenset()), START),
        *safety.conditions_of(Judged(10, 10, 1, 1, START), Withheld(1, 9e6), START),
        *slo.conditions_of([Kept(burning(), START)], START),
        *quality.conditions_of([*found_in_outputs(), silent_scorer()], [held_back()], START),
        *own.conditions_of({"slo": START}, "bad", {"phone": 1}, START + dt.timedelta(hours=1)),
    ]


def test_every_condition_is_declared_and_every_declared_alert_can_be_raised() -> None:
    """The catalogue is what sources say, no more and no less."""
    found = every_condition()
    assert {item.name for item in found} == {item.name for item in DECLARED}
    for condition in found:
        row = declared(condition.name)
        assert row is not None
        assert row.source == condition.source
        assert RANK[condition.severity] <= RANK[row.worst]


def test_each_alert_has_its_runbook_and_each_runbook_its_alert() -> None:
    """With what it means for users, where to look first, how to mend, when to escalate."""
    kept = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "docs/runbooks").glob("*.md")}
    assert set(kept) == {item.name for item in DECLARED}
    for name, text in kept.items():
        assert f"Alert `{name}`." in text
        for part in ("What it means for users", "First look", "Mend", "When to escalate"):
            assert f"## {part}\n" in text, f"{name}: {part}"


def test_the_reference_lists_every_alert_with_its_source_and_worst_severity() -> None:
    """One row each, as the catalogue declares it."""
    page = (ROOT / "docs/reference/alerts.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:4] for line in page.splitlines() if line.startswith("| [`")]
    rows = [[name.partition("`")[2].partition("`")[0], source.strip(), worst.strip()] for name, source, worst in rows]
    assert sorted(rows) == sorted([item.name, item.source, item.worst.value] for item in DECLARED)
