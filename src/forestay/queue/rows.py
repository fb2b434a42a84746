"""Between the queue's values and the columns of its statements: encoding and decoding, nothing else. Pure.

Statements take one array per column, so that a batch of any size is one statement with one plan. Only the SQL adapter
calls it.
"""

import dataclasses
import datetime as dt
import math
import uuid
from collections.abc import Mapping, Sequence
from typing import cast

import msgspec

from forestay.ids import KeyId, ModelId, ReplicaId, RequestId, RevisionId, TenantId, WorkerId
from forestay.media.urls import stored_ids
from forestay.queue.fairness import Waiting
from forestay.queue.model import (
    Answer,
    AttemptReport,
    Finish,
    Lease,
    LogLine,
    Options,
    Outcome,
    Priority,
    Snapshot,
    State,
    Submission,
    bucket_for,
)
from forestay.queue.pressure import Due, Pressure, Queued
from forestay.queue.store import Offer
from forestay.settings import Queue
from forestay.storage.postgres import Record
from forestay.values import hot_value

Fence = tuple[RequestId, int]
Columns = tuple[list[object], ...]

_SEPARATOR = "\x1f"  # between the words of a list that travels as one text
_options_decoder = msgspec.json.Decoder(Options)
_encode = msgspec.json.encode
_NO_WORK = "{}"


@hot_value
class Entry:
    """A submission on its way into the queue."""

    submission: Submission
    body_key: str | None  # set when the body lies in the object store
    limit: int | None  # fal_max_queue_length
    give_up_at: float = math.inf  # monotonic: how long it outlasts a database that is away


def columns(rows: Sequence[tuple[object, ...]], width: int) -> Columns:
    """Turn rows into one list per column; `width` columns of nothing when there are no rows."""
    if not rows:
        return tuple([] for _ in range(width))
    return tuple(list(column) for column in zip(*rows, strict=True))


def submit_row(entry: Entry, settings: Queue) -> tuple[object, ...]:
    """Return the nineteen columns that both submit statements begin with."""
    item, options = entry.submission, entry.submission.options
    low = options.priority is Priority.LOW
    delay_seconds = settings.starvation_bound_seconds if low else 0.0
    return (
        item.request_id,
        item.tenant_id,
        item.key_id,
        item.model_id,
        item.endpoint,
        bucket_for(item),
        low,
        delay_seconds,
        item.submitted_at,
        options.start_deadline,
        options.total_deadline,
        options.hint,
        _encode(options).decode(),
        item.body if entry.body_key is None else None,
        entry.body_key,
        options.webhook_url,
        options.store_io,
        item.predicted_seconds,
        options.start_deadline or item.submitted_at + dt.timedelta(seconds=delay_seconds + settings.patience_seconds),
    )


def refused_row(item: Submission, answer: Answer) -> tuple[object, ...]:
    """Return the thirteen values of `refuse`."""
    tags = item.options.tags
    return (
        item.request_id,
        item.tenant_id,
        item.key_id,
        item.model_id,
        item.endpoint,
        item.submitted_at,
        answer.status_code,
        _encode(answer.headers).decode(),
        answer.body,
        answer.error,
        answer.error_type,
        not item.options.store_io,
        _encode(tags).decode() if tags else None,
    )


def bucket_ranges(offer: Offer) -> str:
    """Write an offer's buckets as a Postgres multirange."""
    return "{" + ",".join(f"[{low},{high})" for low, high in offer.buckets) + "}"


def claim_columns(offers: Sequence[Offer]) -> tuple[Columns, Columns]:
    """Return the columns of groups and of slots: replicas of one revision share its queue."""
    groups: dict[RevisionId, tuple[object, ...]] = {}
    slots: list[tuple[object, ...]] = []
    for offer in offers:
        if offer.slots <= 0 or not offer.buckets:
            continue
        group = groups.setdefault(
            offer.revision_id, (len(groups), offer.model_id, offer.revision_id, bucket_ranges(offer))
        )
        # Rank spreads a revision's requests over its replicas before any replica gets its second.
        slots.extend((group[0], offer.replica_id, offer.idle, rank) for rank in range(offer.slots))
    return columns(list(groups.values()), 4), columns(slots, 4)


def hinted_columns(offers: Sequence[Offer]) -> Columns:
    """Return the columns of the offers that carry hints."""
    rows: list[tuple[object, ...]] = [
        (
            offer.replica_id,
            offer.model_id,
            offer.revision_id,
            bucket_ranges(offer),
            offer.slots,
            _SEPARATOR.join(offer.hints),
        )
        for offer in offers
        if offer.hints and offer.slots > 0 and offer.buckets
    ]
    return columns(rows, 6)


def decode_options(text: str) -> Options:
    """Read stored options."""
    return _options_decoder.decode(text)


def lease_from(record: Record, worker_id: WorkerId) -> Lease:
    """Read a row of `claim`; a body in the object store is fetched by the caller."""
    return Lease(
        request_id=RequestId(record["request_id"]),
        attempt=record["attempt"],
        tenant_id=TenantId(record["tenant_id"]),
        model_id=ModelId(record["model_id"]),
        endpoint=record["endpoint"],
        revision_id=RevisionId(record["revision_id"]),
        replica_id=ReplicaId(record["replica_id"]),
        worker_id=worker_id,
        body=record["body"] or b"",
        options=_options_decoder.decode(record["options"]),
        submitted_at=record["submitted_at"],
        lease_expires_at=record["lease_expires_at"],
        crashed_replicas=tuple(record["crashed_replicas"]),
        lost_leases=record["lost_leases"],
        retries_used=record["retries_used"],
        predicted_seconds=record["predicted_seconds"],
    )


def fences_of(records: Sequence[Record]) -> set[Fence]:
    """Read (request_id, attempt) pairs."""
    return {(RequestId(record[0]), cast("int", record[1])) for record in records}


@hot_value
class Ending:
    """One item of the `end` statement."""

    request_id: RequestId
    from_states: frozenset[State]
    state: State
    answer: Answer
    body_key: str | None
    outcome: Outcome
    attempt: int | None = None  # the fence; None when whoever ends it holds no lease
    worker_id: WorkerId | None = None
    report: AttemptReport | None = None  # None: no attempt ended with it, or its worker reports it by itself
    attempt_lost: bool = False  # the attempt ended unseen: write its fact without a report
    media_ids: Sequence[str] = ()  # the files that its answer names: they are released with it


def end_columns(endings: Sequence[Ending]) -> Columns:
    """Return the twenty columns of `end`, in the order in which rows are locked everywhere."""
    return columns([_end_row(item) for item in sorted(endings, key=lambda item: item.request_id)], 20)


def _end_row(item: Ending) -> tuple[object, ...]:
    report, answer = item.report, item.answer
    return (
        item.request_id,
        item.attempt,
        item.worker_id,
        ",".join(item.from_states),
        item.state.value,
        answer.status_code,
        _encode(answer.headers).decode(),
        answer.body if item.body_key is None else None,
        item.body_key,
        answer.error,
        answer.error_type,
        item.outcome.value,
        report is not None or item.attempt_lost,
        None if report is None else report.started_at,
        None if report is None else report.finished_at,
        0.0 if report is None else report.device_seconds,
        _NO_WORK if report is None or not report.work else _encode(report.work).decode(),
        None if report is None else report.checked_at,
        None if report is None else report.device,
        ",".join(item.media_ids),
    )


def finish_ending(item: Finish, body_key: str | None, from_states: frozenset[State]) -> Ending:
    """Return the ending that a worker's finish asks for."""
    return Ending(
        request_id=item.lease.request_id,
        from_states=from_states,
        state=item.state,
        answer=item.answer,
        body_key=body_key,
        outcome=item.report.outcome,
        attempt=item.lease.attempt,
        worker_id=item.lease.worker_id,
        report=item.report,
        media_ids=() if item.lease.options.shadow else stored_ids(item.answer.body),
    )


def withhold_columns(items: Sequence[Finish]) -> Columns:
    """Return the columns of `withhold`."""
    rows: list[tuple[object, ...]] = [
        (
            item.lease.request_id,
            item.lease.attempt,
            item.lease.worker_id,
            item.report.outcome.value,
            item.report.finished_at,
            item.report.device_seconds,
            _encode(item.report.work).decode(),
            _encode(dataclasses.replace(item.answer, body=b"")).decode(),
            item.report.checked_at,
            item.report.device,
        )
        for item in sorted(items, key=lambda item: item.lease.request_id)
    ]
    return columns(rows, 10)


RESOLVED: Mapping[State, Outcome] = {
    State.SUCCEEDED: Outcome.SUCCEEDED,
    State.BLOCKED: Outcome.SAFETY,
    State.FAILED: Outcome.CALLER_ERROR,  # their own bucket did not take what people had let go
}


def held_back(value: object) -> Answer:
    """Read what a withheld request keeps of its answer, which has no body here; old rows kept only the body."""
    if value is None:
        return Answer(200, {"content-type": "application/json"}, b"")
    return msgspec.convert(value, Answer)


@dataclasses.dataclass(frozen=True, slots=True)
class GivenBack:
    """One item of the `requeue` statement."""

    request_id: RequestId
    attempt: int
    worker_id: WorkerId
    delay_seconds: float
    crashed_replicas: Sequence[ReplicaId]
    retries_used: Mapping[str, int]
    lost_leases: int
    alone: bool
    outcome: Outcome
    report: AttemptReport | None


def requeue_columns(items: Sequence[GivenBack]) -> Columns:
    """Return the fourteen columns of `requeue`, in locking order."""
    rows: list[tuple[object, ...]] = [
        (
            item.request_id,
            item.attempt,
            item.worker_id,
            item.delay_seconds,
            _SEPARATOR.join(item.crashed_replicas),
            _encode(item.retries_used).decode(),
            item.lost_leases,
            item.alone,
            item.outcome.value,
            None if item.report is None else item.report.started_at,
            None if item.report is None else item.report.finished_at,
            0.0 if item.report is None else item.report.device_seconds,
            _NO_WORK if item.report is None else _encode(item.report.work).decode(),
            None if item.report is None else item.report.device,
        )
        for item in sorted(items, key=lambda item: item.request_id)
    ]
    return columns(rows, 14)


def lease_columns(leases: Sequence[Lease]) -> Columns:
    """Return request, attempt and worker of leases, in locking order."""
    rows: list[tuple[object, ...]] = [
        (lease.request_id, lease.attempt, lease.worker_id)
        for lease in sorted(leases, key=lambda lease: lease.request_id)
    ]
    return columns(rows, 3)


def fence_columns(fences: Sequence[Fence]) -> Columns:
    """Return requests and attempts, in locking order."""
    return columns(sorted(fences), 2)


def log_columns(lines: Sequence[LogLine]) -> Columns:
    """Return the columns of log lines; what Postgres cannot store in a text (NUL) is replaced."""
    rows: list[tuple[object, ...]] = [
        (
            line.request_id,
            line.attempt,
            line.sequence,
            line.at,
            line.level,
            line.source,
            line.message.replace("\x00", "\ufffd"),
        )
        for line in lines
    ]
    return columns(rows, 7)


def log_from(record: Record) -> tuple[int, LogLine]:
    """Read a row of `logs`."""
    line = LogLine(
        request_id=RequestId(record["request_id"]),
        attempt=record["attempt"],
        sequence=record["sequence"],
        at=record["at"],
        level=record["level"],
        message=record["message"],
        source=record["source"],
    )
    return cast("int", record["position"]), line


def snapshot_from(record: Record) -> Snapshot:
    """Read a row of `snapshots` or `result`."""
    return Snapshot(
        request_id=RequestId(record["request_id"]),
        tenant_id=TenantId(record["tenant_id"]),
        key_id=KeyId(record["key_id"]),
        model_id=ModelId(record["model_id"]),
        endpoint=record["endpoint"],
        state=State(record["state"]),
        attempt=record["attempt"],
        submitted_at=record["submitted_at"],
        order_at=record["order_at"],
        revision_id=_maybe_revision(record["revision_id"]),
        replica_id=None if record["replica_id"] is None else ReplicaId(record["replica_id"]),
        inference_seconds=record["inference_seconds"],
        error=record["error"],
        error_type=record["error_type"],
    )


def _maybe_revision(value: str | None) -> RevisionId | None:
    return None if value is None else RevisionId(value)


def pressure_from(records: Sequence[Record]) -> list[Pressure]:
    """Read the rows of `pressure`: several of one model, tenant and class are one value."""
    found: dict[tuple[ModelId, TenantId, bool], Pressure] = {}
    for record in records:
        key = ModelId(record["model_id"]), TenantId(record["tenant_id"]), bool(record["low"])
        before = found.get(key) or Pressure(*key, weight=record["weight"])
        found[key] = _added(before, record)
    return list(found.values())


def _added(before: Pressure, record: Record) -> Pressure:
    requests, seconds = cast("int", record["requests"]), cast("float", record["seconds"])
    squares = before.squares + cast("float", record["squares"])
    if record["held"]:
        return dataclasses.replace(
            before,
            squares=squares,
            held=before.held + requests,
            held_seconds=before.held_seconds + seconds,
            held_elapsed_seconds=before.held_elapsed_seconds + cast("float", record["elapsed"]),
        )
    due = before.due
    if record["horizon"] is not None:
        due = (*due, Due(record["earliest"], record["latest"], seconds))
    return dataclasses.replace(
        before,
        squares=squares,
        waiting=before.waiting + requests,
        waiting_seconds=before.waiting_seconds + seconds,
        due=due,
    )


def queued_from(record: Record) -> Queued:
    """Read a row of `queued`."""
    waiting = Waiting(
        request_id=RequestId(record["request_id"]),
        tenant_id=TenantId(record["tenant_id"]),
        predicted_seconds=record["predicted_seconds"],
        due_at=record["due_at"],
        order_at=record["order_at"],
        low=record["low_priority"],
    )
    return Queued(waiting, record["start_deadline"], record["total_deadline"], record["attempt"])


def abandoned_fact(lease: Lease, report: AttemptReport) -> str:
    """Write the fact of an attempt whose request was taken away, as `fact_outbox` keeps it."""
    fact = {
        "kind": "attempt",
        "request_id": uuid.UUID(int=lease.request_id.int),
        "attempt": lease.attempt,
        "tenant_id": lease.tenant_id,
        "model_id": lease.model_id,
        "endpoint": lease.endpoint,
        "revision_id": lease.revision_id,
        "replica_id": lease.replica_id,
        "worker_id": lease.worker_id,
        "outcome": report.outcome.value,
        "submitted_at": lease.submitted_at,
        "leased_at": report.leased_at,
        "started_at": report.started_at,
        "finished_at": report.finished_at,
        "checked_at": report.checked_at,
        "device": report.device,
        "device_seconds": report.device_seconds,
        "predicted_seconds": lease.predicted_seconds,
        "work": report.work,
    }
    return _encode([fact]).decode()


def answer_headers(value: object) -> Mapping[str, str]:
    """Read stored headers."""
    return msgspec.convert(value, dict[str, str])


def time_bounds(request_ids: Sequence[RequestId]) -> tuple[uuid.UUID, uuid.UUID]:
    """Return the smallest and the largest id: what lets Postgres skip partitions."""
    return min(request_ids), max(request_ids)
