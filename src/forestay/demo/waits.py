"""What a tenant's waits come to: a p99 before and during an attack, the bound that was promised, and their picture.

Pure. A wait is the time from the commit of a request to the start of its run, by the platform's own facts. It decides
the bound; `siege` gathers the waits.
"""

import dataclasses
import html
import math
from collections.abc import Sequence

MOST_RATIO = 2.0
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 720, 220, 48, 24


@dataclasses.dataclass(frozen=True, slots=True)
class Wait:
    """One request: when it was submitted (seconds since the first) and how long it waited (seconds)."""

    at_seconds: float
    wait_seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class Span:
    """An attack: its name and when it went on (seconds since the first request)."""

    name: str
    from_seconds: float
    to_seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """A tenant's waits alone and under attack, against the bound."""

    solo: tuple[Wait, ...]
    attacked: tuple[Wait, ...]
    service_seconds: float

    @property
    def solo_p99(self) -> float:
        """Return the p99 wait alone, in seconds."""
        return p99([wait.wait_seconds for wait in self.solo])

    @property
    def attacked_p99(self) -> float:
        """Return the p99 wait under attack, in seconds."""
        return p99([wait.wait_seconds for wait in self.attacked])

    @property
    def most_seconds(self) -> float:
        """Return the longest p99 that keeps the promise.

        Twice the solo p99, or twice one service time where that is longer: alone on an idle machine a wait is a few
        milliseconds, and twice of that says more about the machine's scheduler than about the neighbours.
        """
        return MOST_RATIO * max(self.solo_p99, self.service_seconds)

    @property
    def kept(self) -> bool:
        """Tell whether the promise held."""
        return self.attacked_p99 <= self.most_seconds

    def words(self) -> str:
        """Return the comparison in one line."""
        return (
            f"p99 {milliseconds(self.attacked_p99)} over {len(self.attacked)} requests under attack, "
            f"{milliseconds(self.solo_p99)} over {len(self.solo)} alone; at most {milliseconds(self.most_seconds)} "
            f"(twice the larger of solo p99 and one service time, {milliseconds(self.service_seconds)})"
        )


def p99(values: Sequence[float]) -> float:
    """Return the 99th percentile by nearest rank (the smallest value that 99 % do not exceed); 0 of nothing."""
    ordered = sorted(values)
    return ordered[math.ceil(0.99 * len(ordered)) - 1] if ordered else 0.0


def milliseconds(seconds: float) -> str:
    """Return `seconds` as whole milliseconds."""
    return f"{seconds * 1000:.0f} ms"


def render_waits(comparison: Comparison, spans: Sequence[Span]) -> str:
    """Return a section of HTML: the numbers as a table, for each attack too, and every wait as a point of a plot."""
    rows = [("alone", comparison.solo), ("under attack, all", comparison.attacked)]
    rows += [(span.name, within(comparison.attacked, span)) for span in spans]
    cells = "".join(
        f"<tr><td>{html.escape(name)}<td>{len(waits)}<td>{_p50(waits)}<td>{_p99(waits)}</tr>\n" for name, waits in rows
    )
    return (
        "<h2>How long the well-behaved tenant waited</h2>\n"
        f"<p>From commit to start, by the platform's facts: {html.escape(comparison.words())}.</p>\n"
        f'<figure class="plot">{plot(comparison, spans)}</figure>\n'
        f"<table>\n<tr><th>while<th>requests<th>p50<th>p99</tr>\n{cells}</table>\n"
    )


def within(waits: Sequence[Wait], span: Span) -> tuple[Wait, ...]:
    """Return the waits of requests submitted while the attack went on."""
    return tuple(wait for wait in waits if span.from_seconds <= wait.at_seconds < span.to_seconds)


def plot(comparison: Comparison, spans: Sequence[Span]) -> str:
    """Return an SVG: time to the right, wait upwards, attacks shaded, the bound as a line."""
    waits = (*comparison.solo, *comparison.attacked)
    last = max([1.0, *(wait.at_seconds for wait in waits), *(span.to_seconds for span in spans)])
    top = 1.1 * max([comparison.most_seconds, *(wait.wait_seconds for wait in waits)])

    def x(seconds: float) -> float:
        return round(_LEFT + (_WIDTH - _LEFT) * seconds / last, 1)

    def y(seconds: float) -> float:
        return round((_HEIGHT - _BOTTOM) * (1 - seconds / top), 1)

    shades = "".join(
        f'<rect x="{x(span.from_seconds)}" y="0" width="{max(1.0, x(span.to_seconds) - x(span.from_seconds)):.1f}" '
        f'height="{_HEIGHT - _BOTTOM}" fill="#cf222e" opacity="{0.06 if number % 2 else 0.12}">'
        f"<title>{html.escape(span.name)}</title></rect>"
        for number, span in enumerate(spans)
    )
    points = "".join(
        f'<circle cx="{x(wait.at_seconds)}" cy="{y(wait.wait_seconds)}" r="2" fill="#0969da"/>' for wait in waits
    )
    bound = y(comparison.most_seconds)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="waits over time">{shades}'
        f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{bound}" y2="{bound}" stroke="#cf222e" stroke-dasharray="4"/>'
        f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{y(0)}" y2="{y(0)}" stroke="currentColor"/>{points}'
        f'<text x="0" y="{bound + 4}">{milliseconds(comparison.most_seconds)}</text>'
        f'<text x="0" y="{y(0)}">0</text>'
        f'<text x="{_WIDTH - 120}" y="{_HEIGHT - 6}">{last:.0f} s, attacks shaded</text></svg>'
    )


def _p50(waits: Sequence[Wait]) -> str:
    ordered = sorted(wait.wait_seconds for wait in waits)
    return milliseconds(ordered[(len(ordered) - 1) // 2]) if ordered else ""


def _p99(waits: Sequence[Wait]) -> str:
    return milliseconds(p99([wait.wait_seconds for wait in waits])) if waits else ""
