"""The life of a request: its states, the one table of transitions, and the values that move through the queue.

Pure words and values, no I/O. The table is drawn in `docs/reference/states.md`; a test compares the two. Who calls it:
the store (which may only write what the table allows), the gateway (to map states to the wire) and the worker.
"""

import dataclasses
import datetime as dt
import enum
import functools
from collections.abc import Mapping

from forestay.ids import (
    SHADOW_CANDIDATE_BUCKET,
    SHADOW_CONTROL_BUCKET,
    KeyId,
    ModelId,
    ReplicaId,
    RequestId,
    RevisionId,
    TenantId,
    WorkerId,
    bucket_of,
)
from forestay.values import hot_value


class State(enum.StrEnum):
    """Where a request stands."""

    QUEUED = "queued"
    LEASED = "leased"
    RUNNING = "running"
    CHECKING = "checking"
    WITHHELD = "withheld"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    BLOCKED = "blocked"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.BLOCKED, State.CANCELLED, State.EXPIRED})
HELD = frozenset({State.LEASED, State.RUNNING, State.CHECKING})  # a worker holds a lease

_STOPPABLE = frozenset({State.CANCELLED, State.EXPIRED})
TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.LEASED, State.BLOCKED, State.FAILED}) | _STOPPABLE,
    State.LEASED: frozenset({State.RUNNING, State.QUEUED, State.FAILED}) | _STOPPABLE,
    State.RUNNING: frozenset({State.CHECKING, State.QUEUED, State.FAILED}) | _STOPPABLE,
    State.CHECKING: frozenset({State.SUCCEEDED, State.BLOCKED, State.WITHHELD, State.QUEUED, State.FAILED})
    | _STOPPABLE,
    State.WITHHELD: frozenset({State.SUCCEEDED, State.BLOCKED, State.FAILED}) | _STOPPABLE,
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset(),
    State.BLOCKED: frozenset(),
    State.CANCELLED: frozenset(),
    State.EXPIRED: frozenset(),
}


def allows(before: State, after: State) -> bool:
    """Tell whether the table has the step `before` -> `after`."""
    return after in TRANSITIONS[before]


@functools.cache
def held_sources(after: State) -> frozenset[State]:
    """Return the held states from which `after` may be written at once.

    A quick attempt need not store each step: a finish may stand for the steps that its report implies, so LEASED may
    become SUCCEEDED in one statement because the table leads there through RUNNING and CHECKING, all of them held.
    """
    sources: set[State] = set()
    frontier = {after}
    while frontier:
        frontier = {state for state in HELD if TRANSITIONS[state] & frontier} - sources
        sources |= frontier
    return frozenset(sources)


class Priority(enum.StrEnum):
    """fal's two classes; `low` yields only to `normal` requests submitted less than the starvation bound later."""

    NORMAL = "normal"
    LOW = "low"


class ErrorType(enum.StrEnum):
    """fal's closed list of request (infrastructure) errors, plus ours where fal has no word."""

    REQUEST_TIMEOUT = "request_timeout"
    STARTUP_TIMEOUT = "startup_timeout"
    RUNNER_SCHEDULING_FAILURE = "runner_scheduling_failure"
    RUNNER_CONNECTION_TIMEOUT = "runner_connection_timeout"
    RUNNER_DISCONNECTED = "runner_disconnected"
    RUNNER_CONNECTION_REFUSED = "runner_connection_refused"
    RUNNER_CONNECTION_ERROR = "runner_connection_error"
    RUNNER_INCOMPLETE_RESPONSE = "runner_incomplete_response"
    RUNNER_SERVER_ERROR = "runner_server_error"
    CLIENT_DISCONNECTED = "client_disconnected"
    CLIENT_CANCELLED = "client_cancelled"
    BAD_REQUEST = "bad_request"
    INTERNAL_ERROR = "internal_error"
    CONCURRENT_REQUESTS_LIMIT = "concurrent_requests_limit"
    RATE_LIMIT = "rate_limit"  # a rate of requests or of device-seconds
    BUDGET_EXCEEDED = "budget_exceeded"  # the month's device-seconds or money
    OUTPUT_CHECK_FAILED = "output_check_failed"  # the model answered, and what it made is broken
    PLATFORM_UNAVAILABLE = "platform_unavailable"  # says nothing about a request: the platform cannot look now


class Shadow(enum.StrEnum):
    """Whether a request is a copy that a rollout has sent, and to whom: its output is nobody's and stays shut away."""

    NO = ""
    CONTROL = "control"
    CANDIDATE = "candidate"


@hot_value
class Options:
    """What a caller chose beside the input. Seconds and UTC throughout."""

    priority: Priority = Priority.NORMAL
    start_deadline: dt.datetime | None = None  # X-Fal-Request-Timeout: must have started by then
    total_deadline: dt.datetime | None = None  # X-Forestay-Deadline: must have finished by then
    hint: str | None = None  # X-Fal-Runner-Hint
    no_retry: bool = False  # X-Fal-No-Retry
    retry_config: Mapping[str, Mapping[str, int]] = dataclasses.field(
        default_factory=dict[str, Mapping[str, int]]
    )  # X-Fal-Retry-Config
    webhook_url: str | None = None
    store_io: bool = True  # X-Fal-Store-IO: 0 -> bodies are deleted an hour after the end
    object_lifetime_seconds: int | None = None  # X-Fal-Object-Lifecycle-Preference
    upload_policy: str | None = None  # X-App-Fal-Upload-Policy: outputs go to the caller's bucket; signed, so secret
    traceparent: str | None = None  # W3C trace context
    forward_headers: Mapping[str, str] = dataclasses.field(
        default_factory=dict[str, str]
    )  # lower-case names, for the model
    features: Mapping[str, float] = dataclasses.field(
        default_factory=dict[str, float]
    )  # what the input says of the work it asks for (steps, pixels, ...): read by the gateway, copied into facts
    risk: float = 0.0  # the highest score that the guard gave the input: how closely the output is looked at
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])  # X-Fal-Tags: for people and bills
    waived: tuple[str, ...] = ()  # "sha256:<hex>" of inputs whose media people let go on appeal; never a caller's word
    shadow: Shadow = Shadow.NO  # never a caller's word


@dataclasses.dataclass(frozen=True, slots=True)
class HeldBack:
    """What a WITHHELD request keeps: its answer as it was judged, what its caller chose, and who made it."""

    answer: "Answer"
    options: Options
    attempt: int
    revision_id: RevisionId


@hot_value
class Submission:
    """A request as the gateway accepts it, before it is stored."""

    request_id: RequestId
    tenant_id: TenantId
    key_id: KeyId
    model_id: ModelId
    endpoint: str  # "/", "/edit"
    body: bytes  # the caller's JSON, verbatim
    submitted_at: dt.datetime
    options: Options = dataclasses.field(default_factory=Options)
    idempotency_key: str | None = None
    fingerprint: bytes = b""  # sha-256 of key, model, endpoint, body and options: equal means "the same submit again"
    predicted_seconds: float = 1.0  # device-seconds that it will take, never 0: what fairness, limits, admission count


def bucket_for(item: Submission) -> int:
    """Return the bucket that says which revision takes it; a rollout's copies have buckets of their own."""
    match item.options.shadow:
        case Shadow.CONTROL:
            return SHADOW_CONTROL_BUCKET
        case Shadow.CANDIDATE:
            return SHADOW_CANDIDATE_BUCKET
        case _:
            return bucket_of(item.request_id)


def predicted_work(predicted_seconds: float, features: Mapping[str, float]) -> dict[str, float]:
    """Return a prediction as the `work` of a fact names it: what the predictor learns from and settlement reads."""
    return {"predicted_seconds": predicted_seconds, **{f"x_{name}": value for name, value in features.items()}}


@hot_value
class Lease:
    """The right of one worker to run one attempt. `attempt` is the fencing term checked at finish."""

    request_id: RequestId
    attempt: int  # 1 for the first
    tenant_id: TenantId
    model_id: ModelId
    endpoint: str
    revision_id: RevisionId
    replica_id: ReplicaId
    worker_id: WorkerId
    body: bytes
    options: Options
    submitted_at: dt.datetime
    lease_expires_at: dt.datetime  # by the database's clock, the authority for leases
    crashed_replicas: tuple[ReplicaId, ...] = ()
    lost_leases: int = 0
    retries_used: Mapping[str, int] = dataclasses.field(default_factory=dict[str, int])  # by condition
    predicted_seconds: float = 1.0  # device-seconds, as predicted at submit


@hot_value
class Answer:
    """What the caller will read: the model's own status, headers and body, or our error in fal's shape."""

    status_code: int
    headers: Mapping[str, str]  # lower-case names
    body: bytes
    error: str | None = None  # a sentence, for status and webhook
    error_type: str | None = None


class Outcome(enum.StrEnum):
    """Closed vocabulary of how an attempt or a request ended, for facts. The cause, not the code."""

    SUCCEEDED = "succeeded"
    CALLER_ERROR = "caller_error"  # the model refused the input (4xx)
    MODEL_ERROR = "model_error"  # the model's own 5xx
    MODEL_CRASH = "model_crash"
    MODEL_TIMEOUT = "model_timeout"
    MEMORY = "memory"
    STARTUP = "startup"  # cold start failed
    WORKER_LOST = "worker_lost"  # lease lost
    UPSTREAM = "upstream"  # a provider failed
    SAFETY = "safety"
    BROKEN_OUTPUT = "broken_output"  # the model answered, and what it made is broken
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    PLATFORM = "platform"


@hot_value
class AttemptReport:
    """What the worker says about one attempt, for facts and for `metrics.inference_time`."""

    outcome: Outcome
    leased_at: dt.datetime
    started_at: dt.datetime | None  # the host accepted it
    finished_at: dt.datetime
    device_seconds: float
    work: Mapping[str, float] = dataclasses.field(
        default_factory=dict[str, float]
    )  # e.g. {"images": 1, "output_bytes": 4096}
    checked_at: dt.datetime | None = None  # the output was judged; None where nothing judges it
    device: str = ""  # what it ran on, as the worker names it


@hot_value
class Finish:
    """End a held request for good: the store refuses it when the fence is stale."""

    lease: Lease
    state: State  # one of FINAL, or WITHHELD
    answer: Answer
    report: AttemptReport


@hot_value
class Requeue:
    """Give a held request back for another attempt not before `delay_seconds` from now."""

    lease: Lease
    condition: str  # the retry condition that was charged: server_error, timeout, connection_error, or "" (free)
    delay_seconds: float
    crashed: bool  # a model crash observed on this replica: counts towards poison
    reason: str
    report: AttemptReport


LINE_WITHHELD = "WITHHELD"


@hot_value
class LogLine:
    """One line that model code printed while it ran a request."""

    request_id: RequestId
    attempt: int
    sequence: int  # increasing per request and attempt
    at: dt.datetime
    level: str  # STDOUT, STDERR, DEBUG, INFO, WARN, ERROR
    message: str
    source: str = "USER"  # FORESTAY: ours; LINE_WITHHELD: no caller is told what it says


@hot_value
class Snapshot:
    """What a status poll needs, of a live or finished request."""

    request_id: RequestId
    tenant_id: TenantId
    key_id: KeyId
    model_id: ModelId
    endpoint: str
    state: State
    attempt: int
    submitted_at: dt.datetime
    order_at: dt.datetime  # virtual submit time: the queue's order
    revision_id: RevisionId | None = None
    replica_id: ReplicaId | None = None
    inference_seconds: float | None = None
    error: str | None = None
    error_type: str | None = None
