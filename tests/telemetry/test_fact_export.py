"""Facts as files: every one once, a file a table and day, whole or not there."""

# ruff: noqa: ASYNC240 - tests may touch the disk while they wait

import datetime as dt
import json
import pathlib
import sys

import msgspec
import pytest
from pyarrow import parquet
from tests.telemetry.test_rollups import request_fact

from forestay.errors import UsageError
from forestay.storage.postgres import Database
from forestay.telemetry import fact_export
from forestay.telemetry.fact_export import JsonLines, export_facts, format_of
from forestay.telemetry.facts import FactWriter

NOON = dt.datetime(2026, 5, 4, 12, tzinfo=dt.UTC)


async def test_every_fact_is_in_the_file_of_its_day_once(
    database: Database, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also over many pages; ids and JSON are text, times ISO 8601; the bounds cut a day."""
    monkeypatch.setattr(fact_export, "PAGE", 2)
    made = [request_fact(NOON + dt.timedelta(hours=6 * number)) for number in range(5)]
    made[0] = msgspec.structs.replace(made[0], work={"images": 2.0})
    await FactWriter(database).write(made)
    until = NOON + dt.timedelta(hours=24)
    written = await export_facts(database, NOON, until, tmp_path, JsonLines())
    assert written == [("request_facts-20260504.jsonl", 2), ("request_facts-20260505.jsonl", 2)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [name for name, _ in written]
    rows = [json.loads(line) for name, _ in written for line in (tmp_path / name).read_text().splitlines()]
    assert [row["request_id"] for row in rows] == [str(fact.request_id) for fact in made[:4]]
    assert (rows[0]["finished_at"], json.loads(rows[0]["work"])) == ("2026-05-04T12:00:00Z", {"images": 2.0})
    assert await export_facts(database, NOON, until, tmp_path, JsonLines()) == written


async def test_a_parquet_file_reads_back_with_its_types(
    database: Database, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over several pages: every row, times as times in UTC, numbers as numbers, what is absent as null."""
    monkeypatch.setattr(fact_export, "PAGE", 2)
    made = [request_fact(NOON + dt.timedelta(minutes=number)) for number in range(5)]
    await FactWriter(database).write(made)
    written = await export_facts(database, NOON, NOON + dt.timedelta(hours=1), tmp_path, format_of("parquet"))
    assert written == [("request_facts-20260504.parquet", 5)]
    table = parquet.read_table(tmp_path / written[0][0])
    rows = table.to_pylist()
    assert [row["request_id"] for row in rows] == [str(fact.request_id) for fact in made]
    assert [row["finished_at"] for row in rows] == [fact.finished_at for fact in made]
    assert (rows[0]["attempts"], rows[0]["device_seconds"], rows[0]["revision_id"]) == (1, made[0].device_seconds, None)
    assert parquet.ParquetFile(tmp_path / written[0][0]).metadata.num_row_groups == 3


def test_parquet_without_its_library_is_refused_with_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Named with what brings it; an unknown format by its option."""
    monkeypatch.delitem(sys.modules, "forestay.telemetry.parquet", raising=False)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"pip install 'forestay\[parquet\]'"):
        format_of("parquet")
    with pytest.raises(UsageError, match="--format"):
        format_of("csv")
