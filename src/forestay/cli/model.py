"""`forestay model`: check, deploy, list and show models; print the schema of their specs."""

import pathlib
from collections.abc import Callable
from typing import Annotated, cast

import typer

from forestay.cli.client import PlatformClient, connect
from forestay.cli.model_import import import_models
from forestay.cli.model_profile import profile
from forestay.cli.model_readiness import admit, readiness, readiness_told, waive
from forestay.cli.model_revisions import revisions, set_back
from forestay.cli.output import JSON_OPTION, print_json, print_table, say
from forestay.rollouts.rolling import Strategy

app = typer.Typer(no_args_is_help=True, help="Write, check, onboard, review, deploy, list and show models.")
app.command()(readiness)
app.command()(admit)
app.command()(waive)
app.command(name="import")(import_models)
app.command()(profile)
app.command()(revisions)
app.command()(set_back)
STRATEGY_OPTION = typer.Option(
    "--strategy",
    help="rolling: the revision before serves until a replica of the new one is ready. recreate: switch at once. "
    "canary: begin a rollout.",
)
PYTHON_OPTION = typer.Option(
    "--python", help="Interpreter on this machine that has the app's packages: its interface is read by it."
)
WAIT_OPTION = typer.Option("--wait", help="Wait until the new revision has the traffic; fails when it is given up.")
_FILE = typer.Argument(help="The model's spec, for example examples/digits/model.yaml.")


@app.command()
def check(
    file: Annotated[pathlib.Path, _FILE],
    load: Annotated[bool, typer.Option("--load", help="Also import the app and read its interface.")] = False,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Say what is wrong with a spec, line by line; needs no platform.

    Example: forestay model check examples/digits/model.yaml --load
    """
    from forestay.cli.deploying import describe, read_candidate

    candidate = read_candidate(file)
    openapi = describe(candidate, _quiet) if load else None
    spec, plan = candidate.spec, candidate.plan
    told = {
        "model": spec.model_id,
        "endpoints": [endpoint.path for endpoint in spec.endpoints],
        "files": len(plan.files),
        "bundle_bytes": plan.size_bytes,
        "interface": sorted(cast("dict[str, object]", openapi.get("paths", {}))) if openapi else None,
    }
    if json:
        print_json(told)
        return
    say(f"{spec.model_id} is good: {len(plan.files)} files, {plan.size_bytes:,} bytes")


@app.command()
def deploy(
    file: Annotated[pathlib.Path, _FILE],
    name: Annotated[str, typer.Option("--name", help="Deploy under another alias, or owner/alias.")] = "",
    strategy: Annotated[Strategy | None, STRATEGY_OPTION] = None,
    wait: Annotated[bool, WAIT_OPTION] = False,
    python: Annotated[str, PYTHON_OPTION] = "",
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Send a model to the platform and route its traffic to the new revision; prints the revision's id.

    While the model serves, traffic moves once a replica of the new revision is ready; else at once.

    Example: forestay model deploy examples/digits/model.yaml --strategy rolling --wait
    """
    run_deploy(file, name, strategy, python, wait=wait, json=json)


@app.command()
def init(
    file: Annotated[
        str, typer.Argument(metavar="APP", help="The app's file, or file.py::Class where it holds several.")
    ],
    model: Annotated[str, typer.Option(help="What callers address, owner/alias.")] = "",
    description: Annotated[str, typer.Option(help="What it makes, in a sentence.")] = "",
    team: Annotated[str, typer.Option(help="Who owns it.")] = "",
    contact: Annotated[str, typer.Option(help="Where that team is reached.")] = "",
    escalation: Annotated[str, typer.Option(help="Who is called when the team does not answer.")] = "",
    licence: Annotated[str, typer.Option(help="Of the code and of the weights.")] = "",
    intended_use: Annotated[str, typer.Option(help="Who is to use it, and for what.")] = "",
    out: Annotated[pathlib.Path | None, typer.Option(help="The spec's file; model.yaml beside the app.")] = None,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Write a first spec from the source of a fal.App, without running it; says what is left to fill in.

    Example: forestay model init app.py --model acme/painter
    """
    from forestay.cli.model_authoring import init_spec

    identity = {"model": model, "team": team, "contact": contact, "escalation": escalation}
    identity |= {"licence": licence, "intended_use": intended_use, "description": description}
    init_spec(file, out, identity, json=json)


@app.command()
def onboard(
    file: Annotated[str, typer.Argument(metavar="APP", help="The app's file, file.py::Class, or a spec.")],
    out: Annotated[pathlib.Path | None, typer.Option(help="The spec's file; model.yaml beside the app.")] = None,
    edit_within: Annotated[
        float, typer.Option(min=0, max=86_400, help="Seconds to wait for your edit of the spec; 0: say it and end.")
    ] = 900.0,
    sign: Annotated[
        pathlib.Path | None, typer.Option(help="A private key, PEM, that signs the folders of weights.")
    ] = None,
    body: Annotated[str, typer.Option("--input", help="An input, JSON or @FILE; made from the interface.")] = "",
    requests: Annotated[int, typer.Option(min=1, max=10_000, help="Requests that measure it.")] = 160,
    budget_seconds: Annotated[float, typer.Option(min=1, max=86_400, help="Seconds that they may take.")] = 600.0,
    reason: Annotated[str, typer.Option(help="Why it is let in; the audit log keeps it.")] = "onboarded",
    python: Annotated[str, PYTHON_OPTION] = "",
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Take a fal.App to an admitted model: write its spec, wait for your edit, deploy, measure, review, let it in.

    Example: forestay model onboard app.py
    """
    from forestay.cli.model_onboard import Way
    from forestay.cli.model_onboard import onboard as run

    way = Way(edit_within, requests, budget_seconds, signing_key=sign, body=body, reason=reason, python=python)
    run(file, out, way, json=json)


@app.command()
def diff(
    before: Annotated[pathlib.Path, typer.Argument(help="A spec.")],
    after: Annotated[pathlib.Path, typer.Argument(help="Another.")],
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Say field by field what the second spec changes.

    Example: forestay model diff old.yaml model.yaml
    """
    from forestay.cli.model_authoring import diff_specs

    diff_specs(before, after, json=json)


@app.command(name="list")
def list_models(json: Annotated[bool, JSON_OPTION] = False) -> None:
    """List the models with their routes, and how their readiness stands: the state and its age.

    Example: forestay model list
    """
    models = cast("dict[str, list[dict[str, object]]]", connect().get("/admin/models"))["models"]
    if json:
        print_json(models)
        return
    rows = [
        (
            item["model_id"],
            item["kind"],
            item["visibility"],
            shares(item),
            " ".join(cast("list[str]", item["endpoints"])),
            readiness_told(cast("dict[str, object]", item["readiness"])),
        )
        for item in models
    ]
    columns = ("model", "kind", "visibility", "routes", "endpoints", "readiness")
    print_table(columns, rows, empty="no models; see `forestay deploy`")


@app.command()
def show(
    model: Annotated[str, typer.Argument(help="owner/alias.")], json: Annotated[bool, JSON_OPTION] = False
) -> None:
    """Show one model: its spec, revisions, routes and replicas.

    Example: forestay model show forestay/digits
    """
    from forestay.errors import UsageError
    from forestay.ids import is_model_id

    if not is_model_id(model):
        raise UsageError("model", f"{model!r} is not owner/alias")
    found = cast("dict[str, object]", connect().get(f"/admin/models/{model}"))
    if json:
        print_json(found)
        return
    say(f"{found['model_id']}: {found['description']}")
    owner = cast("dict[str, str]", found["owner"])
    say(f"owner {owner['team']} ({owner['contact']}), {found['visibility']}, routes {shares(found)}")
    plan = cast("dict[str, str] | None", found["pending"])
    if plan is not None and plan["given_up"]:
        say(f"deploy of {plan['revision_id']} given up: {plan['given_up']}")
    elif plan is not None:
        say(f"{plan['revision_id']} takes over once a replica of it is ready, by {plan['until']} at the latest")
    revisions = cast("list[dict[str, object]]", found["revisions"])
    print_table(("revision", "created"), [(item["revision_id"], item["created_at"]) for item in revisions])
    replicas = cast("list[dict[str, object]]", found["replicas"])
    columns = ("replica_id", "worker_id", "revision_id", "state", "detail")
    print_table(columns, [[item[column] for column in columns] for item in replicas], empty="loaded nowhere now")


@app.command()
def schema(json: Annotated[bool, JSON_OPTION] = False) -> None:  # noqa: ARG001 - it is JSON either way
    """Print the JSON Schema of a model spec, for editors.

    Example: forestay model schema > model.schema.json
    """
    from forestay.fleet.spec import spec_schema

    print_json(spec_schema())


def run_deploy(
    file: pathlib.Path, name: str, strategy: Strategy | None, python: str, *, wait: bool, json: bool
) -> None:
    """Deploy and tell."""
    import dataclasses

    from forestay.cli.deploying import deploy as deploy_candidate
    from forestay.cli.deploying import lacks_room, read_candidate, wait_for_switch
    from forestay.clock import SystemClock

    candidate, client, progress = read_candidate(file, name, python), connect(), _quiet if json else _progress
    done = deploy_candidate(client, candidate, progress, strategy)
    if lacking := lacks_room(client, candidate.spec):
        progress(f"{candidate.spec.model_id}: {lacking}")
    if wait and done.pending:
        wait_for_switch(client, done, progress, SystemClock())
        done = dataclasses.replace(done, pending=False)
    if json:
        print_json(dataclasses.asdict(done))
        return
    say(done.revision_id)


def load_fleet(client: PlatformClient, fleet_file: pathlib.Path, on_progress: Callable[[str], None]) -> None:
    """Deploy every model of a fleet file; unchanged ones are skipped."""
    from forestay.cli.deploying import load_fleet as load

    load(client, fleet_file, on_progress)


def shares(model: "dict[str, object]") -> str:
    """Return a model's routes as text: `digits-3f2a91c04b7d 100 %`."""
    routes = cast("list[dict[str, object]]", model["routes"])
    parts = [
        f"{route['revision_id']} {(int(str(route['bucket_to'])) - int(str(route['bucket_from']))) / 100:g} %"
        for route in routes
    ]
    return ", ".join(parts) or "none"


def _progress(text: str) -> None:
    say(text, err=True)


def _quiet(_text: str) -> None:
    return
