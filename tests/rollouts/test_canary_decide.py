"""What a canary does next, told as stories of two arms."""

import dataclasses
import datetime as dt
import functools
import re
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from bench import canary_world
from hypothesis import given, settings
from hypothesis import strategies as st

from forestay.errors import UsageError
from forestay.rollouts.canary.decide import decide_canary
from forestay.rollouts.canary.evidence import absorb, judge
from forestay.rollouts.canary.model import (
    WHOLE,
    CanaryState,
    Evidence,
    GiveUp,
    Inconclusive,
    Mark,
    Observation,
    Policy,
    Promote,
    RollBack,
    Shift,
    Stay,
)
from forestay.rollouts.canary.worst import worst_slice
from forestay.rollouts.options import RolloutOptions, policy_of
from forestay.rollouts.simulate import World, play

NOW = dt.datetime(2026, 11, 26, 12, tzinfo=dt.UTC)
POLICY = Policy()


def traffic(
    requests: int,
    *,
    weight: float = 0.1,
    errors: tuple[float, float] = (0.01, 0.01),
    slow: float = 0.0,
    blocked: tuple[float, float] = (0.02, 0.02),
    slices: Sequence[str] = (),
    seed: int = 1,
) -> list[Observation]:
    """Requests of both arms; `slow` is the share of the candidate's that take three times as long."""
    chance = np.random.default_rng(seed)
    found: list[Observation] = []
    for _ in range(requests):
        candidate = bool(chance.random() < weight)
        failed = bool(chance.random() < errors[candidate])
        readings = {"failed": float(failed), "blocked": float(chance.random() < blocked[candidate])}
        if not failed:
            seconds = float(chance.lognormal(0.0, 0.5)) * (3.0 if candidate and chance.random() < slow else 1.0)
            readings |= {"seconds": seconds, "device_seconds": seconds, "broken": 0.0}
        where = (slices[int(chance.integers(len(slices)))],) if slices else ()
        found.append(Observation(candidate, weight, readings, where))
    return found


def after(*batches: Sequence[Observation], policy: Policy = POLICY, size: int = 250) -> Evidence:
    """What is known after these requests, looked at every `size`."""
    evidence = Evidence()
    for batch in batches:
        for start in range(0, len(batch), size):
            evidence = absorb(evidence, batch[start : start + size], policy)
    return evidence


@functools.cache
def proved() -> Evidence:
    """What is known of a good candidate after six thousand requests at half of the traffic."""
    return after(traffic(6_000, weight=0.5))


def state_of(
    evidence: Evidence, *, policy: Policy = POLICY, weight: float = 10.0, seconds: float = 600.0
) -> CanaryState:
    """A canary that has been at one weight for some time, of a model with one request a second."""
    since = NOW - dt.timedelta(seconds=seconds)
    return CanaryState(policy, evidence, weight, since, since, evidence.requests[1], NOW, 1.0)


def test_the_first_look_begins_with_the_first_step() -> None:
    """Nothing is known, and the allowance bears it."""
    [action] = decide_canary(state_of(Evidence(), weight=0.0), NOW)
    assert isinstance(action, Shift)
    assert action.weight == 5.0


def test_a_candidate_that_fails_more_is_rolled_back_and_the_reason_says_by_what() -> None:
    """Thirty percent against one."""
    [action] = decide_canary(state_of(after(traffic(600, errors=(0.01, 0.3)))), NOW)
    assert isinstance(action, RollBack)
    assert "errors" in action.reason
    assert "control" in action.reason


def test_failures_of_both_arms_together_roll_nothing_back() -> None:
    """The service fails, not the revision: a third of all requests on either side."""
    evidence = after(traffic(3_000, errors=(0.33, 0.33)))
    assert not judge(evidence, POLICY).harm


def test_a_longer_tail_is_found_where_the_median_is_the_same() -> None:
    """One in seven takes three times as long."""
    [action] = decide_canary(state_of(after(traffic(6_000, slow=0.15))), NOW)
    assert isinstance(action, RollBack)
    assert "latency" in action.reason


def test_harm_to_one_slice_is_found_and_named() -> None:
    """A quarter of the sizes fails; the other three are healthy."""
    sizes = ("size 256", "size 512", "size 768")
    healthy = traffic(3_000, slices=sizes)
    bad = traffic(1_000, errors=(0.01, 0.3), slices=("size 1024",), seed=2)
    mixed = [healthy.pop() if healthy and number % 4 else item for number, item in enumerate(bad + healthy)]
    judged = judge(after(mixed), POLICY)
    assert judged.harm
    assert "size 1024" in {item.slice_name for item in judged.suspects}
    [action] = decide_canary(state_of(after(mixed)), NOW)
    assert isinstance(action, RollBack)
    found = re.search(
        r"\. errors in size 1024: (\d+) of (\d+) against \d+ of \d+ of the control; elsewhere", action.reason
    )
    assert found is not None, action.reason
    assert 0.1 < int(found[1]) / int(found[2]) < 0.6


def test_harm_that_is_everywhere_names_no_slice() -> None:
    """A person is not sent to look at one size where every size fails."""
    sizes = ("about 256x256 pixels", "about 1024x1024 pixels")
    both = [item for size in sizes for item in traffic(1_000, errors=(0.01, 0.3), slices=(size,), seed=len(size))]
    evidence = after(both)
    assert judge(evidence, POLICY).harm
    assert worst_slice(evidence, judge(evidence, POLICY).suspects) is None


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 3)), max_size=200))
def test_a_worst_slice_is_worse_than_the_rest_and_adds_up_to_the_whole(seen: list[tuple[bool, bool, int]]) -> None:
    """Whatever came: its counts and those elsewhere are the candidate's, and its rate is at least twice the rest's."""
    items = [
        Observation(candidate, 0.5, {"failed": float(failed)}, (f"tenant t{number}",))
        for candidate, failed, number in seen
    ]
    evidence = after(items)
    whole = evidence.streams.get(WHOLE, {}).get("errors")
    worst = worst_slice(evidence, judge(evidence, POLICY).suspects)
    if worst is None or whole is None or worst.mark != "errors":
        return
    assert (worst.candidate[0] + worst.elsewhere[0], worst.candidate[1] + worst.elsewhere[1]) == (
        whole.marked[1],
        whole.seen[1],
    )
    assert worst.candidate[0] / worst.candidate[1] >= 2 * worst.elsewhere[0] / worst.elsewhere[1]


def test_many_tenants_leave_room_for_sizes() -> None:
    """A model with a thousand callers still follows its sizes."""
    items = [Observation(number % 2 == 0, 0.5, {"failed": 0.0}, (f"tenant t{number}",)) for number in range(300)]
    items += [Observation(candidate=True, weight=0.5, readings={"failed": 0.0}, slices=("about 1024x1024 pixels",))]
    streams = after(items).streams
    assert "about 1024x1024 pixels" in streams
    assert sum(name.startswith("tenant ") for name in streams) == 6


def test_letting_more_through_is_harm_as_well_as_blocking_more() -> None:
    """A safety filter that has gone quiet looks like fewer blocks."""
    for blocked in ((0.1, 0.0), (0.02, 0.2)):
        judged = judge(after(traffic(5_000, blocked=blocked)), POLICY)
        assert judged.harm
        assert "blocked" in judged.suspects[0].mark


def test_harm_that_begins_late_is_found_as_well() -> None:
    """After three thousand healthy requests."""
    late = after(traffic(3_000), traffic(800, errors=(0.01, 0.3), seed=2))
    assert judge(late, POLICY).harm


def test_errors_against_a_control_without_any_are_harm() -> None:
    """Kayenta's issue 426: an all-zero baseline is judged a pass there."""
    assert judge(after(traffic(2_000, errors=(0.0, 0.1))), POLICY).harm


def test_a_proved_candidate_is_promoted_only_from_the_last_step() -> None:
    """Before it the next step follows, however good it looks."""
    good = proved()
    assert not judge(good, POLICY).unproved
    [early] = decide_canary(state_of(good, weight=10.0), NOW)
    assert isinstance(early, Shift)
    assert early.weight == 25.0
    [last] = decide_canary(state_of(good, weight=50.0), NOW)
    assert isinstance(last, Promote)


def test_no_proof_is_never_a_promotion() -> None:
    """At the deadline it is given up for a person to look, or rolled back, as the policy says."""
    little = after(traffic(300, weight=0.5))
    late = 7 * 3600.0
    [held] = decide_canary(state_of(little, weight=50.0, seconds=late), NOW)
    assert isinstance(held, GiveUp)
    rolls = dataclasses.replace(POLICY, when_inconclusive=Inconclusive.ROLL_BACK)
    [rolled] = decide_canary(state_of(little, policy=rolls, weight=50.0, seconds=late), NOW)
    assert isinstance(rolled, RollBack)


def test_without_traffic_it_waits() -> None:
    """Neither a rollback nor a step: no data is not bad data, and not good data."""
    state = dataclasses.replace(state_of(Evidence()), last_seen_at=None)
    [action] = decide_canary(state, NOW)
    assert isinstance(action, Stay)
    assert "waiting" in action.reason


def test_a_pause_holds_growth_but_not_a_rollback() -> None:
    """Whoever pauses wants to look, not to go on hurting callers."""
    good = dataclasses.replace(state_of(proved(), weight=50.0), paused_by="ada")
    assert isinstance(decide_canary(good, NOW)[0], Stay)
    bad = dataclasses.replace(state_of(after(traffic(600, errors=(0.01, 0.3)))), paused_by="ada")
    assert isinstance(decide_canary(bad, NOW)[0], RollBack)


def test_a_spent_allowance_ends_the_exposure() -> None:
    """Even where nothing is proved yet: five bad answers more than usual were all it had."""
    policy = dataclasses.replace(POLICY, allowance=5.0, alpha=1e-9)
    [action] = decide_canary(state_of(after(traffic(800, errors=(0.01, 0.12))), policy=policy), NOW)
    assert isinstance(action, RollBack)
    assert "allowance" in action.reason


def test_a_thin_budget_begins_small_and_grows_with_evidence() -> None:
    """Ten requests a second, thirty seconds until a rollback takes effect, three bad answers granted."""
    policy = dataclasses.replace(POLICY, allowance=3.0)
    begin = dataclasses.replace(state_of(Evidence(), policy=policy, weight=0.0), requests_per_second=10.0)
    [first] = decide_canary(begin, NOW)
    assert isinstance(first, Shift)
    assert first.weight == 1.0
    quiet = traffic(8_000, weight=0.2, errors=(0.0, 0.0))
    later = dataclasses.replace(state_of(after(quiet), policy=policy, weight=1.0), requests_per_second=10.0)
    [then] = decide_canary(later, NOW)
    assert isinstance(then, Shift)
    assert then.weight == 5.0


def test_evidence_survives_being_stored() -> None:
    """What was stored and read again goes on as what was not."""
    batch = traffic(400, slices=("size 512",))
    whole = after(batch, size=50)
    half = msgspec.json.decode(msgspec.json.encode(after(batch[:200], size=50)), type=Evidence)
    for start in range(200, 400, 50):
        half = absorb(half, batch[start : start + 50], POLICY)
    assert half == whole


def test_the_bench_judges_as_the_platform_does() -> None:
    """The vectorised judge of the benches and `absorb` hold the same capital after the same requests."""
    mark = Mark("errors", "failed", 1.0)
    policy = Policy(marks=(mark,))
    bench = canary_world.Judge(1, policy, ["errors"])
    evidence = Evidence()
    batches = [traffic(100, errors=(0.02, 0.06), seed=seed) for seed in range(20)]
    for batch in batches:
        counts = np.zeros((1, 1, 2, 2))
        for item in batch:
            counts[0, 0, int(item.candidate), int(item.readings["failed"])] += 1
        bench.look(counts, 0.1)
        evidence = absorb(evidence, batch, policy)
    assert np.isclose(evidence.streams[""]["errors"].log_capital, bench.log_capital[0, 0])


@settings(max_examples=60)
@given(
    weight=st.sampled_from([0.0, 1.0, 5.0, 10.0, 25.0, 50.0]),
    errors=st.sampled_from([0.0, 0.01, 0.05, 0.3]),
    allowance=st.floats(0.1, 100.0),
    requests=st.integers(0, 400),
    seconds=st.floats(0.0, 30_000.0),
    per_second=st.floats(0.0, 100.0),
)
def test_a_weight_never_exceeds_what_the_allowance_bears(
    weight: float, errors: float, allowance: float, requests: int, seconds: float, per_second: float
) -> None:
    """Nor the last step; one action, with a reason, and the same one for the same look."""
    policy = dataclasses.replace(POLICY, allowance=allowance)
    evidence = after(traffic(requests, errors=(0.01, errors)), policy=policy)
    state = dataclasses.replace(
        state_of(evidence, policy=policy, weight=weight, seconds=seconds), requests_per_second=per_second
    )
    [action] = decide_canary(state, NOW)
    assert [action] == decide_canary(state, NOW)
    assert action.reason
    judged = judge(evidence, policy)
    if isinstance(action, Shift):
        assert 0.0 < action.weight <= max(policy.steps)
        at_stake = per_second * policy.look_ahead_seconds * judged.upper_excess_rate * action.weight / 100.0
        assert at_stake <= allowance - judged.excess + 1e-9 or action.weight == 0.01
    assert not isinstance(action, Promote) or (weight == 50.0 and not judged.unproved)


def test_wider_margins_are_proved_with_less_traffic_and_nothing_else_changes() -> None:
    """Three times as wide: a few hundred requests are enough where the usual ones need more."""
    wide = policy_of(RolloutOptions(margin_factor=3.0)).canary
    assert dataclasses.replace(wide, marks=POLICY.marks) == POLICY
    batches = [traffic(200, weight=0.5, errors=(0.0, 0.0), blocked=(0.0, 0.0), seed=seed) for seed in (1, 2)]
    assert not judge(after(*batches, policy=wide, size=50), wide).unproved
    assert judge(after(*batches, size=50), POLICY).unproved
    for wrong in (0.1, 9.0, -1.0):
        with pytest.raises(UsageError, match="margin_factor"):
            policy_of(RolloutOptions(margin_factor=wrong))


def test_a_policy_of_one_large_step_reaches_it_when_it_is_played() -> None:
    """The worst case of a candidate falls as its requests succeed, so its share may grow."""
    policy = policy_of(RolloutOptions(steps=[50.0], margin_factor=3.0)).canary
    assert play(policy, World(per_minute=600.0, control_errors=0.0, candidate_errors=0.0), 1).verdict == "promoted"
