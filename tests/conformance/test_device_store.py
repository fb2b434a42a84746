"""One behaviour suite for every adapter of the devices' port: Postgres, and the fake that other tests use."""

import dataclasses
import datetime as dt

import pytest
from tests.conformance.fleet_values import worker_of
from tests.conformance.memory_devices import MemoryDeviceStore, identity_of, reading_of

from forestay.fleet.devices import DeviceState, DeviceStore, Reading, Slowdown
from forestay.fleet.postgres_devices import PostgresDevices
from forestay.fleet.postgres_store import PostgresFleetStore
from forestay.ids import WorkerId
from forestay.storage.postgres import Database
from forestay.storage.valkey import LocalWakeups

NOW = dt.datetime(2026, 11, 26, 12, tzinfo=dt.UTC)
ONE, TWO = WorkerId("w1"), WorkerId("w2")


@pytest.fixture(params=["memory", "postgres"])
async def store(request: pytest.FixtureRequest, database: Database) -> DeviceStore:
    """Each adapter in turn, of a fleet that knows two workers."""
    if request.param == "memory":
        return MemoryDeviceStore()
    fleet = PostgresFleetStore(database, LocalWakeups())
    for name in (ONE, TWO):
        await fleet.report(worker_of(name), [])
    return PostgresDevices(database)


def state_of(worker_id: WorkerId, index: int, **changes: object) -> DeviceState:
    """Return a device as its worker tells of it."""
    return DeviceState(worker_id, reading_of(identity_of(index), NOW, **changes), ("slowed by heat",), ("r1", "r2"))


async def test_what_a_worker_told_last_is_read_back_whole_and_by_index(store: DeviceStore) -> None:
    """Also what the driver did not tell, and which processes hold how much."""
    hot = state_of(ONE, 10, slowed=frozenset({Slowdown.THERMAL}), power_watts=None, processes={457: 1})
    bare = DeviceState(TWO, Reading(identity_of(0), NOW, lost=True))
    await store.keep(ONE, [hot, state_of(ONE, 2)])
    await store.keep(TWO, [bare])
    assert await store.devices() == [state_of(ONE, 2), hot, bare]


async def test_a_worker_replaces_its_own_devices_alone(store: DeviceStore) -> None:
    """One that was taken out of the machine is gone; another worker's stay."""
    await store.keep(ONE, [state_of(ONE, 0), state_of(ONE, 1)])
    await store.keep(TWO, [state_of(TWO, 0)])
    later = dataclasses.replace(state_of(ONE, 1), told=())
    await store.keep(ONE, [later])
    assert await store.devices() == [later, state_of(TWO, 0)]
    await store.keep(TWO, [])
    assert await store.devices() == [later]


async def test_devices_of_a_worker_that_is_forgotten_go_with_it(database: Database) -> None:
    """A worker that the fleet does not know leaves nothing, and one that retired leaves nothing behind."""
    fleet = PostgresFleetStore(database, LocalWakeups())
    store = PostgresDevices(database)
    await store.keep(ONE, [state_of(ONE, 0)])
    assert await store.devices() == []
    await fleet.report(worker_of(ONE), [])
    await store.keep(ONE, [state_of(ONE, 0)])
    assert len(await store.devices()) == 1
    await fleet.retire_worker(ONE)
    assert await store.devices() == []
