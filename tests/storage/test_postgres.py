"""The database door: named SQL, migrations, and how a lost database shows."""

import asyncio

import asyncpg
import pytest

from forestay.errors import Refused, Unavailable
from forestay.storage.embedded import EmbeddedPostgres
from forestay.storage.postgres import Database, load_queries, migrate


async def test_json_values_travel_as_plain_python_values(database: Database) -> None:
    """What is written to a jsonb column comes back equal, without any call to a JSON library."""
    value = {"a": [1, 2.5, None, "Grüße"], "b": {"c": True}}
    assert await database.fetchval("SELECT $1::jsonb", value) == value


async def test_migrations_are_applied_once(database_url: str) -> None:
    """A second run finds nothing to do."""
    assert await migrate(database_url, kind="main") == []
    assert await migrate(database_url, kind="facts") == []


async def test_two_processes_that_migrate_at_once_take_turns(postgres_server: EmbeddedPostgres) -> None:
    """Of two concurrent runs on an empty database one applies each file, the other none."""
    url = postgres_server.superuser_url
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE DATABASE twice")
    try:
        target = url.replace("@/postgres?", "@/twice?")
        both = await asyncio.gather(migrate(target, kind="main"), migrate(target, kind="main"))
        names = both[0] + both[1]
        assert "0001_spine.pre" in names
        assert len(names) == len(set(names))
    finally:
        await connection.execute("DROP DATABASE twice WITH (FORCE)")
        await connection.close()


async def test_a_changed_migration_is_refused(database: Database, database_url: str) -> None:
    """An applied file that reads differently now stops the start instead of drifting apart in silence."""
    await database.execute("UPDATE schema_migrations SET digest = 'another'")
    with pytest.raises(Refused, match="0001_"):
        await migrate(database_url, kind="main")


async def test_a_database_of_a_newer_version_is_refused_once_that_took_something_away(
    database: Database, database_url: str
) -> None:
    """An unknown `pre` only added: a version that is rolled back runs on it. A `post` removed what it may use."""
    unknown = "INSERT INTO schema_migrations (kind, name, digest) VALUES ('main', $1, 'd')"
    await database.execute(unknown, "9998_adds.pre")
    assert await migrate(database_url, kind="main") == []
    await database.execute(unknown, "9999_removes.post")
    with pytest.raises(Refused, match=r"newer Forestay: main/9999_removes\.post"):
        await migrate(database_url, kind="main")


async def test_a_database_that_is_not_there_is_unavailable(tmp_path: object) -> None:
    """Nothing listening shows as Unavailable, which callers answer with a retry time."""
    with pytest.raises(Unavailable):
        await Database.connect(
            f"postgresql://u:p@/d?host={tmp_path}", pool_size=1, statement_timeout_seconds=1, application_name="t"
        )


async def test_a_read_survives_a_connection_that_was_cut(database: Database) -> None:
    """A pooled connection that the server has closed is replaced under a read, once, without an error."""
    await database.fetchval("SELECT 1")
    await database.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    results = [await database.fetchval("SELECT 1") for _ in range(8)]
    assert results == [1] * 8


async def test_a_write_whose_connection_is_cut_is_not_repeated(database: Database) -> None:
    """A statement that may have written is reported as lost rather than run twice."""
    with pytest.raises(Unavailable):
        await database.execute("SELECT pg_terminate_backend(pg_backend_pid())")


class _DeadConnections:
    """A pool whose first connections died while they were idle, as the driver shows it after a `kill -9`."""

    def __init__(self, dead: int) -> None:
        self.dead = dead

    async def acquire(self, *, timeout: float | None) -> "_DeadConnections":  # noqa: ASYNC109 - the driver's own name
        """Give the next connection, dead or not."""
        assert timeout is None
        return self

    async def release(self, _connection: object) -> None:
        """Take it back."""

    async def fetch(self, _query: str, *_args: object) -> list[tuple[int]]:
        """Fail as long as connections are dead."""
        if self.dead:
            self.dead -= 1
            raise asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress")
        return [(1,)]


async def test_a_connection_whose_server_died_while_idle_is_a_lost_one() -> None:
    """A read goes to the next connection; a write, and a read without any, is told that the database is away."""
    assert await Database(_DeadConnections(1)).fetchval("SELECT 1") == 1  # type: ignore[arg-type]
    with pytest.raises(Unavailable):
        await Database(_DeadConnections(1)).fetch("DELETE FROM requests")  # type: ignore[arg-type]
    with pytest.raises(Unavailable):
        await Database(_DeadConnections(2)).fetch("SELECT 1")  # type: ignore[arg-type]


@pytest.mark.parametrize("state", ["53100", "53200", "58030", "25006"])
async def test_a_database_that_cannot_work_is_unavailable(database: Database, state: str) -> None:
    """A full disk, no memory, a broken device, a standby: it answers, and nothing can be kept; no defect of ours."""
    with pytest.raises(Unavailable, match="cannot do its work"):
        await database.execute(f"DO $$ BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = '{state}'; END $$")


async def test_a_statement_past_its_time_is_unavailable(database: Database) -> None:
    """The server's own limit ends a long statement, and it shows as a dependency that does not answer."""
    with pytest.raises(Unavailable):
        await _sleep(database)


async def _sleep(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute("SET LOCAL statement_timeout = '20ms'")
        await connection.execute("SELECT pg_sleep(5)")


async def test_a_failed_transaction_leaves_nothing(database: Database) -> None:
    """An exception inside the block rolls everything back and passes through as it is."""
    with pytest.raises(KeyError):
        await _insert_and_fail(database)
    assert await database.fetchval("SELECT count(*) FROM tenants") == 0


async def _insert_and_fail(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute("INSERT INTO tenants (tenant_id, name) VALUES ('t', 't')")
        raise KeyError


def test_every_named_query_says_what_it_does() -> None:
    """Loading a file of queries gives each by its name, its describing comment included."""
    queries = load_queries("forestay.storage", "sql/leader.sql")
    assert set(queries) == {"lead", "leaderless", "resign"}
    assert all(text.startswith("--") and not text.endswith(";") for text in queries.values())
