"""`forestay key`: create, list and revoke keys. A secret is printed once, when the key is created."""

import re
import urllib.parse
from typing import Annotated, cast

import typer

from forestay.cli.client import connect
from forestay.cli.output import JSON_OPTION, print_json, print_table
from forestay.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="Create, list and revoke keys.")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@app.command()
def create(
    name: Annotated[str, typer.Option(help="What it is for, for people.")] = "",
    tenant: Annotated[str, typer.Option(help="Tenant; empty: that of the key in use.")] = "",
    scope: Annotated[list[str] | None, typer.Option(help="API (call models) or ADMIN; repeatable.")] = None,
    expires_in: Annotated[str, typer.Option(help="30d, 12h, 90m; empty: never.")] = "",
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Create a key and print it; its secret is never shown again.

    Example: forestay key create --name "night batch" --expires-in 30d
    """
    scopes = [text.upper() for text in scope or ["API"]]
    if not set(scopes) <= {"API", "ADMIN"}:
        raise UsageError("--scope", "use API or ADMIN")
    asked: dict[str, object] = {"name": name, "tenant_id": tenant, "scopes": scopes}
    if expires_in:
        asked["expires_in_seconds"] = _seconds(expires_in)
    made = cast("dict[str, object]", connect().post("/admin/keys", asked))
    if json:
        print_json(made)
        return
    typer.echo(made["key"])


@app.command(name="list")
def list_keys(
    tenant: Annotated[str, typer.Option(help="Only this tenant's.")] = "",
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """List keys, newest first, without their secrets.

    Example: forestay key list
    """
    query = {"tenant_id": tenant} if tenant else None
    keys = cast("dict[str, list[dict[str, object]]]", connect().get("/admin/keys", query))["keys"]
    if json:
        print_json(keys)
        return
    rows = [
        (
            item["key_id"],
            item["tenant_id"],
            item["name"],
            " ".join(cast("list[str]", item["scopes"])),
            "revoked" if item["revoked_at"] else (f"until {item['expires_at']}" if item["expires_at"] else "valid"),
            item["last_used_at"],
        )
        for item in keys
    ]
    print_table(("key", "tenant", "name", "scopes", "state", "last used"), rows, empty="no keys")


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The part of the key before the colon.")],
    reason: Annotated[str, typer.Option(help="Why; kept in the audit log.")] = "",
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Revoke a key for good; every gateway feels it within two seconds.

    Example: forestay key revoke 3f2a91c04b7d5e60 --reason "leaked in a log"
    """
    bare = key_id.partition(":")[0]  # whoever pastes the whole credential means its id
    query = f"?{urllib.parse.urlencode({'reason': reason})}" if reason else ""
    revoked = cast("dict[str, object]", connect().delete(f"/admin/keys/{urllib.parse.quote(bare, safe='')}{query}"))
    if json:
        print_json(revoked)
        return
    typer.echo(f"{revoked['key_id']} is revoked since {revoked['revoked_at']}")


def _seconds(text: str) -> int:
    match = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if match is None:
        raise UsageError("--expires-in", f"{text!r} is not a number with s, m, h or d, for example 30d")
    return int(match[1]) * _UNITS[match[2]]
