"""Facts as files: one a table and day, Parquet or JSON lines, for whoever analyses them elsewhere.

It decides the cut by days (UTC), the order and the types; a file appears whole or not at all. Parquet needs
the extra `parquet`, imported only then. Called by `forestay facts export`.
"""

import datetime as dt
import pathlib
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Protocol, cast

import msgspec

from forestay.errors import UsageError
from forestay.storage.postgres import Database, Record, load_queries
from forestay.telemetry.facts import TABLES

PAGE = 5_000
_DAY = dt.timedelta(days=1)
_SQL = load_queries("forestay.telemetry", "sql/export.sql")
Kinds = Mapping[str, str]  # column -> Postgres' name of its type


class Sheet(Protocol):
    """One file that is being written."""

    def write(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Append rows."""
        ...

    def close(self) -> None:
        """Finish the file."""
        ...


class Format(Protocol):
    """A kind of file."""

    suffix: str

    def open(self, path: pathlib.Path, kinds: Kinds) -> Sheet:
        """Begin a file with these columns."""
        ...


async def export_facts(
    facts: Database, since: dt.datetime, until: dt.datetime, folder: pathlib.Path, form: Format
) -> list[tuple[str, int]]:
    """Write the facts of [since, until) into `folder`, which is there; returns each file's name and rows."""
    written: list[tuple[str, int]] = []
    for table in TABLES:
        kinds = {row["name"]: row["kind"] for row in await facts.fetch(_SQL["columns"], table)}
        day = since.astimezone(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        while day < until:
            name = f"{table}-{day:%Y%m%d}.{form.suffix}"
            rows = await _file(
                _pages(facts, table, max(day, since), min(day + _DAY, until)), folder / name, kinds, form
            )
            if rows:
                written.append((name, rows))
            day += _DAY
    return written


async def _file(pages: AsyncGenerator[list[Record]], path: pathlib.Path, kinds: Kinds, form: Format) -> int:
    unfinished = path.with_name(path.name + ".unfinished")
    sheet: Sheet | None = None
    count = 0
    try:
        async for page in pages:
            sheet = sheet or form.open(unfinished, kinds)
            sheet.write([{name: plain(row[name]) for name in kinds} for row in page])
            count += len(page)
    finally:
        if sheet is not None:
            sheet.close()
    if count:
        unfinished.replace(path)
    return count


async def _pages(facts: Database, table: str, low: dt.datetime, high: dt.datetime) -> AsyncGenerator[list[Record]]:
    at, key = low - dt.timedelta(microseconds=1), uuid.UUID(int=0)
    while True:
        page = await facts.fetch(_SQL[table], low, high, at, key, PAGE)
        if page:
            yield page
        if len(page) < PAGE:
            return
        at, key = page[-1]["finished_at"], page[-1]["request_id"]


def plain(value: object) -> object:
    """Return a value as files hold it: ids and JSON as text."""
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, dict | list):
        return msgspec.json.encode(cast("object", value)).decode()
    return value


class JsonLines:
    """One JSON object a line."""

    suffix = "jsonl"

    def open(self, path: pathlib.Path, kinds: Kinds) -> Sheet:  # noqa: ARG002 - the port's signature
        """Begin a file."""
        return _Lines(path)


class _Lines:
    def __init__(self, path: pathlib.Path) -> None:
        self._file = path.open("wb")

    def write(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Append rows."""
        self._file.writelines(msgspec.json.encode(row) + b"\n" for row in rows)

    def close(self) -> None:
        """Finish the file."""
        self._file.close()


def format_of(name: str) -> Format:
    """Return the writer of a format: parquet or jsonl; raises UsageError where its library is not there."""
    if name == "jsonl":
        return JsonLines()
    if name != "parquet":
        raise UsageError("--format", "must be parquet or jsonl")
    try:
        from forestay.telemetry.parquet import Parquet  # noqa: PLC0415 - an extra
    except ModuleNotFoundError:
        message = "parquet needs the extra `parquet`: pip install 'forestay[parquet]', or use --format jsonl"
        raise UsageError("--format", message) from None
    return Parquet()
