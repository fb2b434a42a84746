"""`forestay alert notifications|resend|routes|check|test`: who is told, what became of it, do the ways work."""

import pathlib
import urllib.parse
from typing import Annotated, cast

import typer

from forestay.cli.client import PlatformClient, connect
from forestay.cli.output import JSON_OPTION, print_json, print_table, say
from forestay.clock import SystemClock
from forestay.errors import UsageError

Row = dict[str, object]
_COLUMNS = ("notification_id", "receiver", "state", "tries", "created_at", "last_error")
_STATES = ("pending", "delivered", "dead")
_LOOK_SECONDS = 0.2


def register(parent: typer.Typer) -> None:
    """Add these commands to `forestay alert`."""
    parent.command()(notifications)
    parent.command()(resend)
    parent.command()(routes)
    parent.command()(check)
    parent.command(name="test")(send_test)


def notifications(
    state: Annotated[str, typer.Option(help="pending, delivered or dead; empty: all.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="At most so many.")] = 50,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """List notifications, newest first, with what receivers answered; with --json also what they say.

    Example: forestay alert notifications --state dead
    """
    if state and state not in _STATES:
        raise UsageError("--state", f"use one of {', '.join(_STATES)}")
    query = {"limit": str(limit), **({"state": state} if state else {})}
    rows = cast("dict[str, list[Row]]", connect().get("/admin/alerts/notifications", query))["notifications"]
    if json:
        print_json(rows)
        return
    print_table(_COLUMNS, [[row[column] for column in _COLUMNS] for row in rows], empty="no notifications")


def resend(
    notification_id: Annotated[str, typer.Argument(help="Its id, nt_ and 32 hex digits.")],
    reason: Annotated[str, typer.Option(help="Why; kept in the audit log.")],
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Send a notification that was given up anew, under the id that it had.

    Example: forestay alert resend nt_9f86d081884c7d659a2feaa0c55ad015 --reason "their hook is back"
    """
    path = f"/admin/alerts/notifications/{urllib.parse.quote(notification_id, safe='')}/resend"
    done = connect().post(path, {"reason": reason})
    print_json(done) if json else say(f"{notification_id} is sent anew")


def routes(json: Annotated[bool, JSON_OPTION] = False) -> None:
    """Show routes and receivers as the controller has read them; addresses are not shown.

    Example: forestay alert routes
    """
    known = cast("Row", connect().get("/admin/alerts/routes"))
    if json:
        print_json(known)
        return
    receivers = cast("list[Row]", known.get("receivers", []))
    print_table(
        ("receiver", "kind", "to"), [(row["name"], row["kind"], row["to"]) for row in receivers], empty="no receivers"
    )
    rows = [
        (row["name"], _joined(row, "match", " ") or "everything else", _joined(row, "receivers", ", "))
        for row in cast("list[Row]", known.get("routes", []))
    ]
    print_table(("route", "alerts", "told"), rows, empty="no routes: alerts are kept and told to nobody")


def _joined(row: Row, column: str, between: str) -> str:
    return between.join(cast("list[str]", row[column]))


def check(
    file: Annotated[pathlib.Path, typer.Argument(help="A file of routes.")],
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Read a file of routes as the controller would, and tell every fault with its line; asks no platform.

    Example: forestay alert check alerts.yaml
    """
    from forestay.alerts.rules_file import faults_of, load_routing, unused

    try:
        routing = load_routing(str(file))
    except UsageError as error:
        faults = faults_of(error)
        if json:
            print_json({"file": str(file), "faults": faults})
            raise typer.Exit(2) from None
        for fault in faults:
            say(fault, err=True)
        raise typer.Exit(2) from None
    idle = unused(routing)
    if json:
        print_json({"file": str(file), "faults": [], "unused": idle, **routing.shown()})
        return
    say(f"{file} is good: {len(routing.receivers)} receivers, {len(routing.rules.routes)} routes")
    for name in idle:
        say(f"no route names the receiver {name}")


def send_test(
    receiver: Annotated[list[str] | None, typer.Option(help="Only this receiver; repeatable.")] = None,
    wait: Annotated[float, typer.Option(min=0.0, max=600.0, help="Seconds to wait for answers.")] = 30.0,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Send a test notification to every receiver and say what each answered; exits 1 unless all took it.

    Example: forestay alert test
    """
    platform = connect()
    sent = cast("Row", platform.post("/admin/alerts/test", {"receivers": receiver or []}))
    asked = [str(item["notification_id"]) for item in cast("list[Row]", sent["sent"])]
    if not asked:
        raise UsageError("FORESTAY_ALERT_ROUTES", "names no receiver, so there is nobody to tell")
    rows = _outcomes(platform, asked, wait)
    heard = all(row["state"] == "delivered" for row in rows)
    if json:
        print_json([{key: value for key, value in row.items() if key != "body"} for row in rows])
    else:
        words = {"delivered": "took it", "dead": "given up", "pending": "has not taken it yet"}
        shown = [(row["receiver"], words[str(row["state"])], row["tries"], row["last_error"]) for row in rows]
        print_table(("receiver", "what happened", "tries", "last answer"), shown)
    if not heard:
        raise typer.Exit(1)


def _outcomes(platform: PlatformClient, asked: list[str], wait_seconds: float) -> list[Row]:
    """Ask until every receiver has taken it or was given up, at most so long."""
    clock = SystemClock()
    until = clock.monotonic() + wait_seconds
    while True:
        found = cast("dict[str, list[Row]]", platform.get("/admin/alerts/notifications", {"ids": ",".join(asked)}))
        rows = found["notifications"]
        if all(row["state"] != "pending" for row in rows) or clock.monotonic() >= until:
            return rows
        clock.block(_LOOK_SECONDS)
