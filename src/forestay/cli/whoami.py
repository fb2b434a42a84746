"""`forestay whoami`: as whom commands act now."""

from typing import Annotated, cast

import typer

from forestay.cli.client import connect
from forestay.cli.output import JSON_OPTION, print_json, say

app = typer.Typer()


@app.command()
def whoami(json: Annotated[bool, JSON_OPTION] = False) -> None:
    """Show the person or key that commands act as, and what they may do.

    Example: forestay whoami
    """
    who = cast("dict[str, object]", connect().get("/admin/whoami"))
    if json:
        print_json(who)
        return
    name = f"{who['email']} ({who['person_id']})" if who["person_id"] else f"key {who['key_id']}"
    say(f"{name}: {who['role']}; may {' '.join(cast('list[str]', who['permissions']))}")
