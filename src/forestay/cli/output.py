"""How commands print: a table or plain lines for people, one JSON value with `--json`.

Decides nothing about content but this: names, reasons and errors come from callers and from models, so what would
steer a terminal (escape sequences, marks that turn the direction of text) is shown as its code and never sent. On a
terminal tables are drawn by rich; into a pipe they are plain, tab-separated lines, so that `cut` and `grep` work.
"""

import json
import re
import sys
from collections.abc import Sequence

import typer

JSON_OPTION = typer.Option("--json", help="Print JSON instead of text.")
# C0 but tab and line feed, DEL, C1, halves of pairs; and the marks of UAX #9 that reorder what a reader sees
# (Trojan Source, CVE-2021-42574), with the separators that some terminals break a line at.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(text: str) -> str:
    r"""Return the text with what would steer a terminal written out: `\x1b[31m` for an escape sequence."""
    return _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def say(text: object = "", *, err: bool = False) -> None:
    """Print a line of plain text, on standard error with `err`."""
    typer.echo(plain(str(text)), err=err)


def print_document(text: str) -> None:
    """Print a whole file's text: byte for byte into a pipe or a file, plain on a terminal."""
    typer.echo(plain(text) if sys.stdout.isatty() else text, nl=False)


def print_json(value: object) -> None:
    """Print one JSON value on one line; times as ISO 8601, everything unknown as its text."""
    typer.echo(json.dumps(value, default=str))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str = "nothing to show") -> None:
    """Print rows under their column names; `empty` says in words that there are none."""
    if not rows:
        say(empty)
        return
    if not sys.stdout.isatty():
        say("\t".join(columns))
        for row in rows:
            say("\t".join(_cell(value) for value in row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")  # an id is copied from here: it may break, never be cut
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row))  # a text as such: `[/x]` in a reason is no markup
    Console().print(table)


def _cell(value: object) -> str:
    """Return a value on one line: a line's end within it would make a row that nobody wrote."""
    text = "-" if value is None or value == "" else str(value)
    return plain(text.replace("\r\n", "\n").replace("\n", "\\n").replace("\t", "\\t"))
