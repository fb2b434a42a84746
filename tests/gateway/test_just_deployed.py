"""What a gateway knows a moment after a deploy that nobody has told it of."""

import asyncio
import dataclasses

import pytest
from tests.gateway.world import World, deploy, revision_of

from forestay.errors import Unavailable
from forestay.fleet.model import Fleet

ONE_INPUT = {"prompt": "a"}


async def test_a_model_is_callable_as_soon_as_its_deploy_is_answered(world: World) -> None:
    """The first call of a new model is no 404, although no wake-up came and no poll was due."""
    await deploy(world.fleet, revision_of("new-1", "acme/new"), "acme", "shared")
    reply = await world.call("POST", "/queue/acme/new", ONE_INPUT)
    assert reply.status == 200


async def test_a_new_revisions_endpoint_is_callable_at_once(world: World) -> None:
    """An endpoint that the former revision did not have is looked for once more before it is called unknown."""
    revision = revision_of("echo-2", "acme/echo")
    openapi = {"paths": {**revision.openapi["paths"], "/newer": revision.openapi["paths"]["/edit"]}}  # type: ignore[index, dict-item]
    await deploy(world.fleet, dataclasses.replace(revision, openapi=openapi), "acme", "shared")
    assert (await world.call("POST", "/queue/acme/echo/newer", ONE_INPUT)).status == 200
    assert (await world.call("POST", "/queue/acme/echo/never", ONE_INPUT)).status == 404


async def test_unknown_names_asked_for_together_cost_one_look(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of wrong names is no flood of reads."""
    looks = 0
    looking, gate = asyncio.Event(), asyncio.Event()
    version = world.fleet.version

    async def counted() -> int:
        nonlocal looks
        looks += 1
        looking.set()
        await gate.wait()
        return await version()

    monkeypatch.setattr(world.fleet, "version", counted)
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(world.call("POST", f"/queue/acme/none{n}", ONE_INPUT)) for n in range(20)]
        await looking.wait()
        gate.set()
    assert {call.result().status for call in calls} == {404}
    assert looks <= 3


async def test_a_silent_store_makes_nothing_unknown(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the store is away an unknown name is a 503: 404 would be a guess."""

    async def away() -> Fleet:
        raise Unavailable("away, as the test asked")

    monkeypatch.setattr(world.fleet, "version", away)
    monkeypatch.setattr(world.fleet, "load", away)
    assert (await world.call("POST", "/queue/acme/none", ONE_INPUT)).status == 503
