"""`forestay slo adjust|give-back|adjustments|withdraw|decisions`: what is left out of budgets, and what they demand."""

import datetime as dt
import urllib.parse
from typing import Annotated, cast

import typer

from forestay.cli.client import connect
from forestay.cli.output import JSON_OPTION, print_json, print_table, say
from forestay.errors import UsageError

_REASON = typer.Option("--reason", help="Why; the audit log keeps it, and reports say it.")
_OF = typer.Option("--slo", help="Of this SLO only.")
Row = dict[str, object]


def register(app: typer.Typer) -> None:
    """Add these commands to `forestay slo`."""
    app.command()(adjust)
    app.command(name="give-back")(give_back)
    app.command()(adjustments)
    app.command()(withdraw)
    app.command()(decisions)


def adjust(
    slo: Annotated[str, typer.Argument(help="An SLO's id.")],
    first: Annotated[
        str, typer.Option("--from", help="Begin, such as 2026-11-25T14:00; UTC unless it says otherwise.")
    ],
    until: Annotated[str, typer.Option("--until", help="End.")],
    reason: Annotated[str, _REASON],
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Take a stretch of time out of an SLO's error budget: what happened in it counts as neither good nor bad.

    Example: forestay slo adjust digits-up --from 2026-11-25T14:00 --until 2026-11-25T15:00 --reason "planned work"
    """
    body = {"first": _moment("--from", first), "until": _moment("--until", until), "reason": reason}
    done = cast("Row", connect().post(f"/admin/slos/{urllib.parse.quote(slo, safe='')}/adjustments", body))
    if json:
        print_json(done)
    else:
        say(f"adjustment {done['number']}: {done['minutes']} minutes are out of the budget of {done['slo_id']}")


def give_back(
    slo: Annotated[str, typer.Argument(help="An SLO's id.")],
    events: Annotated[int, typer.Argument(min=1, help="How many bad events (requests; of a time-slice SLO slices).")],
    reason: Annotated[str, _REASON],
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Give bad events back to an SLO's error budget: so many of those of its window count no more.

    Example: forestay slo give-back digits-up 200 --reason "a customer's load test, agreed afterwards"
    """
    body = {"events": events, "reason": reason}
    done = cast("Row", connect().post(f"/admin/slos/{urllib.parse.quote(slo, safe='')}/give-backs", body))
    if json:
        print_json(done)
    else:
        say(f"adjustment {done['number']}: {events:,} bad events are given back to {done['slo_id']}")


def adjustments(slo: Annotated[str, _OF] = "", json: Annotated[bool, JSON_OPTION] = False) -> None:
    """List what was taken out of error budgets, by whom and why; withdrawn ones too.

    Example: forestay slo adjustments --slo digits-up
    """
    found = _listed("/admin/slo-adjustments", slo)["adjustments"]
    if json:
        print_json(found)
        return
    rows = [
        (
            row["number"],
            row["slo_id"],
            _utc(row["first_minute"]),
            _utc(row["until_minute"]),
            row["forgiven"] or "",
            row["by"],
            row["reason"],
            row["withdrawn_by"] or "",
        )
        for row in found
    ]
    print_table(
        ("number", "slo", "from", "until", "given back", "by", "reason", "withdrawn by"),
        rows,
        empty="nothing was adjusted",
    )


def withdraw(
    number: Annotated[int, typer.Argument(help="The adjustment's number.")],
    reason: Annotated[str, _REASON],
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Put the minutes of an adjustment back into the budget.

    Example: forestay slo withdraw 3 --reason "the work was not planned"
    """
    done = cast("Row", connect().post(f"/admin/slo-adjustments/{number}/withdraw", {"reason": reason}))
    if json:
        print_json(done)
    else:
        say(f"adjustment {number} is withdrawn: what it left out counts for {done['slo_id']} again")


def decisions(slo: Annotated[str, _OF] = "", json: Annotated[bool, JSON_OPTION] = False) -> None:
    """List what error budgets demanded of rollouts, newest first: since when and why.

    Example: forestay slo decisions
    """
    found = _listed("/admin/slo-decisions", slo)["decisions"]
    if json:
        print_json(found)
        return
    rows = [(_utc(row["minute"]), row["slo_id"], row["subject"], row["action"], row["reason"]) for row in found]
    print_table(("since", "slo", "subject", "demands", "reason"), rows, empty="no budget demands anything")


def _listed(path: str, slo: str) -> dict[str, list[Row]]:
    return cast("dict[str, list[Row]]", connect().get(path, {"slo": slo} if slo else None))


def _moment(option: str, text: str) -> str:
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(option, f"{text!r} is no time such as 2026-11-25T14:00") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).isoformat()


def _utc(minute: object) -> str:
    return f"{dt.datetime.fromtimestamp(cast('int', minute) * 60, dt.UTC):%Y-%m-%d %H:%M} UTC"
