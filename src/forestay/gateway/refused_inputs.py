"""What is kept of an input that the guard refused, so that its caller may appeal.

It decides what could be submitted again: a POST with a body and without a query, to an endpoint that answers whole. The
rest (streams, sessions, other methods) opens an item without a copy: an appeal of it is heard by the caller's words
alone, and makes no request. Called by the queue's submit and the direct lane.
"""

from forestay.gateway.content import Refused
from forestay.gateway.guards import Target
from forestay.gateway.lanes import Work
from forestay.gateway.ports import GatewayPorts
from forestay.queue.model import Submission
from forestay.safety.review.kept import KeptInput
from forestay.safety.review.opening import Stopped


async def keep_refused(ports: GatewayPorts, target: Target, submission: Submission | None, refused: Refused) -> None:
    """Open an item for a refused input; never raises for what is not there, and never holds the answer up for long."""
    safety = ports.safety
    if safety is None or safety.review is None or refused.judgement is None:
        return
    policy_id = target.revision.spec.safety.policy
    stopped = Stopped(
        request_id=target.request_id,
        attempt=0,
        tenant_id=target.caller.tenant_id,
        key_id=target.caller.key_id,
        model_id=target.model.model_id,
        endpoint=target.endpoint,
        policy_id=policy_id,
        policy=safety.guard.policy_of(policy_id, target.caller.tenant_id, target.request_id),
        judgement=refused.judgement,
    )
    kept = None if submission is None else KeptInput(submission.body, submission.options, submission.predicted_seconds)
    await safety.review.opener.input_refused(stopped, kept)


def submission_of(work: Work) -> Submission | None:
    """Return what a direct call would be in the queue; None for one that cannot be there."""
    target, call = work.target, work.call
    if call.method != "POST" or call.query or work.lane != "direct" or not call.body:
        return None
    return Submission(
        request_id=target.request_id,
        tenant_id=target.caller.tenant_id,
        key_id=target.caller.key_id,
        model_id=target.model.model_id,
        endpoint=target.endpoint,
        body=call.body,
        submitted_at=target.now,
        options=work.choices.options,
        predicted_seconds=work.predicted_seconds,
    )
