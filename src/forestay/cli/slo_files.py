"""`forestay slo lint|export|import|schema|what-if`: objectives as files, without a platform."""

import json as encoder
import pathlib
from collections.abc import Sequence
from typing import Annotated, Literal, cast

import typer

from forestay.cli.durations import seconds_of
from forestay.cli.output import JSON_OPTION, print_document, print_json, print_table, say
from forestay.errors import UsageError
from forestay.fleet.spec_yaml import SpecError
from forestay.slo.lint import Level, Surroundings, lint_slos
from forestay.slo.minutes_file import read_incidents, read_minutes
from forestay.slo.model import Slo
from forestay.slo.openslo import Loss, import_openslo
from forestay.slo.openslo_export import export_openslo
from forestay.slo.prometheus import render_rules
from forestay.slo.promtool_tests import render_tests
from forestay.slo.replay import Caught, Episode, Replay, catches, replay
from forestay.slo.slo_file import json_schema, read_slos
from forestay.slo.slo_text import render_slos, values_of

_FILE = typer.Argument(help="SLOs, in YAML.")


def register(app: typer.Typer) -> None:
    """Add these commands to `forestay slo`."""
    app.command()(lint)
    app.command(name="export")(export_slos)
    app.command(name="import")(import_slos)
    app.command()(schema)
    app.command(name="what-if")(what_if)


def lint(
    file: Annotated[pathlib.Path, _FILE],
    requests_per_hour: Annotated[float | None, typer.Option(min=0.01, help="Traffic that each SLO sees.")] = None,
    retention: Annotated[str, typer.Option(help="How long counts are kept, such as 35d.")] = "",
    histogram_buckets: Annotated[str, typer.Option(help="Buckets of your histogram, in seconds: 0.5,1,2.5.")] = "",
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Check SLOs: form, and whether they can work; exit 2 on faults of form, 1 on an error of sense.

    Example: forestay slo lint slos.yaml --requests-per-hour 30 --retention 35d
    """
    slos = read_slo_file(file)
    known = Surroundings(
        requests_per_hour,
        seconds_of("--retention", retention) // 60 if retention else None,
        _buckets(histogram_buckets) if histogram_buckets else None,
    )
    flaws = lint_slos(slos, known)
    if json:
        print_json([{"slo": f.slo_id, "level": f.level, "check": f.check, "says": f.says} for f in flaws])
    else:
        for flaw in flaws:
            say(f"{flaw.level}: {flaw.slo_id}: {flaw.says}")
        say(f"{file}: {len(slos)} SLOs, {len(flaws)} remarks")
    if any(flaw.level is Level.ERROR for flaw in flaws):
        raise typer.Exit(1)


def export_slos(
    file: Annotated[pathlib.Path, _FILE],
    to: Annotated[Literal["openslo", "prometheus"], typer.Option(help="openslo: documents; prometheus: rules.")],
    tests: Annotated[
        pathlib.Path | None, typer.Option(help="prometheus: also write tests for promtool there; needs --out.")
    ] = None,
    out: Annotated[pathlib.Path | None, typer.Option(help="Write there instead of printing.")] = None,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Hand SLOs on; what can't be said there is listed on standard error.

    Example: forestay slo export slos.yaml --to prometheus --out rules.yaml --tests rules.test.yaml
    """
    if tests is not None and (to != "prometheus" or out is None):
        raise UsageError("--tests", "goes with --to prometheus and --out FILE, which the tests name")
    slos = read_slo_file(file)
    text, losses = export_openslo(slos) if to == "openslo" else render_rules(slos)
    if out is not None:
        _write(out, text)
    if tests is not None and out is not None:
        _write(tests, render_tests(slos, out.name))
    if json:
        print_json({"text": text, "losses": _told(losses)})
        return
    if out is None:
        print_document(text)
    _tell(losses)


def import_slos(
    file: Annotated[pathlib.Path, typer.Argument(help="OpenSLO v1 documents, in YAML.")],
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Take SLOs over from OpenSLO v1; prints our format, and on standard error what was lost or guessed.

    Example: forestay slo import openslo.yaml > slos.yaml
    """
    text = _read(file)
    try:
        found = import_openslo(text, file.name)
    except SpecError as error:
        raise _faults(file, error) from None
    if json:
        print_json({"slos": [values_of(slo) for slo in found.slos], "losses": _told(found.losses)})
        return
    print_document(render_slos(found.slos))
    _tell(found.losses)


def schema(json: Annotated[bool, JSON_OPTION] = False) -> None:
    """Print the JSON Schema of a file of SLOs, for your editor.

    Example: forestay slo schema > slos.schema.json
    """
    del json  # a schema is JSON either way
    say(encoder.dumps(json_schema(), indent=2))


def what_if(
    file: Annotated[pathlib.Path, _FILE],
    buckets: Annotated[pathlib.Path, typer.Option(help="CSV: minute,good,bad[,probes_good,probes_bad,missing].")],
    incidents: Annotated[pathlib.Path | None, typer.Option(help="CSV of past incidents: name,from,until.")] = None,
    against: Annotated[pathlib.Path | None, typer.Option(help="SLOs as they are now, to compare with.")] = None,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Run SLOs over minutes of the past: what would they have said, and which incidents caught, and when.

    Example: forestay slo what-if new.yaml --buckets minutes.csv --incidents incidents.csv --against slos.yaml
    """
    try:
        minutes = read_minutes(_read(buckets), buckets.name)
        past = read_incidents(_read(incidents), incidents.name) if incidents is not None else ()
    except SpecError as error:
        raise _faults(buckets if incidents is None else incidents, error) from None
    told: list[dict[str, object]] = []
    for source in (file, *([against] if against is not None else [])):
        for found in replay(read_slo_file(source), minutes):
            caught, others = catches(found, past)
            told.append(_replayed(source, found, caught, others))
    if json:
        print_json(told)
        return
    columns = ("file", "slo", "pages", "tickets", "worst_spent", "spent", *(["caught", "pages_else"] if past else []))
    print_table(columns, [[row[column] for column in columns] for row in told])
    for row in told:
        notes = [f"note: {said}" for said in cast("list[str]", row["says"])]
        for line in (*cast("list[str]", row["incidents"]), *notes):
            say(f"{row['file']}: {row['slo']}: {line}")


def read_slo_file(file: pathlib.Path) -> tuple[Slo, ...]:
    """Read a file of SLOs; raises UsageError after every fault was told on a line of its own."""
    try:
        return read_slos(_read(file), file.name)
    except SpecError as error:
        raise _faults(file, error) from None


def _replayed(
    source: pathlib.Path, found: Replay, caught: Sequence[Caught], others: Sequence[Episode]
) -> dict[str, object]:
    pages = [item for item in found.episodes if item.severity == "page"]
    return {
        "file": source.name,
        "slo": found.slo_id,
        "pages": len(pages),
        "tickets": len(found.episodes) - len(pages),
        "worst_spent": f"{found.worst_spent_ratio:.1%}",
        "spent": f"{found.last_spent_ratio:.1%}",
        "caught": f"{sum(item.severity is not None for item in caught)} of {len(caught)}",
        "pages_else": len(others),
        "incidents": [_incident(item) for item in caught],
        "says": list(found.says),
    }


def _incident(item: Caught) -> str:
    if item.severity is None:
        return f"{item.incident}: not caught"
    return f"{item.incident}: {item.severity} after {item.after_minutes} min"


def _buckets(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError("--histogram-buckets", f"{text!r} is no list of seconds such as 0.5,1,2.5") from None


def _read(file: pathlib.Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("FILE", f"{file} cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None


def _write(file: pathlib.Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError("--out", f"{file} cannot be written: {error.strerror}") from None


def _faults(file: pathlib.Path, error: SpecError) -> UsageError:
    for fault in error.faults:
        say(fault, err=True)
    return UsageError("FILE", f"{file} has faults, the first of {len(error.faults)}: {error.faults[0]}")


def _told(losses: Sequence[Loss]) -> list[dict[str, str]]:
    return [{"slo": loss.slo, "field": loss.field, "says": loss.says} for loss in losses]


def _tell(losses: Sequence[Loss]) -> None:
    for loss in losses:
        say(f"{loss.slo}: {loss.field}: {loss.says}", err=True)
