"""`forestay rollout report` and `replay`: a rollout as a page, and whether its verdicts follow from what is stored."""

import enum
import pathlib
from typing import Annotated, cast

import msgspec
import typer

from forestay.cli.client import PlatformClient, Rejected, connect
from forestay.cli.output import JSON_OPTION, print_document, print_json, print_table, say
from forestay.errors import UsageError
from forestay.rollouts.report import Report

_ID = typer.Argument(help="The rollout's id, or owner/alias for the model's newest.")


class Format(enum.StrEnum):
    """In which form a report is written."""

    MD = "md"
    JSON = "json"
    HTML = "html"


def report(
    rollout: Annotated[str, _ID],
    form: Annotated[Format, typer.Option("--format", help="md, json, or html: whole in one file.")] = Format.MD,
    out: Annotated[pathlib.Path | None, typer.Option(help="Write it here; pictures lie beside Markdown.")] = None,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Show what a rollout was: what changed, every gate, the shadow with its pictures, the canary, every step.

    Example: forestay rollout report forestay/digits --format html --out rollout.html
    """
    from forestay.cli.rollout import name_of
    from forestay.rollouts.report_pages import render_html, render_markdown

    client = connect()
    name = name_of(rollout)
    facts = client.get(f"/admin/rollouts/{name}/report")
    if json or form is Format.JSON:
        _write(msgspec.json.format(msgspec.json.encode(facts)).decode() + "\n", out)
        return
    page = msgspec.convert(facts, Report, strict=False)
    pictures = _sheets(client, name, page) if form is Format.HTML or out is not None else {}
    if form is Format.HTML:
        _write(render_html(page, pictures), out)
        return
    links: dict[str, str] = {}
    if out is not None:
        for request_id, data in pictures.items():
            picture = out.with_name(f"{out.stem}-{request_id}.png")
            picture.write_bytes(data)
            links[request_id] = picture.name
    _write(render_markdown(page, links), out)


def replay(rollout: Annotated[str, _ID], json: Annotated[bool, JSON_OPTION] = False) -> None:
    """Recompute a rollout's verdicts from the stored observations; exit code 1 when they are not those decided.

    Example: forestay rollout replay forestay/digits
    """
    from forestay.cli.rollout import name_of

    told = cast("dict[str, object]", connect().post(f"/admin/rollouts/{name_of(rollout)}/replay"))
    if json:
        print_json(told)
    else:
        parts = cast("list[dict[str, object]]", told["parts"])
        rows = [(item["part"], item["stored"], item["again"], "yes" if item["agrees"] else "NO") for item in parts]
        print_table(("part", "decided by", "follows now", "agrees"), rows, empty="it has judged nothing yet")
    if not told["agrees"]:
        raise typer.Exit(1)


def _sheets(client: PlatformClient, name: str, page: Report) -> dict[str, bytes]:
    """Fetch the pictures of a shadow, as far as this key may see them."""
    found: dict[str, bytes] = {}
    for item in page.shadow.divergences:
        if item.has_sheet:
            try:
                found[item.request_id] = client.get_bytes(f"/admin/rollouts/{name}/sheets/{item.request_id}")
            except Rejected as error:
                say(f"no pictures: {error}", err=True)
                return found
    return found


def _write(text: str, out: pathlib.Path | None) -> None:
    if out is None:
        print_document(text)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError("--out", f"{out} cannot be written: {error.strerror}") from None
    say(str(out))
