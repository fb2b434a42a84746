"""Whether a failed attempt is tried again: fal's table, its knobs, and our ceilings."""

import dataclasses
import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.chance import SeededChance
from forestay.fleet.spec import RetrySpec
from forestay.ids import ModelId, ReplicaId, RevisionId, TenantId, WorkerId, new_request_id
from forestay.queue.model import AttemptReport, Lease, Options, Outcome, Requeue
from forestay.queue.retry import (
    Condition,
    Failure,
    GiveUp,
    LostLease,
    Rescue,
    Retry,
    RetryPolicy,
    back_off,
    cap,
    classify,
    decide_rescue,
    decide_retry,
)

NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
POLICY = RetryPolicy()
PLAIN = RetrySpec()


def lease(
    *, used: dict[str, int] | None = None, crashed: tuple[str, ...] = (), lost: int = 0, options: Options | None = None
) -> Lease:
    """Make a lease with a history."""
    return Lease(
        request_id=new_request_id(NOW, 0, SeededChance(1)),
        attempt=1 + sum((used or {}).values()) + lost,
        tenant_id=TenantId("t"),
        model_id=ModelId("a/b"),
        endpoint="/",
        revision_id=RevisionId("b-1"),
        replica_id=ReplicaId("here"),
        worker_id=WorkerId("w"),
        body=b"{}",
        options=options or Options(),
        submitted_at=NOW,
        lease_expires_at=NOW,
        crashed_replicas=tuple(ReplicaId(name) for name in crashed),
        lost_leases=lost,
        retries_used=used or {},
    )


@pytest.mark.parametrize(
    ("status_code", "header", "retried"),
    [
        (200, None, False),
        (302, None, False),
        (422, None, False),
        (422, "1", False),
        (429, None, False),
        (429, "1", True),
        (429, "0", False),
        (500, None, False),
        (500, "1", True),
        (502, None, False),
        (502, "true", True),
        (503, None, True),
        (503, "0", False),
        (504, None, True),
        (504, "nonsense", True),
    ],
)
def test_an_answer_is_retried_as_fal_documents(status_code: int, header: str | None, *, retried: bool) -> None:
    """503 and 504 are; X-Fal-Needs-Retry overrides the status, and is heard on 5xx and 429 only."""
    headers = {} if header is None else {"x-fal-needs-retry": header}
    failure = classify(status_code, headers)
    again = failure is not None and isinstance(decide_retry(failure, lease(), PLAIN, POLICY, 0.5), Retry)
    assert again is retried


def test_the_caller_who_forbids_retries_beats_everything() -> None:
    """X-Fal-No-Retry wins over the model's own wish and the caller's own config."""
    options = Options(no_retry=True, retry_config={"server_error": {"retries": 5}})
    failure = Failure(Condition.SERVER_ERROR, needs_retry=True)
    assert isinstance(decide_retry(failure, lease(options=options), PLAIN, POLICY, 0.0), GiveUp)


def test_the_callers_config_beats_the_models() -> None:
    """X-Fal-Retry-Config grants what the model skips, and withholds what the model grants."""
    spec = RetrySpec(skip_conditions=("timeout",), config={"server_error": 5})
    options = Options(retry_config={"timeout": {"retries": 1}, "server_error": {"retries": 0}})
    held = lease(options=options)
    assert isinstance(decide_retry(Failure(Condition.TIMEOUT), held, spec, POLICY, 0.0), Retry)
    assert isinstance(decide_retry(Failure(Condition.SERVER_ERROR), held, spec, POLICY, 0.0), GiveUp)


def test_the_models_knobs_beat_the_platforms_default() -> None:
    """A skipped condition is final at once; a configured one ends after its own budget."""
    spec = RetrySpec(skip_conditions=("timeout",), config={"server_error": 1})
    assert isinstance(decide_retry(Failure(Condition.TIMEOUT), lease(), spec, POLICY, 0.0), GiveUp)
    assert isinstance(decide_retry(Failure(Condition.SERVER_ERROR), lease(), spec, POLICY, 0.0), Retry)
    used = lease(used={"server_error": 1})
    assert isinstance(decide_retry(Failure(Condition.SERVER_ERROR), used, spec, POLICY, 0.0), GiveUp)


def test_the_models_answer_beats_what_the_spec_skips() -> None:
    """X-Fal-Needs-Retry: 1 is stronger than skip_retry_conditions."""
    spec = RetrySpec(skip_conditions=("server_error",))
    failure = Failure(Condition.SERVER_ERROR, needs_retry=True)
    assert isinstance(decide_retry(failure, lease(), spec, POLICY, 0.0), Retry)


def test_budgets_of_conditions_are_independent() -> None:
    """Retries used for one condition leave the other's budget whole."""
    spec = RetrySpec(config={"server_error": 2, "timeout": 2})
    held = lease(used={"server_error": 2})
    assert isinstance(decide_retry(Failure(Condition.TIMEOUT), held, spec, POLICY, 0.0), Retry)


def test_two_crashed_replicas_are_poison_whatever_the_budget() -> None:
    """The second distinct replica ends it; the same one again does not."""
    failure = Failure(Condition.SERVER_ERROR, crashed=True)
    second = decide_retry(failure, lease(crashed=("other",)), PLAIN, POLICY, 0.0)
    assert isinstance(second, GiveUp)
    assert second.poison
    assert isinstance(decide_retry(failure, lease(crashed=("here",)), PLAIN, POLICY, 0.0), Retry)


def test_a_lost_lease_is_never_poison() -> None:
    """Any number of lost workers below the ceiling puts the request back."""
    for lost in range(9):
        decision = decide_rescue(LostLease(lost + 1, lost, {}, no_retry=False, started=True), POLICY, 0.0)
        assert decision == dataclasses.replace(decision, alone=lost >= 1)
        assert isinstance(decision, Rescue)


def test_a_lost_lease_that_may_have_started_ends_for_a_caller_without_retries() -> None:
    """Before the start it is queued again: nothing has run; after it, a second run would break the caller's wish."""
    assert isinstance(decide_rescue(LostLease(1, 0, {}, no_retry=True, started=True), POLICY, 0.0), GiveUp)
    assert isinstance(decide_rescue(LostLease(1, 0, {}, no_retry=True, started=False), POLICY, 0.0), Rescue)


@given(
    st.dictionaries(st.sampled_from([c.value for c in Condition]), st.integers(0, 12)),
    st.integers(0, 12),
    st.sampled_from(list(Condition)),
    st.booleans(),
)
def test_no_request_exceeds_the_ceiling(
    used: dict[str, int], lost: int, condition: Condition, needs_retry: bool
) -> None:
    """Whatever the history, a charged attempt beyond the tenth is never granted, by any of the three doors."""
    held = lease(used=used, lost=lost)
    charged = 1 + sum(used.values()) + lost
    failure = Failure(condition, needs_retry=needs_retry or None)
    decision = decide_retry(failure, held, PLAIN, POLICY, 0.5)
    report = AttemptReport(Outcome.MODEL_ERROR, NOW, NOW, NOW, 0.0)
    verdict = cap(Requeue(held, condition.value, 0.0, crashed=False, reason="", report=report), POLICY)
    rescue = decide_rescue(LostLease(held.attempt, lost, used, no_retry=False, started=True), POLICY, 0.5)
    if charged >= POLICY.max_attempts:
        assert isinstance(decision, GiveUp)
        assert verdict is not None
        assert isinstance(rescue, GiveUp)
    else:
        assert verdict is None


@given(st.integers(1, 500), st.floats(0, 1))
def test_the_back_off_grows_is_capped_and_spread(charged: int, jitter: float) -> None:
    """It is never above the cap nor below half of the undisturbed value, and never shrinks with more attempts."""
    whole = min(POLICY.cap_seconds, POLICY.base_seconds * 2.0 ** min(charged - 1, 40))
    assert whole / 2 <= back_off(charged, POLICY, jitter) <= whole
    assert back_off(charged + 1, POLICY, jitter) >= back_off(charged, POLICY, jitter)
