"""The answers that the platform itself gives, in fal's shape for request errors: one place for all of them.

`{"detail": text, "error_type": type}` with the same type in `X-Fal-Error-Type`; a 499 says its text as `message` too.
The store writes them when it ends a request without a model's answer; gateway and worker use `request_error` for
theirs. Pure.
"""

from collections.abc import Mapping

import msgspec

from forestay.queue.model import Answer, ErrorType
from forestay.queue.retry import GiveUp

CLIENT_GONE = 499
_STATUS: Mapping[ErrorType, int] = {
    ErrorType.REQUEST_TIMEOUT: 504,
    ErrorType.STARTUP_TIMEOUT: 504,
    ErrorType.RUNNER_SCHEDULING_FAILURE: 503,
    ErrorType.RUNNER_CONNECTION_TIMEOUT: 503,
    ErrorType.RUNNER_DISCONNECTED: 503,
    ErrorType.RUNNER_CONNECTION_REFUSED: 503,
    ErrorType.RUNNER_CONNECTION_ERROR: 503,
    ErrorType.RUNNER_INCOMPLETE_RESPONSE: 502,
    ErrorType.RUNNER_SERVER_ERROR: 500,
    ErrorType.CLIENT_DISCONNECTED: CLIENT_GONE,
    ErrorType.CLIENT_CANCELLED: CLIENT_GONE,
    ErrorType.BAD_REQUEST: 400,
    ErrorType.INTERNAL_ERROR: 500,
    ErrorType.CONCURRENT_REQUESTS_LIMIT: 429,
    ErrorType.RATE_LIMIT: 429,
    ErrorType.BUDGET_EXCEEDED: 429,
    ErrorType.OUTPUT_CHECK_FAILED: 502,
    ErrorType.PLATFORM_UNAVAILABLE: 503,
}


def request_error(error_type: ErrorType, detail: str, headers: Mapping[str, str] | None = None) -> Answer:
    """Build the answer for a request error; `detail` is a sentence for the caller, without prompts or secrets."""
    status_code = _STATUS[error_type]
    body = {"detail": detail, "error_type": error_type.value}
    if status_code == CLIENT_GONE:  # HTTP has no phrase for it, and the JavaScript client shows `message` or the phrase
        body["message"] = detail
    return Answer(
        status_code=status_code,
        headers={"content-type": "application/json", "x-fal-error-type": error_type.value, **(headers or {})},
        body=msgspec.json.encode(body),
        error=detail,
        error_type=error_type.value,
    )


def expired_before_start() -> Answer:
    """The caller's time to start has passed."""
    return request_error(
        ErrorType.REQUEST_TIMEOUT,
        "The request did not start within the time that X-Fal-Request-Timeout allows.",
        {"x-fal-request-timeout-type": "user"},
    )


def expired_in_total() -> Answer:
    """The caller's total time has passed."""
    return request_error(
        ErrorType.REQUEST_TIMEOUT,
        "The request did not finish within the time that X-Forestay-Deadline allows.",
        {"x-fal-request-timeout-type": "user"},
    )


def cancelled() -> Answer:
    """The caller took the request back."""
    return request_error(ErrorType.CLIENT_CANCELLED, "The request was cancelled.")


def quarantined(crashed_replicas: int) -> Answer:
    """The input has taken down several replicas and is not tried again."""
    return request_error(
        ErrorType.RUNNER_SERVER_ERROR,
        f"The request was quarantined: the model crashed on {crashed_replicas} different replicas while running it.",
    )


def after_giving_up(decision: GiveUp, crashed_replicas: int) -> Answer:
    """Another attempt is not allowed; the answer says whether the input is under suspicion or luck was bad."""
    if decision.poison:
        return quarantined(crashed_replicas)
    error_type = decision.error_type or ErrorType.RUNNER_SERVER_ERROR
    return request_error(error_type, f"The request failed for good: {decision.reason}.")


def no_longer_kept() -> Answer:
    """The answer was deleted because the caller asked for nothing to be kept."""
    return Answer(
        status_code=410,
        headers={"content-type": "application/json"},
        body=msgspec.json.encode({"detail": "The result is no longer kept (X-Fal-Store-IO: 0)."}),
    )
