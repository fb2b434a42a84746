"""Opens an item for people when an output of a queued request is withheld or blocked, before it is finished so.

It decides nothing: `safety/review/opening` says what is kept, and never holds a finish up for long. The key that
asked is read from the queue, since a lease does not name it. Called by `output_check`.
"""

from forestay.errors import Unavailable
from forestay.fleet.spec import ModelSpec
from forestay.ids import KeyId
from forestay.queue.model import Answer, Lease
from forestay.queue.store import QueueStore
from forestay.safety.decide import Judgement
from forestay.safety.guard import Guard
from forestay.safety.policy import Action
from forestay.safety.review.kept import KeptOutput
from forestay.safety.review.opening import Opener, Stopped


class StoppedOutputs:
    """Tells people of stopped outputs of one worker."""

    def __init__(self, opener: Opener, queue: QueueStore, guard: Guard) -> None:
        self._opener = opener
        self._queue = queue
        self._guard = guard

    async def tell(
        self, lease: Lease, spec: ModelSpec, answer: Answer, media_ids: tuple[str, ...], judgement: Judgement
    ) -> None:
        """Open an item; `answer` is the model's, as it was judged."""
        policy_id = spec.safety.policy
        stopped = Stopped(
            request_id=lease.request_id,
            attempt=lease.attempt,
            tenant_id=lease.tenant_id,
            key_id=await self._key_of(lease),
            model_id=lease.model_id,
            endpoint=lease.endpoint,
            policy_id=policy_id,
            policy=self._guard.policy_of(policy_id, lease.tenant_id, lease.request_id),
            judgement=judgement,
        )
        kept = KeptOutput(answer.status_code, dict(answer.headers), answer.body, list(media_ids), lease.options)
        await self._opener.output_stopped(stopped, kept, blocked=judgement.action is Action.BLOCK)

    async def _key_of(self, lease: Lease) -> KeyId:
        try:
            found = (await self._queue.snapshots([lease.request_id])).get(lease.request_id)
        except Unavailable:
            return KeyId("")  # only an ADMIN key of the tenant can appeal it then
        return KeyId("") if found is None else found.key_id
