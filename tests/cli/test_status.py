"""`forestay status`: what it tells of a platform with a fault, and that every move it proposes is a command."""

import datetime as dt
import json
import shlex
from collections.abc import Awaitable, Callable
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.alerts.scenes import condition
from tests.cli.conftest import Platform, Ran
from tests.cli.test_alerts import see
from tests.cli.test_drill import deployed

from forestay.cli import load_command
from forestay.cli.status import Row, Seen, decide_moves
from forestay.gateway.admin_observe import _worst_tenants
from forestay.telemetry.rollups import Group, Tally

Forestay = Callable[..., Awaitable[Ran]]
QUIET = Seen([], [], [], [], [], [], [], [], "", "", {})
MODEL = "acme/painter"
_ID = st.text(min_size=1, max_size=20).filter(lambda text: not text.startswith("-"))  # no id of ours begins so


def burning(model: str = MODEL) -> Row:
    """An SLO of a model that pages."""
    return {"slo_id": "s", "subject": f"model:{model}", "word": "page"}


def rollout(stage: str, model: str = MODEL, name: str = "ro_1") -> Row:
    """A rollout of a model."""
    at = "2026-11-26T10:00:00+00:00"
    told = {"control": "painter-1", "candidate": "painter-2", "weight": 25.0, "stage_since": at}
    return {"rollout_id": name, "model_id": model, "stage": stage, **told}


def commands(**seen: object) -> list[str]:
    """Return the commands that are proposed."""
    return [move.command for move in decide_moves(Seen(**{**_fields(QUIET), **seen}))]  # pyright: ignore[reportArgumentType]


def _fields(seen: Seen) -> dict[str, object]:
    return {name: getattr(seen, name) for name in Seen.__dataclass_fields__}


def test_where_nothing_burns_nothing_has_to_be_done() -> None:
    """No move is for nothing."""
    assert commands() == []
    assert commands(rollouts=[rollout("promoted"), rollout("held")]) == []


def test_a_revision_under_way_can_be_taken_back_whether_or_not_something_burns() -> None:
    """By one command, with its share of the traffic as the reason."""
    for stage in ("gates", "shadow", "canary", "watch"):
        [move] = decide_moves(Seen(**{**_fields(QUIET), "rollouts": [rollout(stage)]}))  # pyright: ignore[reportArgumentType]
        assert move.command.startswith("forestay rollout abort ro_1 --reason ")
        assert f"painter-2 has 25 % of {MODEL}" in move.reason


def test_a_model_that_burns_after_a_promotion_can_be_set_back_and_another_is_left_alone() -> None:
    """Only the model that hurts, to the revision that it had."""
    told = commands(burning=[burning()], rollouts=[rollout("promoted"), rollout("promoted", "acme/other", "ro_2")])
    assert [line for line in told if "set-back" in line] == [
        f'forestay model set-back {MODEL} painter-1 --reason "..."'
    ]


def test_a_model_that_burns_after_a_deploy_without_a_rollout_shows_the_way_to_its_former_revision() -> None:
    """Only where its traffic was changed by people within the time that is asked for."""
    change = {"subject": f"routes:{MODEL}", "at": "2026-11-26T10:00:00+00:00", "reason": "deployed painter-2"}
    told = commands(burning=[burning()], changes=[change])
    assert told[0] == f"forestay model revisions {MODEL}"
    assert not [line for line in commands(burning=[burning("acme/other")], changes=[change]) if "revisions" in line]


def test_a_replica_whose_outputs_are_bad_can_be_drained() -> None:
    """Where an alert names one; what is bad on all replicas names none."""
    alert = {"alert_id": "a-1", "subject": f"model:{MODEL}", "name": "outputs_degraded", "summary": "black pictures",
             "acknowledged": True}  # fmt: skip
    drain = 'forestay quality drain painter-5f0c --reason "..."'
    assert drain in commands(alerts=[{**alert, "labels": {"replica": "painter-5f0c"}}])
    assert not [line for line in commands(alerts=[{**alert, "labels": {"replica": ""}}]) if "drain" in line]


def test_a_fault_that_was_put_in_on_purpose_is_the_first_to_be_taken_out() -> None:
    """Before anything is rolled back for it."""
    told = commands(burning=[burning()], drills=[{"drill_id": "drill-1", "fault": "f"}], rollouts=[rollout("canary")])
    assert told[0].startswith("forestay drill stop drill-1")


def test_a_frozen_platform_is_told_how_to_thaw_and_a_burning_one_how_to_freeze() -> None:
    """Never both."""
    assert commands(frozen="by olga: x") == ['forestay fleet unfreeze "..."']
    told = commands(burning=[burning()], tenants=[{"tenant_id": "acme", "good": 1, "bad": 2}])
    assert told == ['forestay fleet freeze "..."', "forestay limit usage tenant:acme"]


@settings(max_examples=30)
@given(_ID, _ID, _ID, st.sampled_from(["canary", "promoted"]), st.booleans())
def test_every_move_is_a_command_that_parses_whatever_names_are_in_it(
    name: str, model: str, tenant: str, stage: str, frozen: bool
) -> None:
    """A shell passes on what was meant, and the command takes it: no name becomes an option or a second command."""
    seen: dict[str, Any] = {
        "burning": [burning(model)],
        "alerts": [{"alert_id": name, "summary": "s", "subject": f"model:{model}", "acknowledged": False}],
        "rollouts": [rollout(stage, model, name)],
        "drills": [{"drill_id": name, "fault": "f"}],
        "tenants": [{"tenant_id": tenant, "good": 0, "bad": 1}],
        "frozen": "by x: y" if frozen else "",
    }
    moves = commands(**seen)
    assert len(moves) == 5
    for line in moves:
        _, noun, verb, *words = shlex.split(line)
        command = cast("Any", load_command(noun)).commands[verb]
        command.make_context(verb, words)


def test_the_tenants_with_the_most_failures_come_first_and_others_not_at_all() -> None:
    """Minutes of all their models are added up; polls, which name no model, do not count."""
    at = dt.datetime(2026, 11, 26, tzinfo=dt.UTC)

    def row(model: str, tenant: str, good: int, bad: int) -> tuple[Group, Tally]:
        tally = Tally()
        tally.good, tally.bad = good, bad
        return Group(at, model, tenant, "/", "r", "queue", "", ""), tally

    rows = [row("m", "a", 5, 1), row("n", "a", 5, 2), row("m", "b", 0, 9), row("m", "c", 9, 0), row("", "d", 0, 99)]
    assert _worst_tenants(rows) == [
        {"tenant_id": "b", "good": 0, "bad": 9},
        {"tenant_id": "a", "good": 10, "bad": 3},
    ]


async def test_one_command_tells_what_fires_what_changed_and_the_way_out(
    forestay: Forestay, platform: Platform
) -> None:
    """An alert, a drill and a freeze: each stands there with who, why, and the command that undoes it."""
    calm = await forestay("status")
    assert (calm.status, "nothing has to be done" in calm.out) == (0, True), calm.err
    await deployed(platform)
    on = ("--model", "acme/probe", "--worker", "w1", "--reason", "game day")
    drill = json.loads((await forestay("drill", "start", "clip-is-frozen", *on, "--json")).out)["drill_id"]
    await see(platform, condition())
    assert (await forestay("fleet", "freeze", "incident 7")).status == 0
    told = await forestay("status", "--within", "1h")
    assert told.status == 0, told.err
    for words in ("FROZEN by human:", "incident 7", "start_drill", "game day", f"forestay drill stop {drill}"):
        assert words in told.out
    assert "forestay alert ack al_" in told.out
    seen = (await forestay("status", "--json")).json()
    assert [row["alert_id"] for row in cast("list[Row]", seen["alerts"])]
    assert seen["unknown"] == {}
    wrong = await forestay("status", "--within", "8d")
    assert (wrong.status, "--within" in wrong.err) == (2, True)
