"""Judging an answer whatever happens meanwhile."""

import asyncio
import base64
import dataclasses
import hashlib
import json
import pathlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import IO

import msgspec
import pytest
from tests.safety.doubles import MARKER, POLICY, GuardWorld, guard_world
from tests.safety.test_guard import subject
from tests.worker.harness import MemoryMedia

from forestay.clock import SystemClock
from forestay.errors import Unavailable
from forestay.queue.model import Answer
from forestay.safety.decide import Place
from forestay.safety.guard import Item
from forestay.safety.model import Content, Picture, Text
from forestay.safety.policy import Action
from forestay.safety.taxonomy import Modality
from forestay.worker.input_judging import InputJudge
from forestay.worker.input_media import Reader
from forestay.worker.judging import OutputJudge
from forestay.worker.opening import JudgingPorts
from forestay.worker.said_before import SaidBefore

PICTURES_ALONE = POLICY[: POLICY.index("  - modality: text")] + POLICY[POLICY.index("  - modality: image") :]


@dataclasses.dataclass
class Viewer:
    """Sees a calm picture in every file; something happens while it looks."""

    meanwhile: Callable[[], Awaitable[None]]
    looked: int = 0

    async def look(self, file: IO[bytes], where: str, prompt_score: float) -> Sequence[Item]:
        """Look."""
        del file, prompt_score
        self.looked += 1
        await self.meanwhile()
        return [Item(Place(where, Modality.IMAGE), (Picture(where, 1, 1, b"\0\0\0"),))]


@pytest.fixture
async def world() -> AsyncIterator[GuardWorld]:
    """A guard that runs, under a policy that looks at pictures alone."""
    made = await guard_world()
    made.store.put("strict", PICTURES_ALONE)
    await made.policies.refresh()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(made.guard.run())
        await asyncio.sleep(0)
        yield made
        running.cancel()


def ports_of(world: GuardWorld, folder: pathlib.Path, viewer: Viewer) -> JudgingPorts:
    """Return what judging needs of the world."""
    return JudgingPorts(
        guard=world.guard,
        media=MemoryMedia(SystemClock()),
        fetcher=Nowhere(),
        viewer=viewer,
        folder=folder,
        clock=SystemClock(),
        file_seconds=5.0,
    )


URI = f"data:image/png;base64,{base64.b64encode(b'a picture').decode()}"
BODY = f'{{"text": "{MARKER}", "image": "{URI}"}}'.encode()


Judging = Callable[[GuardWorld, pathlib.Path, Viewer], Awaitable[tuple[Action, int]]]


async def judged(world: GuardWorld, folder: pathlib.Path, viewer: Viewer) -> tuple[Action, int]:
    """Judge an answer with a picture and a marked text; returns what follows, and how often it was looked at."""
    judge = OutputJudge(ports_of(world, folder, viewer))
    ruled = await judge.judge(subject(), Answer(200, {"content-type": "application/json"}, BODY))
    return ruled.judgement.action, viewer.looked


async def judged_frame(world: GuardWorld, folder: pathlib.Path, viewer: Viewer) -> tuple[Action, int]:
    """Judge a frame that says and shows the same; returns as `judged`."""
    judge, reader = InputJudge(ports_of(world, folder, viewer)), Reader({}, fetches=False)
    judgement = await judge.judge_frame(subject(), json.loads(BODY), BODY, reader, SaidBefore())
    assert judgement is not None
    return judgement.action, viewer.looked


@pytest.mark.parametrize("judging", [judged, judged_frame])
async def test_a_policy_that_asks_for_more_meanwhile_is_judged_by_in_full(
    world: GuardWorld, tmp_path: pathlib.Path, judging: Judging
) -> None:
    """What was gathered for the old version leaves out what the new one looks at: it is gathered again."""

    async def nothing() -> None:
        return

    async def reload() -> None:
        world.store.put("strict", POLICY)
        await world.policies.refresh()

    assert await judging(world, tmp_path, Viewer(nothing)) == (Action.ALLOW, 1)
    assert await judging(world, tmp_path, Viewer(reload)) == (Action.BLOCK, 2)


@pytest.mark.parametrize("judging", [judged, judged_frame])
async def test_a_policy_that_never_stands_still_releases_nothing(
    world: GuardWorld, tmp_path: pathlib.Path, judging: Judging
) -> None:
    """After two looks it is left for later: to be judged again, or withheld."""
    versions = [POLICY, POLICY.replace("modality: text", "modality: audio")]

    async def reload() -> None:
        world.store.put("strict", versions.pop(0))
        await world.policies.refresh()

    assert (await judging(world, tmp_path, Viewer(reload)))[0] is Action.REVIEW


HARM = "describe the zorble plan in full detail"  # what the detector of these tests minds
WORDS_ALONE = POLICY[: POLICY.index("  - modality: image")]
NOISE = hashlib.shake_256(b"noise").digest(600)
PNG = b"\x89PNG\r\n\x1a\n" + NOISE
PACKED = base64.b64encode(PNG).decode()


def minds(content: Content) -> float:
    """1 for a text that asks for the plan; pictures are calm."""
    return 1.0 if isinstance(content, Text) and "zorbleplan" in re.sub(r"[\s_]", "", content.text.lower()) else 0.0


class Nowhere:
    """A fetcher that reaches nobody."""

    async def fetch_into(self, url: str, write: Callable[[bytes], object], max_bytes: int | None = None) -> int:
        """Say so."""
        del url, write, max_bytes
        raise Unavailable("nobody is there")


async def _calmly() -> None:
    return


async def ruled_on(
    world: GuardWorld, folder: pathlib.Path, policy: str, answer: Answer, media: MemoryMedia | None = None
) -> tuple[Action, int]:
    """Judge an answer under a policy; returns what follows, and at how many files was looked."""
    world.store.put("strict", policy)
    world.detectors.score = minds
    await world.policies.refresh()
    viewer = Viewer(_calmly)
    ports = ports_of(world, folder, viewer)
    ruled = await OutputJudge(ports if media is None else dataclasses.replace(ports, media=media)).judge(
        subject(), answer
    )
    return ruled.judgement.action, viewer.looked


def answer_of(body: object, content_type: str = "application/json") -> Answer:
    """Write an answer."""
    raw = body if isinstance(body, str) else json.dumps(body)
    return Answer(200, {"content-type": content_type}, raw.encode())


ROADS: dict[str, Answer] = {
    "behind our own scheme": answer_of({"text": f"forestay-media://x {HARM}"}),
    "as the name of a stored file": answer_of({"text": f"forestay-media://{'a' * 32}/{HARM}"}),
    "as a file's name": answer_of({"file_name": HARM.replace(" ", "_") + ".png"}),
    "as a content type": answer_of({"content_type": HARM.replace(" ", "_") * 9}),
    "behind data:": answer_of({"text": f"data: {HARM}"}),
    "as a picture's data": answer_of({"text": f"data:image/png,{HARM}"}),
    "as one word": answer_of({"text": "_".join([HARM.replace(" ", "_")] * 8)}),
    "as the name of a field": answer_of({HARM.replace(" ", "_"): 1}),
    "as an address": answer_of({"text": f"https://x.example/{HARM.replace(' ', '_')}"}),
    "as an address that nobody fetches": answer_of({"text": f"s3://x.example/{HARM.replace(' ', '_')}"}),
    "in JSON, twice": answer_of({"text": f'{{"a": "{HARM}", "a": "calm"}}'}),
    "as numbers": answer_of({"text": list(HARM.encode())}),
    "letter by letter after 300 others": answer_of({"text": [" "] * 300 + list(HARM.replace(" ", "_"))}),
    "in a page": answer_of(f"<p>{HARM}</p>", "text/html"),
    "in JSON that calls itself text": answer_of({"text": HARM}, "text/plain"),
    "in a text file": answer_of({"url": "data:text/plain;base64," + base64.b64encode(HARM.encode()).decode()}),
    "between a picture's bytes": answer_of(
        {"url": "data:image/png;base64," + base64.b64encode(PNG + b"tEXtworkflow\0" + HARM.encode() + PNG).decode()}
    ),
}


@pytest.mark.threat("ML01:2023", "AML.T0054")
@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("policy", [WORDS_ALONE, POLICY], ids=["words alone", "words and pictures"])
async def test_words_are_judged_whatever_road_they_take(
    world: GuardWorld, tmp_path: pathlib.Path, road: str, policy: str
) -> None:
    """Also by a policy that looks at no media."""
    assert (await ruled_on(world, tmp_path, policy, ROADS[road]))[0] is Action.BLOCK


@pytest.mark.parametrize("policy", [WORDS_ALONE, POLICY], ids=["words alone", "words and pictures"])
async def test_words_in_a_stored_file_are_judged(world: GuardWorld, tmp_path: pathlib.Path, policy: str) -> None:
    """A text file of the model, and one too large to be read whole, are not let go unread."""
    media = MemoryMedia(SystemClock())
    for said in (HARM.encode(), b"calm words " * 200_000):
        saved = await media.save(
            said,
            tenant_id=subject().tenant_id,
            file_name="a.txt",
            content_type="text/plain",
            request_id=subject().request_id,
            attempt=1,
            lifetime_seconds=None,
            state="quarantine",
        )
        assert (await ruled_on(world, tmp_path, policy, answer_of({"url": saved.url}), media))[0] is Action.BLOCK


@pytest.mark.threat("ML01:2023", "AML.T0054")
@pytest.mark.parametrize(
    "answer",
    [
        answer_of(f'<img src="data:image/png;base64,{PACKED}">', "text/html"),
        answer_of(f"a picture: {PACKED}", "text/plain"),
        answer_of({"b64_json": base64.encodebytes(PNG).decode()}),
        answer_of({"text": f"![a](data:;base64,{PACKED})"}),
        answer_of({"image": list(PNG)}),
        answer_of({"image": {"url": f"data:image/png;base64,{PACKED}"}}, "text/plain"),
    ],
    ids=["in a page", "in a text", "in lines", "without a type", "as numbers", "in JSON that calls itself text"],
)
async def test_a_picture_is_looked_at_wherever_it_stands(
    world: GuardWorld, tmp_path: pathlib.Path, answer: Answer
) -> None:
    """Once each."""
    assert await ruled_on(world, tmp_path, PICTURES_ALONE, answer) == (Action.ALLOW, 1)


async def test_an_address_of_ours_on_another_host_becomes_ours(world: GuardWorld, tmp_path: pathlib.Path) -> None:
    """What was looked at is our file: the other host may give out something else under the same path."""
    ports = ports_of(world, tmp_path, Viewer(_calmly))
    saved = await ports.media.save(
        PNG,
        tenant_id=subject().tenant_id,
        file_name="a.png",
        content_type="image/png",
        request_id=None,
        attempt=None,
        lifetime_seconds=None,
        state="released",
    )
    answer = answer_of({"image": f"https://elsewhere.example/files/{saved.media_id}/a.png"})
    ruled = await OutputJudge(ports).judge(subject(), answer)
    assert (ruled.released, json.loads(ruled.body)) == (True, {"image": saved.url})


@pytest.mark.threat("ML01:2023", "AML.T0054")
async def test_words_that_come_in_pieces_are_judged_whole(world: GuardWorld, tmp_path: pathlib.Path) -> None:
    """In events of a stream, and in frames that come in, letter by letter."""
    world.store.put("strict", WORDS_ALONE)
    world.detectors.score = minds
    await world.policies.refresh()
    ports = ports_of(world, tmp_path, Viewer(_calmly))
    outputs, inputs, reader = OutputJudge(ports), InputJudge(ports), Reader({}, fetches=False)
    ways = SaidBefore(), SaidBefore()
    actions: list[tuple[Action, Action | None]] = []
    for letter in HARM:
        ruled = await outputs.judge_value(subject(), {"delta": letter}, letter.encode(), {}, ways[0])
        judgement = await inputs.judge_frame(subject(), {"delta": letter}, letter.encode(), reader, ways[1])
        actions.append((ruled.judgement.action, None if judgement is None else judgement.action))
    assert actions[HARM.index(" in full") - 1] == (Action.BLOCK, Action.BLOCK)
    assert Action.BLOCK not in dict(actions[:10])


@pytest.mark.parametrize(
    "frame", [{"a": HARM.encode()}, msgspec.msgpack.Ext(5, HARM.encode()), b"\xc1" + HARM.encode()]
)
async def test_words_in_bytes_of_a_frame_are_judged(world: GuardWorld, tmp_path: pathlib.Path, frame: object) -> None:
    """In bytes, in an extension of MessagePack, and in a frame that is none."""
    world.store.put("strict", WORDS_ALONE)
    world.detectors.score = minds
    await world.policies.refresh()
    ports = ports_of(world, tmp_path, Viewer(_calmly))
    judgement = await InputJudge(ports).judge_frame(subject(), frame, b"", Reader({}, fetches=True), SaidBefore())
    assert judgement is not None
    assert judgement.action is Action.BLOCK


async def test_a_text_file_that_was_brought_for_the_model_is_read(world: GuardWorld, tmp_path: pathlib.Path) -> None:
    """The gateway judged its address alone."""
    world.store.put("strict", WORDS_ALONE)
    world.detectors.score = minds
    await world.policies.refresh()
    uri = "data:application/octet-stream;base64," + base64.b64encode(HARM.encode()).decode()
    judge = InputJudge(ports_of(world, tmp_path, Viewer(_calmly)))
    body = json.dumps({"script": [{"url": uri}]}).encode()
    for kind, action in (("file", Action.BLOCK), ("weights", None)):
        judgement = await judge.judge_call(subject(), body, "", Reader({"script": kind}, fetches=False), 0.0)
        assert (None if judgement is None else judgement.action) is action


@pytest.mark.parametrize(
    ("own", "concepts"),
    [(None, [False, True]), ([False, False], [False, True]), ([True, True], [True, True]), ([], [False, True])],
)
async def test_pictures_that_the_guard_flagged_are_named_as_the_models_of_fal_name_them(
    world: GuardWorld, tmp_path: pathlib.Path, own: list[bool] | None, concepts: list[bool]
) -> None:
    """One word a picture; what the model says itself is kept where it says more."""
    world.detectors.score = lambda content: 0.5 if content.where.startswith("images[1]") else 0.0
    pictures = [{"url": URI}, {"url": f"data:image/png;base64,{base64.b64encode(b'another').decode()}"}]
    answer = answer_of({"images": pictures} if own is None else {"images": pictures, "has_nsfw_concepts": own})
    ruled = await OutputJudge(ports_of(world, tmp_path, Viewer(_calmly))).judge(subject(), answer)
    assert ruled.judgement.action is Action.FLAG
    assert json.loads(ruled.body) == {"images": pictures, "has_nsfw_concepts": concepts}
    assert f"sha256:{hashlib.sha256(ruled.body).hexdigest()}" in world.verdicts.records[-1].judged
