"""`forestay observe`: a foreign fleet's log becomes facts, once, and is shown as rolled up."""

import datetime as dt
import pathlib
from collections.abc import Awaitable, Callable
from typing import cast

from tests.cli.conftest import Platform, Ran

from forestay.clock import SystemClock
from forestay.telemetry.metrics import Metrics
from forestay.telemetry.rollup_loop import RollupLoop

Forestay = Callable[..., Awaitable[Ran]]


def _line(at: dt.datetime, status: int = 200, seconds: float = 0.5) -> str:
    stamp = at.strftime("%d/%b/%Y:%H:%M:%S +0000")
    return f'203.0.113.7 - - [{stamp}] "POST /acme/pictures HTTP/1.1" {status} 512 "-" "curl" rt={seconds}'


async def test_a_foreign_fleets_log_is_observed_like_our_own(
    forestay: Forestay, platform: Platform, tmp_path: pathlib.Path
) -> None:
    """Bad lines are named by line and field, the rest goes on; the same file again adds nothing."""
    at = SystemClock().now().astimezone(dt.UTC) - dt.timedelta(minutes=5)
    log = tmp_path / "access.log"
    lines = [_line(at), _line(at), _line(at, 502, 3.0), "nonsense", _line(at + dt.timedelta(days=9)), _line(at, 404)]
    log.write_text("\n".join(lines) + "\n")
    words = ("observe", "ingest", str(log), "--format", "nginx", "--source", "edge")
    first = await forestay(*words)
    assert (first.status, "4 of 6 lines taken" in first.out) == (1, True)
    assert "line 4: line:" in first.err
    assert "line 5: finished_at:" in first.err
    assert (await forestay(*words, "--json")).json()["kept"] == 4
    await RollupLoop(platform.database, platform.database, SystemClock(), Metrics()).run_once()
    shown = (await forestay("observe", "show", "--model", "acme/pictures", "--json")).json()
    told = cast("dict[str, dict[str, object]]", shown["models"])["acme/pictures"]
    assert told["availability"] == [2, 1, 1]
    assert "acme/pictures" in (await forestay("observe", "show")).out


async def test_what_cannot_be_ingested_is_told_by_its_name(forestay: Forestay, tmp_path: pathlib.Path) -> None:
    """An unknown format, a file that is not there, a source that is no name."""
    log = tmp_path / "access.log"
    log.write_text(_line(SystemClock().now()) + "\n")
    assert "--format" in (await forestay("observe", "ingest", str(log), "--format", "iis", "--source", "a")).err
    missing = await forestay("observe", "ingest", str(tmp_path / "no"), "--format", "nginx", "--source", "a")
    assert (missing.status, "FILE" in missing.err) == (2, True)
    refused = await forestay("observe", "ingest", str(log), "--format", "nginx", "--source", "A B")
    assert (refused.status, "source" in refused.err) == (1, True)
