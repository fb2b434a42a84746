"""Valkey away: limits go on at this gateway's share, nobody hears of it, and back by themselves."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.gateway.world import World, a_world

from forestay.clock import SystemClock
from forestay.ids import KeyId, ModelId, TenantId
from forestay.limits.counters import Short, Taken
from forestay.limits.failover import Switch
from forestay.limits.model import Charge, LimitKind, Spender, checked_rule, parse_subject
from forestay.limits.plan import Plan, Rulebook
from forestay.limits.valkey_counters import ValkeyCounters
from forestay.storage.embedded import EmbeddedValkey
from forestay.storage.objects import ObjectStore
from forestay.telemetry.metrics import GUARD_OPEN, LIMIT_COUNTERS_AWAY, Metrics

BODY = {"prompt": "a"}
ONE = Charge(1.0)


def plan_of(kind: LimitKind, amount: float, burst: float | None = None) -> Plan:
    """A plan of one rule for acme."""
    rule = checked_rule(parse_subject("tenant:acme"), kind, amount, burst)
    (plan,) = Rulebook([rule]).plans(Spender(TenantId("acme"), KeyId("k"), ModelId("a/b")), direct=True)
    return plan


@pytest.fixture
def server(server_dir: Path) -> EmbeddedValkey:
    """A Valkey of this test alone; the test starts and stops it."""
    return EmbeddedValkey(server_dir / "limits")


@asynccontextmanager
async def a_switch(url: str, metrics: Metrics, gateways: Callable[[], int] = lambda: 1) -> AsyncIterator[Switch]:
    """Run a gateway's counters."""
    clock = SystemClock()
    remote = ValkeyCounters(url, clock, timeout_seconds=2.0)
    switch = Switch(remote, "g1", lambda: 1.0 / gateways(), clock, metrics)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(switch.run())
        yield switch
        running.cancel()


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds, at most ten seconds."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - a server that is back offers no event
            await asyncio.sleep(0.01)


async def test_a_killed_valkey_costs_no_call_an_error_and_is_found_again(server: EmbeddedValkey) -> None:
    """Grants go on at once, are counted as made without the guard, and Valkey counts again when it is back."""
    metrics, plan = Metrics(), plan_of(LimitKind.REQUESTS_PER_SECOND, 100_000, 100_000)
    try:
        async with a_switch(server.start(), metrics) as switch:
            assert isinstance(await switch.take(plan, "", ONE, 30.0), Taken)
            assert switch.holder == "g1"
            server.stop()
            outcomes = [await switch.take(plan, "", ONE, 30.0) for _ in range(50)]
            assert all(isinstance(item, Taken) for item in outcomes)
            assert metrics.value(GUARD_OPEN, "limits") == 50
            assert metrics.value(LIMIT_COUNTERS_AWAY) == 1
            server.start()
            await until(lambda: metrics.value(LIMIT_COUNTERS_AWAY) == 0)
            assert isinstance(await switch.take(plan, "", ONE, 30.0), Taken)
            assert metrics.value(GUARD_OPEN, "limits") == 50
            assert switch.holder == "g1.2"  # what the broken connection may have taken lapses under the old name
    finally:
        server.stop()


async def test_while_valkey_is_away_a_gateway_grants_its_share(server: EmbeddedValkey) -> None:
    """A quarter of the burst and of the calls in flight, with four gateways; all of it, alone."""
    url = server.start()
    server.stop()
    for gateways, share in ((4, 2), (1, 8)):
        async with a_switch(url, Metrics(), lambda many=gateways: many) as switch:
            flight = plan_of(LimitKind.IN_FLIGHT, 8)
            outcomes = [await switch.take(flight, "", ONE, 30.0) for _ in range(10)]
            assert sum(isinstance(item, Taken) for item in outcomes) == share
        async with a_switch(url, Metrics(), lambda many=gateways: many) as switch:
            rate = plan_of(LimitKind.REQUESTS_PER_SECOND, 0.001, 8)
            outcomes = [await switch.take(rate, "", ONE, 30.0) for _ in range(10)]
            assert sum(isinstance(item, Taken) for item in outcomes) == share
            last = outcomes[-1]
            assert isinstance(last, Short)
            assert last.wait_seconds == pytest.approx(1000 * gateways, rel=0.01)


async def test_a_silent_valkey_costs_its_time_out_once_and_not_once_a_call(server: EmbeddedValkey) -> None:
    """A server that takes questions and never answers: the first waits for the time-out, the others not at all."""

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    path = str(server._home.parent / "silent.sock")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    listener = await asyncio.start_unix_server(hold, path)
    clock, metrics, plan = SystemClock(), Metrics(), plan_of(LimitKind.REQUESTS_PER_SECOND, 1000, 1000)
    switch = Switch(ValkeyCounters(f"unix://{path}", clock, 0.2), "g1", lambda: 1.0, clock, metrics)
    async with listener, asyncio.TaskGroup() as group:
        running = group.create_task(switch.run())
        started = clock.monotonic()
        for _ in range(100):
            assert isinstance(await switch.take(plan, "", ONE, 30.0), Taken)
        assert 0.2 <= clock.monotonic() - started < 10.0  # once a call would be 20 s
        running.cancel()


async def test_a_script_that_the_server_forgot_is_loaded_again(server: EmbeddedValkey) -> None:
    """After `SCRIPT FLUSH` nobody notices anything."""
    from valkey import Valkey  # noqa: PLC0415 - an operator's client

    url, metrics, plan = server.start(), Metrics(), plan_of(LimitKind.REQUESTS_PER_SECOND, 0.001, 3)
    try:
        async with a_switch(url, metrics) as switch:
            assert isinstance(await switch.take(plan, "", ONE, 30.0), Taken)
            with Valkey.from_url(url) as operator:
                operator.script_flush()
            outcomes = [await switch.take(plan, "", ONE, 30.0) for _ in range(3)]
            assert [type(item) for item in outcomes] == [Taken, Taken, Short]
            assert metrics.value(GUARD_OPEN, "limits") == 0
    finally:
        server.stop()


async def limit(world: World, kind: LimitKind, amount: float) -> None:
    """Set a rule for acme and let the gateway see it."""
    rule = checked_rule(parse_subject("tenant:acme"), kind, amount)
    await world.ports.limits.store.put([rule], actor="human:k", reason="test")
    await world.gateway.limits.rules.refresh()


async def test_calls_in_flight_are_known_again_to_a_valkey_that_was_restarted(
    server: EmbeddedValkey, objects: ObjectStore
) -> None:
    """The gateway says what it holds as soon as it is back: the limit holds across the restart."""
    counters = ValkeyCounters(server.start(), SystemClock(), timeout_seconds=2.0)
    try:
        async with a_world(objects, counters=counters) as world:
            await limit(world, LimitKind.IN_FLIGHT, 2)
            async with asyncio.timeout(20), asyncio.TaskGroup() as group:
                group.create_task(world.call("POST", "/run/acme/echo/slow", BODY))
                await world.model.entered.wait()
                server.stop()
                assert (await world.call("POST", "/run/acme/echo", BODY)).status == 200
                server.start()
                await until(lambda: world.ports.metrics.value(LIMIT_COUNTERS_AWAY) == 0)
                world.model.entered.clear()
                group.create_task(world.call("POST", "/run/acme/echo/slow", BODY))
                await world.model.entered.wait()
                assert (await world.call("POST", "/run/acme/echo", BODY)).status == 429
                world.model.release.set()
            assert (await world.call("POST", "/run/acme/echo", BODY)).status == 200
    finally:
        server.stop()


async def test_a_budget_outlives_a_restarted_valkey(server: EmbeddedValkey, objects: ObjectStore) -> None:
    """What is spent comes from the database, what the queue holds from its live requests."""
    counters = ValkeyCounters(server.start(), SystemClock(), timeout_seconds=2.0)
    try:
        async with a_world(objects, counters=counters) as world:
            await limit(world, LimitKind.GPU_SECONDS_PER_MONTH, 3)
            for _ in range(2):
                assert (await world.call("POST", "/queue/acme/echo", BODY)).status == 200
            server.stop()
            server.start()
            answers: list[int] = []
            for _ in range(2):  # the first meets the broken connection, or the new server: both know the queue
                answers.append((await world.call("POST", "/queue/acme/echo", BODY)).status)
                await until(lambda: world.ports.metrics.value(LIMIT_COUNTERS_AWAY) == 0)
            assert answers == [200, 429]
    finally:
        server.stop()
