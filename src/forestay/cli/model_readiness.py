"""`forestay model readiness`, `admit` and `waive`: a score card, letting a model in, accepting a fault for a while."""

from typing import Annotated, cast

import typer

from forestay.cli.client import connect
from forestay.cli.output import JSON_OPTION, print_json, print_table, say
from forestay.errors import UsageError
from forestay.ids import is_model_id

_MODEL = typer.Argument(help="owner/alias.")
Told = dict[str, object]


def readiness(model: Annotated[str, _MODEL], json: Annotated[bool, JSON_OPTION] = False) -> None:
    """Review a model now: every item with its evidence and its mend; exit code 1 when it is not ready.

    Example: forestay model readiness forestay/digits
    """
    _show(cast("Told", connect().get(f"/admin/models/{_checked(model)}/readiness")), json=json)


def admit(
    model: Annotated[str, _MODEL],
    reason: Annotated[str, typer.Option("--reason", help="Why; the audit log keeps it.")] = "",
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Let a model in when it is ready; else say exactly what is missing, and exit with 1.

    Example: forestay model admit forestay/digits --reason "reviewed"
    """
    client, name = connect(), _checked(model)
    card = cast("Told", client.get(f"/admin/models/{name}/readiness"))
    if not card["ready"]:
        _show(card, json=json)
    told = cast("Told", client.post(f"/admin/models/{name}/admit", {"reason": reason}))
    if json:
        print_json(told)
        return
    say(f"{name} is admitted by {told['admitted_by']}")


def waive(
    model: Annotated[str, _MODEL],
    item: Annotated[str, typer.Argument(help="The item, as `model readiness` names it.")],
    owner: Annotated[str, typer.Option("--owner", help="Who answers for it.")],
    reason: Annotated[str, typer.Option("--reason", help="Why it is accepted.")],
    until: Annotated[str, typer.Option("--until", help="The last day, such as 2027-01-31; within 180 days.")],
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Accept for a while that an item does not pass; the card goes on showing it.

    Example: forestay model waive forestay/digits signature --owner ada --reason "key in January" --until 2027-01-31
    """
    body = {"item": item, "owner": owner, "reason": reason, "until": until}
    told = cast("Told", connect().post(f"/admin/models/{_checked(model)}/waivers", body))
    if json:
        print_json(told)
        return
    say(f"{item} of {model} is waived until {until} ({owner})")


def _show(card: Told, *, json: bool) -> None:
    if json:
        print_json(card)
    else:
        print_card(card)
    if not card["ready"]:
        raise typer.Exit(1)


def print_card(card: Told) -> None:
    """Print a score card for people."""
    rows = [_row(item) for item in cast("list[Told]", card["items"])]
    print_table(("area", "item", "says", "evidence", "what mends it"), rows)
    since = f", not ready since {card['unready_since']}" if card["unready_since"] else ""
    state = f"admitted by {card['admitted_by']}{since}" if card["admitted_at"] else "not admitted yet"
    say(f"{card['model_id']} is {'ready' if card['ready'] else 'not ready'}; {state}")


def readiness_told(standing: Told) -> str:
    """Return how readiness stands in a few words: `rotted for 3 h (reviewed 4 min ago)`."""
    if "reviewed_seconds_ago" not in standing:
        return str(standing["state"])
    unready = standing["unready_seconds"]
    since = f" for {age(float(str(unready)))}" if unready is not None else ""
    return f"{standing['state']}{since} (reviewed {age(float(str(standing['reviewed_seconds_ago'])))} ago)"


def age(seconds: float) -> str:
    """Return a span of time in its largest unit."""
    for unit, length in (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _row(item: Told) -> tuple[object, ...]:
    waived = cast("Told | None", item["waived"])
    says = f"{item['answer']}, waived until {waived['until']} ({waived['owner']})" if waived else item["answer"]
    return item["area"], item["item"], says, item["evidence"], item["mend"]


def _checked(model: str) -> str:
    if not is_model_id(model):
        raise UsageError("model", f"{model!r} is not owner/alias")
    return model
