"""The tour as a page: act by act, what was promised, what came of it, and what was made. Pure. HTML.

It decides nothing. Called by `tour`.
"""

import dataclasses
import datetime as dt
import html
import re
from collections.abc import Mapping, Sequence

from forestay.demo.accounts import Account, News, left_of
from forestay.demo.promises import Act, Kept, Mark, SavedFile
from forestay.demo.sheet import render_files, render_promises
from forestay.demo.shipping_page import Shipped, render_rollouts
from forestay.demo.side_by_side import Side, render_sides

_HEADING = re.compile(r"(</?h)([2-5])(?=>)")
_WIDTH = 240  # of a budget's bar, in pixels


@dataclasses.dataclass(frozen=True, slots=True)
class Shown:
    """An act as it went: its promises, its files, and what was measured as a section of HTML."""

    act: Act
    promises: Sequence[Kept]
    files: Sequence[SavedFile]
    section: str


def render_acts(shown: Sequence[Shown]) -> str:
    """Return the acts, with a list of them first."""
    listed = "".join(
        f'<li><a href="#act-{number}">{html.escape(one.act.title)}</a>: {_kept(one.promises)}</li>\n'
        for number, one in enumerate(shown, 1)
    )
    return f"<ol>\n{listed}</ol>\n" + "".join(_act(number, one) for number, one in enumerate(shown, 1))


def render_device(sides: Sequence[Side], printed: Mapping[str, str]) -> str:
    """Return the bad device beside what is healthy, and what the commands said of it; empty where nothing was found."""
    return render_sides(sides, printed) if sides else ""


def render_shipped(ended: Mapping[str, Mapping[str, object]], ledger: str) -> str:
    """Return how the rollouts went, and what the callers were answered."""
    return render_rollouts([Shipped(name, found) for name, found in ended.items()], ledger)


def render_money(
    news: Sequence[News], accounts: Sequence[Account], objectives: Mapping[str, float], printed: Mapping[str, str]
) -> str:
    """Return every alert as it came, each model's budget by the callers' ledger, and what the commands said."""
    heard = "".join(
        f"<tr><td>{dt.datetime.fromtimestamp(item.at, dt.UTC):%H:%M:%S}<td>{html.escape(item.severity)}"
        f"<td>{html.escape(item.transition)}<td>{html.escape(item.subject)}<td>{html.escape(item.summary)}</tr>\n"
        for item in news
    )
    budgets = "".join(_budget(one, objectives[one.model]) for one in accounts)
    commands = "".join(
        f"<h3><code>{html.escape(name)}</code></h3>\n<pre>{html.escape(text)}</pre>\n" for name, text in printed.items()
    )
    return (
        "<h2>What was told, and when</h2>\n"
        f"<table>\n<tr><th>at (UTC)<th>severity<th>news<th>of<th>words</tr>\n{heard}</table>\n"
        "<h2>What is left of each budget, by the callers' ledger</h2>\n"
        f"<table>\n<tr><th>model<th>bad<th>of<th>objective<th>left</tr>\n{budgets}</table>\n{commands}"
    )


def _act(number: int, one: Shown) -> str:
    return (
        f'<h2 id="act-{number}">{number}. {html.escape(one.act.title)}</h2>\n<p>{html.escape(one.act.about)}</p>\n'
        f"{_below(render_files(one.files))}{render_promises(one.promises)}{_below(one.section)}"
    )


def _below(section: str) -> str:
    """Return a section that was made for a page of its own with its headings one level further down."""
    return _HEADING.sub(lambda found: f"{found[1]}{int(found[2]) + 1}", section)


def _kept(promises: Sequence[Kept]) -> str:
    kept = sum(one.mark is Mark.KEPT for one in promises)
    style = "kept" if kept == len(promises) else "broken"
    return f'<span class="{style}">{kept} of {len(promises)} promises kept</span>'


def _budget(one: Account, objective: float) -> str:
    left = left_of(one, objective)
    width = round(_WIDTH * min(1.0, max(0.0, left)))
    bar = f'<svg width="{_WIDTH}" height="12"><rect width="{_WIDTH}" height="12" fill="#cf222e" opacity="0.3"/>'
    bar += f'<rect width="{width}" height="12" fill="#1a7f37"/></svg>'
    said = f"{left:.0%}" if left > 0 else "spent"
    return f"<tr><td>{html.escape(one.model)}<td>{one.bad}<td>{one.total}<td>{objective:.0%}<td>{bar} {said}</tr>\n"
