"""`forestay key`: create, list, show, rotate and revoke keys. A secret is printed once, when its key is made.

The first one of an installation is made in the database itself (`key_first`).
"""

import urllib.parse
from collections.abc import Mapping
from typing import Annotated, cast

import typer

from forestay.cli.client import connect
from forestay.cli.durations import seconds_of
from forestay.cli.key_first import first
from forestay.cli.output import JSON_OPTION, print_json, print_table, say
from forestay.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="Create, list, show, rotate and revoke keys.")
_KEY_ID = typer.Argument(help="The part of the key before the colon.")
app.command()(first)


@app.command()
def create(
    name: Annotated[str, typer.Option(help="What it is for, for people.")] = "",
    tenant: Annotated[str, typer.Option(help="Tenant; empty: that of the key in use.")] = "",
    scope: Annotated[list[str] | None, typer.Option(help="API (call models) or ADMIN; repeatable.")] = None,
    expires_in: Annotated[str, typer.Option(help="30d, 12h, 90m; empty: never.")] = "",
    model: Annotated[list[str] | None, typer.Option(help="owner/alias, owner/* or *; repeatable; none: all.")] = None,
    verb: Annotated[
        list[str] | None,
        typer.Option(help="submit, run, stream, realtime, read, cancel or upload; repeatable; none: all."),
    ] = None,
    network: Annotated[
        list[str] | None, typer.Option(help="CIDR from which it may be used; repeatable; none: everywhere.")
    ] = None,
    privilege: Annotated[
        list[str] | None, typer.Option(help="disable_filter or control_headers: headers that count; repeatable.")
    ] = None,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Create a key and print it; its secret is never shown again.

    Example: forestay key create --name "night batch" --model "acme/*" --verb submit --verb read --expires-in 30d
    """
    scopes = [text.upper() for text in scope or ["API"]]
    if not set(scopes) <= {"API", "ADMIN"}:
        raise UsageError("--scope", "use API or ADMIN")
    asked: dict[str, object] = {"name": name, "tenant_id": tenant, "scopes": scopes}
    if expires_in:
        asked["expires_in_seconds"] = seconds_of("--expires-in", expires_in)
    if model or verb:
        asked["grants"] = [{"models": model or [], "verbs": verb or []}]
    if network:
        asked["networks"] = network
    if privilege:
        asked["privileges"] = privilege
    _print_new(cast("dict[str, object]", connect().post("/admin/keys", asked)), json=json)


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
    columns = ("key", "tenant", "name", "scopes", "may", "networks", "privileges", "state", "last used")
    print_table(columns, [_row(item) for item in keys], empty="no keys")


@app.command()
def show(key_id: Annotated[str, _KEY_ID], json: Annotated[bool, JSON_OPTION] = False) -> None:
    """Show one key: what it may do, from where, until when.

    Example: forestay key show 3f2a91c04b7d5e60
    """
    key = cast("dict[str, object]", connect().get(f"/admin/keys/{_bare(key_id)}"))
    if json:
        print_json(key)
        return
    names = ("key", "tenant", "name", "scopes", "may", "networks", "privileges", "state", "last used")
    rows = [*zip(names, _row(key), strict=True), ("created", key["created_at"]), ("hash", key["secret_form"])]
    print_table(("field", "value"), [*rows, ("successor of", key["successor_of"])])


@app.command()
def rotate(
    key_id: Annotated[str, _KEY_ID],
    overlap: Annotated[str, typer.Option(help="How long the old key goes on working: 24h, 7d, 0s.")] = "24h",
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Replace a key: print its successor, which may do the same, and let the old one expire after the overlap.

    Example: forestay key rotate 3f2a91c04b7d5e60 --overlap 24h
    """
    asked = {"overlap_seconds": seconds_of("--overlap", overlap)}
    _print_new(cast("dict[str, object]", connect().post(f"/admin/keys/{_bare(key_id)}/rotate", asked)), json=json)


@app.command()
def revoke(
    key_id: Annotated[str, _KEY_ID],
    reason: Annotated[str, typer.Option(help="Why; kept in the audit log.")] = "",
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Revoke a key for good; every gateway feels it within two seconds.

    Example: forestay key revoke 3f2a91c04b7d5e60 --reason "leaked in a log"
    """
    query = f"?{urllib.parse.urlencode({'reason': reason})}" if reason else ""
    revoked = cast("dict[str, object]", connect().delete(f"/admin/keys/{_bare(key_id)}{query}"))
    if json:
        print_json(revoked)
        return
    say(f"{revoked['key_id']} is revoked since {revoked['revoked_at']}")


def _print_new(made: Mapping[str, object], *, json: bool) -> None:
    if json:
        print_json(made)
        return
    say(made["key"])


def _row(key: Mapping[str, object]) -> tuple[object, ...]:
    state = "revoked" if key["revoked_at"] else (f"until {key['expires_at']}" if key["expires_at"] else "valid")
    words = {name: " ".join(cast("list[str]", key[name])) for name in ("scopes", "networks", "privileges")}
    grants = cast("list[dict[str, list[str]]]", key["grants"])
    may = "; ".join(
        f"{' '.join(grant['verbs']) or 'everything'} on {' '.join(grant['models']) or '*'}" for grant in grants
    )
    return (
        key["key_id"],
        key["tenant_id"],
        key["name"],
        words["scopes"],
        may or "everything",
        words["networks"] or "everywhere",
        words["privileges"],
        state,
        key["last_used_at"],
    )


def _bare(key_id: str) -> str:
    """Return the id alone: whoever pastes the whole credential means its id."""
    return urllib.parse.quote(key_id.partition(":")[0], safe="")
