"""What follows from one try at delivering a webhook: a table, and what holds for every try."""

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.delivery.decide import (
    Broken,
    Dead,
    Delivered,
    Impossible,
    Outcome,
    Policy,
    Responded,
    Retry,
    decide_delivery,
    delay_seconds,
)

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
POLICY = Policy(max_tries=31, base_seconds=1.0, cap_seconds=300.0)
policies = st.builds(
    Policy,
    max_tries=st.integers(1, 50),
    base_seconds=st.floats(0.01, 10),
    cap_seconds=st.floats(10, 1000),
)
outcomes = st.one_of(
    st.builds(
        Responded, status_code=st.integers(100, 599), retry_after_seconds=st.none() | st.floats(0, 1e6, width=32)
    ),
    st.builds(Broken, reason=st.just("refused")),
    st.builds(Impossible, reason=st.just("private")),
)
jitters = st.floats(0, 1)


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Responded(200), Delivered),
        (Responded(204), Delivered),
        (Responded(299), Delivered),
        (Responded(301), Dead),
        (Responded(307), Dead),
        (Responded(400), Retry),
        (Responded(404), Retry),
        (Responded(410), Retry),
        (Responded(429), Retry),
        (Responded(500), Retry),
        (Responded(503), Retry),
        (Broken("no answer"), Retry),
        (Impossible("the target is private"), Dead),
    ],
)
def test_the_first_try_decides_by_what_the_receiver_said(outcome: Outcome, expected: type[object]) -> None:
    """2xx acknowledges, redirects and impossible targets are final, everything else is tried again."""
    assert isinstance(decide_delivery(1, outcome, POLICY, NOW, 0.5), expected)


@given(policies, outcomes, jitters)
def test_tries_never_exceed_the_cap(policy: Policy, outcome: Outcome, jitter: float) -> None:
    """However a receiver behaves, the last allowed try is the last one."""
    tries = 1
    while isinstance(decide_delivery(tries, outcome, policy, NOW, jitter), Retry):
        tries += 1
        assert tries <= policy.max_tries


@given(policies, st.integers(1, 200), jitters)
def test_delays_grow_to_the_cap_and_no_further(policy: Policy, tries: int, jitter: float) -> None:
    """Never shorter than half a step, never longer than the cap, never shrinking."""
    delay, following = delay_seconds(tries, policy, jitter), delay_seconds(tries + 1, policy, jitter)
    assert delay <= following <= policy.cap_seconds
    assert delay >= min(policy.base_seconds, policy.cap_seconds) / 2
    assert delay_seconds(200, policy, 1.0) == policy.cap_seconds


@given(policies, st.integers(1, 50), outcomes, jitters)
def test_a_retry_lies_ahead_and_within_the_cap(policy: Policy, tries: int, outcome: Outcome, jitter: float) -> None:
    """Also when a receiver asks for a very long pause."""
    decision = decide_delivery(tries, outcome, policy, NOW, jitter)
    assert decision.reason
    if isinstance(decision, Retry):
        assert NOW < decision.at <= NOW + dt.timedelta(seconds=policy.cap_seconds)


def test_a_receiver_may_ask_for_a_longer_pause() -> None:
    """Retry-After is honoured up to the cap."""
    decision = decide_delivery(1, Responded(503, retry_after_seconds=60), POLICY, NOW, 0.0)
    assert isinstance(decision, Retry)
    assert decision.at == NOW + dt.timedelta(seconds=60)
