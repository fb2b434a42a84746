"""`forestay demo`: start the platform with example models, put it through its paces, and show what was promised.

It decides where things go and how the end is told; the courses are in `forestay.demo`.
"""

import asyncio
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from forestay.cli.output import JSON_OPTION, say
from forestay.cli.unisolated import shortfall_here, waiver_of_demo
from forestay.clock import SystemClock
from forestay.demo.choreography import Demonstration
from forestay.demo.game_day import GameDay
from forestay.demo.inspection import Inspection
from forestay.demo.promises import ACTS, SCENARIOS, Act, Kept
from forestay.demo.screen import JsonScreen, LiveScreen, PlainScreen, Screen
from forestay.demo.sheet import write_sheet
from forestay.demo.shipyard import Shipyard
from forestay.demo.siege import Siege
from forestay.demo.stage import Course, clean
from forestay.demo.tour import Tour
from forestay.demo.watch import Watch
from forestay.errors import UsageError
from forestay.settings import process_environment

_FLEETS = {
    "tour": Path("examples/fleet.yaml"),
    "spine": Path("examples/fleet.yaml"),
    "abuse": Path("examples/small_fleet.yaml"),
    "safety": Path("examples/echo_fleet.yaml"),
    "slo": Path("examples/echo_fleet.yaml"),
    "quality": Path("examples/fleet.yaml"),
    "rollout": Path("examples/digits_fleet.yaml"),
}
_COURSES: Mapping[str, Callable[[Course], Tour | Demonstration | Siege | Inspection | Watch | GameDay | Shipyard]] = {
    "tour": Tour,
    "spine": Demonstration,
    "abuse": Siege,
    "safety": Inspection,
    "slo": Watch,
    "quality": GameDay,
    "rollout": Shipyard,
}
_TERMINAL_WIDTH = 90
_INTERRUPTED = 130

app = typer.Typer()


@app.command()
def demo(
    scenario: Annotated[
        str,
        typer.Option(
            help="tour: one story with something of each. spine: work goes on though a worker dies. "
            "abuse: attacks are stopped, one by one. "
            "safety: nothing is released unjudged, and people decide about what is in doubt. "
            "slo: what spends an error budget too fast wakes somebody, and nothing else does. "
            "quality: real faults are put into pictures, film and sound, and each is found and named. "
            "rollout: a good revision is promoted, a bad one is stopped in shadow, another is rolled back."
        ),
    ] = "tour",
    fleet: Annotated[Path | None, typer.Option(help="The fleet to load; the scenario's own unless named.")] = None,
    output: Annotated[Path, typer.Option(help="Folder for index.html, pictures, film and sound.")] = Path(
        "demo-output"
    ),
    keep: Annotated[bool, typer.Option("--keep", help="Keep the data folder (logs, database) for a look.")] = False,
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Start the platform with example models, break or attack it on purpose, and show that every promise held.

    Exit status 1 when a promise was broken.

    Example: forestay demo --scenario abuse --output ./demo-output
    """
    if scenario not in SCENARIOS:
        raise UsageError("--scenario", f"{scenario[:60]!r} is none of {', '.join(SCENARIOS)}")
    fleet = _FLEETS[scenario] if fleet is None else fleet
    if not fleet.exists():
        raise UsageError("--fleet", f"{fleet} does not exist; run this in Forestay's source folder, or name your fleet")
    clock = SystemClock()
    started = clock.monotonic()
    data = Path(tempfile.mkdtemp(prefix="forestay-demo-"))
    data.chmod(0o711)  # as root, Postgres runs as another user and must reach its own folder in here
    clean(output)
    names = SCENARIOS[scenario]
    environment = process_environment()
    waiver, warning = waiver_of_demo(shortfall_here(), environment)
    if warning:
        say(warning, err=True)
    screen = _screen(as_json, names, ACTS if scenario == "tour" else ())
    course = Course(fleet.resolve(), data, output.resolve(), environment, clock, screen, waiver)
    run = _COURSES[scenario](course)
    kept, ended = False, 1
    try:
        kept = asyncio.run(run.run())
    except KeyboardInterrupt:
        ended = _INTERRUPTED
    promises = [run.stage.promises.get(name, Kept(name)) for name in names]
    told = [] if isinstance(run, Tour) else promises  # the tour's page tells them act by act
    page = write_sheet(output, told, run.stage.files, run.measured)
    words = "every promise was kept" if kept else f"A PROMISE WAS BROKEN; logs are in {data}"
    words = "interrupted" if ended == _INTERRUPTED else words
    screen.close(promises, f"{words} ({clock.monotonic() - started:.0f} s). Look: {page}")
    if keep:
        say(f"data folder: {data}", err=True)
    elif kept or ended == _INTERRUPTED:
        shutil.rmtree(data, ignore_errors=True)
    raise typer.Exit(0 if kept else ended)


def _screen(as_json: bool, names: Iterable[str], acts: Sequence[Act]) -> Screen:
    if as_json:
        return JsonScreen(Console(), Console(stderr=True))
    if sys.stdout.isatty() and Console().width >= _TERMINAL_WIDTH:
        return LiveScreen(Console(), names, acts)
    return PlainScreen(Console())
