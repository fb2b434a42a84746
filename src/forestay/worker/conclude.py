"""What becomes of an attempt once the host has said how the call ended. Pure.

It decides: publish or give back (with `queue/retry`), the cause for the facts, and what is to be done about the
replica. It does not act; `worker/attempt.py` does. fal's table is in `queue/retry`; one difference on purpose (decision
7 of the architecture): a 503 never kills a replica by itself, because the SDK maps mere words in an exception's text to
503. The replica is asked whether it is fit, and only an unfit one is replaced.
"""

import dataclasses
import enum
import json
from collections.abc import Mapping
from typing import assert_never, cast

from forestay.fleet.spec import RetrySpec
from forestay.handshake import FILES_HEADER
from forestay.quality.probes import PROBE_HEADER
from forestay.queue import answers
from forestay.queue.model import Answer, ErrorType, Lease, Outcome, State
from forestay.queue.retry import Condition, Failure, GiveUp, Retry, RetryPolicy, classify, crashed_with, decide_retry
from forestay.worker.hosts.host import Answered, Broken, CallResult, Crashed, Refused, TimedOut, UpstreamFailed

MAX_HEADER_BYTES = 16 * 1024  # fal's cap on all headers of an answer
MAX_PARSED_BYTES = 65_536
MAX_ERROR_CHARS = 2_000
OUT_OF_MEMORY = (503, "CUDA error: out of memory")  # fal/exceptions/gpu.py, CUDAOutOfMemoryException
_CONTROL = frozenset(
    {"x-fal-needs-retry", "x-fal-stop-runner", "x-fal-runner-health-check", PROBE_HEADER, FILES_HEADER}
)  # for us, not the caller
_COLLATERAL = Retry("", 0.0, "the replica was ended for another reason than this request")


class ReplicaStep(enum.StrEnum):
    """What to do about the replica."""

    KEEP = "keep"
    VERIFY = "verify"  # ask it whether it is fit; replace it if not
    DRAIN = "drain"  # the model asked to be stopped
    KILL = "kill"  # it hangs


@dataclasses.dataclass(frozen=True, slots=True)
class Publish:
    """End the request for good."""

    state: State  # SUCCEEDED or FAILED
    answer: Answer
    work: Mapping[str, float] = dataclasses.field(default_factory=dict[str, float])  # what its fact has to tell more


@dataclasses.dataclass(frozen=True, slots=True)
class Conclusion:
    """Everything that follows from one ended call."""

    step: Publish | Retry
    outcome: Outcome
    replica: ReplicaStep
    crashed: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Rules:
    """What the decision depends on beside the attempt itself."""

    spec: RetrySpec
    policy: RetryPolicy
    jitter: float  # [0, 1], spreads the back-off


def decide_conclusion(result: CallResult, lease: Lease, rules: Rules, condemned: str) -> Conclusion:
    """Decide about one ended call; `condemned` says why we ended the replica ourselves, empty if we did not."""
    if isinstance(result, Answered):
        return _answered(result, lease, rules)
    if condemned and not isinstance(result, UpstreamFailed):
        if isinstance(result, TimedOut):
            return _failed(result, lease, rules)
        return Conclusion(_COLLATERAL, Outcome.PLATFORM, ReplicaStep.KEEP)
    return _failed(result, lease, rules)


def _answered(result: Answered, lease: Lease, rules: Rules) -> Conclusion:
    answer = _model_answer(result)
    failure = classify(result.status_code, result.headers)
    replica = replica_step(result.status_code, result.headers)
    if result.status_code < 400:
        return Conclusion(Publish(State.SUCCEEDED, answer), Outcome.SUCCEEDED, replica)
    outcome = _outcome_of(result, answer)
    if failure is None:
        return Conclusion(Publish(State.FAILED, answer), outcome, replica)
    decided = decide_retry(failure, lease, rules.spec, rules.policy, rules.jitter)
    return Conclusion(_step(decided, answer, lease, failure), outcome, replica)


def _outcome_of(result: Answered, answer: Answer) -> Outcome:
    """A device's memory that was full is told apart by the very words with which fal's SDK answers then."""
    if result.status_code == OUT_OF_MEMORY[0] and answer.error == OUT_OF_MEMORY[1]:
        return Outcome.MEMORY
    return Outcome.MODEL_ERROR if result.status_code >= 500 else Outcome.CALLER_ERROR


def _failed(result: Crashed | TimedOut | Refused | Broken | UpstreamFailed, lease: Lease, rules: Rules) -> Conclusion:
    failure, answer, outcome, replica = explain(result)
    decided = decide_retry(failure, lease, rules.spec, rules.policy, rules.jitter)
    return Conclusion(_step(decided, answer, lease, failure), outcome, replica, failure.crashed)


def explain(
    result: Crashed | TimedOut | Refused | Broken | UpstreamFailed,
) -> tuple[Failure, Answer, Outcome, ReplicaStep]:
    """Return the failure, the answer should it be final, the cause, and the step for the replica.

    The direct lane, which never retries, sends the answer at once.
    """
    error = answers.request_error
    match result:
        case Crashed(reason, memory):
            detail = f"The model stopped while it ran the request: {reason}."
            outcome = Outcome.MEMORY if memory else Outcome.MODEL_CRASH
            failure = Failure(Condition.SERVER_ERROR, crashed=True)
            return failure, error(ErrorType.RUNNER_DISCONNECTED, detail), outcome, ReplicaStep.KEEP
        case TimedOut(seconds):
            detail = f"The model took longer than its request_timeout of {seconds:g} s."
            failure = Failure(Condition.TIMEOUT)
            return failure, error(ErrorType.REQUEST_TIMEOUT, detail), Outcome.MODEL_TIMEOUT, ReplicaStep.KILL
        case Refused():
            detail = "The model's server did not take the connection."
            failure = Failure(Condition.CONNECTION_ERROR)
            return failure, error(ErrorType.RUNNER_CONNECTION_REFUSED, detail), Outcome.MODEL_CRASH, ReplicaStep.VERIFY
        case Broken():
            detail = "The model's server broke off its answer."
            failure = Failure(Condition.SERVER_ERROR)
            return failure, error(ErrorType.RUNNER_INCOMPLETE_RESPONSE, detail), Outcome.MODEL_ERROR, ReplicaStep.VERIFY
        case UpstreamFailed(status_code, reason):
            failure = Failure(None if status_code in {500, 502} else Condition.SERVER_ERROR)
            answer = error(ErrorType.RUNNER_CONNECTION_ERROR, f"The provider upstream failed: {reason}")
            return failure, answer, Outcome.UPSTREAM, ReplicaStep.KEEP
        case _:
            assert_never(result)


def _step(decided: Retry | GiveUp, answer: Answer, lease: Lease, failure: Failure) -> Publish | Retry:
    if isinstance(decided, Retry):
        return decided
    if decided.poison or decided.error_type is not None:
        crashed = crashed_with(lease, crashed=failure.crashed)
        return Publish(State.FAILED, answers.after_giving_up(decided, len(crashed)))
    return Publish(State.FAILED, answer)


def replica_step(status_code: int, headers: Mapping[str, str]) -> ReplicaStep:
    """Return what an answer means for the replica that gave it."""
    wish = headers.get("x-fal-stop-runner", "").strip().lower()
    if wish in {"1", "true"}:
        return ReplicaStep.DRAIN
    if wish in {"0", "false"}:
        return ReplicaStep.KEEP
    asked = "x-fal-runner-health-check" in headers
    return ReplicaStep.VERIFY if asked or status_code in {500, 502, 503, 504} else ReplicaStep.KEEP


def _model_answer(result: Answered) -> Answer:
    """Keep the model's status, headers and body; read a sentence and a type out of an error for status and webhook."""
    headers = allowed_headers(result.headers)
    if result.status_code < 400:
        return Answer(result.status_code, headers, result.body)
    text, kind = _error_words(result)
    return Answer(result.status_code, headers, result.body, text, kind)


def allowed_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Keep what a caller may see, within fal's cap; the content type first."""
    kept: dict[str, str] = {}
    room = MAX_HEADER_BYTES
    for name, value in sorted(headers.items(), key=lambda item: item[0] != "content-type"):
        room -= len(name) + len(value) + 4
        if name not in _CONTROL and room >= 0:
            kept[name] = value
    return kept


def _error_words(result: Answered) -> tuple[str, str | None]:
    plain = f"The model answered with status {result.status_code}."
    kind = result.headers.get("x-fal-error-type")
    if len(result.body) > MAX_PARSED_BYTES:
        return plain, kind
    try:
        parsed: object = json.loads(result.body)
    except ValueError:
        return plain, kind
    body = cast("dict[str, object]", parsed) if isinstance(parsed, dict) else {}
    detail = body.get("detail")
    first: object = cast("list[object]", detail)[0] if isinstance(detail, list) and detail else None
    item = cast("dict[str, object]", first) if isinstance(first, dict) else {}
    text = detail if isinstance(detail, str) else item.get("msg")
    kind = kind or _text(body.get("error_type")) or _text(item.get("type"))
    return _text(text, MAX_ERROR_CHARS) or plain, kind


def _text(value: object, max_chars: int = 128) -> str | None:
    """Return a text that every store can keep: without NUL and lone surrogates, which JSON allows."""
    if not isinstance(value, str):
        return None
    return value[:max_chars].replace("\0", "\ufffd").encode("utf-8", "replace").decode()
