"""Fixtures that every domain's tests share: one embedded Postgres and Valkey a session, a fresh database a test."""

import asyncio
import contextlib
import gc
import itertools
import queue
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg
import pytest
from hypothesis import HealthCheck, settings
from tests.sharing_out import Sharing, in_order
from xdist.remote import Producer

from forestay.chance import SeededChance
from forestay.clock import SystemClock
from forestay.storage.embedded import EmbeddedPostgres, EmbeddedValkey
from forestay.storage.objects import ObjectStore, open_object_store
from forestay.storage.postgres import Database, migrate
from forestay.storage.valkey import LocalWakeups, Wakeups, connect_wakeups

# How long an example takes, to make or to try, is the machine's business: no test is timed by the clock.
settings.register_profile("forestay", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("forestay")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Sharing | None:
    """Share tests out as `sharing_out` says where whole modules are asked for."""
    return Sharing(config, log) if config.getvalue("dist") == "loadscope" else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long."""
    items[:] = in_order(items)


def pytest_collection_finish() -> None:
    """Keep thousands of collected tests, which stay to the end, out of the cyclic collector's sight."""
    gc.collect()
    gc.freeze()


TEMPLATE = "forestay_template"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server_dir() -> Iterator[Path]:
    """A short folder for the session's servers, gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="fs-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server(server_dir: Path) -> Iterator[EmbeddedPostgres]:
    """One embedded Postgres for the whole session, without fsync, holding a migrated template database."""
    server = EmbeddedPostgres(server_dir, fsync=False)
    server.start()
    try:
        _run_apart(_make_template(server.superuser_url))
        yield server
    finally:
        server.stop()


def _run_apart(work: Coroutine[object, object, None]) -> None:
    """Run in a thread of its own: a session's fixture may be made while a test's event loop runs."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        pool.submit(asyncio.run, work).result(timeout=60)


def url_of(server: EmbeddedPostgres, database: str) -> str:
    """Return the superuser's URL for another database of the same server."""
    return server.superuser_url.replace("@/postgres?", f"@/{database}?")


async def _make_template(url: str) -> None:
    await _administer(url, f"CREATE DATABASE {TEMPLATE}")
    template_url = url.replace("@/postgres?", f"@/{TEMPLATE}?")
    await migrate(template_url, kind="main")
    await migrate(template_url, kind="facts")


async def _administer(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


class _Databases:
    """Fresh databases made ahead, and used ones dropped behind, so that no test waits for the server's file work."""

    def __init__(self, superuser_url: str) -> None:
        self._url = superuser_url
        self._ready: queue.Queue[str | Exception] = queue.Queue(maxsize=2)
        self._used: queue.Queue[str | None] = queue.Queue()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._make, self._drop)]
        for thread in self._threads:
            thread.start()

    def take(self) -> str:
        """Return the name of a fresh migrated database."""
        made = self._ready.get(timeout=60)
        if isinstance(made, Exception):
            raise made
        return made

    def leave(self, name: str) -> None:
        """Have a used one dropped."""
        self._used.put(name)

    def close(self) -> None:
        """End both threads; what is left goes with the server."""
        self._ended.set()
        self._used.put(None)
        while self._threads[0].is_alive():
            with contextlib.suppress(queue.Empty):
                self._ready.get(timeout=0.05)
        for thread in self._threads:
            thread.join(timeout=60)

    def _make(self) -> None:
        while not self._ended.is_set():
            name = f"test_{next(_numbers)}"
            try:
                statement = f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY file_copy"
                asyncio.run(_administer(self._url, statement))
            except Exception as error:  # noqa: BLE001 - told to the test that waits
                self._ready.put(error)
            else:
                self._ready.put(name)

    def _drop(self) -> None:
        while (name := self._used.get()) is not None:
            with contextlib.suppress(asyncpg.PostgresError, OSError):  # it goes with the server
                asyncio.run(_administer(self._url, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture(scope="session")
def databases(postgres_server: EmbeddedPostgres) -> Iterator[_Databases]:
    """Fresh databases on the session's server."""
    made = _Databases(postgres_server.superuser_url)
    yield made
    made.close()


@pytest.fixture
async def database_url(postgres_server: EmbeddedPostgres, databases: _Databases) -> AsyncIterator[str]:
    """A fresh migrated database (main and facts tables together), dropped afterwards."""
    name = await asyncio.to_thread(databases.take)
    yield url_of(postgres_server, name)
    databases.leave(name)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A pool on the fresh database."""
    pool = await Database.connect(
        database_url, pool_size=4, statement_timeout_seconds=10.0, application_name="forestay tests"
    )
    yield pool
    await pool.close()


@pytest.fixture(scope="session")
def valkey_server(server_dir: Path) -> Iterator[tuple[EmbeddedValkey, str]]:
    """One embedded Valkey for the whole session, with its URL."""
    server = EmbeddedValkey(server_dir)
    url = server.start()
    try:
        yield server, url
    finally:
        server.stop()


@pytest.fixture
def valkey_url(valkey_server: tuple[EmbeddedValkey, str]) -> str:
    """The URL of the session's Valkey."""
    return valkey_server[1]


@pytest.fixture
async def valkey_wakeups(valkey_url: str) -> AsyncIterator[Wakeups]:
    """Wake-ups over the session's Valkey."""
    wakeups = await connect_wakeups(valkey_url)
    yield wakeups
    await wakeups.close()


@pytest.fixture
async def wakeups() -> AsyncIterator[Wakeups]:
    """Wake-ups inside this process."""
    local = LocalWakeups()
    yield local
    await local.close()


@pytest.fixture
def objects(tmp_path: Path) -> ObjectStore:
    """An object store in a temporary folder."""
    return open_object_store((tmp_path / "objects").as_uri())


@pytest.fixture
def clock() -> SystemClock:
    """The machine's clock."""
    return SystemClock()


@pytest.fixture
def chance() -> SeededChance:
    """Repeatable chance."""
    return SeededChance(1)
