"""A worker whose model is guarded: whatever road an output takes, it is judged before anybody has it."""

import asyncio
import base64
import hashlib
import io
import itertools
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import cast

import aiohttp
import msgpack
import pytest
import pytest_asyncio
from aiohttp import web
from PIL import Image
from tests.safety.doubles import MARKER, POLICY
from tests.worker.harness import APP, Harness, data_uri, running_worker, spec_of, until

from forestay.fleet.model import Revision
from forestay.handshake import FILES_HEADER
from forestay.ids import RequestId
from forestay.queue.model import LINE_WITHHELD, Outcome, State
from forestay.safety.model import Trouble

pytestmark = pytest.mark.asyncio(loop_scope="module")
QUIET = MARKER.lower()  # the model makes the marker of it: it is no echo of the input


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded() -> AsyncIterator[tuple[Harness, str]]:
    """A worker with one guarded replica."""
    async with running_worker(allow_private_inputs=True) as harness:
        revision: Revision = await harness.deploy(spec_of(policy="strict"), {"app.py": APP})
        yield harness, (await harness.ready(revision))[0].replica_id


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def _calm(guarded: tuple[Harness, str]) -> None:
    """Every test begins with detectors and a log that work, and without records of others that still wait."""
    harness, _ = guarded
    harness.guard.detectors.trouble.clear()
    harness.guard.verdicts.away = False
    await harness.guard.guard.flush()
    harness.guard.verdicts.records.clear()


async def direct(guarded: tuple[Harness, str], body: object, path: str = "/") -> tuple[int, str]:
    """Call as a gateway does."""
    harness, replica_id = guarded
    full = f"/direct/{replica_id}{path}"
    headers = harness.proof("POST", full)
    async with (
        aiohttp.ClientSession() as session,
        session.post(harness.address + full, json=body, headers=headers) as got,
    ):
        return got.status, await got.text()


async def heard(guarded: tuple[Harness, str], body: object) -> Mapping[str, str]:
    """Call as a gateway does, for the headers."""
    harness, replica_id = guarded
    full = f"/direct/{replica_id}/"
    async with (
        aiohttp.ClientSession() as session,
        session.post(harness.address + full, json=body, headers=harness.proof("POST", full)) as got,
    ):
        return got.headers


async def test_a_harmless_output_is_published_with_its_record(guarded: tuple[Harness, str]) -> None:
    """The record was there before the result."""
    harness, _ = guarded
    stored = await harness.run({"do": "shout", "text": "a lighthouse"})
    assert (stored.snapshot.state, json.loads(stored.answer.body)["text"]) == (State.SUCCEEDED, "A LIGHTHOUSE")
    asked = stored.snapshot.request_id  # records of inputs of other tests may still arrive
    [record] = [record for record in harness.guard.verdicts.records if record.request_id == asked]
    assert (record.request_id, record.attempt, record.verdict) == (stored.snapshot.request_id, 1, "allow")


async def test_a_blocked_output_ends_the_request_with_a_typed_refusal(guarded: tuple[Harness, str]) -> None:
    """422, category and field; nothing of the output; told as safety's doing."""
    harness, _ = guarded
    stored = await harness.run({"do": "shout", "text": QUIET})
    assert stored.snapshot.state is State.BLOCKED
    assert (stored.answer.status_code, stored.answer.error_type) == (422, "content_policy_violation")
    [detail] = json.loads(stored.answer.body)["detail"]
    assert (detail["loc"], detail["ctx"]["category"]) == (["output", "text"], "violence")
    assert MARKER not in stored.answer.body.decode()
    assert harness.queue.attempt_facts[-1][2] is Outcome.SAFETY


@pytest.mark.threat("ML01:2023", "AML.T0054")
async def test_what_a_model_prints_is_judged_before_its_caller_can_read_it(guarded: tuple[Harness, str]) -> None:
    """Its output is harmless, so that it is published; of its lines those are told that are."""
    harness, _ = guarded
    for text, source in ((MARKER, LINE_WITHHELD), ("a lighthouse", "USER")):
        stored = await harness.run({"do": "say", "text": text})
        assert stored.snapshot.state is State.SUCCEEDED
        lines = [line for _, line in await harness.queue.logs(stored.snapshot.request_id, 0)]
        assert len(lines) == 4
        assert {line.source for line in lines} == {source}


@pytest.mark.threat("ML01:2023", "AML.T0054")
async def test_what_nobody_can_judge_is_withheld(guarded: tuple[Harness, str]) -> None:
    """Every detector is down: the caller sees a request in progress, and no result."""
    harness, _ = guarded
    harness.guard.detectors.trouble |= {"words@1": Trouble.CRASH, "spare@1": Trouble.CRASH}
    request_id = await harness.submit({"do": "shout", "text": "a lighthouse"})
    await _until_state(harness, request_id, State.WITHHELD)
    assert await harness.queue.result(request_id) is None


async def test_a_judge_that_is_back_soon_is_asked_again(guarded: tuple[Harness, str]) -> None:
    """The output waits for it, and is then published as if nothing had been."""
    harness, _ = guarded
    harness.guard.detectors.trouble |= {"words@1": Trouble.CRASH, "spare@1": Trouble.CRASH}
    request_id = await harness.submit({"do": "shout", "text": "a lighthouse"})

    async def judged_once() -> bool:
        return bool(harness.guard.verdicts.records)

    await until(judged_once, "the output was judged in vain")
    harness.guard.detectors.trouble.clear()
    assert (await harness.result(request_id)).snapshot.state is State.SUCCEEDED
    said = [record.verdict for record in harness.guard.verdicts.records]
    assert (said[0], said[-1]) == ("inconclusive", "allow")


async def test_what_cannot_be_recorded_is_withheld(guarded: tuple[Harness, str]) -> None:
    """A log that is away releases nothing."""
    harness, _ = guarded
    harness.guard.verdicts.away = True
    request_id = await harness.submit({"do": "shout", "text": "a lighthouse"})
    await _until_state(harness, request_id, State.WITHHELD)


@pytest.mark.threat("ML01:2023", "AML.T0054")
async def test_a_file_that_cannot_be_opened_is_not_let_go(guarded: tuple[Harness, str]) -> None:
    """It is no picture: the policy says that what cannot be looked at is blocked, on both lanes, and it stays shut."""
    harness, _ = guarded
    before = set(harness.media.items)
    stored = await harness.run({"do": "file"})
    assert stored.snapshot.state is State.BLOCKED
    status, text = await direct(guarded, {"do": "file"})
    assert (status, "content_policy_violation" in text) == (422, True)
    made = set(harness.media.items) - before
    assert {harness.media.items[name].state for name in made} == {"quarantine"}


def png(colour: tuple[int, int, int]) -> bytes:
    """A picture of one colour; red is what the stub detector knows."""
    target = io.BytesIO()
    Image.new("RGB", (32, 32), colour).save(target, "PNG")
    return target.getvalue()


async def test_pictures_are_judged_on_both_lanes_before_anybody_may_read_them(guarded: tuple[Harness, str]) -> None:
    """The harmless one is released with the answer, the marked one stays in quarantine."""
    harness, _ = guarded
    blue, red = (base64.b64encode(png(colour)).decode()[::-1] for colour in ((0, 0, 255), (255, 0, 0)))
    stored = await harness.run({"do": "picture", "text": blue})
    assert stored.snapshot.state is State.SUCCEEDED, stored.answer.body
    stored = await harness.run({"do": "picture", "text": red})
    assert (stored.snapshot.state, json.loads(stored.answer.body)["detail"][0]["loc"]) == (
        State.BLOCKED, ["output", "file", "url"],
    )  # fmt: skip
    status, text = await direct(guarded, {"do": "picture", "text": blue})
    media_id = json.loads(text)["file"]["url"].split("/")[2]
    assert (status, harness.media.items[media_id].state) == (200, "released")
    before = set(harness.media.items)
    assert (await direct(guarded, {"do": "picture", "text": red}))[0] == 422
    [made] = set(harness.media.items) - before
    assert harness.media.items[made].state == "quarantine"
    digests = {digest for record in harness.guard.verdicts.records for digest in record.judged}
    assert f"sha256:{hashlib.sha256(harness.media.data[media_id]).hexdigest()}" in digests


async def test_a_file_is_given_what_its_policy_asks_for(guarded: tuple[Harness, str]) -> None:
    """A signed manifest and a fingerprint; the stamped file alone is released, and what it is stands on record."""
    harness, _ = guarded
    harness.guard.store.put(
        "strict", POLICY.replace("streams: judge", "streams: judge\nprovenance: [manifest, fingerprint]")
    )
    await harness.guard.policies.refresh()
    try:
        plain = png((0, 0, 200))
        stored = await harness.run({"do": "picture", "text": base64.b64encode(plain).decode()[::-1]})
        assert stored.snapshot.state is State.SUCCEEDED, stored.answer.body
        told = await heard(guarded, {"do": "picture", "text": base64.b64encode(plain).decode()[::-1]})
        inline = await harness.run({"do": "backwards", "text": data_uri(plain, "image/png")[::-1]})
        status, text = await direct(guarded, {"do": "picture", "text": base64.b64encode(plain).decode()[::-1]})
    finally:
        harness.guard.store.put("strict", POLICY)
        await harness.guard.policies.refresh()
    media_id = json.loads(text)["file"]["url"].split("/")[2]
    stamped = harness.media.data[media_id]
    assert (status, harness.media.items[media_id].state) == (200, "released")
    assert b"c2pa" in stamped
    assert plain not in harness.media.data.values()
    assert {one.made.model_id for one in harness.fingerprints.kept} == {"acme/probe"}
    digests = {digest for record in harness.guard.verdicts.records for digest in record.judged}
    assert f"sha256:{hashlib.sha256(stamped).hexdigest()}" in digests
    kept, beside = (harness.queue.attempt_work[one.snapshot.request_id, 1] for one in (stored, inline))
    assert told[FILES_HEADER] == "1 0"
    assert (kept["signed_files"], kept["unsigned_files"]) == (1.0, 0.0)
    assert (beside["signed_files"], beside["unsigned_files"]) == (0.0, 1.0)  # nothing is written into an answer's text


@pytest.mark.threat("ML01:2023", "AML.T0054")
@pytest.mark.parametrize(("colour", "state"), [((0, 0, 255), State.SUCCEEDED), ((255, 0, 0), State.BLOCKED)])
async def test_a_picture_that_stands_in_a_text_is_looked_at(
    guarded: tuple[Harness, str], colour: tuple[int, int, int], state: State
) -> None:
    """As base64 alone, as a data: URI inside a sentence, and by the name of a stored file inside a sentence."""
    harness, _ = guarded
    noisy = io.BytesIO()
    while len(noisy.getvalue()) % 3 == 0:  # else it has no padding, and is base64 of something unknown backwards too
        picture = Image.effect_noise((64, 64), 40).convert("RGB")
        picture.paste(colour, (0, 0, 32, 32))
        noisy = io.BytesIO()
        picture.save(noisy, "PNG")
    packed = base64.b64encode(noisy.getvalue()).decode()
    uri = f"look ![a](data:image/png;base64,{packed}) there"
    for text in (packed, uri):
        stored = await harness.run({"do": "backwards", "text": text[::-1]})
        assert stored.snapshot.state is state, stored.answer.body[:200]
    stored = await harness.run({"do": "mention", "text": packed})
    assert stored.snapshot.state is state, stored.answer.body[:200]


@pytest.mark.threat("ML01:2023", "AML.T0054")
async def test_a_models_error_is_an_output_like_any_other(guarded: tuple[Harness, str]) -> None:
    """Its words are judged on both lanes; where they are not let go its status stays, and says nothing."""
    harness, _ = guarded
    for text, said in (("no such style", True), (QUIET, False)):
        stored = await harness.run({"do": "complain", "text": text})
        assert (stored.snapshot.state, stored.answer.status_code) == (State.FAILED, 422)
        assert (text.upper() in stored.answer.body.decode(), text.upper() in (stored.snapshot.error or "")) == (
            said, said,
        )  # fmt: skip
        status, body = await direct(guarded, {"do": "complain", "text": text})
        assert (status, text.upper() in body) == (422, said)


async def test_headers_are_judged_where_they_say_something(guarded: tuple[Harness, str]) -> None:
    """A model may not say in a header what it may not say in its answer."""
    harness, _ = guarded
    stored = await harness.run({"do": "header", "text": "calm"})
    assert (stored.snapshot.state, stored.answer.headers["x-note"]) == (State.SUCCEEDED, "it says CALM")
    assert (await harness.run({"do": "header", "text": QUIET})).snapshot.state is State.BLOCKED


async def test_an_answer_is_on_record_as_it_leaves(guarded: tuple[Harness, str]) -> None:
    """Also where it was written anew since: a foreign link became ours."""
    harness, _ = guarded
    async with serving_file(png((0, 0, 255))) as address:
        stored = await harness.run({"do": "link", "text": address.removeprefix("http:")})
    assert address not in stored.answer.body.decode()
    digests = {digest for record in harness.guard.verdicts.records for digest in record.judged}
    assert f"sha256:{hashlib.sha256(stored.answer.body).hexdigest()}" in digests


@pytest.mark.parametrize("how", ["link", "show"])
async def test_a_link_of_a_provider_is_fetched_judged_and_from_then_on_ours(
    guarded: tuple[Harness, str], how: str
) -> None:
    """What is read later is what was judged; a marked picture behind a link, or shown in a text, is blocked."""
    harness, _ = guarded
    for colour, state in (((0, 0, 255), State.SUCCEEDED), ((255, 0, 0), State.BLOCKED)):
        async with serving_file(png(colour)) as address:
            stored = await harness.run({"do": how, "text": address.removeprefix("http:")})
        assert stored.snapshot.state is state
        assert address not in stored.answer.body.decode()
    assert any(item.file_name == "a.png" and item.state == "quarantine" for item in harness.media.items.values())


@asynccontextmanager
async def serving_file(data: bytes) -> AsyncIterator[str]:
    """A provider's file on loopback."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=data, content_type="image/png")

    app = web.Application()
    app.router.add_get("/a.png", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server = cast("asyncio.Server", site._server)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/a.png"
    finally:
        await runner.cleanup()


async def test_a_direct_call_is_judged_as_a_whole(guarded: tuple[Harness, str]) -> None:
    """What is blocked is refused; what cannot be judged is refused too, since somebody waits."""
    assert (await direct(guarded, {"do": "shout", "text": "calm"}))[0] == 200
    status, text = await direct(guarded, {"do": "shout", "text": QUIET})
    assert (status, MARKER in text) == (422, False)
    guarded[0].guard.detectors.trouble |= {"words@1": Trouble.TIMEOUT}
    assert (await direct(guarded, {"do": "shout", "text": "calm"}))[0] == 422


async def test_a_stream_ends_at_the_event_that_is_not_let_go(guarded: tuple[Harness, str]) -> None:
    """Events before it have arrived, one by one; in its place stands why."""
    status, text = await direct(guarded, {"do": QUIET, "text": "3"}, "/stream")
    events = [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data:")]
    assert (status, events[0]) == (200, {"number": 0})
    assert events[1]["detail"][0]["type"] == "content_policy_violation"
    assert "event: error" in text
    assert len(events) == 2
    _, text = await direct(guarded, {"text": "3"}, "/stream")
    assert text.count("data:") == 3


async def test_a_stream_says_nothing_beside_what_was_judged(guarded: tuple[Harness, str]) -> None:
    """Comments and unknown lines are for no reader, so none gets them; a name of an event is judged with its data."""
    _, text = await direct(guarded, {"text": "2", "image_url": "a comment"}, "/stream")
    assert "COMMENT" not in text
    assert "event: said\ndata: {}\n\n" in text
    assert text.count("data:") == 3


@pytest.mark.parametrize("text", [MARKER, MARKER[::-1]], ids=["said", "answered"])
async def test_a_session_ends_at_the_frame_that_is_not_let_go(guarded: tuple[Harness, str], text: str) -> None:
    """Whether the caller said it or the model answered it; frames before it went through."""
    harness, replica_id = guarded
    path = f"/direct/{replica_id}/realtime"
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(harness.address + path, headers=harness.proof("GET", path)) as socket,
    ):
        await socket.send_bytes(msgpack.packb({"text": "abc"}) or b"")
        assert msgpack.unpackb(await socket.receive_bytes(timeout=5))["text"] == "cba"
        await socket.send_bytes(msgpack.packb({"text": text}) or b"")
        said = json.loads(await socket.receive_str(timeout=5))
        assert (said["type"], said["error"]) == ("x-fal-error", "CONTENT_POLICY_VIOLATION")
        await socket.receive(timeout=5)
        assert socket.close_code == 1008


async def _until_state(harness: Harness, request_id: RequestId, state: State) -> None:
    async def there() -> bool:
        found = (await harness.queue.snapshots([request_id])).get(request_id)
        return found is not None and found.state is state

    await until(there, f"the request is {state}")


@asynccontextmanager
async def policy_of(harness: Harness, text: str) -> AsyncIterator[None]:
    """Put another text of the policy in force for a while."""
    harness.guard.store.put("strict", text)
    await harness.guard.policies.refresh()
    try:
        yield
    finally:
        harness.guard.store.put("strict", POLICY)
        await harness.guard.policies.refresh()


BLURRING = POLICY.replace("flag_at: 0.4\n    block_at: 0.9\n", "flag_at: 0.4\n    blur_at: 0.9\n")


async def test_a_picture_that_the_policy_wants_blurred_goes_out_as_a_blurred_copy(guarded: tuple[Harness, str]) -> None:
    """On both lanes; the answer says so, the copy is another file, and the original stays shut."""
    harness, _ = guarded
    red = base64.b64encode(halves()).decode()[::-1]
    async with policy_of(harness, BLURRING):
        stored = await harness.run({"do": "picture", "text": red})
        before = set(harness.media.items)
        status, text = await direct(guarded, {"do": "picture", "text": red})
    assert stored.snapshot.state is State.SUCCEEDED, stored.answer.body
    assert stored.answer.headers["x-forestay-blurred"] == "file.url"
    assert status == 200
    file = json.loads(text)["file"]
    assert (file["file_name"], file["content_type"]) == ("blurred.jpg", "image/jpeg")
    media_id = file["url"].split("/")[2]
    made = {name: harness.media.items[name].state for name in set(harness.media.items) - before}
    assert made.pop(media_id) == "released"
    assert set(made.values()) == {"quarantine"}
    with Image.open(io.BytesIO(harness.media.data[media_id])) as shown:
        across = [cast("tuple[int, int, int]", shown.convert("RGB").getpixel((x, 32))) for x in range(64)]
    steps = [abs(a[1] - b[1]) for a, b in itertools.pairwise(across)]
    assert max(steps) < 80  # the edge between the halves, 255 high, has become a slope
    last = [record for record in harness.guard.verdicts.records if record.action == "blur"][-1]
    assert f"sha256:{hashlib.sha256(harness.media.data[media_id]).hexdigest()}" in last.judged


async def test_what_cannot_be_blurred_is_blocked(guarded: tuple[Harness, str]) -> None:
    """What a caller sends is the caller's: nobody blurs it, so it does not go on."""
    harness, _ = guarded
    async with policy_of(harness, BLURRING):
        taken = await direct(guarded, {"image_url": "data:image/png;base64," + base64.b64encode(halves()).decode()})
    assert taken[0] == 422


def halves() -> bytes:
    """A picture that is red on the left, where the stub detector looks, and white on the right."""
    shown = Image.new("RGB", (64, 64), (255, 255, 255))
    shown.paste((255, 0, 0), (0, 0, 32, 64))
    target = io.BytesIO()
    shown.save(target, "PNG")
    return target.getvalue()
