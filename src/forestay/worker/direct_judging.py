"""Judges what the direct lane takes in and gives out: media of calls, whole answers, events of streams, frames.

It decides where one piece ends (an event of a stream at its empty line, a frame at its end) and what is said in the
place of a piece that is not let go; the guard decides which. What cannot be parsed is withheld unless the policy lets
streams pass. A direct call cannot be withheld for a person, since somebody is waiting: it is refused. Called by
`direct`.
"""

import dataclasses
import json
import re
from collections.abc import AsyncIterator, Mapping
from typing import cast

import msgspec

from forestay.fleet.spec import ModelSpec
from forestay.handshake import FILES_HEADER
from forestay.ids import KeyId, RequestId, TenantId
from forestay.media.urls import stored_ids
from forestay.quality.decide import broken_answer
from forestay.quality.findings import Where
from forestay.queue.model import Answer
from forestay.safety.decide import Judgement
from forestay.safety.guard import Subject
from forestay.safety.leaves import parsed
from forestay.safety.records import Point
from forestay.safety.refusal import refusal, wordless
from forestay.telemetry.measures import SIGNED, UNSIGNED
from forestay.telemetry.metrics import PIECES_WITHHELD, Metrics
from forestay.worker.attempt import endpoint_of
from forestay.worker.bucket_outputs import FAILED_DEPENDENCY, BucketOutputs
from forestay.worker.events import data_of, lines_of, whole_events
from forestay.worker.input_judging import InputJudge, direct_answer
from forestay.worker.input_media import Reader
from forestay.worker.judging import OutputJudge, Ruled, echoes
from forestay.worker.output_notes import Made
from forestay.worker.output_quality import Output, OutputQuality
from forestay.worker.replica import Replica, Running
from forestay.worker.said_before import SaidBefore
from forestay.worker.stopped import StoppedContent

POLICY_CLOSE = 1008
_UNPARSED = object()
_JSON, _PACKED = {"content-type": "application/json"}, {"content-type": "application/msgpack"}
_TOKEN = re.compile(rb"[\w.:-]{1,64}")  # the name or the id of an event


@dataclasses.dataclass(frozen=True, slots=True)
class Called:
    """What a model was called with, and what the probes in its pipeline say."""

    said: bytes
    path: str = ""
    probe: str | None = None


class DirectJudging:
    """Judges for one worker's direct lane."""

    def __init__(
        self,
        judge: OutputJudge,
        inputs: InputJudge,
        quality: OutputQuality,
        outputs: BucketOutputs,
        metrics: Metrics,
        stopped: StoppedContent | None = None,
    ) -> None:
        self._judge = judge
        self._quality = quality
        self._inputs = inputs
        self._outputs = outputs
        self._metrics = metrics
        self._stopped = stopped

    def guards(self, spec: ModelSpec, tenant_id: TenantId, request_id: RequestId) -> bool:
        """Tell whether the policy of the model or of the caller judges anything, or the model's outputs are checked."""
        return self._judge.guards(spec.safety.policy, tenant_id, request_id) or spec.quality.looks

    def judges(self, replica: Replica, running: Running) -> bool:
        """Tell whether the guard has anything to judge of this request."""
        return self._judge.guards(replica.revision.spec.safety.policy, running.tenant_id, running.request_id)

    def passes(self, replica: Replica, running: Running, path: str, content_type: str) -> bool:
        """Tell whether an answer goes on piece by piece although its model's outputs are checked: a stream of bytes."""
        if self.judges(replica, running) or "json" in content_type:
            return False
        return endpoint_of(replica.revision.spec, path.partition("?")[0]).kind == "stream"

    async def call(
        self, replica: Replica, running: Running, path: str, body: bytes, sent: bytes | None
    ) -> Answer | None:
        """Return None when the model may be called with this body, or what its caller is told.

        `sent` is the body as its caller sent it, None for a call that could not be submitted to the queue.
        """
        endpoint, _, query = path.partition("?")
        spec = replica.revision.spec
        if not self.judges(replica, running):
            return None
        named = endpoint_of(spec, endpoint)
        subject = _subject(replica, running, Point.INPUT_MEDIA)
        reader = Reader.of(spec.host, named)
        judgement = await self._inputs.judge_call(subject, body, query, reader, running.risk)
        whole = named.kind != "stream" and not endpoint.rstrip("/").endswith("/stream")
        await self._tell_input(replica, running, Point.INPUT_MEDIA, sent if whole else None, judgement)
        return direct_answer(judgement)

    async def whole(self, replica: Replica, running: Running, answer: Answer, called: Called) -> Answer:
        """Return the answer as it may leave: as judged, in the caller's own bucket, or a refusal."""
        subject = _subject(replica, running, Point.OUTPUT)
        revision, said = replica.revision, called.said
        where = Where(revision.model_id, revision.revision_id, replica.worker_id, replica.replica_id, replica.device)
        made = Made(running.attempt, called.path.partition("?")[0])
        ids, risk = (running.request_id, running.tenant_id), running.risk
        output = Output(*ids, revision.spec, answer, said, risk, where, called.probe, made)
        if answer.status_code < 400 and (row := await self._quality.broken_by(output)) is not None:
            return broken_answer(row)
        if not self.judges(replica, running):
            return await self._let_go_unjudged(running, answer)
        ruled = await self._judge.judge(
            subject,
            answer,
            said=echoes(said),
            lifetime_seconds=running.object_lifetime_seconds,
            prompt_score=running.risk,
        )
        if not ruled.released:
            if answer.status_code >= 400:
                return wordless(answer)
            await self._tell(replica, running, answer, ruled)
            return refusal(ruled.judgement, "output")
        headers = {**ruled.headers(answer.headers), **_files(ruled)}
        return await self._let_go(subject, running, Answer(answer.status_code, headers, ruled.body), ruled)

    async def events(self, replica: Replica, running: Running, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Pass on the events of a stream one by one; the first that is not let go ends it with an event `error`."""
        subject, before = _subject(replica, running, Point.PIECE), SaidBefore()
        mode = self._mode(subject)
        async for event in whole_events(pieces):
            if mode == "pass":
                await self._judge.release(stored_ids(event), running.request_id)
                yield event
                continue
            data, beside = data_of(event), _names_of(event)
            if data is None:  # a comment, or a name alone: it keeps the line open, what it says stays here
                yield b":\n\n"
                continue
            value = _json(data)
            if mode == "withhold" or value is _UNPARSED:
                self._metrics.add(PIECES_WITHHELD, str(replica.revision.model_id))
                continue
            ruled = await self._judge.judge_value(subject, value, data, beside, before)
            if not ruled.released:
                await self._tell(replica, running, Answer(200, dict(_JSON), data), ruled)
                yield b"event: error\ndata: " + refusal(ruled.judgement, "output").body + b"\n\n"
                return
            let_go = await self._let_go(subject, running, Answer(200, {}, data), ruled)
            if let_go.status_code != 200:
                yield b"event: error\ndata: " + let_go.body + b"\n\n"
                return
            yield _written(let_go.body, beside)

    async def frame_in(
        self, replica: Replica, running: Running, path: str, frame: str | bytes, before: SaidBefore
    ) -> Answer | None:
        """Judge a frame that a caller sends, after what those before it said; None: it may go on."""
        subject = _subject(replica, running, Point.INPUT)
        if self._mode(subject) == "pass":
            return None
        value = _json(frame.encode()) if isinstance(frame, str) else _packed(frame)
        spec = replica.revision.spec
        reader = Reader.of(spec.host, endpoint_of(spec, path.partition("?")[0]))
        raw = frame.encode() if isinstance(frame, str) else frame
        judgement = await self._inputs.judge_frame(subject, frame if value is _UNPARSED else value, raw, reader, before)
        await self._tell_input(replica, running, Point.INPUT, None, judgement)
        return None if judgement is None or judgement.releases else refusal(judgement, "body")

    async def frame_out(
        self, replica: Replica, running: Running, frame: str | bytes, before: SaidBefore
    ) -> Answer | None:
        """Judge a frame that a model sends; None: it may go on. An Answer without body: it is withheld silently."""
        subject = _subject(replica, running, Point.PIECE)
        mode = self._mode(subject)
        raw = frame.encode() if isinstance(frame, str) else frame
        if mode == "pass":
            await self._judge.release(stored_ids(raw), running.request_id)
            return None
        value = _json(frame.encode()) if isinstance(frame, str) else _packed(frame)
        if mode == "withhold" or value is _UNPARSED:
            self._metrics.add(PIECES_WITHHELD, str(replica.revision.model_id))
            return Answer(204, {}, b"")
        ruled = await self._judge.judge_value(subject, value, raw, {}, before)
        if ruled.released:
            await self._judge.release(ruled.media_ids, running.request_id)
            return None
        await self._tell(replica, running, Answer(200, dict(_JSON if isinstance(frame, str) else _PACKED), raw), ruled)
        return refusal(ruled.judgement, "output")

    async def _tell(self, replica: Replica, running: Running, answer: Answer, ruled: Ruled) -> None:
        """Open an item for what is not let go out."""
        if self._stopped is not None:
            judged = Answer(answer.status_code, answer.headers, ruled.body)
            await self._stopped.direct_output(replica, running, judged, ruled.media_ids, ruled.judgement)

    async def _tell_input(
        self, replica: Replica, running: Running, point: Point, sent: bytes | None, judgement: Judgement | None
    ) -> None:
        """Open an item for what is not let go in; what nobody can judge now says nothing about the content."""
        if self._stopped is None or judgement is None or judgement.releases or judgement.again:
            return
        await self._stopped.direct_input(replica, running, point, sent, judgement)

    def _mode(self, subject: Subject) -> str:
        """Return what becomes of pieces and frames; without a policy that judges, they pass with their files."""
        guarded = self._judge.guards(subject.policy_id, subject.tenant_id, subject.request_id)
        return self._judge.streams(subject) if guarded else "pass"

    async def _let_go_unjudged(self, running: Running, answer: Answer) -> Answer:
        """Let an answer go that no policy judges, and its files with it."""
        media_ids = stored_ids(answer.body)
        if running.upload_policy is not None and media_ids and answer.status_code < 400:
            return await self._outputs.deliver(running.upload_policy, answer, (running.request_id,))
        await self._judge.release(media_ids, running.request_id)
        return answer

    async def _let_go(self, subject: Subject, running: Running, answer: Answer, ruled: Ruled) -> Answer:
        if running.upload_policy is not None and ruled.media_ids:
            moved = await self._outputs.deliver(running.upload_policy, answer, (running.request_id,))
            if moved.status_code == FAILED_DEPENDENCY:
                return moved
            judgement = await self._judge.moved(subject, moved.body)
            if not judgement.releases:
                return refusal(judgement, "output")
            return Answer(200, answer.headers, moved.body)
        await self._judge.release(ruled.media_ids, running.request_id)
        return answer


def _files(ruled: Ruled) -> dict[str, str]:
    """Return the header that tells the gateway, which writes the call's fact, which files bear a manifest."""
    if not ruled.work:
        return {}
    return {FILES_HEADER: f"{ruled.work[SIGNED]:.0f} {ruled.work[UNSIGNED]:.0f}"}


def session_error(answer: Answer) -> str:
    """Return the text frame that tells fal's clients why a session ends."""
    reason = answer.error or "refused by the content policy"
    return json.dumps({"type": "x-fal-error", "error": "CONTENT_POLICY_VIOLATION", "reason": reason})


def _names_of(event: bytes) -> Mapping[str, str]:
    """Return an event's name and id where they are such; comments and unknown lines are for no reader (WHATWG)."""
    return {
        name.decode(): value.decode()
        for name, value in lines_of(event)
        if name in {b"event", b"id", b"retry"} and _TOKEN.fullmatch(value)
    }


def _written(data: bytes, beside: Mapping[str, str]) -> bytes:
    """Write an event anew, from what was judged of it and nothing else."""
    lines = [f"{name}: {value}\n".encode() for name, value in beside.items()]
    return b"".join([*lines, *(b"data: " + line + b"\n" for line in data.split(b"\n")), b"\n"])


def _json(data: bytes) -> object:
    try:
        return parsed(data)
    except ValueError:
        return _UNPARSED


def _packed(data: bytes) -> object:
    """Read a binary frame as fal's clients write it: MessagePack."""
    try:
        return cast("object", msgspec.msgpack.decode(data))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return _UNPARSED


def _subject(replica: Replica, running: Running, point: Point) -> Subject:
    revision = replica.revision
    return Subject(
        request_id=running.request_id,
        attempt=running.attempt,
        point=point,
        tenant_id=running.tenant_id,
        key_id=KeyId(""),
        model_id=revision.model_id,
        revision_id=revision.revision_id,
        policy_id=revision.spec.safety.policy,
    )
