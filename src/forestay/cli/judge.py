"""`forestay judge`: the process that holds this host's detectors of content."""

from typing import Annotated

import typer

from forestay.cli.output import JSON_OPTION, print_json, print_table
from forestay.settings import Settings, process_environment

app = typer.Typer()


@app.command()
def judge(
    list_detectors: Annotated[bool, typer.Option("--list", help="Only show which detectors it would serve.")] = False,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Serve the installed detectors on the unix socket FORESTAY_JUDGE_SOCKET; `forestay up` does it by itself.

    Example: FORESTAY_JUDGE_SOCKET=/run/forestay/judge.sock forestay judge
    """
    environment = process_environment()
    settings = Settings.from_environment(environment)
    if list_detectors:
        _show(settings, json=json)
        return
    import uvloop

    from forestay.wiring import run_judge

    uvloop.run(run_judge(settings, environment))


def _show(settings: Settings, *, json: bool) -> None:
    from forestay.safety.classifiers.registry import installed

    found = [detector.info for detector in installed(settings.judge)]
    covers = [{kind.value: sorted(names) for kind, names in info.covers.items()} for info in found]
    if json:
        print_json(
            [
                {"detector": info.detector_id, "digest": info.digest, "costly": info.costly, "covers": covered}
                for info, covered in zip(found, covers, strict=True)
            ]
        )
        return
    cells = [
        (info.detector_id, "; ".join(f"{kind}: {', '.join(names)}" for kind, names in covered.items()))
        for info, covered in zip(found, covers, strict=True)
    ]
    print_table(("DETECTOR", "COVERS"), cells, empty="no detector is installed; install forestay[safety]")
