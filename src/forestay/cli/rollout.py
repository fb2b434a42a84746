"""`forestay rollout`: ship a revision by a canary that rolls itself back; look at it, and say what you want of it."""

import pathlib
from typing import Annotated, cast

import typer

from forestay.cli.client import connect
from forestay.cli.model import PYTHON_OPTION
from forestay.cli.output import JSON_OPTION, print_json, print_table, say
from forestay.cli.rollout_report import replay, report
from forestay.cli.rollout_safety import replay_safety
from forestay.errors import UsageError
from forestay.rollouts.canary.model import Inconclusive
from forestay.rollouts.shadow.model import Expect

app = typer.Typer(no_args_is_help=True, help="Ship a revision by gates, shadow and canary that roll it back.")
_ID = typer.Argument(help="The rollout's id, or owner/alias for the model's newest.")
_REASON = typer.Option("--reason", help="Why; the audit log keeps it.")
Told = dict[str, object]
app.command()(report)
app.command()(replay)
app.command(name="replay-safety")(replay_safety)


@app.command()
def start(
    file: Annotated[pathlib.Path, typer.Argument(help="The model's spec, for example examples/digits/model.yaml.")],
    name: Annotated[str, typer.Option("--name", help="Deploy under another alias, or owner/alias.")] = "",
    steps: Annotated[str, typer.Option(help="Shares of the traffic in percent, such as 5,10,25,50.")] = "",
    step_seconds: Annotated[float | None, typer.Option(help="Least time at one share.")] = None,
    step_requests: Annotated[int | None, typer.Option(help="Least requests of the candidate at one share.")] = None,
    allowance: Annotated[
        float | None, typer.Option(help="Bad answers beyond the control's rate that it may cost.")
    ] = None,
    deadline: Annotated[float | None, typer.Option(help="Seconds until it ends without a verdict.")] = None,
    watch: Annotated[float | None, typer.Option(help="Seconds at 95 % before the last 5 % follow.")] = None,
    margin_factor: Annotated[
        float | None, typer.Option(help="Times the usual margins: 3 asks for about a third of the traffic.")
    ] = None,
    when_inconclusive: Annotated[
        Inconclusive | None, typer.Option(help="What follows a deadline without a verdict.")
    ] = None,
    allow_breaking: Annotated[
        bool, typer.Option("--allow-breaking", help="Go on although the interface breaks callers.")
    ] = False,
    load_requests: Annotated[
        int | None, typer.Option(help="Inputs of its canaries that both answer at full load before any traffic.")
    ] = None,
    shadow_requests: Annotated[
        int | None, typer.Option(help="Requests compared in the shadow before any traffic; 32.")
    ] = None,
    shadow_budget_seconds: Annotated[
        float | None, typer.Option(help="Device-seconds that the shadow may take; 600.")
    ] = None,
    shadow_deadline: Annotated[
        float | None, typer.Option(help="Seconds until a shadow without a verdict ends.")
    ] = None,
    shadow_expect: Annotated[
        Expect | None, typer.Option(help="same: pixels of a seed. alike: the kind of output. changed: any output.")
    ] = None,
    no_shadow: Annotated[bool, typer.Option("--no-shadow", help="Go from the gates to the canary at once.")] = False,
    python: Annotated[str, PYTHON_OPTION] = "",
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Send a model's new revision and begin its rollout; prints the rollout's id.

    Example: forestay rollout start examples/digits/model.yaml --allowance 20
    """
    from forestay.cli.deploying import deploy, read_candidate
    from forestay.rollouts.rolling import Strategy

    options: Told = {
        "steps": _steps(steps),
        "step_seconds": step_seconds,
        "step_requests": step_requests,
        "allowance": allowance,
        "deadline_seconds": deadline,
        "watch_seconds": watch,
        "margin_factor": margin_factor,
        "when_inconclusive": when_inconclusive,
        "allow_breaking": allow_breaking or None,
        "load_requests": load_requests,
        "shadow_requests": 0 if no_shadow else shadow_requests,
        "shadow_budget_seconds": shadow_budget_seconds,
        "shadow_deadline_seconds": shadow_deadline,
        "shadow_expect": shadow_expect,
    }
    given = {key: value for key, value in options.items() if value is not None}
    done = deploy(connect(), read_candidate(file, name, python), _quiet, Strategy.CANARY, given)
    if json:
        print_json({"rollout_id": done.rollout, "model_id": done.model_id, "revision_id": done.revision_id})
        return
    if done.rollout is None:
        say(f"{done.revision_id} has the traffic: there was nothing to compare it with", err=True)
        return
    say(done.rollout)


@app.command()
def status(rollout: Annotated[str, _ID], json: Annotated[bool, JSON_OPTION] = False) -> None:
    """Show a rollout: where it is, why, what speaks for and against it, and every step.

    Example: forestay rollout status forestay/digits
    """
    found = _read(rollout)
    if json:
        print_json(found)
        return
    control, candidate = found["control"], found["candidate"]
    say(f"{found['rollout_id']}: {found['stage']} at {found['weight']:g} %, {control} -> {candidate}")
    say(str(found["reason"]))
    if found["paused_by"]:
        say(f"paused by {found['paused_by']}")
    if found["despite_budget"]:
        say(f"goes on despite the error budget: {found['despite_budget']}")
    requests = cast("dict[str, int]", found["requests"])
    cost = f"{found['excess']:.1f} of {found['allowance']:g} bad answers granted are spent"
    say(f"{requests['candidate']:,} requests of the candidate, {requests['control']:,} of the control; {cost}")
    for gate in cast("list[dict[str, str]]", found["gates"]):
        say(f"gate {gate['gate']}: {gate['verdict']}, {gate['evidence']}")
    shadow = cast("Told | None", found["shadow"])
    if shadow is not None:
        spent = f"{shadow['spent_seconds']:.1f} device-seconds"
        say(f"shadow: {shadow['said']}, {shadow['reason']} ({spent})")
    worst = cast("Told | None", found["worst"])
    if worst is not None:
        say(f"worst: {worst['told']}")
    for item in cast("list[Told]", found["unproved"]):
        say(f"not yet proved: {item['told']}")
    journal = cast("list[Told]", found["journal"])
    columns = ("at", "actor", "stage", "weight", "reason")
    print_table(columns, [[item[column] for column in columns] for item in journal])


@app.command(name="list")
def list_rollouts(
    model: Annotated[str, typer.Option(help="Only of this model, owner/alias.")] = "",
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """List rollouts, newest first.

    Example: forestay rollout list --model forestay/digits
    """
    found = _list(model)
    if json:
        print_json(found)
        return
    columns = ("rollout_id", "model_id", "stage", "weight", "started_at", "reason")
    print_table(columns, [[item[column] for column in columns] for item in found], empty="no rollouts")


@app.command()
def promote(
    rollout: Annotated[str, _ID], reason: Annotated[str, _REASON], json: Annotated[bool, JSON_OPTION] = False
) -> None:
    """Give the candidate all traffic by your word, once its gates have passed; proven harm still goes first.

    Example: forestay rollout promote forestay/digits --reason "seen by eye"
    """
    _order(rollout, "promote", reason, json=json)


@app.command()
def abort(
    rollout: Annotated[str, _ID], reason: Annotated[str, _REASON], json: Annotated[bool, JSON_OPTION] = False
) -> None:
    """Take all traffic from the candidate; requests that run on it are finished.

    Example: forestay rollout abort forestay/digits --reason "wrong weights"
    """
    _order(rollout, "abort", reason, json=json)


@app.command()
def override(
    rollout: Annotated[str, _ID], reason: Annotated[str, _REASON], json: Annotated[bool, JSON_OPTION] = False
) -> None:
    """Let it go on although an error budget holds it; harm still rolls it back.

    Example: forestay rollout override forestay/digits --reason "it mends what burns"
    """
    _order(rollout, "override", reason, json=json)


@app.command()
def pause(
    rollout: Annotated[str, _ID], reason: Annotated[str, _REASON], json: Annotated[bool, JSON_OPTION] = False
) -> None:
    """Hold it at its share; harm still rolls it back.

    Example: forestay rollout pause forestay/digits --reason "looking"
    """
    _order(rollout, "pause", reason, json=json)


@app.command()
def resume(
    rollout: Annotated[str, _ID], reason: Annotated[str, _REASON], json: Annotated[bool, JSON_OPTION] = False
) -> None:
    """Let a paused rollout go on.

    Example: forestay rollout resume forestay/digits --reason "seen"
    """
    _order(rollout, "resume", reason, json=json)


@app.command()
def simulate(
    per_minute: Annotated[float, typer.Option(help="Requests of the model per minute.", min=0.1, max=100_000)],
    errors: Annotated[float, typer.Option(help="Share of the control's requests that fail.", min=0, max=1)] = 0.01,
    worse: Annotated[float, typer.Option(help="Share of a bad candidate's that fail.", min=0, max=1)] = 0.10,
    slower: Annotated[float, typer.Option(help="Times that a bad candidate takes longer.", min=0.1, max=100)] = 1.0,
    steps: Annotated[str, typer.Option(help="Shares of the traffic in percent, such as 5,10,25,50.")] = "",
    allowance: Annotated[float | None, typer.Option(help="Bad answers beyond the control's rate.")] = None,
    deadline: Annotated[float | None, typer.Option(help="Seconds until it ends without a verdict.")] = None,
    margin_factor: Annotated[float | None, typer.Option(help="Times the usual margins.")] = None,
    seeds: Annotated[int, typer.Option(help="How many canaries to play.", min=1, max=1_000)] = 20,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Say what a policy would do at your traffic to a good candidate and to a bad one; needs no platform.

    Example: forestay rollout simulate --per-minute 60 --worse 0.1 --allowance 20
    """
    import dataclasses

    from forestay.rollouts.options import RolloutOptions, policy_of
    from forestay.rollouts.simulate import World
    from forestay.rollouts.simulate import simulate as play

    options = RolloutOptions(
        steps=_steps(steps), allowance=allowance, deadline_seconds=deadline, margin_factor=margin_factor
    )
    policy = policy_of(options).canary
    worlds = {
        "good": World(per_minute, errors, errors),
        "bad": World(per_minute, errors, worse, slower),
    }
    found = {name: play(policy, world, seeds) for name, world in worlds.items()}
    if json:
        print_json({name: dataclasses.asdict(item) for name, item in found.items()})
        return
    rows = [
        (
            name,
            f"{item.promoted:.0%}",
            f"{item.rolled_back:.0%}",
            f"{item.held:.0%}",
            f"{item.requests_median:,.0f} ({item.requests_p90:,.0f})",
            f"{item.bad_median:,.0f} ({item.bad_p90:,.0f})",
            f"{item.seconds_median / 60:,.0f} ({item.seconds_p90 / 60:,.0f})",
        )
        for name, item in found.items()
    ]
    columns = ("candidate", "promoted", "rolled back", "held", "requests (P90)", "bad (P90)", "minutes (P90)")
    print_table(columns, rows)


def _steps(text: str) -> list[float] | None:
    try:
        return [float(part) for part in text.split(",")] if text else None
    except ValueError:
        raise UsageError("--steps", f"{text!r} is not a list of percentages such as 5,10,25,50") from None


def _order(rollout: str, verb: str, reason: str, *, json: bool) -> None:
    name = name_of(rollout)
    told = cast("Told", connect().post(f"/admin/rollouts/{name}/{verb}", {"reason": reason}))
    if json:
        print_json(told)
        return
    say(f"{name}: {verb} is ordered; `forestay rollout status {name}` shows what follows")


def _list(model: str) -> list[Told]:
    from urllib.parse import quote

    query = f"?model={quote(model, safe='')}" if model else ""
    return cast("dict[str, list[Told]]", connect().get(f"/admin/rollouts{query}"))["rollouts"]


def name_of(rollout: str) -> str:
    """Return a rollout's id; for owner/alias that of the model's newest, UsageError when it has had none."""
    if "/" not in rollout:
        return rollout
    found = _list(rollout)
    if not found:
        raise UsageError("rollout", f"{rollout} has had no rollout; begin one with `forestay rollout start`")
    return str(found[0]["rollout_id"])


def _read(rollout: str) -> Told:
    return cast("Told", connect().get(f"/admin/rollouts/{name_of(rollout)}"))


def _quiet(_text: str) -> None:
    """Say nothing."""
