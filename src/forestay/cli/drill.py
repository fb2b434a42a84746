"""`forestay drill`: put a fault into one worker or one revision on purpose, for a while, and see it found."""

import urllib.parse
from typing import Annotated, cast

import typer

from forestay.cli.client import connect
from forestay.cli.durations import seconds_of
from forestay.cli.output import JSON_OPTION, print_json, print_table, say

app = typer.Typer(no_args_is_help=True, help="Put faults in on purpose, for a while, and see them found.")
Row = dict[str, object]
_REASON = typer.Option("--reason", help="Why, for the audit log.")


@app.command()
def faults(json: Annotated[bool, JSON_OPTION] = False) -> None:
    """List the faults that can be put in, with their rows of the catalogue of failures.

    Example: forestay drill faults
    """
    rows = cast("list[Row]", cast("Row", connect().get("/admin/drills/faults"))["faults"])
    if json:
        print_json(rows)
        return
    print_table(
        ("fault", "row", "what it is a case of"), [(r["fault"], r["row"], r["failure"]) for r in rows], empty=""
    )


@app.command()
def start(
    fault: Annotated[str, typer.Argument(help="A fault's name, in quotes or with dashes.")],
    model: Annotated[str, typer.Option("--model", help="The model, `owner/alias`.")],
    reason: Annotated[str, _REASON],
    worker: Annotated[str, typer.Option("--worker", help="Only on this worker.")] = "",
    revision: Annotated[str, typer.Option("--revision", help="Only in this revision.")] = "",
    lasting: Annotated[str, typer.Option("--for", help="How long, at most 1h; it ends by itself.")] = "5m",
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Put a fault in. Workers take part only where their operator has set FORESTAY_DRILLS.

    Example: forestay drill start clip-is-frozen --model forestay/digits-motion --worker worker-2 --reason "game day"
    """
    said = connect().post(
        "/admin/drills",
        {
            "fault": fault,
            "model_id": model,
            "worker_id": worker,
            "revision_id": revision,
            "seconds": seconds_of("--for", lasting),
            "reason": reason,
        },
    )
    if json:
        print_json(said)
        return
    row = cast("Row", said)
    say(f"{row['drill_id']}: {row['fault']}, until {row['ends_at']}; `forestay drill list` shows where")


@app.command("list")
def list_drills(json: Annotated[bool, JSON_OPTION] = False) -> None:
    """List the drills of the last day, and in which replicas each is in force.

    Example: forestay drill list
    """
    rows = cast("list[Row]", cast("Row", connect().get("/admin/drills"))["drills"])
    if json:
        print_json(rows)
        return
    columns = ("drill", "fault", "model", "on", "ends", "replicas")
    shown = [
        (row["drill_id"], row["fault"], row["model_id"], row["worker_id"] or row["revision_id"],
         row["ends_at"] if row["running"] else "over", _places(row))
        for row in rows
    ]  # fmt: skip
    print_table(columns, shown, empty="no drill within a day")


@app.command()
def stop(
    drill: Annotated[str, typer.Argument(help="A drill's id.")],
    reason: Annotated[str, _REASON],
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Take a fault out before its time.

    Example: forestay drill stop drill-0c322a6e9c10 --reason "seen enough"
    """
    said = connect().post(f"/admin/drills/{urllib.parse.quote(drill, safe='')}/stop", {"reason": reason})
    if json:
        print_json(said)
        return
    say(f"{drill} is stopped; the fault is out within a second or two")


def _places(row: Row) -> str:
    said = cast("dict[str, str]", row["replicas"])
    found = ", ".join(f"{replica}: {words}" for replica, words in said.items())
    return found or ("none yet; is FORESTAY_DRILLS set where the worker runs?" if row["running"] else "none")
