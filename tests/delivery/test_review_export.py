"""What is told of reviews: signed, without content, at least once under one id, and a dead letter after its tries."""

import dataclasses
import json
from typing import Any

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.gateway.world import serving
from tests.safety.review.test_carry import appealed as appealed_item
from tests.safety.review.test_carry import ground_of

from forestay.chance import SystemChance
from forestay.clock import SystemClock
from forestay.delivery.review_export import SENDER, ExportPorts, run_once
from forestay.delivery.signing import Signed, SigningKeys
from forestay.queue.postgres_store import open_queue_store
from forestay.safety.review.events import PostgresReviewEvents
from forestay.safety.review.model import Ballot, Vote
from forestay.safety.review.postgres_store import PostgresReviews, Rules
from forestay.settings import Delivery, Queue, Safety, Settings
from forestay.storage.objects import ObjectStore
from forestay.storage.postgres import Database
from forestay.telemetry.metrics import Metrics

PRIVATE = Ed25519PrivateKey.generate()


class Receiver:
    """Keeps what it is told; answers as told."""

    def __init__(self) -> None:
        self.status = 200
        self.told: list[tuple[dict[str, str], bytes]] = []

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one call."""
        self.told.append(({name.lower(): value for name, value in request.headers.items()}, await request.read()))
        return web.Response(status=self.status)


def ports_of(database: Database, url: str, tries: int = 3) -> ExportPorts:
    """The loop's ports towards a receiver on loopback."""
    settings = Settings(
        safety=Safety(review_url=url, review_tries=tries),
        delivery=Delivery(allow_private_webhooks=True, retry_base_seconds=0.0),
    )
    keys = SigningKeys([PRIVATE])
    return ExportPorts(PostgresReviewEvents(database), keys, settings, SystemClock(), SystemChance(), Metrics())


async def test_opened_appealed_and_decided_are_told_once_each_and_signed(
    database: Database, objects: ObjectStore
) -> None:
    """By whom and what; neither the caller's words nor the content."""
    receiver = Receiver()
    async with (
        serving(receiver.handle) as url,
        open_queue_store(database, objects, Queue(), SystemChance(), 100) as queue,
    ):
        ground = await ground_of(database, objects, queue)
        told = PostgresReviews(database, SystemClock(), SystemChance(), Rules(told=True))
        ground = dataclasses.replace(ground, desk=dataclasses.replace(ground.desk, reviews=told))
        item = await appealed_item(ground)
        for voter in ("human:ann", "human:bob"):
            at = SystemClock().now()
            await told.vote(item.item_id, Vote(voter, is_person=True, ballot=Ballot.RELEASE, reason="fine", at=at))
        ports = ports_of(database, url)
        assert await run_once(ports) == 3
        assert await run_once(ports) == 0
    bodies: list[dict[str, Any]] = [json.loads(body) for _, body in receiver.told]
    assert {body["event"] for body in bodies} == {"opened", "appealed", "decided"}
    assert len({body["event_id"] for body in bodies}) == 3
    assert "a film title" not in str(bodies)
    [decided] = [body for body in bodies if body["event"] == "decided"]
    assert (decided["outcome"], decided["by"]) == ("released", ["human:ann", "human:bob"])
    for headers, body in receiver.told:
        signed = Signed(headers["x-fal-webhook-request-id"], SENDER, int(headers["x-fal-webhook-timestamp"]), body)
        assert headers["x-fal-webhook-request-id"] == json.loads(body)["event_id"]
        PRIVATE.public_key().verify(bytes.fromhex(headers["x-fal-webhook-signature"]), signed.message())


async def test_a_receiver_that_does_not_acknowledge_is_tried_so_often_and_then_listed(database: Database) -> None:
    """Under the same id each time; a person may have it told anew."""
    receiver = Receiver()
    receiver.status = 500
    await database.execute("INSERT INTO review_events (event_id, item_id, body) VALUES ('evt_1', 'rev_1', '{}')")
    async with serving(receiver.handle) as url:
        ports = ports_of(database, url)
        for _ in range(3):
            await database.execute("UPDATE review_events SET due_at = now()")
            assert await run_once(ports) == 1
        assert await run_once(ports) == 0
        [dead] = await ports.events.listed("dead", 10)
        assert (dead.tries, dead.last_status) == (3, 500)
        receiver.status = 204
        assert await ports.events.revive("evt_1")
        assert await run_once(ports) == 1
    assert {headers["x-fal-webhook-request-id"] for headers, _ in receiver.told} == {"evt_1"}
    assert [event.event_id for event in await ports.events.listed("delivered", 10)] == ["evt_1"]


async def test_without_a_receiver_nothing_is_told(database: Database) -> None:
    """And nothing is claimed."""
    assert await run_once(ports_of(database, "")) == 0
