"""The direct lane: synchronous calls and streams on live replicas, one hop or two."""

import asyncio
import dataclasses

import pytest
from tests.gateway.world import World, a_world, deploy, drive, replica_of, revision_of

from forestay.fleet.spec import LimitSpec
from forestay.handshake import FILES_HEADER
from forestay.ids import ModelId, RevisionId
from forestay.queue.model import Outcome
from forestay.storage.objects import ObjectStore

MEDIA = "m" * 32


async def test_a_call_reaches_the_models_own_server_in_one_hop(world: World) -> None:
    """Status, headers and body come back; the model is told the id, the endpoint and the trace."""
    headers = {"x-app-fal-thing": "1", "x-app-fal-can-disable-filter": "1", "cookie": "c", "x-forwarded-for": "1.2.3.4"}
    reply = await world.call("POST", "/run/acme/echo", {"prompt": "a"}, headers)
    assert reply.status == 200
    assert reply.field("echo") == {"prompt": "a"}
    assert reply.field("url") == f"http://gateway.test/cdn/files/{MEDIA}/a.png"
    assert reply.headers["x-fal-billable-units"] == "2"
    assert "x-fal-needs-retry" not in reply.headers
    ((path, seen, body),) = world.model.calls
    assert (path, body) == ("/", b'{"prompt": "a"}')
    assert seen["x-fal-request-id"] == reply.headers["x-fal-request-id"]
    assert seen["x-fal-endpoint"] == "/"
    assert seen["traceparent"].startswith("00-")
    assert {"authorization", "cookie", "x-app-fal-thing", "x-app-fal-can-disable-filter"}.isdisjoint(seen)
    assert "x-forwarded-for" not in seen


@pytest.mark.parametrize("said", ["application/x-www-form-urlencoded", "text/plain", "application/json; charset=utf-8"])
async def test_a_body_that_was_read_as_json_reaches_the_model_as_json(world: World, said: str) -> None:
    """`curl --data` names no JSON; through the queue that never mattered, so it does not here."""
    reply = await world.call("POST", "/run/acme/echo", {"prompt": "a"}, {"content-type": said})
    assert reply.status == 200
    ((_, seen, _),) = world.model.calls
    assert seen["content-type"] == "application/json"


async def test_a_model_that_says_nothing_of_its_bodies_gets_them_as_they_were_sent(world: World) -> None:
    """Where no schema says JSON, the caller's own word is passed on."""
    await deploy(world.fleet, dataclasses.replace(revision_of("plain-1", "acme/plain"), openapi=None), "acme", "shared")
    plain = replica_of(world.model.url)
    await world.set_replica(
        dataclasses.replace(plain, revision_id=RevisionId("plain-1"), model_id=ModelId("acme/plain"))
    )
    reply = await world.call("POST", "/run/acme/plain", {"prompt": "a"}, {"content-type": "text/plain"})
    assert reply.status == 200
    ((_, seen, _),) = world.model.calls
    assert seen["content-type"] == "text/plain"


async def test_a_replica_behind_its_worker_is_called_with_proof(world: World) -> None:
    """Without a direct URL the worker is called, and both sides prove themselves."""
    await world.set_replica(replica_of(None))
    reply = await world.call("POST", "/run/acme/echo/edit", {"prompt": "a"})
    assert (reply.status, reply.json()) == (200, {"lane": "worker", "path": "/edit"})


@pytest.mark.parametrize(
    ("told", "counted"), [("2 1", {"signed_files": 2.0, "unsigned_files": 1.0}), ("many", {}), ("1 -1", {})]
)
async def test_which_files_bear_a_manifest_is_a_fact_of_the_call(
    world: World, told: str, counted: dict[str, float]
) -> None:
    """As the worker says that has let them go; the caller hears nothing of it."""
    await world.set_replica(replica_of(None))
    world.worker.files = told
    reply = await world.call("POST", "/run/acme/echo", {"prompt": "a"})
    assert (reply.status, FILES_HEADER in reply.headers) == (200, False)
    await world.gateway.direct.facts.flush()
    [fact] = world.facts.kept
    assert {name: value for name, value in fact.work.items() if name.endswith("_files")} == counted


async def test_a_reply_without_proof_is_dropped(world: World) -> None:
    """Whoever answers in the worker's place is not believed."""
    await world.set_replica(replica_of(None))
    world.worker.lie = True
    reply = await world.call("POST", "/run/acme/echo", {"prompt": "a"})
    assert (reply.status, reply.headers["x-fal-error-type"]) == (503, "runner_connection_error")


async def test_a_busy_worker_is_asked_again(world: World) -> None:
    """The worker's 429 is no answer for the caller: the call waits its turn."""
    await world.set_replica(replica_of(None))
    world.worker.busy = 1
    assert (await world.call("POST", "/run/acme/echo", {"prompt": "a"})).status == 200


async def test_a_replica_that_has_ended_is_no_answer_for_the_caller(world: World) -> None:
    """The view of the fleet is a moment old: another replica takes the call, and the caller hears no 404 of a model."""
    await world.set_replica(replica_of(None), replica_of(None, name="r2"))
    world.worker.gone = 1
    assert (await world.call("POST", "/run/acme/echo", {"prompt": "a"})).status == 200
    assert world.worker.gone == 0


async def test_slots_are_leased_in_blocks_and_given_back(objects: ObjectStore) -> None:
    """Many calls, one question; and the block returns when the gateway stops."""
    async with a_world(objects) as world:
        for _ in range(10):
            await world.call("POST", "/run/acme/echo", {"prompt": "a"})
        assert world.worker.blocks == [("r1", 4)]
        worker = world.worker
    assert worker.blocks == [("r1", 4), ("r1", 0)]


async def test_calls_beyond_the_slots_wait_their_turn(world: World) -> None:
    """Two slots, five calls: never more than two at a time at the model, all answered."""
    world.worker.grant = 2
    await world.set_replica(replica_of(world.model.url, slots=2))
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        calls = [group.create_task(world.call("POST", "/run/acme/echo/slow", {"prompt": "a"})) for _ in range(5)]
        await world.model.entered.wait()
        await asyncio.sleep(0.1)
        assert len(world.model.calls) == 2
        world.model.release.set()
    assert [call.result().status for call in calls] == [200] * 5


async def test_the_callers_own_start_limit_is_a_504_of_type_user(world: World) -> None:
    """X-Fal-Request-Timeout runs while the call waits for a slot."""
    world.worker.grant = 0
    reply = await world.call("POST", "/run/acme/echo", {"prompt": "a"}, {"x-fal-request-timeout": "0.2"})
    assert reply.status == 504
    assert reply.headers["x-fal-request-timeout-type"] == "user"
    assert reply.headers["x-fal-error-type"] == "request_timeout"


async def test_a_cold_model_is_wanted_and_waited_for(world: World) -> None:
    """A model loaded nowhere is asked for at once, and the call goes on when a replica is ready."""
    await world.set_replica(None)
    async with (
        asyncio.timeout(5),
        world.ports.wakeups.subscribe("forestay:demand") as messages,
        asyncio.TaskGroup() as group,
    ):
        call = group.create_task(world.call("POST", "/run/acme/echo", {"prompt": "a"}))
        assert await anext(messages) == ("forestay:demand", "acme/echo")
        assert "acme/echo" in (await world.fleet.load()).demand
        await world.set_replica(replica_of(world.model.url))
    assert call.result().status == 200


async def test_a_model_that_never_becomes_ready_is_a_startup_timeout(world: World) -> None:
    """Nobody waits for ever."""
    revision = revision_of("cold-1", "acme/cold", LimitSpec(startup_timeout_seconds=0.1))
    await deploy(world.fleet, revision, "acme", "shared")
    await world.gateway.fleet.refresh()
    reply = await world.call("POST", "/run/acme/cold", {"prompt": "a"})
    assert (reply.status, reply.headers["x-fal-error-type"]) == (504, "startup_timeout")


async def test_a_replica_that_refuses_is_passed_over(world: World) -> None:
    """The connection was refused, so the model saw nothing: another replica takes the call."""
    dead = dataclasses.replace(replica_of("http://127.0.0.1:1", name="dead"), slots=100, hints=("warm",))
    now = world.ports.clock.now()
    fleet = await world.fleet.load()
    await world.fleet.report(
        dataclasses.replace(next(iter(fleet.workers.values())), seen_at=now), [dead, replica_of(world.model.url)]
    )
    await world.gateway.fleet.refresh()
    world.worker.grant = 1
    replies = [await world.call("POST", "/run/acme/echo", {"prompt": "a"}) for _ in range(3)]
    assert [reply.status for reply in replies] == [200] * 3


async def test_only_dead_replicas_are_a_503(world: World) -> None:
    """In fal's words."""
    await world.set_replica(replica_of("http://127.0.0.1:1"))
    headers = {"x-fal-request-timeout": "0.5"}
    reply = await world.call("POST", "/run/acme/echo", {"prompt": "a"}, headers)
    assert reply.status in {503, 504}
    assert reply.headers["x-fal-error-type"] in {"runner_connection_refused", "request_timeout"}


async def test_a_model_that_breaks_the_connection_is_a_503(world: World) -> None:
    """Not retried: the model may have worked."""
    reply = await world.call("POST", "/run/acme/echo/broken", {"prompt": "a"})
    assert (reply.status, reply.headers["x-fal-error-type"]) == (503, "runner_disconnected")
    assert len(world.model.calls) == 1


async def test_a_models_own_500_is_relayed_with_its_retry_hint(world: World) -> None:
    """The platform's instructions are stripped, the model's body stays."""
    reply = await world.call("POST", "/run/acme/echo/fail", {"prompt": "a"})
    assert reply.status == 500
    assert reply.headers["x-fal-needs-retry"] == "1"
    assert "x-fal-stop-runner" not in reply.headers
    assert reply.json() == {"detail": [{"type": "no_media_generated"}]}


async def test_a_model_over_its_time_is_a_504(objects: ObjectStore) -> None:
    """The model's request limit ends the call."""
    async with a_world(objects, run_timeout_seconds=0.2) as world:
        reply = await world.call("POST", "/run/acme/echo/slow", {"prompt": "a"})
        assert (reply.status, reply.headers["x-fal-error-type"]) == (504, "request_timeout")


async def test_a_caller_that_leaves_cancels_the_work(world: World) -> None:
    """The connection to the model is dropped, its cancel endpoint is called, the slot is free again."""
    request = world.request("POST", "/run/acme/echo/slow", {"prompt": "a"})
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        running = group.create_task(drive(world.gateway, request))
        await world.model.entered.wait()
        request.gone.set()
        await world.model.dropped.wait()
    assert running.result().status == 0
    assert len(world.model.cancelled) == 1
    assert world.gateway.direct.slots.totals()[1] == 0
    await world.gateway.direct.facts.flush()
    assert [fact.outcome for fact in world.facts.kept] == [Outcome.CANCELLED]


async def test_a_stream_is_relayed_as_it_comes(world: World) -> None:
    """The first event arrives while the model still works; media names split over pieces become URLs."""
    request = world.request("POST", "/run/acme/echo/stream", {"prompt": "a"}, {"accept": "text/event-stream"})
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        running = group.create_task(drive(world.gateway, request))
        await world.model.entered.wait()
        await asyncio.sleep(0.05)
        world.model.release.set()
    reply = running.result()
    assert reply.headers["content-type"].startswith("text/event-stream")
    pieces = [item["body"] for item in reply.messages if item.get("body")]
    first = f'data: {{"n": 1, "url": "http://gateway.test/cdn/files/{MEDIA}/a.png"}}\n'
    assert pieces[0] in {first.encode(), f"{first}\n".encode()}
    assert reply.body.endswith(b'data: {"n": 2}\n\n')


async def test_a_large_answer_passes_through(world: World) -> None:
    """Bytes that are no JSON are relayed unread."""
    reply = await world.call("POST", "/run/acme/echo/big", {"prompt": "a"})
    assert (reply.status, len(reply.body), reply.headers["content-type"]) == (200, 3_000_000, "image/png")


async def test_the_in_flight_limit_is_429_with_fals_hint(objects: ObjectStore) -> None:
    """Only beyond the limit of calls in flight."""
    async with a_world(objects, direct_limit=1) as world, asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(world.call("POST", "/run/acme/echo/slow", {"prompt": "a"}))
        await world.model.entered.wait()
        reply = await world.call("POST", "/run/acme/echo", {"prompt": "a"})
        assert (reply.status, reply.headers["x-fal-error-type"]) == (429, "concurrent_requests_limit")
        assert reply.headers["x-fal-needs-retry"] == "1"
        assert (await world.call("POST", "/run/acme/echo", {"prompt": "a"}, key=world.other_key)).status == 200
        world.model.release.set()


async def test_every_call_leaves_one_fact(world: World) -> None:
    """Also a stream and a failure; what cannot be written is kept for the next round."""
    world.facts.silent = True
    world.model.release.set()
    for path in ("", "/stream", "/fail"):
        await world.call("POST", f"/run/acme/echo{path}", {"prompt": "a"})
    with pytest.raises(Exception, match="silent"):
        await world.gateway.direct.facts.flush()
    world.facts.silent = False
    await world.gateway.direct.facts.flush()
    assert [(fact.lane, fact.outcome, fact.status_code) for fact in world.facts.kept] == [
        ("direct", "succeeded", 200),
        ("stream", "succeeded", 200),
        ("direct", "model_error", 500),
    ]
    assert all(fact.device_seconds > 0 and fact.replica_id == "r1" for fact in world.facts.kept)
    assert [fact.cause for fact in world.facts.kept] == [None, None, "model"]
    first_bytes = [fact.first_byte_at for fact in world.facts.kept]
    stream = world.facts.kept[1]
    assert first_bytes[0] is None
    assert first_bytes[1] is not None
    assert stream.started_at is not None
    assert stream.started_at <= first_bytes[1] <= stream.finished_at
    assert (await world.fleet.load()).replicas[next(iter((await world.fleet.load()).replicas))].last_used_at


async def test_the_query_reaches_the_model_without_our_fields(world: World) -> None:
    """Tokens and webhooks are for the platform."""
    await world.set_replica(replica_of(world.model.url))
    reply = await world.call("GET", "/run/acme/echo?a=1&fal_jwt_token=x")
    assert reply.status == 200
    assert world.model.calls[0][0] == "/"
