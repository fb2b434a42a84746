"""`forestay observe`: facts of a fleet that is not behind the gateway, and what is rolled up of any."""

import collections
import contextlib
import datetime as dt
import pathlib
import sys
from collections.abc import Generator, Iterator
from typing import IO, Annotated, cast

import typer

from forestay.cli import observe_export
from forestay.cli.client import PlatformClient, connect
from forestay.cli.output import JSON_OPTION, print_json, print_table, say
from forestay.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="Feed facts of another fleet; show what is rolled up; export.")
observe_export.register(app)
_BATCH = 1_000
_SHOWN = 20
_MAX_LINE = 64 * 1024


@app.command()
def ingest(
    file: Annotated[str, typer.Argument(help="The log; - reads standard input.")],
    format_: Annotated[str, typer.Option("--format", help="nginx, envoy or jsonl (docs/howto/observe-a-fleet.md).")],
    source: Annotated[str, typer.Option(help="Name of whoever saw these requests, such as edge-eu.")],
    model: Annotated[str, typer.Option(help="Every line is of this model; else the path's first two segments.")] = "",
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Send the lines of an access log as facts; bad ones are named by line and field, the rest goes on.

    Sending a file again adds nothing. Ends with 1 when a line was not taken.

    Example: forestay observe ingest --format nginx --source edge-eu access.log
    """
    from forestay.telemetry.access_logs import parser_of

    parse, platform = parser_of(format_, model), connect()
    kept, faults, total = 0, list[dict[str, object]](), 0
    seen: collections.Counter[str] = collections.Counter()
    batch: list[tuple[int, dict[str, object]]] = []
    for number, line in _lines(file):
        total += 1
        try:
            fact = parse(line)
        except UsageError as error:
            faults.append({"line": number, "field": error.field, "reason": error.message})
            continue
        if not fact.get("id"):  # alike lines are requests of their own, each time at the same place among them
            seen[line] += 1
            fact["id"] = _name(line, seen[line])
        batch.append((number, fact))
        if len(batch) >= _BATCH:
            kept += _send(platform, source, batch, faults)
            batch = []
    kept += _send(platform, source, batch, faults) if batch else 0
    if json:
        print_json({"lines": total, "kept": kept, "faults": faults})
    else:
        say(f"{kept} of {total} lines taken")
        for fault in faults[:_SHOWN]:
            say(f"line {fault['line']}: {fault['field']}: {fault['reason']}", err=True)
        if len(faults) > _SHOWN:
            say(f"and {len(faults) - _SHOWN} more", err=True)
    if faults:
        raise typer.Exit(1)


@app.command()
def show(
    model: Annotated[str, typer.Option(help="Only this model, owner/alias.")] = "",
    tenant: Annotated[str, typer.Option(help="Only this tenant.")] = "",
    hours: Annotated[float, typer.Option(min=0.02, max=744.0, help="How far back.")] = 1.0,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Show what is rolled up: requests, how many were good, and how long they took.

    Example: forestay observe show --model forestay/digits --hours 24
    """
    since = dt.timedelta(hours=hours)
    query = {"model": model, "tenant": tenant}
    platform = connect()
    asked = {name: value for name, value in query.items() if value}
    now = cast("dict[str, str]", platform.get("/admin/observe/v1/summary", asked))["until"]
    asked["since"] = (dt.datetime.fromisoformat(now) - since).isoformat()
    found = cast("dict[str, object]", platform.get("/admin/observe/v1/summary", asked))
    if json:
        print_json(found)
        return
    say(f"complete until {found['complete_until'] or 'nothing yet'}")
    rows = [_row(name, told) for name, told in cast("dict[str, dict[str, object]]", found["models"]).items()]
    columns = ("model", "requests", "good", "bad", "neither", "p50 latency", "p99 latency", "p99 wait", "device s")
    print_table(columns, rows, empty="no requests in these hours")


def _row(name: str, told: dict[str, object]) -> list[object]:
    stages = cast("dict[str, dict[str, float]]", told["stages"])

    def time(stage: str, share: str) -> str | None:
        value = stages.get(stage, {}).get(share)
        return None if value is None else f"{value:.3g} s"

    counts = cast("list[int]", told["availability"])
    times = (time("latency", "p50"), time("latency", "p99"), time("queue_wait", "p99"))
    return [name or "-", told["requests"], *counts, *times, f"{cast('float', told['device_seconds']):.4g}"]


def _send(
    platform: PlatformClient, source: str, batch: list[tuple[int, dict[str, object]]], faults: list[dict[str, object]]
) -> int:
    value = {"source": source, "facts": [fact for _, fact in batch]}
    answered = cast("dict[str, object]", platform.post("/admin/observe/v1/facts", value))
    for fault in cast("list[dict[str, object]]", answered["faults"]):
        place = cast("int", fault["number"])
        faults.append({"line": batch[place][0], "field": fault["field"], "reason": fault["reason"]})
    return cast("int", answered["kept"])


def _name(line: str, count: int) -> str:
    import hashlib

    return hashlib.blake2b(f"{count}\n{line}".encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def _lines(file: str) -> Iterator[tuple[int, str]]:
    """Yield lines with their numbers, without empty ones; what is no UTF-8 stays as it is."""
    with _opened(file) as stream:
        for number, raw in enumerate(stream, 1):
            line = raw[:_MAX_LINE].decode("utf-8", "backslashreplace").strip()
            if line:
                yield number, line


@contextlib.contextmanager
def _opened(file: str) -> Generator[IO[bytes]]:
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        with pathlib.Path(file).open("rb") as stream:
            yield stream
    except OSError as error:
        raise UsageError("FILE", f"cannot read {file}: {error.strerror}") from error
