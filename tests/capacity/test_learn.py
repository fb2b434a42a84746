"""The learning loop: from facts in Postgres to predictions, once each, whoever runs it."""

import dataclasses
import datetime as dt
import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conformance.fleet_values import revision_of
from tests.conformance.memory_fleet import MemoryFleetStore
from tests.conformance.queue_harness import MODEL, PostgresHarness, finish, offer, postgres_harness, report, submission

from forestay.capacity.learn import MOST_TAUGHT, LearningLoop, decide_taught, model_for, observations_of
from forestay.capacity.postgres_costs import PostgresCostStore
from forestay.capacity.view import CostView
from forestay.chance import SystemChance
from forestay.clock import SystemClock
from forestay.fleet.actions import Origin, RegisterRevision, SetRoutes
from forestay.fleet.model import Revision, Route
from forestay.fleet.spec import CapacitySpec, ResourceSpec
from forestay.ids import BUCKETS, KeyId, RevisionId, TenantId, WorkerId, new_request_id
from forestay.queue.model import Options, Outcome
from forestay.storage.objects import ObjectStore
from forestay.storage.postgres import Database
from forestay.telemetry.cost_facts import CostFact, PostgresCostFacts, first_cursor
from forestay.telemetry.facts import FactWriter, RequestFact, make_partitions, ship

CLOCK = SystemClock()
STEPS = {
    "properties": {"prompt": {"type": "string"}, "steps": {"type": "integer", "default": 10}},
}
OPENAPI = {"paths": {"/": {"post": {"requestBody": {"content": {"application/json": {"schema": STEPS}}}}}}}


def revision(name: str, seconds: float | None = None) -> Revision:
    """A revision of the model, with steps in its schema."""
    made = revision_of(name, MODEL, ResourceSpec("cpu", 1, 100))
    spec = dataclasses.replace(made.spec, capacity=CapacitySpec(gpu_seconds=seconds))
    return dataclasses.replace(made, spec=spec, openapi=OPENAPI)


async def fleet_with(*revisions: Revision) -> MemoryFleetStore:
    """A fleet that knows these revisions."""
    fleet = MemoryFleetStore(CLOCK)
    for item in revisions:
        actions = [
            RegisterRevision(item, TenantId("acme"), "shared", "test"),
            SetRoutes(item.model_id, (Route(item.model_id, item.revision_id, 0, BUCKETS),), "test"),
        ]
        await fleet.apply(actions, origin=Origin.HUMAN, actor="human:test")
    return fleet


async def run(harness: PostgresHarness, count: int, steps: float, seconds: float, name: str = "digits-1") -> None:
    """Let `count` requests of so many steps succeed after so many device-seconds each."""
    items = [submission(harness, options=Options(features={"steps": steps})) for _ in range(count)]
    await harness.store.submit(items, {})
    for lease in await harness.store.claim(WorkerId("w"), [offer(count, revision=name)], 15):
        done = finish(lease)
        work = {"x_steps": steps, "predicted_seconds": 1.0}
        told = dataclasses.replace(report(lease), device_seconds=seconds, work=work)
        await harness.store.finish([dataclasses.replace(done, report=told)])


async def learn_all(database: Database, fleet: MemoryFleetStore) -> int:
    """Ship the facts and learn from them at once."""
    await ship(database, database)
    loop = LearningLoop(PostgresCostFacts(database, -60.0), PostgresCostStore(database), fleet, CLOCK)
    return await loop.run_once()


async def test_what_requests_took_becomes_what_is_predicted(database: Database, objects: ObjectStore) -> None:
    """Attempts of the queue and direct calls teach the same model; a failure teaches nothing."""
    await make_partitions(database, CLOCK)
    one = revision("digits-1", 1.0)
    fleet = await fleet_with(one)
    async with postgres_harness(database, objects) as harness:
        await run(harness, 30, 10.0, 2.0)
        await run(harness, 30, 40.0, 8.0)
    now = CLOCK.now()
    direct = RequestFact(
        new_request_id(now, 0, SystemChance()), "direct", TenantId("acme"), KeyId("k"), MODEL, "/",
        one.revision_id, None, 1, "succeeded", Outcome.SUCCEEDED, 200, None, now, now, now, 2.0, {"x_steps": 10.0},
    )  # fmt: skip
    failed = msgspec.structs.replace(direct, request_id=new_request_id(now, 0, SystemChance()), outcome="model_error")
    session = msgspec.structs.replace(direct, request_id=new_request_id(now, 0, SystemChance()), lane="realtime")
    await FactWriter(database).write([direct, failed, session])
    assert await learn_all(database, fleet) == 61
    view = CostView()
    view.update(await PostgresCostStore(database).predictors(None))
    for steps, seconds in ((10, 2.0), (40, 8.0), (20, 4.0)):
        told = view.foretell(one, "/", {"prompt": "a", "steps": steps})
        assert told.seconds == pytest.approx(seconds, rel=0.2)
        assert told.features == {"steps": float(steps)}
    assert "61 requests of this revision" in view.explain(one, "/", {})[1].source


async def test_each_fact_is_learned_once(database: Database, objects: ObjectStore) -> None:
    """A second run, and a run of another controller, find nothing new; later facts are found."""
    await make_partitions(database, CLOCK)
    fleet = await fleet_with(revision("digits-1"))
    async with postgres_harness(database, objects) as harness:
        await run(harness, 5, 10.0, 2.0)
        assert await learn_all(database, fleet) == 5
        before = (await PostgresCostStore(database).learned()).models
        assert await learn_all(database, fleet) == 0
        assert (await PostgresCostStore(database).learned()).models == before
        await run(harness, 3, 10.0, 2.0)
        assert await learn_all(database, fleet) == 3


async def test_a_new_revision_begins_with_the_former_ones_costs(database: Database, objects: ObjectStore) -> None:
    """For gateways from the first call on, and for the learner with its first fact."""
    await make_partitions(database, CLOCK)
    old, new = revision("digits-1", 1.0), revision("digits-2", 1.0)
    fleet = await fleet_with(old, new)
    async with postgres_harness(database, objects) as harness:
        await run(harness, 30, 10.0, 6.0)
        await learn_all(database, fleet)
        view = CostView()
        view.update(await PostgresCostStore(database).predictors(None))
        assert view.foretell(new, "/", {}).seconds == pytest.approx(6.0, rel=0.2)
        assert "revision digits-1" in view.explain(new, "/", {})[1].source
        assert view.foretell(new, "/edit", {}).seconds == pytest.approx(1.0)
        await run(harness, 1, 10.0, 6.0, name="digits-2")
        await learn_all(database, fleet)
    learned = (await PostgresCostStore(database).learned()).models
    assert learned[RevisionId("digits-2"), "/"].model.learned == 1
    assert "digits-1" in learned[RevisionId("digits-2"), "/"].model.origin


async def test_a_model_that_nobody_knows_is_passed_over(database: Database, objects: ObjectStore) -> None:
    """A fact of a revision that the fleet has forgotten moves the cursor and teaches nothing."""
    await make_partitions(database, CLOCK)
    async with postgres_harness(database, objects) as harness:
        await run(harness, 2, 10.0, 2.0)
    assert await learn_all(database, await fleet_with()) == 2
    assert await learn_all(database, await fleet_with()) == 0
    assert (await PostgresCostStore(database).learned()).models == {}


async def test_without_facts_the_spec_speaks() -> None:
    """Its typical cost at the schema's defaults; no prediction exceeds what the time-out lets a request take."""
    one = revision("digits-1", 3.0)
    assert model_for((one.revision_id, "/"), {}, one).predictor.seconds({"steps": 10.0}) == pytest.approx(3.0)
    view = CostView()
    assert view.foretell(one, "/", {"prompt": "a"}).seconds == pytest.approx(3.0)
    assert view.foretell(one, "/", {"steps": 20}).seconds == pytest.approx(0.6 + 2 * 2.4)
    short = dataclasses.replace(one.spec, limits=dataclasses.replace(one.spec.limits, request_timeout_seconds=2.0))
    assert CostView().foretell(dataclasses.replace(one, spec=short), "/", {}).seconds == 2.0


def test_no_tenant_teaches_for_all() -> None:
    """Of a batch in which one tenant has nearly all facts, its facts together count a quarter of the batch."""
    at = first_cursor(dt.datetime(2030, 1, 1, tzinfo=dt.UTC))
    facts = [
        CostFact(at, TenantId("loud" if n >= 40 else f"quiet-{n % 4}"), MODEL, RevisionId("r"), "/", {}, 1.0)
        for n in range(1000)
    ]
    weights = [item.weight for item in observations_of(facts)]
    assert sum(weights[40:]) == pytest.approx(250.0)
    assert set(weights[:40]) == {1.0}
    assert {item.weight for item in observations_of(facts[-15:])} == {1.0}


@given(st.integers(0, 3 * MOST_TAUGHT))
def test_of_a_flood_of_facts_an_even_share_teaches(count: int) -> None:
    """Never more than a model can remember, each once, in order, from the first to nearly the last."""
    at = first_cursor(dt.datetime(2030, 1, 1, tzinfo=dt.UTC))
    facts = [CostFact(at, TenantId("t"), MODEL, RevisionId("r"), "/", {}, float(n)) for n in range(count)]
    taught = [fact.device_seconds for fact in decide_taught(facts)]
    assert len(taught) == min(count, MOST_TAUGHT)
    assert taught == sorted(set(taught))
    if count:
        assert taught[0] == 0.0
        assert taught[-1] >= count - 1 - count / MOST_TAUGHT
        assert max((b - a for a, b in itertools.pairwise(taught)), default=0) <= -(-count // MOST_TAUGHT)
