"""Facts from outside: what another system saw of a request, read into a fact of ours. Version 1. Pure.

It decides what such a fact must say, which bounds it keeps, and its identity: the same fact sent twice is kept once.
What is wrong is named by its field; the rest of the batch goes on. Called by the admin API's ingest.
"""

import dataclasses
import datetime as dt
import hashlib
import math
import re
import uuid
from collections.abc import Mapping, Sequence

import msgspec

from forestay.errors import UsageError
from forestay.ids import KeyId, ModelId, RequestId, RevisionId, TenantId, WorkerId
from forestay.telemetry import tracing
from forestay.telemetry.causes import SUCCEEDED, Traffic, cause_of, outcomes
from forestay.telemetry.facts import RequestFact
from forestay.telemetry.measures import INVALID

LANE = "outside"
MAX_FACTS = 5_000
MAX_SECONDS = 7 * 86_400.0
_MAX_TEXT = 200
_MAX_WORK = 16
_EARLY = dt.timedelta(minutes=5)  # how far a clock may run ahead
_WORK = {
    "megapixel_steps": "x_pixels",
    "video_seconds": "x_seconds",
    "audio_seconds": "x_seconds",
    "images": "x_images",
}
_SOURCE = re.compile(r"[a-z0-9][a-z0-9._-]{0,59}")


class OutsideFact(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One request as another system saw it; times in seconds."""

    model: str
    status: int
    finished_at: dt.datetime
    seconds: float  # from accepted to finished
    id: str = ""  # its own name for it; empty: the whole fact is its name
    endpoint: str = "/"
    tenant: str = ""
    revision: str = ""
    worker: str = ""
    outcome: str = ""  # ours, from the closed vocabulary; empty: by the status
    error_type: str = ""
    wait_seconds: float | None = None  # from accepted until the model had it
    first_byte_seconds: float | None = None  # from accepted
    device_seconds: float = 0.0
    valid: bool = True  # whether its output is whole
    work: dict[str, float] = {}
    traffic: str = Traffic.CALLER.value
    traceparent: str = ""


class Batch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is sent: who saw it, and facts that are read one by one."""

    source: str
    facts: list[msgspec.Raw]


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """Why one fact was not taken."""

    number: int  # its place in the batch, from 0
    field: str
    reason: str


def read_batch(batch: Batch, now: dt.datetime, retention_seconds: float) -> tuple[list[RequestFact], list[Fault]]:
    """Read what can be read; raises UsageError where the batch as a whole is wrong."""
    if not _SOURCE.fullmatch(batch.source):
        raise UsageError("source", "must be 1 to 60 of a-z 0-9 . _ -, the name of whoever saw these facts")
    if len(batch.facts) > MAX_FACTS:
        raise UsageError("facts", f"holds {len(batch.facts)} facts; send at most {MAX_FACTS} at a time")
    oldest = now - dt.timedelta(seconds=retention_seconds)
    kept: list[RequestFact] = []
    faults: list[Fault] = []
    for number, raw in enumerate(batch.facts):
        try:
            kept.append(_fact(_decoded(raw), batch.source, (oldest, now + _EARLY)))
        except UsageError as error:
            faults.append(Fault(number, error.field, error.message))
    return kept, faults


def _decoded(raw: msgspec.Raw) -> OutsideFact:
    try:
        return msgspec.json.decode(raw, type=OutsideFact)
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = str(error)
        named = re.search(r"\$\.(\w+)", message) or re.search(r"field `(\w+)`", message)
        raise UsageError(named[1] if named else "fact", message) from None


def _fact(said: OutsideFact, source: str, bounds: tuple[dt.datetime, dt.datetime]) -> RequestFact:
    finished_at = said.finished_at if said.finished_at.tzinfo else said.finished_at.replace(tzinfo=dt.UTC)
    _check(said, finished_at, bounds)
    outcome = said.outcome or outcome_of_status(said.status)
    accepted_at = finished_at - dt.timedelta(seconds=said.seconds)
    wait, first = said.wait_seconds, said.first_byte_seconds
    name = said.id or msgspec.json.encode(said).decode()
    return RequestFact(
        request_id=_identity(source, name, accepted_at),
        lane=LANE,
        source=source,
        tenant_id=TenantId(said.tenant),
        key_id=KeyId(""),
        model_id=ModelId(said.model),
        endpoint=said.endpoint,
        revision_id=RevisionId(said.revision) if said.revision else None,
        replica_id=None,
        worker_id=WorkerId(said.worker) if said.worker else None,
        attempts=1,
        state="succeeded" if outcome == SUCCEEDED else "failed",
        outcome=outcome,
        status_code=said.status,
        error_type=said.error_type or None,
        submitted_at=accepted_at,
        started_at=None if wait is None else accepted_at + dt.timedelta(seconds=wait),
        first_byte_at=None if first is None else accepted_at + dt.timedelta(seconds=first),
        answered_at=None if wait is None else finished_at,
        finished_at=finished_at,
        device_seconds=said.device_seconds,
        work=_work(said),
        traffic=said.traffic,
        cause=cause_of(outcome, said.error_type),
        traceparent=said.traceparent or None,
    )


def outcome_of_status(status: int) -> str:
    """Return what a status alone says: 499 is a caller that left, 502 to 504 something behind the one that answered."""
    if status < 400:
        return SUCCEEDED
    if status == 499:
        return "cancelled"
    if status < 500:
        return "caller_error"
    return "upstream" if status in {502, 503, 504} else "model_error"


def _check(said: OutsideFact, finished_at: dt.datetime, bounds: tuple[dt.datetime, dt.datetime]) -> None:
    for field in ("model", "endpoint", "tenant", "revision", "worker", "error_type", "id"):
        text: str = getattr(said, field)
        if len(text) > _MAX_TEXT or any(ord(letter) < 32 for letter in text):
            raise UsageError(field, f"must be one line of at most {_MAX_TEXT} characters")
    if not said.model:
        raise UsageError("model", "is empty; name the model, owner/alias for one")
    if not 100 <= said.status <= 599:
        raise UsageError("status", f"{said.status} is no HTTP status")
    if not bounds[0] <= finished_at <= bounds[1]:
        raise UsageError("finished_at", "lies in the future, or further back than facts are kept")
    _within("seconds", said.seconds, MAX_SECONDS)
    _within("wait_seconds", said.wait_seconds, said.seconds)
    _within("first_byte_seconds", said.first_byte_seconds, said.seconds)
    _within("device_seconds", said.device_seconds, MAX_SECONDS * 1_000)
    _one_of("outcome", said.outcome, ("", *outcomes()))
    _one_of("traffic", said.traffic, [item.value for item in Traffic])
    if len(said.work) > _MAX_WORK:
        raise UsageError("work", f"has more than {_MAX_WORK} units")
    for unit, amount in said.work.items():
        _one_of("work", unit, list(_WORK))
        _within("work", amount, 1e12)
    if said.traceparent and tracing.read(said.traceparent) is None:
        raise UsageError("traceparent", "is no W3C traceparent such as 00-<32 hex>-<16 hex>-01")


def _within(field: str, value: float | None, most: float) -> None:
    if value is not None and not (math.isfinite(value) and 0.0 <= value <= most):
        raise UsageError(field, f"must be a number from 0 to {most:g}")


def _one_of(field: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise UsageError(field, f"must be one of {', '.join(name for name in allowed if name)}")


def _work(said: OutsideFact) -> Mapping[str, float]:
    """Write amounts as the inputs of our own requests speak of them, so that they are read alike."""
    done: dict[str, float] = {}
    for unit, amount in said.work.items():
        done[_WORK[unit]] = amount * 1e6 if unit == "megapixel_steps" else amount
    if "video_seconds" in said.work:
        done.setdefault("x_frames", 1.0)  # what tells seconds of video from those of sound
    if not said.valid:
        done[INVALID] = 1.0
    return done


def _identity(source: str, name: str, accepted_at: dt.datetime) -> RequestId:
    """Return an id in the form of ours, the same whenever the same fact is sent."""
    digest = hashlib.blake2b(f"{source}\n{name}".encode(), digest_size=16).digest()
    drawn = int.from_bytes(digest, "big")
    milliseconds = int(accepted_at.timestamp() * 1000)
    value = (milliseconds << 80) | (0x7 << 76) | ((drawn >> 64 & 0xFFF) << 64) | (0b10 << 62) | (drawn & (1 << 62) - 1)
    return RequestId(uuid.UUID(int=value))
