"""The queue's port: everything that anyone may ask of the durable queue.

The SQL adapter (`queue/postgres_store.py`) is the first; a dispatcher spoken to over HTTP may be the next, so nothing
above this file may assume SQL. `tests/conformance/` runs one behaviour suite against every adapter.

Time: the store's own clock (the database's) is the authority for leases, back-off and deadlines.
"""

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Protocol

from forestay.ids import KeyId, ModelId, ReplicaId, RequestId, RevisionId, TenantId, WorkerId
from forestay.queue.model import (
    Answer,
    AttemptReport,
    Finish,
    HeldBack,
    Lease,
    LogLine,
    Requeue,
    Snapshot,
    State,
    Submission,
)
from forestay.queue.pressure import EarlyEnd, Pressure, Queued, Turn
from forestay.values import hot_value


@hot_value
class Accepted:
    """The submit is committed; `request_id` may be an earlier request's (idempotent or adopted retry)."""

    request_id: RequestId
    replayed: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class IdempotencyConflict:
    """The same Idempotency-Key was used for a different submit: answered 422."""

    request_id: RequestId


@dataclasses.dataclass(frozen=True, slots=True)
class QueueFull:
    """`fal_max_queue_length` is reached: answered 429."""

    length: int


@dataclasses.dataclass(frozen=True, slots=True)
class Offer:
    """Free slots of one replica, offered to the queue at claim."""

    replica_id: ReplicaId
    revision_id: RevisionId
    model_id: ModelId
    buckets: tuple[tuple[int, int], ...]  # half-open ranges that the route gives this revision
    slots: int
    idle: bool  # nothing runs on the replica: only then may a request that must run alone be claimed
    hints: tuple[str, ...] = ()
    pool: str = "cpu"  # whose turns are taken


@dataclasses.dataclass(frozen=True, slots=True)
class Held:
    """The answer of a renewal for one lease."""

    request_id: RequestId
    attempt: int
    lease_expires_at: dt.datetime


@dataclasses.dataclass(frozen=True, slots=True)
class Stored:
    """A finished request's answer with its owner, for the result route."""

    snapshot: Snapshot
    answer: Answer
    finished_at: dt.datetime


@dataclasses.dataclass(frozen=True, slots=True)
class Unfinished:
    """A request that has not ended, with the device-seconds that it is predicted to take."""

    request_id: RequestId
    model_id: ModelId
    predicted_seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class Running:
    """How many requests of one tenant, key and model workers hold."""

    tenant_id: TenantId
    key_id: KeyId
    model_id: ModelId
    requests: int


class QueueStore(Protocol):
    """The durable queue."""

    async def submit(
        self, submissions: Sequence[Submission], max_queue_length: Mapping[RequestId, int]
    ) -> list[Accepted | IdempotencyConflict | QueueFull]:
        """Commit all in one transaction, results in order; an acknowledged one is never lost."""
        ...

    async def refuse(self, submission: Submission, answer: Answer) -> None:
        """Store a request that is blocked at submit, with its answer and its fact; its input is not kept here."""
        ...

    async def publish(self, submission: Submission, answer: Answer) -> None:
        """Store a request that has succeeded with this answer though nothing ran; a second time changes nothing."""
        ...

    async def mark_undelivered(self, request_id: RequestId, key_id: KeyId, fingerprint: bytes) -> None:
        """Record that the answer to a submit never reached its caller: an identical retry may adopt it once."""
        ...

    async def claim(self, worker_id: WorkerId, offers: Sequence[Offer], lease_seconds: float) -> list[Lease]:
        """Lease queued requests for the offered slots, at most `slots` an offer, by turns (`queue/fairness`)."""
        ...

    async def start(self, leases: Sequence[Lease]) -> set[tuple[RequestId, int]]:
        """Note that the host has accepted these attempts (LEASED -> RUNNING); returns those still held."""
        ...

    async def checking(self, leases: Sequence[Lease]) -> set[tuple[RequestId, int]]:
        """Note that these outputs are being judged (RUNNING -> CHECKING); returns those still held."""
        ...

    async def carry(self, lease: Lease, text: str) -> bool:
        """Keep for later attempts what this one has begun elsewhere, instead of what was kept; False: lease lost."""
        ...

    async def carried(self, lease: Lease) -> str | None:
        """Read what earlier attempts of this request left; None when there is nothing, or the lease is lost."""
        ...

    async def renew(
        self, worker_id: WorkerId, leases: Sequence[tuple[RequestId, int]], lease_seconds: float
    ) -> list[Held]:
        """Extend the leases that are still this worker's; one missing from the answer is lost: kill its attempt."""
        ...

    async def finish(self, items: Sequence[Finish]) -> set[tuple[RequestId, int]]:
        """End held requests, publish answers, enqueue webhooks and facts; returns those whose fence held."""
        ...

    async def requeue(self, items: Sequence[Requeue]) -> set[tuple[RequestId, int]]:
        """Put held requests back (or FAIL those past their caps, see queue/retry); returns those whose fence held."""
        ...

    async def abandon(self, lease: Lease, report: AttemptReport) -> None:
        """Record the fact of an attempt whose request was taken away (cancelled, expired, lease lost)."""
        ...

    async def cancel(self, request_id: RequestId, answer: Answer) -> State | None:
        """Cancel in whatever state; returns the state before, None if unknown. Final states stay as they are."""
        ...

    async def held_back(self, request_id: RequestId) -> HeldBack | None:
        """Read what a WITHHELD request keeps; None when it is not withheld."""
        ...

    async def withheld(self, request_id: RequestId, state: State, answer: Answer | None) -> bool:
        """Resolve a WITHHELD request to SUCCEEDED, BLOCKED, FAILED or EXPIRED; tells whether it was so until now.

        Without an answer (SUCCEEDED only) the model's own is published: its status, headers and body, as it gave them.
        """
        ...

    async def snapshots(self, request_ids: Sequence[RequestId]) -> dict[RequestId, Snapshot]:
        """Read many statuses in at most two statements; unknown ids are absent."""
        ...

    async def result(self, request_id: RequestId) -> Stored | None:
        """Read a finished request's answer; None if unknown or not finished."""
        ...

    async def append_logs(self, lines: Sequence[LogLine]) -> None:
        """Keep log lines until the request's retention ends."""
        ...

    async def logs(self, request_id: RequestId, after: int) -> list[tuple[int, LogLine]]:
        """Read the log lines with a store-wide position greater than `after`, in order, at most 1,000."""
        ...

    async def queued_ahead(self, model_ids: Sequence[ModelId], most: int = 1000) -> dict[ModelId, list[dt.datetime]]:
        """Sample the queue: for each model the first `most` order times of its waiting requests."""
        ...

    async def backlog(self) -> dict[ModelId, int]:
        """Count waiting requests per model, at most a thousand of each: for placement, from one short read."""
        ...

    async def pressure(self) -> list[Pressure]:
        """Add up what waits and what is held, per model, tenant and priority, in one grouped read: for admission."""
        ...

    async def deadlines_wait(self) -> bool:
        """Tell whether any waiting request has a deadline to start: without one there is nothing to shed."""
        ...

    async def turns(self) -> dict[tuple[str, TenantId], Turn]:
        """Tell where tenants stand in the turns of each pool; one that is absent stands at the pool's time."""
        ...

    async def queued(self, model_id: ModelId, limit: int) -> list[Queued]:
        """Read a model's waiting requests, the most urgent first, at most `limit`."""
        ...

    async def end_early(self, items: Sequence[EarlyEnd]) -> list[RequestId]:
        """End queued requests that cannot be served in time; returns those that still waited as was said."""
        ...

    async def lost_to(self, worker_id: WorkerId, leases: Sequence[tuple[RequestId, int]]) -> set[tuple[RequestId, int]]:
        """Tell which of these leases the worker no longer holds (cancelled, expired, rescued): polled for cancels."""
        ...

    async def rescue(self, limit: int) -> list[tuple[RequestId, State]]:
        """Requeue (or fail) requests whose lease ran out; returns what was done. Called by the controller's loop."""
        ...

    async def expire(self, limit: int) -> list[RequestId]:
        """End requests whose start or total deadline has passed. Called by the controller's loop."""
        ...

    async def unfinished(
        self, *, tenant_id: TenantId | None, key_id: KeyId | None, model_id: ModelId | None
    ) -> list[Unfinished]:
        """List what has not ended, of one tenant, key and model (None: any): for limits whose counters were lost."""
        ...

    async def running(self) -> list[Running]:
        """Count what workers hold, a row a tenant, key and model: for limits of calls in flight."""
        ...

    async def owner_of(self, request_id: RequestId) -> TenantId | None:
        """Tell whose request this is."""
        ...

    async def forget(self, before: dt.datetime) -> list[str]:
        """Drop finished requests, logs and inputs submitted before; returns object keys that may now be deleted."""
        ...
