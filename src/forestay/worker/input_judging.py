"""Judges the media of an input before the model is called, on every lane; nothing that is not let go reaches a model.

`input_media` says where media stands in the body that the model would get, `opening` looks at it, the guard judges, and
here is decided what follows: an input that is blocked, or that a person would have to look at, is a refusal with
category and field; one that nobody can judge now is judged again for a while on the queue, and told to come back on the
direct lane. The text of a call was judged by the gateway; of a frame of a session text and media are judged here.
Called by `attempt` and `direct_judging`.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence

from forestay.fleet.spec import EndpointSpec, ModelSpec
from forestay.ids import KeyId
from forestay.queue.model import Answer, Lease, State
from forestay.safety.decide import Judgement, Place
from forestay.safety.guard import Item, Subject
from forestay.safety.policy import Action
from forestay.safety.records import Point
from forestay.safety.refusal import refusal
from forestay.safety.taxonomy import Modality
from forestay.safety.text.fields import texts_of
from forestay.verdicts import Verdict
from forestay.worker.conclude import Publish
from forestay.worker.input_media import Found, Reader, files_of, media_of, media_of_body
from forestay.worker.opening import MEDIA, JudgingPorts, Opening, Work, items_of
from forestay.worker.patience import Patience
from forestay.worker.said_before import SaidBefore
from forestay.worker.stopped import StoppedContent

RETRY_SECONDS = 5
TRIES = 2  # to judge by a policy that does not change meanwhile
_CHANGED = Judgement(
    Verdict.INCONCLUSIVE, Action.REVIEW, None, "", "the policy changed while the input was looked at", again=True
)


class InputJudge:
    """Judges inputs of one worker."""

    def __init__(self, ports: JudgingPorts) -> None:
        self._ports = ports
        self._opening = Opening(ports)

    async def judge_call(
        self, subject: Subject, body: bytes, query: str, reader: Reader, risk: float
    ) -> Judgement | None:
        """Judge the media of a call's body as the model would get it; None when there is none to judge."""
        judgement: Judgement | None = None
        for _ in range(TRIES):  # once more where the policy changes meanwhile
            work = self._work(subject, body, risk)
            if Modality.TEXT in work.wanted:
                work.items += texts_of_files(body, reader)
            found = media_of_body(body, query, reader) if work.wanted & MEDIA else Found()
            judgement = await self._judge(work, found)
            if judgement is not _CHANGED:
                break
        return judgement

    async def judge_frame(
        self, subject: Subject, value: object, raw: bytes, reader: Reader, before: SaidBefore
    ) -> Judgement | None:
        """Judge text and media of a frame that comes in: parsed, or as it came where it could not be.

        `before` is what the frames before it said.
        """
        judgement: Judgement | None = None
        for _ in range(TRIES):
            work = self._work(subject, raw, 1.0)
            work.items += texts_to_judge(value) if Modality.TEXT in work.wanted else []
            said = work.texts()
            work.items += items_of(before.together(said))
            found = media_of(value, reader) if work.wanted & MEDIA else Found()
            judgement = await self._judge(work, found)
            if judgement is None or judgement.releases:
                before.note(said)
            if judgement is not _CHANGED:
                break
        return judgement

    def _wanted(self, subject: Subject) -> frozenset[Modality]:
        return self._ports.guard.modalities(subject.policy_id, subject.tenant_id, subject.request_id)

    def _work(self, subject: Subject, body: bytes, risk: float) -> Work:
        wanted = self._wanted(subject)
        return Work(subject, wanted, None, risk, adopts=False, digests=[_digest(body)])

    async def _judge(self, work: Work, found: Found) -> Judgement | None:
        for where in found.unread:
            work.unreadable(where)
        await self._opening.take(work, found.files)
        if self._wanted(work.subject) - work.wanted:  # what the policy wants looked at by now was not looked at
            return _CHANGED
        if not work.items:
            return None
        return await self._ports.guard.judge(work.subject, work.items, work.digests)


class QueueInputs:
    """The check of the inputs of queued requests."""

    def __init__(self, judge: InputJudge, patience: Patience, stopped: StoppedContent | None = None) -> None:
        self._judge = judge
        self._patience = patience
        self._stopped = stopped

    async def check(self, lease: Lease, spec: ModelSpec, endpoint: EndpointSpec, body: bytes) -> Publish | None:
        """Return None when the model may be called with this body, or how the request ends instead."""
        if _digest(lease.body) in lease.options.waived:  # people let go the media of this very input, on appeal
            return None
        subject = Subject(
            request_id=lease.request_id,
            attempt=lease.attempt,
            point=Point.INPUT_MEDIA,
            tenant_id=lease.tenant_id,
            key_id=KeyId(""),
            model_id=lease.model_id,
            revision_id=lease.revision_id,
            policy_id=spec.safety.policy,
        )
        reader = Reader.of(spec.host, endpoint)

        async def once() -> Judgement | None:
            return await self._judge.judge_call(subject, body, "", reader, lease.options.risk)

        judgement = await self._patience.ask(once, lambda said: said is not None and said.again)
        if judgement is None or judgement.releases:
            return None
        if self._stopped is not None:
            await self._stopped.tell_input(lease, spec, judgement)
        return Publish(State.BLOCKED, refusal(judgement, "body"))


def _digest(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def direct_answer(judgement: Judgement | None) -> Answer | None:
    """Return what somebody who waits is told of an input that does not go on, None when it does.

    What nobody can judge now says nothing about the content: 503 with a time, as for text.
    """
    if judgement is None or judgement.releases:
        return None
    if not judgement.again:
        return refusal(judgement, "body")
    detail = "The content of this request cannot be judged now; try again"
    headers = {"content-type": "application/json", "retry-after": str(RETRY_SECONDS)}
    return Answer(503, headers, json.dumps({"detail": detail}).encode(), detail, "content_not_judged")


def texts_of_files(body: bytes, reader: Reader) -> Sequence[Item]:
    """Return what the files say that a worker brought for the model: the gateway saw their addresses alone."""
    return [
        dataclasses.replace(item, place=Place(where, Modality.TEXT))
        for where, uri in files_of(body, reader)
        for item in texts_to_judge(uri)
    ]


def texts_to_judge(value: object) -> Sequence[Item]:
    """Return every text of a value as something to judge; what is too much to look at is a place without a look."""
    found = texts_of(value)
    items = [Item(Place(text.where, Modality.TEXT), (text,)) for text in found.texts]
    return [*items, *(Item(Place(place.where, Modality.TEXT), ()) for place in found.unread)]
