"""`forestay audit`: who did what, why, and whether the record is whole."""

from typing import Annotated, cast

import typer

from forestay.cli.client import connect
from forestay.cli.output import JSON_OPTION, print_json, print_table

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
def verify(json: Annotated[bool, JSON_OPTION] = False) -> None:
    """Recompute the chains; exits 1 when a row was altered, removed or added.

    Example: forestay audit verify
    """
    found = cast("dict[str, object]", connect(timeout_seconds=300.0).get("/admin/audit/verify"))
    faults = cast("list[dict[str, object]]", found["faults"])
    if json:
        print_json(found)
    elif not faults:
        typer.echo("every row is as it was written")
    else:
        columns = ("writer", "sequence", "what")
        print_table(columns, [[item[column] for column in columns] for item in faults])
    if faults:
        raise typer.Exit(1)
