"""What follows from the end of a call: fal's table, our brakes, what callers may see."""

import datetime as dt
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.chance import SeededChance
from forestay.fleet.spec import RetrySpec
from forestay.ids import ModelId, ReplicaId, RevisionId, TenantId, WorkerId, new_request_id
from forestay.queue.model import Lease, Options, Outcome, State
from forestay.queue.retry import Retry, RetryPolicy
from forestay.worker.conclude import Conclusion, Publish, ReplicaStep, Rules, decide_conclusion
from forestay.worker.hosts.host import Answered, Broken, CallResult, Crashed, Refused, TimedOut, UpstreamFailed

NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
RULES = Rules(RetrySpec(), RetryPolicy(), 0.5)
RESULTS: list[CallResult] = [Crashed("died"), Crashed("died", memory=True), TimedOut(3), Refused("no"), Broken("cut")]


def lease_of(**changes: object) -> Lease:
    """Return a first attempt."""
    fields: dict[str, object] = {
        "request_id": new_request_id(NOW, 0, SeededChance(1)),
        "attempt": 1,
        "tenant_id": TenantId("acme"),
        "model_id": ModelId("acme/probe"),
        "endpoint": "/",
        "revision_id": RevisionId("probe-1"),
        "replica_id": ReplicaId("r1"),
        "worker_id": WorkerId("w1"),
        "body": b"{}",
        "options": Options(),
        "submitted_at": NOW,
        "lease_expires_at": NOW,
        **changes,
    }
    return Lease(**fields)  # type: ignore[arg-type]


def conclude(result: CallResult, lease: Lease | None = None, condemned: str = "") -> Conclusion:
    """Decide with the platform's defaults."""
    return decide_conclusion(result, lease or lease_of(), RULES, condemned)


@pytest.mark.parametrize(
    ("status", "state", "replica"),
    [
        (200, State.SUCCEEDED, ReplicaStep.KEEP),
        (302, State.SUCCEEDED, ReplicaStep.KEEP),
        (404, State.FAILED, ReplicaStep.KEEP),
        (429, State.FAILED, ReplicaStep.KEEP),
        (499, State.FAILED, ReplicaStep.KEEP),
        (500, State.FAILED, ReplicaStep.VERIFY),
        (502, State.FAILED, ReplicaStep.VERIFY),
        (503, None, ReplicaStep.VERIFY),
        (504, None, ReplicaStep.VERIFY),
        (507, State.FAILED, ReplicaStep.KEEP),
    ],
)
def test_a_status_is_published_or_retried_and_never_kills(
    status: int, state: State | None, replica: ReplicaStep
) -> None:
    """503 and 504 are tried again; suspicion means asking the replica."""
    made = conclude(Answered(status, {}, b"{}"))
    assert (made.step.state if isinstance(made.step, Publish) else None) is state
    assert made.replica is replica
    assert not made.crashed


@pytest.mark.parametrize(
    ("status", "wish", "retried"), [(500, "1", True), (503, "0", False), (429, "1", True), (400, "1", False)]
)
def test_the_models_wish_for_a_retry_counts_on_5xx_and_429(status: int, wish: str, retried: bool) -> None:
    """X-Fal-Needs-Retry overrides the status, where fal hears it."""
    made = conclude(Answered(status, {"x-fal-needs-retry": wish}, b""))
    assert isinstance(made.step, Retry) is retried


def test_control_headers_never_reach_the_caller() -> None:
    """They are between the model and us."""
    headers = {"x-fal-needs-retry": "0", "x-fal-stop-runner": "1", "x-fal-runner-health-check": "1", "x-own": "kept"}
    made = conclude(Answered(200, headers, b""))
    assert isinstance(made.step, Publish)
    assert dict(made.step.answer.headers) == {"x-own": "kept"}
    assert made.replica is ReplicaStep.DRAIN


def test_a_model_may_say_that_a_5xx_is_not_about_its_process() -> None:
    """x-fal-stop-runner: 0 spares it the question."""
    assert conclude(Answered(503, {"x-fal-stop-runner": "0"}, b"")).replica is ReplicaStep.KEEP


@pytest.mark.parametrize(
    ("result", "outcome", "error_type"),
    [
        (Crashed("died"), Outcome.MODEL_CRASH, "runner_disconnected"),
        (Crashed("died", memory=True), Outcome.MEMORY, "runner_disconnected"),
        (TimedOut(3), Outcome.MODEL_TIMEOUT, "request_timeout"),
        (Refused("no"), Outcome.MODEL_CRASH, "runner_connection_refused"),
        (Broken("cut"), Outcome.MODEL_ERROR, "runner_incomplete_response"),
        (UpstreamFailed(503, "gone"), Outcome.UPSTREAM, "runner_connection_error"),
    ],
)
def test_each_ending_has_its_cause_and_its_word(result: CallResult, outcome: Outcome, error_type: str) -> None:
    """Without retries the caller reads fal's error type; the fact holds the cause."""
    made = conclude(result, lease_of(options=Options(no_retry=True)))
    assert isinstance(made.step, Publish)
    assert (made.outcome, made.step.answer.error_type) == (outcome, error_type)
    assert json.loads(made.step.answer.body)["error_type"] == error_type


def test_a_full_device_memory_is_told_by_the_sdks_words_alone_and_replaces_nobody() -> None:
    """Fal's SDK answers 503 with fixed words; other words, or the same with another status, are the model's error."""
    words = b'{"detail": "CUDA error: out of memory"}'
    made = conclude(Answered(503, {}, words))
    assert (made.outcome, made.replica, made.crashed) == (Outcome.MEMORY, ReplicaStep.VERIFY, False)
    assert isinstance(made.step, Retry)
    for answered in (Answered(503, {}, b'{"detail": "GPU error"}'), Answered(500, {}, words)):
        assert conclude(answered).outcome is Outcome.MODEL_ERROR
    assert conclude(Answered(400, {}, words)).outcome is Outcome.CALLER_ERROR


def test_a_crash_on_the_second_replica_is_poison() -> None:
    """The input has taken down two replicas: it is not tried a third time."""
    made = conclude(Crashed("died"), lease_of(crashed_replicas=(ReplicaId("r0"),)))
    assert isinstance(made.step, Publish)
    assert "2 different replicas" in (made.step.answer.error or "")


@given(st.sampled_from(RESULTS[:2] + RESULTS[3:]), st.text(min_size=1, max_size=20))
def test_a_neighbour_of_a_condemned_call_goes_back_for_free(result: CallResult, condemned: str) -> None:
    """When we ended the replica ourselves its other calls are no crashes and cost nothing."""
    made = conclude(result, lease_of(crashed_replicas=(ReplicaId("r0"),)), condemned)
    assert isinstance(made.step, Retry)
    assert (made.step.condition, made.crashed) == ("", False)


@given(
    st.integers(200, 599),
    st.dictionaries(st.sampled_from(["x-fal-needs-retry", "x-fal-stop-runner", "x-own"]), st.text(max_size=9_000)),
    st.binary(max_size=200),
)
def test_any_answer_leads_to_one_lawful_conclusion(status: int, headers: dict[str, str], body: bytes) -> None:
    """Whatever a model says, headers stay within the cap, bodies stay as they are, and no answer kills a replica."""
    made = conclude(Answered(status, headers, body))
    assert made.replica is not ReplicaStep.KILL
    if isinstance(made.step, Publish):
        answer = made.step.answer
        assert answer.body == body
        assert sum(len(name) + len(value) for name, value in answer.headers.items()) <= 16 * 1024
        assert (made.step.state is State.SUCCEEDED) == (status < 400)


def test_an_errors_words_can_be_stored_whatever_json_allows() -> None:
    """NUL and lone surrogates are legal in JSON and illegal in a database's text."""
    made = conclude(Answered(422, {}, b'{"detail": "a\\u0000b\\ud800", "error_type": "x\\u0000"}'))
    assert isinstance(made.step, Publish)
    assert made.step.answer.error == "a\ufffdb?"
    assert made.step.answer.error_type == "x\ufffd"
