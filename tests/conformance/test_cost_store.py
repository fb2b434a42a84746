"""One behaviour suite for every adapter of the cost models' port: Postgres, and the fake that gateways' tests use."""

import dataclasses
import datetime as dt

import pytest
from tests.conformance.memory_costs import MemoryCostStore

from forestay.capacity.costs import CostStore, StoredModel
from forestay.capacity.postgres_costs import PostgresCostStore
from forestay.capacity.predict import cold_model
from forestay.capacity.regress import Observation, learn
from forestay.clock import SystemClock
from forestay.ids import ModelId, RevisionId
from forestay.storage.postgres import Database
from forestay.telemetry.cost_facts import Cursor, first_cursor

NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
FIRST, SECOND = first_cursor(NOW), first_cursor(NOW + dt.timedelta(seconds=1))


@pytest.fixture(params=["memory", "postgres"])
def store(request: pytest.FixtureRequest, database: Database) -> CostStore:
    """Each adapter in turn."""
    return MemoryCostStore(SystemClock()) if request.param == "memory" else PostgresCostStore(database)


def stored(revision: str, seconds: float = 4.0, endpoint: str = "/") -> StoredModel:
    """A model that has learned one fact."""
    model = learn(cold_model({"steps": 28.0}, seconds, ()), [Observation({"steps": 28.0}, seconds)])
    return StoredModel(ModelId("acme/digits"), RevisionId(revision), endpoint, model)


async def test_what_was_saved_is_read_back_as_it_was(store: CostStore) -> None:
    """Models and cursor; what gateways read predicts the same."""
    assert (await store.learned()).cursor is None
    item = stored("digits-1")
    assert await store.save([item, stored("digits-1", 9.0, "/edit")], None, FIRST)
    learned = await store.learned()
    assert learned.cursor == FIRST
    assert learned.models[item.key] == item
    [one, two] = await store.predictors(None)
    assert {one.endpoint, two.endpoint} == {"/", "/edit"}
    found = one if one.endpoint == "/" else two
    assert (found.predictor, found.learned) == (item.model.predictor, 1)


async def test_two_learners_cannot_both_move_the_cursor(store: CostStore) -> None:
    """The one that comes late stores nothing: its facts have been learned from."""
    assert await store.save([stored("digits-1")], None, FIRST)
    assert not await store.save([stored("digits-2")], None, SECOND)
    stale = Cursor(NOW - dt.timedelta(days=1), FIRST.request_id)
    assert not await store.save([stored("digits-2")], stale, SECOND)
    assert [item.revision_id for item in await store.predictors(None)] == ["digits-1"]
    assert await store.save([stored("digits-2")], FIRST, SECOND)
    assert (await store.learned()).cursor == SECOND


async def test_readers_get_what_has_changed_since_they_looked(store: CostStore) -> None:
    """The newest change comes last, also for a model that was there before."""
    await store.save([stored("digits-1")], None, FIRST)
    [seen] = await store.predictors(None)
    again = dataclasses.replace(stored("digits-1"), model=learn(stored("digits-1").model, [Observation({}, 8.0)]))
    await store.save([stored("digits-2"), again], FIRST, SECOND)
    assert await store.predictors(seen.updated_at + dt.timedelta(days=1)) == []
    later = await store.predictors(seen.updated_at)
    assert {item.revision_id: item.learned for item in later} == {"digits-1": 2, "digits-2": 1}
    assert next(iter((await store.learned()).models)) in {("digits-1", "/"), ("digits-2", "/")}
