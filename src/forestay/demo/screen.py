"""What a person sees while the demonstration runs: a live table on a terminal, plain lines anywhere else.

It decides nothing: it draws the promises it is given.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from forestay.demo.promises import Act, Kept, Mark

_REFRESH_PER_SECOND = 8
_LAST_ROWS = 2  # of an act that goes on: so many promises that it has kept stay in sight
_MARKS = {
    Mark.WAITING: Text("·", style="dim"),
    Mark.KEPT: Text("yes", style="green"),
    Mark.BROKEN: Text("no", style="bold red"),
}


class Screen(Protocol):
    """Where progress is shown."""

    def note(self, line: str) -> None:
        """Say what goes on beside the promises."""
        ...

    def show(self, promise: Kept) -> None:
        """Show that a promise has begun, was kept or was broken."""
        ...

    def close(self, promises: Sequence[Kept], summary: str) -> None:
        """Show the end: the table and one line."""
        ...


class LiveScreen:
    """A table that fills while one watches; what is long comes in acts, of which only those that go on are open."""

    def __init__(self, console: Console, promises: Iterable[str], acts: Sequence[Act] = ()) -> None:
        self._console = console
        self._acts = acts
        self._ended = False
        self._promises = {name: Kept(name) for name in promises}
        self._note = ""
        self._spinner = Spinner("dots")
        self._live = Live(
            get_renderable=self._draw, console=console, refresh_per_second=_REFRESH_PER_SECOND, transient=True
        )
        self._live.start()

    def note(self, line: str) -> None:
        """Replace the line under the table."""
        self._note = line

    def show(self, promise: Kept) -> None:
        """Change one row."""
        self._promises[promise.name] = promise

    def close(self, promises: Sequence[Kept], summary: str) -> None:
        """Leave the finished table on the terminal."""
        self._live.stop()
        self._ended = True
        self._promises = {promise.name: promise for promise in promises}
        self._note = ""
        self._console.print(self._draw())
        self._console.print(summary)

    def _draw(self) -> Table:
        table = Table(title="Forestay demo", caption=self._note, title_justify="left", caption_justify="left")
        table.add_column("promise", ratio=5)
        table.add_column("kept?", justify="center", width=6)
        table.add_column("evidence", ratio=5)
        table.add_column("s", justify="right", width=6)
        if not self._acts:
            for promise in self._promises.values():
                self._add(table, promise)
        for number, act in enumerate(self._acts, 1):
            promises = [self._promises[name] for name in act.names]
            kept = sum(promise.mark is Mark.KEPT for promise in promises)
            told = f"{kept} of {len(promises)} kept" if kept else ""
            table.add_row(Text(f"{number}. {act.title}", style="bold"), "", Text(told, style="bold"), "")
            for promise in promises if self._ended else open_rows(promises):
                self._add(table, promise)
        return table

    def _add(self, table: Table, promise: Kept) -> None:
        mark = self._spinner if promise.mark is Mark.RUNNING else _MARKS[promise.mark]
        seconds = f"{promise.seconds:.1f}" if promise.seconds else ""
        table.add_row(promise.text, mark, Text(promise.evidence), seconds)


def open_rows(promises: Sequence[Kept]) -> list[Kept]:
    """Return what is worth seeing of an act while it goes on: what runs, what is broken, and what came last."""
    settled = [one for one in promises if one.mark is Mark.KEPT]
    if len(settled) == len(promises):
        return []  # over, and well: its line says so
    last = settled[-_LAST_ROWS:]
    return [one for one in promises if one in last or one.mark in {Mark.RUNNING, Mark.BROKEN}]


class PlainScreen:
    """One line an event, for pipes and logs."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def note(self, line: str) -> None:
        """Print it."""
        self._print(f"      {line}")

    def show(self, promise: Kept) -> None:
        """Print a promise when it is settled."""
        if promise.mark in {Mark.KEPT, Mark.BROKEN}:
            word = "kept  " if promise.mark is Mark.KEPT else "BROKEN"
            self._print(f"{word} {promise.text}: {promise.evidence} ({promise.seconds:.1f} s)")

    def close(self, promises: Sequence[Kept], summary: str) -> None:
        """Print the table of promises once more, whole."""
        width = max(len(promise.text) for promise in promises)
        self._print("")
        for promise in promises:
            word = "yes" if promise.mark is Mark.KEPT else "NO "
            self._print(f"{promise.text:<{width}}  {word}  {promise.evidence}")
        self._print("")
        self._print(summary)

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class JsonScreen:
    """One JSON object at the end, progress on standard error."""

    def __init__(self, console: Console, errors: Console) -> None:
        self._console = console
        self._progress = PlainScreen(errors)

    def note(self, line: str) -> None:
        """Print it to standard error."""
        self._progress.note(line)

    def show(self, promise: Kept) -> None:
        """Print it to standard error."""
        self._progress.show(promise)

    def close(self, promises: Sequence[Kept], summary: str) -> None:
        """Print everything as one object."""
        rows = [
            {
                "name": promise.name,
                "promise": promise.text,
                "kept": promise.mark is Mark.KEPT,
                "evidence": promise.evidence,
                "seconds": promise.seconds,
            }
            for promise in promises
        ]
        line = json.dumps({"promises": rows, "summary": summary})
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
