"""Errors and states -> HTTP, in one table; and the reply value that the whole gateway passes around.

Every answer that the gateway itself originates is made here, so that status, body shape and header twin of an error
cannot disagree (contract, section 1.6); the statuses of fal's request errors stand in `queue/answers`, which the store
writes with too. Decides nothing about when an error occurs. Called by every module of the
gateway.
"""

import math
from collections.abc import Sequence
from typing import assert_never

import msgspec
from starlette.types import Receive, Scope, Send

from forestay.gateway.exchange import SCOPE_KEY, of
from forestay.gateway.protocol import FieldError, FieldErrors, Plain, WireStatus
from forestay.ids import ModelId
from forestay.queue import answers
from forestay.queue.model import FINAL, Answer, ErrorType, State
from forestay.values import hot_value

Header = tuple[bytes, bytes]
JSON_TYPE: Header = (b"content-type", b"application/json")
_encode = msgspec.json.Encoder().encode


@hot_value
class Reply:
    """A whole answer. Also an ASGI app, so that a Starlette endpoint may return it."""

    status_code: int
    body: bytes = b""
    headers: tuple[Header, ...] = (JSON_TYPE,)
    cause: str = ""  # of a refusal: a metric's label
    why: str = ""  # more precisely, for facts alone: the caller is not told

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        del receive
        if SCOPE_KEY in scope:
            of(scope).cause = self.why or self.cause
        length = (b"content-length", b"%d" % len(self.body))
        await send({"type": "http.response.start", "status": self.status_code, "headers": [*self.headers, length]})
        await send({"type": "http.response.body", "body": self.body})


def wire_status(state: State) -> WireStatus:
    """Map a state to fal's three words: WITHHELD is IN_PROGRESS, every final state is COMPLETED."""
    match state:
        case State.QUEUED:
            return "IN_QUEUE"
        case State.LEASED | State.RUNNING | State.CHECKING | State.WITHHELD:
            return "IN_PROGRESS"
        case State.SUCCEEDED | State.FAILED | State.BLOCKED | State.CANCELLED | State.EXPIRED:
            return "COMPLETED"
        case _:
            assert_never(state)


def status_code_of(state: State) -> int:
    """Return the HTTP status of a status poll: 202 until the request is final."""
    return 200 if state in FINAL else 202


def json_reply(status_code: int, value: object, *headers: Header) -> Reply:
    """Answer with JSON."""
    return Reply(status_code, _encode(value), (JSON_TYPE, *headers))


def request_error(kind: ErrorType, detail: str, *headers: Header) -> Reply:
    """Answer with a request (infrastructure) error: fal's flat shape, its only status, and its header twin."""
    return reply_of(answers.request_error(kind, detail), *headers)


def reply_of(answer: Answer, *headers: Header) -> Reply:
    """Answer with what the queue's own table of answers says."""
    said = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers.items())
    return Reply(answer.status_code, answer.body, (*said, *headers), answer.error_type or "")


def bad_request(detail: str) -> Reply:
    """Answer 400 to a header or a query that cannot be honoured."""
    return request_error(ErrorType.BAD_REQUEST, detail)


def plain_error(status_code: int, detail: str, cause: str, *headers: Header) -> Reply:
    """Answer `{"detail": text}`: what fal and FastAPI do where no error type is defined."""
    return Reply(status_code, _encode({"detail": detail}), (JSON_TYPE, *headers), cause)


def field_errors(errors: Sequence[FieldError], cause: str = "validation") -> Reply:
    """Answer 422 in pydantic's shape."""
    return Reply(422, _encode(FieldErrors(list(errors))), (JSON_TYPE,), cause)


def not_authenticated(detail: str) -> Reply:
    """Answer 401."""
    return plain_error(401, detail, "unauthenticated", (b"www-authenticate", b"Key"))


def forbidden(detail: str) -> Reply:
    """Answer 403."""
    return plain_error(403, detail, "forbidden")


def no_access(model_id: ModelId) -> Reply:
    """Answer 401 as fal does when a key may not call a private app."""
    return plain_error(401, f'Cannot access application "{model_id}"', "no_access", (b"www-authenticate", b"Key"))


def unknown_path(path: str) -> Reply:
    """Answer 404 for a path that no route has."""
    return plain_error(404, f"Path {path[:300]} not found", "unknown_path")


def unknown_model(name: str) -> Reply:
    """Answer 404 for a model that is not in the fleet."""
    return plain_error(404, f"Application {name[:300]!r} not found", "unknown_model")


def unknown_request() -> Reply:
    """Answer 404 for an id that is unknown, expired, or another tenant's: the three look alike on purpose."""
    return Reply(404, _NOT_FOUND, (JSON_TYPE,), "unknown_request")


def method_not_allowed(allowed: str) -> Reply:
    """Answer 405 naming what is allowed."""
    return plain_error(405, "Method Not Allowed", "method", (b"allow", allowed.encode()))


def not_ready() -> Reply:
    """Answer 400 to a result asked for too early."""
    return plain_error(400, "Request is still in progress", "in_progress")


def unavailable(detail: str, retry_after_seconds: float) -> Reply:
    """Answer 503 when a dependency is down; no request ever ends with this type, so it is not taken for a result."""
    seconds = max(1, round(retry_after_seconds))
    return request_error(ErrorType.PLATFORM_UNAVAILABLE, detail, (b"retry-after", b"%d" % seconds))


def internal_error(request_id: str) -> Reply:
    """Answer 500 without a trace; the log has it under this id."""
    return request_error(ErrorType.INTERNAL_ERROR, f"Internal error; the operator finds it under {request_id}")


def start_timeout(detail: str, *, by_caller: bool) -> Reply:
    """Answer 504 when a call could not start in time; the header says when the caller's own limit ended it."""
    extra = ((b"x-fal-request-timeout-type", b"user"),) if by_caller else ()
    return request_error(ErrorType.REQUEST_TIMEOUT, detail, *extra)


def too_many(detail: str) -> Reply:
    """Answer 429 of the in-flight limit, with fal's retry header."""
    return request_error(ErrorType.CONCURRENT_REQUESTS_LIMIT, detail, (b"x-fal-needs-retry", b"1"))


def queue_full(length: int) -> Reply:
    """Answer 429 when `fal_max_queue_length` is reached."""
    return plain_error(429, f"The queue has {length} requests, the limit given with this submit", "queue_full")


def too_many_guesses(wait_seconds: float) -> Reply:
    """Answer 429 to a credential that nobody looked at: too many wrong ones came from the same address."""
    seconds = max(1, math.ceil(wait_seconds))
    detail = f"Too many wrong credentials came from your address; correct yours and try again in {seconds} s"
    return plain_error(429, detail, "guessing", (b"retry-after", b"%d" % seconds))


CANCEL_REQUESTED = json_reply(202, Plain("CANCELLATION_REQUESTED"))
ALREADY_COMPLETED = json_reply(
    400, Plain("ALREADY_COMPLETED", "The request has ended already: there is nothing left to cancel")
)
_NOT_FOUND = _encode(
    Plain(
        "NOT_FOUND",
        "This key knows no such request of this application, or it is no longer kept. The answer of a synchronous call "
        "(run, stream) is given once and not stored: submit to the queue what is to be fetched later",
    )
)

CANCELLED_ANSWER = answers.request_error(ErrorType.CLIENT_CANCELLED, "Request was cancelled by the caller")
