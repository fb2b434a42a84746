"""Flood control: what matches everywhere stops blocking, what matches seldom goes on."""

import datetime as dt

from hypothesis import given
from hypothesis import strategies as st

from forestay.safety.hashes.flood import FloodLimits, Sightings, decide_flood, sighted

START = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
LIMITS = FloodLimits(window_seconds=100.0, max_tenants=3, max_requests=10)
MATCHES = st.lists(st.tuples(st.integers(0, 8), st.floats(0.0, 40.0)), max_size=60)


def states(matches: list[tuple[int, float]]) -> list[tuple[Sightings, dt.datetime]]:
    """The state after each match: which tenant, and how many seconds after the one before."""
    state, now = Sightings(1, START), START
    found: list[tuple[Sightings, dt.datetime]] = []
    for tenant, seconds in matches:
        now += dt.timedelta(seconds=seconds)
        state = sighted(state, str(tenant), LIMITS, now)
        found.append((state, now))
    return found


@given(MATCHES)
def test_nothing_is_suspended_within_its_limits_and_all_beyond_is(matches: list[tuple[int, float]]) -> None:
    """The decision is that of counting anew what lies in the window."""
    since, seen = START, list[str]()
    for (state, now), (tenant, _) in zip(states(matches), matches, strict=True):
        if (now - since).total_seconds() >= LIMITS.window_seconds:
            since, seen = now, []
        seen.append(str(tenant))
        over = len(set(seen)) > LIMITS.max_tenants or len(seen) > LIMITS.max_requests
        assert bool(decide_flood(state, LIMITS, now)) == over


@given(MATCHES)
def test_memory_of_tenants_is_bounded(matches: list[tuple[int, float]]) -> None:
    """One more than the limit is all that is ever remembered."""
    assert all(len(state.tenants) <= LIMITS.max_tenants + 1 for state, _ in states(matches))


@given(MATCHES, st.integers(0, 5), st.integers(0, 20))
def test_wider_limits_never_suspend_more(matches: list[tuple[int, float]], tenants: int, requests: int) -> None:
    """Monotone in both limits."""
    wider = FloodLimits(LIMITS.window_seconds, LIMITS.max_tenants + tenants, LIMITS.max_requests + requests)
    for state, now in states(matches):
        assert len(decide_flood(state, wider, now)) <= len(decide_flood(state, LIMITS, now))


def test_what_is_suspended_is_not_suspended_again_and_an_old_window_says_nothing() -> None:
    """Idempotent; and a reader that comes late does not act on what is long past."""
    state, now = states([(number, 1.0) for number in range(8)])[-1]
    (action,) = decide_flood(state, LIMITS, now)
    assert "more than 3 tenants within 100 s" in action.reason
    assert decide_flood(Sightings(1, START, 99, state.tenants, suspended=True), LIMITS, now) == []
    assert decide_flood(state, LIMITS, now + dt.timedelta(seconds=200)) == []
