"""`forestay safety report`: cases that the law asks to report, their proof of delivery, and those that wait for you."""

import urllib.parse
from typing import Annotated, cast

import typer

from forestay.cli.client import connect
from forestay.cli.output import JSON_OPTION, print_json, print_table, say
from forestay.safety.hashes.report import CaseState

app = typer.Typer(no_args_is_help=True, help="Read cases that the law asks to report; tell an undelivered one anew.")
Row = dict[str, object]
_COLUMNS = ("case_id", "state", "category", "bank_id", "distance", "request_id", "tries", "problem")


def register(parent: typer.Typer) -> None:
    """Add these commands to `forestay safety`."""
    parent.add_typer(app, name="report")


@app.command(name="list")
def list_cases(
    state: Annotated[CaseState | None, typer.Option(help="Only cases of this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="At most so many.")] = 50,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """List cases, newest first; with --json also the proof of delivery.

    Example: forestay safety report list --state undelivered
    """
    asked = {"limit": str(limit)} | ({} if state is None else {"state": state.value})
    rows = cast("dict[str, list[Row]]", connect().get("/admin/safety/reports", asked))["cases"]
    if json:
        print_json(rows)
        return
    print_table(_COLUMNS, [[row[column] for column in _COLUMNS] for row in rows], empty="no cases")


@app.command()
def retry(
    case_id: Annotated[str, typer.Argument(help="The case, case_ and 24 hex digits.")],
    reason: Annotated[str, typer.Option(help="Why; kept in the audit log.")],
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Tell the receiver of an undelivered case anew.

    Example: forestay safety report retry case_9f86d081884c7d659a2feaa0 --reason "their hook is back"
    """
    path = f"/admin/safety/reports/{urllib.parse.quote(case_id, safe='')}/retry"
    done = cast("Row", connect().post(path, {"reason": reason}))
    print_json(done) if json else say(f"{case_id} will be told anew")
