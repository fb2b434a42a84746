"""Roll-ups: exact whatever the order, the grouping and the number of runs; late facts open their minute again."""

import collections
import dataclasses
import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from typing import cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.chance import SystemChance
from forestay.clock import SystemClock
from forestay.errors import UsageError
from forestay.ids import KeyId, ModelId, TenantId, new_request_id
from forestay.queue.model import Outcome
from forestay.storage.postgres import Database
from forestay.telemetry.call_facts import CallFact, PostgresCalls
from forestay.telemetry.causes import cause_of
from forestay.telemetry.facts import FactWriter, RequestFact
from forestay.telemetry.histogram import RELATIVE_ERROR, at_most, bin_of, merged, quantile, value_of
from forestay.telemetry.measures import Measure, durations, normal_work, valid, work_done
from forestay.telemetry.metrics import Metrics
from forestay.telemetry.poll_facts import PollMinute
from forestay.telemetry.rollup_loop import OutboxState, RollupLoop, decide_complete, keep_partitions
from forestay.telemetry.rollup_reader import By, MinuteCounts, PostgresRollups, Question, minute_number
from forestay.telemetry.rollups import Tallies, add_attempts, add_requests, merge, minute_of

BASE = dt.datetime(2026, 5, 4, 3, 2, tzinfo=dt.UTC)
SECONDS = st.floats(1e-5, 1e6)
Fact = Mapping[str, object]


@st.composite
def facts(draw: st.DrawFn) -> Fact:
    """A request as the facts table has it."""
    accepted = BASE + dt.timedelta(seconds=draw(st.floats(0, 200)))
    wait, run = draw(st.floats(0, 100)), draw(st.floats(0, 100))
    outcome = draw(st.sampled_from(Outcome))
    return {
        "finished_at": accepted + dt.timedelta(seconds=wait + run),
        "request_id": uuid.UUID(int=draw(st.integers(0, 2**128 - 1))),
        "lane": draw(st.sampled_from(["queue", "direct"])),
        "tenant_id": draw(st.sampled_from(["one", "two"])),
        "model_id": draw(st.sampled_from(["a/b", "a/c"])),
        "endpoint": "/",
        "revision_id": None,
        "outcome": outcome.value,
        "status_code": 200,
        "error_type": None,
        "cause": cause_of(outcome),
        "traffic": draw(st.sampled_from(["caller", "probe", None])),
        "submitted_at": accepted,
        "started_at": draw(st.sampled_from([None, accepted + dt.timedelta(seconds=wait)])),
        "answered_at": accepted + dt.timedelta(seconds=wait + run),
        "checked_at": None,
        "first_byte_at": None,
        "device_seconds": draw(st.floats(0, 1000)),
        "work": {"x_steps": 20.0, "x_pixels": 1e6},
    }


def rolled(found: Sequence[Fact]) -> Tallies:
    """Roll requests and, as if each were an attempt too, attempts."""
    tallies: Tallies = {}
    add_requests(tallies, found, frozenset())
    add_attempts(tallies, [fact for fact in found if fact["lane"] == "queue"])
    return tallies


@given(st.lists(facts(), max_size=40), st.data())
def test_rolling_up_in_parts_and_merging_is_rolling_up_at_once(found: list[Fact], data: st.DataObject) -> None:
    """In any order and cut anywhere: counts and bins equal, sums equal to the last bit."""
    shuffled = data.draw(st.permutations(found))
    cut = data.draw(st.integers(0, len(found)))
    whole, parts = rolled(found), merge([rolled(shuffled[:cut]), rolled(shuffled[cut:])])
    assert {group: tally.row(group) for group, tally in whole.items()} == {
        group: tally.row(group) for group, tally in parts.items()
    }


@given(st.lists(facts(), max_size=40))
def test_every_request_is_good_bad_or_neither(found: list[Fact]) -> None:
    """Each once, and each in the minute in which it ended; each duration is of a request."""
    tallies = rolled(found)
    for tally in tallies.values():
        assert tally.requests == tally.good + tally.bad + tally.excluded
        assert all(sum(bins.values()) <= tally.requests for bins in tally.latency.values())
    assert sum(tally.requests for tally in tallies.values()) == len(found)
    minutes = collections.Counter(minute_of(cast("dt.datetime", fact["finished_at"])) for fact in found)
    requests: dict[dt.datetime, int] = {}
    for group, tally in tallies.items():
        requests[group.minute] = requests.get(group.minute, 0) + tally.requests
    assert requests == dict(minutes)


@given(st.lists(SECONDS, min_size=1, max_size=200), st.floats(0.0, 1.0))
def test_a_quantile_is_within_the_stated_error(values: list[float], share: float) -> None:
    """Also after merging bin by bin."""
    bins = merged({bin_of(value): 1} for value in values)
    exact = sorted(values)[max(0, -(-int(share * len(values) * 1e9) // 10**9) - 1)]
    found = quantile(bins, share)
    assert found is not None
    near = [value for value in values if abs(found - value) <= value * RELATIVE_ERROR * 1.001]
    assert near
    assert min(abs(sorted(values).index(value) - sorted(values).index(exact)) for value in near) <= 1


@given(SECONDS)
def test_a_bin_speaks_for_its_values_within_the_stated_error(value: float) -> None:
    """Relative to the value."""
    assert abs(value_of(bin_of(value)) - value) <= value * RELATIVE_ERROR * 1.001


@given(st.lists(SECONDS, max_size=100), SECONDS)
def test_what_counts_as_in_time_is_wrong_only_just_above_the_threshold(values: list[float], limit: float) -> None:
    """Never fewer than were in time, and none that took 2.1 % more."""
    bins = merged({bin_of(value): 1} for value in values)
    within = sum(value <= limit for value in values)
    assert within <= at_most(bins, limit) <= sum(value <= limit * 1.021 for value in values)


def test_a_request_given_up_before_it_started_has_waited_as_long_as_it_lived() -> None:
    """By no fault of its caller's; one that was cancelled says nothing of waiting."""
    fact = {"submitted_at": BASE, "finished_at": BASE + dt.timedelta(seconds=30), "outcome": "expired"}
    assert durations(fact) == {Measure.QUEUE_WAIT: 30.0}
    assert durations({**fact, "outcome": "cancelled"}) == {}


def test_each_stage_has_its_own_time_and_the_model_s_is_divided_by_the_work() -> None:
    """Twenty steps of one megapixel in two seconds are a tenth of a second each."""
    moments = [BASE + dt.timedelta(seconds=seconds) for seconds in (0, 4, 5, 6, 6.5, 7)]
    names = ("submitted_at", "started_at", "first_byte_at", "answered_at", "checked_at", "finished_at")
    work = {"x_steps": 20.0, "x_pixels": 1e6}
    found = durations({**dict(zip(names, moments, strict=True)), "outcome": "succeeded", "work": work})
    assert found == {
        Measure.QUEUE_WAIT: 4.0,
        Measure.FIRST_CHUNK: 5.0,
        Measure.RUN: 2.0,
        Measure.CHECK: 0.5,
        Measure.STORE: 0.5,
        Measure.LATENCY: 7.0,
        Measure.LATENCY_PER_WORK: 0.1,
    }


def test_seconds_are_of_video_where_pixels_are_spoken_of_else_of_audio() -> None:
    """Copies count each; without any word of work there is none."""
    assert work_done({"x_seconds": 5.0, "x_pixels": 2e6, "x_images": 2.0})["video_seconds"] == 10.0
    assert work_done({"x_seconds": 5.0}) == {"audio_seconds": 5.0}
    assert normal_work(work_done({"input_bytes": 3.0})) is None


def test_an_answer_that_is_empty_or_broke_off_is_not_valid() -> None:
    """Nor one that a check of outputs found to be broken; a failure has no output to look at."""
    fact = {"outcome": "succeeded", "status_code": 200, "work": {"output_bytes": 10.0}}
    assert valid(fact) is True
    assert valid({**fact, "work": {"output_bytes": 0.0}}) is False
    assert valid({**fact, "work": {"output_bytes": 0.0}, "status_code": 204}) is True
    assert valid({**fact, "work": {"output_bytes": 10.0, "invalid_outputs": 1.0}}) is False
    assert valid({"outcome": "model_error", "error_type": "runner_incomplete_response"}) is False
    assert valid({"outcome": "model_error", "error_type": "output_check_failed"}) is False
    assert valid({"outcome": "broken_output"}) is False
    assert valid({"outcome": "model_error"}) is None


def test_a_look_at_the_outbox_says_until_when_everything_was_told() -> None:
    """Empty: until now. Otherwise until the look whose batches have all gone; never later."""
    first = OutboxState(BASE, 5, 9)
    later = dataclasses.replace(first, now=BASE + dt.timedelta(seconds=2), oldest=7)
    gone = OutboxState(BASE + dt.timedelta(seconds=4), 10, 12)
    assert decide_complete(None, first) is None
    assert decide_complete(first, later) is None
    assert decide_complete(first, gone) == BASE
    assert decide_complete(first, OutboxState(gone.now, None, None)) == gone.now


def request_fact(
    ended: dt.datetime, outcome: Outcome = Outcome.SUCCEEDED, tenant: str = "one", seconds: float = 1.0
) -> RequestFact:
    """A direct call that ended then."""
    began = ended - dt.timedelta(seconds=seconds)
    return RequestFact(
        request_id=new_request_id(ended, 0, SystemChance()),
        lane="direct",
        tenant_id=TenantId(tenant),
        key_id=KeyId("k"),
        model_id=ModelId("a/b"),
        endpoint="/",
        revision_id=None,
        replica_id=None,
        attempts=1,
        state="succeeded",
        outcome=outcome.value,
        status_code=200,
        error_type=None,
        submitted_at=began,
        started_at=began,
        answered_at=ended,
        finished_at=ended,
        device_seconds=seconds,
        traffic="probe" if tenant == "probe" else "caller",
        cause=cause_of(outcome),
    )


@pytest.fixture
def loop(database: Database) -> RollupLoop:
    """The loop over one database for both."""
    return RollupLoop(database, database, SystemClock(), Metrics())


async def test_late_facts_open_their_minute_again_and_another_run_changes_nothing(
    database: Database, loop: RollupLoop
) -> None:
    """Counts by model, by tenant and of all; probes apart; callers' own errors are neither."""
    ended = SystemClock().now() - dt.timedelta(minutes=10)
    minute, writer, reader = minute_number(ended), FactWriter(database), PostgresRollups(database)
    outcomes = (Outcome.SUCCEEDED, Outcome.MODEL_CRASH, Outcome.CALLER_ERROR)
    await writer.write([request_fact(ended, outcome) for outcome in outcomes])
    assert await loop.run_once() == 1
    of_model = Question(Measure.AVAILABILITY, By.MODEL, "a/b")
    assert await reader.counts(of_model, minute - 5, minute + 5) == [MinuteCounts(minute, "a/b", 1, 1)]
    seen = await reader.changed(0)
    assert (seen.minutes, seen.more) == ((minute,), False)

    await writer.write([request_fact(ended, tenant="two"), request_fact(ended, Outcome.MEMORY, "probe")])
    assert await loop.run_once() == 1
    assert await loop.run_once() == 0
    each = await reader.counts(Question(Measure.AVAILABILITY, By.TENANT), minute, minute + 1)
    assert each == [
        MinuteCounts(minute, "one", 1, 1),
        MinuteCounts(minute, "probe", probes_bad=1),
        MinuteCounts(minute, "two", 1, 0),
    ]
    [total] = await reader.counts(Question(Measure.AVAILABILITY), minute, minute + 1)
    assert total == MinuteCounts(minute, "", 2, 1, 0, 1)
    assert (await reader.changed(seen.position)).minutes == (minute,)
    assert await reader.counts(of_model, minute + 1, minute + 5) == []
    complete = await reader.complete_until()
    assert complete is not None
    assert 0 <= minute_number(SystemClock().now()) - complete <= 1


async def test_a_minute_that_is_not_over_is_not_rolled_up_yet(database: Database, loop: RollupLoop) -> None:
    """What ends now waits; what waits in the outbox keeps everything after it from being called complete."""
    await FactWriter(database).write([request_fact(SystemClock().now())])
    assert await loop.run_once() == 0
    assert await database.fetchval("SELECT count(*) FROM rollup_open") == 1
    await database.execute("INSERT INTO fact_outbox (facts) VALUES ('[]')")
    fresh = RollupLoop(database, database, SystemClock(), Metrics())
    before = await PostgresRollups(database).complete_until()
    await database.execute("UPDATE fact_readers SET complete_until = complete_until - interval '1 hour'")
    assert await fresh.run_once() == 0
    after = await PostgresRollups(database).complete_until()
    assert before is not None
    assert after == before - 60


async def test_durations_goodput_and_work_are_read_back(database: Database, loop: RollupLoop) -> None:
    """Requests within a threshold, device-milliseconds that were not wasted, and everything for a report."""
    ended = SystemClock().now() - dt.timedelta(minutes=3)
    minute, reader = minute_number(ended), PostgresRollups(database)
    slow = msgspec.structs.replace(request_fact(ended, seconds=9.0), work={"x_seconds": 3.0})
    await FactWriter(database).write(
        [request_fact(ended), slow, request_fact(ended, Outcome.MODEL_TIMEOUT, seconds=5.0)]
    )
    await loop.run_once()
    latency = Question(Measure.LATENCY, By.MODEL, "a/b", threshold_seconds=2.0)
    assert await reader.counts(latency, minute, minute + 1) == [MinuteCounts(minute, "a/b", 1, 1)]
    goodput = Question(Measure.GOODPUT)
    assert await reader.counts(goodput, minute, minute + 1) == [MinuteCounts(minute, "", 10_000, 5_000)]
    tallies = (await reader.tallies(minute, minute + 1, "a/b", None)).values()
    assert sum(sum(tally.device_seconds) for tally in tallies) == pytest.approx(15.0)
    assert [tally.work for tally in tallies if tally.work] == [{"audio_seconds": [3.0]}]
    assert quantile(merged(tally.latency.get("run", {}) for tally in tallies), 1.0) == pytest.approx(9.0, rel=0.01)


def submit(at: dt.datetime, number: int, status: int = 200) -> CallFact:
    """A submit of the request of that number."""
    return CallFact(
        at=at,
        call_id=uuid.UUID(int=number),
        tenant_id="one",
        key_id="k",
        model_id="a/b",
        lane="queue",
        verb="submit",
        network="",
        agent="",
        accepted=status < 400,
        cause="",
        status_code=status,
        predicted_seconds=1.0,
    )


async def test_what_was_asked_for_is_counted_once_and_when_it_was_asked_for(
    database: Database, loop: RollupLoop
) -> None:
    """Submits by their own minute, a repeated one once, what we could not take too; a direct call as it ends.

    What ends for a caller's own reason waits no longer; canaries are nobody's demand.
    """
    ended = SystemClock().now() - dt.timedelta(minutes=5)
    before, minute, reader = ended - dt.timedelta(minutes=1), minute_number(ended), PostgresRollups(database)
    first = [submit(before, 1), submit(before, 2), submit(before, 3, 422), submit(before, 4, 503)]
    await PostgresCalls(database).write(first)
    await PostgresCalls(database).write([submit(ended, 1), submit(ended, 5, 499)])
    outcomes = (Outcome.SUCCEEDED, Outcome.CALLER_ERROR, Outcome.MODEL_CRASH)
    queued = [msgspec.structs.replace(request_fact(ended, outcome), lane="queue") for outcome in outcomes]
    canary = msgspec.structs.replace(request_fact(ended), traffic="canary")
    await FactWriter(database).write([*queued, request_fact(ended), request_fact(ended, tenant="probe"), canary])
    await loop.run_once()
    throughput = Question(Measure.THROUGHPUT, By.MODEL, "a/b")
    assert await reader.counts(throughput, minute - 1, minute + 1) == [
        MinuteCounts(minute - 1, "a/b", bad=1, asked=3),
        MinuteCounts(minute, "a/b", good=3, bad=1, probes_good=1, asked=2),
    ]


async def test_released_files_with_and_without_a_manifest_are_counted_where_they_were_asked_for(
    database: Database, loop: RollupLoop
) -> None:
    """Files, not requests; what was not released, and where no policy asks for one, is neither."""
    ended = SystemClock().now() - dt.timedelta(minutes=3)
    minute, reader = minute_number(ended), PostgresRollups(database)
    works = ({"signed_files": 3.0}, {"signed_files": 1.0, "unsigned_files": 2.0}, dict[str, float]())
    facts = [msgspec.structs.replace(request_fact(ended), work=work) for work in works]
    failed = request_fact(ended, Outcome.MODEL_TIMEOUT)
    await FactWriter(database).write([*facts, msgspec.structs.replace(failed, work={"unsigned_files": 9.0})])
    await loop.run_once()
    found = await reader.counts(Question(Measure.PROVENANCE, By.MODEL, "a/b"), minute, minute + 1)
    assert found == [MinuteCounts(minute, "a/b", 4, 2)]
    assert await reader.counts(Question(Measure.PROVENANCE), minute - 5, minute) == []


def test_a_question_of_time_needs_a_threshold_and_no_other_has_one() -> None:
    """Said by the name of the field."""
    with pytest.raises(UsageError, match="threshold_seconds"):
        Question(Measure.LATENCY)
    with pytest.raises(UsageError, match="threshold_seconds"):
        Question(Measure.SAFETY, threshold_seconds=1.0)
    with pytest.raises(UsageError, match="whole platform"):
        Question(Measure.STATUS, By.MODEL)


def polls(minute: dt.datetime, number: int, good: int, bad: int) -> PollMinute:
    """What a gateway counted."""
    return PollMinute(minute, uuid.UUID(int=number), f"gateway-{number}", good, bad)


async def test_polls_are_added_up_over_gateways_and_a_late_row_opens_its_minute_again(
    database: Database, loop: RollupLoop
) -> None:
    """A row that is written twice counts once; a minute without a row says nothing, neither good nor bad."""
    at = minute_of(SystemClock().now() - dt.timedelta(minutes=10))
    minute, writer, reader = minute_number(at), FactWriter(database), PostgresRollups(database)
    question = Question(Measure.STATUS)
    await writer.write_polls([polls(at, 1, 100, 2)])
    await writer.write_polls([polls(at, 1, 100, 2)])
    assert await loop.run_once() == 1
    assert await reader.counts(question, minute - 3, minute + 3) == [MinuteCounts(minute, "", 100, 2)]
    await writer.write_polls([polls(at, 2, 3_000_000_000, 0)])
    assert await loop.run_once() == 1
    assert await reader.counts(question, minute - 3, minute + 3) == [MinuteCounts(minute, "", 3_000_000_100, 2)]
    assert await reader.counts(Question(Measure.SUBMIT), minute - 3, minute + 3) == []
    await loop.reopen(at, at + dt.timedelta(minutes=1))
    assert await loop.run_once() == 1


async def test_rows_of_before_polls_were_counted_are_read_as_none(database: Database, loop: RollupLoop) -> None:
    """They say nothing of polls, and everything else as ever."""
    ended = SystemClock().now() - dt.timedelta(minutes=4)
    minute, reader = minute_number(ended), PostgresRollups(database)
    await FactWriter(database).write([request_fact(ended)])
    await loop.run_once()
    await database.execute("UPDATE rollups SET polls_good = NULL, polls_bad = NULL")
    assert await reader.counts(Question(Measure.STATUS), minute, minute + 1) == []
    [tally] = (await reader.tallies(minute, minute + 1, None, None)).values()
    assert (tally.good, tally.polls_good, tally.polls_bad) == (1, 0, 0)


async def test_a_release_without_a_verdict_is_told_from_one_with(database: Database, loop: RollupLoop) -> None:
    """Only verdicts that had effect, on what went out; the guard's own answers are counted too."""
    ended = SystemClock().now() - dt.timedelta(minutes=2)
    made = [request_fact(ended) for _ in range(3)]
    await FactWriter(database).write(made)
    for number, (fact, point, shadow) in enumerate(
        [(made[0], "output", False), (made[1], "output", True), (made[2], "input", False)]
    ):
        await database.execute(
            """INSERT INTO verdict_facts (at, verdict_id, request_id, attempt, point, tenant_id, key_id, model_id,
               revision_id, policy_id, policy_version, policy_digest, shadow, verdict, action, place, reason, checks,
               judged, seconds, salt)
               VALUES ($1, $2, $3, 0, $4, 'one', 'k', 'a/b', '', 'p', 1, '', $5, $6, '', '', '', '[]', '{}', 0.1,
               '')""",
            ended,
            uuid.UUID(int=number),
            fact.request_id,
            point,
            shadow,
            "allow" if number else "inconclusive",
        )
    await loop.run_once()
    minute, reader = minute_number(ended), PostgresRollups(database)
    assert await reader.counts(Question(Measure.SAFETY), minute, minute + 1) == [MinuteCounts(minute, "", 1, 2)]
    assert await reader.counts(Question(Measure.GUARD), minute, minute + 1) == [MinuteCounts(minute, "", 1, 1)]


async def test_months_of_rollups_are_kept_for_their_time_and_dropped_whole(database: Database) -> None:
    """This month and the next are there; a second run changes nothing."""
    clock = SystemClock()
    await database.execute(
        "SELECT forestay_make_partition('rollups', '20240101', 'minute', '2024-01-01', '2024-02-01')"
    )
    assert await keep_partitions(database, clock, 400 * 86400.0) == 3
    assert await keep_partitions(database, clock, 400 * 86400.0) == 0


async def test_a_tenant_s_failures_errors_and_cancelled_requests_are_told_apart(
    database: Database, loop: RollupLoop
) -> None:
    """By model, each cause by itself; rows of before cancelled ones were counted hold them among the errors."""
    ended = SystemClock().now() - dt.timedelta(minutes=4)
    minute, reader = minute_number(ended), PostgresRollups(database)
    ends = (Outcome.SUCCEEDED, Outcome.MODEL_CRASH, Outcome.WORKER_LOST, Outcome.CALLER_ERROR)
    cancelled = [request_fact(ended, Outcome.CANCELLED) for _ in range(2)]
    await FactWriter(database).write([*(request_fact(ended, outcome) for outcome in ends), *cancelled])
    await loop.run_once()
    counts = (await reader.of_tenant(minute, minute + 1, "one"))["a/b"]
    assert (counts.good, counts.failed) == (1, {"model": 1, "worker": 1})
    assert (counts.excluded, counts.cancelled) == ({"caller": 3}, 2)
    await database.execute("UPDATE rollups SET cancelled = NULL")
    assert (await reader.of_tenant(minute, minute + 1, "one"))["a/b"].cancelled == 0
