"""What a caller with a deadline is told at submit: yes, or no with a time to come back."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.gateway.world import World, a_world, deploy, revision_of

from forestay.errors import Unavailable
from forestay.gateway.admission import FRESH_SECONDS, PATIENCE_SECONDS
from forestay.ids import ModelId
from forestay.queue.pressure import Pressure
from forestay.storage.objects import ObjectStore
from forestay.telemetry.metrics import ADMISSIONS, GUARD_OPEN


@pytest.fixture
async def world(objects: ObjectStore) -> AsyncIterator[World]:
    """A gateway whose model has four slots."""
    async with a_world(objects) as world:
        yield world


async def fill(world: World, count: int) -> None:
    """Let so many requests wait, each predicted to take a second."""
    for _ in range(count):
        await world.submit()
    await world.gateway.admission.refresh()


async def test_a_request_that_cannot_start_in_time_is_refused_with_a_time_to_come_back(world: World) -> None:
    """503 in fal's shape, with the request's id (so that no client retries blindly) and Retry-After."""
    await fill(world, 200)
    reply = await world.call("POST", "/queue/acme/echo", {"prompt": "a"}, {"x-forestay-deadline": "5"})
    assert reply.status == 503
    assert reply.field("error_type") == "runner_scheduling_failure"
    assert "ahead of it" in str(reply.field("detail"))
    assert 1 <= int(reply.headers["retry-after"]) <= 3600
    assert reply.headers["x-fal-request-id"]
    assert (await world.queue.backlog())[ModelId("acme/echo")] == 200
    assert world.ports.metrics.value(ADMISSIONS, "acme/echo", "refused") == 1


async def test_a_request_without_a_deadline_is_queued_however_long_the_queue_is(world: World) -> None:
    """As fal does: waiting is what it asked for."""
    await fill(world, 200)
    assert (await world.call("POST", "/queue/acme/echo", {"prompt": "a"})).status == 200


async def test_a_request_with_time_enough_is_queued(world: World) -> None:
    """Beside idle slots even a short limit is kept."""
    reply = await world.call("POST", "/queue/acme/echo", {"prompt": "a"}, {"x-fal-request-timeout": "5"})
    assert reply.status == 200
    assert world.ports.metrics.value(ADMISSIONS, "acme/echo", "admitted") == 1


@pytest.mark.threat("API4:2023", "AML.T0029")
async def test_a_burst_between_two_reads_is_not_admitted_whole(world: World) -> None:
    """What this gateway has admitted since it read the queue counts as well."""
    await world.gateway.admission.refresh()
    headers = {"x-fal-request-timeout": "10"}
    replies = await asyncio.gather(
        *(world.call("POST", "/queue/acme/echo", {"prompt": "a"}, headers) for _ in range(150))
    )
    statuses = [reply.status for reply in replies]
    assert set(statuses) == {200, 503}
    assert 8 <= statuses.count(200) <= 60


async def test_submits_share_one_read_of_the_queue(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred callers with deadlines cost the database a read or two, not a hundred."""
    reads = 0
    real = world.queue.pressure

    async def counted() -> list[Pressure]:
        nonlocal reads
        reads += 1
        return await real()

    monkeypatch.setattr(world.queue, "pressure", counted)
    headers = {"x-fal-request-timeout": "60"}
    await asyncio.gather(*(world.call("POST", "/queue/acme/echo", {"prompt": "a"}, headers) for _ in range(100)))
    assert 1 <= reads <= 4


async def test_a_slow_read_of_the_queue_holds_up_nobody(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the next read is under way the last one speaks: a refusal is as quick on a slow database."""
    await fill(world, 200)
    begun, never = asyncio.Event(), asyncio.Event()

    async def slow() -> list[Pressure]:
        begun.set()
        await never.wait()
        return []

    monkeypatch.setattr(world.queue, "pressure", slow)
    clock = world.ports.clock
    await clock.sleep(FRESH_SECONDS)
    assert (await world.call("POST", "/queue/acme/echo", {"prompt": "a"}, {"x-forestay-deadline": "5"})).status == 503
    async with asyncio.timeout(10):
        await begun.wait()
    started = clock.monotonic()
    for _ in range(20):
        reply = await world.call("POST", "/queue/acme/echo", {"prompt": "a"}, {"x-forestay-deadline": "5"})
        assert reply.status == 503
    assert clock.monotonic() - started < PATIENCE_SECONDS
    assert world.ports.metrics.value(GUARD_OPEN, "admission") == 0


async def test_while_the_queue_cannot_be_read_all_pass_and_that_is_counted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard fails open: a request's own deadline still holds."""

    async def silent() -> list[Pressure]:
        raise Unavailable("silent, as the test asked")

    monkeypatch.setattr(world.queue, "pressure", silent)
    reply = await world.call("POST", "/queue/acme/echo", {"prompt": "a"}, {"x-fal-request-timeout": "2"})
    assert reply.status == 200
    assert world.ports.metrics.value(GUARD_OPEN, "admission") == 1


async def test_a_model_that_is_loaded_nowhere_is_wanted_even_when_refused(world: World) -> None:
    """Or it would never be loaded; the refusal says how long a start takes."""
    await deploy(world.fleet, revision_of("cold-1", "acme/cold"), "acme", "shared")
    await world.gateway.fleet.refresh()
    reply = await world.call("POST", "/queue/acme/cold", {"prompt": "a"}, {"x-fal-request-timeout": "2"})
    assert reply.status == 503
    assert int(reply.headers["retry-after"]) >= 20
    assert ModelId("acme/cold") in (await world.fleet.load()).demand


@pytest.mark.threat("API4:2023", "AML.T0029")
async def test_refusals_in_number_do_not_become_writes_in_number(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood that is turned away costs the database one note that the model is wanted."""
    await deploy(world.fleet, revision_of("cold-1", "acme/cold"), "acme", "shared")
    await world.gateway.fleet.refresh()
    wanted: list[ModelId] = []

    async def noted(model_id: ModelId) -> None:
        wanted.append(model_id)

    monkeypatch.setattr(world.fleet, "want", noted)
    headers = {"x-fal-request-timeout": "2"}
    replies = await asyncio.gather(
        *(world.call("POST", "/queue/acme/cold", {"prompt": "a"}, headers) for _ in range(50))
    )
    assert {reply.status for reply in replies} == {503}
    assert wanted == [ModelId("acme/cold")]


async def test_a_refusal_gives_its_reservation_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not queued is not charged against a limit."""
    await fill(world, 200)
    given: list[bool] = []
    limits = world.gateway.limits
    real = limits.give_back

    def noted(made: object, *, whole: bool) -> None:
        given.append(whole)
        real(made, whole=whole)  # type: ignore[arg-type]

    monkeypatch.setattr(limits, "give_back", noted)
    await world.call("POST", "/queue/acme/echo", {"prompt": "a"}, {"x-forestay-deadline": "5"})
    assert given == [True]
