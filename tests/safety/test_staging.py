"""How a version of a policy comes into force, step by step and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.errors import UsageError
from forestay.ids import BUCKETS
from forestay.safety.staging import Chosen, Staging, advance, choose, propose, roll_back

buckets = st.integers(0, BUCKETS - 1)


def test_a_new_version_first_judges_in_shadow() -> None:
    """It decides nothing, whatever the request."""
    staging = propose(Staging("p", 3), 4)
    assert staging.stage == "shadow"
    assert {choose(staging, bucket) for bucket in (0, BUCKETS - 1)} == {Chosen(3, 4)}


def test_a_share_of_requests_meets_the_candidate_and_the_rest_stays() -> None:
    """A quarter of the buckets; the other version judges in the shadow on both sides."""
    staging = advance(propose(Staging("p", 3), 4), 25.0)
    chosen = [choose(staging, bucket) for bucket in range(BUCKETS)]
    assert chosen.count(Chosen(4, 3)) == BUCKETS // 4
    assert chosen.count(Chosen(3, 4)) == BUCKETS - BUCKETS // 4


def test_a_hundred_percent_puts_it_in_force_and_ends_the_stage() -> None:
    """Afterwards there is no candidate, and nothing to advance."""
    staging = advance(propose(Staging("p", 3), 4), 100.0)
    assert staging == Staging("p", 4)
    with pytest.raises(UsageError, match="no candidate"):
        advance(staging, 10.0)


def test_rolling_back_drops_the_candidate_or_restores_a_version() -> None:
    """One word and everybody is judged as before."""
    staged = advance(propose(Staging("p", 3), 4), 50.0)
    assert roll_back(staged, None) == Staging("p", 3)
    assert roll_back(Staging("p", 4), 2) == Staging("p", 2)


@pytest.mark.parametrize("percent", [-1.0, 100.1])
def test_a_share_outside_the_whole_is_refused(percent: float) -> None:
    """With the field named."""
    with pytest.raises(UsageError, match="percent"):
        advance(propose(Staging("p", 1), 2), percent)


@given(st.floats(0.0, 99.99), st.floats(0.0, 99.99), buckets)
def test_a_request_that_met_the_candidate_meets_it_at_every_larger_share(one: float, other: float, bucket: int) -> None:
    """Shares grow around the same requests: nobody is sent back and forth."""
    small, large = sorted((one, other))
    proposed = propose(Staging("p", 1), 2)
    if choose(advance(proposed, small), bucket).deciding == 2:
        assert choose(advance(proposed, large), bucket).deciding == 2
