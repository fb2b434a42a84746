"""How commands print: a table or plain lines for people, one JSON value with `--json`.

Decides nothing about content. On a terminal tables are drawn by rich; into a pipe they are plain, tab-separated lines,
so that `cut` and `grep` work.
"""

import json
import sys
from collections.abc import Sequence

import typer

JSON_OPTION = typer.Option("--json", help="Print JSON instead of text.")


def print_json(value: object) -> None:
    """Print one JSON value on one line; times as ISO 8601, everything unknown as its text."""
    typer.echo(json.dumps(value, default=str))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str = "nothing to show") -> None:
    """Print rows under their column names; `empty` says in words that there are none."""
    if not rows:
        typer.echo(empty)
        return
    if not sys.stdout.isatty():
        typer.echo("\t".join(columns))
        for row in rows:
            typer.echo("\t".join(_cell(value) for value in row))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    Console().print(table)


def _cell(value: object) -> str:
    return "-" if value is None or value == "" else str(value)
