"""`forestay fleet`: what should run and what does; the freeze switch; how far each loop may go."""

import datetime as dt
from typing import Annotated, cast

import typer

from forestay.cli.client import connect
from forestay.cli.model import shares
from forestay.cli.output import JSON_OPTION, print_json, print_table, say

app = typer.Typer(no_args_is_help=True, help="Show what should run and what does; freeze automation.")
Rows = list[dict[str, object]]


@app.command()
def status(json: Annotated[bool, JSON_OPTION] = False) -> None:
    """Show models, routes, workers and replicas.

    Example: forestay fleet status
    """
    fleet = cast("dict[str, object]", connect().get("/admin/fleet"))
    if json:
        print_json(fleet)
        return
    brakes = cast("dict[str, object]", fleet["brakes"])
    if brakes["frozen"]:
        say(f"FROZEN by {brakes['frozen_by']}: {brakes['frozen_why']}")
    replicas = cast("Rows", fleet["replicas"])
    _models(cast("Rows", fleet["models"]), replicas)
    say()
    _workers(cast("Rows", fleet["workers"]), replicas, str(fleet["now"]))
    say()
    columns = ("replica_id", "model_id", "worker_id", "revision_id", "state", "last_used_at", "detail")
    print_table(columns, [[item[column] for column in columns] for item in replicas], empty="no replicas")


@app.command()
def devices(json: Annotated[bool, JSON_OPTION] = False) -> None:
    """Show the GPUs of workers as they were read last, and what is wrong with them.

    Example: forestay fleet devices
    """
    said = cast("dict[str, object]", connect().get("/admin/fleet/devices"))
    found = cast("Rows", said["devices"])
    if json:
        print_json(found)
        return
    columns = ("worker", "device", "name", "memory", "busy", "temperature", "power", "replicas", "told", "read")
    print_table(columns, [_device(row, str(said["now"])) for row in found], empty="no worker tells of a GPU")


def _device(row: dict[str, object], now: str) -> tuple[object, ...]:
    age = dt.datetime.fromisoformat(now) - dt.datetime.fromisoformat(str(row["at"]))
    used, total = (_said(row[f"memory_{what}_bytes"], 1 / 2**30, "") for what in ("used", "total"))
    told = "; ".join(cast("list[str]", row["told"])) or "nothing wrong"
    return (
        row["worker_id"],
        row["uuid"],
        row["name"],
        f"{used} of {total} GiB",
        _said(row["utilisation_ratio"], 100, " %"),
        _said(row["temperature_celsius"], 1, " C"),
        _said(row["power_watts"], 1, " W"),
        ", ".join(cast("list[str]", row["replicas"])),
        told,
        f"{age.total_seconds():.0f} s ago",
    )


def _said(value: object, factor: float, unit: str) -> str:
    """Return a number for people; what the driver does not tell is a dash."""
    return f"{value * factor:.0f}{unit}" if isinstance(value, int | float) else "-"


@app.command()
def freeze(
    reason: Annotated[str, typer.Argument(help="Why; everybody who asks will read it.")],
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Stop every automatic action; people may still act.

    Example: forestay fleet freeze "incident 7: bad driver on two hosts"
    """
    _turn(reason, frozen=True, json=json)


@app.command()
def unfreeze(
    reason: Annotated[str, typer.Argument(help="Why it may go on.")] = "over",
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Let automation act again.

    Example: forestay fleet unfreeze "incident 7 is over"
    """
    _turn(reason, frozen=False, json=json)


@app.command()
def mode(
    loop: Annotated[str, typer.Argument(help="capacity, rollout, slo, quality, incident, abuse or safety.")],
    wanted: Annotated[str, typer.Argument(help="observe, advise or act.")],
    model: Annotated[str, typer.Option(help="Only for this model, owner/alias.")] = "",
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Say how far a loop may go.

    Example: forestay fleet mode capacity advise
    """
    done = connect().post("/admin/modes", {"loop": loop, "mode": wanted, "model": model})
    if json:
        print_json(done)
        return
    say(f"{loop} is in {wanted} mode for {model or 'every model'}")


def _turn(reason: str, *, frozen: bool, json: bool) -> None:
    brakes = connect().post("/admin/freeze", {"frozen": frozen, "reason": reason})
    if json:
        print_json(brakes)
        return
    say("automation is frozen" if frozen else "automation may act")


def _models(models: Rows, replicas: Rows) -> None:
    rows: list[tuple[object, ...]] = []
    for model in models:
        own = [item for item in replicas if item["model_id"] == model["model_id"]]
        ready = sum(item["state"] == "ready" for item in own)
        rows.append((model["model_id"], shares(model), f"{ready} ready of {len(own)}"))
    print_table(("model", "routes", "replicas"), rows, empty="no models; see `forestay deploy`")


def _workers(workers: Rows, replicas: Rows, now: str) -> None:
    rows: list[tuple[object, ...]] = []
    for worker in workers:
        own = [item for item in replicas if item["worker_id"] == worker["worker_id"]]
        used = sum(int(str(item["devices"])) for item in own)
        seen = dt.datetime.fromisoformat(now) - dt.datetime.fromisoformat(str(worker["seen_at"]))
        devices = f"{used} of {worker['devices']}"
        rows.append(
            (worker["worker_id"], worker["pool"], worker["state"], devices, f"{seen.total_seconds():.0f} s ago")
        )
    print_table(("worker", "pool", "state", "devices used", "seen"), rows, empty="no workers; see `forestay worker`")
