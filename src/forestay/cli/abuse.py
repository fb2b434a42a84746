"""`forestay abuse`: standings of callers (read, set, lift, appeal, deny), why they stand so, other rules."""

import pathlib
import re
import urllib.parse
from typing import Annotated, cast

import typer

from forestay.cli import abuse_rules
from forestay.cli.client import connect
from forestay.cli.durations import seconds_of
from forestay.cli.output import JSON_OPTION, print_json, print_table, say
from forestay.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="Read standings of callers; set, lift and appeal them; judge by rules.")
app.add_typer(abuse_rules.app, name="rules")
Row = dict[str, object]
_COLUMNS = ("standing_id", "subject", "kind", "code", "rule", "origin", "since", "expires_at")
_KINDS = ("watch", "refer", "throttle", "step_up", "suspend")
_KEY_ID = re.compile(r"[0-9a-f]{16}")
MOST_SECONDS = 90 * 86_400
_REASON = typer.Option(help="Why; kept in the audit log.")


@app.command(name="list")
def list_standings(
    subject: Annotated[str, typer.Option(help="Only this subject, for example key:3f2a91c04b7d5e60.")] = "",
    ended: Annotated[bool, typer.Option("--ended", help="Those that are over too.")] = False,
    advised: Annotated[
        bool, typer.Option("--advised", help="What automation wanted and was not let do, instead.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="At most so many.")] = 50,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """List standings, newest first.

    Example: forestay abuse list
    """
    if advised:
        _list_advised(limit, json=json)
        return
    query = {"limit": str(limit), "subject": subject, "ended": "1" if ended else ""}
    asked = {name: value for name, value in query.items() if value}
    rows = cast("dict[str, list[Row]]", connect().get("/admin/abuse/standings", asked))["standings"]
    if json:
        print_json(rows)
        return
    shown = [[*(_standing(row)[column] for column in _COLUMNS), _how(row)] for row in rows]
    print_table((*_COLUMNS, "ended"), shown, empty="no standings")


@app.command()
def show(
    standing_id: Annotated[str, typer.Argument(help="Its id, st_ and 16 hex digits.")],
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Show one standing with its reason, its evidence and the appeals against it.

    Example: forestay abuse show st_9f86d081884c7d65
    """
    found = cast("Row", connect().get(f"/admin/abuse/standings/{_quoted(standing_id)}"))
    if json:
        print_json(found)
        return
    standing = _standing(found)
    say(f"{standing['standing_id']}: {standing['subject']} {standing['kind']} ({standing['code']})")
    say(f"set by {standing['origin']}, rule {standing['rule']}, {standing['since']} to {standing['expires_at']}")
    say(f"reason: {standing['reason']}")
    for name, value in cast("Row", standing["evidence"]).items():
        say(f"evidence: {name} = {value}")
    if found["ending"]:
        say(f"ended: {_how(found)}")
    for appeal in cast("list[Row]", found["appeals"]):
        say(f"appeal {appeal['appeal_id']}, {appeal['state']}: {appeal['words']}")


@app.command(name="set")
def set_standing(
    subject: Annotated[str, typer.Argument(help="key:<id>, tenant:<id> or network:<address>/<bits>.")],
    kind: Annotated[str, typer.Argument(help="watch, refer, throttle, step_up or suspend.")],
    reason: Annotated[str, _REASON],
    lasting: Annotated[str, typer.Option("--for", help="How long: 90m, 24h, 7d.")] = "24h",
    factor: Annotated[float, typer.Option(help="Of a throttle: limits are multiplied by it.")] = 0.1,
    freeze_results: Annotated[
        bool, typer.Option("--freeze-results", help="Of a suspension: results of earlier requests are kept back too.")
    ] = False,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Give a caller a standing; every gateway feels it within a second.

    Example: forestay abuse set key:3f2a91c04b7d5e60 suspend --for 24h --reason "seen in a public repository"
    """
    if kind not in _KINDS:
        raise UsageError("kind", f"use one of {', '.join(_KINDS)}")
    asked: Row = {"subject": subject, "kind": kind, "reason": reason, "for_seconds": seconds_of("--for", lasting)}
    asked.update({"factor": factor, "freeze_results": freeze_results})
    made = cast("Row", connect().post("/admin/abuse/standings", asked))
    if json:
        print_json(made)
        return
    standing = _standing(made)
    say(f"{subject} stands under {kind} until {standing['expires_at']} ({standing['standing_id']})")


@app.command()
def lift(
    subject: Annotated[str, typer.Argument(help="Whose standing ends.")],
    reason: Annotated[str, _REASON],
    pardon: Annotated[str, typer.Option(help="Automation sets none on it for so long; 0s: may at once.")] = "7d",
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """End a standing before its time, which grants the appeal against it.

    Example: forestay abuse lift key:3f2a91c04b7d5e60 --reason "their new office, confirmed by telephone"
    """
    asked = {"subject": subject, "reason": reason, "pardon_seconds": seconds_of("--pardon", pardon)}
    lifted = cast("Row", connect().post("/admin/abuse/lift", asked))
    if json:
        print_json(lifted)
        return
    say(f"{subject} is free again")


@app.command()
def appeal(
    words: Annotated[str, typer.Option(help="What the caller says.")],
    standing_id: Annotated[str, typer.Argument(help="For someone else; empty: of the key in use.")] = "",
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Object to a standing. A person decides: by `lift`, or by `deny`.

    Example: forestay abuse appeal --words "we moved to another cloud on Monday"
    """
    if standing_id:
        made = connect().post("/admin/abuse/appeals", {"standing_id": standing_id, "words": words})
    else:
        made = connect().post("/standing/appeal", {"words": words})
    if json:
        print_json(made)
        return
    say(f"appeal {cast('Row', made)['appeal_id']} waits for a decision")


@app.command()
def appeals(
    state: Annotated[str, typer.Option(help="open, granted, denied or moot; empty: all.")] = "open",
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="At most so many.")] = 50,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """List appeals, newest first.

    Example: forestay abuse appeals
    """
    query = {"limit": str(limit), **({"state": state} if state else {})}
    found = cast("dict[str, list[Row]]", connect().get("/admin/abuse/appeals", query))["appeals"]
    if json:
        print_json(found)
        return
    columns = ("appeal_id", "standing_id", "subject", "state", "made_at", "made_by", "words")
    print_table(columns, [[item[column] for column in columns] for item in found], empty="no appeals")


@app.command()
def deny(
    appeal_id: Annotated[str, typer.Argument(help="Its id, ap_ and 16 hex digits.")],
    reason: Annotated[str, _REASON],
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Turn an appeal down; the standing stays.

    Example: forestay abuse deny ap_9f86d081884c7d65 --reason "the key is in a public repository"
    """
    denied = connect().post(f"/admin/abuse/appeals/{_quoted(appeal_id)}/deny", {"reason": reason})
    if json:
        print_json(denied)
        return
    say(f"appeal {appeal_id} is turned down")


@app.command()
def explain(
    subject: Annotated[str, typer.Argument(help="A key's or tenant's id, or key:<id>, tenant:<id>, network:<prefix>.")],
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Show what is known of a caller now: its signals, each rule, what each condition saw, and the calls behind it.

    Example: forestay abuse explain 3f2a91c04b7d5e60
    """
    if ":" not in subject:
        subject = f"{'key' if _KEY_ID.fullmatch(subject) else 'tenant'}:{subject}"
    found = cast("Row", connect().get("/admin/abuse/explain", {"subject": subject}))
    if json:
        print_json(found)
        return
    _print_explanation(found)


@app.command()
def replay(
    rules: Annotated[pathlib.Path, typer.Option(help="The new rules, in YAML.")],
    since: Annotated[str, typer.Option(help="Judge the calls of so long: 12h, 7d.")] = "7d",
    learn: Annotated[str, typer.Option(help="Let calls of so long before teach what is usual.")] = "14d",
    labels: Annotated[
        pathlib.Path | None, typer.Option(help="Lines of subject,label (abuse or honest); beside decided appeals.")
    ] = None,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Show what other rules would have decided on calls that happened, with precision and recall; changes nothing.

    Example: forestay abuse replay --rules new.yaml --since 7d --labels known.csv
    """
    from forestay.cli.abuse_replay import Asked, run_replay

    _, read = abuse_rules.read_file(rules)
    asked = Asked(seconds_of("--since", since), seconds_of("--learn", learn), labels)
    if asked.since_seconds <= 0 or asked.since_seconds + asked.learn_seconds > MOST_SECONDS:
        raise UsageError("--since", f"must be above 0, and with --learn at most {MOST_SECONDS // 86_400} days")
    run_replay(read, asked, json=json)


def _print_explanation(found: Row) -> None:
    standing = cast("Row | None", found["standing"])
    now = "nothing" if standing is None else f"{standing['kind']} by rule {standing['rule']}: {standing['reason']}"
    say(f"{found['subject']} stands under {now}; last call known: {found['as_of'] or 'none'}")
    if not found["complete"]:
        say("more calls wait than were read for this answer; ask again in a minute")
    known = {**cast("Row", found["signals"]), **cast("Row", found["counters"])}
    print_table(("signal", "value"), [item for item in known.items() if item[1]], empty="no signal is above 0")
    rows = [
        (rule["id"], rule["standing"], "holds" if rule["holds"] else "", test["name"], test["wants"], test["value"])
        for rule in cast("list[Row]", found["rules"])
        for test in cast("list[Row]", rule["tested"])
    ]
    print_table(("rule", "standing", "holds", "looks at", "wants", "is"), rows, empty="no rule is about it")
    for label, until in cast("Row", found["labels"]).items():
        say(f"label: {label} until {until}")
    for fact in cast("list[str]", found["facts"]):
        say(f"call: {fact}")


def _list_advised(limit: int, *, json: bool) -> None:
    found = cast("dict[str, list[Row]]", connect().get("/admin/abuse/advised", {"limit": str(limit)}))["advised"]
    if json:
        print_json(found)
        return
    rows = [
        (item["at"], item["subject"], cast("Row", item["detail"])["kind"], item["effect"], item["reason"])
        for item in found
    ]
    print_table(("at", "subject", "kind", "effect", "reason"), rows, empty="nothing was advised")


def _standing(row: Row) -> Row:
    return cast("Row", row["standing"])


def _how(row: Row) -> str:
    ending = cast("Row | None", row["ending"])
    return f"{ending['how']} by {ending['by']}: {ending['why']}" if ending else ""


def _quoted(text: str) -> str:
    return urllib.parse.quote(text, safe="")
