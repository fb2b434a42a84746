"""The rollouts of the demonstration on one page: how each ended, why, and its share of the traffic. Pure. HTML.

It decides nothing; each rollout's own page is linked. Called by `shipyard` and `tour_page`.
"""

import dataclasses
import html
from collections.abc import Mapping, Sequence
from typing import cast

import msgspec

from forestay.rollouts.model import JournalEntry
from forestay.rollouts.report_pages import plot_share


@dataclasses.dataclass(frozen=True, slots=True)
class Shipped:
    """One rollout: the revision's name in the demonstration, and what the admin API said of it at its end."""

    name: str
    found: Mapping[str, object]


def render_rollouts(shipped: Sequence[Shipped], ledger: str) -> str:
    """Return a section of HTML; `ledger` says what the callers were answered."""
    return f"<h2>Rollouts</h2>\n<p>{html.escape(ledger)}.</p>\n{''.join(_one(item) for item in shipped)}"


def _one(item: Shipped) -> str:
    journal = msgspec.convert(item.found["journal"], list[JournalEntry], strict=False)
    name, found = html.escape(item.name, quote=True), item.found
    requests = cast("Mapping[str, int]", found["requests"])
    counted = f"{requests['candidate']:,} requests of callers on it, {requests['control']:,} on the control"
    lines = "".join(
        f"<tr><td>{line.at:%H:%M:%S}<td>{line.stage}<td>{line.weight:g} %<td>{html.escape(line.reason)}</tr>\n"
        for line in journal
    )
    return (
        f"<h3>{name}: {html.escape(str(found['stage']))}</h3>\n<p>{html.escape(str(found['reason']))}</p>\n"
        f'<p>{counted}. <a href="rollout-{name}.html">Its page</a>.</p>\n'
        f'<figure class="plot">{plot_share(journal)}</figure>\n'
        f"<table>\n<tr><th>at<th>stage<th>share<th>why</tr>\n{lines}</table>\n"
    )
