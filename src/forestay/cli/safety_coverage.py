"""`forestay safety coverage`: who covers what, and what each policy in force, or one in a file, leaves to nobody.

The platform says which detectors it has and what its policies rest on; a file is held against the same here. What a gap
is, `safety/coverage` says.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Annotated, cast

import typer

from forestay.cli.client import connect
from forestay.cli.output import JSON_OPTION, print_json, print_table, say
from forestay.cli.safety_policy import read_text
from forestay.errors import Refused
from forestay.safety.coverage import gaps, unnamed
from forestay.safety.model import DetectorInfo
from forestay.safety.policy_file import read_policy
from forestay.safety.taxonomy import Category, Modality

Row = dict[str, object]
_COLUMNS = ("policy", "version", "modality", "names", "does not name: nobody judges it")


def register(app: typer.Typer) -> None:
    """Add the command to `forestay safety`."""
    app.command(name="coverage")(coverage)


def coverage(
    policy: Annotated[
        pathlib.Path | None,
        typer.Option(help="A policy in YAML to hold against these detectors; exit 1 for gaps."),
    ] = None,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Show which detector covers which category in which modality, and what each policy in force leaves unjudged.

    Example: forestay safety coverage --policy mine.yaml
    """
    shown = cast("dict[str, list[Row]]", connect().get("/admin/safety/coverage"))
    if policy is not None:
        shown["policies"] = [*shown["policies"], _of_file(policy, shown)]
    if json:
        print_json(shown)
    else:
        _print(shown)
    if policy is not None and shown["policies"][-1]["gaps"]:
        raise Refused(f"{policy} rests on nobody; it would not be taken")


def _of_file(file: pathlib.Path, shown: Mapping[str, Sequence[Row]]) -> Row:
    """Say of a file what the platform says of its policies."""
    wanted = read_policy(read_text(file), "file", 0, str(file))
    found = [
        {"category": gap.category.value, "modality": gap.modality.value, "reason": gap.reason}
        for gap in gaps(wanted, _detectors(shown))
    ]
    said = {modality.value: [category.value for category in left] for modality, left in unnamed(wanted).items()}
    return {"policy_id": str(file), "version": None, "live": False, "usable": True, "gaps": found, "unnamed": said}


def _detectors(shown: Mapping[str, Sequence[Row]]) -> list[DetectorInfo]:
    """Put detectors back together from the cells of the matrix."""
    covers: dict[str, dict[Modality, frozenset[Category]]] = {str(row["detector"]): {} for row in shown["detectors"]}
    for cell in shown["cells"]:
        modality, category = Modality(str(cell["modality"])), Category(str(cell["category"]))
        for name in cast("list[str]", cell["detectors"]):
            covered = covers.setdefault(name, {})
            covered[modality] = covered.get(modality, frozenset()) | {category}
    return [DetectorInfo(name, "", covered, costly=False) for name, covered in covers.items()]


def _print(shown: Mapping[str, Sequence[Row]]) -> None:
    rows: dict[str, dict[str, str]] = {}
    for cell in shown["cells"]:
        names = ", ".join(cast("list[str]", cell["detectors"]))
        rows.setdefault(str(cell["category"]), {})[str(cell["modality"])] = names or "-"
    columns = [modality.value for modality in Modality]
    print_table(("category", *columns), [[name, *(row[column] for column in columns)] for name, row in rows.items()])
    say()
    print_table(_COLUMNS, [line for row in shown["policies"] for line in _named(row)])
    for away in shown["left_out"]:
        mend = f"pip install 'forestay[{away['extra']}]' where the judge runs"
        say(f"{away['detector']} is not there: {mend}", err=True)
    for row in shown["policies"]:
        if not row["usable"]:
            why = "cannot be used (its seal does not hold, or it cannot be read): what it should judge is not released"
            say(f"{_name(row)} {why}", err=True)
        for gap in cast("list[Row]", row["gaps"]):
            say(f"{_name(row)} rests on nobody: {gap['category']} in {gap['modality']}: {gap['reason']}", err=True)


def _named(row: Row) -> list[tuple[object, ...]]:
    """Return a line for each modality: what a policy names there, and what it does not."""
    left = cast("dict[str, list[str]]", row["unnamed"])
    every = [category.value for category in Category]
    version = "" if row["version"] is None else f"{row['version']}{'' if row['live'] else ' (candidate)'}"
    return [
        (
            row["policy_id"],
            version,
            modality,
            "every category" if not missing else ", ".join(name for name in every if name not in missing),
            "every category" if len(missing) == len(every) else ", ".join(missing),
        )
        for modality, missing in left.items()
    ]


def _name(row: Row) -> str:
    return str(row["policy_id"]) if row["version"] is None else f"{row['policy_id']} {row['version']}"
