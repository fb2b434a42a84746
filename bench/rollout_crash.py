"""`rollout_crash`: controllers killed at every I/O of a rollout, and every I/O failing in every way.

In memory: for each story every schedule with one fault, then `--rounds N` times 1,800 with several; on a real Postgres
some hundred. Counted are broken promises: shares that do not sum to 100, more weight on a failed version, no end or a
wrong one. The world is that of the tests (tests/rollouts/schedules.py).
"""

import asyncio
import contextlib
import logging
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import structlog
from tests.conformance.memory_fleet import ManualClock, MemoryFleetStore
from tests.conformance.memory_rollouts import MemoryRolloutStore
from tests.rollouts.schedules import Fault, Schedule, Story, World, random_faults, single_faults

from bench.table import Row
from forestay.fleet.postgres_store import PostgresFleetStore
from forestay.rollouts.postgres_store import PostgresRolloutStore
from forestay.storage.embedded import EmbeddedPostgres
from forestay.storage.postgres import Database, migrate
from forestay.storage.valkey import LocalWakeups

ON_POSTGRES = 40  # schedules a round
_TABLES = "rollout_journal, rollouts, route_steps, pending_routes, routes, placements, replicas, workers, models"


async def _play(story: Story, faults: dict[int, Fault], seed: int) -> World:
    clock = ManualClock()
    fleet = MemoryFleetStore(clock)
    schedule = Schedule(faults, seed)
    world = World(fleet, MemoryRolloutStore(fleet), story, schedule, lambda: clock.advance(1.0))
    await world.run()
    return world


async def _in_memory(rounds: int) -> tuple[int, list[str]]:
    chance = np.random.default_rng(1)
    played, broken = 0, list[str]()
    lengths: dict[Story, int] = {}
    for story in Story:
        quiet = await _play(story, {}, 0)
        lengths[story] = quiet.schedule.operations
        for faults in single_faults(min(lengths[story], 150)):
            broken += (await _play(story, faults, 0)).violations
            played += 1
    stories = list(Story)
    for number in range(1_800 * rounds):
        story = stories[number % len(stories)]
        broken += (await _play(story, random_faults(chance, lengths[story]), number)).violations
        played += 1
    return played, broken


async def _on_postgres(rounds: int) -> tuple[int, list[str]]:
    chance = np.random.default_rng(2)
    played, broken = 0, list[str]()
    stories = [story for story in Story if story is not Story.SILENT]  # it waits for the clock
    async with _database() as database:
        wakeups = LocalWakeups()
        for number in range(ON_POSTGRES * rounds):
            await database.execute(f"TRUNCATE {_TABLES} CASCADE")
            await database.execute("UPDATE brakes SET frozen = false")
            schedule = Schedule(random_faults(chance, 70), number)
            fleet = PostgresFleetStore(database, wakeups, writer="bench")
            rollouts = PostgresRolloutStore(database, writer="bench")
            world = World(fleet, rollouts, stories[number % len(stories)], schedule, lambda: None)
            await world.run()
            broken += world.violations
            played += 1
        await wakeups.close()
    return played, broken


@contextlib.asynccontextmanager
async def _database() -> AsyncIterator[Database]:
    with tempfile.TemporaryDirectory(prefix="fs-", ignore_cleanup_errors=True) as folder:
        server = EmbeddedPostgres(Path(folder), fsync=False)
        await asyncio.to_thread(server.start)
        try:
            await migrate(server.superuser_url, kind="main")
            database = await Database.connect(
                server.superuser_url, pool_size=4, statement_timeout_seconds=10.0, application_name="bench"
            )
            await database.execute("INSERT INTO tenants (tenant_id, name) VALUES ('acme', 'Acme')")
            yield database
            await database.close()
        finally:
            await asyncio.to_thread(server.stop)


def run(rounds: int) -> list[Row]:
    """Play every schedule."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    played, broken = asyncio.run(_in_memory(rounds))
    on_postgres, there = asyncio.run(_on_postgres(rounds))
    return [
        Row("schedules in memory", played, "played", 10_000),
        Row("broken promises", len(broken), "of them", 0, "<=", "; ".join(sorted(set(broken))[:3])),
        Row("schedules on Postgres", on_postgres, "played", 100),
        Row("broken promises on Postgres", len(there), "of them", 0, "<=", "; ".join(sorted(set(there))[:3])),
    ]
