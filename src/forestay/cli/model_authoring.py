"""`forestay model init` and `forestay model diff`: a first spec from an app's source, and what two specs differ in."""

import json as json_module
import pathlib
from collections.abc import Mapping

from forestay.cli.output import print_json, print_table, say
from forestay.errors import UsageError


def init_spec(app: str, out: pathlib.Path | None, identity: Mapping[str, str], *, json: bool) -> None:
    """Write a spec beside the app's file; never over one that is there."""
    target = out or pathlib.Path(app.partition("::")[0]).parent / "model.yaml"
    write_spec(app, target, identity)
    faults = faults_of(target)
    if json:
        print_json({"file": str(target), "to_do": faults})
        return
    say(f"wrote {target}")
    for fault in faults:
        say(f"to do: {fault}")


def write_spec(app: str, target: pathlib.Path, identity: Mapping[str, str]) -> None:
    """Write the spec of an app (`file.py` or `file.py::Class`) to a file that is not there yet."""
    from forestay.fleet.app_source import read_app
    from forestay.fleet.spec_template import Identity, render_spec

    name, _, wanted = app.partition("::")
    text = render_spec(read_app(_read(pathlib.Path(name)), name, wanted), name, Identity(**identity))
    try:
        with target.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise UsageError("--out", f"{target} is there already; name another file, or `forestay model diff`") from None
    except OSError as error:
        raise UsageError("--out", f"{target} cannot be written: {error.strerror}") from None


def faults_of(file: pathlib.Path) -> list[str]:
    """Return what is wrong with a spec, one fault a line with file, line, field and mend; empty when it is whole."""
    from forestay.fleet import spec_file
    from forestay.fleet.spec_yaml import SpecError

    try:
        spec_file.parse(_read(file), str(file))
    except SpecError as error:
        return list(error.faults)
    return []


def diff_specs(before: pathlib.Path, after: pathlib.Path, *, json: bool) -> None:
    """Say field by field what the second spec changes."""
    from forestay.fleet import spec_file
    from forestay.fleet.spec import spec_to_json
    from forestay.fleet.spec_changes import spec_changes

    old, new = (spec_to_json(spec_file.parse(_read(file), str(file))) for file in (before, after))
    changes = [{"field": field, "before": a, "after": b} for field, a, b in spec_changes(old, new)]
    if json:
        print_json({"changes": changes})
        return
    rows = [(item["field"], _shown(item["before"]), _shown(item["after"])) for item in changes]
    print_table(("field", "before", "after"), rows, empty="they say the same")


def _read(file: pathlib.Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(str(file), f"cannot be read: {reason}") from None


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json_module.dumps(value, default=str)
