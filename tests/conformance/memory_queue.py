"""The queue in memory: an adapter of the port for tests of gateways and workers, held to the same suite as Postgres.

Time is a clock that the test moves. Nothing is durable; everything else is the port's behaviour.
"""

import bisect
import dataclasses
import datetime as dt
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

from forestay.ids import KeyId, ModelId, ReplicaId, RequestId, RevisionId, TenantId, WorkerId
from forestay.queue import answers, retry
from forestay.queue.fairness import Waiting
from forestay.queue.model import (
    FINAL,
    HELD,
    Answer,
    AttemptReport,
    Finish,
    HeldBack,
    Lease,
    LogLine,
    Outcome,
    Priority,
    Requeue,
    Snapshot,
    State,
    Submission,
    allows,
    bucket_for,
    held_sources,
)
from forestay.queue.pressure import HORIZONS_SECONDS, Due, EarlyEnd, Pressure, Queued, Turn
from forestay.queue.rows import RESOLVED
from forestay.queue.store import Accepted, Held, IdempotencyConflict, Offer, QueueFull, Running, Stored, Unfinished
from forestay.settings import Queue

Fence = tuple[RequestId, int]


class Now(Protocol):
    """What the fake asks of a clock."""

    def now(self) -> dt.datetime:
        """Return the time."""
        ...


@dataclasses.dataclass(slots=True)
class Row:
    """A live request."""

    submission: Submission
    order_at: dt.datetime
    available_at: dt.datetime
    state: State = State.QUEUED
    attempt: int = 0
    lost_leases: int = 0
    alone: bool = False
    crashed_replicas: tuple[ReplicaId, ...] = ()
    retries_used: Mapping[str, int] = dataclasses.field(default_factory=dict[str, int])
    worker_id: WorkerId | None = None
    replica_id: ReplicaId | None = None
    revision_id: RevisionId | None = None
    lease_expires_at: dt.datetime | None = None
    started_at: dt.datetime | None = None
    leased_at: dt.datetime | None = None
    withheld: Answer | None = None
    carried: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class RequestFact:
    """What the real store writes of a finished request, as far as tests ask."""

    request_id: RequestId
    state: State
    outcome: Outcome
    attempts: int


class MemoryQueueStore:
    """A queue that forgets everything when it is dropped."""

    def __init__(self, clock: Now, settings: Queue | None = None) -> None:
        self._clock = clock
        self._settings = Queue() if settings is None else settings
        self._policy = retry.RetryPolicy(self._settings.max_attempts, self._settings.poison_replicas, 0.0, 0.0)
        self._rows: dict[RequestId, Row] = {}
        self._done: dict[RequestId, Stored] = {}
        self._keys: dict[tuple[KeyId, str], Submission] = {}
        self._undelivered: list[tuple[KeyId, bytes, RequestId, dt.datetime]] = []
        self._logs: list[LogLine] = []
        self.request_facts: list[RequestFact] = []
        self.attempt_facts: list[tuple[RequestId, int, Outcome]] = []
        self.attempt_work: dict[Fence, Mapping[str, float]] = {}
        self.webhooks: list[tuple[RequestId, str]] = []

    async def submit(
        self, submissions: Sequence[Submission], max_queue_length: Mapping[RequestId, int]
    ) -> list[Accepted | IdempotencyConflict | QueueFull]:
        """Take all; results in order."""
        return [self._submit(item, max_queue_length.get(item.request_id)) for item in submissions]

    def _submit(self, item: Submission, limit: int | None) -> Accepted | IdempotencyConflict | QueueFull:
        name = None if item.idempotency_key is None else (item.key_id, item.idempotency_key)
        if name is not None and name in self._keys:
            earlier = self._keys[name]
            if earlier.fingerprint != item.fingerprint:
                return IdempotencyConflict(earlier.request_id)
            return Accepted(earlier.request_id, replayed=True)
        now = self._clock.now()
        window = dt.timedelta(seconds=self._settings.adoption_seconds)
        for entry in self._undelivered:
            key_id, fingerprint, request_id, at = entry
            if fingerprint and (key_id, fingerprint) == (item.key_id, item.fingerprint) and at > now - window:
                self._undelivered.remove(entry)
                return Accepted(request_id, replayed=True)
        length = sum(row.state is State.QUEUED for row in self._rows.values() if self._is_for(row, item.model_id))
        if limit is not None and length >= limit:
            return QueueFull(length)
        if name is not None:
            self._keys[name] = item
        bound = self._settings.starvation_bound_seconds if item.options.priority is Priority.LOW else 0.0
        self._rows[item.request_id] = Row(item, item.submitted_at + dt.timedelta(seconds=bound), now)
        return Accepted(item.request_id)

    async def refuse(self, submission: Submission, answer: Answer) -> None:
        """Store a request that is blocked at submit."""
        self._end(Row(submission, submission.submitted_at, self._clock.now()), State.BLOCKED, answer, Outcome.SAFETY)

    async def publish(self, submission: Submission, answer: Answer) -> None:
        """Store a request that has succeeded though nothing ran."""
        if submission.request_id not in self._done:
            row = Row(submission, submission.submitted_at, self._clock.now())
            self._end(row, State.SUCCEEDED, answer, Outcome.SUCCEEDED)

    @staticmethod
    def _is_for(row: Row, model_id: ModelId) -> bool:
        return row.submission.model_id == model_id

    async def mark_undelivered(self, request_id: RequestId, key_id: KeyId, fingerprint: bytes) -> None:
        """Let an identical retry adopt this request once."""
        self._undelivered.append((key_id, fingerprint, request_id, self._clock.now()))

    async def claim(self, worker_id: WorkerId, offers: Sequence[Offer], lease_seconds: float) -> list[Lease]:
        """Lease queued requests in order."""
        leases: list[Lease] = []
        for offer in offers:
            taken = 0
            while taken < offer.slots:
                row = self._next(offer, alone=offer.idle and taken == 0)
                if row is None:
                    break
                leases.append(self._lease(row, worker_id, offer, lease_seconds))
                taken = offer.slots if row.alone else taken + 1
        return leases

    def _next(self, offer: Offer, *, alone: bool) -> Row | None:
        now = self._clock.now()
        waiting = [
            row
            for row in self._rows.values()
            if row.state is State.QUEUED
            and row.submission.model_id == offer.model_id
            and row.available_at <= now
            and not self._is_late(row, now)
            and any(low <= bucket_for(row.submission) < high for low, high in offer.buckets)
        ]
        lonely = [row for row in waiting if row.alone]
        if alone and lonely:
            return min(lonely, key=lambda row: row.order_at)
        ordinary = sorted((row for row in waiting if not row.alone), key=lambda row: row.order_at)
        hinted = [row for row in ordinary[:50] if row.submission.options.hint in offer.hints]
        return next(iter([*hinted, *ordinary]), None)

    @staticmethod
    def _is_late(row: Row, now: dt.datetime) -> bool:
        options = row.submission.options
        return any(limit is not None and limit <= now for limit in (options.start_deadline, options.total_deadline))

    def _lease(self, row: Row, worker_id: WorkerId, offer: Offer, lease_seconds: float) -> Lease:
        now = self._clock.now()
        row.state, row.attempt, row.started_at = State.LEASED, row.attempt + 1, None
        row.worker_id, row.replica_id, row.revision_id = worker_id, offer.replica_id, offer.revision_id
        row.leased_at, row.lease_expires_at = now, now + dt.timedelta(seconds=lease_seconds)
        item = row.submission
        return Lease(
            request_id=item.request_id,
            attempt=row.attempt,
            tenant_id=item.tenant_id,
            model_id=item.model_id,
            endpoint=item.endpoint,
            revision_id=offer.revision_id,
            replica_id=offer.replica_id,
            worker_id=worker_id,
            body=item.body,
            options=item.options,
            submitted_at=item.submitted_at,
            lease_expires_at=row.lease_expires_at,
            crashed_replicas=row.crashed_replicas,
            lost_leases=row.lost_leases,
            retries_used=dict(row.retries_used),
            predicted_seconds=item.predicted_seconds,
        )

    def _held(self, request_id: RequestId, attempt: int, worker_id: WorkerId) -> Row | None:
        row = self._rows.get(request_id)
        if row is None or row.state not in HELD or (row.attempt, row.worker_id) != (attempt, worker_id):
            return None
        return row

    async def start(self, leases: Sequence[Lease]) -> set[Fence]:
        """LEASED -> RUNNING."""
        held: set[Fence] = set()
        for lease in leases:
            row = self._held(lease.request_id, lease.attempt, lease.worker_id)
            if row is not None:
                if row.state is State.LEASED:
                    row.state, row.started_at = State.RUNNING, self._clock.now()
                held.add((lease.request_id, lease.attempt))
        return held

    async def checking(self, leases: Sequence[Lease]) -> set[Fence]:
        """RUNNING (or LEASED) -> CHECKING."""
        held: set[Fence] = set()
        for lease in leases:
            row = self._held(lease.request_id, lease.attempt, lease.worker_id)
            if row is not None:
                row.started_at = row.started_at or self._clock.now()
                row.state = State.CHECKING
                held.add((lease.request_id, lease.attempt))
        return held

    async def renew(self, worker_id: WorkerId, leases: Sequence[Fence], lease_seconds: float) -> list[Held]:
        """Extend what is still this worker's."""
        until = self._clock.now() + dt.timedelta(seconds=lease_seconds)
        extended: list[Held] = []
        for request_id, attempt in leases:
            row = self._held(request_id, attempt, worker_id)
            if row is not None:
                row.lease_expires_at = until
                extended.append(Held(request_id, attempt, until))
        return extended

    async def finish(self, items: Sequence[Finish]) -> set[Fence]:
        """End held requests."""
        done: set[Fence] = set()
        for item in items:
            lease = item.lease
            row = self._held(lease.request_id, lease.attempt, lease.worker_id)
            if row is None or row.state not in held_sources(item.state):
                continue
            self.attempt_facts.append((lease.request_id, lease.attempt, item.report.outcome))
            self.attempt_work[lease.request_id, lease.attempt] = item.report.work
            if item.state is State.WITHHELD:
                row.state, row.lease_expires_at, row.withheld = State.WITHHELD, None, item.answer
            else:
                started_at = item.report.started_at or row.started_at
                seconds = None if started_at is None else (item.report.finished_at - started_at).total_seconds()
                self._end(row, item.state, item.answer, item.report.outcome, seconds)
            done.add((lease.request_id, lease.attempt))
        return done

    def _end(
        self, row: Row, state: State, answer: Answer, outcome: Outcome, inference_seconds: float | None = None
    ) -> None:
        request_id = row.submission.request_id
        self._rows.pop(request_id, None)
        row.state = state
        snapshot = dataclasses.replace(
            self._snapshot(row),
            inference_seconds=inference_seconds,
            error=answer.error,
            error_type=answer.error_type,
        )
        self._done[request_id] = Stored(snapshot, answer, self._clock.now())
        self.request_facts.append(RequestFact(request_id, state, outcome, row.attempt))
        if row.submission.options.webhook_url is not None:
            self.webhooks.append((request_id, row.submission.options.webhook_url))

    async def requeue(self, items: Sequence[Requeue]) -> set[Fence]:
        """Put held requests back, or fail those past their caps."""
        done: set[Fence] = set()
        for item in items:
            lease = item.lease
            row = self._held(lease.request_id, lease.attempt, lease.worker_id)
            if row is None:
                continue
            done.add((lease.request_id, lease.attempt))
            self.attempt_facts.append((lease.request_id, lease.attempt, item.report.outcome))
            row.crashed_replicas = retry.crashed_with(lease, crashed=item.crashed)
            over = retry.cap(item, self._policy)
            if over is not None:
                answer = answers.after_giving_up(over, len(row.crashed_replicas))
                self._end(row, State.FAILED, answer, item.report.outcome)
                continue
            if item.condition:
                used = row.retries_used.get(item.condition, 0)
                row.retries_used = {**row.retries_used, item.condition: used + 1}
            self._to_queue(row, item.delay_seconds)
        return done

    def _to_queue(self, row: Row, delay_seconds: float) -> None:
        row.state, row.worker_id, row.replica_id, row.revision_id = State.QUEUED, None, None, None
        row.lease_expires_at, row.started_at = None, None
        row.available_at = self._clock.now() + dt.timedelta(seconds=delay_seconds)

    async def carry(self, lease: Lease, text: str) -> bool:
        """Keep for later attempts what this one has begun elsewhere."""
        row = self._held(lease.request_id, lease.attempt, lease.worker_id)
        if row is None:
            return False
        row.carried = text
        return True

    async def carried(self, lease: Lease) -> str | None:
        """Read what earlier attempts left."""
        row = self._held(lease.request_id, lease.attempt, lease.worker_id)
        return None if row is None else row.carried

    async def abandon(self, lease: Lease, report: AttemptReport) -> None:
        """Record the fact of an attempt whose request was taken away."""
        self.attempt_facts.append((lease.request_id, lease.attempt, report.outcome))

    async def cancel(self, request_id: RequestId, answer: Answer) -> State | None:
        """Cancel in whatever state."""
        row = self._rows.get(request_id)
        if row is None:
            done = self._done.get(request_id)
            return None if done is None else done.snapshot.state
        before = row.state
        self._end(row, State.CANCELLED, answer, Outcome.CANCELLED)
        return before

    async def held_back(self, request_id: RequestId) -> HeldBack | None:
        """Read what a WITHHELD request keeps."""
        row = self._rows.get(request_id)
        if row is None or row.state is not State.WITHHELD or row.withheld is None:
            return None
        return HeldBack(row.withheld, row.submission.options, row.attempt, row.revision_id or RevisionId(""))

    async def withheld(self, request_id: RequestId, state: State, answer: Answer | None) -> bool:
        """Resolve a WITHHELD request; without an answer its own is published."""
        row = self._rows.get(request_id)
        if answer is None and (row is None or row.withheld is None or state is not State.SUCCEEDED):
            return False
        if row is None or row.state is not State.WITHHELD or not allows(State.WITHHELD, state) or state not in FINAL:
            return False
        outcome = RESOLVED.get(state, Outcome.EXPIRED)
        published = answer or row.withheld
        assert published is not None
        self._end(row, state, published, outcome)
        return True

    def _snapshot(self, row: Row) -> Snapshot:
        item = row.submission
        return Snapshot(
            request_id=item.request_id,
            tenant_id=item.tenant_id,
            key_id=item.key_id,
            model_id=item.model_id,
            endpoint=item.endpoint,
            state=row.state,
            attempt=row.attempt,
            submitted_at=item.submitted_at,
            order_at=row.order_at,
            revision_id=row.revision_id,
            replica_id=row.replica_id,
        )

    async def snapshots(self, request_ids: Sequence[RequestId]) -> dict[RequestId, Snapshot]:
        """Read many statuses."""
        found: dict[RequestId, Snapshot] = {}
        for request_id in request_ids:
            if request_id in self._rows:
                found[request_id] = self._snapshot(self._rows[request_id])
            elif request_id in self._done:
                found[request_id] = self._done[request_id].snapshot
        return found

    async def result(self, request_id: RequestId) -> Stored | None:
        """Read a finished request's answer."""
        return self._done.get(request_id)

    async def append_logs(self, lines: Sequence[LogLine]) -> None:
        """Keep log lines."""
        self._logs.extend(lines)

    async def logs(self, request_id: RequestId, after: int) -> list[tuple[int, LogLine]]:
        """Read the log lines with a position greater than `after`."""
        numbered = enumerate(self._logs, start=1)
        return [(n, line) for n, line in numbered if line.request_id == request_id and n > after][:1000]

    async def queued_ahead(self, model_ids: Sequence[ModelId], most: int = 1000) -> dict[ModelId, list[dt.datetime]]:
        """Sample the queue's order times per model."""
        sample: dict[ModelId, list[dt.datetime]] = {model_id: [] for model_id in model_ids}
        for row in self._rows.values():
            if row.state is State.QUEUED and row.submission.model_id in sample:
                sample[row.submission.model_id].append(row.order_at)
        return {model_id: sorted(times)[:most] for model_id, times in sample.items()}

    async def backlog(self) -> dict[ModelId, int]:
        """Count waiting requests per model, at most a thousand of each."""
        counts: dict[ModelId, int] = {}
        for row in self._rows.values():
            if row.state is State.QUEUED:
                counts[row.submission.model_id] = counts.get(row.submission.model_id, 0) + 1
        return {model_id: min(count, 1000) for model_id, count in counts.items()}

    async def deadlines_wait(self) -> bool:
        """Tell whether any waiting request has a deadline to start."""
        return any(
            row.state is State.QUEUED and row.submission.options.start_deadline is not None
            for row in self._rows.values()
        )

    async def pressure(self) -> list[Pressure]:
        """Add up what waits and what is held."""
        now = self._clock.now()
        found: dict[tuple[ModelId, TenantId, bool], Pressure] = {}
        dues: dict[tuple[ModelId, TenantId, bool], dict[int, list[tuple[float, float]]]] = {}
        for row in self._rows.values():
            item = row.submission
            if (row.state not in HELD and row.state is not State.QUEUED) or (
                row.state is State.QUEUED and self._is_late(row, now)
            ):
                continue
            low = item.options.priority is Priority.LOW and row.order_at > now
            key = item.model_id, item.tenant_id, low
            one = found.get(key) or Pressure(*key)
            one = dataclasses.replace(one, squares=one.squares + item.predicted_seconds**2)
            if row.state is not State.QUEUED:
                assert row.leased_at is not None
                found[key] = dataclasses.replace(
                    one,
                    held=one.held + 1,
                    held_seconds=one.held_seconds + item.predicted_seconds,
                    held_elapsed_seconds=one.held_elapsed_seconds + (now - row.leased_at).total_seconds(),
                )
                continue
            found[key] = dataclasses.replace(
                one, waiting=one.waiting + 1, waiting_seconds=one.waiting_seconds + item.predicted_seconds
            )
            if item.options.start_deadline is not None:
                left = (item.options.start_deadline - now).total_seconds()
                horizon = bisect.bisect_right(HORIZONS_SECONDS, left)
                dues.setdefault(key, {}).setdefault(horizon, []).append((left, item.predicted_seconds))
        for key, groups in dues.items():
            due = tuple(
                Due(min(left for left, _ in group), max(left for left, _ in group), sum(cost for _, cost in group))
                for _, group in sorted(groups.items())
            )
            found[key] = dataclasses.replace(found[key], due=due)
        return [found[key] for key in sorted(found)]

    async def turns(self) -> dict[tuple[str, TenantId], Turn]:
        """First come, first served here: nobody is ahead."""
        return {}

    async def queued(self, model_id: ModelId, limit: int) -> list[Queued]:
        """Read a model's waiting requests, the most urgent first."""
        waiting = [row for row in self._rows.values() if row.state is State.QUEUED and self._is_for(row, model_id)]
        return sorted((self._queued(row) for row in waiting), key=lambda item: item.waiting.due_at)[:limit]

    def _queued(self, row: Row) -> Queued:
        item = row.submission
        options = item.options
        due_at = options.start_deadline or row.order_at + dt.timedelta(seconds=self._settings.patience_seconds)
        waiting = Waiting(
            item.request_id,
            item.tenant_id,
            item.predicted_seconds,
            due_at,
            row.order_at,
            options.priority is Priority.LOW,
        )
        return Queued(waiting, options.start_deadline, options.total_deadline, row.attempt)

    async def end_early(self, items: Sequence[EarlyEnd]) -> list[RequestId]:
        """End queued requests that cannot be served in time."""
        ended: list[RequestId] = []
        for item in items:
            row = self._rows.get(item.request_id)
            if row is not None and row.state is State.QUEUED and row.attempt == item.attempt:
                self._end(row, item.state, item.answer, item.outcome)
                ended.append(item.request_id)
        return sorted(ended)

    async def lost_to(self, worker_id: WorkerId, leases: Sequence[Fence]) -> set[Fence]:
        """Tell which leases the worker no longer holds."""
        return {fence for fence in leases if self._held(*fence, worker_id) is None}

    async def rescue(self, limit: int) -> list[tuple[RequestId, State]]:
        """Requeue (or fail) requests whose lease ran out."""
        now = self._clock.now()
        late = [
            row
            for row in self._rows.values()
            if row.state in HELD and row.lease_expires_at is not None and row.lease_expires_at <= now
        ]
        return [self._rescue(row) for row in late[:limit]]

    def _rescue(self, row: Row) -> tuple[RequestId, State]:
        request_id = row.submission.request_id
        self.attempt_facts.append((request_id, row.attempt, Outcome.WORKER_LOST))
        lost = retry.LostLease(
            row.attempt,
            row.lost_leases,
            row.retries_used,
            row.submission.options.no_retry,
            row.started_at is not None,
        )
        decision = retry.decide_rescue(lost, self._policy, 0.0)
        if isinstance(decision, retry.GiveUp):
            answer = answers.after_giving_up(decision, len(row.crashed_replicas))
            self._end(row, State.FAILED, answer, Outcome.WORKER_LOST)
            return request_id, State.FAILED
        row.lost_leases, row.alone = row.lost_leases + 1, decision.alone
        self._to_queue(row, decision.delay_seconds)
        return request_id, State.QUEUED

    async def expire(self, limit: int) -> list[RequestId]:
        """End requests whose start or total deadline has passed."""
        now = self._clock.now()
        ended: list[RequestId] = []
        for row in list(self._rows.values()):
            options = row.submission.options
            total = options.total_deadline is not None and options.total_deadline <= now
            start = row.state is State.QUEUED and options.start_deadline is not None and options.start_deadline <= now
            if (total or start) and len(ended) < limit:
                answer = answers.expired_in_total() if total else answers.expired_before_start()
                self._end(row, State.EXPIRED, answer, Outcome.EXPIRED)
                ended.append(row.submission.request_id)
        return ended

    async def unfinished(
        self, *, tenant_id: TenantId | None, key_id: KeyId | None, model_id: ModelId | None
    ) -> list[Unfinished]:
        """List what has not ended."""
        wanted = (tenant_id, key_id, model_id)
        return [
            Unfinished(item.request_id, item.model_id, item.predicted_seconds)
            for item in (row.submission for row in self._rows.values())
            if all(a in (None, b) for a, b in zip(wanted, (item.tenant_id, item.key_id, item.model_id), strict=True))
        ]

    async def running(self) -> list[Running]:
        """Count what workers hold."""
        held = [row.submission for row in self._rows.values() if row.state in HELD]
        counted = Counter((item.tenant_id, item.key_id, item.model_id) for item in held)
        return [Running(*who, many) for who, many in counted.items()]

    async def owner_of(self, request_id: RequestId) -> TenantId | None:
        """Tell whose request this is."""
        found = (await self.snapshots([request_id])).get(request_id)
        return None if found is None else found.tenant_id

    async def forget(self, before: dt.datetime) -> list[str]:
        """Drop what is finished and was submitted before."""
        old = [key for key, stored in self._done.items() if stored.snapshot.submitted_at < before]
        for request_id in old:
            del self._done[request_id]
        self._logs = [line for line in self._logs if line.request_id not in old]
        return []
