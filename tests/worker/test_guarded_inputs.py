"""The media of an input is judged before the model is called: on the queue, on the direct lane, in sessions."""

# ruff: noqa: ASYNC240 - tests may touch the disk while they wait

import base64
import dataclasses
import io
import json
import pathlib
import tempfile
from collections.abc import AsyncIterator

import aiohttp
import msgpack
import pytest
import pytest_asyncio
from PIL import Image
from tests.safety.doubles import MARKER, POLICY, score_of
from tests.worker.harness import TENANT, Harness, data_uri, running_worker, spec_of, until

from forestay.fleet.spec import EndpointSpec
from forestay.ids import RequestId
from forestay.queue.model import Options, Outcome, State
from forestay.safety.classifiers.marker import draw, find
from forestay.safety.model import Content, Picture, Trouble
from forestay.safety.taxonomy import Category

pytestmark = pytest.mark.asyncio(loop_scope="module")

APP = """
import fal
from pydantic import BaseModel

class In(BaseModel):
    text: str = ""
    image_url: str = ""
    note: object = None

class Out(BaseModel):
    text: str = ""

def called(kind):
    with open("seen/calls", "a") as file:
        file.write(kind + "\\n")

class Probe(fal.App, name="probe"):
    machine_type = "XS"

    @fal.endpoint("/")
    def run(self, input: In) -> Out:
        called("run")
        return Out(text="made")

    @fal.realtime("/realtime")
    async def realtime(self, input: In) -> Out:
        called("realtime")
        return Out(text="made")
"""


@dataclasses.dataclass
class World:
    """A worker with one guarded replica, whose model writes down that it was called."""

    harness: Harness
    replica_id: str
    folder: pathlib.Path

    @property
    def calls(self) -> list[str]:
        """What the model was called for."""
        path = self.folder / "calls"
        return path.read_text().split() if path.exists() else []

    async def direct(self, body: object, query: str = "") -> tuple[int, dict[str, str], str]:
        """Call as a gateway does."""
        path = f"/direct/{self.replica_id}/"
        headers = {**self.harness.proof("POST", path), "content-type": "application/json"}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with (
            aiohttp.ClientSession() as session,
            session.post(self.harness.address + path + query, data=data, headers=headers) as got,
        ):
            return got.status, {name.lower(): value for name, value in got.headers.items()}, await got.text()


def marked_score(content: Content) -> float:
    """Know marker pictures as the detector of markers does."""
    return float(bool(find(content))) if isinstance(content, Picture) else score_of(content)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world() -> AsyncIterator[World]:
    """One for the module."""
    with tempfile.TemporaryDirectory(prefix="fi-", dir="/tmp") as name:
        pathlib.Path(name).chmod(0o777)
        async with running_worker(allow_private_inputs=True, patience_seconds=3.0) as harness:
            spec = spec_of(policy="strict", data_mounts=(f"{name}:seen",))
            inputs = EndpointSpec("/", media_inputs=("image_url", "blob"), media_kinds={"blob": "file"})
            spec = dataclasses.replace(spec, endpoints=(inputs, EndpointSpec("/realtime", "realtime")))
            revision = await harness.deploy(spec, {"app.py": APP})
            replica_id = (await harness.ready(revision))[0].replica_id
            yield World(harness, replica_id, pathlib.Path(name))


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def _calm(world: World) -> None:
    """Every test begins with detectors that know markers, without calls, and without records of others."""
    guard = world.harness.guard
    await guard.guard.flush()
    guard.detectors.trouble.clear()
    guard.detectors.score = marked_score
    guard.verdicts.records.clear()
    (world.folder / "calls").unlink(missing_ok=True)


def png(picture: Picture | None = None) -> bytes:
    """A marker, or a harmless picture."""
    target = io.BytesIO()
    if picture is None:
        Image.new("RGB", (64, 64), (20, 90, 200)).save(target, "PNG")
    else:
        Image.frombytes("RGB", (picture.width, picture.height), picture.rgb).save(target, "PNG")
    return target.getvalue()


HARMLESS = png()
MARKED = png(draw(Category.SEXUAL, 6))


async def stored_url(world: World, data: bytes) -> str:
    """Keep a file as a caller's upload; returns its name."""
    item = await world.harness.media.save(
        data,
        tenant_id=TENANT,
        file_name="a.png",
        content_type="image/png",
        request_id=None,
        attempt=None,
        lifetime_seconds=None,
        state="released",
    )
    return item.url


def twin(data: bytes) -> str:
    """Base64 without a head."""
    return base64.b64encode(data).decode()


async def ways(world: World, data: bytes) -> dict[str, tuple[object, list[str | int]]]:
    """Return every way in which a caller may hand a file over, with the place where it then stands."""
    uri = data_uri(data, "image/png")
    return {
        "declared": ({"image_url": uri}, ["image_url"]),
        "ours": ({"image_url": await stored_url(world, data)}, ["image_url"]),
        "undeclared": ({"note": {"pictures": [uri]}}, ["note", "pictures", 0]),
        "ours, undeclared": ({"note": await stored_url(world, data)}, ["note"]),
        "base64": ({"note": twin(data)}, ["note"]),
        "in JSON": ({"note": json.dumps({"url": uri})}, ["note", "url"]),
        "called a text": ({"note": uri.replace("image/png", "text/plain")}, ["note"]),
        "called a file": ({"blob": uri}, ["blob"]),
    }


@pytest.mark.threat("ML01:2023", "AML.T0054")
async def test_a_marked_picture_never_reaches_the_model_whichever_way_it_comes(world: World) -> None:
    """The request ends BLOCKED on the queue and with 422 on the direct lane, and the model was never called."""
    for name, (body, where) in (await ways(world, MARKED)).items():
        stored = await world.harness.run(body)
        assert stored.snapshot.state is State.BLOCKED, name
        status, _, text = await world.direct(body)
        assert status == 422, name
        for answer in (stored.answer.body, text.encode()):
            [detail] = json.loads(answer)["detail"]
            assert (detail["type"], detail["loc"]) == ("content_policy_violation", ["body", *where]), name
            assert (detail["ctx"]["category"], detail["ctx"]["verdict"]) == ("sexual", "block"), name
    assert world.harness.queue.attempt_facts[-1][2] is Outcome.SAFETY
    assert world.calls == []


async def test_harmless_pictures_reach_the_model_with_a_record_of_their_verdict(world: World) -> None:
    """Each way on both lanes; the record names place, point and the digest of the file."""
    handed = await ways(world, HARMLESS)
    asked = set[RequestId]()
    for name, (body, _) in handed.items():
        stored = await world.harness.run(body)
        assert stored.snapshot.state is State.SUCCEEDED, name
        asked.add(stored.snapshot.request_id)
        assert (await world.direct(body))[0] == 200, name
    assert world.calls == ["run"] * 2 * len(handed)
    await world.harness.guard.guard.flush()
    records = [item for item in world.harness.guard.verdicts.records if item.request_id in asked]
    media = [item for item in records if item.point == "input_media"]
    assert {item.request_id for item in media} == asked
    assert {(item.verdict, len(item.judged)) for item in media} == {("allow", 2)}


@pytest.mark.threat("ML01:2023", "AML.T0054")
async def test_a_session_ends_at_a_marked_picture_that_the_caller_sends(world: World) -> None:
    """As bytes, as a data: URI, and as a frame that is no message at all; frames before it went through."""
    path = f"/direct/{world.replica_id}/realtime"
    sent = {
        "bytes": msgpack.packb({"note": MARKED}) or b"",
        "uri": msgpack.packb({"image_url": data_uri(MARKED, "image/png")}) or b"",
        "raw": MARKED,
    }
    for name, frame in sent.items():
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(world.harness.address + path, headers=world.harness.proof("GET", path)) as socket,
        ):
            await socket.send_bytes(msgpack.packb({"image_url": data_uri(HARMLESS, "image/png")}) or b"")
            assert msgpack.unpackb(await socket.receive_bytes(timeout=5))["text"] == "made", name
            await socket.send_bytes(frame)
            said = json.loads(await socket.receive_str(timeout=5))
            assert (said["type"], said["error"]) == ("x-fal-error", "CONTENT_POLICY_VIOLATION"), name
    assert world.calls == ["realtime"] * len(sent)


async def test_text_that_a_session_says_is_judged_also_where_it_is_no_message(world: World) -> None:
    """A text frame that is not JSON goes to the guard as what it is."""
    path = f"/direct/{world.replica_id}/realtime"
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(world.harness.address + path, headers=world.harness.proof("GET", path)) as socket,
    ):
        await socket.send_str(f"not JSON but {MARKER}")
        assert json.loads(await socket.receive_str(timeout=5))["error"] == "CONTENT_POLICY_VIOLATION"
    assert world.calls == []


@pytest.mark.threat("ML01:2023", "AML.T0054")
async def test_what_cannot_be_opened_is_refused_as_the_policy_says(world: World) -> None:
    """Broken, of a kind that is not opened, and bytes of no kind: none of it reaches the model."""
    broken = data_uri(MARKED[: len(MARKED) // 2], "image/png")
    svg = data_uri(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml")
    for held in (broken, svg, twin(bytes(range(256)) * 2)):
        stored = await world.harness.run({"note": held})
        assert stored.snapshot.state is State.BLOCKED
        [detail] = json.loads(stored.answer.body)["detail"]
        assert detail["ctx"]["trouble"] == "unreadable"
    assert (await world.direct(MARKED))[0] == 422  # the body itself is a file
    assert (await world.direct({}, "?note=" + data_uri(MARKED, "image/png").replace("+", "%2B")))[0] == 422
    assert world.calls == []


async def test_what_nobody_can_judge_now_is_judged_again_and_then_refused(world: World) -> None:
    """A judge that is back soon costs a moment; one that stays away ends the request, and the model is not called."""
    harness, body = world.harness, {"image_url": data_uri(HARMLESS, "image/png")}
    harness.guard.detectors.trouble["colours@1"] = Trouble.CRASH
    status, headers, text = await world.direct(body)
    assert (status, headers["retry-after"], "cannot be judged now" in text) == (503, "5", True)
    request_id = await harness.submit(body)

    async def asked() -> bool:
        return len([one for one in harness.guard.detectors.asked if one[0] == "colours@1"]) > 1

    harness.guard.detectors.asked.clear()
    await until(asked, "the input was judged again")
    assert world.calls == []
    harness.guard.detectors.trouble.clear()
    assert (await harness.result(request_id)).snapshot.state is State.SUCCEEDED
    harness.guard.detectors.trouble["colours@1"] = Trouble.CRASH
    stored = await harness.run(body)
    assert stored.snapshot.state is State.BLOCKED
    [detail] = json.loads(stored.answer.body)["detail"]
    assert (detail["ctx"]["verdict"], detail["ctx"]["trouble"]) == ("inconclusive", "crash")
    assert world.calls == ["run"]


async def test_a_policy_without_rules_for_media_looks_at_none(world: World) -> None:
    """Nothing is opened, and no record is made of it."""
    harness = world.harness
    words = POLICY[: POLICY.index("  - modality: image")]
    harness.guard.store.put("strict", words)
    await harness.guard.policies.refresh()
    try:
        stored = await harness.run({"image_url": data_uri(MARKED, "image/png")})
    finally:
        harness.guard.store.put("strict", POLICY)
        await harness.guard.policies.refresh()
    assert stored.snapshot.state is State.SUCCEEDED
    assert not [item for item in harness.guard.verdicts.records if item.point == "input_media"]


async def test_a_riskier_prompt_has_a_film_looked_at_more_closely(world: World) -> None:
    """The gateway's word on the prompt travels with the request and decides how many frames are seen."""
    seen: list[int] = []
    target = io.BytesIO()
    frames = [Image.new("RGB", (32, 32), (0, shade, 90)) for shade in range(80)]
    frames[0].save(target, "GIF", save_all=True, append_images=frames[1:], duration=250)
    harness = world.harness
    harness.guard.store.put("strict", POLICY.replace("modality: image", "modality: video"))
    await harness.guard.policies.refresh()
    try:
        for risk in (0.0, 1.0):
            harness.guard.detectors.asked.clear()
            body = {"image_url": data_uri(target.getvalue(), "image/gif")}
            request_id = await harness.submit(body, options=Options(risk=risk))
            assert (await harness.result(request_id)).snapshot.state is State.SUCCEEDED
            seen.append(len([one for one in harness.guard.detectors.asked if one[0] == "colours@1"]))
    finally:
        harness.guard.store.put("strict", POLICY)
        await harness.guard.policies.refresh()
    assert seen[0] < seen[1]
