"""Limits at the gateway: what is refused and how, what is given back, and what callers are told."""

import asyncio
import datetime as dt
import re
from collections.abc import AsyncIterator

import pytest
from tests.conformance.memory_limits import MemoryLimitStore
from tests.gateway.world import World, a_world, drive, replica_of

from forestay.fleet.standing import Standing, StandingKind
from forestay.ids import KeyId, ModelId, TenantId
from forestay.limits.counters import month_of
from forestay.limits.model import LimitKind, checked_rule, parse_subject
from forestay.limits.store import UsageRow
from forestay.queue.model import Answer
from forestay.settings import Limits
from forestay.storage.objects import ObjectStore
from forestay.telemetry.metrics import GUARD_OPEN, LIMITED

BODY = {"prompt": "a"}
GPU_MONTH, GPU_MINUTE = LimitKind.GPU_SECONDS_PER_MONTH, LimitKind.GPU_SECONDS_PER_MINUTE
MONEY, FLIGHT, RATE = LimitKind.MONEY_PER_MONTH, LimitKind.IN_FLIGHT, LimitKind.REQUESTS_PER_SECOND


@pytest.fixture
async def world(objects: ObjectStore) -> AsyncIterator[World]:
    """A gateway without Valkey: it counts for itself."""
    async with a_world(objects) as one:
        yield one


def store_of(world: World) -> MemoryLimitStore:
    """The store of limits behind the gateway."""
    store = world.ports.limits.store
    assert isinstance(store, MemoryLimitStore)
    return store


async def limit(world: World, subject: str, kind: LimitKind, amount: float, burst: float | None = None) -> None:
    """Set a rule, and let the gateway see it."""
    rule = checked_rule(parse_subject(subject), kind, amount, burst)
    await store_of(world).put([rule], actor="human:k", reason="test")
    await world.gateway.limits.rules.refresh()


async def spend(world: World, seconds: float, money: float = 0.0) -> None:
    """Let the tenant acme have spent something this month."""
    month = month_of(world.ports.clock.now())
    row = UsageRow(month, TenantId("acme"), KeyId("k"), ModelId("acme/echo"), seconds, money, 1)
    await store_of(world).add_once([row], source="before", sequence=1)


@pytest.mark.threat("API4:2023", "AML.T0029")
async def test_over_the_rate_a_call_is_429_with_everything_a_client_needs(world: World) -> None:
    """Fal's shape and hint, the time to wait in whole seconds, and the IETF's fields."""
    await limit(world, "tenant:acme", RATE, 0.1, 2)
    for _ in range(2):
        assert (await world.call("POST", "/run/acme/echo", BODY)).status == 200
    reply = await world.call("POST", "/run/acme/echo", BODY)
    assert reply.status == 429
    assert reply.field("error_type") == reply.headers["x-fal-error-type"] == "rate_limit"
    assert "0.1 requests per second" in str(reply.field("detail"))
    assert reply.headers["x-fal-needs-retry"] == "1"
    assert reply.headers["retry-after"] == "10"
    assert reply.headers["ratelimit-policy"] == '"tenant-requests";q=2;w=20'
    assert reply.headers["ratelimit"] == '"tenant-requests";r=0;t=10'
    assert "x-fal-request-id" in reply.headers
    assert world.ports.metrics.value(LIMITED, "tenant", "requests_per_second") == 1
    assert (await world.call("POST", "/run/acme/echo", BODY, key=world.other_key)).status == 200


async def test_both_lanes_are_counted_together(world: World) -> None:
    """A submit takes from the same rate as a synchronous call; both are told what is left."""
    await limit(world, "tenant:acme", RATE, 0.1, 2)
    submitted = await world.call("POST", "/queue/acme/echo", BODY)
    assert (submitted.status, submitted.headers["ratelimit"]) == (200, '"tenant-requests";r=1;t=10')
    called = await world.call("POST", "/run/acme/echo", BODY)
    assert (called.status, called.headers["ratelimit"]) == (200, '"tenant-requests";r=0;t=10')
    assert (await world.call("POST", "/queue/acme/echo", BODY)).status == 429


async def test_callers_without_limits_are_told_nothing(world: World) -> None:
    """No fields, and nothing is counted for them."""
    await limit(world, "tenant:other", RATE, 5)
    for path in ("/run/acme/echo", "/queue/acme/echo"):
        reply = await world.call("POST", path, BODY)
        assert reply.status == 200
        assert not {"ratelimit", "ratelimit-policy"} & reply.headers.keys()


async def test_browsers_may_read_the_fields(world: World) -> None:
    """They are exposed to scripts of other origins."""
    reply = await world.call("POST", "/run/acme/echo", BODY, {"origin": "https://app.test"})
    exposed = reply.headers["access-control-expose-headers"].split(", ")
    assert {"ratelimit", "ratelimit-policy", "retry-after", "x-fal-needs-retry"} <= set(exposed)


async def test_an_input_that_is_refused_takes_nothing_from_the_rate(world: World) -> None:
    """Limits come after the schema: a call that cannot run is not counted."""
    await limit(world, "tenant:acme", RATE, 0.1, 1)
    for path in ("/run/acme/echo", "/queue/acme/echo"):
        assert (await world.call("POST", path, {"steps": 0})).status == 422
    assert (await world.call("POST", "/run/acme/echo", BODY)).status == 200


async def test_a_replayed_submit_gives_its_reservation_back(world: World) -> None:
    """Ten retries of one submit are one request."""
    await limit(world, "tenant:acme", RATE, 0.1, 2)
    headers = {"idempotency-key": "k1"}
    for _ in range(10):
        assert (await world.call("POST", "/queue/acme/echo", BODY, headers)).status == 200
    assert (await world.call("POST", "/queue/acme/echo", BODY)).status == 200
    assert (await world.call("POST", "/queue/acme/echo", BODY)).status == 429


async def test_a_full_queue_and_a_conflict_give_the_reservation_back(world: World) -> None:
    """What is refused after the reservation was never asked for."""
    await limit(world, "tenant:acme", RATE, 0.1, 3)
    assert (await world.call("POST", "/queue/acme/echo", BODY, {"idempotency-key": "k1"})).status == 200
    for _ in range(5):
        conflict = await world.call("POST", "/queue/acme/echo", {"prompt": "b"}, {"idempotency-key": "k1"})
        assert conflict.status == 422
        assert (await world.call("POST", "/queue/acme/echo?fal_max_queue_length=0", BODY)).status == 429
    for _ in range(2):
        assert (await world.call("POST", "/queue/acme/echo", BODY)).status == 200
    assert (await world.call("POST", "/queue/acme/echo", BODY)).field("error_type") == "rate_limit"


async def test_in_flight_counts_calls_and_ends_with_them(world: World) -> None:
    """The rule replaces the setting's own limit; a stream counts like a call; the queue takes what is over."""
    await limit(world, "tenant:acme", FLIGHT, 1)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(world.call("POST", "/run/acme/echo/slow", BODY))
        await world.model.entered.wait()
        refused = await world.call("POST", "/run/acme/echo", BODY)
        assert (refused.status, refused.field("error_type")) == (429, "concurrent_requests_limit")
        assert refused.headers["ratelimit-policy"] == '"tenant-in-flight";q=1;qu="concurrent-requests"'
        assert refused.headers["retry-after"] == "1"
        assert (await world.call("POST", "/queue/acme/echo", BODY)).status == 200
        world.model.release.set()
    assert (await world.call("POST", "/run/acme/echo", BODY)).status == 200


async def test_a_throttled_caller_has_a_part_of_its_limits(world: World) -> None:
    """The standing's factor multiplies them: of four calls in flight one is left."""
    await limit(world, "tenant:acme", FLIGHT, 4)
    now = world.ports.clock.now()
    ends = now + dt.timedelta(hours=1)
    slowed = Standing("s", "tenant:acme", StandingKind.THROTTLE, "odd", "by_hand", "test", now, ends, 0.25)
    world.ports.standings.replace({"tenant:acme": slowed})
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(world.call("POST", "/run/acme/echo/slow", BODY))
        await world.model.entered.wait()
        refused = await world.call("POST", "/run/acme/echo", BODY)
        assert (refused.status, refused.field("error_type")) == (429, "concurrent_requests_limit")
        world.model.release.set()


async def test_running_requests_of_the_queue_are_in_flight_too(world: World) -> None:
    """A direct call waits for none of them: it is refused while they fill the limit."""
    await limit(world, "tenant:acme", FLIGHT, 1)
    await world.submit()
    lease = await world.claim()

    async def status(wanted: int) -> None:
        async with asyncio.timeout(5):
            while (await world.call("POST", "/run/acme/echo", BODY)).status != wanted:
                await world.gateway.fleet.wait_change(0.01)

    await status(429)
    await world.finish(lease, Answer(200, {}, b"{}"))
    await status(200)


async def test_a_caller_who_leaves_is_no_longer_in_flight(world: World) -> None:
    """However the call ends, its place is free again."""
    await limit(world, "tenant:acme", FLIGHT, 1)
    request = world.request("POST", "/run/acme/echo/slow", BODY)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        running = group.create_task(drive(world.gateway, request))
        await world.model.entered.wait()
        request.gone.set()
        await running
    assert (await world.call("POST", "/run/acme/echo", BODY)).status == 200


async def test_a_call_that_never_ran_costs_nothing(world: World) -> None:
    """No replica came: the minute's device-seconds are given back, the request itself was made."""
    await limit(world, "tenant:acme", GPU_MINUTE, 1)
    await world.set_replica(None)
    headers = {"x-fal-request-timeout": "1.1"}
    for _ in range(2):
        assert (await world.call("POST", "/run/acme/echo", BODY, headers)).status == 504
    await world.set_replica(replica_of(world.model.url))
    assert (await world.call("POST", "/run/acme/echo", BODY)).status == 200
    await world.gateway.limits.usage.flush()
    assert [row.requests for row in store_of(world).usage] == [1]


@pytest.mark.threat("ML05:2023", "AML.T0024.002")
async def test_device_seconds_are_settled_at_what_was_used(world: World) -> None:
    """A second is predicted and milliseconds are used: hundreds of calls fit where five were predicted."""
    await limit(world, "tenant:acme", GPU_MONTH, 5)
    for _ in range(20):
        assert (await world.call("POST", "/run/acme/echo", BODY)).status == 200
        await world.gateway.limits.usage.flush()
    reply = await world.call("POST", "/run/acme/echo", BODY)
    left = re.search(r'"tenant-gpu-month";r=(\d)', reply.headers["ratelimit"])
    assert left is not None
    assert int(left[1]) >= 3
    used = sum(row.gpu_seconds for row in store_of(world).usage)
    assert 0 < used < 2


@pytest.mark.threat("API4:2023", "AML.T0034")
async def test_a_budget_that_is_spent_refuses_until_the_month_ends(world: World) -> None:
    """Both lanes; the wait is that long, in seconds."""
    await spend(world, 9.5)
    await limit(world, "tenant:acme", GPU_MONTH, 10)
    for path in ("/run/acme/echo", "/queue/acme/echo"):
        reply = await world.call("POST", path, BODY)
        assert (reply.status, reply.field("error_type")) == (429, "budget_exceeded")
        assert int(reply.headers["retry-after"]) <= 31 * 86_400
    assert (await world.call("POST", "/queue/acme/echo", BODY, key=world.other_key)).status == 200


async def test_money_is_predicted_by_the_models_price(objects: ObjectStore) -> None:
    """At 0.5 a device-second and one second predicted, 1.2 pays for two queued requests."""
    async with a_world(objects, limits=Limits(price_per_device_second=0.5)) as world:
        await limit(world, "tenant:acme", MONEY, 120)  # hundredths
        answers = [(await world.call("POST", "/queue/acme/echo", BODY)).status for _ in range(3)]
        assert answers == [200, 200, 429]


async def test_queued_requests_hold_their_prediction_and_a_lost_count_is_read_again(world: World) -> None:
    """The live requests of the queue are held again when the counters have forgotten them."""
    await limit(world, "tenant:acme", GPU_MONTH, 3)
    for _ in range(2):
        assert (await world.call("POST", "/queue/acme/echo", BODY)).status == 200
    world.gateway.limits._switch._local.forget()  # as a restarted Valkey does
    answers = [(await world.call("POST", "/queue/acme/echo", BODY)).status for _ in range(2)]
    assert answers == [200, 429]


async def test_a_models_limit_is_shared_and_says_nothing_of_others(world: World) -> None:
    """Nobody learns from it how much other tenants call; what the tenant's own limit had taken is given back."""
    await limit(world, "model:acme/echo", RATE, 0.1, 1)
    await limit(world, "tenant:acme", RATE, 0.1, 1)
    assert (await world.call("POST", "/run/acme/echo", BODY, key=world.other_key)).status == 200
    reply = await world.call("POST", "/run/acme/echo", BODY)
    assert reply.status == 429
    assert reply.headers["ratelimit-policy"] == '"tenant-requests";q=1;w=10'
    assert "0.1" not in str(reply.field("detail"))
    assert reply.headers["retry-after"] == "10"
    assert (await world.call("POST", "/run/acme/open", BODY)).status != 429


async def test_a_silent_database_leaves_budgets_open_and_counts_it(world: World) -> None:
    """Nobody is refused because nobody can look."""
    await limit(world, "tenant:acme", GPU_MONTH, 1)
    store_of(world).silent = True
    for _ in range(3):
        assert (await world.call("POST", "/run/acme/echo", BODY)).status == 200
    assert world.ports.metrics.value(GUARD_OPEN, "limits_budget") == 3


async def test_usage_is_written_once_even_if_the_answer_is_lost(world: World) -> None:
    """What the database refuses stays as it is, and is sent again under its number."""
    store = store_of(world)
    assert (await world.call("POST", "/run/acme/echo", BODY)).status == 200
    store.silent = True
    with pytest.raises(Exception, match="silent"):
        await world.gateway.limits.usage.flush()
    assert (await world.call("POST", "/run/acme/echo", BODY)).status == 200
    store.silent = False
    for _ in range(3):
        await world.gateway.limits.usage.flush()
    assert sum(row.requests for row in store.usage) == 2


async def test_a_rule_that_is_removed_no_longer_holds(world: World) -> None:
    """At once, for calls in flight too."""
    await limit(world, "tenant:acme", RATE, 0.1, 1)
    assert (await world.call("POST", "/run/acme/echo", BODY)).status == 200
    assert (await world.call("POST", "/run/acme/echo", BODY)).status == 429
    await store_of(world).remove(parse_subject("tenant:acme"), None, actor="human:k", reason="over")
    await world.gateway.limits.rules.refresh()
    assert (await world.call("POST", "/run/acme/echo", BODY)).status == 200
