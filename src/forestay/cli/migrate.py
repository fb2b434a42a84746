"""`forestay migrate`: bring the tables of the configured database up to date."""

import asyncio
import enum
from typing import Annotated, Literal

import typer

from forestay.cli.output import JSON_OPTION, print_json, say
from forestay.errors import UsageError
from forestay.settings import Settings, process_environment

app = typer.Typer()


class Phase(enum.StrEnum):
    """Which migrations: those safe under the old code, those for after it has gone, or both."""

    PRE = "pre"
    POST = "post"
    ALL = "all"


@app.command()
def migrate(
    phase: Annotated[Phase, typer.Option(help="pre: safe under the old code; post: once it has gone.")] = Phase.ALL,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Apply the missing migrations to FORESTAY_DATABASE_URL (and FORESTAY_FACTS_URL). Harmless to repeat.

    Example: FORESTAY_DATABASE_URL=postgresql://... forestay migrate --phase pre
    """
    storage = Settings.from_environment(process_environment()).storage
    if not storage.database_url:
        raise UsageError("FORESTAY_DATABASE_URL", "is not set; expected postgresql://user:password@host/database")
    applied = asyncio.run(_migrate(storage.database_url, storage.facts_url or storage.database_url, phase))
    if json:
        print_json({"applied": applied})
        return
    say("\n".join(f"applied {name}" for name in applied) or "nothing to apply: the tables are up to date")


async def _migrate(url: str, facts_url: str, phase: Phase) -> list[str]:
    from forestay.storage.postgres import migrate as apply

    word: Literal["pre", "post", "all"] = phase.value
    return [*await apply(url, kind="main", phase=word), *await apply(facts_url, kind="facts", phase=word)]
