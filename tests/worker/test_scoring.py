"""What a worker does with scorers: it never waits, notes only what a watched judge says, and blames no model."""

import asyncio
import dataclasses
import pathlib
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import cast

import pytest
from tests.conformance.memory_fleet import ManualClock

from forestay.fleet.spec_quality import ScorerUse
from forestay.ids import ModelId, ReplicaId, RequestId, RevisionId, TenantId, WorkerId
from forestay.media.store import MediaStore
from forestay.quality.findings import Finding, Source, Where
from forestay.quality.noting import Noted
from forestay.quality.scorers.file import ScorerEntry
from forestay.quality.scorers.frozen import write_frozen
from forestay.quality.scorers.model import Described, Failed, Given, Item, Measure, Score, Trouble
from forestay.safety.leaves import Leaf, LeafKind
from forestay.telemetry.metrics import SCORER_FAILURES, SCORES, Metrics
from forestay.telemetry.output_facts import OutputFact
from forestay.worker.output_notes import Made, OutputNotes
from forestay.worker.scoring import MAX_WAITING, Scored, Scoring, ScoringPorts

JUDGE = Described("judge@1", "image", (Measure("size", 0, 1_000),))
ALL = ScorerUse("judge@1", share=1.0, budget_seconds_per_hour=3_600.0)
SECRET = "a wish that nobody else may read"
Answer = Callable[[Sequence[Item]], Sequence[Score] | Failed]


def sizes(items: Sequence[Item]) -> list[Score]:
    """Score outputs by their size: nine for the frozen one."""
    return [Given((float(len(item.data)),)) for item in items]


class FakeScorer:
    """A scorer in this process that answers as a test says."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.described: Described | None = None

    async def start(self) -> Described | Failed:
        """Say what it is."""
        self._world.starts += 1
        self.described = JUDGE
        return JUDGE

    async def score(self, items: Sequence[Item]) -> Sequence[Score] | Failed:
        """Answer, and take a second for it."""
        self._world.asked.append([item.prompt for item in items])
        self._world.clock.advance(1.0)
        return self._world.answer(items)

    async def stop(self) -> None:
        """End."""
        self._world.stops += 1


class Sink:
    """Facts that were written."""

    def __init__(self) -> None:
        self.facts: list[OutputFact] = []

    async def write(self, batch: Sequence[OutputFact]) -> None:
        """Keep them."""
        self.facts += batch


@dataclasses.dataclass
class World:
    """A worker's scoring, with everything around it in memory."""

    folder: pathlib.Path
    answer: Answer = sizes
    clock: ManualClock = dataclasses.field(default_factory=ManualClock)
    metrics: Metrics = dataclasses.field(default_factory=Metrics)
    findings: list[Finding] = dataclasses.field(default_factory=list)
    asked: list[list[str]] = dataclasses.field(default_factory=list)
    starts: int = 0
    stops: int = 0

    def __post_init__(self) -> None:
        (self.folder / "frozen").mkdir()
        (self.folder / "frozen" / "a.png").write_bytes(b"nine byte")
        (self.folder / "frozen" / "frozen.json").write_text('{"items": [{"file": "a.png"}]}')
        write_frozen(self.folder, JUDGE, [Given((9.0,))])
        self.sink = Sink()
        self.notes = OutputNotes(self.sink, self.clock, self.metrics)
        entry = ScorerEntry("judge@1", self.folder, "scorer.py::Judge", batch=2, max_bytes=100)
        self.scoring = Scoring([entry], ScoringPorts(
            media=cast("MediaStore", None), notes=self.notes, found=self.findings.extend, clock=self.clock,
            metrics=self.metrics, worker_id=WorkerId("w1"), key=b"key", process=lambda _: FakeScorer(self),
        ))  # fmt: skip

    def offer(self, number: int, data: bytes = b"picture", kind: str = "image", use: ScorerUse = ALL) -> None:
        """Offer one output."""
        where = Where(ModelId("acme/cat"), RevisionId("r1"), WorkerId("w1"), ReplicaId("a"), "gpu-a")
        noted = Noted(0, kind, "64x64", 3, "", (1.0, 2.0), 77, 88, 99, 11)
        ids = (RequestId(uuid.UUID(int=number)), TenantId("acme"))
        leaf = Leaf((), LeafKind.BYTES, data=data)
        self.scoring.offer(Scored(ids, where, Made(1, "/"), {"prompt": SECRET}, [use], [(leaf, noted)]))

    async def facts(self) -> list[OutputFact]:
        """What was noted so far."""
        await self.notes.flush()
        return self.sink.facts

    def count(self, outcome: str) -> float:
        """How many outputs ended so."""
        return self.metrics.value(SCORES, "judge@1", outcome)


@asynccontextmanager
async def running(world: World) -> AsyncIterator[World]:
    """Score while the block runs."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(world.scoring.run())
        yield world
        task.cancel()


async def until(true: Callable[[], object]) -> None:
    """Let others go on until something holds."""
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - threads report without an event
            await asyncio.sleep(0.001)


@pytest.fixture
def world(tmp_path: pathlib.Path) -> World:
    """A worker with one judge."""
    return World(tmp_path)


async def test_scores_are_noted_as_facts_of_their_own_stream(world: World) -> None:
    """With the output's place, prompt cluster and parameters, and nothing that content can be told by."""
    async with running(world):
        world.offer(1, b"12345")
        world.offer(2, b"1234567")
        await until(lambda: world.count("scored") == 2)
    facts = await world.facts()
    assert [(fact.kind, fact.features) for fact in facts] == [(JUDGE.kind, [5.0]), (JUDGE.kind, [7.0])]
    assert {(fact.replica_id, fact.parameters, fact.cluster, fact.prompt) for fact in facts} == {("a", "64x64", 3, 99)}
    assert {(fact.content, fact.likeness, fact.failed) for fact in facts} == {(0, 0, "")}
    assert len({fact.place for fact in facts} - {0}) == 1
    assert SECRET not in repr(facts)


@pytest.mark.threat("ML10:2023", "AML.T0010")
async def test_a_frozen_output_goes_with_every_batch(world: World) -> None:
    """Where it is scored otherwise, the whole batch counts for nothing, and the scorer rests for an hour."""
    async with running(world):
        world.offer(1)
        await until(lambda: world.count("scored") == 1)
        assert len(await world.facts()) == 1
        world.answer = lambda items: [Given((score.values[0] + 3.0,)) for score in cast("list[Given]", sizes(items))]
        world.offer(2)
        await until(lambda: world.findings)
        world.answer = sizes
        world.clock.advance(1_000)
        await until(lambda: len(world.findings) == 2)  # told again, so that its alert stands
        world.clock.advance(2_500)
        world.offer(3)
        assert world.count("resting") == 1
        assert world.starts == 1
        world.clock.advance(101)
        await asyncio.sleep(0)
        world.offer(4)
        await until(lambda: world.count("scored") == 2)
    assert [prompts[0] for prompts in world.asked] == [""] * len(world.asked)
    assert len(await world.facts()) == 2
    assert world.metrics.value(SCORER_FAILURES, "judge@1", "changed") == 1


@pytest.mark.threat("ML10:2023", "AML.T0010")
async def test_a_changed_file_of_the_judge_is_seen_before_it_scores(world: World) -> None:
    """Its digest is not the one that its frozen scores were made with."""
    (world.folder / "weights.npz").write_bytes(b"other weights")
    async with running(world):
        world.offer(1)
        await until(lambda: world.findings)
    assert world.asked == []
    assert await world.facts() == []
    assert "its files are not those" in world.findings[0].what


@pytest.mark.parametrize("trouble", [Trouble.CRASH, Trouble.HANG, Trouble.GARBAGE, Trouble.MEMORY])
async def test_a_scorer_that_fails_is_told_as_such_and_blames_no_model(world: World, trouble: Trouble) -> None:
    """The finding names scorer and worker, no model, no revision and no prompt; it goes on after its rest."""
    async with running(world):
        world.answer = lambda items: Failed(trouble, "it failed") if len(world.asked) > 1 else sizes(items)
        world.offer(1)
        await until(lambda: world.findings)
        world.answer = sizes
        world.offer(2)
        world.clock.advance(2.0)
        await asyncio.sleep(0)
        world.offer(3)
        await until(lambda: world.count("scored") == 1)
    (finding,) = world.findings
    assert finding.source is Source.SCORER
    assert (finding.where.model_id, finding.where.revision_id, finding.where.worker_id) == ("", "", "w1")
    assert finding.catalogue == 0
    assert SECRET not in repr(finding)
    assert (world.starts, len(await world.facts())) == (2, 1)


async def test_a_full_disk_is_trouble_of_the_scorer_and_no_end_of_the_worker(world: World) -> None:
    """It rests like after a crash, and scores again."""

    def full(items: Sequence[Item]) -> Sequence[Score]:
        if len(world.asked) > 1:
            raise OSError(28, SECRET)
        return sizes(items)

    async with running(world):
        world.answer = full
        world.offer(1)
        await until(lambda: world.findings)
        world.answer = sizes
        world.clock.advance(2.0)
        await asyncio.sleep(0)
        world.offer(2)
        await until(lambda: world.count("scored") == 1)
    assert SECRET not in repr(world.findings)


async def test_nothing_waits_for_a_scorer_and_the_oldest_make_room(world: World) -> None:
    """Offers beyond the limit drop the oldest, and are counted; offering never blocks."""
    for number in range(MAX_WAITING + 5):
        world.offer(number)
    assert world.count("dropped") == 5


async def test_an_output_that_a_scorer_cannot_take_is_left_out_and_counted(world: World) -> None:
    """Too large, of another kind, of a scorer that nobody named, or beyond the budget."""
    async with running(world):
        world.offer(1, b"x" * 101)
        world.offer(2, kind="video")
        await until(lambda: world.count("too_large") == 1 and world.count("other_kind") == 1)
        world.offer(3, use=dataclasses.replace(ALL, scorer_id="nobody@1"))
        world.offer(4, use=dataclasses.replace(ALL, budget_seconds_per_hour=0.0))
        world.offer(5, use=dataclasses.replace(ALL, scorer_id="nobody@1"))
    assert world.metrics.value(SCORES, "nobody@1", "unknown") == 2
    assert ["no file names it" in finding.what for finding in world.findings] == [True]
    assert world.count("over_budget") == 1
    assert await world.facts() == []
