"""fal's wire types: what the queue operations answer, field by field (contract, section 1.2 and 1.3).

Structs for msgspec, in fal's words; absent optional fields are left out, mandatory ones are always present. Decides no
status codes (see `responses`). Called by submit, status, result and cancel.
"""

from typing import Literal

import msgspec

WireStatus = Literal["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]


class SubmitAnswer(msgspec.Struct, frozen=True):
    """The answer to a submit. `queue_position` is mandatory for the Python client."""

    request_id: str
    response_url: str
    status_url: str
    cancel_url: str
    queue_position: int
    gateway_request_id: str
    status: WireStatus = "IN_QUEUE"


class LogEntry(msgspec.Struct, frozen=True):
    """One line that the model printed."""

    message: str
    level: str
    source: str
    timestamp: str  # ISO 8601 with timezone


class StatusMetrics(msgspec.Struct, frozen=True, omit_defaults=True):
    """Numbers of a completed request; seconds."""

    inference_time: float | None = None


class StatusAnswer(msgspec.Struct, frozen=True):
    """The status object. The Python client needs `logs` always and `queue_position` while queued."""

    status: WireStatus
    request_id: str
    response_url: str
    status_url: str
    cancel_url: str
    logs: list[LogEntry] | None
    metrics: StatusMetrics
    queue_position: int | msgspec.UnsetType = msgspec.UNSET
    error: str | msgspec.UnsetType = msgspec.UNSET
    error_type: str | msgspec.UnsetType = msgspec.UNSET


class Plain(msgspec.Struct, frozen=True, omit_defaults=True):
    """`{"status": ...}`: the answers of cancel, and of an unknown id. `detail` is what the Python client shows."""

    status: Literal["CANCELLATION_REQUESTED", "ALREADY_COMPLETED", "NOT_FOUND"]
    detail: str = ""


class FieldError(msgspec.Struct, frozen=True, omit_defaults=True):
    """One entry of a model error or of a validation error, in pydantic's shape."""

    loc: list[str | int]
    msg: str
    type: str
    input: object = None
    ctx: dict[str, object] | None = None
    url: str | None = None


class FieldErrors(msgspec.Struct, frozen=True):
    """The body of a 422."""

    detail: list[FieldError]
