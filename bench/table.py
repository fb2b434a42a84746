"""What every bench prints: one table with a target beside each value, and the verdict that becomes the exit code.

A bench is a module of `bench/` with `run(rounds: int) -> list[Row]`. Values are medians of interleaved rounds; a row
with a target falls short when the comparison is not met; a row without one is a yardstick.
"""

import dataclasses
import json
import pathlib
import statistics
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One measured value. `target` is read with `sense`: ">=" or "<="."""

    name: str
    value: float
    unit: str
    target: float | None = None
    sense: str = ">="
    note: str = ""

    def met(self) -> bool | None:
        """Tell whether the target is met; None when there is none."""
        if self.target is None:
            return None
        return self.value >= self.target if self.sense == ">=" else self.value <= self.target


def median(values: Sequence[float]) -> float:
    """Return the median of what the rounds gave."""
    return statistics.median(values)


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median of the ratios taken round by round, so that a machine that changes its speed cancels out."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def show(title: str, rows: Iterable[Row], json_file: pathlib.Path | None) -> bool:
    """Print the table, write the JSON if asked, and tell whether every target is met."""
    rows = list(rows)
    table = Table(title=title)
    for column, side in (("what", "left"), ("value", "right"), ("unit", "left"), ("target", "right"), ("", "left")):
        table.add_column(column, justify=side)
    table.add_column("note")
    for row in rows:
        met = row.met()
        mark = "" if met is None else ("[green]met[/]" if met else "[red]short[/]")
        target = "" if row.target is None else f"{row.sense} {row.target:g}"
        table.add_row(row.name, f"{row.value:,.4g}", row.unit, target, mark, row.note)
    Console(width=140).print(table)
    if json_file is not None:
        json_file.write_text(
            json.dumps(
                {"bench": title, "rows": [dataclasses.asdict(row) | {"met": row.met()} for row in rows]}, indent=2
            )
        )
    return all(row.met() is not False for row in rows)
