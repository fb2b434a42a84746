"""`forestay facts`: facts as files, read from the facts database itself."""

import asyncio
import datetime as dt
import pathlib
from typing import Annotated

import typer

from forestay.cli.output import JSON_OPTION, print_json, say
from forestay.errors import UsageError
from forestay.settings import Settings, process_environment

app = typer.Typer(no_args_is_help=True, help="Take facts out as files.")


@app.callback()
def _root() -> None:  # pyright: ignore[reportUnusedFunction] - makes the one command a sub-command
    """Take facts out as files."""


@app.command()
def export(
    since: Annotated[str, typer.Option(help="From then on: 2030-01-31 or 2030-01-31T12:00:00Z.")],
    to: Annotated[pathlib.Path, typer.Option(help="Folder for the files, one a table and day.")],
    until: Annotated[str, typer.Option(help="Until before then; empty: now.")] = "",
    format_: Annotated[str, typer.Option("--format", help="parquet (needs forestay[parquet]) or jsonl.")] = "parquet",
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Write request, attempt and delivery facts of FORESTAY_FACTS_URL (or FORESTAY_DATABASE_URL) into files.

    Example: FORESTAY_FACTS_URL=postgresql://... forestay facts export --since 2030-01-31 --to facts/
    """
    from forestay.telemetry.fact_export import format_of

    storage = Settings.from_environment(process_environment()).storage
    url = storage.facts_url or storage.database_url
    if not url:
        raise UsageError("FORESTAY_FACTS_URL", "is not set; expected postgresql://user:password@host/database")
    form = format_of(format_)
    first, last = _moment("--since", since), _moment("--until", until) if until else None
    to.mkdir(parents=True, exist_ok=True)
    written = asyncio.run(_export(url, first, last, to, form))
    if json:
        print_json({"files": [{"name": name, "rows": rows} for name, rows in written]})
        return
    say("\n".join(f"{name}: {rows} rows" for name, rows in written) or "no facts in that time")


async def _export(
    url: str, since: dt.datetime, until: dt.datetime | None, to: pathlib.Path, form: object
) -> list[tuple[str, int]]:
    from typing import cast

    from forestay.clock import SystemClock
    from forestay.storage.postgres import Database
    from forestay.telemetry.fact_export import Format, export_facts

    database = await Database.connect(url, pool_size=1, statement_timeout_seconds=60.0, application_name="export")
    try:
        return await export_facts(database, since, until or SystemClock().now(), to, cast("Format", form))
    finally:
        await database.close()


def _moment(field: str, text: str) -> dt.datetime:
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(field, f"{text!r} is no time such as 2030-01-31 or 2030-01-31T12:00:00Z") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
