"""`forestay worker`: one worker against the configured stores."""

from typing import Annotated

import typer

from forestay.cli.output import JSON_OPTION
from forestay.settings import Settings, process_environment

app = typer.Typer()


@app.command()
def worker(json: Annotated[bool, JSON_OPTION] = False) -> None:
    """Run one worker against FORESTAY_DATABASE_URL, FORESTAY_VALKEY_URL and FORESTAY_OBJECT_STORE.

    Example: FORESTAY_DATABASE_URL=postgresql://... FORESTAY_OBJECT_STORE=s3://media forestay worker
    """
    del json  # its log is lines of JSON either way; an error is one too
    import uvloop

    from forestay.wiring import run_worker

    environment = process_environment()
    uvloop.run(run_worker(Settings.from_environment(environment), environment))
