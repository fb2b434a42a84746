"""Draws spans as a waterfall of text: a line each, indented below its parent, with offset, duration and a bar. Pure.

Decides nothing. Called by `forestay request trace`.
"""

from collections.abc import Mapping, Sequence

from forestay.telemetry.spans import Span

_LEAST_BAR = 10
_NAME_WIDTH = 24
_TIMES_WIDTH = 24


def render_waterfall(spans: Sequence[Span], width: int) -> list[str]:
    """Return the lines, each at most `width` characters where that leaves ten for the bars."""
    if not spans:
        return []
    first = min(span.begins_at for span in spans)
    whole = max((max(span.ends_at for span in spans) - first).total_seconds(), 1e-6)
    room = max(_LEAST_BAR, width - _NAME_WIDTH - _TIMES_WIDTH - 2)
    levels = _levels(spans)
    return [
        _line(span, levels[span.span_id], (span.begins_at - first).total_seconds(), whole, room)
        for span in _tree(spans)
    ]


def _line(span: Span, level: int, offset: float, whole: float, room: int) -> str:
    seconds = (span.ends_at - span.begins_at).total_seconds()
    begin = min(room - 1, round(offset / whole * room))
    length = max(1, min(room - begin, round(seconds / whole * room)))
    bar = (" " * begin + ("▒" if span.failed else "█") * length).ljust(room)
    name = ("  " * level + span.name + (" !" if span.failed else ""))[:_NAME_WIDTH].ljust(_NAME_WIDTH)
    return f"{name} {_time(offset):>10} {_time(seconds):>11}  {bar}".rstrip()


def _time(seconds: float) -> str:
    if seconds < 1.0:
        return f"{seconds * 1000:.1f} ms"
    return f"{seconds:.2f} s" if seconds < 120.0 else f"{seconds / 60:.1f} min"


def _levels(spans: Sequence[Span]) -> Mapping[str, int]:
    parents = {span.span_id: span.parent_id for span in spans}
    levels: dict[str, int] = {}
    for span in spans:
        level, above = 0, span.parent_id
        while above in parents and level < len(spans):
            level, above = level + 1, parents[above]
        levels[span.span_id] = level
    return levels


def _tree(spans: Sequence[Span]) -> list[Span]:
    """Order spans so that each stands below its parent, those of one parent in the order of time."""
    known = {span.span_id for span in spans}
    below: dict[str | None, list[Span]] = {}
    for span in spans:
        below.setdefault(span.parent_id if span.parent_id in known else None, []).append(span)
    ordered: list[Span] = []
    waiting = list(reversed(below.get(None, [])))
    while waiting:
        span = waiting.pop()
        ordered.append(span)
        waiting.extend(reversed(below.pop(span.span_id, [])))
    return ordered
