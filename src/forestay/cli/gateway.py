"""`forestay gateway`: one gateway against the configured stores."""

from typing import Annotated

import typer

from forestay.cli.output import JSON_OPTION
from forestay.errors import UsageError
from forestay.settings import Settings, process_environment

app = typer.Typer()


@app.command()
def gateway(
    server: Annotated[str, typer.Option(help="HTTP server: granian or uvicorn.")] = "granian",
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Run one gateway against FORESTAY_DATABASE_URL, FORESTAY_VALKEY_URL and FORESTAY_OBJECT_STORE.

    Example: FORESTAY_DATABASE_URL=postgresql://... FORESTAY_OBJECT_STORE=s3://media forestay gateway
    """
    del json  # its log is lines of JSON either way; an error is one too
    if server not in {"granian", "uvicorn"}:
        raise UsageError("--server", f"{server!r} is unknown; expected granian or uvicorn")
    import uvloop

    from forestay.wiring import run_gateway

    environment = process_environment()
    uvloop.run(run_gateway(Settings.from_environment(environment), environment, server=server))
