"""A rollout whose controllers are killed, stall and lose answers keeps its promises.

`bench rollout_crash` plays every schedule of one fault, and ten thousand more.
"""

import zlib

import numpy as np
import pytest
from tests.conformance.fleet_values import TENANT
from tests.conformance.memory_fleet import ManualClock, MemoryFleetStore
from tests.conformance.memory_rollouts import MemoryRolloutStore
from tests.rollouts.schedules import Fault, Schedule, Story, World, random_faults

from forestay.fleet.postgres_store import PostgresFleetStore
from forestay.rollouts.model import Rollout, Stage
from forestay.rollouts.postgres_store import PostgresRolloutStore
from forestay.storage.postgres import Database
from forestay.storage.valkey import Wakeups

ENDS = {
    Story.GOOD: {Stage.PROMOTED},
    Story.BAD: {Stage.ROLLED_BACK},
    Story.LATE: {Stage.ROLLED_BACK},
    Story.SILENT: {Stage.HELD, Stage.ROLLED_BACK},
    Story.GONE: {Stage.ROLLED_BACK},
    Story.SHADOWED: {Stage.PROMOTED},
    Story.DIFFERENT: {Stage.ROLLED_BACK},
    Story.ABORTED: {Stage.ROLLED_BACK},
    Story.PROMOTED: {Stage.PROMOTED},
    Story.PAUSED: {Stage.PROMOTED},
    Story.OVERTAKEN: {Stage.HELD},
    Story.FROZEN: {Stage.PROMOTED},
}


async def played(story: Story, schedule: Schedule) -> tuple[World, Rollout]:
    """Play a story in memory."""
    clock = ManualClock()
    fleet = MemoryFleetStore(clock)
    world = World(fleet, MemoryRolloutStore(fleet), story, schedule, lambda: clock.advance(1.0))
    return world, await world.run()


@pytest.mark.parametrize("story", list(Story))
async def test_each_story_ends_as_it_should_when_nothing_fails(story: Story) -> None:
    """Good ones are promoted, failing ones rolled back, persons obeyed."""
    world, ended = await played(story, Schedule({}))
    assert world.violations == []
    assert ended.stage in ENDS[story], ended.reason


@pytest.mark.parametrize("story", list(Story))
async def test_no_fault_of_any_io_breaks_a_promise(story: Story) -> None:
    """Shares sum to 100, a failed candidate never gets more, and there is an end."""
    chance = np.random.default_rng(zlib.crc32(story.encode()))
    quiet, _ = await played(story, Schedule({}))
    schedules = [{int(chance.integers(quiet.schedule.operations)): fault} for fault in Fault]
    schedules += [random_faults(chance, quiet.schedule.operations) for _ in range(6)]
    for faults in schedules:
        world, ended = await played(story, Schedule(faults, seed=int(chance.integers(1000))))
        assert world.violations == [], faults
        assert ended.stage in ENDS[story] | {Stage.HELD}, (faults, ended.reason)


@pytest.mark.parametrize("story", [Story.BAD, Story.OVERTAKEN])
async def test_the_real_stores_keep_the_promises_as_well(story: Story, database: Database, wakeups: Wakeups) -> None:
    """One schedule with a kill, a lost answer and a sleeper, on Postgres."""
    await database.execute("INSERT INTO tenants (tenant_id, name) VALUES ($1, 'Acme')", TENANT)
    fleet = PostgresFleetStore(database, wakeups, writer="test")
    faults = {7: Fault.KILLED_AFTER, 12: Fault.ANSWER_LOST, 18: Fault.STALLED}
    world = World(fleet, PostgresRolloutStore(database, writer="test"), story, Schedule(faults), lambda: None)
    ended = await world.run()
    assert world.violations == []
    assert ended.stage in ENDS[story]
