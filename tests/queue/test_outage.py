"""Submits outlast a database that is away for a moment: none is lost, none is stored twice."""

import asyncio
import enum
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conformance.memory_fleet import ManualClock
from tests.conformance.queue_harness import EVERY_BUCKET, finish, memory_harness, offer, submission

from forestay.chance import SeededChance
from forestay.clock import SystemClock
from forestay.errors import Unavailable
from forestay.ids import RequestId, WorkerId
from forestay.queue.outage import Failure, GiveUp, Trouble, TryAgain, decide_after_failure, store_surely
from forestay.queue.postgres_store import open_queue_store
from forestay.queue.rows import Entry
from forestay.queue.store import Accepted
from forestay.queue.submitting import Batches, Submitter
from forestay.settings import Queue
from forestay.storage.embedded import EmbeddedPostgres
from forestay.storage.objects import ObjectStore
from forestay.storage.postgres import Database, NothingSent, load_queries, migrate

PATIENCE = 5.0
SETTINGS = Queue(submit_patience_seconds=PATIENCE)
_harness = memory_harness()


def _entries(count: int, give_up_at: float = PATIENCE) -> list[Entry]:
    return [Entry(submission(_harness), None, None, give_up_at) for _ in range(count)]


class HastyClock(ManualClock):
    """Time passes for whoever sleeps, at once."""

    async def sleep(self, seconds: float) -> None:
        """Move on by `seconds`."""
        self.advance(seconds)


class Fate(enum.Enum):
    """What happens to one try."""

    WORKS = "works"
    REFUSED = "no connection"
    LOST_BEFORE = "the connection broke before the commit"
    LOST_AFTER = "the connection broke after the commit"
    LATE = "the connection broke, and the server commits while the next try looks"


class FakeLedger:
    """A database that meets its fates in order, then works; it refuses a row that it has, as a primary key does."""

    def __init__(self, fates: Sequence[Fate]) -> None:
        self._fates = iter(fates)
        self._running: list[RequestId] = []
        self.committed: list[RequestId] = []

    async def store(self, entries: Sequence[Entry]) -> set[RequestId]:
        """Store all."""
        return self._try([entry.submission.request_id for entry in entries])

    async def store_missing(self, entries: Sequence[Entry]) -> set[RequestId]:
        """Look, then store what is missing; what commits between the two takes the try back."""
        ids = [entry.submission.request_id for entry in entries]
        found = set(ids) & set(self.committed)
        running, self._running = self._running, []
        self.committed += running
        if running:
            raise Unavailable("a key is there already")
        return found | self._try([request_id for request_id in ids if request_id not in found])

    def _try(self, ids: list[RequestId]) -> set[RequestId]:
        match next(self._fates, Fate.WORKS):
            case Fate.WORKS:
                self.committed += ids
                return set(ids)
            case Fate.REFUSED:
                raise NothingSent("refused")
            case Fate.LOST_BEFORE:
                raise Unavailable("lost")
            case Fate.LOST_AFTER:
                self.committed += ids
                raise Unavailable("lost")
            case Fate.LATE:
                self._running += ids
                raise Unavailable("lost")


@given(st.lists(st.sampled_from(Fate), max_size=6), st.integers(1, 4), st.integers(0, 1000))
async def test_whatever_breaks_each_submit_is_stored_exactly_once(fates: list[Fate], count: int, seed: int) -> None:
    """Within their patience every one is acknowledged, and the database holds each once."""
    ledger, entries = FakeLedger(fates), _entries(count, give_up_at=60.0)
    result = await store_surely(entries, ledger, HastyClock(), SeededChance(seed))
    ids = [entry.submission.request_id for entry in entries]
    assert result.committed == set(ids)
    assert not result.given_up
    assert sorted(ledger.committed) == sorted(ids)


@given(st.sampled_from([Fate.REFUSED, Fate.LOST_BEFORE]), st.lists(st.floats(0, 20), min_size=1, max_size=5))
async def test_a_long_absence_ends_each_submit_at_its_own_patience(fate: Fate, patience: list[float]) -> None:
    """Nobody is given up early, and nobody is told later than the patience."""
    clock = HastyClock()
    started = clock.monotonic()
    entries = [_entries(1, started + seconds)[0] for seconds in patience]
    result = await store_surely(entries, FakeLedger([fate] * 1000), clock, SeededChance(1))
    assert set(result.given_up) == {entry.submission.request_id for entry in entries}
    assert clock.monotonic() - started <= max(patience)
    assert max(patience) - (clock.monotonic() - started) <= 0.75  # one longest pause with its jitter


@given(st.sampled_from(Failure), st.integers(0, 50), st.booleans(), st.floats(0, 10), st.floats(0.5, 1.5))
def test_a_doubt_is_never_forgotten(failure: Failure, tries: int, in_doubt: bool, now: float, jitter: float) -> None:
    """Once a try's outcome is unknown, every further try looks first; each submit is in exactly one action."""
    entries = [_entries(1, give_up_at)[0] for give_up_at in (0.0, 3.0, 20.0)]
    actions = decide_after_failure(entries, failure, Trouble(tries, in_doubt), now=now, jitter=jitter)
    assert sorted(id(entry) for action in actions for entry in action.entries) == sorted(map(id, entries))
    for action in actions:
        if isinstance(action, TryAgain):
            assert action.look_first == (in_doubt or failure is Failure.UNKNOWN)
            assert 0 < action.after_seconds <= 0.75
            assert all(entry.give_up_at >= now + action.after_seconds for entry in action.entries)
        else:
            assert isinstance(action, GiveUp)


@pytest.fixture
def own_server() -> Iterator[EmbeddedPostgres]:
    """A Postgres that the test may stop."""
    folder = Path(tempfile.mkdtemp(prefix="fs-"))
    server = EmbeddedPostgres(folder, fsync=False)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


async def _connect(url: str) -> Database:
    return await Database.connect(url, pool_size=4, statement_timeout_seconds=10.0, application_name="forestay tests")


async def test_submits_during_a_restart_of_the_database_are_all_stored_once(
    own_server: EmbeddedPostgres, objects: ObjectStore
) -> None:
    """Those sent before, while it goes, while it is away and after: each is acknowledged, none is there twice."""
    await migrate(own_server.superuser_url, kind="main")
    database = await _connect(own_server.superuser_url)
    items = [submission(_harness) for _ in range(60)]
    async with open_queue_store(database, objects, SETTINGS, SeededChance(1)) as queue, asyncio.TaskGroup() as group:

        async def send() -> list[asyncio.Task[list[object]]]:
            tasks = []
            for item in items:
                tasks.append(group.create_task(queue.submit([item], {})))  # type: ignore[arg-type]
                await asyncio.sleep(0.02)  # spread over the restart, which takes about a second
            return tasks  # type: ignore[return-value]

        sending = group.create_task(send())
        await queue.submit([submission(_harness)], {})
        await asyncio.to_thread(_restart, own_server)
        answers = [(await task)[0] for task in await sending]
    assert answers == [Accepted(item.request_id) for item in items]
    assert await database.fetchval("SELECT count(*) FROM requests") == len(items) + 1
    await database.close()


def _restart(server: EmbeddedPostgres) -> None:
    server.stop()
    server.start()


async def test_a_database_that_stays_away_is_said_after_the_patience(
    own_server: EmbeddedPostgres, objects: ObjectStore
) -> None:
    """The caller hears Unavailable, not before the patience is spent and not much later."""
    await migrate(own_server.superuser_url, kind="main")
    database = await _connect(own_server.superuser_url)
    await asyncio.to_thread(own_server.stop)
    settings, clock = Queue(submit_patience_seconds=0.6), SystemClock()
    async with open_queue_store(database, objects, settings, SeededChance(1)) as queue:
        started = clock.monotonic()
        with pytest.raises(Unavailable):
            await queue.submit([submission(_harness)], {})
        assert clock.monotonic() - started < 3.0
    await database.close()


class Wire:
    """A line to Postgres that can lose the answer of the next statement, or break before the server hears it."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._ends: list[asyncio.StreamWriter] = []
        self.cut = ""  # "answer" or "question": what is lost next, with the connection
        self.lost = asyncio.Event()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection to the server and back."""
        server_reader, server_writer = await asyncio.open_unix_connection(str(self._target))
        ends = (writer, server_writer)
        self._ends += ends
        with suppress(ConnectionError):
            await asyncio.gather(
                self._pump(reader, server_writer, "question", ends), self._pump(server_reader, writer, "answer", ends)
            )

    async def _pump(
        self,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        what: str,
        ends: Sequence[asyncio.StreamWriter],
    ) -> None:
        while data := await source.read(65536):
            if self.cut == what:
                self.cut = ""
                for end in ends:
                    end.transport.abort()
                self.lost.set()
                return
            target.write(data)
        target.close()

    async def close(self) -> None:
        """End every connection."""
        for end in self._ends:
            end.close()
        for end in self._ends:
            with suppress(ConnectionError):
                await end.wait_closed()


@pytest.fixture
async def wire(postgres_server: EmbeddedPostgres) -> AsyncIterator[tuple[Wire, str]]:
    """A breakable line to the session's Postgres, with the folder of its socket."""
    real = Path(unquote(postgres_server.superuser_url.partition("?host=")[2])) / ".s.PGSQL.5432"
    folder = Path(tempfile.mkdtemp(prefix="fs-"))
    wire = Wire(real)
    server = await asyncio.start_unix_server(wire.accept, str(folder / ".s.PGSQL.5432"))
    yield wire, str(folder)
    server.close()
    await wire.close()
    shutil.rmtree(folder, ignore_errors=True)


def _through(url: str, folder: str) -> str:
    return url.partition("?host=")[0] + f"?host={quote(folder, safe='/')}"


@pytest.mark.parametrize("lost", ["question", "answer"])
@pytest.mark.parametrize("key", [None, "once"])
async def test_a_connection_that_breaks_in_a_submit_neither_loses_nor_doubles_it(
    wire: tuple[Wire, str], database_url: str, database: Database, objects: ObjectStore, lost: str, key: str | None
) -> None:
    """Whether the server committed or never heard of it, the submit is acknowledged as itself and is there once."""
    line, folder = wire
    through = await _connect(_through(database_url, folder))
    async with open_queue_store(through, objects, SETTINGS, SeededChance(1)) as queue:
        await queue.submit([submission(_harness, idempotency_key="other" if key else None, body=b"1")], {})  # prepared
        item = submission(_harness, idempotency_key=key)
        line.cut = lost
        assert await queue.submit([item], {}) == [Accepted(item.request_id)]
        assert line.lost.is_set()
    assert await database.fetchval("SELECT count(*) FROM requests") == 2
    await through.close()


async def test_a_submit_finished_before_it_is_looked_up_is_not_run_again(
    wire: tuple[Wire, str], database_url: str, database: Database, objects: ObjectStore
) -> None:
    """Its answer was lost, a worker was quick: the look-up finds it among the finished."""
    line, folder = wire
    through = await _connect(_through(database_url, folder))
    async with (
        open_queue_store(through, objects, SETTINGS, SeededChance(1)) as queue,
        open_queue_store(database, objects, SETTINGS, SeededChance(2)) as others,
        asyncio.TaskGroup() as group,
    ):
        await queue.submit([submission(_harness)], {})
        [first] = await others.claim(WorkerId("w"), [offer(buckets=EVERY_BUCKET)], 15)
        item = submission(_harness)
        line.cut = "answer"
        submitting = group.create_task(queue.submit([item], {}))
        await line.lost.wait()
        [second] = await others.claim(WorkerId("w"), [offer(buckets=EVERY_BUCKET)], 15)
        await others.finish([finish(first), finish(second)])
        assert await submitting == [Accepted(item.request_id)]
    assert await database.fetchval("SELECT count(*) FROM requests") == 0
    assert await database.fetchval("SELECT count(*) FROM finished_requests") == 2
    await through.close()


INSERT = """INSERT INTO requests (request_id, tenant_id, key_id, model_id, endpoint, bucket, order_at,
                                  available_at, submitted_at)
            VALUES ($1, 't', 'k', 'acme/digits', '/', 0, now(), now(), now())"""
MOVE_OUT = """WITH gone AS (DELETE FROM requests WHERE request_id = $1 RETURNING *)
              INSERT INTO finished_requests (request_id, tenant_id, key_id, model_id, endpoint, state, attempt,
                                             submitted_at, finished_at, status_code, headers)
              SELECT request_id, tenant_id, key_id, model_id, endpoint, 'succeeded', 1, submitted_at, now(), 200, '{}'
              FROM gone"""


@pytest.mark.parametrize("worked_off", [False, True])
async def test_a_try_still_running_in_the_server_is_waited_for(
    database: Database, database_url: str, worked_off: bool
) -> None:
    """An unheard try commits while the next one stores: the next one takes itself back, and then finds the row."""
    entry = Entry(submission(_harness), None, None)
    request_id = entry.submission.request_id
    sql = load_queries("forestay.queue", "sql/queue.sql")
    ledger = Batches(database, sql, Submitter(database, SETTINGS, sql, SystemClock(), SeededChance(1)).store_usual)
    other = await _connect(database_url)
    async with asyncio.TaskGroup() as group:
        async with other.transaction() as unheard:
            await unheard.execute(INSERT, request_id)
            storing = group.create_task(_refused(ledger.store_missing([entry])))
            while not await other.fetchval(WAITING):  # noqa: ASYNC110 - Postgres has no event for "someone waits"
                await asyncio.sleep(0)
            if worked_off:
                await unheard.execute(MOVE_OUT, request_id)
        assert await storing
    assert await ledger.store_missing([entry]) == {request_id}
    assert await database.fetchval("SELECT count(*) FROM requests") == int(not worked_off)
    assert await database.fetchval("SELECT count(*) FROM finished_requests") == int(worked_off)
    await other.close()


WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


async def _refused(work: Awaitable[object]) -> bool:
    try:
        await work
    except Unavailable:
        return True
    return False
