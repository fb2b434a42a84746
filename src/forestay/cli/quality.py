"""`forestay quality`: what was found wrong with outputs, where, with which numbers, and what is held back for it."""

import asyncio
import pathlib
import urllib.parse
from typing import Annotated, cast

import typer

from forestay.cli import quality_canary, quality_evidence, quality_fingerprint, quality_scorers
from forestay.cli.client import connect
from forestay.cli.output import JSON_OPTION, print_json, print_table, say
from forestay.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="Show what was found wrong with outputs; canaries, scorers, evidence.")
app.add_typer(quality_canary.app, name="canary")
app.add_typer(quality_scorers.app, name="scorers")
app.add_typer(quality_evidence.app, name="evidence")
app.command()(quality_fingerprint.fingerprint)
Row = dict[str, object]
_REASON = typer.Option("--reason", help="Why, for the audit log.")


@app.command()
def status(json: Annotated[bool, JSON_OPTION] = False) -> None:
    """Show what stands against outputs now, and which workers and replicas are held back.

    Example: forestay quality status
    """
    found, holds = _findings("", hours=1), _holds()
    if json:
        print_json({"findings": found, "holds": holds})
        return
    _print_findings(found, "nothing stands against any model")
    say()
    columns = ("held back", "revision", "since", "reason")
    rows = [(_held(row), row["revision_id"], row["held_at"], row["reason"]) for row in holds]
    print_table(columns, rows, empty="no worker is held back")


@app.command()
def findings(
    model: Annotated[str, typer.Argument(help="A model, `owner/alias`; empty: all.")] = "",
    hours: Annotated[int, typer.Option(help="How far back, in hours.")] = 24,
    closed: Annotated[bool, typer.Option("--closed", help="Those that are over, too.")] = False,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """List what was found, the newest first.

    Example: forestay quality findings forestay/digits --hours 48
    """
    found = _findings(model, hours=hours, closed=closed)
    if json:
        print_json(found)
        return
    _print_findings(found, "nothing was found")


@app.command()
def explain(
    model: Annotated[str, typer.Argument(help="A model, `owner/alias`.")],
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Say of a model what was found within a day: the sentence, the place, the numbers, and what became of it.

    Example: forestay quality explain forestay/digits
    """
    found = _findings(model, hours=24, closed=True)
    if json:
        print_json(found)
        return
    say("\n\n".join("\n".join(told(row)) for row in found) or f"nothing was found of {model} within a day")


@app.command()
def close(
    finding: Annotated[str, typer.Argument(help="A finding's id.")],
    reason: Annotated[str, _REASON],
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Note that a finding is over: its alert ends. Found again, it is told again.

    Example: forestay quality close 0c322a6e9c100d05 --reason "the new style is wanted"
    """
    said = connect().post(f"/admin/quality/findings/{urllib.parse.quote(finding, safe='')}/close", {"reason": reason})
    if json:
        print_json(said)
        return
    say(f"finding {finding} is closed")


@app.command()
def drain(
    replica: Annotated[str, typer.Argument(help="The replica's id, from `forestay fleet status`.")],
    reason: Annotated[str, _REASON],
    last: Annotated[bool, typer.Option("--last", help="Also where no other replica serves the model.")] = False,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Take a replica out: it ends what it runs, and its worker runs none in its place until you release it.

    Example: forestay quality drain digits-5f0c2b7a91de --reason "it draws stripes"
    """
    name = urllib.parse.quote(replica, safe="")
    said = cast("Row", connect().post(f"/admin/quality/replicas/{name}/drain", {"reason": reason, "last": last}))
    if json:
        print_json(said)
        return
    where = f"{said['worker_id']} {said['revision_id']}"
    say(f"{replica} is drained; `forestay quality release {where}` lets its worker run one again")


@app.command()
def release(
    worker: Annotated[str, typer.Argument(help="The worker that is held back.")],
    revision: Annotated[str, typer.Argument(help="The revision that it may run again.")],
    reason: Annotated[str, _REASON],
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Let a worker run a revision again without a self-test.

    Example: forestay quality release worker-2 forestay-digits-3 --reason "the device was replaced"
    """
    where = "/".join(urllib.parse.quote(part, safe="") for part in (worker, revision))
    said = connect().post(f"/admin/quality/holds/{where}/release", {"reason": reason})
    if json:
        print_json(said)
        return
    say(f"{worker} may run {revision} again")


@app.command()
def evaluate(
    files: Annotated[list[pathlib.Path], typer.Argument(help="Pictures, films and sounds.")],
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Take the numbers of files and hold them against the default contract; exit 1 when one is broken.

    Example: forestay quality evaluate out/*.png
    """
    from forestay.cli.quality_files import evaluated

    rows = asyncio.run(evaluated(files))
    if json:
        print_json(rows)
    else:
        shown = [(row["file"], row["kind"], row["failed"] or "whole", row["words"]) for row in rows]
        print_table(("file", "kind", "contract", "why"), shown, empty="no file")
    if any(row["failed"] for row in rows):
        raise typer.Exit(1)


def told(row: Row) -> list[str]:
    """Return a finding in sentences."""
    where = cast("Row", row["where"])
    place = ", ".join(f"{name.removesuffix('_id')} {value}" for name, value in where.items() if value)
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in cast("dict[str, float]", row["evidence"]).items())
    over = f"closed at {row['closed_at']}: {row['closed_for']}" if row["closed_at"] else "open"
    sealed = cast("Row | None", row.get("sealed"))
    catalogue = f"row {row['catalogue']}, {row['failure']}" if row["catalogue"] else "none that is known"
    return [
        f"{row['finding_id']} {row['what']}",
        f"  where: {place}",
        f"  failure: {catalogue}; found by {row['source']}, {row['times']} times, last at {row['last_at']}",
        f"  numbers: {numbers or 'none'}",
        *([f"  evidence: {_evidence_words(sealed, str(row['finding_id']))}"] if sealed is not None else []),
        f"  standing: {over}",
    ]


def _evidence_words(sealed: Row, finding_id: str) -> str:
    """Return what was sealed of the outputs, and how it is seen."""
    if not sealed["copies"]:
        return str(sealed["words"])
    how = f"forestay quality evidence show {finding_id} --out DIR --reason WHY"
    return f"{sealed['words']}, sealed at {sealed['opened_at']}; see `{how}`"


def _print_findings(found: list[Row], empty: str) -> None:
    columns = ("finding", "model", "where", "row", "found by", "since", "what")
    rows = [
        (
            row["finding_id"],
            cast("Row", row["where"])["model_id"],
            _place(cast("Row", row["where"])),
            row["catalogue"] or None,
            row["source"],
            row["since"],
            row["what"],
        )
        for row in found
    ]
    print_table(columns, rows, empty=empty)


def _held(hold: Row) -> str:
    return f"{hold['worker_id']}, {hold['replica_id']} alone" if hold["alone"] else str(hold["worker_id"])


def _place(where: Row) -> object:
    return where["replica_id"] or where["parameter"] or where["revision_id"]


def _findings(model: str, *, hours: int, closed: bool = False) -> list[Row]:
    if hours < 1:
        raise UsageError("--hours", "must be 1 or more")
    query = {"hours": str(hours), **({"model": model} if model else {}), **({"closed": "1"} if closed else {})}
    return cast("list[Row]", cast("Row", connect().get("/admin/quality/findings", query))["findings"])


def _holds() -> list[Row]:
    return cast("list[Row]", cast("Row", connect().get("/admin/quality/holds"))["holds"])
