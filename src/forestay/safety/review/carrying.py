"""Carries out what people decided, once, however often it is tried.

It decides what an outcome means (`decide_carry`, pure): a refused input that was appealed and released becomes a linked
request; a withheld output is published or blocked as it was ruled; a blocked output that was appealed and released is
published as a linked request, because what has ended stays as it ended. Each release has its verdict record first. The
linked request's id was chosen with the decision, and its submit has one key, so that a crash anywhere in here makes it
once. Called by the gateway after a vote, and by the loop for whatever a crash has left.
"""

import dataclasses
import hashlib
import uuid
from collections.abc import Sequence
from typing import Protocol, assert_never

from forestay.chance import Chance
from forestay.clock import Clock
from forestay.errors import Refused, Unavailable
from forestay.ids import RequestId, RevisionId
from forestay.media.store import MediaStore
from forestay.media.urls import stored_ids
from forestay.queue.model import Answer, Options, State, Submission
from forestay.queue.store import Accepted, QueueStore
from forestay.safety.decide import Judgement
from forestay.safety.policy import Action as PolicyAction
from forestay.safety.records import Point, VerdictRecord, VerdictSink
from forestay.safety.refusal import refusal
from forestay.safety.review.kept import KeptInput, KeptOutput, unpacked
from forestay.safety.review.model import INPUTS, Decided, Item, NewItem, Outcome
from forestay.safety.review.postgres_store import PostgresReviews
from forestay.safety.review.sealed import Reader, SealedStore
from forestay.storage.valkey import Wakeups
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import REVIEW_CARRIED, Metrics
from forestay.verdicts import Verdict

POLICY_ID = "person"  # what verdict records of people name as their policy
# No caller's Idempotency-Key begins so: theirs are printable.
_OUR_KEYS = "\x01review/"
_LOG = logger("safety.review")


@dataclasses.dataclass(frozen=True, slots=True)
class SubmitLinked:
    """Submit the refused input once more, under a waiver of its judgement."""

    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class PublishLinked:
    """Publish the blocked output as the answer of a linked request."""

    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Resolve:
    """Publish or block the withheld output."""

    release: bool
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Nothing:
    """Nothing is to be done."""

    reason: str


Action = SubmitLinked | PublishLinked | Resolve | Nothing


def decide_carry(item: Item, state: State | None) -> Action:
    """Say what carrying out a decision takes; `state` is the request's now, None when it is not kept any more."""
    if item.decided is None or item.decided.outcome is Outcome.LAPSED:
        return Nothing("nobody has decided it")
    released = item.decided.outcome is Outcome.RELEASED
    # A withheld output waits for this very word.
    if item.opened.point is Point.OUTPUT and state is State.WITHHELD:
        return Resolve(released, item.decided.reason)
    if not released:
        return Nothing("it stays as it is")
    # Whoever did not appeal waits for nothing: the finding alone is kept.
    if item.appeal is None or item.linked_id is None:
        return Nothing("it was released, and nobody has appealed")
    reason = item.decided.reason
    return SubmitLinked(reason) if item.opened.point in INPUTS else PublishLinked(reason)


@dataclasses.dataclass(frozen=True, slots=True)
class LetGo:
    """An output that people let go."""

    opened: NewItem
    request_id: RequestId  # under which it is published
    attempt: int
    revision_id: RevisionId
    answer: Answer  # as it was judged
    options: Options


@dataclasses.dataclass(frozen=True, slots=True)
class Whole:
    """An output as it leaves."""

    answer: Answer
    digests: tuple[str, ...]  # of its body and of its files
    left: tuple[str, ...] = ()  # files that it names no more
    failed: bool = False  # the caller's own bucket did not take a file: the answer says so


class Finisher(Protocol):
    """Makes a released output whole; see `worker/releasing`."""

    async def whole(self, let_go: LetGo) -> Whole:
        """Return the answer with provenance, in the caller's bucket where that was asked for; Refused: a file is gone.

        May be asked again for the same output.
        """
        ...

    async def forget(self, media_ids: Sequence[str]) -> None:
        """Delete files; raises Unavailable."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class CarryPorts:
    """What carrying out may use of the world."""

    reviews: PostgresReviews
    sealed: SealedStore
    queue: QueueStore
    media: MediaStore
    verdicts: VerdictSink
    wakeups: Wakeups
    clock: Clock
    chance: Chance
    metrics: Metrics
    finisher: Finisher


class Carrier:
    """Carries out decisions."""

    def __init__(self, ports: CarryPorts) -> None:
        self._ports = ports

    async def carry(self, item: Item, actor: str = "loop:review") -> None:
        """Carry out a decided item; raises Unavailable when it must be tried again."""
        request_id = item.opened.request_id
        found = (await self._ports.queue.snapshots([request_id])).get(request_id)
        action = decide_carry(item, None if found is None else found.state)
        problem = ""
        try:
            await self._act(item, action, actor)
        except Refused as error:  # no further try can help: a person reads why
            problem = str(error)
            _LOG.error("review.not_carried", item_id=item.opened.item_id, reason=problem)
        await self._ports.reviews.done(item, problem)
        word = "failed" if problem else type(action).__name__
        self._ports.metrics.add(REVIEW_CARRIED, word)
        _LOG.info("review.carried", item_id=item.opened.item_id, action=word, reason=action.reason,
                  linked_id=str(item.linked_id or ""))  # fmt: skip

    async def _act(self, item: Item, action: Action, actor: str) -> None:
        match action:
            case SubmitLinked():
                await self._submit(item, actor)
            case PublishLinked():
                await self._publish(item, actor)
            case Resolve():
                await self._resolve(item, release=action.release)
            case Nothing():
                return
            case _:
                assert_never(action)

    async def _submit(self, item: Item, actor: str) -> None:
        """Submit the linked request; its outputs are judged like all others, its input as people said of it.

        Its text is judged no more. Its media is, unless it was the media that they let go.
        """
        kept = unpacked(await self._copy(item, actor), KeptInput)
        digest = f"sha256:{hashlib.sha256(kept.body).hexdigest()}"
        point = item.opened.point
        waived = (digest,) if point is Point.INPUT_MEDIA else ()
        submission = _linked(item, kept.body, dataclasses.replace(kept.options, risk=1.0, waived=waived))
        submission = dataclasses.replace(submission, predicted_seconds=kept.predicted_seconds)
        await self._record(item, submission.request_id, point, Verdict.ALLOW, (digest,))
        (outcome,) = await self._ports.queue.submit([submission], {})
        if not isinstance(outcome, Accepted) or outcome.request_id != submission.request_id:
            raise Refused(f"the queue answered {type(outcome).__name__} for linked request {submission.request_id}")
        await self._ports.wakeups.publish("forestay:queue", item.opened.model_id)

    async def _publish(self, item: Item, actor: str) -> None:
        """Publish the very output that was blocked; its files must still be there."""
        kept = unpacked(await self._copy(item, actor), KeptOutput)
        submission = _linked(item, b"", kept.options)
        if submission.request_id in await self._ports.queue.snapshots([submission.request_id]):
            return  # another try has published it
        gone = [name for name in kept.media_ids if await self._ports.media.find(name) is None]
        if gone:
            raise Refused(f"{len(gone)} of the output's {len(kept.media_ids)} files are gone: it cannot be released")
        answer = Answer(kept.status_code, kept.headers, kept.body)
        let_go = LetGo(
            item.opened, submission.request_id, item.opened.attempt, RevisionId(kept.revision_id), answer, kept.options
        )
        whole = await self._ports.finisher.whole(let_go)
        await self._record(item, submission.request_id, Point.OUTPUT, Verdict.ALLOW, whole.digests)
        named = [name for name in kept.media_ids if name not in whole.left]
        owners = (item.opened.request_id, submission.request_id)
        await self._ports.media.release([*named, *stored_ids(whole.answer.body)], owners)
        await self._ports.queue.publish(submission, whole.answer)
        await self._forget(whole)

    async def _copy(self, item: Item, actor: str) -> bytes:
        """Read the sealed copy, which is noted like every reading."""
        why = f"released on appeal: {_decided(item).reason}"
        reader = Reader(actor, "carried_out", why, item.opened.item_id)
        data = await self._ports.sealed.read(item.opened.sealed_id, reader)
        if data is None:
            raise Refused("its sealed copy is gone: nothing can be released")
        return data

    async def _resolve(self, item: Item, *, release: bool) -> None:
        """Publish or block a withheld output, on record before it takes effect."""
        opened = item.opened
        if release:
            await self._release(item)
        else:
            await self._record(item, opened.request_id, Point.OUTPUT, Verdict.BLOCK, ())
            judged = Judgement(Verdict.BLOCK, PolicyAction.BLOCK, opened.category, opened.place, _decided(item).reason)
            await self._ports.queue.withheld(opened.request_id, State.BLOCKED, refusal(judged, "output"))
        await self._ports.wakeups.publish("forestay:changed", opened.request_id.hex)

    async def _release(self, item: Item) -> None:
        """Publish a withheld output like any other: whole, and on record as it leaves."""
        request_id = item.opened.request_id
        held = await self._ports.queue.held_back(request_id)
        if held is None:  # it has ended since
            return
        let_go = LetGo(item.opened, request_id, held.attempt, held.revision_id, held.answer, held.options)
        whole = await self._ports.finisher.whole(let_go)
        await self._record(item, request_id, Point.OUTPUT, Verdict.ALLOW, whole.digests)
        state = State.FAILED if whole.failed else State.SUCCEEDED
        unchanged = not whole.failed and whole.answer.body == held.answer.body
        await self._ports.queue.withheld(request_id, state, None if unchanged else whole.answer)
        await self._forget(whole)

    async def _forget(self, whole: Whole) -> None:
        """Delete what the answer names no more; what is left is never released, and abandoned quarantine ends."""
        if whole.left:
            try:
                await self._ports.finisher.forget(whole.left)
            except Unavailable as error:
                _LOG.info("review.files_left", files=len(whole.left), reason=str(error))

    async def _record(
        self, item: Item, request_id: RequestId, point: Point, verdict: Verdict, judged: tuple[str, ...]
    ) -> None:
        """Write the record of what people said; the same decision has the same record."""
        opened, decided, chance = item.opened, _decided(item), self._ports.chance
        name = hashlib.sha256(f"{opened.item_id}\n{item.round}\n{request_id}".encode()).digest()
        words = f"{', '.join(decided.by)}: {decided.reason}"
        words = words if request_id == opened.request_id else f"appeal of {opened.request_id}: {words}"
        record = VerdictRecord(
            at=decided.at,
            verdict_id=uuid.UUID(bytes=name[:16]),
            request_id=request_id,
            attempt=0 if point in INPUTS else opened.attempt,
            point=point.value,
            tenant_id=opened.tenant_id,
            key_id=opened.key_id,
            model_id=opened.model_id,
            revision_id="",
            policy_id=POLICY_ID,
            policy_version=-1,
            policy_digest="",
            shadow=False,
            verdict=verdict.value,
            action=(PolicyAction.ALLOW if verdict is Verdict.ALLOW else PolicyAction.BLOCK).value,
            category=None,
            place="",
            reason=f"{words}; stopped before by {opened.policy_id}@{opened.policy_version}: {opened.reason}",
            checks=[],
            judged=list(judged),
            seconds=0.0,
            salt=chance.bits(128).to_bytes(16),
        )
        await self._ports.verdicts.write([record])


def _linked(item: Item, body: bytes, options: Options) -> Submission:
    """Return the linked request: its id and key were fixed by the decision, deadlines of the first one are over."""
    opened, linked_id = item.opened, item.linked_id
    if linked_id is None:
        raise Refused(f"{opened.item_id} names no linked request")
    return Submission(
        request_id=linked_id,
        tenant_id=opened.tenant_id,
        key_id=opened.key_id,
        model_id=opened.model_id,
        endpoint=opened.endpoint,
        body=body,
        submitted_at=_decided(item).at,
        options=dataclasses.replace(options, start_deadline=None, total_deadline=None),
        idempotency_key=f"{_OUR_KEYS}{opened.item_id}",
        fingerprint=hashlib.sha256(f"review\n{linked_id}".encode()).digest(),
    )


def _decided(item: Item) -> Decided:
    if item.decided is None:
        raise Refused(f"{item.opened.item_id} is not decided")
    return item.decided
