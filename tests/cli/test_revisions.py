"""What a model was, and the way back, as the person sees it who has just shipped something wrong."""

import pathlib
from collections.abc import Awaitable, Callable
from typing import cast

from tests.cli.conftest import Platform, Ran
from tests.cli.test_rolling_deploy import MODEL, report, serving, spec_of
from tests.conformance.fleet_values import replica_of

from forestay.ids import RevisionId

Forestay = Callable[..., Awaitable[Ran]]


async def test_a_model_is_set_back_at_once_while_the_old_revision_is_loaded(
    forestay: Forestay, platform: Platform, tmp_path: pathlib.Path
) -> None:
    """The list says what each revision changed; the way back is one command with a reason, and an audit row."""
    first = await serving(forestay, platform, tmp_path)
    second = (await forestay("deploy", spec_of(tmp_path, "two"), "--strategy", "recreate")).out.strip()
    listed = (await forestay("model", "revisions", MODEL)).out.splitlines()
    assert (second in listed[1], "description" in listed[1], "100 %" in listed[1]) == (True, True, True)
    assert "the first" in listed[2]
    pair = await forestay("model", "revisions", MODEL, first.revision_id, second, "--json")
    [change] = cast("list[dict[str, object]]", pair.json()["changes"])
    assert (change["field"], change["before"], change["after"]) == ("description", "one", "two")
    back = await forestay("model", "set-back", MODEL, first.revision_id, "--reason", "worse", "--json")
    assert back.json()["pending"] is False
    fleet = await platform.ports.fleet.load()
    assert fleet.routed(MODEL, 0) == first.revision_id
    assert fleet.models[MODEL].spec == first.spec
    rows = await platform.database.fetch("SELECT reason FROM audit_log WHERE action = 'set_back'")
    assert [row["reason"] for row in rows] == ["worse"]


async def test_a_revision_that_is_not_loaded_is_waited_for_and_strangers_are_named(
    forestay: Forestay, platform: Platform, tmp_path: pathlib.Path
) -> None:
    """Callers do not wait for a start unless somebody says so."""
    first = await serving(forestay, platform, tmp_path)
    second = (await forestay("deploy", spec_of(tmp_path, "two"), "--strategy", "recreate")).out.strip()
    revision = (await platform.ports.fleet.load()).revisions[RevisionId(second)]
    await report(platform, replica_of(revision, name="r2"))
    back = await forestay("model", "set-back", MODEL, first.revision_id, "--reason", "worse")
    assert "once a replica of it is ready" in back.out
    assert (await platform.ports.fleet.load()).routed(MODEL, 0) == second
    wrong = await forestay("model", "set-back", MODEL, "server-000000000000", "--reason", "worse")
    assert "forestay model revisions" in wrong.err
    await forestay("model", "set-back", MODEL, first.revision_id, "--reason", "worse", "--at-once")
    assert (await platform.ports.fleet.load()).routed(MODEL, 0) == first.revision_id
