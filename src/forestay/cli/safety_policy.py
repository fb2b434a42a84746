"""`forestay safety policy ...`, `verdicts`, `verify`, `break-glass`: the guard as analysts steer it."""

import pathlib
from typing import Annotated, cast

import typer

from forestay.cli.client import connect
from forestay.cli.durations import seconds_of
from forestay.cli.output import JSON_OPTION, print_document, print_json, print_table, say
from forestay.errors import UsageError
from forestay.safety.policy_file import read_policy

policy_app = typer.Typer(no_args_is_help=True, help="Read, check, set and stage policies.")
glass_app = typer.Typer(no_args_is_help=True, help="Waive the trouble of a detector for a while; audited, and it ends.")
Row = dict[str, object]
_POLICY = typer.Argument(help="The policy's name; `standard` comes along.")
_REASON = typer.Option(help="Why; kept in the audit log.")


def register(app: typer.Typer) -> None:
    """Add these commands to `forestay safety`."""
    app.add_typer(policy_app, name="policy")
    app.add_typer(glass_app, name="break-glass")
    app.command(name="verdicts")(verdicts)
    app.command(name="verify")(verify)
    app.command(name="release")(release)
    app.command(name="block")(block)


@policy_app.command(name="list")
def list_policies(json: Annotated[bool, JSON_OPTION] = False) -> None:
    """List policies with the stage that each is in.

    Example: forestay safety policy list
    """
    rows = cast("dict[str, list[Row]]", connect().get("/admin/safety/policies"))["policies"]
    columns = ("policy_id", "stage", "live", "candidate", "percent")
    print_json(rows) if json else print_table(columns, [[row[column] for column in columns] for row in rows])


@policy_app.command()
def show(
    policy_id: Annotated[str, _POLICY],
    version: Annotated[int | None, typer.Option(help="Which one; the live one unless named.")] = None,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Show a policy's text, its stage and its versions.

    Example: forestay safety policy show standard > mine.yaml
    """
    query = {} if version is None else {"version": str(version)}
    shown = cast("Row", connect().get(f"/admin/safety/policies/{policy_id}", query))
    if json:
        print_json(shown)
        return
    say(_stage_words(shown), err=True)
    print_document(cast("str", shown["text"]))


@policy_app.command()
def check(
    file: Annotated[pathlib.Path, typer.Argument(help="A policy in YAML.")], json: Annotated[bool, JSON_OPTION] = False
) -> None:
    """Check a file without a platform: every fault with its line. Coverage is checked when it is set.

    Example: forestay safety policy check mine.yaml
    """
    policy = read_policy(read_text(file), "checked", 0, str(file))
    detectors = sorted(policy.detectors())
    if json:
        print_json({"file": str(file), "rules": len(policy.rules), "detectors": detectors})
        return
    say(f"{file}: {len(policy.rules)} rules, detectors {', '.join(detectors) or 'none'}")


@policy_app.command(name="set")
def set_policy(
    policy_id: Annotated[str, _POLICY],
    file: Annotated[pathlib.Path, typer.Argument(help="The policy in YAML.")],
    reason: Annotated[str, _REASON],
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Add a version of a policy; it judges in shadow until you stage it.

    Example: forestay safety policy set standard mine.yaml --reason "fewer false alarms on film stills"
    """
    text = read_text(file)
    read_policy(text, policy_id, 0, str(file))
    made = cast("Row", connect().post(f"/admin/safety/policies/{policy_id}", {"text": text, "reason": reason}))
    print_json(made) if json else say(
        f"version {made['version']} of {policy_id} judges in shadow; next: forestay safety policy stage {policy_id} 10"
    )


@policy_app.command()
def stage(
    policy_id: Annotated[str, _POLICY],
    percent: Annotated[float, typer.Argument(min=0.0, max=100.0, help="Share of requests; 100: all, 0: shadow.")],
    reason: Annotated[str, _REASON],
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Let the candidate decide for a share of requests.

    Example: forestay safety policy stage standard 25 --reason "a day in shadow without a false alarm"
    """
    body = {"percent": percent, "reason": reason}
    done = cast("Row", connect().post(f"/admin/safety/policies/{policy_id}/stage", body))
    print_json(done) if json else say(_stage_words(done))


@policy_app.command()
def rollback(
    policy_id: Annotated[str, _POLICY],
    reason: Annotated[str, _REASON],
    version: Annotated[int | None, typer.Option(help="Put this earlier version in force.")] = None,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Drop the candidate, or put an earlier version in force for all at once.

    Example: forestay safety policy rollback standard --reason "false alarms"
    """
    body = {"reason": reason, **({} if version is None else {"version": version})}
    done = cast("Row", connect().post(f"/admin/safety/policies/{policy_id}/rollback", body))
    print_json(done) if json else say(_stage_words(done))


def verdicts(
    request_id: Annotated[str, typer.Argument(help="The request whose content was judged.")],
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Show how a request's content was judged: policy, checks, scores. Never the content.

    Example: forestay safety verdicts 0199d0c2-1111-7000-8000-000000000000
    """
    found = cast("dict[str, list[Row]]", connect().get("/admin/safety/verdicts", {"request_id": request_id}))[
        "verdicts"
    ]
    if json:
        print_json(found)
        return
    rows = [
        [
            f"{row['point']}{' (shadow)' if row['shadow'] else ''}",
            f"{row['policy_id']} {row['policy_version']}",
            row["verdict"],
            row["action"],
            row["category"] or "",
            row["place"],
            row["reason"],
        ]
        for row in found
    ]
    print_table(("point", "policy", "verdict", "action", "category", "place", "reason"), rows, empty="no verdicts")


_REQUEST = typer.Argument(help="A request that was stopped; `forestay safety review list` finds them.")


def release(
    request_id: Annotated[str, _REQUEST], reason: Annotated[str, _REASON], json: Annotated[bool, JSON_OPTION] = False
) -> None:
    """Vote to release what was stopped; what was blocked takes two people. On record before it takes effect.

    Example: forestay safety release 0199d0c2-1111-7000-8000-000000000000 --reason "looked at it: a film still"
    """
    _rule(request_id, reason, release=True, json=json)


def block(
    request_id: Annotated[str, _REQUEST], reason: Annotated[str, _REASON], json: Annotated[bool, JSON_OPTION] = False
) -> None:
    """Vote to leave something blocked; one vote decides it.

    Example: forestay safety block 0199d0c2-1111-7000-8000-000000000000 --reason "against the policy"
    """
    _rule(request_id, reason, release=False, json=json)


def _rule(request_id: str, reason: str, *, release: bool, json: bool) -> None:
    body = {"release": release, "reason": reason}
    ruled = cast("Row", connect().post(f"/admin/safety/withheld/{request_id}", body))
    print_json(ruled) if json else say(ruled_words(ruled))


def ruled_words(row: Row) -> str:
    """Say how an item stands after a vote."""
    request_id, outcome = row["request_id"], row["outcome"]
    if outcome is None:
        return f"request {request_id}: {row['has']} of {row['needs']} people have released it; another person must too"
    linked = f"; its appeal made request {row['linked_request_id']}" if row.get("linked_request_id") else ""
    state = f", and is {row['state']}" if row.get("state") else ""
    return f"request {request_id}: {outcome}{state}{linked}"


def verify(json: Annotated[bool, JSON_OPTION] = False) -> None:
    """Recompute every seal over the verdict records; exits non-zero when anything was altered or is missing.

    Example: forestay safety verify
    """
    shown = cast("Row", connect(300.0).get("/admin/safety/verify"))
    faults = cast("list[Row]", shown["faults"])
    if json:
        print_json(shown)
    else:
        say(f"{shown['seals']} seals checked")
        for fault in faults:
            say(f"seal {fault['sequence']}: {fault['what']}", err=True)
    if faults:
        say("forestay: the verdict records do not hold what was sealed", err=True)
        raise typer.Exit(1)


@glass_app.command(name="on")
def break_glass(
    detector: Annotated[str, typer.Argument(help="The detector whose trouble is waived, like nsfw@1.")],
    reason: Annotated[str, _REASON],
    lasting: Annotated[str, typer.Option("--for", help="How long, at most 24h.")] = "1h",
    model: Annotated[str, typer.Option(help="Only for this model; empty: for all.")] = "",
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Release what a detector that is down cannot judge, as flagged, for a while. What is found stays blocked.

    Example: forestay safety break-glass on nsfw@1 --for 30m --reason "judge redeploys, traffic is internal"
    """
    body = {"detector": detector, "reason": reason, "for_seconds": seconds_of("--for", lasting), "model": model}
    made = cast("Row", connect().post("/admin/safety/glass", body))
    print_json(made) if json else say(f"waived until {made['until']}; end it: break-glass off {made['waiver_id']}")


@glass_app.command(name="off")
def mend_glass(
    waiver_id: Annotated[str, typer.Argument(help="The waiver.")],
    reason: Annotated[str, _REASON],
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """End a waiver before its time.

    Example: forestay safety break-glass off 4f0c... --reason "the judge is back"
    """
    done = connect().post(f"/admin/safety/glass/{waiver_id}/end", {"reason": reason})
    print_json(done) if json else say("the waiver has ended")


@glass_app.command(name="list")
def list_glass(json: Annotated[bool, JSON_OPTION] = False) -> None:
    """List the waivers that run.

    Example: forestay safety break-glass list
    """
    rows = cast("dict[str, list[Row]]", connect().get("/admin/safety/glass"))["waivers"]
    columns = ("waiver_id", "detector_id", "model_id", "until", "set_by", "reason")
    found = [[row[column] for column in columns] for row in rows]
    print_json(rows) if json else print_table(columns, found, empty="no glass is broken")


def read_text(file: pathlib.Path) -> str:
    """Read a file that a person named; UsageError says why it cannot be read."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("FILE", f"{file} cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None


def _stage_words(row: Row) -> str:
    match row["stage"]:
        case "all":
            return f"{row['policy_id']}: version {row['live']} decides for all"
        case "shadow":
            return f"{row['policy_id']}: version {row['live']} decides, version {row['candidate']} judges in shadow"
        case _:
            share = f"version {row['candidate']} decides for {row['percent']:g} % of requests"
            return f"{row['policy_id']}: {share}, version {row['live']} for the rest"
