"""`forestay tenant`: create and list tenants."""

from typing import Annotated, cast

import typer

from forestay.cli.client import connect
from forestay.cli.output import JSON_OPTION, print_json, print_table

app = typer.Typer(no_args_is_help=True, help="Create and list tenants.")


@app.command()
def create(
    tenant_id: Annotated[str, typer.Argument(help="Lower-case letters, digits, `_`, `.` and `-`.")],
    name: Annotated[str, typer.Option(help="Name for people; empty: the id.")] = "",
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Create a tenant.

    Example: forestay tenant create acme --name "Acme Ltd"
    """
    made = cast("dict[str, object]", connect().post("/admin/tenants", {"tenant_id": tenant_id, "name": name}))
    if json:
        print_json(made)
        return
    typer.echo(made["tenant_id"])


@app.command(name="list")
def list_tenants(json: Annotated[bool, JSON_OPTION] = False) -> None:
    """List tenants.

    Example: forestay tenant list
    """
    tenants = cast("dict[str, list[dict[str, object]]]", connect().get("/admin/tenants"))["tenants"]
    if json:
        print_json(tenants)
        return
    columns = ("tenant_id", "name", "created_at")
    print_table(columns, [[item[column] for column in columns] for item in tenants], empty="no tenants")
