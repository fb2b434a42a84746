"""One behaviour suite for every store of reports and trusted keys: Postgres and the fake."""

import pytest
from tests.artefacts.pickles import tar
from tests.conformance.memory_artefacts import MemoryArtefactStore, report_on

from forestay.artefacts.findings import Finding, FlawKind
from forestay.artefacts.postgres_store import PostgresArtefactStore
from forestay.artefacts.report import Report
from forestay.artefacts.signing import make_key_pair, read_public_key
from forestay.artefacts.store import ArtefactStore
from forestay.clock import SystemClock
from forestay.fleet import postgres_audit
from forestay.storage.postgres import Database

DIGEST = "0" * 64
KEY = read_public_key(make_key_pair()[1], "release")


@pytest.fixture(params=["memory", "postgres"])
def maybe_database(request: pytest.FixtureRequest) -> Database | None:
    """A database for the adapter that needs one."""
    return request.getfixturevalue("database") if request.param == "postgres" else None


@pytest.fixture
def store(maybe_database: Database | None) -> ArtefactStore:
    """Each adapter in turn."""
    if maybe_database is None:
        return MemoryArtefactStore(SystemClock())
    return PostgresArtefactStore(maybe_database, SystemClock(), "test")


async def test_a_report_is_read_back_as_it_was_saved(store: ArtefactStore) -> None:
    """Files, findings, signatures and opinions survive; a later report takes the place of an earlier."""
    first = report_on(tar({"app.py": b"x"}))
    flaw = Finding("a.pt", FlawKind.OPINION, "", "doubts")
    second = Report(first.files, (flaw,), {"w": "{}"}, {"a.pt": (flaw,)})
    assert await store.report(DIGEST) is None
    await store.save_report(DIGEST, first)
    assert await store.report(DIGEST) == first
    await store.save_report(DIGEST, second)
    assert await store.report(DIGEST) == second


async def test_a_key_is_trusted_once_and_removed_once(store: ArtefactStore) -> None:
    """Neither its name nor the key itself can be added a second time."""
    assert await store.trust(KEY, actor="human:k")
    assert not await store.trust(KEY, actor="human:k")
    assert not await store.trust(read_public_key(KEY.public_key, "again"), actor="human:k")
    [stored] = await store.trusted_keys()
    assert (stored.key, stored.added_by) == (KEY, "human:k")
    assert await store.distrust("release", actor="human:k")
    assert not await store.distrust("release", actor="human:k")
    assert await store.trusted_keys() == []


async def test_each_change_of_trust_leaves_an_audit_row(database: Database) -> None:
    """Who trusted whom is in the log, in the same transaction; what changed nothing is not."""
    store = PostgresArtefactStore(database, SystemClock(), "test")
    await store.trust(KEY, actor="human:k")
    await store.trust(KEY, actor="human:k")
    await store.distrust("release", actor="human:k")
    rows = await postgres_audit.read_newest(database, subject="trusted_key:release")
    assert [(row.entry.action, row.entry.actor) for row in rows] == [
        ("distrust_key", "human:k"),
        ("trust_key", "human:k"),
    ]
    assert await postgres_audit.verify(database) == []
