"""`forestay tenant`: create, list and show tenants."""

import urllib.parse
from json import dumps
from typing import Annotated, cast

import typer

from forestay.cli.client import connect
from forestay.cli.deploying import set_tenant_policy
from forestay.cli.output import JSON_OPTION, print_json, print_table, say

app = typer.Typer(no_args_is_help=True, help="Create, list and show tenants.")


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
    say(made["tenant_id"])


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


@app.command()
def show(
    tenant_id: Annotated[str, typer.Argument(help="The tenant's id.")], json: Annotated[bool, JSON_OPTION] = False
) -> None:
    """Show one tenant with its keys and models.

    Example: forestay tenant show acme
    """
    found = cast("dict[str, object]", connect().get(f"/admin/tenants/{urllib.parse.quote(tenant_id, safe='')}"))
    if json:
        print_json(found)
        return
    say(f"{found['tenant_id']} ({found['name']}), since {found['created_at']}")
    say(f"policy of its own: {found['policy_id'] or '-'}")
    say(f"models: {' '.join(cast('list[str]', found['models'])) or '-'}")
    columns = ("key_id", "name", "scopes", "expires_at", "revoked_at", "last_used_at")
    keys = cast("list[dict[str, object]]", found["keys"])
    rows = [[" ".join(cast("list[str]", item[c])) if c == "scopes" else item[c] for c in columns] for item in keys]
    print_table(columns, rows, empty="no keys")


@app.command()
def weight(
    tenant_id: Annotated[str, typer.Argument(help="The tenant's id.")],
    share: Annotated[float, typer.Argument(help="Its share of busy pools relative to others; 1 is usual.")],
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Give a tenant a larger or smaller share of busy pools.

    Example: forestay tenant weight acme 3
    """
    path = f"/admin/tenants/{urllib.parse.quote(tenant_id, safe='')}/weight"
    body = dumps({"weight": share}).encode()
    told = cast("dict[str, object]", connect().put(path, body, "application/json"))
    if json:
        print_json(told)
        return
    say(f"{told['tenant_id']} has the weight {told['weight']}")


@app.command()
def policy(
    tenant_id: Annotated[str, typer.Argument(help="The tenant's id.")],
    policy_id: Annotated[str, typer.Argument(help="A policy in force; `none` ends it.")],
    reason: Annotated[str, typer.Option(help="Why; kept in the audit log.")],
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Have a further policy judge whatever a tenant calls; it adds to each model's own and never loosens it.

    Example: forestay tenant policy acme strict --reason "their users are children"
    """
    told = set_tenant_policy(connect(), tenant_id, policy_id, reason)
    if json:
        print_json(told)
        return
    named = told["policy_id"]
    words = f"is also judged by {named}" if named else "is judged by the models' own policies alone"
    say(f"{told['tenant_id']} {words}{'' if told['changed'] else ', as before'}")


@app.command()
def turns(json: Annotated[bool, JSON_OPTION] = False) -> None:
    """Show what tenants have received in each pool, those next in turn first.

    Example: forestay tenant turns
    """
    found = cast("dict[str, list[dict[str, object]]]", connect().get("/admin/turns"))["accounts"]
    if json:
        print_json(found)
        return
    columns = ("pool", "tenant_id", "weight", "virtual_time", "pool_virtual_time", "active")
    rows = [[item[column] for column in columns] for item in found]
    print_table(columns, rows, empty="nobody has been served lately")
