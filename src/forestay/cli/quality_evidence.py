"""`forestay quality evidence`: the sealed sample of outputs that shows what was found wrong."""

import mimetypes
import pathlib
import urllib.parse
from typing import Annotated, cast

import typer

from forestay.cli.client import connect
from forestay.cli.output import JSON_OPTION, print_json, print_table, say
from forestay.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="See the outputs that a finding is about.")
Row = dict[str, object]


@app.command()
def show(
    finding: Annotated[str, typer.Argument(help="A finding's id.")],
    out: Annotated[pathlib.Path | None, typer.Option("--out", help="Write the copies into this folder.")] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why, for the audit log; with --out.")] = "",
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """List what was sealed for a finding; with --out open it, which is noted in the audit log, copy by copy.

    Example: forestay quality evidence show 0c322a6e9c100d05 --out seen --reason "black pictures of w2"
    """
    where = f"/admin/quality/findings/{urllib.parse.quote(finding, safe='')}/evidence"
    client = connect()
    found = cast("Row", client.get(where))
    copies = cast("list[Row]", found["copies"])
    written: list[str] = []
    if out is not None:
        if not reason.strip():
            raise UsageError("--reason", "say why you look: it is noted with your name for each copy")
        out.mkdir(parents=True, exist_ok=True)
        for number, copy in enumerate(copies):
            path = out / _name(number, copy)
            path.write_bytes(client.get_bytes(f"{where}/{number}", {"reason": reason}))
            path.chmod(0o600)
            written.append(str(path))
    if json:
        print_json({**found, "written": written})
        return
    rows = [(row["request_id"], row["replica_id"], row["what"], row["size_bytes"]) for row in copies]
    print_table(("request", "replica", "what", "bytes"), rows, empty=str(found["words"]))
    if written:
        say(f"{len(written)} copies are in {out}; each reading is noted in the audit log")


def _name(number: int, copy: Row) -> str:
    kind = str(copy["what"])
    ending = ".json" if kind == "input" else mimetypes.guess_extension(kind) or ".bin"
    return f"{number:02}-{copy['request_id']}{ending}"
