"""The audit log held against checkpoints outside: real rows, really tampered with."""

import asyncio
import datetime as dt
from pathlib import Path

import pytest

from forestay.clock import SystemClock
from forestay.delivery.signing import load_or_create_keys
from forestay.fleet import postgres_audit
from forestay.fleet.anchor import KEPT, AuditAnchor, LogTampered
from forestay.fleet.audit import AuditEntry
from forestay.fleet.checkpoints import SignedCheckpoint
from forestay.storage.objects import ObjectStore
from forestay.storage.postgres import Database


@pytest.fixture
def anchor(database: Database, objects: ObjectStore, tmp_path: Path) -> AuditAnchor:
    """The anchor of one platform."""
    return AuditAnchor(database, objects, load_or_create_keys(tmp_path / "keys.pem"), SystemClock())


async def act(database: Database, writer: str = "w", times: int = 1) -> None:
    """Do something that leaves rows."""
    entry = AuditEntry(dt.datetime(2030, 1, 1, tzinfo=dt.UTC), "human:k", "act", "s", {}, "r")
    async with database.transaction() as connection:
        await postgres_audit.append(connection, writer, [entry] * times)


async def tamper(database: Database, statement: str) -> None:
    """Change the log as somebody with the database's password can."""
    await database.execute("ALTER TABLE audit_log DISABLE TRIGGER audit_log_append_only")
    await database.execute(statement)


async def signed(anchor: AuditAnchor) -> SignedCheckpoint:
    """Sign now."""
    found = await anchor.sign_now()
    assert found is not None
    return found


async def test_heads_are_signed_when_they_have_moved(database: Database, anchor: AuditAnchor) -> None:
    """Not over an empty log, not twice over the same."""
    assert await anchor.run_once() == 0
    assert await anchor.sign_now() is None
    await act(database, times=3)
    await act(database, "v")
    assert [await anchor.run_once() for _ in range(2)] == [1, 0]
    await act(database)
    assert await anchor.run_once() == 1
    newest = (await anchor.verify()).newest
    assert newest is not None
    assert newest.checkpoint.number == 2
    assert {writer: head.sequence for writer, head in newest.checkpoint.heads.items()} == {"w": 4, "v": 1}


REMOVALS = {
    "a whole chain with its head": (
        "DELETE FROM audit_log WHERE writer = 'v'; DELETE FROM audit_heads WHERE writer = 'v'"
    ),
    "the tail, and the head moved back": (
        "DELETE FROM audit_log WHERE writer = 'w' AND sequence = 3;"
        "UPDATE audit_heads SET (sequence, hash) = (SELECT sequence, hash FROM audit_log WHERE writer = 'w'"
        " AND sequence = 2) WHERE writer = 'w'"
    ),
    "everything": "DELETE FROM audit_log; DELETE FROM audit_heads",
}


@pytest.mark.threat("API9:2023")
@pytest.mark.parametrize("what", REMOVALS)
async def test_what_no_chain_tells_of_itself_is_found(database: Database, anchor: AuditAnchor, what: str) -> None:
    """The chains alone look whole; the checkpoint names the rows that are gone, and nothing more is signed."""
    await act(database, "w", 3)
    await act(database, "v", 2)
    await anchor.run_once()
    await tamper(database, REMOVALS[what])
    assert await postgres_audit.verify(database) == []
    faults = (await anchor.verify()).faults
    assert faults
    assert all("is gone" in fault.what for fault in faults)
    await act(database, "later")
    with pytest.raises(LogTampered, match="forestay audit verify"):
        await anchor.run_once()


@pytest.mark.threat("API9:2023")
async def test_a_chain_written_anew_is_found(database: Database, anchor: AuditAnchor) -> None:
    """With hashes and head that fit: another past, well told."""
    await act(database, "w", 2)
    await anchor.run_once()
    await tamper(database, "DELETE FROM audit_log; DELETE FROM audit_heads")
    entry = AuditEntry(dt.datetime(2030, 1, 1, tzinfo=dt.UTC), "human:nobody", "act", "s", {}, "r")
    async with database.transaction() as connection:
        await postgres_audit.append(connection, "w", [entry] * 5)
    assert await postgres_audit.verify(database) == []
    (fault,) = (await anchor.verify()).faults
    assert (fault.writer, fault.sequence) == ("w", 2)
    assert "not the one that was signed" in fault.what


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE audit_log SET actor = 'human:nobody' WHERE writer = 'w' AND sequence = 2", "not what was sealed"),
        ("DELETE FROM audit_log WHERE writer = 'w' AND sequence = 2", "missing"),
        ("DELETE FROM audit_log WHERE writer = 'w' AND sequence = 3", "missing at the end"),
    ],
)
async def test_altered_and_missing_rows_are_found_by_the_chain_itself(
    database: Database, statement: str, words: str
) -> None:
    """A row changed, one taken from the middle, a tail cut."""
    await act(database, "w", 3)
    await tamper(database, statement)
    assert any(words in fault.what for fault in await postgres_audit.verify(database))


async def test_a_forged_or_missing_checkpoint_is_found(
    database: Database, objects: ObjectStore, anchor: AuditAnchor
) -> None:
    """Whoever writes to the object store cannot sign."""
    for _ in range(3):
        await act(database)
        await anchor.run_once()
    names = sorted([item.key async for item in objects.list("audit/checkpoints")])
    kept = await objects.get(names[1])
    assert kept is not None
    await objects.delete([names[1]])
    assert ["missing" in fault.what for fault in (await anchor.verify()).faults] == [True]
    await objects.put(names[1], kept.replace(b'"sequence":2', b'"sequence":1'))
    assert any("not signed by this platform" in fault.what for fault in (await anchor.verify()).faults)
    await objects.put(names[1], kept)
    assert (await anchor.verify()).faults == ()
    await objects.put(names[2], b"{}")
    with pytest.raises(LogTampered):
        await anchor.run_once()


async def test_a_checkpoint_kept_elsewhere_shows_what_both_stores_hide(
    database: Database, objects: ObjectStore, anchor: AuditAnchor, tmp_path: Path
) -> None:
    """Somebody who can write to database and object store removes rows and the checkpoints that name them."""
    await act(database, "w", 2)
    outside = await signed(anchor)
    await tamper(database, "DELETE FROM audit_log; DELETE FROM audit_heads")
    await objects.delete([item.key async for item in objects.list("audit/checkpoints")])
    assert (await anchor.verify()).faults == ()
    told = [fault.what for fault in (await anchor.verify(outside)).faults]
    assert any("is gone" in what for what in told)
    assert any("missing from the object store" in what for what in told)
    other = AuditAnchor(database, objects, load_or_create_keys(tmp_path / "others.pem"), SystemClock())
    assert any("not signed by us" in fault.what for fault in (await other.verify(outside)).faults)


async def test_those_who_sign_take_turns(database: Database, anchor: AuditAnchor) -> None:
    """A controller and gateways at once make one checkpoint, not several of one number."""
    await act(database)
    assert sorted(await asyncio.gather(*(anchor.run_once() for _ in range(3)))) == [0, 0, 1]
    assert (await anchor.verify()).faults == ()


async def test_only_the_newest_checkpoints_are_kept(
    database: Database, objects: ObjectStore, anchor: AuditAnchor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest go; those that stay still fit together."""
    assert KEPT == 200
    monkeypatch.setattr("forestay.fleet.anchor.KEPT", 3)
    for _ in range(5):
        await act(database)
        await anchor.run_once()
    names = sorted([item.key async for item in objects.list("audit/checkpoints")])
    assert [name[-8:] for name in names] == ["003.json", "004.json", "005.json"]
    assert (await anchor.verify()).faults == ()
