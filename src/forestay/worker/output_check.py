"""Whether the output of a queued request may be published: the guard's seam in the worker.

It decides nothing: it asks `judging` and says what the queue does with the answer: publish it as it was judged, end the
request BLOCKED, or keep it WITHHELD until a person or a waiver lets it go. Called by `attempt` before every finish.
"""

import dataclasses

from forestay.fleet.spec import ModelSpec
from forestay.ids import KeyId
from forestay.queue.model import Answer, Lease, State
from forestay.safety.guard import Subject
from forestay.safety.policy import Action
from forestay.safety.records import Point
from forestay.safety.refusal import refusal, wordless
from forestay.worker.conclude import Publish
from forestay.worker.judging import OutputJudge, Ruled, echoes
from forestay.worker.patience import Patience
from forestay.worker.stopped import StoppedContent


class SafetyCheck:
    """The check of content."""

    def __init__(self, judge: OutputJudge, patience: Patience, stopped: StoppedContent | None = None) -> None:
        self._judge = judge
        self._patience = patience
        self._stopped = stopped

    def concerns(self, lease: Lease, spec: ModelSpec) -> bool:
        """Tell whether the policy of the model or of the caller names any check."""
        return self._judge.guards(spec.safety.policy, lease.tenant_id, lease.request_id)

    async def judge(self, lease: Lease, spec: ModelSpec, answer: Answer) -> Publish | None:
        """Return what is published instead of the answer as it came."""

        async def once() -> Ruled:
            return await self._once(lease, spec, answer)

        ruled = await self._patience.ask(once, lambda said: said.judgement.again)
        if ruled.released:
            let_go = Answer(answer.status_code, ruled.headers(answer.headers), ruled.body)
            return Publish(State.SUCCEEDED, let_go, ruled.work)
        judged = Answer(answer.status_code, answer.headers, ruled.body)
        if self._stopped is not None:
            await self._stopped.tell(lease, spec, judged, ruled.media_ids, ruled.judgement)
        if ruled.judgement.action is Action.BLOCK:
            return Publish(State.BLOCKED, refusal(ruled.judgement, "output"))
        return Publish(State.WITHHELD, judged)

    async def error(self, lease: Lease, spec: ModelSpec, answer: Answer) -> Answer:
        """Return a model's error as it may leave: its words are an output like any other."""
        ruled = await self._once(lease, spec, answer)
        return dataclasses.replace(answer, body=ruled.body) if ruled.released else wordless(answer)

    async def moved(self, lease: Lease, spec: ModelSpec, answer: Answer) -> Publish | None:
        """Record how an answer reads now that its files lie in the caller's bucket; what cannot be is withheld."""
        judgement = await self._judge.moved(subject_of(lease, spec), answer.body)
        return None if judgement.releases else Publish(State.WITHHELD, answer)

    async def _once(self, lease: Lease, spec: ModelSpec, answer: Answer) -> Ruled:
        return await self._judge.judge(
            subject_of(lease, spec),
            answer,
            said=echoes(lease.body),
            lifetime_seconds=lease.options.object_lifetime_seconds,
            prompt_score=lease.options.risk,
        )


def subject_of(lease: Lease, spec: ModelSpec) -> Subject:
    """Return whose output it is."""
    return Subject(
        request_id=lease.request_id,
        attempt=lease.attempt,
        point=Point.OUTPUT,
        tenant_id=lease.tenant_id,
        key_id=KeyId(""),
        model_id=lease.model_id,
        revision_id=lease.revision_id,
        policy_id=spec.safety.policy,
    )
