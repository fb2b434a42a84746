"""`forestay observe export`: a dashboard for your Grafana, and your routes for your Alertmanager; asks no platform."""

import enum
import json as json_module
import pathlib
from typing import Annotated

import typer

from forestay.cli.output import JSON_OPTION, print_json, say
from forestay.data_dir import write_private
from forestay.errors import UsageError


class Stack(enum.StrEnum):
    """What a file is made for."""

    GRAFANA = "grafana"
    ALERTMANAGER = "alertmanager"


def register(parent: typer.Typer) -> None:
    """Add the command to `forestay observe`."""
    parent.command()(export)


def export(
    folder: Annotated[pathlib.Path, typer.Argument(help="Where files are put; made if absent.")],
    to: Annotated[list[Stack], typer.Option("--to", help="grafana or alertmanager; repeatable.")],
    routes: Annotated[
        pathlib.Path | None, typer.Option(help="Of alertmanager: the file that FORESTAY_ALERT_ROUTES names.")
    ] = None,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Write files for the stack that you have: a dashboard of every metric, routes with what they lose there.

    The Alertmanager file holds addresses of receivers, and is readable by you alone.

    Example: forestay observe export --to grafana --to alertmanager --routes alerts.yaml ./stack
    """
    if Stack.ALERTMANAGER in to and routes is None:
        raise UsageError("--routes", "name the file of routes (docs/howto/get-alerted.md)")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = {stack.value: _write(stack, folder, routes) for stack in dict.fromkeys(to)}
    except OSError as error:
        raise UsageError("folder", f"{folder} cannot be written: {error.strerror}") from None
    if json:
        print_json({name: {"file": str(file), "lost": lost} for name, (file, lost) in written.items()})
        return
    for file, lost in written.values():
        say(f"wrote {file}")
        for line in lost:
            say(f"lost: {line}")


def _write(stack: Stack, folder: pathlib.Path, routes: pathlib.Path | None) -> tuple[pathlib.Path, list[str]]:
    match stack:
        case Stack.GRAFANA:
            return _write_dashboard(folder / "forestay-dashboard.json"), []
        case Stack.ALERTMANAGER:
            return _write_routes(folder / "alertmanager.yml", str(routes or ""))


def _write_dashboard(file: pathlib.Path) -> pathlib.Path:
    from forestay.telemetry.dashboards import grafana_dashboard
    from forestay.telemetry.metrics import table

    file.write_text(json_module.dumps(grafana_dashboard(table()), indent=2) + "\n", encoding="utf-8")
    return file


def _write_routes(file: pathlib.Path, routes: str) -> tuple[pathlib.Path, list[str]]:
    import yaml

    from forestay.alerts.alertmanager_config import alertmanager_config, losses
    from forestay.alerts.rules_file import load_routing

    config, lost = alertmanager_config(load_routing(routes))
    write_private(file, losses(lost) + yaml.safe_dump(config, sort_keys=False))
    return file, lost
