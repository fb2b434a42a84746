"""The queue's adapters under one roof: a store, a way to let time pass, and values to submit."""

import dataclasses
import datetime as dt
import hashlib
import itertools
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from tests.conformance.memory_fleet import ManualClock
from tests.conformance.memory_queue import MemoryQueueStore

from forestay.chance import SeededChance
from forestay.clock import SystemClock
from forestay.ids import BUCKETS, KeyId, ModelId, ReplicaId, RevisionId, TenantId, WorkerId, new_request_id
from forestay.queue.model import (
    Answer,
    AttemptReport,
    Finish,
    Lease,
    Options,
    Outcome,
    Requeue,
    State,
    Submission,
)
from forestay.queue.postgres_store import open_queue_store
from forestay.queue.store import Offer, QueueStore
from forestay.settings import Queue
from forestay.storage.objects import ObjectStore
from forestay.storage.postgres import Database

MODEL = ModelId("acme/digits")
REVISION = RevisionId("digits-000000000001")
WORKER = WorkerId("worker-1")
REPLICA = ReplicaId("replica-1")
EVERY_BUCKET = ((0, BUCKETS),)
SETTINGS = Queue(retry_base_seconds=0.0, retry_cap_seconds=0.0, starvation_bound_seconds=60.0)
_chance = SeededChance(20)
_steps = itertools.count()


class Harness(Protocol):
    """One adapter with a clock that the test moves."""

    @property
    def store(self) -> QueueStore:
        """The adapter."""
        ...

    def now(self) -> dt.datetime:
        """Return the store's time."""
        ...

    async def advance(self, seconds: float) -> None:
        """Let time pass for the store."""
        ...


@dataclasses.dataclass(slots=True)
class MemoryHarness:
    """The fake."""

    store: MemoryQueueStore
    clock: ManualClock

    def now(self) -> dt.datetime:
        """Return the store's time."""
        return self.clock.now()

    async def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.advance(seconds)


@dataclasses.dataclass(slots=True)
class PostgresHarness:
    """The real one: time passes by making every moment it has stored that much older."""

    store: QueueStore
    database: Database

    def now(self) -> dt.datetime:
        """Return the store's time."""
        return SystemClock().now()

    async def advance(self, seconds: float) -> None:
        """Let time pass."""
        await self.database.execute(
            """UPDATE requests SET lease_expires_at = lease_expires_at - make_interval(secs => $1),
               available_at = available_at - make_interval(secs => $1),
               start_deadline = start_deadline - make_interval(secs => $1),
               total_deadline = total_deadline - make_interval(secs => $1)""",
            seconds,
        )
        await self.database.execute(
            "UPDATE undelivered_submits SET created_at = created_at - make_interval(secs => $1)", seconds
        )


def memory_harness(settings: Queue = SETTINGS) -> MemoryHarness:
    """Make the fake."""
    clock = ManualClock()
    return MemoryHarness(MemoryQueueStore(clock, settings), clock)


@asynccontextmanager
async def postgres_harness(
    database: Database, objects: ObjectStore, settings: Queue = SETTINGS
) -> AsyncGenerator[PostgresHarness]:
    """Open the real one."""
    async with open_queue_store(database, objects, settings, SeededChance(3)) as store:
        yield PostgresHarness(store, database)


def submission(
    harness: Harness,
    *,
    options: Options | None = None,
    model_id: ModelId = MODEL,
    body: bytes = b'{"prompt": "a seven"}',
    idempotency_key: str | None = None,
    age_seconds: float = 0.0,
) -> Submission:
    """Make a submission; each one's submit time is a little later than the one's before."""
    moment = harness.now() + dt.timedelta(microseconds=next(_steps)) - dt.timedelta(seconds=age_seconds)
    return Submission(
        request_id=new_request_id(moment, 0, _chance),
        tenant_id=TenantId("tenant-1"),
        key_id=KeyId("key-1"),
        model_id=model_id,
        endpoint="/",
        body=body,
        submitted_at=moment,
        options=Options() if options is None else options,
        idempotency_key=idempotency_key,
        fingerprint=hashlib.sha256(body).digest(),
    )


def offer(
    slots: int = 1,
    *,
    replica: str = REPLICA,
    idle: bool = True,
    hints: Sequence[str] = (),
    model_id: ModelId = MODEL,
    revision: str = REVISION,
    buckets: tuple[tuple[int, int], ...] = EVERY_BUCKET,
) -> Offer:
    """Offer slots of one replica."""
    return Offer(ReplicaId(replica), RevisionId(revision), model_id, buckets, slots, idle, tuple(hints))


def report(lease: Lease, outcome: Outcome = Outcome.SUCCEEDED) -> AttemptReport:
    """Report an attempt of two seconds."""
    start = lease.lease_expires_at - dt.timedelta(seconds=15)
    return AttemptReport(outcome, start, start, start + dt.timedelta(seconds=2), 2.0, {"images": 1.0})


def finish(lease: Lease, state: State = State.SUCCEEDED, body: bytes = b'{"ok": true}') -> Finish:
    """Finish an attempt."""
    outcome = Outcome.SUCCEEDED if state is State.SUCCEEDED else Outcome.MODEL_ERROR
    status_code = 200 if state is State.SUCCEEDED else 500
    answer = Answer(status_code, {"content-type": "application/json", "x-fal-billable-units": "1"}, body)
    return Finish(lease, state, answer, report(lease, outcome))


def requeue(
    lease: Lease, condition: str = "server_error", *, crashed: bool = False, delay_seconds: float = 0.0
) -> Requeue:
    """Give an attempt back."""
    outcome = Outcome.MODEL_CRASH if crashed else Outcome.MODEL_ERROR
    return Requeue(lease, condition, delay_seconds, crashed, "test", report(lease, outcome))
