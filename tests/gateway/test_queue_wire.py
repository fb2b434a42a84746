"""The queue surface as both clients use it: submit, status, stream, result, cancel."""

import asyncio
import json
from typing import cast

import pytest
from tests.gateway.world import World, a_world, drive, request_id_of

from forestay.errors import Unavailable
from forestay.queue.model import LINE_WITHHELD, Answer, LogLine, Options, State
from forestay.storage.objects import ObjectStore
from forestay.telemetry.metrics import STATUS_READS, UNDELIVERED

OK = Answer(200, {"content-type": "application/json", "x-fal-billable-units": "3"}, b'{"ok":true}')
MEDIA = "m" * 32


async def status(world: World, request_id: str, query: str = "") -> tuple[int, dict[str, object]]:
    """Poll once."""
    reply = await world.call("GET", f"/queue/acme/echo/requests/{request_id}/status{query}")
    return reply.status, cast("dict[str, object]", reply.json())


async def seen(world: World, request_id: str, field: str, value: object, query: str = "") -> dict[str, object]:
    """Poll until a field of the status has this value."""
    async with asyncio.timeout(5):
        while True:
            _, found = await status(world, request_id, query)
            if found.get(field) == value:
                return found
            await asyncio.sleep(0.005)


async def completed(world: World, request_id: str) -> dict[str, object]:
    """Poll until completed."""
    async with asyncio.timeout(5):
        while True:
            code, found = await status(world, request_id)
            if code == 200:
                return found
            await asyncio.sleep(0.005)


async def test_a_submit_is_answered_with_everything_both_clients_need(world: World) -> None:
    """Five ids and URLs, the status and a position, in the app-only form."""
    reply = await world.call("POST", "/queue/acme/echo/edit?fal_max_queue_length=5", {"prompt": "a"})
    found = cast("dict[str, object]", reply.json())
    base = f"http://gateway.test/queue/acme/echo/requests/{found['request_id']}"
    assert reply.status == 200
    assert found["status"] == "IN_QUEUE"
    assert (found["response_url"], found["status_url"], found["cancel_url"]) == (
        base,
        f"{base}/status",
        f"{base}/cancel",
    )
    assert found["queue_position"] == 0
    assert reply.headers["x-fal-request-id"] == found["request_id"]
    lease = await world.claim()
    assert (lease.endpoint, lease.body) == ("/edit", b'{"prompt": "a"}')


async def test_a_request_lives_through_the_three_words(world: World) -> None:
    """IN_QUEUE and IN_PROGRESS are 202, COMPLETED is 200; logs and position as the Python client needs them."""
    request_id = await world.submit()
    code, first = await status(world, request_id)
    assert (code, first["status"], first["queue_position"], first["logs"]) == (202, "IN_QUEUE", 0, None)
    lease = await world.claim(request_id)
    await world.queue.start([lease])
    world.gateway.board.changed([lease.request_id])
    found = await seen(world, request_id, "status", "IN_PROGRESS")
    assert "queue_position" not in found
    await world.finish(lease, OK)
    last = await completed(world, request_id)
    assert (last["status"], last["logs"]) == ("COMPLETED", None)
    assert "error" not in last
    assert "inference_time" in cast("dict[str, object]", last["metrics"])


@pytest.mark.parametrize(
    ("query", "expected"), [("?logs=1", 1), ("?logs=true", 1), ("?logs=0", None), ("?logs=false", None), ("", None)]
)
async def test_logs_come_when_asked_in_either_spelling(world: World, query: str, expected: int | None) -> None:
    """`logs=1` and `logs=true` bring lines; otherwise the key is there and null."""
    request_id = await world.submit()
    lease = await world.claim()
    line = LogLine(lease.request_id, 1, 1, world.ports.clock.now(), "STDOUT", "hello")
    await world.queue.append_logs([line])
    _, found = await status(world, request_id, query)
    logs = cast("list[dict[str, object]] | None", found["logs"])
    assert (None if logs is None else len(logs)) == expected
    if logs:
        assert logs[0] == {"message": "hello", "level": "STDOUT", "source": "USER", "timestamp": line.at.isoformat()}


async def test_the_result_is_the_models_own_answer(world: World) -> None:
    """Status, headers and body are replayed; instructions to the platform are not; media get URLs of the caller."""
    request_id = await world.submit()
    body = b'{"image":{"url":"forestay-media://' + MEDIA.encode() + b'/a.png"}}'
    headers = {
        "content-type": "application/json",
        "x-fal-billable-units": "3",
        "x-fal-needs-retry": "1",
        "x-fal-stop-runner": "1",
        "content-length": "7",
        "connection": "close",
    }
    await world.finish(await world.claim(), Answer(200, headers, body))
    await completed(world, request_id)
    for suffix in ("", "/", "/response"):
        reply = await world.call("GET", f"/queue/acme/echo/requests/{request_id}{suffix}")
        assert reply.status == 200
        assert reply.field("image") == {"url": f"http://gateway.test/cdn/files/{MEDIA}/a.png"}
        assert reply.headers["x-fal-billable-units"] == "3"
        assert reply.headers["content-length"] == str(len(reply.body))
        assert {"x-fal-needs-retry", "x-fal-stop-runner", "connection"}.isdisjoint(reply.headers)
    fal = await world.call("GET", f"/acme/echo/requests/{request_id}", headers={"host": "queue.fal.run"})
    assert fal.field("image") == {"url": f"https://v3.fal.media/files/{MEDIA}/a.png"}


async def test_a_models_error_is_replayed(world: World) -> None:
    """A 422 of the model stays a 422, and the status says COMPLETED with error and type."""
    request_id = await world.submit()
    body = b'{"detail":[{"loc":["body"],"msg":"no","type":"image_too_small","url":"x"}]}'
    failed = Answer(422, {"content-type": "application/json"}, body, "The input was refused", "image_too_small")
    await world.finish(await world.claim(), failed, State.FAILED)
    found = await completed(world, request_id)
    assert (found["error"], found["error_type"]) == ("The input was refused", "image_too_small")
    reply = await world.call("GET", f"/queue/acme/echo/requests/{request_id}")
    assert (reply.status, reply.body) == (422, body)


async def test_a_result_asked_for_too_early_is_400(world: World) -> None:
    """Before completion the result says so."""
    request_id = await world.submit()
    reply = await world.call("GET", f"/queue/acme/echo/requests/{request_id}")
    assert (reply.status, reply.json()) == (400, {"detail": "Request is still in progress"})
    assert reply.headers["x-fal-request-id"] == request_id


async def test_cancel_follows_the_table(world: World) -> None:
    """202 while it lives, 400 after, and the request is COMPLETED with fal's error."""
    request_id = await world.submit()
    url = f"/queue/acme/echo/requests/{request_id}/cancel"
    first = await world.call("PUT", url)
    assert (first.status, first.json()) == (202, {"status": "CANCELLATION_REQUESTED"})
    second = await world.call("PUT", url)
    assert (second.status, second.field("status")) == (400, "ALREADY_COMPLETED")
    assert "ended already" in str(second.field("detail"))  # what the Python client shows
    found = await completed(world, request_id)
    assert (found["status"], found["error_type"]) == ("COMPLETED", "client_cancelled")
    reply = await world.call("GET", f"/queue/acme/echo/requests/{request_id}")
    assert (reply.status, reply.headers["x-fal-error-type"]) == (499, "client_cancelled")


async def test_a_cancel_is_told_to_the_workers(world: World) -> None:
    """The wake-up names the request."""
    request_id = await world.submit()
    async with world.ports.wakeups.subscribe("forestay:changed") as messages:
        await world.call("PUT", f"/queue/acme/echo/requests/{request_id}/cancel")
        async with asyncio.timeout(5):
            async for _, message in messages:
                assert message == request_id_of(request_id).hex
                return


async def test_another_tenants_request_is_unknown(world: World) -> None:
    """404 and nothing else, for every operation; and so is one under another app's URL."""
    request_id = await world.submit()
    await world.finish(await world.claim(), OK)
    url = f"/queue/acme/echo/requests/{request_id}"
    for method, path in [
        ("GET", url),
        ("GET", f"{url}/status"),
        ("GET", f"{url}/status/stream"),
        ("PUT", f"{url}/cancel"),
    ]:
        reply = await world.call(method, path, key=world.other_key)
        assert (reply.status, reply.field("status")) == (404, "NOT_FOUND")
        wrong_app = await world.call(method, path.replace("/echo/", "/open/"))
        assert wrong_app.status == 404
    assert (await world.call("GET", url)).status == 200


@pytest.mark.parametrize(("method", "rest"), [("GET", ""), ("GET", "/status"), ("PUT", "/cancel")])
async def test_a_synchronous_call_has_no_request_to_ask_for_and_the_answer_says_why(
    world: World, method: str, rest: str
) -> None:
    """As with fal: what bypasses the queue has no status and no stored result. `detail` is what clients show."""
    called = await world.call("POST", "/run/acme/echo", {"prompt": "a"})
    reply = await world.call(method, f"/queue/acme/echo/requests/{called.headers['x-fal-request-id']}{rest}")
    assert (reply.status, reply.field("status")) == (404, "NOT_FOUND")
    assert "synchronous call" in str(reply.field("detail"))


async def test_an_idempotency_key_makes_a_repeat_the_same_request(world: World) -> None:
    """The same key and input give the same id; another input is 422."""
    first = await world.submit(**{"idempotency-key": "k1"})
    assert await world.submit(**{"idempotency-key": "k1"}) == first
    reply = await world.call("POST", "/queue/acme/echo", {"prompt": "b"}, {"idempotency-key": "k1"})
    assert reply.status == 422
    assert cast("list[dict[str, object]]", reply.field("detail"))[0]["type"] == "idempotency_conflict"


async def test_a_submit_whose_answer_was_lost_is_adopted_by_its_retry(world: World) -> None:
    """The caller leaves while the commit runs: nothing is sent, and the identical retry gets the stored request."""
    held, go = asyncio.Event(), asyncio.Event()
    commit = world.queue.submit

    async def slow(*args: object) -> object:
        done = await commit(*args)  # type: ignore[arg-type]
        held.set()
        await go.wait()
        return done

    world.queue.submit = slow  # type: ignore[method-assign]
    request = world.request("POST", "/queue/acme/echo", {"prompt": "a"})
    async with asyncio.TaskGroup() as group:
        running = group.create_task(drive(world.gateway, request))
        await held.wait()
        request.gone.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        go.set()
    assert running.result().status == 0
    assert world.ports.metrics.value(UNDELIVERED) == 1
    world.queue.submit = commit  # type: ignore[method-assign]
    (lost,) = [row.request_id for row in (await world.claim(),)]
    assert await world.submit() == str(lost)
    assert await world.submit() != str(lost)


async def test_a_full_queue_is_429(world: World) -> None:
    """`fal_max_queue_length` refuses, and nothing is queued."""
    await world.submit()
    reply = await world.call("POST", "/queue/acme/echo?fal_max_queue_length=1", {"prompt": "a"})
    assert reply.status == 429
    assert len(await world.queue.backlog()) == 1


async def test_options_reach_the_queue(world: World) -> None:
    """Priority, deadlines, hint, webhook, lifetime and forwarded headers are stored with the request."""
    headers = {
        "x-fal-queue-priority": "low",
        "x-fal-request-timeout": "5",
        "x-forestay-deadline": "60",
        "x-fal-runner-hint": "lora-1",
        "x-fal-no-retry": "yes",
        "x-fal-retry-config": '{"timeout":{"retries":0},"nonsense":{"retries":1}}',
        "x-fal-store-io": "0",
        "x-fal-object-lifecycle-preference": '{"expiration_duration_seconds":3600}',
        "x-app-fal-thing": "1",
        "x-app-fal-can-disable-filter": "1",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }
    reply = await world.call(
        "POST", "/queue/acme/echo?fal_webhook=https%3A%2F%2Fexample.com%2Fhook", {"prompt": "a"}, headers
    )
    assert reply.status == 200, reply.body
    lease = await world.claim()
    options: Options = lease.options
    assert options.priority.value == "low"
    assert options.start_deadline is not None
    assert options.total_deadline is not None
    assert (options.hint, options.no_retry, options.store_io) == ("lora-1", True, False)
    assert options.retry_config == {"timeout": {"retries": 0}}
    assert options.webhook_url == "https://example.com/hook"
    assert options.object_lifetime_seconds == 3600
    assert set(options.forward_headers) == {"x-fal-runner-hint", "x-fal-object-lifecycle-preference"}
    assert options.traceparent is not None
    assert "0af7651916cd43dd8448eb211c80319c" in options.traceparent


async def test_retry_settings_are_the_owners(world: World) -> None:
    """Another tenant's X-Fal-Retry-Config is ignored, as fal does."""
    headers = {"x-fal-retry-config": '{"timeout":{"retries":0}}'}
    assert (await world.call("POST", "/queue/acme/echo", {"prompt": "a"}, headers, key=world.other_key)).status == 200
    assert (await world.claim()).options.retry_config == {}


async def test_the_status_stream_sends_each_line_once_and_ends(world: World) -> None:
    """Events carry only new log lines; the stream closes after COMPLETED."""
    request_id = await world.submit()
    lease = await world.claim()
    now = world.ports.clock.now()
    await world.queue.append_logs([LogLine(lease.request_id, 1, 1, now, "STDOUT", "one")])
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        path = f"/queue/acme/echo/requests/{request_id}/status/stream?logs=1"
        stream = group.create_task(world.call("GET", path))
        await asyncio.sleep(0.02)
        await world.queue.append_logs([LogLine(lease.request_id, 1, 2, now, "STDOUT", "two")])
        await world.finish(lease, OK)
    reply = stream.result()
    assert reply.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(part[6:]) for part in reply.body.decode().split("\n\n") if part.startswith("data: ")]
    assert [line["message"] for event in events for line in event["logs"]] == ["one", "two"]
    assert events[-1]["status"] == "COMPLETED"
    assert events[0]["status"] != "COMPLETED"


@pytest.mark.threat("ML01:2023", "AML.T0054")
async def test_log_lines_of_what_the_guard_stops_are_told_to_no_caller(world: World) -> None:
    """Neither by a poll nor by a stream, while it is withheld and once it is blocked; once it is released they are."""
    kept: list[object] = []
    for ends in (State.BLOCKED, State.SUCCEEDED):
        request_id = await world.submit()
        lease = await world.claim()
        line = LogLine(lease.request_id, 1, 1, world.ports.clock.now(), "STDOUT", "MARKER-52D1")
        await world.queue.append_logs([line])
        await world.finish(lease, OK, State.WITHHELD)
        world.gateway.board.changed([lease.request_id])
        await seen(world, request_id, "logs", [], "?logs=1")
        assert await world.queue.withheld(lease.request_id, ends, OK)
        await completed(world, request_id)
        _, found = await status(world, request_id, "?logs=1")
        streamed = await world.call("GET", f"/queue/acme/echo/requests/{request_id}/status/stream?logs=1")
        kept += [found["logs"] == [], "MARKER-52D1" not in streamed.body.decode()]
    assert kept == [True, True, False, False]


@pytest.mark.threat("ML01:2023", "AML.T0054")
async def test_a_line_that_was_withheld_is_told_as_such_while_the_model_runs(world: World) -> None:
    """By a poll and by a stream: its time and level, and that the policy keeps it; not a word of it."""
    request_id = await world.submit()
    lease = await world.claim()
    now = world.ports.clock.now()
    await world.queue.append_logs(
        [
            LogLine(lease.request_id, 1, 1, now, "STDOUT", "step 1"),
            LogLine(lease.request_id, 1, 2, now, "STDERR", "MARKER-52D1", LINE_WITHHELD),
        ]
    )
    _, found = await status(world, request_id, "?logs=1")
    await world.finish(lease, OK)
    streamed = await world.call("GET", f"/queue/acme/echo/requests/{request_id}/status/stream?logs=1")
    told = [(line["message"], line["level"], line["source"]) for line in cast("list[dict[str, str]]", found["logs"])]
    assert told == [("step 1", "STDOUT", "USER"), ("withheld by the content policy", "STDERR", "FORESTAY")]
    assert "withheld by the content policy" in streamed.body.decode()
    assert "MARKER-52D1" not in streamed.body.decode()


async def test_a_head_of_a_status_stream_waits_for_nothing(world: World) -> None:
    """Monitors and proxies ask so; the request is still queued, and may be for long."""
    request_id = await world.submit()
    async with asyncio.timeout(5):
        reply = await world.call("HEAD", f"/queue/acme/echo/requests/{request_id}/status/stream")
    assert (reply.status, reply.body) == (200, b"")
    assert reply.headers["content-type"].startswith("text/event-stream")
    refused = await world.call("POST", f"/queue/acme/echo/requests/{request_id}/status")
    assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")


async def test_a_stream_ends_when_its_reader_leaves(world: World) -> None:
    """Nothing goes on behind a closed connection."""
    request_id = await world.submit()
    request = world.request("GET", f"/queue/acme/echo/requests/{request_id}/status/stream")
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(drive(world.gateway, request))
        await asyncio.sleep(0.02)
        request.gone.set()


async def test_a_poll_without_news_is_held_and_woken_by_the_change(objects: ObjectStore) -> None:
    """The second poll waits for the finish, not for its hold to pass."""
    async with a_world(objects, status_hold_seconds=30.0, status_refresh_seconds=10.0) as world:
        request_id = await world.submit()
        lease = await world.claim()
        await world.queue.start([lease])
        world.gateway.board.changed([lease.request_id])
        await seen(world, request_id, "status", "IN_PROGRESS")
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            poll = group.create_task(status(world, request_id))
            await asyncio.sleep(0.02)
            assert not poll.done()
            await world.finish(lease, OK)
        assert poll.result()[0] == 200


async def test_polls_share_reads(objects: ObjectStore) -> None:
    """A thousand polls of fifty requests cost a handful of reads."""
    async with a_world(objects, status_refresh_seconds=0.25) as world:
        ids = [await world.submit() for _ in range(50)]
        for _ in range(20):
            answers = await asyncio.gather(*(status(world, item) for item in ids))
            assert {code for code, _ in answers} == {202}
        reads = sum(world.ports.metrics.value(STATUS_READS, kind) for kind in ("snapshots", "positions"))
        assert reads <= 20


async def test_positions_come_from_one_sample(world: World) -> None:
    """The third in line sees two before it."""
    ids = [await world.submit() for _ in range(3)]
    assert (await seen(world, ids[2], "queue_position", 2))["status"] == "IN_QUEUE"


async def test_the_last_known_status_is_served_while_the_database_is_away(world: World) -> None:
    """Pollers survive a restart of the database; an unknown id is 503, not 404."""
    request_id = await world.submit()
    await status(world, request_id)

    async def away(*_args: object) -> object:
        raise Unavailable("away, as the test asked")

    world.queue.snapshots = away  # type: ignore[method-assign]
    await asyncio.sleep(0.05)
    code, found = await status(world, request_id)
    assert (code, found["status"]) == (202, "IN_QUEUE")


async def test_submit_while_the_database_is_away_is_503_with_id(world: World) -> None:
    """The client is told to come back; the id header says the answer is ours."""

    async def away(*_args: object) -> object:
        raise Unavailable("away, as the test asked", retry_after_seconds=3)

    world.queue.submit = away  # type: ignore[method-assign]
    reply = await world.call("POST", "/queue/acme/echo", {"prompt": "a"})
    assert reply.status == 503
    assert reply.headers["retry-after"] == "3"
    assert reply.headers["x-fal-request-id"]
    assert b"test asked" not in reply.body


async def test_a_public_models_requests_need_no_key(world: World) -> None:
    """Nobody may submit to a public model and poll it; but not see what keys of its owner submitted."""
    reply = await world.call("POST", "/queue/acme/open", {"prompt": "a"}, key=None)
    assert reply.status == 200
    path = f"/queue/acme/open/requests/{reply.field('request_id')}/status"
    assert (await world.call("GET", path, key=None)).status == 202
    assert (await world.call("GET", path)).status == 202
    owners = await world.call("POST", "/queue/acme/open", {"prompt": "a"})
    hidden = f"/queue/acme/open/requests/{owners.field('request_id')}/status"
    assert (await world.call("GET", hidden, key=None)).status == 404


async def test_an_unforeseen_error_is_a_500_without_its_trace(world: World) -> None:
    """The caller gets fal's shape and an id; the text of the error stays in the log."""

    async def broken(*_args: object) -> object:
        raise ValueError("secret detail")

    world.queue.submit = broken  # type: ignore[method-assign]
    reply = await world.call("POST", "/queue/acme/echo", {"prompt": "a"})
    assert (reply.status, reply.headers["x-fal-error-type"]) == (500, "internal_error")
    assert b"secret" not in reply.body
    assert reply.headers["x-fal-request-id"].encode() in reply.body


async def test_a_request_in_pieces_is_joined(world: World) -> None:
    """A body may come in many pieces."""
    request = world.request("POST", "/queue/acme/echo")
    request.pieces = [b'{"pro', b'mpt"', b': "a"}']
    assert (await drive(world.gateway, request)).status == 200
