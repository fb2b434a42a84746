"""`forestay doctor`: check what the platform needs, and say how to mend it."""

import asyncio
import dataclasses
import pathlib
from typing import TYPE_CHECKING, Annotated

import typer

from forestay.cli.output import JSON_OPTION, print_json, say
from forestay.settings import Settings, process_environment

if TYPE_CHECKING:
    from forestay.doctor import Finding

app = typer.Typer()

_COLOURS = {"ok": typer.colors.GREEN, "warning": typer.colors.YELLOW, "failure": typer.colors.RED}


@app.command()
def doctor(
    data_dir: Annotated[
        pathlib.Path | None, typer.Option(help="Examine the platform on this data folder as well.")
    ] = None,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Check each dependency and say how to mend it; exits 1 when something will not work.

    Example: forestay doctor --data-dir ./data
    """
    from forestay.chance import SystemChance
    from forestay.clock import SystemClock
    from forestay.data_dir import DataDir
    from forestay.doctor import Patient, examine

    settings = Settings.from_environment(process_environment())
    patient = Patient(settings, DataDir(data_dir) if data_dir else None, SystemClock(), SystemChance())
    findings = asyncio.run(examine(patient))
    failed = sum(finding.health == "failure" for finding in findings)
    if json:
        print_json({"healthy": not failed, "findings": [dataclasses.asdict(finding) for finding in findings]})
    else:
        _print(findings, failed)
    raise typer.Exit(1 if failed else 0)


def _print(findings: "list[Finding]", failed: int) -> None:
    drab = bool(process_environment().get("NO_COLOR"))  # no-color.org: any text but an empty one
    for finding in findings:
        mark = finding.health.value
        typer.secho(f"{mark:<8}", fg=None if drab else _COLOURS[mark], nl=False)
        say(f" {finding.check:<18} {finding.found}")
        if finding.mend and mark != "ok":
            say(f"{'':<8} {'':<18} -> {finding.mend}")
    warned = sum(finding.health == "warning" for finding in findings)
    say(f"{len(findings)} checks, {failed} failures, {warned} warnings")
