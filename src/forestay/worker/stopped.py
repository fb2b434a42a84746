"""Opens an item for people when the guard stops something in a worker: outputs and media of inputs, on every lane.

It decides what a caller's input would be in the queue, so that a granted appeal can run it: of a call that cannot be
there (a session, a stream, another method) nothing is kept, and its appeal is heard by the caller's words alone. What
is kept else says `safety/review/opening`, which never holds an answer up for long. The key that made a queued request
is read from the queue, since a lease does not name it; of a direct call the gateway tells it. Called by `output_check`,
`input_judging` and `direct_judging`.
"""

import dataclasses

from forestay.errors import Unavailable
from forestay.fleet.spec import ModelSpec
from forestay.ids import KeyId, ModelId, RequestId, TenantId
from forestay.queue.model import Answer, Lease, Options
from forestay.queue.store import QueueStore
from forestay.safety.decide import Judgement
from forestay.safety.guard import Guard
from forestay.safety.policy import Action
from forestay.safety.records import Point
from forestay.safety.review.kept import KeptInput, KeptOutput
from forestay.safety.review.opening import Opener, Stopped
from forestay.worker.replica import Replica, Running


@dataclasses.dataclass(frozen=True, slots=True)
class _Call:
    """Whose content was stopped."""

    request_id: RequestId
    attempt: int
    tenant_id: TenantId
    key_id: KeyId
    model_id: ModelId
    endpoint: str
    policy_id: str


class StoppedContent:
    """Tells people of what one worker stopped."""

    def __init__(self, opener: Opener, queue: QueueStore, guard: Guard) -> None:
        self._opener = opener
        self._queue = queue
        self._guard = guard

    async def tell(
        self, lease: Lease, spec: ModelSpec, answer: Answer, media_ids: tuple[str, ...], judgement: Judgement
    ) -> None:
        """Open an item for an output of a queued request; `answer` is the model's, as it was judged."""
        stopped = self._stopped(await self._leased(lease, spec), judgement)
        kept = _kept(answer, media_ids, lease.options, lease.revision_id)
        await self._opener.output_stopped(stopped, kept, blocked=judgement.action is Action.BLOCK)

    async def tell_input(self, lease: Lease, spec: ModelSpec, judgement: Judgement) -> None:
        """Open an item for the media of a queued request's input."""
        stopped = self._stopped(await self._leased(lease, spec), judgement)
        kept = KeptInput(lease.body, lease.options, lease.predicted_seconds)
        await self._opener.input_refused(stopped, kept, Point.INPUT_MEDIA)

    async def direct_output(
        self, replica: Replica, running: Running, answer: Answer, media_ids: tuple[str, ...], judgement: Judgement
    ) -> None:
        """Open an item for an answer, an event or a frame that somebody waited for: it was refused, not withheld."""
        kept = _kept(answer, media_ids, running.options, replica.revision.revision_id)
        await self._opener.output_stopped(self._stopped(_direct(replica, running), judgement), kept, blocked=True)

    async def direct_input(
        self, replica: Replica, running: Running, point: Point, body: bytes | None, judgement: Judgement
    ) -> None:
        """Open an item for what came in; `body` is the caller's, None for what cannot be submitted again."""
        kept = None if body is None else KeptInput(body, running.options, running.predicted_seconds)
        await self._opener.input_refused(self._stopped(_direct(replica, running), judgement), kept, point)

    def _stopped(self, call: _Call, judgement: Judgement) -> Stopped:
        return Stopped(
            request_id=call.request_id,
            attempt=call.attempt,
            tenant_id=call.tenant_id,
            key_id=call.key_id,
            model_id=call.model_id,
            endpoint=call.endpoint,
            policy_id=call.policy_id,
            policy=self._guard.policy_of(call.policy_id, call.tenant_id, call.request_id),
            judgement=judgement,
        )

    async def _leased(self, lease: Lease, spec: ModelSpec) -> _Call:
        return _Call(
            request_id=lease.request_id,
            attempt=lease.attempt,
            tenant_id=lease.tenant_id,
            key_id=await self._key_of(lease),
            model_id=lease.model_id,
            endpoint=lease.endpoint,
            policy_id=spec.safety.policy,
        )

    async def _key_of(self, lease: Lease) -> KeyId:
        try:
            found = (await self._queue.snapshots([lease.request_id])).get(lease.request_id)
        except Unavailable:
            return KeyId("")  # only an ADMIN key of the tenant can appeal it then
        return KeyId("") if found is None else found.key_id


def _kept(answer: Answer, media_ids: tuple[str, ...], options: Options, revision_id: str) -> KeptOutput:
    return KeptOutput(answer.status_code, dict(answer.headers), answer.body, list(media_ids), options, revision_id)


def _direct(replica: Replica, running: Running) -> _Call:
    return _Call(
        request_id=running.request_id,
        attempt=running.attempt,
        tenant_id=running.tenant_id,
        key_id=running.key_id,
        model_id=replica.revision.model_id,
        endpoint=running.endpoint,
        policy_id=replica.revision.spec.safety.policy,
    )
