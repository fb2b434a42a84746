"""One behaviour suite for every adapter of the findings' port: Postgres, and the fake that other tests use."""

import dataclasses
import datetime as dt
import math

import pytest
from tests.conformance.memory_findings import MemoryFindings

from forestay.ids import ModelId, ReplicaId
from forestay.quality.findings import MAX_EVIDENCE, MAX_WORDS, Finding, FindingStore, Source, Where
from forestay.quality.postgres_findings import PostgresFindings
from forestay.storage.postgres import Database

NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
LATER = NOW + dt.timedelta(minutes=5)
DIGITS = ModelId("acme/digits")


@pytest.fixture(params=["memory", "postgres"])
def store(request: pytest.FixtureRequest, database: Database) -> FindingStore:
    """Each adapter in turn."""
    return MemoryFindings() if request.param == "memory" else PostgresFindings(database)


def finding(replica: str = "r1", *, since: dt.datetime = NOW) -> Finding:
    """Black pictures on one replica."""
    where = Where(DIGITS, replica_id=ReplicaId(replica), parameter="stage=vae")
    return Finding("the decoder made no numbers", 1, where, {"not_finite_count": 3.0}, since, Source.PROBE)


async def test_a_thing_found_again_is_told_once(store: FindingStore) -> None:
    """It stays one row with the earliest beginning, and counts how often it was seen."""
    first, again = finding(since=NOW), finding(since=NOW - dt.timedelta(hours=1))
    assert await store.keep([first], NOW) == [first.finding_id]
    assert await store.keep([again, finding("r2")], LATER) == [finding("r2").finding_id]
    kept = {item.finding.where.replica_id: item for item in await store.found(DIGITS, NOW)}
    assert kept[ReplicaId("r1")].times == 2
    assert kept[ReplicaId("r1")].finding == again
    assert (kept[ReplicaId("r1")].first_at, kept[ReplicaId("r1")].last_at) == (NOW, LATER)
    assert await store.found(ModelId("acme/other"), NOW) == []


async def test_what_is_over_is_told_anew_when_it_comes_back(store: FindingStore) -> None:
    """A closed finding is hidden unless asked for, and opens again with a new beginning."""
    one = finding()
    await store.keep([one], NOW)
    assert await store.close(one.finding_id, LATER, "the replica was replaced")
    assert not await store.close(one.finding_id, LATER, "twice")
    assert await store.found(None, NOW) == []
    [closed] = await store.found(None, NOW, closed=True)
    assert (closed.closed_at, closed.closed_for) == (LATER, "the replica was replaced")
    back = dataclasses.replace(one, since=LATER)
    assert await store.keep([back], LATER) == [one.finding_id]
    [opened] = await store.found(None, NOW)
    assert (opened.finding, opened.first_at, opened.times, opened.closed_at) == (back, LATER, 1, None)


async def test_old_findings_are_forgotten_in_bounded_pieces(store: FindingStore) -> None:
    """The oldest first, and what was seen lately stays."""
    await store.keep([finding(f"r{number}") for number in range(3)], NOW)
    await store.keep([finding("late")], LATER)
    assert await store.forget(LATER, 2) == 2
    assert await store.forget(LATER, 2) == 1
    assert [item.finding.where.replica_id for item in await store.found(None, NOW)] == ["late"]


async def test_words_and_numbers_of_a_finding_are_bounded(store: FindingStore) -> None:
    """What a model process says cannot grow a row, and no number that is none is stored."""
    many = {f"n{number}": float(number) for number in range(100)} | {"odd": math.nan, "far": math.inf}
    await store.keep([dataclasses.replace(finding(), what="x" * 10_000, evidence=many)], NOW)
    [kept] = await store.found(None, NOW)
    assert len(kept.finding.what) == MAX_WORDS
    assert len(kept.finding.evidence) == MAX_EVIDENCE
    assert all(math.isfinite(value) for value in kept.finding.evidence.values())
