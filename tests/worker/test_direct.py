"""The direct lane with a real fal.App behind it: proof, streams, websockets, slots, callers that leave."""

# ruff: noqa: ASYNC240 - tests may touch the disk while they wait

import asyncio
import dataclasses
import itertools
import json
import pathlib
import tempfile
import uuid
from collections.abc import AsyncIterator

import aiohttp
import msgpack
import pytest
import pytest_asyncio
from tests.worker.harness import APP, INTERNAL_KEY, TENANT, Harness, running_worker, spec_of, until

from forestay.fleet.actions import Origin, PlanRoute, RegisterRevision
from forestay.fleet.model import Revision
from forestay.fleet.spec import LimitSpec
from forestay.handshake import AUTH_HEADER, STORE_HEADER, reply_holds
from forestay.ids import ReplicaId, RequestId, RevisionId, new_request_id

pytestmark = pytest.mark.asyncio(loop_scope="module")
Loaded = tuple[Harness, str, pathlib.Path]
LIMITS = LimitSpec(
    max_multiplexing=2, request_timeout_seconds=20, startup_timeout_seconds=30, termination_grace_seconds=3
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def loaded() -> AsyncIterator[Loaded]:
    """A worker with one replica; yields its harness, the replica's id and the file where the app leaves marks."""
    with tempfile.TemporaryDirectory(prefix="fm-") as name:
        marks = pathlib.Path(name) / "marks"
        pathlib.Path(name).chmod(0o777)  # the model is another user, and sees this folder because it is mounted
        async with running_worker() as harness:
            spec = spec_of(limits=LIMITS, env={"MARKS": "seen/marks"}, data_mounts=(f"{name}:seen",))
            revision: Revision = await harness.deploy(spec, {"app.py": APP})
            yield harness, (await harness.ready(revision))[0].replica_id, marks


async def post(
    loaded: Loaded, path: str, body: object, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Call through the direct lane as a gateway does."""
    harness, replica_id, _ = loaded
    full = f"/direct/{replica_id}{path}"
    sent = {**harness.proof("POST", full), **(headers or {})}
    async with aiohttp.ClientSession() as session, session.post(harness.address + full, json=body, headers=sent) as got:
        nonce = sent[AUTH_HEADER].split(".")[1]
        assert reply_holds(INTERNAL_KEY, nonce, got.headers.get(AUTH_HEADER))
        return got.status, {name.lower(): value for name, value in got.headers.items()}, await got.read()


async def test_a_call_is_relayed_with_status_headers_and_body(loaded: Loaded) -> None:
    """One call in a free slot; the worker proves itself in the reply."""
    status, headers, body = await post(loaded, "/", {"text": "direct"})
    assert (status, json.loads(body)["text"]) == (200, "direct")
    assert headers["content-type"] == "application/json"


async def test_a_file_of_a_direct_call_is_released_under_the_callers_tenant(loaded: Loaded) -> None:
    """No finish follows in this lane, so nothing would ever release it."""
    status, _, body = await post(loaded, "/", {"do": "file"}, {"x-forestay-tenant": "acme"})
    media = loaded[0].media.items[json.loads(body)["file"]["url"].split("/")[2]]
    assert (status, media.tenant_id, media.state) == (200, "acme", "released")


async def test_an_errors_body_is_relayed(loaded: Loaded) -> None:
    """The model's own 422 is the caller's."""
    status, _, body = await post(loaded, "/", {"do": "422"})
    assert (status, json.loads(body)) == (422, {"detail": "no"})


async def test_without_proof_nothing_is_told(loaded: Loaded) -> None:
    """No proof, a wrong key and a repeated nonce are 401."""
    harness, replica_id, _ = loaded
    url = f"{harness.address}/direct/{replica_id}/"
    proof = harness.proof("POST", f"/direct/{replica_id}/")
    wrong = {**proof, AUTH_HEADER: proof[AUTH_HEADER][:-1] + ("0" if proof[AUTH_HEADER][-1] != "0" else "1")}
    async with aiohttp.ClientSession() as session:
        for headers, expected in (({}, 401), (wrong, 401), (proof, 200), (proof, 401)):
            async with session.post(url, json={"text": "x"}, headers=headers) as got:
                assert got.status == expected


async def test_an_unknown_replica_is_gone(loaded: Loaded) -> None:
    """404 with a header that no model sends."""
    harness, _, _ = loaded
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{harness.address}/direct/nobody/", headers=harness.proof("POST", "/direct/nobody/")) as got,
    ):
        assert (got.status, got.headers["x-forestay-gone"]) == (404, "1")


async def test_health_needs_no_proof(loaded: Loaded) -> None:
    """A probe may ask whether the worker answers."""
    async with aiohttp.ClientSession() as session, session.get(f"{loaded[0].address}/health") as got:
        assert (got.status, await got.json()) == (200, {"status": "ready"})


async def test_events_arrive_one_by_one(loaded: Loaded) -> None:
    """A stream is relayed as it comes, not at its end."""
    harness, replica_id, _ = loaded
    path = f"/direct/{replica_id}/stream"
    events: list[tuple[float, str]] = []
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            harness.address + path, json={"text": "3", "seconds": 0.2}, headers=harness.proof("POST", path)
        ) as got,
    ):
        assert got.headers["content-type"].startswith("text/event-stream")
        events += [(harness.clock.monotonic(), line.decode()) async for line in got.content if line.strip()]
    assert [json.loads(text.removeprefix("data: "))["number"] for _, text in events] == [0, 1, 2]
    assert events[-1][0] - events[0][0] > 0.2


async def test_a_websocket_is_relayed_both_ways(loaded: Loaded) -> None:
    """Fal's realtime protocol: msgpack in, msgpack out, one slot."""
    harness, replica_id, _ = loaded
    path = f"/direct/{replica_id}/realtime"
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(harness.address + path, headers=harness.proof("GET", path)) as socket,
    ):
        for text in ("abc", "xyz"):
            await socket.send_bytes(msgpack.packb({"text": text}) or b"")
            assert msgpack.unpackb(await socket.receive_bytes(timeout=5))["text"] == text[::-1]


async def test_a_full_replica_says_busy_to_calls_and_sockets(loaded: Loaded) -> None:
    """No slot: 429 with the busy header; a websocket's handshake is denied the same way."""
    harness, replica_id, _ = loaded
    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(post(loaded, "/", {"do": "sleep", "seconds": 0.8}))
        await until(lambda: _busy(harness, replica_id, 2), "both slots are taken")
        status, headers, _ = await post(loaded, "/", {"text": "third"})
        assert (status, headers["x-forestay-busy"]) == (429, "1")
        path = f"/direct/{replica_id}/realtime"
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await session.ws_connect(harness.address + path, headers=harness.proof("GET", path))
        assert refused.value.status == 429


async def test_a_caller_that_leaves_cancels_the_model(loaded: Loaded) -> None:
    """A dropped connection reaches the model by its /cancel endpoint and frees the slot."""
    harness, _, marks = loaded
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await post(loaded, "/", {"do": "sleep", "seconds": 15})
    await until(lambda: _marked(marks, "cancelled"), "the model heard of it", 3)
    status, _, _ = await post(loaded, "/", {"text": "after"})
    assert (status, harness.address != "") == (200, True)


async def test_a_caller_that_leaves_a_stream_ends_it(loaded: Loaded) -> None:
    """An endless stream stops with its caller."""
    harness, replica_id, marks = loaded
    path = f"/direct/{replica_id}/stream"
    async with aiohttp.ClientSession() as session:
        sent = harness.proof("POST", path)
        got = await session.post(harness.address + path, json={"text": "100000", "seconds": 0.02}, headers=sent)
        await got.content.readline()
        before = _read(marks).count("stream ended")
        got.close()
    await until(lambda: _count(marks, "stream ended", before + 1), "the model's stream ended", 5)


async def test_a_block_of_slots_is_lent_and_given_back(loaded: Loaded) -> None:
    """A gateway gets what is free while no queued request waits; asking again replaces, zero gives back."""
    harness, replica_id, _ = loaded
    path = f"/slots/{replica_id}"
    granted: list[int] = []
    async with aiohttp.ClientSession() as session:
        for slots in (5, 1, 0):
            body = {"gateway": "g1", "slots": slots, "seconds": 5}
            async with session.post(harness.address + path, json=body, headers=harness.proof("POST", path)) as got:
                granted.append((await got.json())["granted"])
        async with session.post(harness.address + path, data=b"x", headers=harness.proof("POST", path)) as got:
            assert got.status == 400
    assert granted == [2, 1, 0]


async def test_a_direct_call_gets_its_turn_while_the_queue_has_a_backlog() -> None:
    """On a single slot, of two turns one is its own: nobody waits for the end of the other lane's backlog."""
    limits = dataclasses.replace(LIMITS, max_multiplexing=1)
    async with running_worker() as harness:
        revision = await harness.deploy(spec_of(limits=limits), {"app.py": APP})
        (replica,) = await harness.ready(revision)
        queued = [await harness.submit({"do": "sleep", "seconds": 0.1}) for _ in range(40)]
        ended: list[int] = []
        while len(ended) < 6:
            status, _, _ = await post((harness, replica.replica_id, harness.folder), "/", {"text": "now"})
            if status == 200:
                ended.append(sum([await harness.queue.result(item) is not None for item in queued]))
            await asyncio.sleep(0.05)  # as gateways do after "no free slot"
    assert max(later - before for before, later in itertools.pairwise(ended)) <= 3
    assert ended[-1] < 20


async def _busy(harness: Harness, replica_id: str, count: int) -> bool:
    path = f"/slots/{replica_id}"
    body = {"gateway": "probe", "slots": 9, "seconds": 0.0}
    async with (
        aiohttp.ClientSession() as session,
        session.post(harness.address + path, json=body, headers=harness.proof("POST", path)) as got,
    ):
        return (await got.json())["granted"] <= 2 - count


async def _marked(marks: pathlib.Path, text: str) -> bool:
    return text in _read(marks)


async def _count(marks: pathlib.Path, text: str, count: int) -> bool:
    return _read(marks).count(text) >= count


def _read(marks: pathlib.Path) -> str:
    return marks.read_text() if marks.exists() else ""


async def test_direct_calls_and_streams_are_offered_to_a_rollout_after_their_answer(loaded: Loaded) -> None:
    """While a candidate is held: a call as it is, a stream by its last event, and nothing that may not be kept."""
    harness, replica_id, _ = loaded
    fleet = await harness.fleet.load()
    control = fleet.revisions[fleet.replicas[ReplicaId(replica_id)].revision_id]
    candidate = dataclasses.replace(control, revision_id=RevisionId("next"), digest="next")
    register = RegisterRevision(candidate, TENANT, "shared", "test")
    plan = PlanRoute(control.model_id, candidate.revision_id, 600.0, "a rollout", held=True)
    await harness.fleet.apply([register, plan], origin=Origin.HUMAN, actor="test")
    ids = [str(new_request_id(harness.clock.now(), 0, harness.chance)) for _ in range(3)]

    async def offered(number: int, path: str) -> bool:
        body = {"text": "3", "seconds": 0.0, "seed": 1}
        await post(loaded, path, body, {STORE_HEADER: "1", "x-fal-request-id": ids[number]})
        return RequestId(uuid.UUID(ids[number])) in harness.offers.offered

    await until(lambda: offered(0, "/"), "the worker knows of the candidate")
    await post(loaded, "/", {"text": "forget me"}, {"x-fal-request-id": ids[1]})
    await until(lambda: offered(2, "/stream"), "the stream is offered")
    assert RequestId(uuid.UUID(ids[1])) not in harness.offers.offered
    found = harness.offers.offered[RequestId(uuid.UUID(ids[2]))]
    assert (found.endpoint, found.revision_id) == ("/", control.revision_id)
    assert json.loads(found.answer) == {"number": 2}
    assert found.device_seconds > 0
