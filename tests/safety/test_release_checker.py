"""The independent checker of releases: it sees each kind of hole, and nothing else is one."""

import asyncio
import dataclasses
import hashlib
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import cast

import asyncpg
import pytest
from bench import safety_faults
from bench.fault_world import World
from bench.release_checker import Checker, _record_text
from bench.safety_faults import _sweep, matrix, rows_of
from hypothesis import given
from hypothesis import strategies as st
from tests.safety.doubles import GuardWorld, guard_world
from tests.safety.test_guard import NOW, subject

from forestay.clock import SystemClock
from forestay.queue.model import Answer
from forestay.safety.chain import Sealer
from forestay.safety.chain import digest_of as sealed_digest_of
from forestay.safety.guard import Guard, Subject
from forestay.safety.records import CheckRecord, PostgresVerdicts, VerdictRecord, VerdictSink, shadowed
from forestay.storage.postgres import Database
from forestay.worker.judging import JudgingPorts, OutputJudge, Ruled

ANSWER = Answer(200, {"content-type": "application/json"}, b'{"text": "a calm harbour"}')


@pytest.fixture
async def checker(database_url: str) -> AsyncIterator[Checker]:
    """A checker on a fresh database."""
    async with asyncpg.create_pool(database_url, min_size=1, max_size=2) as pool:
        yield Checker(pool, pool)


@dataclasses.dataclass
class Forgetful:
    """A log that says that it has written, and has not: as if the guard had released without a word to it."""

    log: PostgresVerdicts
    owed: list[VerdictRecord] = dataclasses.field(default_factory=list[VerdictRecord])

    async def write(self, batch: Sequence[VerdictRecord]) -> None:
        """Keep them back."""
        self.owed += batch


class Shadowy(Forgetful):
    """Writes the word of a candidate, which counts for nothing."""

    async def write(self, batch: Sequence[VerdictRecord]) -> None:
        """Write them as such."""
        await self.log.write([shadowed(record) for record in batch])


class Embellishing(OutputJudge):
    """Changes an answer after it was judged."""

    async def judge(self, subject: Subject, answer: Answer, **rest: object) -> Ruled:
        """Judge, and change."""
        ruled = await super().judge(subject, answer, **rest)  # type: ignore[arg-type]
        return dataclasses.replace(ruled, body=ruled.body + b" ")


async def released(checker: Checker, log: VerdictSink, judge: type[OutputJudge] = OutputJudge) -> Subject:
    """Judge a harmless answer by a guard with this log and read it as a client would."""
    world: GuardWorld = await guard_world()
    guard, asked = Guard(dataclasses.replace(world.guard._ports, records=log)), subject()
    outputs = judge(cast("JudgingPorts", _Ports(guard)))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(guard.run())
        await asyncio.sleep(0)
        ruled = await outputs.judge(asked, ANSWER)
        assert ruled.released
        await checker.read(str(asked.request_id), "result", ruled.body)
        running.cancel()
    return asked


@dataclasses.dataclass
class _Ports:
    guard: Guard
    stamping: None = None


async def test_what_an_honest_guard_releases_is_no_hole(database: Database, checker: Checker) -> None:
    """Its record was there when the answer was read."""
    await released(checker, PostgresVerdicts(database))
    assert (checker.holes, checker.count) == ([], 1)


@pytest.mark.parametrize("log", [Forgetful, Shadowy])
async def test_a_release_without_a_record_is_seen(database: Database, checker: Checker, log: type[Forgetful]) -> None:
    """None at all, one of a candidate, and one that comes when the answer was read already."""
    broken = log(PostgresVerdicts(database))
    await released(checker, broken)
    await PostgresVerdicts(database).write(broken.owed)
    assert len(checker.holes) == 1


async def test_an_answer_that_was_changed_after_its_verdict_is_seen(database: Database, checker: Checker) -> None:
    """By a single byte; and a word of another request does not let it either."""
    asked = await released(checker, PostgresVerdicts(database), Embellishing)
    assert [hole.request_id for hole in checker.holes] == [str(asked.request_id)]
    await checker.read("00000000-0000-0000-0000-000000000000", "result", ANSWER.body)
    assert len(checker.holes) == 2


async def test_a_seal_is_computed_anew_and_a_changed_record_breaks_it(database: Database, checker: Checker) -> None:
    """Without a line of the platform's own code; so does one that is missing. What nobody sealed is told."""
    await released(checker, PostgresVerdicts(database))
    assert await checker.broken_seals() == ["1 records of 1 are not sealed"]
    await Sealer(database, SystemClock()).run_once()
    assert await checker.broken_seals() == []
    await database.execute("UPDATE verdict_facts SET action = 'flag'")
    assert await checker.broken_seals() == ["seal 1: its records differ"]
    await database.execute("DELETE FROM verdict_facts")
    assert await checker.broken_seals() == ["seal 1: its records differ", "-1 records of 0 are not sealed"]


NUMBERS = st.floats(0.0, 1.0).map(lambda value: round(value, 6))


@given(NUMBERS, NUMBERS, st.text(max_size=20))
def test_a_record_reads_alike_for_both(seconds: float, score: float, words: str) -> None:
    """Whatever numbers and letters stand in it: the checker's own writing has the platform's digest."""
    check = CheckRecord("d@1", "", "text", "text", "hate", score, 0.0, "allow", None, seconds, {"hate": score})
    ids = dict.fromkeys(("verdict_id", "request_id"), uuid.UUID(int=7))
    names = ("point", "tenant_id", "key_id", "model_id", "revision_id", "policy_id", "policy_digest", "verdict")
    said = dict.fromkeys((*names, "action", "place"), "a")
    record = VerdictRecord(
        at=NOW, attempt=1, policy_version=2, shadow=False, category=None, reason=words, checks=[check], judged=["x"],
        seconds=seconds, salt=b"\xff\xfe", **ids, **said,
    )  # fmt: skip
    row = {name: getattr(record, name) for name in record.__struct_fields__}
    row["checks"] = json.dumps([{name: getattr(check, name) for name in check.__struct_fields__}])
    assert hashlib.sha256(_record_text(row).encode()).digest() == sealed_digest_of(record)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_fault_lets_anything_through_and_a_hole_made_on_purpose_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole matrix with 600 requests; then files that nobody judged are released behind the guard's back."""

    async def sweep(world: World) -> None:
        await _sweep(world)
        assert world.checker.holes == []
        opened = "UPDATE media SET state = 'released' WHERE state = 'quarantine' RETURNING media_id"
        assert await world.requests.fetch(opened)  # those that were made and not let go
        await _sweep(world)

    monkeypatch.setattr(safety_faults, "_sweep", sweep)
    phases, world, broken = asyncio.run(matrix(60))
    rows = {row.name: row for row in rows_of(phases, world, broken)}
    assert rows["read without a verdict that lets it"].value > 0
    for name in ("marked outputs read", "failures without a type", "seals that do not hold"):
        assert rows[name].met(), rows[name]
