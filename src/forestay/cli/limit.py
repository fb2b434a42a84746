"""`forestay limit`: limits and budgets per key, tenant, model and fleet, and what is used of them.

A subject is written `tenant:acme`, `key:3f2a91c04b7d5e60`, `model:owner/alias` or `fleet`; `*` as the id means each
that has no rule of its own. What is set holds on every gateway within a second.
"""

import json as encoder
import urllib.parse
from typing import Annotated, cast

import typer

from forestay.cli.client import connect
from forestay.cli.output import JSON_OPTION, print_json, print_table, say
from forestay.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="Set, list and show limits and budgets; show what is used.")
Rows = list[dict[str, object]]
_SUBJECT = typer.Argument(help="tenant:acme, key:<id>, model:owner/alias or fleet; tenant:* for each without its own.")


@app.command(name="set")
def set_limits(
    subject: Annotated[str, _SUBJECT],
    requests_per_second: Annotated[float | None, typer.Option(help="Over all gateways together.")] = None,
    burst: Annotated[int | None, typer.Option(help="Requests that may come at once; empty: a second's worth.")] = None,
    in_flight: Annotated[int | None, typer.Option(help="Calls at a time; queued requests wait for their turn.")] = None,
    gpu_seconds_per_minute: Annotated[float | None, typer.Option(help="Device-seconds, as predicted.")] = None,
    gpu_seconds_per_month: Annotated[float | None, typer.Option(help="Device-seconds, calendar month (UTC).")] = None,
    money_per_month: Annotated[float | None, typer.Option(help="Currency units, calendar month (UTC).")] = None,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit log.")] = "",
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Set limits of a subject; those that are not named stay as they are.

    Example: forestay limit set tenant:acme --requests-per-second 20 --burst 40 --in-flight 10
    """
    asked: dict[str, object] = {
        "requests_per_second": requests_per_second,
        "burst": burst,
        "in_flight": in_flight,
        "gpu_seconds_per_minute": gpu_seconds_per_minute,
        "gpu_seconds_per_month": gpu_seconds_per_month,
        "money_per_month": money_per_month,
    }
    named = {name: value for name, value in asked.items() if value is not None}
    if not named:
        raise UsageError("limit", "name at least one, for example --requests-per-second 20")
    body = encoder.dumps({"subject": subject, **named, **({"reason": reason} if reason else {})}).encode()
    done = cast("dict[str, object]", connect().put("/admin/limits", body, "application/json"))
    if json:
        print_json(done)
        return
    _print_rules(cast("Rows", done["limits"]))


@app.command(name="list")
def list_limits(json: Annotated[bool, JSON_OPTION] = False) -> None:
    """List every limit that is set.

    Example: forestay limit list
    """
    rules = cast("dict[str, Rows]", connect().get("/admin/limits"))["limits"]
    if json:
        print_json(rules)
        return
    _print_rules(rules)


@app.command()
def show(subject: Annotated[str, _SUBJECT], json: Annotated[bool, JSON_OPTION] = False) -> None:
    """Show the limits that hold for a subject: its own, and those of `*` that it falls under.

    Example: forestay limit show tenant:acme
    """
    rules = cast("dict[str, Rows]", connect().get("/admin/limits", {"subject": subject}))["limits"]
    if json:
        print_json(rules)
        return
    _print_rules(rules)


@app.command()
def remove(
    subject: Annotated[str, _SUBJECT],
    kind: Annotated[list[str] | None, typer.Option(help="in-flight, ...; repeatable; empty: all.")] = None,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit log.")] = "",
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Remove limits of a subject.

    Example: forestay limit remove tenant:acme --kind in-flight
    """
    query = [("subject", subject), *(("kind", item) for item in kind or []), *([("reason", reason)] if reason else [])]
    done = cast("dict[str, object]", connect().delete(f"/admin/limits?{urllib.parse.urlencode(query)}"))
    if json:
        print_json(done)
        return
    say(f"{done['subject']} is no longer limited in {', '.join(cast('list[str]', done['removed']))}")


@app.command()
def usage(
    subject: Annotated[str, _SUBJECT],
    month: Annotated[str, typer.Option(help="2030-01; empty: this month (UTC).")] = "",
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Show what a subject has spent, what is reserved for running and queued requests, and what is left.

    Example: forestay limit usage tenant:acme
    """
    query = {"subject": subject, **({"month": month} if month else {})}
    seen = cast("dict[str, object]", connect().get("/admin/limits/usage", query))
    if json:
        print_json(seen)
        return
    spent = cast("dict[str, object]", seen["spent"])
    say(f"{seen['subject']} in {seen['month']}: {spent['requests']} requests, {_spent(spent)}")
    say()
    limits = cast("Rows", seen["limits"])
    columns = ("kind", "amount", "burst", "spent", "reserved", "left", "from")
    rows = [[*(item.get(column) for column in columns), _when(item)] for item in limits]
    print_table(("limit", *columns[1:], "more in"), rows, empty="no limits; see `forestay limit set`")
    say()
    models = cast("Rows", seen["by_model"])
    rows = [[item["model_id"], item["requests"], item["gpu_seconds"], item["money"]] for item in models]
    print_table(("model", "requests", "device-seconds", "money"), rows, empty="nothing used")


def _print_rules(rules: Rows) -> None:
    columns = ("subject", "kind", "amount", "burst")
    print_table(columns, [[item.get(column) for column in columns] for item in rules], empty="no limits")


def _spent(spent: dict[str, object]) -> str:
    return f"{spent['gpu_seconds']} device-seconds, {spent['money']} currency units"


def _when(item: dict[str, object]) -> str:
    seconds = item["more_in_seconds"]
    if seconds is None:
        return ""
    return f"{float(str(seconds)) / 86_400:.1f} days" if float(str(seconds)) > 86_400 else f"{seconds} s"
