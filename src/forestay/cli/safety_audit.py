"""`forestay safety audit list|label|estimate`: a random sample of released outputs, looked at once more."""

from typing import Annotated, cast

import typer

from forestay.cli.client import connect
from forestay.cli.output import JSON_OPTION, print_json, print_table, say

app = typer.Typer(no_args_is_help=True, help="Look again at a random sample of what was released: how much is wrong?")
Row = dict[str, object]
_COLUMNS = ("request_id", "model_id", "tenant_id", "released_at", "verdict", "policy_id", "policy_version")


def register(parent: typer.Typer) -> None:
    """Add these commands to `forestay safety`."""
    parent.add_typer(app, name="audit")


@app.command(name="list")
def list_due(
    since: Annotated[str, typer.Option(help="Released since, such as 2026-11-20T00:00:00Z; a week.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=200, help="At most so many.")] = 20,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """List sampled outputs that nobody has looked at, in the order of the sample; `forestay request result` shows one.

    Example: forestay safety audit list --limit 5
    """
    asked = {"limit": str(limit), **({"since": since} if since else {})}
    found = cast("dict[str, list[Row]]", connect().get("/admin/safety/audits", asked))["due"]
    if json:
        print_json(found)
        return
    rows = [tuple(row[name] for name in _COLUMNS) for row in found]
    print_table(_COLUMNS, rows, empty="nothing of the sample waits to be looked at")


@app.command()
def label(
    request: Annotated[str, typer.Argument(help="A request of the sample.")],
    reason: Annotated[str, typer.Option("--reason", help="What was seen; kept with the label and in the audit log.")],
    wrong: Annotated[bool, typer.Option("--wrong/--right", help="Whether it should not have gone out.")],
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Say of one sampled output whether it should have gone out; a label is kept once and never edited.

    Example: forestay safety audit label 0195f0a2-7c1a-7000-8000-0123456789ab --right --reason "a landscape"
    """
    done = connect().post(f"/admin/safety/audits/{request}", {"wrong": wrong, "reason": reason})
    if json:
        print_json(done)
    else:
        say(f"{request}: kept as {'wrong' if wrong else 'right'}")


@app.command()
def estimate(
    model: Annotated[str, typer.Option(help="Of this model only.")] = "",
    tenant: Annotated[str, typer.Option(help="Of this tenant only.")] = "",
    since: Annotated[str, typer.Option(help="Released since; 30 days.")] = "",
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Tell how many releases were wrong, by the labels: the share, its interval at 95 %, and what would halve it.

    Example: forestay safety audit estimate --model forestay/digits
    """
    asked = {name: value for name, value in (("model", model), ("tenant", tenant), ("since", since)) if value}
    told = cast("Row", connect().get("/admin/safety/audits/estimate", asked or None))
    if json:
        print_json(told)
    else:
        say(str(told["words"]))
