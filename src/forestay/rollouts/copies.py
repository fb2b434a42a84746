"""Copies that a rollout sends to its own revisions: requests of nobody. Pure.

It decides what fences a copy: no webhook, no bill, no quota, low priority, one try, outputs that stay shut away and end
within the hour. Called by the shadow's loop and by the gate of load.
"""

import dataclasses
import datetime as dt

from forestay.ids import SHADOW_KEY, SHADOW_TENANT, ModelId, RequestId
from forestay.queue.model import Options, Priority, Shadow, Submission

OUTPUT_SECONDS = 3_600  # copies' outputs are deleted after


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """What a copy asks, and of which revision."""

    model_id: ModelId
    endpoint: str
    body: bytes
    of: Shadow


def copy_of(asked: Asked, request_id: RequestId, at: dt.datetime, until: dt.datetime) -> Submission:
    """Return a copy that gives up when it has not started, or not ended, by then."""
    return Submission(
        request_id=request_id,
        tenant_id=SHADOW_TENANT,
        key_id=SHADOW_KEY,
        model_id=asked.model_id,
        endpoint=asked.endpoint,
        body=asked.body,
        submitted_at=at,
        options=Options(
            priority=Priority.LOW,
            start_deadline=until,
            total_deadline=until,
            no_retry=True,
            store_io=True,
            object_lifetime_seconds=OUTPUT_SECONDS,
            shadow=asked.of,
        ),
    )
