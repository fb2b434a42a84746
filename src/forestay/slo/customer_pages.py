"""A customer's report as a page: Markdown for a mail, HTML for a browser or a printer, whole in one file. Pure.

It decides words and layout; every number is what `customer_report` says. Nothing is loaded from anywhere, and what
came from a person is escaped. Called by the command line.
"""

import html
from collections.abc import Iterable, Sequence

import msgspec

from forestay.slo.credits import DEFAULT_ORIGIN
from forestay.slo.customer_report import Availability, CustomerReport, DayLine, SampleLine, SloLine
from forestay.slo.model import CreditBand

_FLOORS = (0.999, 0.99, 0.95, 0.9, 0.5, 0.0)  # where the bars of the days begin: the highest that shows all of them
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 720, 150, 56, 8, 24
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:800px;margin:2em auto;padding:0 1em;color:#1c1c22}"
    "table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid #ccc;padding:.3em .6em;text-align:left;"
    "vertical-align:top}svg{width:100%}h2{margin-top:1.6em}"
    "@page{margin:18mm}@media print{body{margin:0;max-width:none;font-size:11pt}h2{break-after:avoid}"
    "tr,svg{break-inside:avoid}}"
)
Rows = Sequence[Sequence[str]]


def render_json(report: CustomerReport) -> str:
    """Return the report as JSON, shares of 1 and seconds as they are."""
    return msgspec.json.format(msgspec.json.encode(report)).decode() + "\n"


def render_markdown(report: CustomerReport) -> str:
    """Return the report in Markdown."""
    lines = [f"# {_mark(_title(report))}", "", *(f"{_mark(line)}\n" for line in _opening(report))]
    for title, columns, rows, empty in _sections(report):
        lines += [f"## {title}", ""]
        if rows:
            lines += [_row(columns), _row(["---"] * len(columns))]
            lines += [_row([_mark(cell) for cell in row]) for row in rows]
        else:
            lines.append(empty)
        lines.append("")
    return "\n".join(lines)


def render_html(report: CustomerReport) -> str:
    """Return the report in HTML, fit to be printed."""
    opening = [f"<p>{_safe(line)}</p>" for line in _opening(report)]
    parts = [f"<h1>{_safe(_title(report))}</h1>", *opening, "<h2>Day by day</h2>", plot_days(report.days)]
    for title, columns, rows, empty in _sections(report):
        parts += [f"<h2>{_safe(title)}</h2>", _table(columns, rows) if rows else f"<p>{_safe(empty)}</p>"]
    head = f'<meta charset="utf-8"><title>{_safe(_title(report))}</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>\n' + "\n".join(parts) + "\n</body></html>\n"


def plot_days(days: Sequence[DayLine]) -> str:
    """Return an SVG with a bar for each day's availability; a day without requests has a dot, an unseen one nothing."""
    worst = min((day.ratio for day in days if day.ratio is not None), default=1.0)
    floor = next((item for item in _FLOORS if item < worst), 0.0)
    height, step = _HEIGHT - _TOP - _BOTTOM, (_WIDTH - _LEFT) / max(1, len(days))
    bottom, drawn = _TOP + height, list[str]()
    for number, day in enumerate(days):
        x = _LEFT + number * step
        title = f"<title>{_safe(f'{day.date}: {_day(day)}')}</title>"
        if day.ratio is not None:
            tall = max(1.0, height * (day.ratio - floor) / (1.0 - floor))
            shape = f'<rect x="{x:.1f}" y="{bottom - tall:.1f}" width="{step * 0.8:.1f}" height="{tall:.1f}"'
            drawn.append(f'{shape} fill="{"#2457c5" if day.bad == 0 else "#8a4b08"}">{title}</rect>')
        elif day.state == "no_traffic":
            drawn.append(f'<circle cx="{x + step * 0.4:.1f}" cy="{bottom - 4}" r="2" fill="#666">{title}</circle>')
        if number % 5 == 0:
            drawn.append(f'<text x="{x:.1f}" y="{_HEIGHT - 6}" font-size="11">{_safe(day.date[8:])}</text>')
    axis = "".join(
        f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{y}" y2="{y}" stroke="#ccc"/>'
        f'<text x="0" y="{y + 8 if y == _TOP else y}" font-size="11">{share * 100:g} %</text>'
        for share, y in ((1.0, _TOP), (floor, bottom))
    )
    told = f"availability of each day, from {floor * 100:g} to 100 percent"
    svg = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{told}">{axis}{"".join(drawn)}</svg>'
    return f"{svg}<p>Bars begin at {floor * 100:g} %. A dot is a day without requests; the darker bars had faults.</p>"


def _title(report: CustomerReport) -> str:
    return f"Service report for {report.tenant_name}, {report.month}"


def _opening(report: CustomerReport) -> list[str]:
    until = f"{report.covers_until:%Y-%m-%d %H:%M}"
    status = "The month is complete." if report.finished else "Provisional: the month is not over."
    made = f"made {report.made_at:%Y-%m-%d %H:%M} UTC"
    return [
        f"Account {report.tenant_id}. From {report.covers_from:%Y-%m-%d %H:%M} to {until} UTC, {made}. {status}",
        f"Availability: {_available(report.availability)}.",
        f"Credit: {_credit(report)}",
        *report.notes,
    ]


def _credit(report: CustomerReport) -> str:
    credit, own = report.credit, report.credit.origin != DEFAULT_ORIGIN
    table = f"the table of {credit.slo_id} ({credit.origin})" if own else "the default table"
    counted = "" if credit.availability == report.availability else f", on {_available(credit.availability)}"
    adjusted = f" after adjustments of {credit.slo_id}" if counted else ""
    so_far = "" if report.finished else " so far"
    return f"{_percent(credit.credit_ratio)} of the month's fee{so_far}, by {table}{counted}{adjusted}."


def _sections(report: CustomerReport) -> Iterable[tuple[str, tuple[str, ...], Rows, str]]:
    none = "No request counted."
    yield (
        "Models",
        ("model", "availability", "good", "bad", "p50", "p95", "p99"),
        [
            (
                model.model_id,
                _percent(model.ratio),
                f"{model.good:,}",
                f"{model.bad:,}",
                *(_seconds(item) for item in (model.p50_seconds, model.p95_seconds, model.p99_seconds)),
            )
            for model in report.models
        ],
        none,
    )
    yield (
        "Error budgets",
        ("objective", "promised", "bad of all", "budget used", "budget left", "notes"),
        [_slo(line) for line in report.slos],
        "No objective is agreed for this account.",
    )
    yield (
        "Credits",
        ("availability of the month", "of the month's fee"),
        _bands(report.credit.bands),
        "No credit is agreed for this account.",
    )
    yield (
        "Failures that count against us",
        ("put down to", "requests", "of all that count", "what happened"),
        [(line.cause, f"{line.requests:,}", _percent(line.share), line.means) for line in report.failures],
        "None.",
    )
    yield (
        "Not counted, for or against",
        ("what", "requests", "of all requests", "why"),
        [(line.what, f"{line.requests:,}", _percent(line.share), line.why) for line in report.exclusions],
        "Nothing.",
    )
    yield (
        "Released outputs, looked at again (a sample)",
        ("looked at", "should not have gone out", "estimate of all", "by 95 % between"),
        [] if report.sample is None else [_sample(report.sample)],
        "None was looked at again: how many should not have gone out is not known.",
    )
    days = [(day.date, _day(day), f"{day.good:,}", f"{day.bad:,}") for day in report.days if day.state != "unseen"]
    yield "Days (UTC)", ("day", "availability", "good", "bad"), days, "No day is counted yet."


def _slo(line: SloLine) -> tuple[str, ...]:
    within = "" if line.threshold_seconds is None else f" within {line.threshold_seconds:g} s"
    counted = f"{line.bad:,} of {line.events:,}" if line.events else "no data"
    promised = f"{_percent(line.objective)} {line.measure.replace('_', ' ')}{within}"
    name = f"{line.slo_id}: {line.description}" if line.description else line.slo_id
    return name, promised, counted, _percent(line.used_ratio), _percent(line.left_ratio), "; ".join(line.says)


def _sample(line: SampleLine) -> tuple[str, ...]:
    between = f"{_share(line.low)} and {_share(line.high)}"
    return f"{line.looked_at:,}", f"{line.wrong:,}", _share(line.ratio), between


def _share(ratio: float) -> str:
    """Return an estimate in percent: it is known to no more digits than these."""
    return f"{ratio * 100:.3g} %"


def _bands(bands: Sequence[CreditBand]) -> Rows:
    return [(f"below {_percent(band.below_ratio)}", _percent(band.credit_ratio)) for band in bands]


def _available(one: Availability) -> str:
    if one.ratio is None:
        return "no request counted, neither good nor bad"
    return f"{_percent(one.ratio)} ({one.bad:,} of {one.good + one.bad:,} requests failed by a fault of ours)"


def _day(day: DayLine) -> str:
    words = {"unseen": "not counted yet", "no_traffic": "no requests"}
    if day.ratio is None:
        return words.get(day.state, "no requests so far")
    return _percent(day.ratio) + (" so far" if day.state == "partial" else "")


def _percent(ratio: float | None) -> str:
    """Return a share in percent, to three places and never rounded up to a whole that it is not."""
    if ratio is None:
        return "-"
    shown = f"{ratio * 100:.3f}"
    if shown == "100.000" and ratio < 1.0:
        shown = "99.999"
    return f"{shown.rstrip('0').rstrip('.')} %"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:g} s"


def _safe(text: str) -> str:
    return html.escape(text, quote=True)


def _mark(text: str) -> str:
    """Return a text that Markdown neither formats nor reads as HTML."""
    escaped = "".join(f"\\{letter}" if letter in r"\`*_[]|~" else letter for letter in text)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\n", " ")


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _table(columns: Sequence[str], rows: Rows) -> str:
    head = "".join(f"<th>{_safe(item)}</th>" for item in columns)
    body = "".join("<tr>" + "".join(f"<td>{_safe(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
