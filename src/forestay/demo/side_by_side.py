"""Each fault of the scenario of quality beside what is healthy, and what the commands said of it. Pure. HTML.

It decides nothing. Called by `game_day`.
"""

import dataclasses
import html
from collections.abc import Mapping, Sequence
from typing import cast

from forestay.demo.promises import SavedFile

Values = Mapping[str, object]


@dataclasses.dataclass(frozen=True, slots=True)
class Side:
    """One fault: a healthy file, the faulty one where a caller got it, and what was found."""

    title: str
    healthy: SavedFile
    faulty: SavedFile | None
    instead: str  # what the caller read where nothing faulty was handed out
    found: str


def render_sides(sides: Sequence[Side], shown: Mapping[str, str]) -> str:
    """Return a section of HTML: a row a fault, then what the commands printed."""
    rows = "".join(_row(side) for side in sides)
    printed = "".join(
        f"<h3><code>{html.escape(command)}</code></h3>\n<pre>{html.escape(text)}</pre>\n"
        for command, text in shown.items()
    )
    return (
        "<h2>Each fault, and what found it</h2>\n<table>\n"
        f"<tr><th>fault<th>healthy<th>with the fault<th>found</tr>\n{rows}</table>\n"
        f"<h2>What the commands said</h2>\n{printed}"
    )


def told_of(row: Values) -> str:
    """Return a finding in one line: its row of the catalogue, its place, its sentence."""
    place = ", ".join(
        f"{name.removesuffix('_id')} {value}" for name, value in cast("Values", row["where"]).items() if value
    )
    return f"row {row['catalogue']} by {row['source']} ({row['failure']}) at {place}: {row['what']}"


def numbers_of(row: Values) -> str:
    """Return a finding's evidence in one line."""
    return ", ".join(f"{name} {value:.4g}" for name, value in cast("dict[str, float]", row["evidence"]).items())


def rows_of(row: Values) -> list[int]:
    """Return the rows of the catalogue that a finding speaks for, the likeliest first."""
    evidence = cast("dict[str, float]", row["evidence"])
    named = {int(name[4:]): score for name, score in evidence.items() if name.startswith("row_") and name[4:].isdigit()}
    return sorted(named, key=lambda one: -named[one]) or [cast("int", row["catalogue"])]


def _row(side: Side) -> str:
    faulty = _shown(side.faulty) if side.faulty is not None else f"not handed out: {html.escape(side.instead)}"
    return (
        f"<tr><td>{html.escape(side.title)}<td>{_shown(side.healthy)}<td>{faulty}<td>{html.escape(side.found)}</tr>\n"
    )


def _shown(file: SavedFile) -> str:
    name, caption = html.escape(file.name, quote=True), html.escape(file.caption, quote=True)
    if file.name.endswith(".mp4"):
        return f'<video src="{name}" controls loop muted playsinline width="128"></video>'
    if file.name.endswith(".wav"):
        return f'<audio src="{name}" controls></audio>'
    return f'<img src="{name}" alt="{caption}" style="width: 128px">'
