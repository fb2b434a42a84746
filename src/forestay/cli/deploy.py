"""`forestay deploy`: the short form of `forestay model deploy`."""

import pathlib
from typing import Annotated

import typer

from forestay.cli.model import PYTHON_OPTION, STRATEGY_OPTION, WAIT_OPTION, run_deploy
from forestay.cli.output import JSON_OPTION
from forestay.rollouts.rolling import Strategy

app = typer.Typer()


@app.command()
def deploy(
    file: Annotated[pathlib.Path, typer.Argument(help="The model's spec, for example examples/digits/model.yaml.")],
    name: Annotated[str, typer.Option("--name", help="Deploy under another alias, or owner/alias.")] = "",
    strategy: Annotated[Strategy | None, STRATEGY_OPTION] = None,
    wait: Annotated[bool, WAIT_OPTION] = False,
    python: Annotated[str, PYTHON_OPTION] = "",
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Send a model to the platform and route its traffic to the new revision; prints the revision's id.

    While the model serves, traffic moves once a replica of the new revision is ready; else at once.

    Example: forestay deploy examples/digits/model.yaml --wait
    """
    run_deploy(file, name, strategy, python, wait=wait, json=json)
