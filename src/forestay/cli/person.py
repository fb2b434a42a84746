"""`forestay person`: who may sign in, as what."""

import sys
import urllib.parse
from collections.abc import Mapping
from typing import Annotated, cast

import typer

from forestay.cli.client import connect
from forestay.cli.output import JSON_OPTION, print_json, print_table, say

app = typer.Typer(no_args_is_help=True, help="Say who may sign in, and as what.")
_WHO = typer.Argument(help="Id (p-...) or e-mail address.")
_ROLE = typer.Option(help="viewer, analyst, operator or admin.")


@app.command()
def add(
    email: Annotated[str, typer.Argument(help="How they sign in.")],
    role: Annotated[str, _ROLE] = "viewer",
    password_stdin: Annotated[bool, typer.Option(help="Read a password of their own from standard input.")] = False,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Add a person and print a one-time password for them, good for three days.

    Example: forestay person add olga@example.com --role operator
    """
    asked: dict[str, object] = {"email": email, "role": role}
    if password_stdin:
        asked["password"] = sys.stdin.readline().rstrip("\n")
    _show_password(cast("dict[str, object]", connect().post("/admin/people", asked)), json=json)


@app.command(name="list")
def list_people(json: Annotated[bool, JSON_OPTION] = False) -> None:
    """List people with their roles.

    Example: forestay person list
    """
    people = _people()
    if json:
        print_json(people)
        return
    columns = ("person", "email", "role", "signs in", "state", "last sign-in")
    print_table(columns, [_row(person) for person in people], empty="no people; `forestay person add` adds one")


@app.command()
def role(
    who: Annotated[str, _WHO],
    role: Annotated[str, typer.Argument(help="viewer, analyst, operator or admin.")],
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Change a person's role; it is felt at once.

    Example: forestay person role olga@example.com admin
    """
    _say(_act(who, "role", {"role": role}), json=json)


@app.command()
def disable(
    who: Annotated[str, _WHO],
    reason: Annotated[str, typer.Option(help="Why; kept in the audit log.")] = "asked for",
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Keep a person out and end their sessions.

    Example: forestay person disable olga@example.com --reason "left the team"
    """
    _say(_act(who, "disable", {"reason": reason}), json=json)


@app.command()
def enable(who: Annotated[str, _WHO], json: Annotated[bool, JSON_OPTION] = False) -> None:
    """Let a person in again.

    Example: forestay person enable olga@example.com
    """
    _say(_act(who, "enable", {}), json=json)


@app.command()
def reset(who: Annotated[str, _WHO], json: Annotated[bool, JSON_OPTION] = False) -> None:
    """Print a one-time password for who lost theirs; their sessions end.

    Example: forestay person reset olga@example.com
    """
    _show_password(_act(who, "reset", {}), json=json)


def _people() -> list[dict[str, object]]:
    return cast("dict[str, list[dict[str, object]]]", connect().get("/admin/people"))["people"]


def _act(who: str, what: str, asked: Mapping[str, object]) -> dict[str, object]:
    """Do something to a person, named by id or by an address that only one person has."""
    person_id = who
    if "@" in who:
        known = [person for person in _people() if person["email"] == who.lower()]
        if len(known) > 1:
            raise typer.BadParameter(f"{who} is known to several issuers; use the id from `forestay person list`")
        person_id = str(known[0]["person_id"]) if known else who
    path = f"/admin/people/{urllib.parse.quote(person_id, safe='')}/{what}"
    return cast("dict[str, object]", connect().post(path, dict(asked)))


def _row(person: Mapping[str, object]) -> tuple[object, ...]:
    state = "disabled" if person["disabled_at"] else ("one-time password" if person["one_time_until"] else "enabled")
    way = person["issuer"] or "by password"
    return (person["person_id"], person["email"], person["role"], way, state, person["signed_in_at"])


def _say(person: Mapping[str, object], *, json: bool) -> None:
    if json:
        print_json(person)
        return
    row = _row(person)
    say(f"{row[1]} ({row[0]}): {row[2]}, {row[4]}")


def _show_password(person: Mapping[str, object], *, json: bool) -> None:
    if json:
        print_json(person)
    elif person["one_time_password"]:
        say(person["one_time_password"])
    else:
        _say(person, json=False)
