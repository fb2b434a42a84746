"""Verdict records: written once, sealed in order, and whatever is altered afterwards is betrayed."""

import datetime as dt
import uuid

import msgspec
import pytest

from forestay.clock import SystemClock
from forestay.safety.chain import Sealer, digest_of, verify
from forestay.safety.records import CheckRecord, PostgresVerdicts, VerdictRecord, keep_partitions
from forestay.storage.postgres import Database

NOW = SystemClock().now()
KEPT = dt.timedelta(days=30)
CHECK = CheckRecord("nsfw@1", "sha256:0", "images[0]", "image", "sexual", 0.912345, 0.8, "block", None, 0.0271)


def record(number: int) -> VerdictRecord:
    """A verdict on some request."""
    return VerdictRecord(
        at=NOW + dt.timedelta(milliseconds=number),
        verdict_id=uuid.UUID(int=number),
        request_id=uuid.UUID(int=1_000 + number // 2),
        attempt=1,
        point="output",
        tenant_id="acme",
        key_id="k",
        model_id="acme/film",
        revision_id="r1",
        policy_id="standard",
        policy_version=0,
        policy_digest="sha256:1",
        shadow=False,
        verdict="block",
        action="block",
        category="sexual",
        place="images[0]",
        reason="sexual 0.912 reached 0.8 by nsfw@1",
        checks=[CHECK],
        judged=["sha256:2"],
        seconds=0.0312,
        salt=number.to_bytes(16),
    )


@pytest.fixture
async def verdicts(database: Database) -> PostgresVerdicts:
    """Records in partitions of their days."""
    await keep_partitions(database, SystemClock(), KEPT.total_seconds())
    return PostgresVerdicts(database)


async def test_a_record_is_read_as_it_was_written_and_once(verdicts: PostgresVerdicts) -> None:
    """Written again after an unclear answer it is still one."""
    await verdicts.write([record(1), record(2)])
    await verdicts.write([record(2), record(3)])
    found = await verdicts.between(NOW - KEPT, NOW + KEPT, 0, 100)
    assert [msgspec.structs.replace(item, position=0) for item in found] == [record(1), record(2), record(3)]
    assert [item.position for item in found] == sorted(item.position for item in found)
    assert [item.verdict_id.int for item in await verdicts.of_request(uuid.UUID(int=1_001), 10)] == [2, 3]
    asked = [uuid.UUID(int=1_000), uuid.UUID(int=1_001), uuid.UUID(int=1)]
    assert [item.verdict_id.int for item in await verdicts.of_requests(asked, "acme/film", 10)] == [1, 2, 3]
    assert await verdicts.of_requests(asked, "acme/other", 10) == []


async def sealed(database: Database, verdicts: PostgresVerdicts) -> None:
    """Nine records under three seals."""
    sealer = Sealer(database, SystemClock())
    for start in (1, 4, 7):
        await verdicts.write([record(number) for number in range(start, start + 3)])
        assert await sealer.run_once() == 3
    assert await sealer.run_once() == 0


async def test_an_untouched_log_verifies(database: Database, verdicts: PostgresVerdicts) -> None:
    """Every seal was looked at, and none complains."""
    await sealed(database, verdicts)
    assert await verify(database, NOW - KEPT, 100) == (3, [])


@pytest.mark.parametrize(
    ("statement", "sequence", "what"),
    [
        ("UPDATE verdict_facts SET verdict = 'allow' WHERE position = 5", 2, "a record was changed"),
        ("UPDATE verdict_facts SET checks = jsonb_set(checks, '{0,score}', '0.1') WHERE position = 5", 2, "changed"),
        ("DELETE FROM verdict_facts WHERE position = 8", 3, "3 records were sealed, 2 are there"),
        ("DELETE FROM verdict_facts WHERE position <= 3", 1, "3 records were sealed, 0 are there"),
        ("DELETE FROM verdict_seals WHERE sequence = 2", 3, "it does not continue seal 1"),
        ("DELETE FROM verdict_seals WHERE sequence = 1", 2, "the seals before it are missing"),
        ("UPDATE verdict_seals SET rows = 2 WHERE sequence = 2", 2, "the seal itself was changed"),
    ],
)
@pytest.mark.threat("API8:2023")
async def test_whatever_was_altered_is_betrayed(
    database: Database, verdicts: PostgresVerdicts, statement: str, sequence: int, what: str
) -> None:
    """By the number of the seal, in words."""
    await sealed(database, verdicts)
    await database.execute(statement)
    _, faults = await verify(database, NOW - KEPT, 100)
    assert any(fault.sequence == sequence and what in fault.what for fault in faults), faults


async def test_what_retention_has_dropped_leaves_its_seal(database: Database, verdicts: PostgresVerdicts) -> None:
    """Seals of days that are no longer kept still follow one another."""
    await sealed(database, verdicts)
    await database.execute("DELETE FROM verdict_facts WHERE position <= 4")
    assert await verify(database, NOW + KEPT, 100) == (3, [])


def test_the_digest_of_a_record_of_older_days_is_what_it_was() -> None:
    """A field that records got later is not covered while it is empty; the seals of stored records hold."""
    old = msgspec.structs.replace(
        record(1), at=dt.datetime(2026, 11, 20, 10, 30, 0, 123000, tzinfo=dt.UTC), request_id=uuid.UUID(int=2)
    )
    assert digest_of(old).hex() == "b4cf372f986e9af118b241ea5cd6cf242c5379d5661d97cc60ad8b1b8b972124"
    assert digest_of(msgspec.structs.replace(old, beside="strict@1")) != digest_of(old)
