"""Scores outputs beside the path of requests: draws a sample, asks scorers, notes what they say.

It decides nothing about outputs. `offer` never waits: it draws, and puts the output where its scorer finds it; there is
a limit, and the oldest make room. Each scorer has a lane: one process, one batch after the other, a pause after each
failure. The frozen set comes first: a scorer whose files or whose scores of it have changed gives none that count, and
with every batch goes one frozen output, without whose known score the batch counts for nothing. What a scorer fails by
is told of the scorer and never of a model. Prompts are held in memory alone, until their output is scored. Run by the
worker's process, filled by `output_quality`.
"""

import asyncio
import dataclasses
import io
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from forestay.clock import Clock
from forestay.errors import ForestayError
from forestay.fleet.spec_quality import ScorerUse
from forestay.ids import ModelId, RequestId, TenantId, WorkerId
from forestay.media.store import MediaStore
from forestay.quality.findings import Finding, Source, Where
from forestay.quality.noting import Noted, prompt_of
from forestay.quality.scorers.decide import (
    Allowance,
    decide_take,
    differs,
    draw_of,
    pause_seconds,
    spent,
)
from forestay.quality.scorers.file import ScorerEntry
from forestay.quality.scorers.frozen import FrozenFault, digest_of, read_frozen
from forestay.quality.scorers.model import (
    Described,
    Failed,
    FrozenSet,
    Given,
    Item,
    Score,
    Trouble,
)
from forestay.safety.leaves import Leaf
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import SCORER_FAILURES, SCORER_SECONDS, SCORES, Metrics
from forestay.worker.answer_files import bring
from forestay.worker.output_notes import Made, OutputNotes

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

MAX_WAITING = 64  # outputs of one scorer
MAX_WAITING_BYTES = 32 * 1024 * 1024  # of files inside answers; those in the store are brought when their turn comes
TOLD_AGAIN_SECONDS = 600.0  # while it rests, so that its alert stands
MAX_UNKNOWN = 100  # scorers that specs ask for and nobody named
PLACES = 10_000  # of one answer; scores are noted at places above those of files
log = logger("worker")


@dataclasses.dataclass(frozen=True, slots=True)
class Scored:
    """Outputs of one answer that may be scored, and what is noted with their scores."""

    ids: tuple[RequestId, TenantId]
    where: Where
    made: Made
    said: object  # the caller's input, as a value
    uses: Sequence[ScorerUse]
    files: Sequence[tuple[Leaf, Noted]]


@dataclasses.dataclass(frozen=True, slots=True)
class _Offer:
    of: Scored
    leaf: Leaf
    noted: Noted
    prompt: str
    place: int  # in facts

    @property
    def size_bytes(self) -> int:
        return len(self.leaf.data) + len(self.leaf.text)


class Running(Protocol):
    """One life of a scorer; `scorer_process` runs it."""

    @property
    def described(self) -> Described | None:
        """Return what it says of itself, once it is started."""
        ...

    async def start(self) -> Described | Failed:
        """Start it and hear what it is."""
        ...

    async def score(self, items: Sequence[Item]) -> Sequence[Score] | Failed:
        """Return the scores of outputs, in order; after Failed it is of no use any more."""
        ...

    async def stop(self) -> None:
        """End it."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class ScoringPorts:
    """What scoring may use of the world."""

    media: MediaStore
    notes: OutputNotes
    found: Callable[[Sequence[Finding]], None]  # takes findings; never waits
    clock: Clock
    metrics: Metrics
    worker_id: WorkerId
    key: bytes  # of the draws
    process: Callable[[ScorerEntry], Running]  # a new one, not started


class Scoring:
    """The scorers of one worker."""

    def __init__(self, entries: Sequence[ScorerEntry], ports: ScoringPorts) -> None:
        self._ports = ports
        self._lanes: Mapping[str, Lane] = {entry.scorer_id: Lane(entry, ports) for entry in entries}
        self._unknown: set[str] = set()

    def offer(self, scored: Scored) -> None:
        """Take the outputs of an answer that are drawn; never waits."""
        if not scored.uses:
            return
        prompt = prompt_of(scored.said)
        for number, use in enumerate(scored.uses, start=1):
            lane = self._lanes.get(use.scorer_id)
            if lane is None:
                self._tell_unknown(use.scorer_id)
                continue
            for leaf, noted in scored.files:
                lane.offer(use, _Offer(scored, leaf, noted, prompt, noted.place + number * PLACES))

    def _tell_unknown(self, scorer_id: str) -> None:
        """Say once that models ask for a scorer that nobody named here."""
        self._ports.metrics.add(SCORES, scorer_id, "unknown")
        if scorer_id in self._unknown or len(self._unknown) >= MAX_UNKNOWN:
            return
        self._unknown.add(scorer_id)
        words = f"specs ask for scorer {scorer_id}, and no file names it (FORESTAY_QUALITY_SCORERS)"
        log.warning("scorer.unknown", scorer=scorer_id)
        self._ports.found([_told_of_scorer(self._ports, scorer_id, words, {})])

    async def run(self) -> None:
        """Score for ever."""
        async with asyncio.TaskGroup() as group:
            for lane in self._lanes.values():
                group.create_task(lane.run())


class Lane:
    """One scorer: what waits for it, its process, its standing."""

    def __init__(self, entry: ScorerEntry, ports: ScoringPorts) -> None:
        self._entry = entry
        self._ports = ports
        self._waiting: deque[_Offer] = deque()
        self._some = asyncio.Event()
        self._allowances: dict[ModelId, Allowance] = {}
        self._process: Running | None = None
        self._frozen: FrozenSet | None = None
        self._turn = 0
        self._failures = 0
        self._resting = False

    def offer(self, use: ScorerUse, offer: _Offer) -> None:
        """Draw an output, and have it wait where it is drawn."""
        model_id, request_id = offer.of.where.model_id, str(offer.of.ids[0])
        draw = draw_of(request_id, offer.noted.place, use.scorer_id, self._ports.key)
        now = self._ports.clock.monotonic()
        choice = decide_take(use, self._allowances.get(model_id), draw, now)
        self._allowances[model_id] = choice.allowance
        if not choice.taken:
            if choice.reason == "over budget":
                self._count("over_budget")
            return
        if self._resting:  # nobody's words are held for as long as that
            self._count("resting")
            return
        self._waiting.append(offer)
        while len(self._waiting) > MAX_WAITING or sum(item.size_bytes for item in self._waiting) > MAX_WAITING_BYTES:
            self._waiting.popleft()
            self._count("dropped")
        self._some.set()

    async def run(self) -> None:
        """Score what waits, for ever."""
        try:
            while True:
                await self._some.wait()
                offers = [self._waiting.popleft() for _ in range(min(self._entry.batch, len(self._waiting)))]
                if not self._waiting:
                    self._some.clear()
                failed = await self._score(offers) if offers else None
                if failed is None:
                    continue
                await self._end()
                self._failures += 1
                pause = pause_seconds(failed, self._failures)
                self._note_failure(failed, pause)
                await self._rest(failed, pause)
        finally:
            await self._end()

    async def _rest(self, failed: Failed, pause: float) -> None:
        """Let go of what waits, and take nothing until the pause is over; meanwhile it is told again and again."""
        for _ in self._waiting:
            self._count("resting")
        self._waiting.clear()
        self._some.clear()
        self._resting = True
        clock, scorer_id = self._ports.clock, self._entry.scorer_id
        what = (
            f"scorer {scorer_id} gives no scores on worker {self._ports.worker_id} ({failed.trouble}): {failed.words}"
        )
        evidence = {"failures": float(self._failures), "pause_seconds": pause}
        until = clock.monotonic() + pause
        while (left := until - clock.monotonic()) > 0:
            self._ports.found([_told_of_scorer(self._ports, scorer_id, what, evidence)])
            await clock.sleep(min(left, TOLD_AGAIN_SECONDS))
        self._resting = False

    async def _score(self, offers: Sequence[_Offer]) -> Failed | None:
        """Score a batch and note what it gave; returns why it gave nothing."""
        try:
            return await self._scored(offers)
        except OSError as error:  # a full disk is no end of the worker
            return Failed(Trouble.CRASH, f"its files cannot be written: {type(error).__name__}")

    async def _scored(self, offers: Sequence[_Offer]) -> Failed | None:
        process = self._process or await self._started()
        if isinstance(process, Failed):
            return process
        brought = [(offer, item) for offer in offers if (item := await self._brought(process, offer)) is not None]
        if not brought or self._frozen is None or process.described is None:
            return None
        known = self._frozen.items[self._turn % len(self._frozen.items)]
        self._turn += 1
        began = self._ports.clock.monotonic()
        answer = await process.score([known.item, *(item for _, item in brought)])
        self._charge([offer for offer, _ in brought], self._ports.clock.monotonic() - began)
        if isinstance(answer, Failed):
            return answer
        first, *scores = answer
        words = differs(process.described, known, first, self._frozen.tolerance)
        if words:
            return Failed(Trouble.CHANGED, words)
        self._failures = 0
        for (offer, _), score in zip(brought, scores, strict=True):
            self._note(process.described, offer, score)
        return None

    async def _started(self) -> Running | Failed:
        """Start the scorer and hold it against its frozen set."""
        process = self._ports.process(self._entry)
        self._process = process
        described = await process.start()
        if isinstance(described, Failed):
            return described
        try:
            frozen = await asyncio.to_thread(read_frozen, self._entry.folder, described)
            digest = await asyncio.to_thread(digest_of, self._entry.folder)
        except (FrozenFault, OSError) as error:
            return Failed(Trouble.CHANGED, str(error))
        failed = await reproduced(process, described, frozen, digest, self._entry.batch)
        if failed is not None:
            return failed
        self._frozen = frozen
        log.info("scorer.started", scorer=self._entry.scorer_id, frozen=len(frozen.items), digest=digest[:16])
        return process

    async def _brought(self, process: Running, offer: _Offer) -> Item | None:
        """Return an output with its bytes; None where it is of another kind, too large, or gone."""
        if process.described is None or offer.noted.kind != process.described.modality:
            self._count("other_kind")
            return None
        file = _Bounded(self._entry.max_bytes)
        try:
            await bring(self._ports.media, offer.leaf, file)
        except (ForestayError, OSError, ValueError):
            self._count("too_large" if file.over else "gone")
            return None
        return Item(file.getvalue(), offer.prompt)

    def _charge(self, offers: Sequence[_Offer], seconds: float) -> None:
        self._ports.metrics.add(SCORER_SECONDS, self._entry.scorer_id, amount=seconds)
        for offer in offers:
            model_id = offer.of.where.model_id
            self._allowances[model_id] = spent(self._allowances[model_id], seconds / len(offers))

    def _note(self, described: Described, offer: _Offer, score: Score) -> None:
        if not isinstance(score, Given):
            self._count(score.why)
            return
        self._count("scored")
        noted = dataclasses.replace(
            offer.noted, place=offer.place, kind=described.kind, features=score.values, likeness=0, content=0
        )
        self._ports.notes.note(offer.of.ids, offer.of.where, offer.of.made, [noted])

    def _note_failure(self, failed: Failed, pause: float) -> None:
        scorer_id = self._entry.scorer_id
        self._ports.metrics.add(SCORER_FAILURES, scorer_id, failed.trouble.value)
        log.warning("scorer.failed", scorer=scorer_id, trouble=failed.trouble.value, reason=failed.words,
                    failures=self._failures, pause_seconds=pause)  # fmt: skip

    async def _end(self) -> None:
        process, self._process, self._frozen = self._process, None, None
        if process is not None:
            await process.stop()

    def _count(self, outcome: str) -> None:
        self._ports.metrics.add(SCORES, self._entry.scorer_id, outcome)


def _told_of_scorer(ports: ScoringPorts, scorer_id: str, what: str, evidence: Mapping[str, float]) -> Finding:
    """Return what is told of a scorer on this worker, which names no model."""
    place = Where(ModelId(""), worker_id=ports.worker_id, parameter=f"scorer={scorer_id}")
    return Finding(what, 0, place, evidence, ports.clock.now(), Source.SCORER)


async def reproduced(
    process: Running, described: Described, frozen: FrozenSet, digest: str, batch: int
) -> Failed | None:
    """Hold a scorer against its frozen set: its files by their digest, then every score."""
    if digest != frozen.digest:
        return Failed(Trouble.CHANGED, "its files are not those that its frozen scores were made with")
    for start in range(0, len(frozen.items), batch):
        items = frozen.items[start : start + batch]
        scores = await process.score([item.item for item in items])
        if isinstance(scores, Failed):
            return scores
        for item, score in zip(items, scores, strict=True):
            words = differs(described, item, score, frozen.tolerance)
            if words:
                return Failed(Trouble.CHANGED, words)
    return None


class _Bounded(io.BytesIO):
    """A file in memory that takes so much and no more."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most
        self.over = False

    def write(self, data: "ReadableBuffer", /) -> int:
        """Write, or raise ValueError where that would be too much."""
        piece = memoryview(data)
        if self.tell() + piece.nbytes > self._most:
            self.over = True
            raise ValueError("the file is larger than the scorer takes")
        return super().write(piece)
