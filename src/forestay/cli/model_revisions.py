"""`forestay model revisions` and `set-back`: what a model was, what changed, and the way back."""

import json as json_module
from collections.abc import Sequence
from typing import Annotated, cast

import typer

from forestay.cli.client import connect
from forestay.cli.output import JSON_OPTION, print_json, print_table, say
from forestay.errors import UsageError
from forestay.fleet.spec_changes import spec_changes
from forestay.ids import is_model_id

_MODEL = typer.Argument(help="owner/alias.")
_MOST_FIELDS = 4
Told = dict[str, object]


def revisions(
    model: Annotated[str, _MODEL],
    pair: Annotated[
        list[str] | None, typer.Argument(metavar="[BEFORE AFTER]", help="Two revisions: only what differs.")
    ] = None,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """List a model's revisions, newest first, each with what it changed; or say field by field what two differ in.

    Example: forestay model revisions forestay/digits
    """
    found = _read(model)
    if pair:
        _diff(found, pair, model, json=json)
        return
    if json:
        print_json(found)
        return
    rows = [
        (item["revision_id"], item["created_at"], f"{item['percent']:g} %", "yes" if item["is_up"] else "no", told)
        for item, told in zip(found, _told_changes(found), strict=True)
    ]
    print_table(("revision", "created", "traffic", "is up", "changed"), rows)


def set_back(
    model: Annotated[str, _MODEL],
    revision: Annotated[str, typer.Argument(help="One of `forestay model revisions`.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; the audit log keeps it.")],
    at_once: Annotated[
        bool, typer.Option("--at-once", help="Do not wait for a replica of it; callers wait for its start.")
    ] = False,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Give a model's traffic back to one of its revisions: at once where it is still loaded, else once it is.

    Example: forestay model set-back forestay/digits digits-3f2a91c04b7d --reason "wrong colours"
    """
    body = {"revision_id": revision, "reason": reason, "at_once": at_once}
    told = cast("Told", connect().post(f"/admin/models/{_checked(model)}/set-back", body))
    if json:
        print_json(told)
        return
    when = "has the traffic once a replica of it is ready" if told["pending"] else "has the traffic"
    say(f"{told['revision_id']} {when}")


def changes_between(before: Told, after: Told) -> list[Told]:
    """Return what differs between two revisions, field by field; `files` stands for the bundle."""
    changed: list[Told] = [
        {"field": field, "before": old, "after": new} for field, old, new in spec_changes(before["spec"], after["spec"])
    ]
    if before["files"] != after["files"]:
        changed.append({"field": "files", "before": before["files"], "after": after["files"]})
    return changed


def _diff(found: Sequence[Told], pair: Sequence[str], model: str, *, json: bool) -> None:
    if len(pair) != 2:
        raise UsageError("BEFORE AFTER", "name two revisions, or none for the whole list")
    by_name = {str(item["revision_id"]): item for item in found}
    missing = [name for name in pair if name not in by_name]
    if missing:
        raise UsageError("BEFORE AFTER", f"{model} has no revision {missing[0]!r}; known are {', '.join(by_name)}")
    changed = changes_between(by_name[pair[0]], by_name[pair[1]])
    if json:
        print_json({"changes": changed})
        return
    rows = [(item["field"], _shown(item["before"]), _shown(item["after"])) for item in changed]
    print_table(("field", "before", "after"), rows, empty="they say the same")


def _told_changes(found: Sequence[Told]) -> list[str]:
    told: list[str] = []
    for number, item in enumerate(found):
        if number + 1 == len(found):
            told.append("the first")
            continue
        fields = [str(change["field"]) for change in changes_between(found[number + 1], item)]
        more = len(fields) - _MOST_FIELDS
        told.append(", ".join(fields[:_MOST_FIELDS]) + (f" and {more} more" if more > 0 else ""))
    return told


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json_module.dumps(value, default=str)


def _read(model: str) -> list[Told]:
    told = cast("Told", connect().get(f"/admin/models/{_checked(model)}/revisions"))
    return cast("list[Told]", told["revisions"])


def _checked(model: str) -> str:
    if not is_model_id(model):
        raise UsageError("model", f"{model!r} is not owner/alias")
    return model
