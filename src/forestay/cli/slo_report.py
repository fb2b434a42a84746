"""`forestay slo report`: one tenant's month, as its customer may read it."""

import enum
import pathlib
import urllib.parse
from typing import Annotated

import msgspec
import typer

from forestay.cli.client import connect
from forestay.cli.output import JSON_OPTION, print_document, say
from forestay.errors import UsageError


class Format(enum.StrEnum):
    """In which form a report is written."""

    MD = "md"
    JSON = "json"
    HTML = "html"


def register(app: typer.Typer) -> None:
    """Add the command to `forestay slo`."""
    app.command()(report)


def report(
    tenant: Annotated[str, typer.Option("--tenant", help="Whose month.")],
    month: Annotated[str, typer.Option("--month", help="The calendar month in UTC, such as 2026-11.")],
    form: Annotated[Format, typer.Option("--format", help="md, json, or html: whole in one file, fit to print.")] = (
        Format.MD
    ),
    out: Annotated[pathlib.Path | None, typer.Option("--out", help="Write it here instead of printing it.")] = None,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Tell a customer how their month was: availability, latency, budgets, credits, and what is not counted.

    Example: forestay slo report --tenant acme --month 2026-11 --format html --out acme-2026-11.html
    """
    from forestay.slo.customer_pages import render_html, render_json, render_markdown
    from forestay.slo.customer_report import CustomerReport, month_of

    try:
        wanted = month_of(month).name
    except UsageError as error:
        raise UsageError("--month", error.message) from None
    if not tenant:
        raise UsageError("--tenant", "is empty; name one of `forestay tenant list`")
    path = f"/admin/tenants/{urllib.parse.quote(tenant, safe='')}/slo-report"
    facts = msgspec.convert(connect().get(path, {"month": wanted}), CustomerReport, strict=False)
    render = {Format.MD: render_markdown, Format.JSON: render_json, Format.HTML: render_html}
    text = render[Format.JSON if json else form](facts)
    if out is None:
        print_document(text)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError("--out", f"{out} cannot be written: {error.strerror}") from None
    say(str(out))
