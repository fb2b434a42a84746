"""Webhooks from the outbox to a real receiver: signed, retried, dead-lettered, refused, fair, and never lost."""

import asyncio
import base64
import dataclasses
import datetime as dt
import hashlib
import json
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from forestay.chance import SeededChance
from forestay.clock import SystemClock
from forestay.delivery import retention, webhooks
from forestay.delivery.body import webhook_body
from forestay.delivery.outbox import PostgresOutbox
from forestay.delivery.signing import load_or_create_keys
from forestay.delivery.webhooks import DeliveryPorts
from forestay.ids import KeyId, ModelId, RequestId, TenantId, new_request_id
from forestay.queue.model import Answer, Snapshot, State
from forestay.queue.store import QueueStore, Stored
from forestay.settings import Delivery, Gateway, Settings
from forestay.storage.postgres import Database
from forestay.telemetry.metrics import WEBHOOK_TRIES, Metrics

MEDIA_ID = "m" * 32
NOW = dt.datetime.now(dt.UTC)  # noqa: TID251 - a request id needs some time


class Results:
    """The one part of the queue that webhooks read."""

    def __init__(self) -> None:
        self.stored: dict[RequestId, Stored] = {}

    async def result(self, request_id: RequestId) -> Stored | None:
        """Return what was put."""
        return self.stored.get(request_id)


class Receiver:
    """A real HTTP server; `answers` are given in turn, the last one for ever."""

    def __init__(self) -> None:
        self.answers: list[int] = [200]
        self.seen: list[tuple[Mapping[str, str], bytes]] = []
        self.called = asyncio.Event()
        self.hang: asyncio.Event | None = None
        self.headers: dict[str, str] = {}
        self.port = 0

    async def handle(self, request: web.Request) -> web.Response:
        """Record, then answer."""
        self.seen.append((dict(request.headers), await request.read()))
        self.called.set()
        if self.hang is not None and request.path == "/slow":
            await self.hang.wait()
        status = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return web.Response(status=status, headers=self.headers)

    def url(self, path: str = "/hook") -> str:
        """Return a URL of this receiver."""
        return f"http://127.0.0.1:{self.port}{path}"


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver on loopback."""
    one = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", one.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    one.port = runner.addresses[0][1]
    yield one
    if one.hang is not None:
        one.hang.set()
    await runner.cleanup()


@pytest.fixture
def results() -> Results:
    """Finished requests."""
    return Results()


@pytest.fixture
def ports(database: Database, results: Results, tmp_path: Path) -> DeliveryPorts:
    """The loop's ports, with private targets allowed, as tests need them."""
    settings = Settings(
        gateway=Gateway(public_url="https://media.example"),
        delivery=Delivery(
            allow_private_webhooks=True, retry_base_seconds=0.01, retry_cap_seconds=0.02, webhook_tries=4
        ),
    )
    return DeliveryPorts(
        outbox=PostgresOutbox(database),
        queue=cast("QueueStore", results),
        keys=load_or_create_keys(tmp_path / "signing.pem"),
        settings=settings,
        clock=SystemClock(),
        chance=SeededChance(3),
        metrics=Metrics(),
    )


async def enqueue(
    database: Database,
    results: Results,
    url: str,
    *,
    body: bytes = b'{"images":[]}',
    status_code: int = 200,
    tenant: str = "acme",
) -> RequestId:
    """Finish a request that wants a webhook."""
    request_id = new_request_id(NOW, 0, SeededChance(len(results.stored) + 1))
    state = State.SUCCEEDED if status_code == 200 else State.FAILED
    snapshot = Snapshot(
        request_id, TenantId(tenant), KeyId("k"), ModelId("a/b"), "/", state, 1, submitted_at=NOW, order_at=NOW
    )
    results.stored[request_id] = Stored(snapshot, Answer(status_code, {}, body), NOW)
    await database.execute(
        "INSERT INTO webhooks (request_id, tenant_id, url) VALUES ($1, $2, $3)", request_id, tenant, url
    )
    return request_id


async def row(database: Database, request_id: uuid.UUID) -> Mapping[str, object]:
    """Read one webhook's row."""
    found = await database.fetchrow("SELECT * FROM webhooks WHERE request_id = $1", request_id)
    assert found is not None
    return dict(found)


async def deliver_until(ports: DeliveryPorts, database: Database, request_id: RequestId, state: str) -> None:
    """Run the loop until the webhook has this state."""
    async with asyncio.timeout(20):
        while (await row(database, request_id))["state"] != state:
            await webhooks.run_once(ports)


async def test_a_finished_request_is_told_once_signed_with_media_under_the_public_base(
    ports: DeliveryPorts, database: Database, results: Results, receiver: Receiver
) -> None:
    """The receiver verifies it with the published key alone."""
    body = f'{{"images": [{{"url": "forestay-media://{MEDIA_ID}/a.png"}}]}}'.encode()
    request_id = await enqueue(database, results, receiver.url(), body=body)
    assert await webhooks.run_once(ports) == 1
    assert await webhooks.run_once(ports) == 0
    ((headers, sent),) = receiver.seen
    assert json.loads(sent) == {
        "request_id": str(request_id),
        "gateway_request_id": str(request_id),
        "status": "OK",
        "payload": {"images": [{"url": f"https://media.example/cdn/files/{MEDIA_ID}/a.png"}]},
    }
    lines = [headers[f"X-Fal-Webhook-{name}"] for name in ("Request-Id", "User-Id", "Timestamp")]
    message = "\n".join([*lines, hashlib.sha256(sent).hexdigest()]).encode()
    public = base64.urlsafe_b64decode(ports.keys.jwks()["keys"][0]["x"] + "=")
    Ed25519PublicKey.from_public_bytes(public).verify(bytes.fromhex(headers["X-Fal-Webhook-Signature"]), message)
    assert lines[:2] == [str(request_id), "acme"]
    assert abs(int(lines[2]) - ports.clock.now().timestamp()) < 60
    stored = await row(database, request_id)
    assert (stored["state"], stored["tries"], stored["last_status"]) == ("delivered", 1, 200)
    assert ports.metrics.value(WEBHOOK_TRIES, "delivered") == 1


async def test_a_failing_receiver_is_tried_again_until_it_acknowledges(
    ports: DeliveryPorts, database: Database, results: Results, receiver: Receiver
) -> None:
    """The same id and body each time."""
    receiver.answers = [500, 503, 200]
    request_id = await enqueue(database, results, receiver.url())
    await deliver_until(ports, database, request_id, "delivered")
    assert len(receiver.seen) == 3
    assert len({body for _, body in receiver.seen}) == 1


async def test_a_receiver_that_never_acknowledges_is_given_up(
    ports: DeliveryPorts, database: Database, results: Results, receiver: Receiver
) -> None:
    """After exactly the allowed tries; the row says why."""
    receiver.answers = [500]
    request_id = await enqueue(database, results, receiver.url())
    await deliver_until(ports, database, request_id, "dead")
    assert await webhooks.run_once(ports) == 0
    assert len(receiver.seen) == 4
    assert "answered 500" in str((await row(database, request_id))["last_error"])


async def test_a_redirect_is_final_and_not_followed(
    ports: DeliveryPorts, database: Database, results: Results, receiver: Receiver
) -> None:
    """A receiver cannot send us elsewhere."""
    receiver.answers, receiver.headers = [302], {"Location": receiver.url("/elsewhere")}
    request_id = await enqueue(database, results, receiver.url())
    await deliver_until(ports, database, request_id, "dead")
    assert len(receiver.seen) == 1


@pytest.mark.parametrize("by_name", [True, False])
async def test_a_private_target_is_dropped_unless_allowed(
    ports: DeliveryPorts, database: Database, results: Results, receiver: Receiver, *, by_name: bool
) -> None:
    """By address or by a name that leads there; nothing is sent."""

    class ToLoopback:
        async def resolve(self, host: str) -> Sequence[str]:
            return ["127.0.0.1"] if host else []

    strict = dataclasses.replace(ports.settings, delivery=Delivery(allow_private_webhooks=False))
    ports = dataclasses.replace(ports, settings=strict, resolver=ToLoopback())
    url = f"http://innocent.example:{receiver.port}/" if by_name else receiver.url()
    request_id = await enqueue(database, results, url)
    await deliver_until(ports, database, request_id, "dead")
    assert receiver.seen == []
    assert "not a public address" in str((await row(database, request_id))["last_error"])


async def test_a_receiver_nobody_runs_is_tried_again(
    ports: DeliveryPorts, database: Database, results: Results
) -> None:
    """A refused connection is no answer, not a failure of ours."""
    request_id = await enqueue(database, results, "http://127.0.0.1:9/")
    assert await webhooks.run_once(ports) >= 1
    assert (await row(database, request_id))["state"] in {"pending", "dead"}
    await deliver_until(ports, database, request_id, "dead")


async def test_a_result_that_is_gone_ends_its_webhook(
    ports: DeliveryPorts, database: Database, results: Results, receiver: Receiver
) -> None:
    """There is nothing left to tell."""
    request_id = await enqueue(database, results, receiver.url())
    results.stored.clear()
    await deliver_until(ports, database, request_id, "dead")
    assert receiver.seen == []


async def test_a_hanging_receiver_does_not_hold_up_other_tenants(
    ports: DeliveryPorts, database: Database, results: Results, receiver: Receiver
) -> None:
    """One tenant takes its few places; the others are served meanwhile."""
    receiver.hang = asyncio.Event()
    for _ in range(40):
        await enqueue(database, results, receiver.url("/slow"), tenant="slow")
    other = await enqueue(database, results, receiver.url("/quick"), tenant="quick")
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(webhooks.run_once(ports))
        while (await row(database, other))["state"] != "delivered":  # noqa: ASYNC110 - the database rings no bell
            await asyncio.sleep(0.02)
        assert len(receiver.seen) <= 2 * webhooks.PER_TENANT + 1
        receiver.hang.set()
    while await webhooks.run_once(ports):  # what one round leaves, the next ones take
        continue
    assert await database.fetchval("SELECT count(*) FROM webhooks WHERE state = 'delivered'") == 41


async def test_a_loop_told_to_stop_ends_and_its_webhooks_are_tried_again(
    ports: DeliveryPorts, database: Database, results: Results, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was in flight keeps its lease and is due again when that ends: told twice perhaps, never not at all."""
    monkeypatch.setattr(webhooks, "STOP_SECONDS", 0.05)
    receiver.hang = asyncio.Event()
    request_id = await enqueue(database, results, receiver.url("/slow"))
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        running = group.create_task(webhooks.run_once(ports))
        await receiver.called.wait()
        ports.stop.set()
        assert await running == 1
    receiver.hang.set()
    assert (await row(database, request_id))["state"] == "pending"
    await database.execute("UPDATE webhooks SET next_try_at = now()")
    await webhooks.run_once(dataclasses.replace(ports, stop=asyncio.Event()))
    stored = await row(database, request_id)
    assert (stored["state"], stored["tries"]) == ("delivered", 2)


async def test_two_loops_share_the_work(
    ports: DeliveryPorts, database: Database, results: Results, receiver: Receiver
) -> None:
    """A claim belongs to one of them."""
    for _ in range(30):
        await enqueue(database, results, receiver.url())
    told = sum(await asyncio.gather(webhooks.run_once(ports), webhooks.run_once(ports)))
    while more := await webhooks.run_once(ports):  # rows that one held while the other looked
        told += more
    assert told == len(receiver.seen) == 30


async def test_old_rows_are_forgotten_and_pending_ones_never(
    ports: DeliveryPorts, database: Database, results: Results, receiver: Receiver
) -> None:
    """A notice that is still due outlives any retention."""
    await enqueue(database, results, receiver.url())
    await webhooks.run_once(ports)
    pending = await enqueue(database, results, receiver.url())
    await database.execute("UPDATE webhooks SET created_at = now() - interval '30 days'")
    assert await retention.run_once(ports.outbox, 7 * 86400.0) == 1
    assert (await row(database, pending))["state"] == "pending"


@pytest.mark.parametrize(
    ("status_code", "body", "expected"),
    [
        (422, b'{"detail":[]}', {"status": "ERROR", "error": "Invalid status code: 422", "payload": {"detail": []}}),
        (200, b"\xff not json", {"status": "OK", "payload": None, "payload_error": "The result is not valid JSON"}),
        (200, b'{"a": NaN}', {"status": "OK", "payload": None, "payload_error": "The result is not valid JSON"}),
        (200, b"", {"status": "OK", "payload": None, "payload_error": "The result is not valid JSON"}),
        (500, b"boom", {"status": "ERROR", "payload": None, "error": "Invalid status code: 500"}),
    ],
)
def test_the_body_says_what_went_wrong(status_code: int, body: bytes, expected: dict[str, object]) -> None:
    """A failed request carries the model's own error; a result that is no JSON says so."""
    request_id = RequestId(uuid.UUID(int=1))
    state = State.SUCCEEDED if status_code == 200 else State.FAILED
    snapshot = Snapshot(
        request_id, TenantId("t"), KeyId("k"), ModelId("a/b"), "/", state, 1, submitted_at=NOW, order_at=NOW
    )
    made = json.loads(webhook_body(Stored(snapshot, Answer(status_code, {}, body), NOW), "http://x/"))
    assert {name: made[name] for name in expected} == expected
