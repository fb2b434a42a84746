"""A rollout's report as a page: Markdown for a pull request or a chat, HTML for a browser. Pure.

Pictures are handed in, since they show what callers' requests made: whoever may not see them gets a page without. Plots
are SVG, drawn here; nothing is loaded from anywhere.
"""

import base64
import html
import json
from collections.abc import Mapping, Sequence

from forestay.rollouts.model import JournalEntry
from forestay.rollouts.report import Divergence, Report

_WIDTH, _HEIGHT, _EDGE = 640, 160, 34
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:960px;margin:2em auto;padding:0 1em;color:#1c1c22}"
    "table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid #ddd;padding:.3em .6em;text-align:left;"
    "vertical-align:top}img,svg{max-width:100%}h2{margin-top:2em}"
)


def render_markdown(report: Report, sheets: Mapping[str, str] | None = None) -> str:
    """Return the page in Markdown; `sheets` maps request ids to where their pictures lie."""
    return "\n".join(
        [
            f"# Rollout {report.rollout_id}",
            "",
            f"**{report.stage}**: {report.reason}",
            "",
            f"`{report.control}` -> `{report.candidate}` of `{report.model_id}`. {_begun(report)}",
            *_section("What changed", ("field", "before", "after"), _changes(report), "nothing in spec or files"),
            *_section("Gates", ("gate", "verdict", "evidence"), _gates(report), "none was asked"),
            *_shadow_markdown(report, sheets or {}),
            *_canary_markdown(report),
            *_section("Timeline", ("at", "who", "stage", "share", "why"), _timeline(report), "no step"),
            "",
        ]
    )


def render_html(report: Report, sheets: Mapping[str, bytes] | None = None) -> str:
    """Return the page in HTML, whole in one file; `sheets` are PNGs by request id."""
    shown = sheets or {}
    parts = [
        f"<h1>Rollout {_safe(report.rollout_id)}</h1>",
        f"<p><b>{_safe(report.stage)}</b>: {_safe(report.reason)}</p>",
        f"<p>{_safe(f'{report.control} to {report.candidate} of {report.model_id}. {_begun(report)}')}</p>",
        "<h2>What changed</h2>",
        _table(("field", "before", "after"), _changes(report)),
        "<h2>Gates</h2>",
        _table(("gate", "verdict", "evidence"), _gates(report)),
        *_shadow_html(report, shown),
        "<h2>Canary</h2>",
        *[f"<p>{_safe(line)}</p>" for line in _canary_lines(report)],
        plot_share(report.timeline),
        "<h2>Timeline</h2>",
        _table(("at", "who", "stage", "share", "why"), _timeline(report)),
    ]
    title = _safe(f"Rollout {report.rollout_id}: {report.stage}")
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    return head + "\n".join(parts) + "</html>\n"


def plot_share(timeline: Sequence[JournalEntry]) -> str:
    """Return an SVG of the candidate's share of the traffic over time, in percent."""
    if len(timeline) < 2:
        return ""
    first, last = timeline[0].at, timeline[-1].at
    span = max(1.0, (last - first).total_seconds())
    points: list[str] = []
    height = _HEIGHT - 2 * _EDGE
    before = 0.0
    for entry in timeline:
        x = _EDGE + (_WIDTH - 2 * _EDGE) * (entry.at - first).total_seconds() / span
        points += [f"{x:.1f},{_EDGE + height * (1 - value / 100):.1f}" for value in (before, entry.weight)]
        before = entry.weight
    lines = "".join(
        f'<line x1="{_EDGE}" x2="{_WIDTH - _EDGE}" y1="{y}" y2="{y}" stroke="#ddd"/>'
        f'<text x="2" y="{y + 4}" font-size="11">{percent} %</text>'
        for percent, y in ((0, _EDGE + height), (50, _EDGE + height // 2), (100, _EDGE))
    )
    label = f'<text x="{_EDGE}" y="{_HEIGHT - 6}" font-size="11">{first:%H:%M:%S} to {last:%H:%M:%S} UTC</text>'
    path = f'<polyline points="{" ".join(points)}" fill="none" stroke="#2457c5" stroke-width="2"/>'
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="share of the traffic">{lines}{path}{label}</svg>'
    )


def plot_divergences(report: Report) -> str:
    """Return an SVG of each request's distance (candidate) beside the control's own noise, in tolerances."""
    items = report.shadow.divergences
    if not items:
        return ""
    top = max(2.0, *(min(50.0, max(item.excess, item.noise or 0.0)) for item in items))
    height = 16 * len(items) + 30
    scale = (_WIDTH - 200) / top
    bars: list[str] = []
    for number, item in enumerate(items):
        y = 6 + 16 * number
        bars += [
            f'<text x="0" y="{y + 10}" font-size="11">{_safe(item.request_id[-12:])}</text>',
            f'<rect x="100" y="{y}" width="{scale * min(top, item.excess):.1f}" height="6" fill="#c0392b"/>',
            f'<rect x="100" y="{y + 7}" width="{scale * min(top, item.noise or 0.0):.1f}" height="4" fill="#888"/>',
        ]
    edge = f'<line x1="{100 + scale:.1f}" x2="{100 + scale:.1f}" y1="0" y2="{height - 24}" stroke="#2457c5"/>'
    said = f'<text x="100" y="{height - 8}" font-size="11">red: candidate; grey: control again; line: tolerance</text>'
    label = "distance of each request in tolerances"
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{label}">{"".join(bars)}{edge}{said}</svg>'


def _begun(report: Report) -> str:
    said = f"Begun {report.started_at:%Y-%m-%d %H:%M} UTC by {report.started_by}."
    return said if report.ended else f"{said} It is still running."


def _changes(report: Report) -> list[tuple[str, ...]]:
    return [(item.field, _value(item.before), _value(item.after)) for item in report.changes]


def _gates(report: Report) -> list[tuple[str, ...]]:
    return [(item.gate, item.verdict.value, item.evidence) for item in report.gates]


def _timeline(report: Report) -> list[tuple[str, ...]]:
    return [
        (f"{item.at:%Y-%m-%d %H:%M:%S}", item.actor, item.stage.value, f"{item.weight:g} %", item.reason)
        for item in report.timeline
    ]


def _shadow_lines(report: Report) -> list[str]:
    part = report.shadow
    if not part.said:
        return ["There was no shadow."]
    left_out = "; ".join(f"{count} left out: {why}" for why, count in part.left_out)
    return [
        f"{part.said}: {part.reason}",
        f"Expected: {part.expect}. {part.compared} requests compared, {part.differing} differ beyond the noise.",
        f"Evidence {part.log_capital:.1f} of {part.alarm_at:.1f}, logarithms: at the second it is stopped.",
        f"{part.spent_seconds:.1f} of {part.budget_seconds:g} device-seconds spent.",
        *([left_out] if left_out else []),
    ]


def _divergences(report: Report) -> list[tuple[str, ...]]:
    return [
        (item.request_id, item.stratum, item.said, item.measure, f"{item.excess:.2f}", _noise(item))
        for item in report.shadow.divergences
    ]


def _noise(item: Divergence) -> str:
    return "not asked" if item.noise is None else f"{item.noise:.2f}"


_DIVERGENCE_COLUMNS = ("request", "endpoint and size", "says", "measure", "candidate", "control's noise")


def _shadow_markdown(report: Report, sheets: Mapping[str, str]) -> list[str]:
    lines = ["", "## Shadow", "", *_shadow_lines(report)]
    if report.shadow.divergences:
        lines += ["", *_rows(_DIVERGENCE_COLUMNS, _divergences(report))]
    for item in report.shadow.divergences:
        if item.request_id in sheets:
            lines += ["", f"![{item.request_id}]({sheets[item.request_id]})"]
    return lines


def _shadow_html(report: Report, sheets: Mapping[str, bytes]) -> list[str]:
    parts = ["<h2>Shadow</h2>", *[f"<p>{_safe(line)}</p>" for line in _shadow_lines(report)]]
    if report.shadow.divergences:
        parts += [plot_divergences(report), _table(_DIVERGENCE_COLUMNS, _divergences(report))]
    for item in report.shadow.divergences:
        if item.request_id in sheets:
            data = base64.b64encode(sheets[item.request_id]).decode()
            parts.append(f'<p><img alt="{_safe(item.request_id)}" src="data:image/png;base64,{data}"></p>')
    return parts


def _canary_lines(report: Report) -> list[str]:
    part = report.canary
    if not part.candidate_requests:
        return ["No request of a caller ended on the candidate."]
    return [
        f"{part.candidate_requests:,} requests of the candidate, {part.control_requests:,} of the control.",
        f"Evidence of harm {part.log_capital:.1f} of {part.alarm_at:.1f}, logarithms: at the second it is rolled back.",
        f"Exposure: {part.excess:.1f} of {part.allowance:g} bad answers granted.",
        *([f"Worst: {part.worst}"] if part.worst else []),
        *[f"Speaks most against it: {item}" for item in part.suspects],
        *[f"Not proved within its margin: {item}" for item in part.unproved],
    ]


def _canary_markdown(report: Report) -> list[str]:
    return ["", "## Canary", "", *[f"- {line}" for line in _canary_lines(report)]]


def _section(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], empty: str) -> list[str]:
    return ["", f"## {title}", "", *(_rows(columns, rows) if rows else [empty])]


def _rows(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return [line(columns), "|" + "---|" * len(columns), *[line(row) for row in rows]]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{_safe(name)}</th>" for name in columns)
    body = "".join("<tr>" + "".join(f"<td>{_safe(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>" if rows else "<p>none</p>"


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _safe(text: str) -> str:
    return html.escape(text, quote=True)
