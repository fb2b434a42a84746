"""A worker whose model gives broken files with status 200: none of them is a success, on either lane."""

import asyncio
import base64
import dataclasses
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import IO, cast

import aiohttp
import pytest
import pytest_asyncio
from tests.quality import making
from tests.worker.harness import Harness, running_worker, spec_of
from tests.worker.test_conclude import lease_of

from forestay.fleet.spec import ModelSpec
from forestay.fleet.spec_quality import QualityMode, QualitySpec, ScorerUse
from forestay.ids import ReplicaId
from forestay.media.decode import Decoder
from forestay.media.limits import Looking
from forestay.quality.scorers.frozen import write_frozen
from forestay.quality.scorers.model import Described, Given, Measure, scorer_of
from forestay.queue.model import Options, Outcome, State
from forestay.telemetry.output_facts import OutputFact
from forestay.worker.looks import Looks
from forestay.worker.output_quality import OutputQuality, QualityPorts

pytestmark = pytest.mark.asyncio(loop_scope="module")
ENFORCED = QualitySpec(QualityMode.ENFORCE)
GOOD = making.packed(making.scene())
BLACK = making.packed(making.flat((0, 0, 0)))

APP = """
import base64, os
import fal
from fal.toolkit import File
from pydantic import BaseModel

class In(BaseModel):
    files: list[str] = []
    kind: str = "image/png"
    filtered: bool = False
    num_images: int = 1
    image_url: str = ""

class Out(BaseModel):
    images: list[File] = []
    has_nsfw_concepts: list[bool] = []
    text: str = ""

class Media(fal.App, name="media"):
    machine_type = "XS"

    def setup(self):
        self.ill = False
        if os.path.isdir("seen"):
            try:
                os.mkdir("seen/first")
                self.ill = True
            except FileExistsError:
                pass

    @fal.endpoint("/")
    def run(self, input: In) -> Out:
        black = os.environ.get("BLACK", "")
        names = [black] if self.ill else input.files
        made = [
            File.from_bytes(base64.b64decode(name), content_type=input.kind, file_name="a." + input.kind[-3:])
            for name in names
        ]
        return Out(images=made, has_nsfw_concepts=[input.filtered] * len(made) if input.filtered else [])
"""


def spec(policy: str = "unguarded", quality: QualitySpec = ENFORCED, **fields: object) -> ModelSpec:
    """The spec of a model whose outputs are checked."""
    return dataclasses.replace(spec_of(app="app.py::Media", policy=policy, **fields), quality=quality)  # type: ignore[arg-type]


class Sink:
    """Facts that were written, and a word when the score of a prompt of six letters is among them."""

    def __init__(self) -> None:
        self.facts: list[OutputFact] = []
        self.scored = asyncio.Event()

    async def write(self, batch: Sequence[OutputFact]) -> None:
        """Keep them."""
        self.facts += batch
        if any(scorer_of(fact.kind) and fact.features == [6.0] for fact in batch):
            self.scored.set()


SINK = Sink()
JUDGED = dataclasses.replace(ENFORCED, scorers=(ScorerUse("size@1", share=1.0),))
JUDGE = """
class Size:
    name, version, modality = "size", 1, "image"
    scores = {"words": {"low": 0, "high": 1e6}}

    def score(self, items):
        return [{"words": len(item.prompt)} for item in items]
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def loaded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Harness, str]]:
    """A worker with one replica of an unguarded model whose outputs are checked, and a scorer."""
    folder = tmp_path_factory.mktemp("scorers")
    folder.chmod(0o755)
    (folder / "frozen").mkdir()
    (folder / "scorer.py").write_text(JUDGE)
    (folder / "scorers.yaml").write_text('scorers: [{id: size@1, folder: ".", program: "scorer.py::Size"}]')
    (folder / "frozen" / "a.png").write_bytes(GOOD)
    (folder / "frozen" / "frozen.json").write_text('{"items": [{"file": "a.png", "prompt": "four"}]}')
    write_frozen(folder, Described("size@1", "image", (Measure("words", 0, 1e6),)), [Given((4.0,))])
    async with running_worker(outputs=SINK, scorers_file=str(folder / "scorers.yaml")) as harness:
        revision = await harness.deploy(spec(quality=JUDGED), {"app.py": APP})
        yield harness, (await harness.ready(revision))[0].replica_id


def body(*files: bytes, kind: str = "image/png", **fields: object) -> dict[str, object]:
    """An input that has the model give these files."""
    return {"files": [base64.b64encode(data).decode() for data in files], "kind": kind, **fields}


async def direct(loaded: tuple[Harness, str], asked: object) -> tuple[int, dict[str, object]]:
    """Call as a gateway does."""
    harness, replica_id = loaded
    path = f"/direct/{replica_id}/"
    async with (
        aiohttp.ClientSession() as session,
        session.post(harness.address + path, json=asked, headers=harness.proof("POST", path)) as got,
    ):
        return got.status, await got.json(content_type=None)


BROKEN = {
    "black": body(BLACK),
    "frozen": body(making.film([making.scene()] * 24), kind="video/mp4"),
    "silent": body(making.wav(0 * making.tone()), kind="audio/wav"),
    "decodes": body(GOOD[: len(GOOD) // 2]),
    "count": body(GOOD, GOOD, num_images=3),
    "format": body(making.wav(making.tone()), kind="image/png"),
}


@pytest.mark.parametrize("check", BROKEN)
async def test_a_broken_output_is_no_success_on_either_lane(loaded: tuple[Harness, str], check: str) -> None:
    """502 with the name of the check; the queue has tried it once more, and its file was released to nobody."""
    harness, _ = loaded
    before = set(harness.media.items)
    stored = await harness.run(BROKEN[check])
    assert (stored.snapshot.state, stored.snapshot.error_type) == (State.FAILED, "output_check_failed")
    assert f"`{check}`" in (stored.snapshot.error or "")
    assert [fact[2] for fact in harness.queue.attempt_facts].count(Outcome.BROKEN_OUTPUT) >= 2
    status, said = await direct(loaded, BROKEN[check])
    assert (status, said["error_type"]) == (502, "output_check_failed")
    made = set(harness.media.items) - before
    assert {harness.media.items[name].state for name in made} == {"quarantine"}


@pytest.mark.parametrize(
    "asked",
    [
        body(GOOD),
        body(GOOD, GOOD, num_images=2),
        body(making.wav(making.tone()), kind="audio/wav"),
        body(BLACK, filtered=True),
        body(b"twelve bytes", kind="text/plain"),
    ],
    ids=["picture", "two pictures", "sound", "filtered", "no media"],
)
async def test_a_whole_output_is_released_on_both_lanes(loaded: tuple[Harness, str], asked: dict[str, object]) -> None:
    """Also one that the model's own filter blanked, and a file that is no media."""
    harness, _ = loaded
    assert (await harness.run(asked)).snapshot.state is State.SUCCEEDED
    status, said = await direct(loaded, asked)
    urls = [image["url"] for image in said["images"]]  # type: ignore[attr-defined,union-attr]
    assert status == 200
    assert {harness.media.items[url.split("/")[2]].state for url in urls} == {"released"}


async def test_a_whole_output_is_scored_beside_its_request(loaded: tuple[Harness, str]) -> None:
    """By a scorer in a process of its own, which is told the prompt; the score is a fact."""
    harness, replica_id = loaded
    assert (await harness.run(body(GOOD, prompt="a wish"))).snapshot.state is State.SUCCEEDED
    async with asyncio.timeout(20):
        await SINK.scored.wait()
    (scored,) = [fact for fact in SINK.facts if scorer_of(fact.kind) and fact.features == [6.0]]
    assert (scored.kind, scored.replica_id, scored.failed) == ("score:size@1:words+", replica_id, "")


async def test_a_caller_that_forbids_retries_gets_the_first_failure(loaded: tuple[Harness, str]) -> None:
    """One attempt, and the check's name."""
    harness, _ = loaded
    stored = await harness.result(await harness.submit(body(BLACK), options=Options(no_retry=True)))
    assert (stored.snapshot.state, stored.snapshot.attempt) == (State.FAILED, 1)
    assert stored.answer.headers["x-forestay-output-check"] == "black"


async def test_a_request_that_one_replica_breaks_succeeds_on_another() -> None:
    """One of two replicas draws black; every request succeeds, and those that met the ill one took another attempt."""
    with tempfile.TemporaryDirectory(prefix="fq-") as name:
        os.chmod(name, 0o777)  # noqa: PTH101, S103 - the model is another user
        async with running_worker() as harness:
            made = spec(data_mounts=(f"{name}:seen",), env={"BLACK": base64.b64encode(BLACK).decode()})
            revision = await harness.deploy(made, {"app.py": APP}, replicas=2)
            await harness.ready(revision, 2)
            submitted = [await harness.submit(body(GOOD)) for _ in range(4)]  # so many take both replicas
            stored = [await harness.result(request_id) for request_id in submitted]
            outcomes = [fact[2] for fact in harness.queue.attempt_facts]
    assert {item.snapshot.state for item in stored} == {State.SUCCEEDED}
    assert Outcome.BROKEN_OUTPUT in outcomes


class CountingDecoder(Decoder):
    """Counts the children that are started."""

    opened = 0

    async def look(
        self, source: IO[bytes], pipe: int, looking: Looking, read: Callable[[], Awaitable[bool]]
    ) -> bytes | None:
        """Open a file."""
        self.opened += 1
        return await super().look(source, pipe, looking, read)


async def test_a_file_is_opened_once_for_the_contract_and_the_guard() -> None:
    """The guard is given the looks that were taken with the numbers; another file is opened anew."""
    decoder = CountingDecoder()
    looks = Looks(decoder)
    with tempfile.TemporaryFile() as file, tempfile.TemporaryFile() as other:
        for target, data in ((file, GOOD), (other, BLACK)):
            target.write(data)
            target.flush()
        measured = await looks.measure(cast("IO[bytes]", file), "images[0]", 0.2)
        [item] = await looks.look(cast("IO[bytes]", file), "images[0]", 0.2)
        assert (decoder.opened, measured.kind, len(item.looks)) == (1, "image", 1)
        await looks.measure(cast("IO[bytes]", file), "images[0]", 0.2)
        await looks.look(cast("IO[bytes]", other), "images[1]", 0.2)
        assert decoder.opened == 3
    await decoder.close()


async def test_a_replica_steps_aside_for_what_it_broke_and_not_for_ever() -> None:
    """Another worker's replica has time to take it; should there be none, this one runs it after all."""
    quality = OutputQuality(cast("QualityPorts", None))
    lease = lease_of()
    assert quality.aside(lease) is None
    quality.broke(lease)
    steps = [quality.aside(lease) for _ in range(5)]
    assert [step is not None for step in steps] == [True] * 3 + [False] * 2
    assert quality.aside(dataclasses.replace(lease, replica_id=ReplicaId("another"))) is None
