"""`forestay abuse rules`: the rules by which callers are judged. Read them, check a file, put it in force, go back."""

import json as encoder
import pathlib
from typing import Annotated, cast

import typer

from forestay.abuse.rules import Rules
from forestay.abuse.rules_file import read_rules
from forestay.cli.client import connect
from forestay.cli.output import JSON_OPTION, print_json, say
from forestay.errors import UsageError
from forestay.fleet.spec_yaml import SpecError

app = typer.Typer(no_args_is_help=True, help="Read, check and set the rules by which callers are judged.")
Row = dict[str, object]
_FILE = typer.Argument(help="The rules, in YAML.")


@app.command()
def show(json: Annotated[bool, JSON_OPTION] = False) -> None:
    """Print the rules in force, as YAML.

    Example: forestay abuse rules show > rules.yaml
    """
    found = cast("Row", connect().get("/admin/abuse/rules"))
    if json:
        print_json(found)
        return
    say(cast("str", found["text"]).rstrip("\n"))


@app.command()
def check(file: Annotated[pathlib.Path, _FILE], json: Annotated[bool, JSON_OPTION] = False) -> None:
    """Check a file of rules, on this machine alone; exit 2 and every fault with its line where it has any.

    Example: forestay abuse rules check rules.yaml
    """
    _, rules = read_file(file)
    if json:
        print_json({"file": str(file), "rules": [rule.id for rule in rules.rules], "counters": len(rules.counters)})
        return
    say(f"{file}: {len(rules.rules)} rules and {len(rules.counters)} counters, no fault")


@app.command(name="set")
def set_rules(file: Annotated[pathlib.Path, _FILE], json: Annotated[bool, JSON_OPTION] = False) -> None:
    """Put a file of rules in force; the controller follows within seconds. Replay it first.

    Example: forestay abuse rules set rules.yaml
    """
    text, rules = read_file(file)
    _put(text, f"{len(rules.rules)} rules of {file}", json=json)


@app.command()
def reset(json: Annotated[bool, JSON_OPTION] = False) -> None:
    """Go back to the rules that Forestay brings.

    Example: forestay abuse rules reset
    """
    _put("", "the rules that Forestay brings", json=json)


def read_file(file: pathlib.Path) -> tuple[str, Rules]:
    """Read and check a file of rules; raises UsageError with every fault on a line of its own."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("FILE", f"{file} cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None
    if not text.strip():
        raise UsageError(
            "FILE", f"{file} is empty; `forestay abuse rules reset` goes back to the rules that come along"
        )
    try:
        return text, read_rules(text, file.name)
    except SpecError as error:
        for fault in error.faults:
            say(fault, err=True)
        raise UsageError("FILE", f"{file} has faults, the first of {len(error.faults)}: {error.faults[0]}") from None


def _put(text: str, what: str, *, json: bool) -> None:
    done = cast("Row", connect().put("/admin/abuse/rules", encoder.dumps({"text": text}).encode(), "application/json"))
    if json:
        print_json(done)
        return
    say(f"{what} are in force (version {done['version']})")
