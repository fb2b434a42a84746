"""`forestay alert`: what hurts users now, who was told, taking it in hand, silences."""

import urllib.parse
from typing import Annotated, cast

import typer

from forestay.cli import alert_notifications
from forestay.cli.client import connect
from forestay.cli.durations import seconds_of
from forestay.cli.output import JSON_OPTION, print_json, print_table, say
from forestay.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="Read alerts, take them in hand, silence them; try the ways to receivers.")
alert_notifications.register(app)
Row = dict[str, object]
_COLUMNS = ("alert_id", "severity", "subject", "summary", "opened_at", "standing")
_REASON = typer.Option(help="Why; kept in the audit log.")
_STATES = ("firing", "resolved", "all")


@app.command(name="list")
def list_alerts(
    state: Annotated[str, typer.Option(help="firing, resolved or all.")] = "firing",
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="At most so many.")] = 50,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """List alerts, newest first.

    Example: forestay alert list
    """
    if state not in _STATES:
        raise UsageError("--state", f"use one of {', '.join(_STATES)}")
    found = cast("Row", connect().get("/admin/alerts", {"state": state, "limit": str(limit)}))
    rows = cast("list[Row]", found["alerts"])
    if json:
        print_json(found)
        return
    if found["stale"]:
        say(f"alerts were last decided at {found['decided_at'] or 'no time'}: is a controller running?", err=True)
    shown = [[*(row[column] for column in _COLUMNS[:-1]), standing_of(row)] for row in rows]
    print_table(_COLUMNS, shown, empty="no alerts")


@app.command()
def show(
    alert_id: Annotated[str, typer.Argument(help="Its id, al_ and 16 hex digits.")],
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Show one alert: who is hurt, since when, who was told, and everything that was decided about it.

    Example: forestay alert show al_9f86d081884c7d65
    """
    found = cast("Row", connect().get(f"/admin/alerts/{_quoted(alert_id)}"))
    if json:
        print_json(found)
        return
    alert = cast("Row", found["alert"])
    say(f"{alert['alert_id']}: {alert['summary']}")
    say(f"{alert['severity']}, {alert['name']} of {alert['subject']}, seen by {alert['source']}")
    say(f"{alert['state']} since {alert['opened_at']}; {standing_of(alert)}")
    say(f"runbook: {alert['runbook']}")
    for name, value in cast("Row", alert["facts"]).items():
        say(f"fact: {name} = {value}")
    events = cast("list[Row]", found["events"])
    print_table(("at", "what", "reason"), [(item["at"], item["what"], item["reason"]) for item in events])


@app.command()
def ack(
    alert_id: Annotated[str, typer.Argument(help="The alert.")],
    reason: Annotated[str, _REASON],
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Take an alert in hand: no repeats and no escalation until it worsens or ends. Its end is told all the same.

    Example: forestay alert ack al_9f86d081884c7d65 --reason "looking at the judge"
    """
    done = connect().post(f"/admin/alerts/{_quoted(alert_id)}/ack", {"reason": reason})
    print_json(done) if json else say(f"{alert_id} is yours until it worsens or ends")


@app.command()
def silence(
    matchers: Annotated[list[str], typer.Argument(help="field=pattern or field!=pattern; all of them must hold.")],
    reason: Annotated[str, _REASON],
    lasting: Annotated[str, typer.Option("--for", help="How long: 90m, 24h, 7d.")] = "2h",
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Tell nobody of alerts that match, for a while. Ends of what was told before are told all the same.

    Fields are name, source, subject, owner, severity and labels; `*` stands for any text.

    Example: forestay alert silence "subject=model:acme/*" --for 2h --reason "moving to new GPUs"
    """
    asked = {"matchers": matchers, "for_seconds": seconds_of("--for", lasting), "reason": reason}
    made = cast("Row", connect().post("/admin/alerts/silences", asked))
    print_json(made) if json else say(f"silenced until {made['until']} ({made['silence_id']})")


@app.command()
def silences(
    ended: Annotated[bool, typer.Option("--ended", help="Those that are over too.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="At most so many.")] = 50,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """List silences, newest first.

    Example: forestay alert silences
    """
    query = {"limit": str(limit), **({"ended": "1"} if ended else {})}
    rows = cast("dict[str, list[Row]]", connect().get("/admin/alerts/silences", query))["silences"]
    if json:
        print_json(rows)
        return
    columns = ("silence_id", "matchers", "until", "by", "reason", "ended_at")
    shown = [
        [" ".join(cast("list[str]", row["matchers"])) if c == "matchers" else row[c] for c in columns] for row in rows
    ]
    print_table(columns, shown, empty="no silences")


@app.command()
def unsilence(
    silence_id: Annotated[str, typer.Argument(help="Its id, si_ and 16 hex digits.")],
    reason: Annotated[str, _REASON],
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """End a silence before its time: what still fires is told now.

    Example: forestay alert unsilence si_9f86d081884c7d65 --reason "done earlier"
    """
    done = connect().post(f"/admin/alerts/silences/{_quoted(silence_id)}/end", {"reason": reason})
    print_json(done) if json else say(f"silence {silence_id} is over")


def standing_of(alert: Row) -> str:
    """Return in a few words whether people know of an alert and have it in hand."""
    if alert["acknowledged"]:
        held = cast("Row", alert["ack"])
        return f"in hand: {held['by']}: {held['why']}"
    if alert["held_back"]:
        return f"told to nobody: {alert['held_back']}"
    told = cast("Row | None", alert["told"])
    return "not told yet" if told is None else f"told to {', '.join(cast('list[str]', told['to']))}"


def _quoted(text: str) -> str:
    return urllib.parse.quote(text, safe="")
