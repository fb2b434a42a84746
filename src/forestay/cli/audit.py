"""`forestay audit`: who did what, why, and whether the record is whole."""

import json as jsonlib
import pathlib
from typing import Annotated, cast

import typer

from forestay.cli.client import connect
from forestay.cli.output import JSON_OPTION, print_json, print_table, say
from forestay.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="Read who did what, and why.")


@app.command(name="list")
def list_rows(
    subject: Annotated[str, typer.Option(help="Only this subject, for example routes:forestay/digits.")] = "",
    before: Annotated[str, typer.Option(help="Only before this time, for example 2030-01-31T12:00:00Z.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="At most so many.")] = 50,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """List acts, newest first.

    Example: forestay audit list --limit 20
    """
    query = {"limit": str(limit), "subject": subject, "before": before}
    asked = {name: value for name, value in query.items() if value}
    rows = cast("dict[str, list[dict[str, object]]]", connect().get("/admin/audit", asked))["rows"]
    if json:
        print_json(rows)
        return
    columns = ("at", "actor", "action", "subject", "effect", "reason")
    print_table(columns, [[item[column] for column in columns] for item in rows], empty="no acts")


@app.command()
def anchor(json: Annotated[bool, JSON_OPTION] = False) -> None:
    """Sign a checkpoint of every chain's head and print it: keep it where nobody of the platform can change it.

    Example: forestay audit anchor > checkpoint.json
    """
    del json  # a checkpoint is JSON either way
    print_json(connect(timeout_seconds=60.0).post("/admin/audit/anchor"))


@app.command()
def verify(
    checkpoint: Annotated[
        pathlib.Path | None, typer.Option(help="A checkpoint that `forestay audit anchor` printed, kept elsewhere.")
    ] = None,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Recompute the chains and compare with signed checkpoints; exits 1 when a row was altered, removed or added.

    Example: forestay audit verify --checkpoint checkpoint.json
    """
    asked = {"checkpoint": None if checkpoint is None else _read(checkpoint)}
    found = cast("dict[str, object]", connect(timeout_seconds=300.0).post("/admin/audit/verify", asked))
    faults = cast("list[dict[str, object]]", found["faults"])
    newest = cast("dict[str, object] | None", found["checkpoint"])
    if json:
        print_json(found)
    elif not faults:
        held = f"as checkpoint {newest['number']} of {newest['at']} says" if newest else "no checkpoint was signed yet"
        say(f"every row is as it was written; {held}")
    else:
        columns = ("writer", "sequence", "what")
        print_table(columns, [[item[column] for column in columns] for item in faults])
    if faults:
        raise typer.Exit(1)


def _read(path: pathlib.Path) -> object:
    try:
        return jsonlib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError("--checkpoint", f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise UsageError("--checkpoint", f"{path} is no checkpoint that `forestay audit anchor` printed") from None
