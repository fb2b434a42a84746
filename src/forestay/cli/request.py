"""`forestay request`: show, list and cancel requests, and print their results."""

import sys
from typing import Annotated, cast

import typer

from forestay.cli.client import Rejected, connect
from forestay.cli.output import JSON_OPTION, print_json, print_table, say
from forestay.errors import UsageError
from forestay.ids import parse_request_id

app = typer.Typer(no_args_is_help=True, help="Show, list and cancel requests.")
_ID = typer.Argument(help="The request's id.")


@app.command()
def show(request_id: Annotated[str, _ID], json: Annotated[bool, JSON_OPTION] = False) -> None:
    """Show where a request stands, its attempts and what its model wrote; a direct call as its fact tells it.

    Example: forestay request show 01980f5e-7c1a-7000-8000-0123456789ab
    """
    found = cast("dict[str, object]", connect().get(f"/admin/requests/{_checked(request_id)}"))
    if json:
        print_json(found)
        return
    where = f" on {found['replica_id']}" if found["replica_id"] else ""
    say(f"{found['request_id']}: {found['state']}, attempt {found['attempt']}{where}")
    say(f"{found['model_id']}{found['endpoint']} for {found['tenant_id']}, submitted {found['submitted_at']}")
    if found["error"]:
        say(f"error: {found['error']} ({found['error_type'] or 'no type'})")
    if found["lane"] != "queue":
        ran = f"revision {found['revision_id']} on {found['worker_id']}, from {found['started_at']}"
        say(f"{found['lane']}: {found['outcome']} ({found['status_code']}), until {found['finished_at']}")
        say(ran if found["started_at"] else "it never reached a replica")
        say("what its model wrote is not kept of such a call; send it through the queue to read it")
        return
    attempts = cast("list[dict[str, object]]", found["attempts"])
    columns = ("attempt", "outcome", "replica_id", "leased_at", "started_at", "finished_at", "device_seconds")
    print_table(columns, [[item[column] for column in columns] for item in attempts], empty="no attempts recorded yet")
    for line in cast("list[dict[str, object]]", found["logs"]):
        say(f"{line['at']} {line['level']}: {line['message']}")


@app.command(name="list")
def list_requests(
    model: Annotated[str, typer.Option(help="Only this model, owner/alias.")] = "",
    state: Annotated[list[str] | None, typer.Option(help="Only in this state; repeatable.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Only with this tag, key=value; repeatable.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="At most so many.")] = 50,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """List requests, newest first.

    Example: forestay request list --model forestay/digits --state failed --tag team=ads
    """
    query = {"limit": str(limit), "model": model, "state": ",".join(state or []), "tag": ",".join(tag or [])}
    asked = {name: value for name, value in query.items() if value}
    requests = cast("dict[str, list[dict[str, object]]]", connect().get("/admin/requests", asked))["requests"]
    if json:
        print_json(requests)
        return
    columns = ("request_id", "model_id", "endpoint", "state", "attempt", "submitted_at", "error")
    print_table(columns, [[item[column] for column in columns] for item in requests], empty="no requests")


@app.command()
def trace(request_id: Annotated[str, _ID], json: Annotated[bool, JSON_OPTION] = False) -> None:
    """Draw where a request's time went: queue, inputs, model, checks, store, webhook.

    Example: forestay request trace 01980f5e-7c1a-7000-8000-0123456789ab
    """
    import msgspec
    from rich.console import Console

    from forestay.telemetry.spans import Span
    from forestay.telemetry.waterfall import render_waterfall

    found = cast("dict[str, object]", connect().get(f"/admin/requests/{_checked(request_id)}/trace"))
    if json:
        print_json(found)
        return
    spans = msgspec.convert(found["spans"], list[Span])
    ended = "" if found["ended"] else ", not ended or not written yet"
    say(f"trace {spans[0].trace_id}{ended}")
    for line in render_waterfall(spans, Console().width):
        say(line)


@app.command()
def cancel(request_id: Annotated[str, _ID], json: Annotated[bool, JSON_OPTION] = False) -> None:
    """Cancel a request in whatever state.

    Example: forestay request cancel 01980f5e-7c1a-7000-8000-0123456789ab
    """
    done = cast("dict[str, object]", connect().post(f"/admin/requests/{_checked(request_id)}/cancel"))
    if json:
        print_json(done)
        return
    say(f"{done['request_id']} is cancelled (it was {done['state_before']})")


@app.command()
def result(request_id: Annotated[str, _ID], json: Annotated[bool, JSON_OPTION] = False) -> None:  # noqa: ARG001 - it is what the model answered
    """Print the answer of a finished queued request as its model gave it; those of synchronous calls are not stored.

    Example: forestay request result 01980f5e-7c1a-7000-8000-0123456789ab
    """
    path = f"/admin/requests/{_checked(request_id)}/result"
    reply = connect().send("GET", path)
    if reply.status != 200:
        detail = cast("dict[str, object]", reply.json()).get("detail")
        raise Rejected(f"{detail} (HTTP {reply.status} from GET {path})", status=reply.status, detail=detail)
    if sys.stdout.isatty():
        say(reply.body.decode("utf-8", "replace"))
    else:
        sys.stdout.buffer.write(reply.body + b"\n")
    if int(reply.headers.get("x-forestay-status", "200")) >= 400:
        raise typer.Exit(1)


def _checked(text: str) -> str:
    found = parse_request_id(text)
    if found is None:
        raise UsageError("request_id", f"{text!r} is not a request id such as 01980f5e-7c1a-7000-8000-0123456789ab")
    return str(found)
