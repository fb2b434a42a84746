"""The queue's port over Postgres: every operation one statement over arrays, fenced by attempt and worker.

It decides nothing about retries (queue/retry), answers (queue/answers) or retention times (its caller); it keeps the
promises of the port: acknowledged means committed, a stale fence changes nothing, an ended request has exactly one
answer. Gateways, workers and the controller open one each with `open_queue_store`.
"""

import asyncio
import dataclasses
import datetime as dt
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import cast

from forestay.chance import Chance
from forestay.clock import SystemClock
from forestay.errors import Unavailable
from forestay.ids import KeyId, ModelId, RequestId, RevisionId, TenantId, WorkerId, first_request_id_at
from forestay.media.urls import stored_ids
from forestay.queue import answers, claiming, outcomes, partitions, retry, rows
from forestay.queue.group_commit import BatchLimits, GroupCommit
from forestay.queue.model import (
    FINAL,
    TRANSITIONS,
    Answer,
    AttemptReport,
    ErrorType,
    Finish,
    HeldBack,
    Lease,
    LogLine,
    Outcome,
    Requeue,
    Snapshot,
    State,
    Submission,
    held_sources,
)
from forestay.queue.pressure import HORIZONS_SECONDS, EarlyEnd, Pressure, Queued, Turn
from forestay.queue.store import Accepted, Held, IdempotencyConflict, Offer, QueueFull, Running, Stored, Unfinished
from forestay.queue.submitting import Submitter
from forestay.settings import Queue
from forestay.storage.objects import ObjectStore
from forestay.storage.postgres import Connection, Database, load_queries

_SQL = load_queries("forestay.queue", "sql/queue.sql")
_PRESSURE = load_queries("forestay.queue", "sql/pressure.sql")
_LIVE = frozenset(State) - FINAL
_OBJECTS_AT_ONCE = 16


class PostgresQueueStore:
    """The durable queue in Postgres, large bodies in the object store."""

    def __init__(
        self, database: Database, objects: ObjectStore, settings: Queue, chance: Chance, default_in_flight: int = 0
    ) -> None:
        self._database = database
        self._default_in_flight = default_in_flight or None
        self._objects = objects
        self._settings = settings
        self._chance = chance
        self._policy = retry.RetryPolicy(
            settings.max_attempts, settings.poison_replicas, settings.retry_base_seconds, settings.retry_cap_seconds
        )
        self._clock = SystemClock()
        submitter = Submitter(database, settings, _SQL, self._clock, chance)
        self._submits = GroupCommit(submitter.flush, BatchLimits(settings.group_commit_seconds))
        self._object_slots = asyncio.Semaphore(_OBJECTS_AT_ONCE)

    async def run(self) -> None:
        """Commit submits until cancelled; `open_queue_store` runs it."""
        await self._submits.run()

    async def submit(
        self, submissions: Sequence[Submission], max_queue_length: Mapping[RequestId, int]
    ) -> list[Accepted | IdempotencyConflict | QueueFull]:
        """Commit all, together with what others submit at the same time; results in order."""
        entries = [await self._entry(item, max_queue_length.get(item.request_id)) for item in submissions]
        if len(entries) == 1:  # every submit over HTTP: nothing to gather
            return [await self._submits.add(entries[0])]
        return list(await asyncio.gather(*(self._submits.add(entry) for entry in entries)))

    async def _entry(self, item: Submission, limit: int | None) -> rows.Entry:
        key = None
        if len(item.body) > self._settings.inline_body_bytes:
            key = f"inputs/{item.request_id}"
            await self._objects.put(key, item.body)
        return rows.Entry(item, key, limit, self._clock.monotonic() + self._settings.submit_patience_seconds)

    async def refuse(self, submission: Submission, answer: Answer) -> None:
        """Store a request that is blocked at submit, with its answer and its fact; its input is not kept here."""
        await self._database.execute(_SQL["refuse"], *rows.refused_row(submission, answer))

    async def publish(self, submission: Submission, answer: Answer) -> None:
        """Store a request that has succeeded though nothing ran, with its fact and its webhook."""
        key = None
        if len(answer.body) > self._settings.inline_body_bytes:
            key = f"results/{submission.request_id}/published"
            await self._objects.put(key, answer.body)
        await self._database.execute(
            _SQL["publish"], *rows.refused_row(submission, answer), key, submission.options.webhook_url
        )

    async def mark_undelivered(self, request_id: RequestId, key_id: KeyId, fingerprint: bytes) -> None:
        """Let an identical retry adopt this request once."""
        await self._database.execute(_SQL["mark_undelivered"], key_id, fingerprint, request_id)

    async def claim(self, worker_id: WorkerId, offers: Sequence[Offer], lease_seconds: float) -> list[Lease]:
        """Lease queued requests by turns; first those whose hint a replica carries, as far as turns allow."""
        claim = claiming.Claim(worker_id, lease_seconds, self._default_in_flight)
        records = await claiming.claim_records(self._database, claim, offers)
        inline = [rows.lease_from(record, worker_id) for record in records if record["body_key"] is None]
        stored = [(rows.lease_from(record, worker_id), record["body_key"]) for record in records if record["body_key"]]
        if not stored:
            return inline
        fetched = await asyncio.gather(*(self._with_body(lease, key) for lease, key in stored))
        return inline + [lease for lease in fetched if lease is not None]

    async def _with_body(self, lease: Lease, key: str) -> Lease | None:
        """Fetch a large body; without it the lease goes back (store silent) or the request fails (object gone)."""
        report = _no_attempt(lease, Outcome.PLATFORM)
        try:
            async with self._object_slots:
                body = await self._objects.get(key)
        except Unavailable:
            await self.requeue([Requeue(lease, "", 1.0, crashed=False, reason="object store silent", report=report)])
            return None
        if body is None:
            answer = answers.request_error(ErrorType.INTERNAL_ERROR, "The request's stored input is missing.")
            await self.finish([Finish(lease, State.FAILED, answer, report)])
            return None
        return dataclasses.replace(lease, body=body)

    async def start(self, leases: Sequence[Lease]) -> set[rows.Fence]:
        """LEASED -> RUNNING; returns those still held."""
        return await self._step(leases, State.RUNNING)

    async def checking(self, leases: Sequence[Lease]) -> set[rows.Fence]:
        """RUNNING -> CHECKING (a LEASED one passes RUNNING in the same statement); returns those still held."""
        return await self._step(leases, State.CHECKING)

    async def _step(self, leases: Sequence[Lease], state: State) -> set[rows.Fence]:
        sources = [source.value for source in held_sources(state)]
        columns = rows.lease_columns(leases)
        return rows.fences_of(await self._database.fetch(_SQL["step"], *columns, state.value, sources))

    async def carry(self, lease: Lease, text: str) -> bool:
        """Keep for later attempts what this one has begun elsewhere."""
        fence = (lease.request_id, lease.attempt, lease.worker_id)
        return bool(await self._database.fetch(_SQL["carry"], *fence, text))

    async def carried(self, lease: Lease) -> str | None:
        """Read what earlier attempts left."""
        fence = (lease.request_id, lease.attempt, lease.worker_id)
        return cast("str | None", await self._database.fetchval(_SQL["carried"], *fence))

    async def renew(self, worker_id: WorkerId, leases: Sequence[rows.Fence], lease_seconds: float) -> list[Held]:
        """Extend the leases that are still this worker's."""
        columns = rows.fence_columns(leases)
        records = await self._database.fetch(_SQL["renew"], worker_id, *columns, lease_seconds)
        return [Held(RequestId(record[0]), record[1], record[2]) for record in records]

    async def finish(self, items: Sequence[Finish]) -> set[rows.Fence]:
        """End held requests with their answers; returns those whose fence held."""
        withheld = [item for item in items if item.state is State.WITHHELD]
        final = [item for item in items if item.state is not State.WITHHELD]
        endings = [
            rows.finish_ending(item, await self._store_body(item.lease, item.answer), held_sources(item.state))
            for item in final
        ]
        done = await self._end(self._database, endings) if endings else set[rows.Fence]()
        return done | await self._withhold(withheld)

    async def _withhold(self, items: Sequence[Finish]) -> set[rows.Fence]:
        if not items:
            return set()
        for item in items:  # kept for whoever resolves it; under the attempt's own key, whatever its size
            await self._objects.put(_result_key(item.lease.request_id, item.lease.attempt), item.answer.body)
        columns, sources = rows.withhold_columns(items), [state.value for state in held_sources(State.WITHHELD)]
        return rows.fences_of(await self._database.fetch(_SQL["withhold"], *columns, sources))

    async def _store_body(self, lease: Lease, answer: Answer) -> str | None:
        if len(answer.body) <= self._settings.inline_body_bytes:
            return None
        key = _result_key(lease.request_id, lease.attempt)
        await self._objects.put(key, answer.body)
        return key

    async def _end(self, database: Database | Connection, endings: Sequence[rows.Ending]) -> set[rows.Fence]:
        return rows.fences_of(await database.fetch(_SQL["end"], *rows.end_columns(endings)))

    async def requeue(self, items: Sequence[Requeue]) -> set[rows.Fence]:
        """Put held requests back, or fail those past their caps; returns those whose fence held."""
        back: list[rows.GivenBack] = []
        over: list[rows.Ending] = []
        for item in items:
            fate = outcomes.after_requeue(item, self._policy)
            over.append(fate) if isinstance(fate, rows.Ending) else back.append(fate)
        done = await self._end(self._database, over) if over else set[rows.Fence]()
        if back:
            done |= rows.fences_of(await self._database.fetch(_SQL["requeue"], *rows.requeue_columns(back)))
        return done

    async def abandon(self, lease: Lease, report: AttemptReport) -> None:
        """Record the fact of an attempt whose request was cancelled or expired; a rescue has recorded its own."""
        fact = rows.abandoned_fact(lease, report)
        await self._database.execute(_SQL["abandon"], fact, lease.request_id, lease.attempt)

    async def cancel(self, request_id: RequestId, answer: Answer) -> State | None:
        """Cancel in whatever state; returns the state before."""
        ending = rows.Ending(request_id, _sources(State.CANCELLED), State.CANCELLED, answer, None, Outcome.CANCELLED)
        records = await self._database.fetch(_SQL["end"], *rows.end_columns([ending]))
        if records:
            return State(records[0]["state_before"])
        found = (await self.snapshots([request_id])).get(request_id)
        return None if found is None else found.state

    async def held_back(self, request_id: RequestId) -> HeldBack | None:
        """Read what a WITHHELD request keeps; None when it is not withheld."""
        record = await self._database.fetchrow(_SQL["held_back"], request_id)
        if record is None:
            return None
        body = await self._objects.get(_result_key(request_id, record["attempt"]))
        answer = rows.held_back(record["withheld"])
        return HeldBack(
            dataclasses.replace(answer, body=body or answer.body),
            rows.decode_options(record["options"]),
            record["attempt"],
            RevisionId(record["revision_id"] or ""),
        )

    async def withheld(self, request_id: RequestId, state: State, answer: Answer | None) -> bool:
        """Resolve a WITHHELD request; without an answer its own is published as the model gave it."""
        if state not in TRANSITIONS[State.WITHHELD] or (answer is None and state is not State.SUCCEEDED):
            return False
        outcome = rows.RESOLVED.get(state, Outcome.EXPIRED)
        if answer is None:
            record = await self._database.fetchrow(_SQL["held_back"], request_id)
            if record is None:
                return False
            own, key = rows.held_back(record["withheld"]), _result_key(request_id, record["attempt"])
            named = stored_ids(await self._objects.get(key) or b"")
            ending = rows.Ending(
                request_id, frozenset({State.WITHHELD}), state, own, key, outcome, record["attempt"], media_ids=named
            )
            return bool(await self._end(self._database, [ending]))
        body_key = None
        if len(answer.body) > self._settings.inline_body_bytes:
            body_key = f"results/{request_id}/resolved"
            await self._objects.put(body_key, answer.body)
        named = stored_ids(answer.body)
        ending = rows.Ending(request_id, frozenset({State.WITHHELD}), state, answer, body_key, outcome, media_ids=named)
        return bool(await self._end(self._database, [ending]))

    async def snapshots(self, request_ids: Sequence[RequestId]) -> dict[RequestId, Snapshot]:
        """Read many statuses in one statement."""
        if not request_ids:
            return {}
        records = await self._database.fetch(_SQL["snapshots"], request_ids, *rows.time_bounds(request_ids))
        return {RequestId(record["request_id"]): rows.snapshot_from(record) for record in records}

    async def result(self, request_id: RequestId) -> Stored | None:
        """Read a finished request's answer; None if unknown or not finished."""
        record = await self._database.fetchrow(_SQL["result"], request_id)
        if record is None:
            return None
        body, key = cast("bytes | None", record["body"]), cast("str | None", record["body_key"])
        if body is None and key is not None:
            body = await self._objects.get(key)
        if body is None:
            answer = answers.no_longer_kept()
        else:
            headers = rows.answer_headers(record["headers"])
            answer = Answer(record["status_code"], headers, body, record["error"], record["error_type"])
        return Stored(rows.snapshot_from(record), answer, record["finished_at"])

    async def append_logs(self, lines: Sequence[LogLine]) -> None:
        """Keep log lines until the request's retention ends."""
        if lines:
            await self._database.execute(_SQL["append_logs"], *rows.log_columns(lines))

    async def logs(self, request_id: RequestId, after: int) -> list[tuple[int, LogLine]]:
        """Read the log lines with a position greater than `after`."""
        return [rows.log_from(record) for record in await self._database.fetch(_SQL["logs"], request_id, after)]

    async def queued_ahead(self, model_ids: Sequence[ModelId], most: int = 1000) -> dict[ModelId, list[dt.datetime]]:
        """Sample the queue's order times per model."""
        sample: dict[ModelId, list[dt.datetime]] = {model_id: [] for model_id in model_ids}
        for record in await self._database.fetch(_SQL["queued_ahead"], model_ids, most):
            sample[record["model_id"]].append(record["order_at"])
        return sample

    async def backlog(self) -> dict[ModelId, int]:
        """Count waiting requests per model, at most a thousand of each."""
        return {ModelId(record[0]): record[1] for record in await self._database.fetch(_SQL["backlog"])}

    async def pressure(self) -> list[Pressure]:
        """Add up what waits and what is held, per model, tenant and priority."""
        return rows.pressure_from(await self._database.fetch(_PRESSURE["pressure"], HORIZONS_SECONDS))

    async def deadlines_wait(self) -> bool:
        """Tell whether any waiting request has a deadline to start."""
        return bool(await self._database.fetchval(_PRESSURE["deadlines_wait"]))

    async def turns(self) -> dict[tuple[str, TenantId], Turn]:
        """Tell where tenants stand in the turns of each pool."""
        return {
            (item.pool, item.tenant_id): Turn(
                item.virtual_time - item.pool_virtual_time
                if item.active
                else max(item.virtual_time - item.pool_virtual_time, 0.0),
                item.weight,
            )
            for item in await claiming.PostgresTurns(self._database).accounts()
        }

    async def queued(self, model_id: ModelId, limit: int) -> list[Queued]:
        """Read a model's waiting requests, the most urgent first."""
        return [rows.queued_from(record) for record in await self._database.fetch(_PRESSURE["queued"], model_id, limit)]

    async def end_early(self, items: Sequence[EarlyEnd]) -> list[RequestId]:
        """End queued requests that cannot be served in time."""
        waiting = frozenset({State.QUEUED})
        endings = [
            rows.Ending(item.request_id, waiting, item.state, item.answer, None, item.outcome, item.attempt)
            for item in items
        ]
        return sorted(request_id for request_id, _ in await self._end(self._database, endings)) if endings else []

    async def lost_to(self, worker_id: WorkerId, leases: Sequence[rows.Fence]) -> set[rows.Fence]:
        """Tell which of these leases the worker no longer holds."""
        records = await self._database.fetch(_SQL["still_held"], worker_id, *rows.fence_columns(leases))
        return set(leases) - rows.fences_of(records)

    async def rescue(self, limit: int) -> list[tuple[RequestId, State]]:
        """Requeue (or fail) requests whose lease ran out."""
        done: list[tuple[RequestId, State]] = []
        async with self._database.transaction() as connection:
            back: list[rows.GivenBack] = []
            over: list[rows.Ending] = []
            for record in await connection.fetch(_SQL["lost_leases"], limit):
                fate = outcomes.after_lost_lease(record, self._policy, self._chance.uniform(0.0, 1.0))
                over.append(fate) if isinstance(fate, rows.Ending) else back.append(fate)
            if back:
                records = await connection.fetch(_SQL["requeue"], *rows.requeue_columns(back))
                done += [(RequestId(record[0]), State.QUEUED) for record in records]
            if over:
                done += [(request_id, State.FAILED) for request_id, _ in await self._end(connection, over)]
        return done

    async def expire(self, limit: int) -> list[RequestId]:
        """End requests whose start or total deadline has passed."""
        async with self._database.transaction() as connection:
            endings: dict[RequestId, rows.Ending] = {}
            for record in await connection.fetch(_SQL["overdue"], limit):
                request_id, in_total = RequestId(record["request_id"]), bool(record["in_total"])
                answer = answers.expired_in_total() if in_total else answers.expired_before_start()
                sources = _sources(State.EXPIRED) if in_total else frozenset({State.QUEUED})
                endings[request_id] = rows.Ending(
                    request_id, sources, State.EXPIRED, answer, None, Outcome.EXPIRED, record["attempt"]
                )
            if not endings:
                return []
            return [request_id for request_id, _ in await self._end(connection, list(endings.values()))]

    async def unfinished(
        self, *, tenant_id: TenantId | None, key_id: KeyId | None, model_id: ModelId | None
    ) -> list[Unfinished]:
        """List what has not ended, of one tenant, key and model (None: any)."""
        records = await self._database.fetch(_SQL["unfinished"], tenant_id, key_id, model_id)
        return [Unfinished(*record) for record in records]

    async def running(self) -> list[Running]:
        """Count what workers hold, a row a tenant, key and model."""
        return [Running(*record) for record in await self._database.fetch(_SQL["running"])]

    async def owner_of(self, request_id: RequestId) -> TenantId | None:
        """Tell whose request this is."""
        owner = await self._database.fetchval(_SQL["owner_of"], request_id)
        return TenantId(owner) if isinstance(owner, str) else None

    async def forget(self, before: dt.datetime) -> list[str]:
        """Drop finished requests, logs and inputs submitted before; returns object keys that may now be deleted."""
        bound = first_request_id_at(before)
        keys = {record[0] for record in await self._database.fetch(_SQL["keys_before"], bound)}
        await partitions.drop_partitions(self._database, before)
        gone = await self._database.fetch(_SQL["forget_finished"], bound)
        gone += await self._database.fetch(_SQL["forget_ephemeral"])
        await self._database.execute(_SQL["forget_logs"], bound)
        await self._database.execute(_SQL["forget_keys"], before, self._settings.adoption_seconds)
        keys.update(key for record in gone for key in record)
        return sorted(key for key in keys if key is not None)


@asynccontextmanager
async def open_queue_store(
    database: Database, objects: ObjectStore, settings: Queue, chance: Chance, default_in_flight: int = 0
) -> AsyncGenerator[PostgresQueueStore]:
    """Open the queue over `database`: its group commit runs while the context lasts.

    `default_in_flight`: how many requests of a tenant may run where no stored rule says; 0 for any number.
    """
    store = PostgresQueueStore(database, objects, settings, chance, default_in_flight)
    failure: Exception | None = None
    async with asyncio.TaskGroup() as group:
        running = group.create_task(store.run())
        await asyncio.sleep(0)  # let it begin: submits are refused before
        try:
            yield store
        except Exception as error:  # noqa: BLE001 - raised below, so that the group does not wrap the caller's own error
            failure = error
        finally:
            running.cancel()
    if failure is not None:
        raise failure


def _sources(state: State) -> frozenset[State]:
    """Return every state from which the table allows `state`."""
    return frozenset(before for before in _LIVE if state in TRANSITIONS[before])


def _result_key(request_id: RequestId, attempt: int) -> str:
    return f"results/{request_id}/{attempt}"


def _no_attempt(lease: Lease, outcome: Outcome) -> AttemptReport:
    """Report an attempt that ended before the model saw it."""
    return AttemptReport(outcome, lease.submitted_at, None, lease.lease_expires_at, 0.0)
