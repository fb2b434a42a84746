"""`forestay safety made-by-us`: whether a file was made here, and by which layer that is known."""

import pathlib
from typing import Annotated, cast

import typer

from forestay.cli.client import Rejected, connect
from forestay.cli.output import JSON_OPTION, print_json, say
from forestay.errors import UsageError

Row = dict[str, object]
_SECONDS = 120.0


def register(app: typer.Typer) -> None:
    """Add this command to `forestay safety`."""
    app.command(name="made-by-us")(made_by_us)


def made_by_us(
    file: Annotated[pathlib.Path, typer.Argument(help="A picture, film or recording; the platform looks at it.")],
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Tell whether this platform made a file: by signed manifest, watermark and fingerprint, each with its strength.

    Exit 0 whether it did or not.

    Example: forestay safety made-by-us picture.png
    """
    found = _ask(file)
    if json:
        print_json(found)
        return
    evidence = cast("list[Row]", found["evidence"])
    say(_headline(evidence))
    for item in evidence:
        say(f"{item['layer']}, {item['strength']}: {item['told']}")
        made = cast("Row | None", item["made"])
        if made:
            say(
                f"  request {made['request_id']}, model {made['model_id']}, revision {made['revision_id']}, "
                f"{made['made_at']}"
            )
    for note in cast("list[str]", found["notes"]):
        say(f"note: {note}")


def _headline(evidence: list[Row]) -> str:
    """Say no more than the strongest layer shows."""
    found = {str(item["strength"]) for item in evidence}
    if found & {"proof", "strong"}:
        return "made by us"
    if "likely" in found:
        return "likely made by us: it looks like something that we released"
    if found:
        return "possibly made by us: it is somewhat like something that we released"
    return "nothing here shows that we made it (which does not show that we did not)"


def _ask(file: pathlib.Path) -> Row:
    client = connect()
    try:
        with file.open("rb") as body:
            reply = client.send(
                "POST",
                "/admin/safety/made-by-us",
                body=body,
                headers={"content-type": "application/octet-stream", "content-length": str(file.stat().st_size)},
                timeout_seconds=_SECONDS,
            )
    except FileNotFoundError:
        raise UsageError("FILE", f"{file} is not there") from None
    found = cast("Row", reply.json())
    if reply.status != 200:
        raise Rejected(f"{found.get('detail', found)} (HTTP {reply.status})", status=reply.status, detail=found)
    return found
