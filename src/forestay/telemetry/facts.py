"""Facts: one append-only row per request, per attempt and per delivered notice, what every later judge reads.

Two ways lead here. The queue writes a finish's facts into `fact_outbox` in the statement that finishes; `ship` moves
them into the facts tables, which may be in another database, each exactly once by its key. The direct lane has no row
in the queue: the gateway hands `FactWriter` what happened, in batches off the path; a crash may lose the last second.
Whoever writes adds what follows from a fact alone: the cause of a failure (`causes`) and whose traffic it was. Each row
gets a position in order of commit. It decides nothing else about what facts mean.
"""

import datetime as dt
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import cast

import msgspec

from forestay.clock import Clock
from forestay.ids import KeyId, ModelId, ReplicaId, RequestId, RevisionId, TenantId, WorkerId
from forestay.storage.postgres import Connection, Database, load_queries
from forestay.telemetry.causes import Traffic, cause_of, traffic_of
from forestay.telemetry.logs import wide_line
from forestay.telemetry.measures import durations
from forestay.telemetry.poll_facts import PollMinute

_MOMENTS = ("submitted_at", "started_at", "answered_at", "checked_at", "finished_at")
_TOLD = (
    *("request_id", "model_id", "endpoint", "tenant_id", "key_id", "revision_id", "replica_id", "worker_id", "device"),
    *("state", "outcome", "cause", "status_code", "error_type", "attempts", "device_seconds", "traffic", "traceparent"),
)
TABLES = ("request_facts", "attempt_facts", "delivery_facts")
_BY_DAY = (*TABLES, "poll_facts")  # partitioned alike; counts of polls are not exported: they tell of no request
DAYS_AHEAD = 3
_BATCHES_AT_ONCE = 200
_MOST_ROUNDS = 100
_SQL = load_queries("forestay.telemetry", "sql/facts.sql")
Fact = dict[str, object]
Settler = Callable[[Connection, Sequence[Fact], Sequence[Fact]], Awaitable[None]]  # requests' facts, attempts' facts


class RequestFact(msgspec.Struct, frozen=True, gc=False):
    """What happened to one request that never was in the queue."""

    request_id: RequestId
    lane: str  # direct | stream | realtime
    tenant_id: TenantId
    key_id: KeyId
    model_id: ModelId
    endpoint: str
    revision_id: RevisionId | None
    replica_id: ReplicaId | None
    attempts: int
    state: str
    outcome: str  # the closed vocabulary of queue/model.py, Outcome
    status_code: int
    error_type: str | None
    submitted_at: dt.datetime
    started_at: dt.datetime | None
    finished_at: dt.datetime
    device_seconds: float
    work: Mapping[str, float] = msgspec.field(default_factory=dict[str, float])
    tags: Mapping[str, str] | None = None  # X-Fal-Tags
    source: str = ""  # who saw it; empty: ourselves
    traffic: str = "caller"  # telemetry/causes.py, Traffic
    cause: str | None = None  # telemetry/causes.py, Cause; None without a failure
    worker_id: WorkerId | None = None
    queued_at: dt.datetime | None = None
    first_byte_at: dt.datetime | None = None  # of a stream
    answered_at: dt.datetime | None = None
    traceparent: str | None = None


async def ship(
    main: Database, facts: Database, settlers: Sequence[Settler] = (), probe_tenants: Collection[str] = ()
) -> int:
    """Move what waits in the outbox into the facts tables; returns how many facts went.

    The facts are committed before the outbox forgets them; a crash in between ships them again onto their own keys.
    Settlers see each fact once: what they write in the main database commits with the outbox's forgetting. Facts of
    `probe_tenants` are marked as probes.
    """
    total = 0
    for _ in range(_MOST_ROUNDS):
        async with main.transaction() as connection:
            batches = await connection.fetch(_SQL["outbox"], _BATCHES_AT_ONCE)
            found = [fact for batch in batches for fact in msgspec.json.decode(batch["facts"], type=list[Fact])]
            for fact in found:
                _explain(fact, probe_tenants)
            requests, attempts = split(found)
            await _keep(facts, requests, attempts, [fact for fact in found if fact["kind"] == "delivery"])
            for settle in settlers:
                await settle(connection, _billed(requests), _billed(attempts))
            await connection.execute(_SQL["shipped"], [batch["batch_id"] for batch in batches])
        for fact in requests:
            _tell(fact)
        total += len(found)
        if len(batches) < _BATCHES_AT_ONCE:
            break
    return total


def _billed(found: Sequence[Fact]) -> list[Fact]:
    """Leave out what is nobody's to pay: copies that rollouts sent."""
    return [fact for fact in found if fact["traffic"] != Traffic.SHADOW]


def split(found: Sequence[Fact]) -> tuple[list[Fact], list[Fact]]:
    """Sort facts into those of requests and those of attempts; a request's fact may carry its last attempt's."""
    requests = [fact for fact in found if fact["kind"] == "request"]
    attempts = [fact for fact in found if fact["kind"] == "attempt"]
    for fact in requests:
        if fact["has_attempt"]:
            finished_at = fact["answered_at"] or fact["finished_at"]
            attempts.append({**fact, "attempt": fact["attempts"], "finished_at": finished_at})
    return requests, attempts


def _explain(fact: Fact, probe_tenants: Collection[str]) -> None:
    """Add what follows from the fact: whose traffic, which cause, when the model's answer was whole."""
    fact["traffic"] = traffic_of(str(fact["tenant_id"]), probe_tenants)
    if fact["kind"] != "delivery":
        error_type = fact.get("error_type")
        fact["cause"] = cause_of(str(fact["outcome"]), error_type if isinstance(error_type, str) else None)
        fact["answered_at"] = fact.get("attempt_finished_at")


def _tell(fact: Fact) -> None:
    """Log one wide line of a request that was in the queue: how it ended, where, and how long each stage took."""
    known = {**fact, **{name: _moment(fact.get(name)) for name in _MOMENTS}}
    took = {f"{measure.value}_seconds": round(seconds, 6) for measure, seconds in durations(known).items()}
    said = {name: fact.get(name) for name in _TOLD}
    wide_line("telemetry", "request.ended", cast("dt.datetime", known["finished_at"]), {**said, **took})


def _moment(value: object) -> dt.datetime | None:
    return None if value is None else dt.datetime.fromisoformat(str(value))


async def _keep(
    facts: Database, requests: Sequence[object], attempts: Sequence[object], deliveries: Sequence[object] = ()
) -> None:
    rows = (("keep_requests", requests), ("keep_attempts", attempts), ("keep_deliveries", deliveries))
    if not any(batch for _, batch in rows):
        return
    async with facts.transaction() as connection:
        await connection.execute(_SQL["take_turn"])
        for query, batch in rows:
            if batch:
                await connection.execute(_SQL[query], msgspec.json.encode(batch).decode())


async def make_partitions(facts: Database, clock: Clock) -> int:
    """Make the missing day partitions of today and the coming days; returns how many were made."""
    today = clock.now().astimezone(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    made = 0
    for table in _BY_DAY:
        for offset in range(DAYS_AHEAD + 1):
            day = today + dt.timedelta(days=offset)
            bounds = (day.isoformat(), (day + dt.timedelta(days=1)).isoformat())
            created = await facts.fetchval(_SQL["make_partition"], table, day.strftime("%Y%m%d"), *bounds)
            made += created is True
    return made


async def drop_partitions(facts: Database, before: dt.datetime) -> list[str]:
    """Drop the partitions whose whole day lies before `before`; returns their names."""
    suffix = before.astimezone(dt.UTC).strftime("%Y%m%d")
    return [row[0] for table in _BY_DAY for row in await facts.fetch(_SQL["drop_partitions"], table, suffix)]


async def keep_partitions(facts: Database, clock: Clock, retention_seconds: float) -> int:
    """Make the partitions of the coming days and drop those past their time; the controller's loop calls it."""
    dropped = await drop_partitions(facts, clock.now() - dt.timedelta(seconds=retention_seconds))
    return await make_partitions(facts, clock) + len(dropped)


class FactWriter:
    """Writes what the gateway has gathered, a batch a statement: facts of the direct lane, counts of polls."""

    def __init__(self, facts: Database) -> None:
        self._facts = facts

    async def write(self, batch: Sequence[RequestFact]) -> None:
        """Write them all or none; raises Unavailable. Writing one twice keeps one."""
        await _keep(self._facts, batch, ())

    async def write_polls(self, batch: Sequence[PollMinute]) -> None:
        """Write them all or none; raises Unavailable. Writing one twice keeps one."""
        async with self._facts.transaction() as connection:
            await connection.execute(_SQL["take_turn"])
            await connection.execute(_SQL["keep_polls"], msgspec.json.encode(batch).decode())
