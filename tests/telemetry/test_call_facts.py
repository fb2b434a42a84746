"""Call facts: written once, read in order, and no cursor passes over one."""

import asyncio
import datetime as dt
import uuid

import msgspec

from forestay.clock import SystemClock
from forestay.storage.postgres import Database
from forestay.telemetry.call_facts import CallFact, PostgresCalls, keep_partitions

NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
LONG_AGO = NOW - dt.timedelta(days=400)


def fact_of(number: int, **fields: object) -> CallFact:
    """One call, `number` seconds after the start."""
    made = CallFact(
        at=NOW + dt.timedelta(seconds=number),
        call_id=uuid.UUID(int=number + 1),
        tenant_id="acme",
        key_id="k1",
        model_id="acme/digits",
        lane="queue",
        verb="submit",
        network="203.0.113.0/24",
        agent="a1",
        accepted=True,
        cause="",
        status_code=200,
        predicted_seconds=1.5,
        prompt=-(1 << 63),
        raw=(1 << 63) - 1,
        prompt_chars=12,
        meaning=bytes(range(32)),
        shape=7,
    )
    return msgspec.structs.replace(made, **fields)


async def test_a_fact_is_read_as_it_was_written_and_kept_once(database: Database) -> None:
    """Every field survives, the ends of 64 bits too; a batch written again adds nothing."""
    calls = PostgresCalls(database)
    batch = [fact_of(1), fact_of(2, prompt=None, meaning=None, tenant_id="", key_id="", claimed="ab", tried=9)]
    await calls.write(batch)
    await calls.write(batch)
    found = await calls.after(0, LONG_AGO, 10)
    assert [msgspec.structs.replace(item, position=0) for item in found] == batch
    assert found[0].position < found[1].position


async def test_a_cursor_passes_over_nothing_while_gateways_write_at_once(database: Database) -> None:
    """Positions become visible in their order: a reader that follows them sees every fact."""
    calls, seen, done = PostgresCalls(database), list[int](), asyncio.Event()

    async def write(first: int) -> None:
        for number in range(15):
            await calls.write([fact_of(first + number * 3 + item) for item in range(3)])

    async def read() -> None:
        position = 0
        while True:
            ended = done.is_set()
            found = await calls.after(position, LONG_AGO, 1_000)
            for item in found:
                seen.append(item.call_id.int)
                position = item.position
            if ended and not found:
                return

    async with asyncio.TaskGroup() as group:
        reader = group.create_task(read())
        async with asyncio.TaskGroup() as writers:
            for first in (0, 1_000, 2_000):
                writers.create_task(write(first))
        done.set()
        await reader
    assert len(seen) == len(set(seen)) == 135


async def test_a_time_is_read_by_pages(database: Database) -> None:
    """For replay: between two moments, a page at a time."""
    calls = PostgresCalls(database)
    await calls.write([fact_of(number) for number in range(10)])
    since, until = NOW + dt.timedelta(seconds=2), NOW + dt.timedelta(seconds=8)
    first = await calls.between(since, until, 0, 4)
    second = await calls.between(since, until, first[-1].position, 4)
    assert [item.call_id.int for item in (*first, *second)] == [3, 4, 5, 6, 7, 8]


async def test_days_are_made_ahead_and_dropped_whole(database: Database) -> None:
    """Facts of calls are kept as long as the setting says, and no longer."""
    clock = SystemClock()
    old = clock.now() - dt.timedelta(days=40)
    bounds = (f"{old:%Y-%m-%d}", f"{old + dt.timedelta(days=1):%Y-%m-%d}")
    await database.execute("SELECT forestay_make_partition('call_facts', $1, 'at', $2, $3)", f"{old:%Y%m%d}", *bounds)
    calls = PostgresCalls(database)
    await calls.write([fact_of(1, at=old), fact_of(2, at=clock.now())])
    assert await keep_partitions(database, clock, 30 * 86_400.0) == 5
    assert await keep_partitions(database, clock, 30 * 86_400.0) == 0
    assert [item.call_id.int for item in await calls.after(0, old - dt.timedelta(days=9), 10)] == [3]
