"""Judges the lines that model code prints before their caller can read them.

What the guard does not let go is kept for people of the platform and marked, so that no caller is told it; what nobody
could judge in time is marked too. Bounded: of one attempt only so much is judged, and the rest is marked. It decides no
content; `safety/decide` does, by the rules of `safety/lines`. Called by the worker's log book.
"""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Protocol

from forestay.ids import KeyId, RequestId
from forestay.queue.model import LINE_WITHHELD, LogLine
from forestay.safety.decide import Judgement
from forestay.safety.guard import Finding, Subject
from forestay.safety.lines import Piece, end_of, pieces_of
from forestay.safety.model import Text
from forestay.safety.policy import Action
from forestay.safety.records import Point
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import WORKER_LOG_LINES, Metrics
from forestay.worker.replica import Replica, Running

log = logger("worker")
MAX_JUDGED_CHARS = 2_000_000  # of one attempt
PIECES_AT_ONCE = 16
Key = tuple[RequestId, int]


class LineGuard(Protocol):
    """What this asks of the guard."""

    def lines(self, subject: Subject) -> str:
        """Return what becomes of a request's lines: pass, judge or withhold."""
        ...

    async def judge_lines(self, subject: Subject, pieces: Sequence[Text], known: Collection[Finding] = ()) -> Judgement:
        """Judge lines that were put together; what is known already is not recorded again."""
        ...


@dataclasses.dataclass(slots=True)
class _Seen:
    """What was judged of an attempt so far."""

    chars: int = 0
    before: str = ""  # the end of what was told
    known: set[Finding] = dataclasses.field(default_factory=set[Finding])  # recorded: once is enough for an attempt


class LineJudge:
    """Judges the lines of one worker."""

    def __init__(self, guard: LineGuard, metrics: Metrics) -> None:
        self._guard = guard
        self._metrics = metrics
        self._seen: dict[Key, _Seen] = {}

    def holds(self, subject: Subject) -> bool:
        """Tell whether lines of this request are for anything but to be told."""
        return self._guard.lines(subject) != "pass"

    async def judged(self, subject: Subject, lines: Sequence[LogLine]) -> list[LogLine]:
        """Return the lines of one attempt, in their order, those marked that no caller may read."""
        mode = self._guard.lines(subject)
        if mode == "pass":
            return list(lines)
        if mode == "withhold":
            return self._marked(lines)
        seen = self._seen.setdefault((subject.request_id, subject.attempt), _Seen())
        made: list[LogLine] = []
        pieces = pieces_of([line.message for line in lines], seen.before)
        for start in range(0, len(pieces), PIECES_AT_ONCE):
            made += await self._told(subject, lines, pieces[start : start + PIECES_AT_ONCE], seen)
        return made

    def forget(self, key: Key) -> None:
        """Forget what was judged of an attempt that has ended."""
        self._seen.pop(key, None)

    async def _told(
        self, subject: Subject, lines: Sequence[LogLine], pieces: Sequence[Piece], seen: _Seen
    ) -> list[LogLine]:
        own = lines[pieces[0].first : pieces[-1].last]
        seen.chars += sum(len(line.message) for line in own)
        if seen.chars > MAX_JUDGED_CHARS:
            return self._marked(own)
        texts = [Text(f"logs[{number}]", piece.text) for number, piece in enumerate(pieces)]
        try:
            judgement = await self._guard.judge_lines(subject, texts, seen.known)
        except Exception:  # whatever breaks there must neither end the worker nor tell a line
            log.exception("lines.not_judged", request=str(subject.request_id))
            return self._marked(own)
        seen.known.add((judgement.action, judgement.category))
        stopped = _stopped(judgement, texts)
        made: list[LogLine] = []
        for text, piece in zip(texts, pieces, strict=True):
            part = lines[piece.first : piece.last]
            # Of what was not told nothing can go on in the next line.
            seen.before = "" if text.where in stopped else end_of([line.message for line in part])
            made += self._marked(part) if text.where in stopped else part
        return made

    def _marked(self, lines: Sequence[LogLine]) -> list[LogLine]:
        self._metrics.add(WORKER_LOG_LINES, "withheld", amount=len(lines))
        return [dataclasses.replace(line, source=LINE_WITHHELD) for line in lines]


def subject_of_lines(replica: Replica, running: Running) -> Subject:
    """Return whose lines these are."""
    revision = replica.revision
    return Subject(
        request_id=running.request_id,
        attempt=running.attempt,
        point=Point.LINES,
        tenant_id=running.tenant_id,
        key_id=KeyId(""),
        model_id=revision.model_id,
        revision_id=revision.revision_id,
        policy_id=revision.spec.safety.policy,
    )


def _stopped(judgement: Judgement, texts: Sequence[Text]) -> frozenset[str]:
    """Return which texts may not be told: those that led to it, and all where nobody can say which."""
    if judgement.releases:
        return frozenset()
    named = judgement.places_of(Action.BLOCK) | judgement.places_of(Action.REVIEW)
    return named or frozenset(text.where for text in texts)
