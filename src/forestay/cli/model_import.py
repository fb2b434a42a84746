"""`forestay model import`: specs for a folder of fal.Apps, or for a list of a provider's endpoints, and what is left.

The shell of `fleet/spec_import`: it reads and writes files, never over one that is there. It deploys nothing.
"""

import pathlib
from typing import Annotated

import typer

from forestay.cli.model_authoring import faults_of, write_spec
from forestay.cli.output import JSON_OPTION, print_json, print_table, say
from forestay.errors import UsageError
from forestay.fleet.spec_import import Made, apps_in, read_rows, render_provider
from forestay.fleet.spec_template import Identity

_MOST_FILES = 5_000
_MOST_BYTES = 1_000_000  # of a source file; a larger one is no app that a person wrote
_HIDDEN = frozenset({"node_modules", "__pycache__", "venv"})


def import_models(
    source: Annotated[pathlib.Path, typer.Argument(help="A folder of fal.App files, or a list: .csv or .yaml.")],
    out: Annotated[pathlib.Path | None, typer.Option(help="Folder of a list's specs; beside the list.")] = None,
    team: Annotated[str, typer.Option(help="Who owns them.")] = "",
    contact: Annotated[str, typer.Option(help="Where that team is reached.")] = "",
    escalation: Annotated[str, typer.Option(help="Who is called when the team does not answer.")] = "",
    licence: Annotated[str, typer.Option(help="Of code and weights.")] = "",
    intended_use: Annotated[str, typer.Option(help="Who is to use them, and for what.")] = "",
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Write a spec for each fal.App below a folder, or each endpoint of a list; says of each what is left to fill in.

    Example: forestay model import apps/ --team vision --contact "#vision" --escalation "vision on call"
    """
    usual = Identity("", team, contact, licence, escalation, intended_use)
    if source.is_dir():
        made = _of_folder(source, usual)
    elif source.is_file():
        made = _of_list(source, out or source.parent, usual)
    else:
        raise UsageError("SOURCE", f"{source} is neither a folder nor a file")
    told = [(str(file), state, faults_of(file)) for file, state in made]
    if json:
        print_json({"specs": [{"file": file, "state": state, "to_do": faults} for file, state, faults in told]})
        return
    rows = [(file, state, len(faults), _fields(faults)) for file, state, faults in told]
    print_table(("spec", "state", "left", "fields"), rows, empty=f"no fal.App below {source}")
    say(f"{len(told)} specs, {sum(not faults for _, _, faults in told)} whole")


def _of_folder(folder: pathlib.Path, usual: Identity) -> list[tuple[pathlib.Path, str]]:
    """Write specs beside the apps: `model.yaml` where a folder holds one app, else one named after file and class."""
    found = [(file, name) for file in _sources(folder) for name in apps_in(file.read_text("utf-8", "replace"))]
    made: list[tuple[pathlib.Path, str]] = []
    for file, name in found:
        alone = sum(other.parent == file.parent for other, _ in found) == 1
        target = file.parent / ("model.yaml" if alone else f"{file.stem}-{name}.yaml")
        if target.exists():
            made.append((target, "was there"))
            continue
        identity = {field: getattr(usual, field) for field in ("team", "contact", "licence", "escalation")}
        try:
            write_spec(f"{file}::{name}", target, {**identity, "intended_use": usual.intended_use})
        except UsageError as error:
            raise UsageError(str(file), f"{error.message}; move it out of the folder to import the rest") from None
        made.append((target, "written"))
    return made


def _sources(folder: pathlib.Path) -> list[pathlib.Path]:
    files = sorted(
        file
        for file in folder.rglob("*.py")
        if not any(part in _HIDDEN or part.startswith(".") for part in file.relative_to(folder).parts)
    )
    if len(files) > _MOST_FILES:
        raise UsageError("SOURCE", f"{folder} holds more than {_MOST_FILES:,} files of Python; name a smaller folder")
    return [file for file in files if file.is_file() and file.stat().st_size <= _MOST_BYTES]


def _of_list(source: pathlib.Path, out: pathlib.Path, usual: Identity) -> list[tuple[pathlib.Path, str]]:
    try:
        text = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("SOURCE", f"{source} cannot be read: {error}") from None
    specs = [render_provider(row, usual) for row in read_rows(text, str(source))]
    out.mkdir(parents=True, exist_ok=True)
    return [(out / spec.file, _written(out / spec.file, spec)) for spec in specs]


def _written(target: pathlib.Path, spec: Made) -> str:
    try:
        with target.open("x", encoding="utf-8") as stream:
            stream.write(spec.text)
    except FileExistsError:
        return "was there"
    return "written"


def _fields(faults: list[str]) -> str:
    """Return the fields that faults name: `file:line: field: mend`."""
    return ", ".join(fault.split(": ")[1] if ": " in fault else fault for fault in faults)
