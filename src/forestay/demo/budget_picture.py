"""Error budgets and burn rates of the demonstration as pictures, and what the commands printed. Pure. HTML and SVG.

It decides nothing: the numbers are sums of the minutes that the platform counted. Called by `watch`.
"""

import html
from collections.abc import Mapping, Sequence

from forestay.demo.studio import OBJECTIVE
from forestay.slo.model import Counts, Minute

_WIDTH, _HEIGHT, _LEFT = 720, 150, 56
_LONG = 60  # minutes: the window of the burn rate that is drawn
_FAST = 14.4  # the workbook's factor for it


def render_budgets(minutes: Mapping[str, Mapping[Minute, Counts]], shown: Mapping[str, str]) -> str:
    """Return a section of HTML: two pictures a model, then what the commands printed."""
    pictures = "".join(_model(model, counts) for model, counts in minutes.items() if counts)
    printed = "".join(
        f"<h3><code>{html.escape(command)}</code></h3>\n<pre>{html.escape(text)}</pre>\n"
        for command, text in shown.items()
    )
    return f"<h2>Budget and burn, six hours</h2>\n{pictures}<h2>What the commands said</h2>\n{printed}"


def _model(model: str, counts: Mapping[Minute, Counts]) -> str:
    first, last = min(counts), max(counts)
    kept = [counts.get(Minute(minute), Counts()) for minute in range(first, last + 1)]
    left, burn = budget_left(kept), burn_rates(kept)
    return (
        f"<h3>{html.escape(model)}</h3>\n"
        f'<figure class="plot">{plot(left, "budget left", 1.0)}</figure>\n'
        f'<figure class="plot">{plot(burn, "burn rate, 1 h", _FAST)}</figure>\n'
    )


def budget_left(kept: Sequence[Counts]) -> list[float]:
    """Return the share of the budget that is left after each minute, of what had come until then."""
    bad = total = 0
    found: list[float] = []
    for one in kept:
        bad, total = bad + one.bad, total + one.total
        found.append(1.0 - bad / ((1.0 - OBJECTIVE) * total) if total else 1.0)
    return found


def burn_rates(kept: Sequence[Counts]) -> list[float]:
    """Return the burn rate over the last hour after each minute; 0 where nothing came."""
    found: list[float] = []
    for at in range(len(kept)):
        window = kept[max(0, at - _LONG + 1) : at + 1]
        total = sum(one.total for one in window)
        found.append(sum(one.bad for one in window) / total / (1.0 - OBJECTIVE) if total else 0.0)
    return found


def plot(values: Sequence[float], label: str, mark: float) -> str:
    """Return an SVG of a line over minutes, with 0 and `mark` drawn across."""
    top, low = max(*values, mark) * 1.1, min(0.0, *values)
    span = top - low

    def y(value: float) -> float:
        return round(_HEIGHT * (top - value) / span, 1)

    step = (_WIDTH - _LEFT) / max(1, len(values) - 1)
    points = " ".join(f"{_LEFT + at * step:.1f},{y(value)}" for at, value in enumerate(values))
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + 16}" role="img" aria-label="{html.escape(label)}">'
        f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{y(0)}" y2="{y(0)}" stroke="currentColor"/>'
        f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{y(mark)}" y2="{y(mark)}" stroke="#cf222e" stroke-dasharray="4"/>'
        f'<polyline points="{points}" fill="none" stroke="#0969da" stroke-width="1.5"/>'
        f'<text x="0" y="{y(0)}">0</text><text x="0" y="{y(mark) + 10}">{mark:g}</text>'
        f'<text x="{_LEFT}" y="{_HEIGHT + 13}">{html.escape(label)}, ending at {values[-1]:.3g}</text></svg>'
    )
