"""`forestay up`: the whole platform on this machine, until a signal ends it."""

import dataclasses
import json as jsonlib
import pathlib
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from forestay.cli.client import PlatformClient, Profile, save_profile
from forestay.cli.output import JSON_OPTION, plain, say
from forestay.cli.unisolated import shortfall_here, warning_of_up
from forestay.errors import UsageError
from forestay.settings import Settings, client_settings, process_environment

if TYPE_CHECKING:
    from collections.abc import Callable

    from forestay.local_platform import Plan, Ready
    from forestay.supervisor import Event

app = typer.Typer()

_COLOURS = {
    "process.died": "yellow",
    "platform.unisolated": "yellow",
    "process.crash_loop": "bold red",
    "platform.ready": "bold green",
}


@app.command()
def up(
    data_dir: Annotated[pathlib.Path, typer.Option(help="Everything the platform keeps.")] = pathlib.Path(
        "forestay-data"
    ),
    host: Annotated[str, typer.Option(help="Address to bind; empty: FORESTAY_HOST, else loopback only.")] = "",
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="HTTP port; 0 picks one and keeps it.")] = None,
    tls_port: Annotated[int | None, typer.Option(min=-1, max=65535, help="TLS port; 0 picks one, -1: no TLS.")] = None,
    fleet: Annotated[pathlib.Path | None, typer.Option(help="Models to deploy, for example fleet.yaml.")] = None,
    workers: Annotated[int, typer.Option(min=1, max=16, help="Worker processes.")] = 1,
    devices: Annotated[int | None, typer.Option(min=1, max=64, help="Devices (or CPU slots) a worker; 4.")] = None,
    gateways: Annotated[int, typer.Option(min=1, max=8, help="Gateway processes sharing the ports.")] = 1,
    ready_file: Annotated[pathlib.Path | None, typer.Option(help="Written when ready: addresses and keys.")] = None,
    server: Annotated[str, typer.Option(help="HTTP server: granian or uvicorn.")] = "granian",
    profile: Annotated[bool, typer.Option(help="Save the profile that other commands use.")] = True,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Start Postgres, Valkey, gateway, controller and workers, and keep them running.

    Example: forestay up --data-dir ./data --port 8080 --fleet examples/fleet.yaml
    """
    from forestay.local_platform import Plan

    environment = process_environment()
    settings = Settings.from_environment(environment)
    chosen = settings.gateway
    chosen = dataclasses.replace(
        chosen,
        host=host or chosen.host,
        port=chosen.port if port is None else port,
        tls_port=chosen.tls_port if tls_port is None else tls_port,
    )
    if fleet is not None and not fleet.is_file():
        raise UsageError("--fleet", f"{fleet} is no file; give the YAML that lists the models")
    if server not in {"granian", "uvicorn"}:
        raise UsageError("--server", f"{server!r} is unknown; expected granian or uvicorn")
    plan = Plan(
        data_dir=data_dir,
        workers=workers,
        gateways=gateways,
        ready_file=None if ready_file is None else ready_file.absolute(),
        fleet_file=None if fleet is None else fleet.absolute(),
        server=server,
        devices=devices,
    )
    run_up(plan, dataclasses.replace(settings, gateway=chosen), environment, save=profile, json=json)


def run_up(plan: "Plan", settings: Settings, environment: dict[str, str], *, save: bool, json: bool) -> None:
    """Run the platform in the foreground until SIGINT or SIGTERM."""
    import asyncio

    import uvloop

    from forestay.chance import SystemChance
    from forestay.clock import SystemClock
    from forestay.local_platform import Hooks, LocalPlatform
    from forestay.processes import stop_on_signals
    from forestay.supervisor import Event

    tell = _teller(json=json)
    warning = warning_of_up(shortfall_here(), waived=settings.worker.allow_unisolated)
    if warning:
        tell(Event("platform.unisolated", warning))

    def ready(facts: "Ready") -> None:
        if save:
            kept = Profile(facts.url, facts.admin_key, facts.ca_file)
            save_profile(pathlib.Path(client_settings().profile_file), kept)
        _show(facts, json=json)

    async def run() -> None:
        stop = stop_on_signals(asyncio.get_running_loop())
        hooks = Hooks(tell=tell, load_fleet=_load_fleet, ready=ready)
        await LocalPlatform(plan, settings, environment, hooks, (SystemClock(), SystemChance())).run(stop)

    uvloop.run(run())


def _load_fleet(ready: "Ready", fleet_file: pathlib.Path, say: "Callable[[str], None]") -> None:
    from forestay.cli.model import load_fleet

    load_fleet(PlatformClient(Profile(ready.url, ready.admin_key)), fleet_file, say)


def _teller(*, json: bool) -> "Callable[[Event], None]":
    """Return what prints events: JSON lines, coloured lines on a terminal, else plain lines."""
    if json:
        return lambda event: _line(jsonlib.dumps({"event": event.name, "text": event.text, **event.facts}, default=str))
    if not sys.stdout.isatty():
        return lambda event: _line(event.text)
    from rich.console import Console

    console = Console(highlight=False)
    return lambda event: console.print(plain(event.text), style=_COLOURS.get(event.name, ""), markup=False)


def _show(ready: "Ready", *, json: bool) -> None:
    if json:
        _line(jsonlib.dumps({"event": "platform.addresses", **dataclasses.asdict(ready)}))
        return
    rows = {
        "HTTP": ready.url,
        "TLS": f"{ready.tls_url}  (clients trust {ready.ca_file})" if ready.tls_url else "",
        "proxy": f"{ready.proxy_url}  (HTTPS_PROXY for unmodified clients)" if ready.proxy_url else "",
        "metrics": ready.metrics_url,
        "API key": ready.api_key,
        "ADMIN key": ready.admin_key,
    }
    for name, value in rows.items():
        if value:
            _line(f"  {name:<10}{value}")
    _line("  Ctrl-C stops it in good order.")


def _line(text: str) -> None:
    say(text)
    sys.stdout.flush()
