"""`forestay safety review ...`, `appeal` and `appeals`: what the guard stopped, looked at again by people."""

import pathlib
import urllib.parse
from typing import Annotated, cast

import typer

from forestay.cli.client import connect
from forestay.cli.output import JSON_OPTION, print_json, print_table, say
from forestay.cli.safety_policy import ruled_words
from forestay.safety.records import Point
from forestay.safety.review.model import Ballot
from forestay.safety.taxonomy import Category

app = typer.Typer(no_args_is_help=True, help="Look again at what was stopped: claim, read, vote; who read what.")
Row = dict[str, object]
_ITEM = typer.Argument(help="The item (rev_...), or the request that was stopped.")
_REASON = typer.Option(help="Why; kept with the item and in the audit log.")
_COLUMNS = ("item_id", "state", "point", "verdict", "category", "model_id", "opened_at", "appealed_at", "outcome")


def register(parent: typer.Typer) -> None:
    """Add these commands to `forestay safety`."""
    parent.add_typer(app, name="review")
    parent.command(name="appeal")(appeal)
    parent.command(name="appeals")(appeals)


@app.command(name="list")
def list_items(
    state: Annotated[str, typer.Option(help="waiting, open, claimed, escalated, decided, or all.")] = "waiting",
    point: Annotated[Point | None, typer.Option(help="Inputs or outputs only.")] = None,
    model: Annotated[str, typer.Option(help="Of this model only.")] = "",
    tenant: Annotated[str, typer.Option(help="Of this tenant only.")] = "",
    category: Annotated[Category | None, typer.Option(help="Of this category only.")] = None,
    appealed: Annotated[bool, typer.Option("--appealed", help="Only what its caller has appealed.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many.")] = 50,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """List items, the oldest first.

    Example: forestay safety review list --appealed
    """
    asked = {
        "state": "" if state == "all" else state,
        "point": "" if point is None else point.value,
        "model": model,
        "tenant": tenant,
        "category": "" if category is None else category.value,
        "appealed": "1" if appealed else "",
        "limit": str(limit),
    }
    query = {name: value for name, value in asked.items() if value}
    rows = cast("dict[str, list[Row]]", connect().get("/admin/safety/review", query))["items"]
    if json:
        print_json(rows)
        return
    print_table(_COLUMNS, [[row[column] for column in _COLUMNS] for row in rows], empty="nothing waits")


@app.command()
def show(
    item: Annotated[str, _ITEM],
    content: Annotated[bool, typer.Option("--content", help="Read the sealed text too; needs --reason.")] = False,
    reason: Annotated[str, typer.Option(help="Why you read the content; kept in the access log.")] = "",
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Show an item with its votes; its content only on demand, and on record.

    Example: forestay safety review show rev_9f86d081884c7d659a2feaa0 --content --reason "an appeal"
    """
    client = connect()
    shown = cast("Row", client.get(_path(item)))
    if content:
        shown["content"] = client.get(f"{_path(item)}/content", {"reason": reason})
    if json:
        print_json(shown)
        return
    for name, value in shown.items():
        if name != "votes" and value is not None:
            say(f"{name}: {value}")
    columns = ("round", "voter", "vote", "reason", "at")
    votes = cast("list[Row]", shown["votes"])
    print_table(columns, [[row[column] for column in columns] for row in votes], empty="no votes yet")


@app.command()
def claim(item: Annotated[str, _ITEM], json: Annotated[bool, JSON_OPTION] = False) -> None:
    """Keep an item for yourself for a while, so that nobody else has to look at it too.

    Example: forestay safety review claim rev_9f86d081884c7d659a2feaa0
    """
    done = cast("Row", connect().post(f"{_path(item)}/claim", {}))
    print_json(done) if json else say(f"{done['item_id']} is yours until {done['claimed_until']}")


@app.command()
def vote(
    item: Annotated[str, _ITEM],
    ballot: Annotated[Ballot, typer.Argument(help="release, block or escalate.")],
    reason: Annotated[str, _REASON],
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Say what you have found. What was blocked takes two people, each signed in, to be released.

    Example: forestay safety review vote rev_9f86d081884c7d659a2feaa0 release --reason "a film title"
    """
    done = cast("Row", connect().post(f"{_path(item)}/vote", {"vote": ballot.value, "reason": reason}))
    if json:
        print_json(done)
    elif done["state"] == "escalated":
        say(f"{done['item_id']} is escalated: two people must release it")
    else:
        say(ruled_words({**done, "state": ""}))


@app.command()
def media(
    item: Annotated[str, _ITEM],
    out: Annotated[pathlib.Path, typer.Argument(help="Where the file is written.")],
    reason: Annotated[str, typer.Option(help="Why you look at it; kept in the access log.")],
    number: Annotated[int, typer.Option(min=0, help="Which of the output's files, from 0.")] = 0,
    clear: Annotated[bool, typer.Option("--clear", help="As it is, not blurred.")] = False,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Look at a file of a stopped output: blurred, unless you ask for it clear.

    Example: forestay safety review media rev_9f86d081884c7d659a2feaa0 seen.jpg --reason "an appeal"
    """
    asked = {"reason": reason} | ({"clear": "1"} if clear else {})
    seen = connect().get_bytes(f"{_path(item)}/media/{number}", asked)
    out.write_bytes(seen)
    if json:
        print_json({"file": str(out), "bytes": len(seen), "blurred": not clear})
        return
    say(f"{out}: {len(seen):,} bytes, {'clear' if clear else 'blurred'}")


@app.command()
def access(
    item: Annotated[str, typer.Argument(help="Of one item or request only; empty: all.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many.")] = 50,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """List who read sealed content, how and why, newest first.

    Example: forestay safety review access rev_9f86d081884c7d659a2feaa0
    """
    query = {"limit": str(limit)} | ({"item": item} if item else {})
    rows = cast("dict[str, list[Row]]", connect().get("/admin/safety/review/access", query))["readings"]
    columns = ("at", "actor", "how", "item_id", "reason")
    print_json(rows) if json else print_table(
        columns, [[row[column] for column in columns] for row in rows], empty="nobody has read anything"
    )


@app.command()
def stats(json: Annotated[bool, JSON_OPTION] = False) -> None:
    """Show what waits, how old it is, how long decisions take and how many overturn the guard.

    Example: forestay safety review stats
    """
    shown = cast("Row", connect().get("/admin/safety/review/stats"))
    if json:
        print_json(shown)
        return
    for name, value in shown.items():
        say(f"{name}: {'-' if value is None else value}")


@app.command()
def events(
    state: Annotated[str, typer.Option(help="dead, pending or delivered.")] = "dead",
    retry: Annotated[str, typer.Option(help="Tell this dead event anew.")] = "",
    reason: Annotated[str, typer.Option(help="Why you tell it anew; kept in the audit log.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many.")] = 50,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """List what could not be told to FORESTAY_REVIEW_URL, or tell one of them anew.

    Example: forestay safety review events --state dead
    """
    client = connect()
    if retry:
        path = f"/admin/safety/review/events/{urllib.parse.quote(retry, safe='')}/retry"
        done = cast("Row", client.post(path, {"reason": reason}))
        print_json(done) if json else say(f"{done['event_id']} will be told anew")
        return
    query = {"state": state, "limit": str(limit)}
    rows = cast("dict[str, list[Row]]", client.get("/admin/safety/review/events", query))["events"]
    columns = ("event_id", "item_id", "state", "tries", "due_at", "last_status", "last_error")
    print_json(rows) if json else print_table(
        columns, [[row[column] for column in columns] for row in rows], empty="no such events"
    )


def appeal(
    request_id: Annotated[str, typer.Argument(help="A request of your own that was blocked.")],
    reason: Annotated[str, typer.Option(help="Why it should not have been; people read it.")],
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Appeal a blocked request with the key that made it, or an ADMIN key of its tenant. Once a request.

    Example: forestay safety appeal 0199d0c2-1111-7000-8000-000000000000 --reason "it is the title of a film"
    """
    path = f"/appeals/{urllib.parse.quote(request_id, safe='')}"
    made = cast("Row", connect().post(path, {"reason": reason}))
    print_json(made) if json else say(f"appealed; people will look at it: forestay safety appeals {made['request_id']}")


def appeals(
    request_id: Annotated[str, typer.Argument(help="One request; empty: all of your own.")] = "",
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Show your own appeals, and the requests that successful ones have made.

    Example: forestay safety appeals
    """
    client = connect()
    if request_id:
        rows = [cast("Row", client.get(f"/appeals/{urllib.parse.quote(request_id, safe='')}"))]
    else:
        rows = cast("dict[str, list[Row]]", client.get("/appeals"))["appeals"]
    columns = ("request_id", "state", "outcome", "made_at", "decided_at", "linked_request_id")
    print_json(rows) if json else print_table(
        columns, [[row[column] for column in columns] for row in rows], empty="no appeals"
    )


def _path(item: str) -> str:
    return f"/admin/safety/review/{urllib.parse.quote(item, safe='')}"
