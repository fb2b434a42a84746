"""`forestay worker`: one worker against the configured stores."""

import typer

from forestay.settings import Settings, process_environment

app = typer.Typer()


@app.command()
def worker() -> None:
    """Run one worker against FORESTAY_DATABASE_URL, FORESTAY_VALKEY_URL and FORESTAY_OBJECT_STORE.

    Example: FORESTAY_DATABASE_URL=postgresql://... FORESTAY_OBJECT_STORE=s3://media forestay worker
    """
    import uvloop

    from forestay.wiring import run_worker

    environment = process_environment()
    uvloop.run(run_worker(Settings.from_environment(environment), environment))
