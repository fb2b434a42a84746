"""`forestay quality fingerprint`: what the outputs of a request, or of a model, were made with."""

from typing import Annotated, cast

import typer

from forestay.cli.client import connect
from forestay.cli.output import JSON_OPTION, print_json, print_table

Row = dict[str, object]


def fingerprint(
    of: Annotated[str, typer.Argument(help="A request id, or a model `owner/alias`.")],
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Show with which weights, settings, precision, adapters, libraries and device outputs were made.

    Example: forestay quality fingerprint forestay/digits
    """
    query = {"model": of} if "/" in of else {"request": of}
    rows = cast("list[Row]", cast("Row", connect().get("/admin/quality/fingerprints", query))["fingerprints"])
    if json:
        print_json(rows)
        return
    columns = ("fingerprint", "revision", "worker", "last seen", "made with")
    shown = [(row["fingerprint"], row["revision_id"], row["worker_id"], row["last_at"], _words(row)) for row in rows]
    print_table(columns, shown, empty="no pipeline of this model was watched yet")


def _words(row: Row) -> str:
    """Return a fingerprint in one line: calls, parts with digests of weights, and where it ran."""
    described = cast("Row", row["described"])
    calls = cast("list[Row]", described.get("calls") or [])
    parts: list[str] = []
    for call in calls[:1]:
        adapters = cast("Row", call.get("adapters") or {})
        parts += [f"{call['pipeline']} {call['dtype']}", f"{call['scheduler']} {call['scheduler_digest']}"]
        parts += [f"adapter {name}" for name in adapters]
    for pipeline in cast("list[Row]", described.get("pipelines") or []):
        for name, part in cast("dict[str, Row]", pipeline.get("parts") or {}).items():
            if part.get("weights"):
                parts.append(f"{name} {part['weights']}")
    return "; ".join([*parts, str(described.get("environment") or "")]).strip("; ")
