"""What a gateway predicts of a call, where that goes, and the one refusal that follows from it."""

import dataclasses
from collections.abc import AsyncIterator
from typing import cast

import pytest
from tests.conformance.memory_costs import MemoryCostStore
from tests.gateway.world import World, a_world, deploy, revision_of

from forestay.capacity.costs import StoredModel
from forestay.capacity.predict import cold_model
from forestay.fleet.model import Revision
from forestay.fleet.spec import CapacitySpec
from forestay.ids import ModelId, ReplicaId, RevisionId, WorkerId
from forestay.queue.store import Offer
from forestay.storage.objects import ObjectStore
from forestay.telemetry.cost_facts import first_cursor

FIELDS = {"prompt": {"type": "string"}, "steps": {"type": "integer", "default": 10}, "n": {"type": "integer"}}
SCHEMA = {"type": "object", "properties": FIELDS, "required": ["prompt"]}
OPENAPI = {"paths": {"/": {"post": {"requestBody": {"content": {"application/json": {"schema": SCHEMA}}}}}}}


def painter(**said: object) -> Revision:
    """A revision whose spec says what a usual request costs."""
    made = revision_of("painter-1", "acme/painter")
    spec = dataclasses.replace(made.spec, capacity=CapacitySpec(**said))  # type: ignore[arg-type]
    return dataclasses.replace(made, spec=spec, openapi=OPENAPI)


@pytest.fixture
async def world(objects: ObjectStore) -> AsyncIterator[World]:
    """A gateway with a model that draws in ten steps and two seconds, and takes at most thirty."""
    async with a_world(objects) as world:
        wanted = painter(gpu_seconds=2.0, scales_with=("steps", "images"), max_gpu_seconds=30.0)
        await deploy(world.fleet, wanted, "acme", "shared")
        await world.gateway.fleet.refresh()
        yield world


async def predicted(world: World, body: dict[str, object]) -> tuple[float, dict[str, float]]:
    """Submit, and return what the worker is told of it."""
    reply = await world.call("POST", "/queue/acme/painter", body)
    assert reply.status == 200, reply.body
    offer = Offer(ReplicaId("r9"), RevisionId("painter-1"), ModelId("acme/painter"), ((0, 10_000),), 1, idle=True)
    [lease] = await world.queue.claim(WorkerId("w1"), [offer], 15.0)
    return lease.predicted_seconds, dict(lease.options.features)


async def test_a_submit_carries_its_prediction_and_what_it_was_made_from(world: World) -> None:
    """The schema's defaults stand for what the caller leaves out; the worker sees both."""
    assert await predicted(world, {"prompt": "a"}) == (pytest.approx(2.0), {"steps": 10.0})
    assert await predicted(world, {"prompt": "a", "steps": 30}) == (pytest.approx(6.0), {"steps": 30.0})
    assert await predicted(world, {"prompt": "a", "n": 4}) == (pytest.approx(8.0), {"steps": 10.0, "images": 4.0})


async def test_a_request_larger_than_the_owner_allows_is_refused_with_what_to_lower(world: World) -> None:
    """422 that names the prediction, the limit and the features; in the queue and in the direct lane alike."""
    for path in ("/queue/acme/painter", "/run/acme/painter"):
        reply = await world.call("POST", path, {"prompt": "a", "steps": 200})
        assert reply.status == 422
        [fault] = cast("list[dict[str, object]]", reply.field("detail"))
        assert fault["type"] == "predicted_cost"
        assert "at most 30" in str(fault["msg"])
        assert "steps" in str(fault["msg"])
        assert fault["ctx"] == {"predicted_seconds": 40.0, "max_gpu_seconds": 30.0}
    assert (await world.queue.backlog()) == {}


async def test_no_number_of_a_caller_breaks_a_prediction(world: World) -> None:
    """An absurd value is refused as too costly or by the schema, and never answered 500."""
    for raw in (b'{"prompt": "a", "steps": 1' + b"0" * 400 + b"}", b'{"prompt": "a", "n": 1e308}'):
        assert (await world.call("POST", "/queue/acme/painter", raw=raw)).status == 422
    assert (await predicted(world, {"prompt": "a", "steps": -5}))[0] == pytest.approx(0.2)


async def test_what_was_learned_elsewhere_is_predicted_here_soon(world: World) -> None:
    """The view follows the store; when the store is silent, what was known last goes on speaking."""
    model = cold_model({"steps": 10.0}, 5.0, ("steps",))
    item = StoredModel(ModelId("acme/painter"), RevisionId("painter-1"), "/", model)
    costs = cast("MemoryCostStore", world.ports.costs)
    await costs.save([item], None, first_cursor(world.ports.clock.now()))
    await world.gateway.direct.predictions.refresh()
    assert (await predicted(world, {"prompt": "a"}))[0] == pytest.approx(5.0)
    await world.gateway.direct.predictions.refresh()
    assert (await predicted(world, {"prompt": "a"}))[0] == pytest.approx(5.0)


async def test_a_direct_calls_fact_says_what_was_predicted(world: World) -> None:
    """As an attempt's does, so that both lanes teach alike."""
    await world.call("POST", "/run/acme/echo", {"prompt": "a"})
    await world.gateway.direct.facts.flush()
    [fact] = world.facts.kept
    assert fact.work == {"predicted_seconds": 1.0}
