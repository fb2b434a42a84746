"""A redeploy of a model that serves: what the person who deploys sees of it."""

import asyncio
import dataclasses
import pathlib
from collections.abc import Awaitable, Callable
from typing import cast

from tests.cli.conftest import Platform, Ran
from tests.conformance.fleet_values import replica_of, worker_of

from forestay.clock import SystemClock
from forestay.fleet.model import ReplicaReport, ReplicaState, Revision
from forestay.ids import ModelId, RevisionId
from forestay.rollouts.loop import RolloutLoop

Forestay = Callable[..., Awaitable[Ran]]
MODEL = ModelId("acme/server")
SPEC = """version: 0
model: acme/server
description: {text}
owner: {{team: t, contact: c@example.com}}
licence: MIT
host: {{kind: http_server, url: http://127.0.0.1:9}}
endpoints: [{{path: /}}]
"""


def spec_of(folder: pathlib.Path, text: str) -> pathlib.Path:
    """Write a spec; another text is another revision."""
    (folder / "model.yaml").write_text(SPEC.format(text=text))
    return folder / "model.yaml"


async def report(platform: Platform, *replicas: ReplicaReport) -> None:
    """Let the worker report these replicas."""
    now = SystemClock().now()
    moved = [dataclasses.replace(item, started_at=now, ready_at=item.ready_at and now) for item in replicas]
    await platform.ports.fleet.report(dataclasses.replace(worker_of(), started_at=now, seen_at=now), moved)


async def serving(forestay: Forestay, platform: Platform, tmp_path: pathlib.Path) -> Revision:
    """Deploy the first revision and let it be ready."""
    revision_id = (await forestay("deploy", spec_of(tmp_path, "one"))).out.strip()
    revision = (await platform.ports.fleet.load()).revisions[RevisionId(revision_id)]
    await report(platform, replica_of(revision))
    return revision


async def test_the_first_deploy_routes_at_once(forestay: Forestay, platform: Platform, tmp_path: pathlib.Path) -> None:
    """Nothing serves that could go on meanwhile; `--wait` has nothing to wait for."""
    ran = await forestay("deploy", spec_of(tmp_path, "one"), "--strategy", "rolling", "--wait", "--json")
    assert ran.json()["pending"] is False
    assert (await platform.ports.fleet.load()).routed(MODEL, 0) == ran.json()["revision_id"]


async def test_a_redeploy_leaves_the_route_until_a_replica_is_ready(
    forestay: Forestay, platform: Platform, tmp_path: pathlib.Path
) -> None:
    """The one who deploys is told, the one who looks sees what is waited for, and `--wait` ends with the switch."""
    first = await serving(forestay, platform, tmp_path)
    ran = await forestay("deploy", spec_of(tmp_path, "two"))
    second = ran.out.strip()
    assert "serves until a replica of this one is ready" in ran.err
    fleet = await platform.ports.fleet.load()
    assert fleet.routed(MODEL, 0) == first.revision_id
    assert f"{second} takes over once a replica of it is ready" in (await forestay("model", "show", MODEL)).out
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(_run(forestay, "deploy", spec_of(tmp_path, "two"), "--wait", "--json"))
        await report(platform, replica_of(first), replica_of(fleet.revisions[RevisionId(second)], name="r2"))
        assert await RolloutLoop(platform.ports.fleet).run_once() == 1
        told = (await waiting).json()
    assert (told["revision_id"], told["pending"]) == (second, False)
    shown = (await forestay("model", "show", MODEL, "--json")).json()
    assert shown["pending"] is None
    assert [route["revision_id"] for route in cast("list[dict[str, str]]", shown["routes"])] == [second]


async def _run(forestay: Forestay, *words: object) -> Ran:
    return await forestay(*words)


async def test_a_revision_that_does_not_start_is_given_up_and_the_old_one_serves_on(
    forestay: Forestay, platform: Platform, tmp_path: pathlib.Path
) -> None:
    """The command fails with the replica's own words, and `model show` keeps them."""
    first = await serving(forestay, platform, tmp_path)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(_run(forestay, "deploy", spec_of(tmp_path, "two"), "--wait"))
        while not (fleet := await platform.ports.fleet.load()).pending:  # noqa: ASYNC110 - the store rings no bell
            await asyncio.sleep(0.01)  # until the deploy has arrived
        second = fleet.revisions[fleet.pending[MODEL].revision_id]
        failing = replica_of(second, name="r2", state=ReplicaState.BACKOFF)
        await report(platform, replica_of(first), dataclasses.replace(failing, detail="no module named nothing"))
        await platform.database.execute("UPDATE pending_routes SET until = now()")
        assert await RolloutLoop(platform.ports.fleet).run_once() == 1
        ran = await waiting
    assert ran.status == 1
    assert "no module named nothing" in ran.err
    assert "no module named nothing" in (await forestay("model", "show", MODEL)).out
    assert (await platform.ports.fleet.load()).routed(MODEL, 0) == first.revision_id


async def test_recreate_switches_at_once_and_an_unknown_strategy_is_named(
    forestay: Forestay, platform: Platform, tmp_path: pathlib.Path
) -> None:
    """For whoever cannot have two revisions side by side."""
    await serving(forestay, platform, tmp_path)
    ran = await forestay("model", "deploy", spec_of(tmp_path, "two"), "--strategy", "recreate", "--json")
    assert ran.json()["pending"] is False
    assert (await platform.ports.fleet.load()).routed(MODEL, 0) == ran.json()["revision_id"]
    wrong = await forestay("deploy", spec_of(tmp_path, "three"), "--strategy", "blue")
    assert wrong.status == 2
    assert "--strategy" in wrong.err


async def test_deploying_the_old_file_again_takes_a_waiting_deploy_back(
    forestay: Forestay, platform: Platform, tmp_path: pathlib.Path
) -> None:
    """The quick way out of a deploy that one regrets."""
    first = await serving(forestay, platform, tmp_path)
    await forestay("deploy", spec_of(tmp_path, "two"))
    assert (await platform.ports.fleet.load()).pending
    ran = await forestay("deploy", spec_of(tmp_path, "one"), "--json")
    fleet = await platform.ports.fleet.load()
    assert (ran.json()["revision_id"], fleet.pending) == (first.revision_id, {})
