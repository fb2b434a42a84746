"""`forestay deploy`: the short form of `forestay model deploy`."""

import pathlib
from typing import Annotated

import typer

from forestay.cli.model import run_deploy
from forestay.cli.output import JSON_OPTION

app = typer.Typer()


@app.command()
def deploy(
    file: Annotated[pathlib.Path, typer.Argument(help="The model's spec, for example examples/digits/model.yaml.")],
    name: Annotated[str, typer.Option("--name", help="Deploy under another alias, or owner/alias.")] = "",
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Send a model to the platform and route its traffic to the new revision; prints the revision's id.

    Example: forestay deploy examples/digits/model.yaml
    """
    run_deploy(file, name, json=json)
