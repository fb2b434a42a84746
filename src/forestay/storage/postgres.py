"""Postgres behind one door: pooled connections, named SQL, and the runner of migrations.

It decides how a lost database shows (`Unavailable`, with one transparent retry for reads; `NothingSent` when no
statement left this process) and how `jsonb` reads (as plain Python values, by msgspec). It knows no table but its own
`schema_migrations`. Every store calls it; nothing else in the package imports the driver except for its types and its
errors.
"""

# The driver brings no types: this adapter is where they begin.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import asyncio
import hashlib
import importlib.resources
import re
from collections.abc import AsyncGenerator, Awaitable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Literal, Protocol, cast

import asyncpg
import msgspec

from forestay.errors import Refused, Unavailable, UsageError

Record = asyncpg.Record

_CONNECT_TIMEOUT_SECONDS = 10
_QUERY_NAME = re.compile(r"^-- name: ([a-z_0-9]+)[ \t]*$", re.MULTILINE)
_READ = re.compile(r"\s*(?:--[^\n]*\n\s*)*SELECT\b(?!.*\bFOR\s+(?:NO\s+KEY\s+)?UPDATE\b)", re.IGNORECASE | re.DOTALL)
_MIGRATION = re.compile(r"(\d{4}_[a-z0-9_]+)\.(pre|post)\.sql")
_LOST = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.QueryCanceledError,
)
# It answers, and cannot work: no disk, no memory, no connection left, a broken device, or nothing may be written now.
_POOR = (asyncpg.InsufficientResourcesError, asyncpg.PostgresSystemError, asyncpg.ReadOnlySQLTransactionError)
_UNSTORABLE = (
    asyncpg.CharacterNotInRepertoireError,
    asyncpg.UntranslatableCharacterError,
    asyncpg.NumericValueOutOfRangeError,
    asyncpg.DatetimeFieldOverflowError,
)
_STALE = (
    ConnectionError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InternalClientError,
)
_LEFT_MIDWAY = "cannot switch to state"  # what the driver says of a connection whose server died while it was idle
_encode = msgspec.json.encode
_decode = msgspec.json.decode


class NothingSent(Unavailable):
    """No connection was to be had: the statement never left this process, so that nothing can have come of it."""


class Connection(Protocol):
    """One connection inside a transaction; the methods read as asyncpg's do."""

    async def fetch(self, query: str, *args: object) -> list[Record]: ...  # noqa: D102
    async def fetchrow(self, query: str, *args: object) -> Record | None: ...  # noqa: D102
    async def fetchval(self, query: str, *args: object) -> object: ...  # noqa: D102
    async def execute(self, query: str, *args: object) -> str: ...  # noqa: D102
    async def executemany(self, query: str, args: Iterable[Sequence[object]]) -> None: ...  # noqa: D102


class Database:
    """A pool of connections to one Postgres; `fetch`, `fetchrow`, `fetchval` and `execute` read as asyncpg's do."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    @classmethod
    async def connect(
        cls, url: str, *, pool_size: int, statement_timeout_seconds: float, application_name: str
    ) -> "Database":
        """Open the pool; raises Unavailable when nothing answers at `url`."""
        with _lost_database():
            pool = await asyncpg.create_pool(
                url,
                min_size=1,
                max_size=pool_size,
                max_inactive_connection_lifetime=300.0,
                timeout=_CONNECT_TIMEOUT_SECONDS,
                command_timeout=statement_timeout_seconds + 5.0,  # the server's limit speaks first
                statement_cache_size=500,
                init=_prepare_connection,
                reset=_leave_as_is,
                server_settings={
                    "application_name": application_name,
                    "statement_timeout": str(int(statement_timeout_seconds * 1000)),
                    "jit": "off",  # every statement here is short: compiling it costs more than running it
                    "plan_cache_mode": "force_generic_plan",  # planned once a connection: a plan costs as much as a run
                    "timezone": "UTC",
                },
            )
        return cls(pool)

    async def fetch(self, query: str, *args: object) -> list[Record]:
        """Run one statement and return its rows."""
        with _lost_database():
            try:
                return await self._fetch(query, args)
            except asyncpg.DeadlockDetectedError:  # rolled back whole, so running it again is safe
                return await self._fetch(query, args)
            except _STALE:
                if not _READ.match(query):
                    raise
                return await self._fetch(query, args)

    async def _fetch(self, query: str, args: Sequence[object]) -> list[Record]:
        connection = await self._acquire()
        try:
            return await connection.fetch(query, *args)
        finally:
            await self._pool.release(connection)

    async def _acquire(self, timeout_seconds: float | None = None) -> asyncpg.pool.PoolConnectionProxy:
        """Take a connection; raises NothingSent when there is none to be had."""
        with _lost_database(NothingSent):
            return await self._pool.acquire(timeout=timeout_seconds)

    async def fetchrow(self, query: str, *args: object) -> Record | None:
        """Run one statement and return its first row, None without one."""
        rows = await self.fetch(query, *args)
        return rows[0] if rows else None

    async def fetchval(self, query: str, *args: object) -> object:
        """Run one statement and return the first value of its first row, None without one."""
        rows = await self.fetch(query, *args)
        value: object = rows[0][0] if rows else None
        return value

    async def execute(self, query: str, *args: object) -> str:
        """Run one statement (several, when there are no arguments) and return its command tag."""
        with _lost_database():
            return await self._pool.execute(query, *args)

    async def executemany(self, query: str, args: Iterable[Sequence[object]]) -> None:
        """Run one statement for each row of arguments, all or none."""
        with _lost_database():
            await self._pool.executemany(query, args)

    def transaction(self) -> AbstractAsyncContextManager[Connection]:
        """Hold one connection in one transaction: committed at the end, rolled back on any exception."""
        return self._transaction()

    @asynccontextmanager
    async def _transaction(self) -> AsyncGenerator[Connection]:
        with _lost_database():
            connection = await self._acquire(_CONNECT_TIMEOUT_SECONDS)
            try:
                async with connection.transaction():
                    yield cast("Connection", connection)
            finally:
                await self._pool.release(connection)

    async def close(self) -> None:
        """Close the pool; connections still in use after five seconds are cut."""
        try:
            await _within(5.0, self._pool.close())
        except TimeoutError:
            self._pool.terminate()


def load_queries(package: str, file_name: str) -> Mapping[str, str]:
    """Read `sql/<file>` of `package`: blocks of `-- name: word`, comment lines that say what it does, one statement."""
    text = (importlib.resources.files(package) / file_name).read_text(encoding="utf-8")
    pieces = _QUERY_NAME.split(text)
    queries = dict(zip(pieces[1::2], (body.strip().rstrip(";") for body in pieces[2::2]), strict=True))
    for name, body in queries.items():
        if not body.startswith("--"):
            message = (
                f"{package}/{file_name}: query {name} has no comment that says what it does; add one below its name"
            )
            raise ValueError(message)
    return queries


async def migrate(
    url: str, *, kind: Literal["main", "facts"], phase: Literal["pre", "post", "all"] = "all"
) -> list[str]:
    """Apply the migrations of `kind` that are missing, each in its own transaction; returns their names.

    Raises Refused when an applied file has changed since, or a newer Forestay has taken away what this one uses (a
    `post` that is not known here; an unknown `pre` is safe under old code), Unavailable when no database answers.
    """
    applied: list[str] = []
    with _lost_database():
        connection = await asyncpg.connect(url, timeout=_CONNECT_TIMEOUT_SECONDS)
        try:
            await connection.execute(_SCHEMA_MIGRATIONS)
            await _refuse_newer(connection, kind)
            for name, file_phase, text in _migrations(kind):
                wanted = phase in (file_phase, "all")
                if wanted and await _apply_migration(connection, kind, f"{name}.{file_phase}", text):
                    applied.append(f"{name}.{file_phase}")
        finally:
            await connection.close()
    return applied


async def _refuse_newer(connection: asyncpg.Connection, kind: str) -> None:
    applied = {
        str(row[0]) for row in await connection.fetch("SELECT name FROM schema_migrations WHERE kind = $1", kind)
    }
    newer = sorted(
        name for name in applied - {f"{name}.{phase}" for name, phase, _ in _migrations(kind)} if name.endswith(".post")
    )
    if newer:
        message = (
            f"this database is of a newer Forestay: {kind}/{newer[0]} was applied, which this version does not know; "
            f"run that version, or restore a backup from before it"
        )
        raise Refused(message)


async def pending_migrations(url: str) -> list[str]:
    """Return the names of the main migrations that this database lacks, changing nothing; for `forestay doctor`."""
    with _lost_database():
        connection = await asyncpg.connect(url, timeout=_CONNECT_TIMEOUT_SECONDS)
        try:
            if await connection.fetchval("SELECT to_regclass('schema_migrations')") is None:
                known: set[str] = set()
            else:
                known = {str(row[0]) for row in await connection.fetch("SELECT name FROM schema_migrations")}
        finally:
            await connection.close()
    wanted = [f"{name}.{phase}" for name, phase, _ in _migrations("main")]
    return [name for name in wanted if name not in known]


_SCHEMA_MIGRATIONS = """
BEGIN;
SELECT pg_advisory_xact_lock(4660001);
CREATE TABLE IF NOT EXISTS schema_migrations (
    kind       text NOT NULL,
    name       text NOT NULL,
    digest     text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (kind, name)
);
COMMIT
"""


def _migrations(kind: str) -> list[tuple[str, str, str]]:
    folder = "migrations" if kind == "main" else "facts_migrations"
    found: list[tuple[str, str, str]] = []
    for entry in (importlib.resources.files("forestay.storage") / folder).iterdir():
        match = _MIGRATION.fullmatch(entry.name)
        if match:
            found.append((match[1], match[2], entry.read_text(encoding="utf-8")))
    return sorted(found, key=lambda item: (item[0], item[1] == "post"))


async def _apply_migration(connection: asyncpg.Connection, kind: str, name: str, text: str) -> bool:
    """Apply one file unless it is there already; the lock makes two processes take turns."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    async with connection.transaction():
        await connection.execute(
            "SET LOCAL statement_timeout = '60s'; SELECT pg_advisory_xact_lock(4660001);"
            "SET LOCAL lock_timeout = '4s'; SET LOCAL statement_timeout = '5s'"
        )
        known = await connection.fetchval(
            "SELECT digest FROM schema_migrations WHERE kind = $1 AND name = $2", kind, name
        )
        if known is not None and known != digest:
            message = (
                f"migration {kind}/{name} was applied to this database in another form; an applied migration never "
                f"changes: restore the file, or start on an empty database"
            )
            raise Refused(message)
        if known is not None:
            return False
        await connection.execute(text)
        await connection.execute(
            "INSERT INTO schema_migrations (kind, name, digest) VALUES ($1, $2, $3)", kind, name, digest
        )
    return True


@contextmanager
def _lost_database(kind: type[Unavailable] = Unavailable) -> Generator[None]:
    """Turn what a lost, starting or silent database raises into Unavailable, or the kind of it that is named.

    What cannot be stored becomes a UsageError: somebody's input is wrong, not the database.
    """
    try:
        yield
    except _LOST as error:
        message = f"Postgres does not answer ({type(error).__name__}: {error}); check that it runs and is reachable"
        raise kind(message) from error
    except _POOR as error:
        message = f"Postgres cannot do its work now ({type(error).__name__}: {error}); see its disk, memory and log"
        raise kind(message) from error
    except asyncpg.DataError as error:
        if isinstance(error, _UNSTORABLE) or type(error) is asyncpg.DataError:  # the driver's own, of an argument
            told = "holds what no table can keep: a NUL character, or a number or a time out of range"
            raise UsageError("value", told) from error
        raise
    except asyncpg.InternalClientError as error:
        if _LEFT_MIDWAY in str(error):
            raise kind(f"the connection to Postgres was lost before the statement was sent ({error})") from error
        raise
    except asyncpg.InterfaceError as error:
        if "closed" in str(error) or "closing" in str(error):
            message = f"the connection to Postgres is closed ({error})"
            raise kind(message) from error
        raise


async def _prepare_connection(connection: asyncpg.Connection) -> None:
    for name in ("json", "jsonb"):
        await connection.set_type_codec(name, schema="pg_catalog", encoder=_encode_text, decoder=_decode, format="text")


def _encode_text(value: object) -> str:
    return _encode(value).decode()


async def _leave_as_is(_connection: asyncpg.Connection) -> None:
    """Skip the round trip by which asyncpg would clean a returned connection: nothing here sets session state."""


async def _within(seconds: float, awaitable: Awaitable[None]) -> None:
    async with asyncio.timeout(seconds):
        await awaitable
