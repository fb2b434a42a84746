"""Whatever a worker stops, on whichever lane, its caller may appeal it; what people let go runs or is published."""

import asyncio
import base64
import hashlib
import json
import pathlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import aiohttp
import msgpack
import pytest
import pytest_asyncio
from tests.conftest import url_of
from tests.media.s3 import serving_bucket
from tests.safety.doubles import MARKER, POLICY
from tests.worker.harness import APP, KEY, TENANT, Harness, data_uri, running_worker, spec_of, until
from tests.worker.test_bucket_outputs import policy_of
from tests.worker.test_guarded import QUIET, png

from forestay.ids import KeyId, RequestId
from forestay.media.decode import Decoder
from forestay.media.store import MediaStore
from forestay.media.urls import stored_ids
from forestay.queue.model import Options, State
from forestay.safety.model import Trouble
from forestay.safety.provenance.fingerprints import PostgresFingerprints
from forestay.safety.provenance.identity import load_or_create_identity
from forestay.safety.provenance.stamp import Stamps
from forestay.safety.records import Point
from forestay.safety.review.desk import ReviewDesk
from forestay.safety.review.kept import KeptInput, KeptOutput, unpacked
from forestay.safety.review.model import Ballot, Item, Outcome, Vote, item_id_of
from forestay.safety.review.opening import Opener
from forestay.safety.review.sealed import Reader
from forestay.safety.review.wiring import ReviewGround, desk_of
from forestay.settings import Delivery, Secrets, Settings
from forestay.storage.embedded import EmbeddedPostgres
from forestay.storage.objects import ObjectStore, open_object_store
from forestay.storage.postgres import Database
from forestay.telemetry.metrics import Metrics
from forestay.worker.releasing import Releasing, ReleasingGround, releasing_of

pytestmark = pytest.mark.asyncio(loop_scope="module")
RED = data_uri(png((255, 0, 0)), "image/png")  # what the stub detector of pictures knows
PICTURE = base64.b64encode(png((255, 0, 0))).decode()[::-1]
KEPT = POLICY + "review: {keep_refused: true, release_needs: 2}\nprovenance: [manifest, fingerprint]\n"


class World:
    """A worker with a guarded replica whose policy keeps what it stops, and the desk where people look again."""

    def __init__(self, harness: Harness, desk: ReviewDesk, replica_id: str) -> None:
        self.harness = harness
        self.desk = desk
        self.replica_id = replica_id

    def headers(self, method: str, path: str, **more: str) -> dict[str, str]:
        """Say what a gateway says of a caller."""
        caller = {"x-forestay-key": KEY, "x-forestay-tenant": TENANT, "x-forestay-store-io": "1"}
        return {**self.harness.proof(method, path), **caller, **more}

    async def direct(self, body: object, path: str = "/", **more: str) -> tuple[str, str]:
        """Call as a gateway does; returns the request's id and what came back."""
        full = f"/direct/{self.replica_id}{path}"
        headers = self.headers("POST", full, **more)
        async with (
            aiohttp.ClientSession() as session,
            session.post(self.harness.address + full, json=body, headers=headers) as got,
        ):
            return headers["x-fal-request-id"], await got.text()

    async def session(self, text: str) -> tuple[str, str]:
        """Send one frame; returns the request's id and what came back."""
        path = f"/direct/{self.replica_id}/realtime"
        headers = self.headers("GET", path)
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(self.harness.address + path, headers=headers) as socket,
        ):
            await socket.send_bytes(msgpack.packb({"text": text}) or b"")
            return headers["x-fal-request-id"], await socket.receive_str(timeout=5)

    async def withheld(self, options: Options) -> RequestId:
        """Have a picture made that nobody can judge."""
        self.harness.guard.detectors.trouble["colours@1"] = Trouble.CRASH
        picture = base64.b64encode(png((0, 0, 255))).decode()[::-1]
        request_id = await self.harness.submit({"do": "picture", "text": picture}, options=options)

        async def there() -> bool:
            found = (await self.harness.queue.snapshots([request_id])).get(request_id)
            return found is not None and found.state is State.WITHHELD

        await until(there, "the output is withheld")
        self.harness.guard.detectors.trouble.clear()
        return request_id

    async def item(self, request_id: object) -> Item:
        """Return what people see of a request."""
        found = await self.desk.reviews.find(str(request_id))
        assert found is not None
        return found.item

    async def copy(self, item: Item) -> bytes:
        """Read the sealed copy."""
        data = await self.desk.sealed.read(item.opened.sealed_id, Reader("human:ann", "text", "a test"))
        assert data is not None
        return data

    async def released(self, request_id: object, *, appeal: bool = True) -> Item:
        """Appeal it, have two people release it, and carry that out."""
        item = await self.item(request_id)
        name = item.opened.item_id
        if appeal:
            assert await self.desk.reviews.appeal(name, f"caller:{KEY}", "a red square") is not None
        for voter in ("human:ann", "human:bob"):
            vote = Vote(voter, is_person=True, ballot=Ballot.RELEASE, reason="fine", at=self.harness.clock.now())
            assert await self.desk.reviews.vote(name, vote) is not None
        item = await self.item(request_id)
        assert await self.desk.carry(item)
        return await self.item(request_id)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(postgres_server: EmbeddedPostgres, databases: Any) -> AsyncIterator[World]:
    """One for the module."""
    url = url_of(postgres_server, await asyncio.to_thread(databases.take))
    with tempfile.TemporaryDirectory() as folder:
        database = await Database.connect(
            url, pool_size=4, statement_timeout_seconds=10.0, application_name="forestay tests"
        )
        async with a_world(database, open_object_store(pathlib.Path(folder).as_uri())) as made:
            yield made
        await database.close()


def finishing(harness: Harness, database: Database, media: MediaStore, decoder: Decoder) -> Releasing:
    """Finish outputs as a gateway does, with the fingerprints of the worker's own test."""
    stamps = Stamps(
        decoder,
        cast("PostgresFingerprints", harness.fingerprints),
        load_or_create_identity(harness.folder / "provenance", harness.clock.now()),
        None,
    )
    settings = Settings(delivery=Delivery(allow_private_buckets=True, bucket_timeout_seconds=10.0, bucket_tries=1))
    ground = ReleasingGround(database, media, settings, harness.clock, harness.chance, Metrics())
    return releasing_of(ground, stamps)


@asynccontextmanager
async def a_world(database: Database, objects: ObjectStore) -> AsyncIterator[World]:
    """Run the worker beside the desk."""
    desks: list[ReviewDesk] = []
    decoder = Decoder()

    def opening(harness: Harness) -> Opener:
        settings = Settings(secrets=Secrets(internal_key="a long random text"))
        media, verdicts = cast("MediaStore", harness.media), harness.guard.verdicts
        desk = desk_of(
            ReviewGround(
                database, objects, harness.queue, media, verdicts, harness.wakeups, settings, harness.clock,
                harness.chance, Metrics(), finishing(harness, database, media, decoder), "test",
            )
        )  # fmt: skip
        desks.append(desk)
        return desk.opener

    async with running_worker(allow_private_inputs=True, patience_seconds=0.1, opening=opening) as harness:
        harness.guard.store.put("strict", KEPT)
        await harness.guard.policies.refresh()

        revision = await harness.deploy(spec_of(policy="strict"), {"app.py": APP})
        yield World(harness, desks[0], (await harness.ready(revision))[0].replica_id)
    await decoder.close()


async def test_each_refusal_of_a_worker_has_its_item_with_what_can_be_kept_of_it(world: World) -> None:
    """The refusal names its verdict; inputs are kept as they came, outputs as they were judged, frames in are not."""
    media = {"do": "shout", "image_url": RED}
    queued = await world.harness.run(media)
    whole, shouted = await world.direct({"do": "shout", "text": QUIET})
    stopped, refused = await world.direct(media, **{"x-fal-mine": "yes"})
    event, _ = await world.direct({"do": QUIET, "text": "3"}, "/stream")
    streamed, _ = await world.direct(media, "/stream")
    said, _ = await world.session(MARKER)
    answered, _ = await world.session(MARKER[::-1])
    await world.harness.guard.guard.flush()
    verdicts = {str(record.verdict_id) for record in world.harness.guard.verdicts.records}
    for body in (queued.answer.body, shouted, refused):
        assert json.loads(body)["detail"][0]["ctx"]["verdict_id"] in verdicts
    seen = {request_id: await world.item(request_id) for request_id in
            (str(queued.snapshot.request_id), whole, stopped, event, streamed, said, answered)}  # fmt: skip
    assert [item.opened.point for item in seen.values()] == [
        Point.INPUT_MEDIA, Point.OUTPUT, Point.INPUT_MEDIA, Point.OUTPUT, Point.INPUT_MEDIA, Point.INPUT, Point.OUTPUT,
    ]  # fmt: skip
    assert {(item.opened.tenant_id, item.opened.key_id) for item in seen.values()} == {(TENANT, KEY)}
    for name in (str(queued.snapshot.request_id), stopped):
        assert json.loads(unpacked(await world.copy(seen[name]), KeptInput).body) == media
    assert unpacked(await world.copy(seen[stopped]), KeptInput).options.forward_headers == {"x-fal-mine": "yes"}
    for name in (whole, event, answered):
        kept = unpacked(await world.copy(seen[name]), KeptOutput)
        assert MARKER.encode() in kept.body
        assert kept.status_code == 200
    assert [seen[name].opened.sealed_id for name in (streamed, said)] == ["", ""]
    private, _ = await world.direct({"do": "shout", "text": QUIET}, **{"x-forestay-store-io": "0"})
    assert (await world.item(private)).opened.sealed_id == ""


async def test_media_that_two_people_let_go_reaches_the_model_and_nothing_else_does(world: World) -> None:
    """The linked request of a queued and of a direct call runs; the waiver is of this very input alone."""
    media = {"do": "shout", "text": "calm", "image_url": RED}
    queued = await world.harness.run(media)
    direct, _ = await world.direct(media)
    for request_id in (str(queued.snapshot.request_id), direct):
        item = await world.released(request_id)
        assert item.linked_id is not None
        await world.harness.wakeups.publish("forestay:queue", item.opened.model_id)
        linked = await world.harness.result(item.linked_id)
        assert (linked.snapshot.state, json.loads(linked.answer.body)["text"]) == (State.SUCCEEDED, "CALM")
        records = [one for one in world.harness.guard.verdicts.records if one.request_id == item.linked_id]
        assert [(one.point, one.policy_id) for one in records if one.point == "input_media"] == [
            ("input_media", "person")
        ]
    other = await world.harness.submit({**media, "text": "other"}, options=Options(waived=("sha256:" + "0" * 64,)))
    assert (await world.harness.result(other)).snapshot.state is State.BLOCKED


async def test_a_direct_output_that_two_people_let_go_is_published_with_its_file(world: World) -> None:
    """As the answer of a linked request; the file is read then and not before."""
    request_id, _ = await world.direct({"do": "picture", "text": PICTURE})
    kept = unpacked(await world.copy(await world.item(request_id)), KeptOutput)
    [media_id] = kept.media_ids
    assert world.harness.media.items[media_id].state == "quarantine"
    item = await world.released(request_id)
    assert item.linked_id is not None
    stored = await world.harness.queue.result(item.linked_id)
    assert stored is not None
    assert stored.snapshot.state is State.SUCCEEDED
    await whole(world, item.linked_id, stored.answer.body, before=media_id)


async def whole(world: World, request_id: RequestId, body: bytes, before: str) -> None:
    """A released file bears its manifest and fingerprint, and stands with its answer on the record of its release."""
    harness = world.harness
    [media_id] = stored_ids(body)
    data = harness.media.data[media_id]
    assert b"c2pa" in data
    assert before not in harness.media.items
    assert str(request_id) in {one.made.request_id for one in harness.fingerprints.kept}
    [record] = [
        one for one in harness.guard.verdicts.records if one.request_id == request_id and one.verdict == "allow"
    ]
    assert {f"sha256:{hashlib.sha256(one).hexdigest()}" for one in (body, data)} == set(record.judged)
    assert "human:ann, human:bob" in record.reason
    assert "stopped before by strict@" in record.reason


async def test_a_withheld_output_that_people_release_is_as_whole_as_any_other(world: World) -> None:
    """Manifest, fingerprint, and a record that names what was released and who let it go."""
    request_id = await world.withheld(Options())
    [before] = unpacked(await world.copy(await world.item(request_id)), KeptOutput).media_ids
    await world.released(request_id, appeal=False)
    stored = await world.harness.queue.result(request_id)
    assert stored is not None
    assert stored.snapshot.state is State.SUCCEEDED
    await whole(world, request_id, stored.answer.body, before=before)


async def test_a_released_output_goes_to_its_callers_own_bucket_or_says_why_not(world: World) -> None:
    """It lies there alone; a bucket that does not take it is the caller's clear failure, as at once."""
    for answers, state in (([], State.SUCCEEDED), ([403], State.FAILED)):
        async with serving_bucket() as bucket:
            request_id = await world.withheld(Options(upload_policy=policy_of(bucket)))
            bucket.answers = list(answers)
            await world.released(request_id, appeal=False)
            stored = await world.harness.queue.result(request_id)
            assert stored is not None
            assert stored.snapshot.state is state
            records = [one for one in world.harness.guard.verdicts.records if one.request_id == request_id]
            assert f"sha256:{hashlib.sha256(stored.answer.body).hexdigest()}" in records[-1].judged
            assert b"forestay-media" not in stored.answer.body
            assert [b"c2pa" in one.data for one in bucket.objects.values()] == [True] * (state is State.SUCCEEDED)
    left = [one for one, asked in world.harness.media.attempts.items() if asked[0] == request_id]
    assert [name for name in left if name in world.harness.media.items] == []


async def test_what_could_not_be_kept_is_appealed_by_words_and_makes_no_request(world: World) -> None:
    """People decide by the record and the reason; the finding is a label, and nothing runs."""
    request_id, _ = await world.session(MARKER)
    item = await world.released(request_id)
    assert item.opened.item_id == item_id_of(RequestId(item.opened.request_id), Point.INPUT)
    assert item.appeal is not None
    assert item.appeal.words == "a red square"
    assert item.decided is not None
    assert (item.decided.outcome, item.linked_id, item.done_at is None) == (Outcome.RELEASED, None, False)
    found = await world.desk.reviews.labels(0, 100)
    assert [one.label for one in found if str(one.request_id) == request_id] == ["safe"]
    assert item.opened.key_id == KeyId(KEY)
