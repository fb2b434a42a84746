"""`forestay quality canary`: play golden canaries, show what is golden, approve what a revision draws instead."""

import pathlib
from typing import Annotated, cast

import typer

from forestay.cli.canary_sheet import render_sheet
from forestay.cli.client import PlatformClient, connect
from forestay.cli.output import JSON_OPTION, print_json, print_table, say
from forestay.clock import SystemClock
from forestay.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="Inputs whose outputs are known, replayed on every replica.")
Row = dict[str, object]
_MODEL = typer.Argument(help="A model, `owner/alias`.")
_SHEET = typer.Option("--sheet", help="Write golden and new pictures side by side to this HTML file.")
_LOOK_SECONDS = 0.5


@app.command()
def run(
    model: Annotated[str, _MODEL],
    revision: Annotated[str, typer.Option("--revision", help="Only replicas of this revision.")] = "",
    reason: Annotated[str, typer.Option("--reason", help="Why, for the audit log.")] = "asked by hand",
    wait: Annotated[float, typer.Option("--wait", help="Seconds to wait for the rounds; 0: do not wait.")] = 120.0,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Play the canaries on every ready replica now; exit 1 when one differs, or when rounds did not end in time.

    Example: forestay quality canary run forestay/digits --revision digits-2
    """
    if not 0 <= wait <= 3_600:
        raise UsageError("--wait", "must be from 0 to 3600 seconds")
    client = connect()
    body = {"model_id": model, "revision_id": revision, "reason": reason}
    asked = cast("Row", client.post("/admin/quality/canaries/run", body))
    missing, rounds = _awaited(client, model, asked, wait)
    if json:
        print_json({**asked, "rounds": rounds, "missing": missing})
    else:
        _print_rounds(rounds, "no round has ended yet")
        if missing:
            say(f"not played yet: {', '.join(missing)}")
    if (missing and wait) or any(row["ended"] == "failed" for row in rounds):
        raise typer.Exit(1)


@app.command()
def show(
    model: Annotated[str, _MODEL],
    revision: Annotated[str, typer.Option("--revision", help="Whose pictures the sheet shows.")] = "",
    sheet: Annotated[pathlib.Path | None, _SHEET] = None,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Show which goldens are learned, with their bands, and the newest rounds.

    Example: forestay quality canary show forestay/digits --sheet canaries.html
    """
    client = connect()
    told = cast("Row", client.get("/admin/quality/canaries", {"model": model}))
    if sheet is not None:
        _write_sheet(client, model, revision, sheet)
    if json:
        print_json(told)
        return
    goldens = cast("list[Row]", told["goldens"])
    columns = ("canary", "environment", "golden of", "state", "looks", "replicas", "band", "words")
    rows = [
        (
            row["canary"],
            row["environment"],
            row["revision_id"],
            row["state"],
            row["looks"],
            row["replicas"],
            "exact" if row["exact"] else f"{cast('float', row['band_levels']):.2f}",
            row["words"] or None,
        )
        for row in goldens
    ]
    print_table(columns, rows, empty="no canary has been played yet")
    say()
    _print_rounds(cast("list[Row]", told["rounds"]), "no round was played yet")


@app.command()
def approve(
    model: Annotated[str, _MODEL],
    revision: Annotated[str, typer.Option("--revision", help="The revision whose outputs are golden from now on.")],
    reason: Annotated[str, typer.Option("--reason", help="Why the change is wanted, for the audit log.")],
    sheet: Annotated[pathlib.Path | None, _SHEET] = None,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Take what a revision draws for golden; look at the sheet of `show --revision` before.

    Example: forestay quality canary approve forestay/digits --revision digits-2 --reason "the new sampler is wanted"
    """
    client = connect()
    if sheet is not None:
        _write_sheet(client, model, revision, sheet)
    body = {"model_id": model, "revision_id": revision, "reason": reason}
    told = cast("Row", client.post("/admin/quality/canaries/approve", body))
    if json:
        print_json(told)
        return
    goldens, closed = cast("list[Row]", told["goldens"]), cast("list[str]", told["closed_findings"])
    say(f"{len(goldens)} goldens of {revision} hold from now on; {len(closed)} findings are closed")


def _awaited(client: PlatformClient, model: str, asked: Row, wait: float) -> tuple[list[str], list[Row]]:
    """Return which replicas have not played since, and the rounds of those that have."""
    wanted = cast("list[str]", asked["replicas"])
    clock = SystemClock()
    deadline = clock.monotonic() + wait
    while True:
        told = cast("Row", client.get("/admin/quality/canaries", {"model": model, "limit": "200"}))
        newest: dict[str, Row] = {}
        for row in cast("list[Row]", told["rounds"]):
            if row["replica_id"] in wanted and str(row["began_at"]) >= str(asked["asked_at"]):
                newest.setdefault(str(row["replica_id"]), row)
        missing = [name for name in wanted if name not in newest]
        if not missing or clock.monotonic() >= deadline:
            return missing, [newest[name] for name in wanted if name in newest]
        clock.block(_LOOK_SECONDS)


def _write_sheet(client: PlatformClient, model: str, revision: str, path: pathlib.Path) -> None:
    query = {"model": model, **({"revision": revision} if revision else {})}
    page = render_sheet(cast("Row", client.get("/admin/quality/canaries/sheet", query)))
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UsageError("--sheet", f"{path} cannot be written: {error.strerror}") from None


def _print_rounds(rounds: list[Row], empty: str) -> None:
    columns = ("replica", "worker", "revision", "why", "began", "device s", "result", "words")
    rows = [
        (
            row["replica_id"],
            row["worker_id"],
            row["revision_id"],
            row["cause"],
            row["began_at"],
            f"{cast('float', row['device_seconds']):.2f}",
            row["ended"],
            row["words"],
        )
        for row in rounds
    ]
    print_table(columns, rows, empty=empty)
