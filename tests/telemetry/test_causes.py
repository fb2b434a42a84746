"""Causes of failures: every outcome has one, and callers' own ends count against nobody."""

import pytest

from forestay.queue.model import ErrorType, Outcome
from forestay.telemetry.causes import Cause, Traffic, cause_of, excluded, outcomes, probe_tenants_of, traffic_of


@pytest.mark.parametrize("outcome", list(Outcome))
@pytest.mark.parametrize("error_type", [None, *ErrorType])
def test_every_end_but_success_has_a_cause(outcome: Outcome, error_type: ErrorType | None) -> None:
    """Whatever error type goes with it; a success has none."""
    assert (cause_of(outcome, error_type) is None) == (outcome is Outcome.SUCCEEDED)


def test_the_vocabulary_of_outcomes_is_the_queue_s() -> None:
    """A new word there needs a cause here; until then it would be put down to the platform."""
    assert set(outcomes()) == {outcome.value for outcome in Outcome}


def test_what_callers_do_themselves_counts_against_nobody() -> None:
    """Their errors, cancels and refused content are excluded; a success and every failure of ours are not."""
    left_out = {outcome for outcome in Outcome if excluded(cause_of(outcome))}
    assert left_out == {Outcome.CALLER_ERROR, Outcome.CANCELLED, Outcome.SAFETY}


def test_a_request_that_no_replica_took_up_in_time_is_put_down_to_the_cold_start() -> None:
    """Where nothing but the error type says so."""
    assert cause_of("expired", "startup_timeout") is Cause.COLD_START
    assert cause_of("expired", "request_timeout") is Cause.PLATFORM
    assert cause_of("no such word") is Cause.PLATFORM


def test_probes_are_told_by_their_tenant_alone() -> None:
    """A list with spaces and empty places is read; nobody else is a probe."""
    tenants = probe_tenants_of(" probe , ,watch")
    assert [traffic_of(name, tenants) for name in ("probe", "watch", "acme", "")] == [
        Traffic.PROBE,
        Traffic.PROBE,
        Traffic.CALLER,
        Traffic.CALLER,
    ]
