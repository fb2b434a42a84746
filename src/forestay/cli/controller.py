"""`forestay controller`: one controller against the configured stores."""

import typer

from forestay.settings import Settings, process_environment

app = typer.Typer()


@app.command()
def controller() -> None:
    """Run one controller against FORESTAY_DATABASE_URL, FORESTAY_VALKEY_URL and FORESTAY_OBJECT_STORE.

    Example: FORESTAY_DATABASE_URL=postgresql://... FORESTAY_OBJECT_STORE=s3://media forestay controller
    """
    import uvloop

    from forestay.wiring import run_controller

    environment = process_environment()
    uvloop.run(run_controller(Settings.from_environment(environment), environment))
