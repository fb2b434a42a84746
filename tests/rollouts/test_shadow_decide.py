"""Which requests are mirrored, and what the shadow says of a candidate."""

import dataclasses
import datetime as dt

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conformance.memory_fleet import EPOCH
from tests.rollouts.shadow_values import compared, offered
from tests.rollouts.test_rollout_decide import recorded, rollout_of, sight_of

from forestay.diffs.noise import Said
from forestay.errors import UsageError
from forestay.rollouts.model import Order, RolloutPolicy, Stage
from forestay.rollouts.options import RolloutOptions, policy_of
from forestay.rollouts.shadow.decide import decide_mirror, judge_shadow, seeded
from forestay.rollouts.shadow.model import Expect, Offered, Pair, ShadowPolicy

POLICY = ShadowPolicy(requests=20, budget_seconds=100.0)
SHADOWED = dataclasses.replace(RolloutPolicy(), shadow=POLICY)
OFFERS = st.lists(
    st.builds(
        offered,
        st.integers(0, 50),
        st.sampled_from(["/", "/edit", "/ about 65,536 pixels"]),
        st.floats(0.01, 40.0),
    ),
    max_size=12,
    unique_by=lambda item: item.request_id,
)


@settings(deadline=None)
@given(OFFERS, st.integers(0, 25), st.integers(0, 3), st.floats(0, 200), st.integers(1, 4))
def test_mirroring_keeps_to_its_bounds(
    offers: list[Offered], done: int, waiting: int, budget: float, at_a_time: int
) -> None:
    """Never a request twice, never beyond count or budget, never while a caller waits, never many at once."""
    policy = dataclasses.replace(POLICY, budget_seconds=budget, at_a_time=at_a_time)
    pairs = [compared(100 + number) for number in range(done)]
    chosen = decide_mirror(policy, pairs, offers, waiting)
    names = [item.offered.request_id for item in chosen]
    assert len(set(names)) == len(names) <= at_a_time
    assert done + len(names) <= max(done, policy.requests)
    assert waiting == 0 or not names
    costs = sum(2 * item.offered.device_seconds for item in chosen)
    assert not names or 2.0 * done + costs <= budget + 1e-9
    if names:
        again = [compared(item.offered.request_id.int - 1) for item in chosen]
        later = decide_mirror(policy, [*pairs, *again], offers, 0)
        assert not {item.offered.request_id for item in later} & set(names)


def test_the_cheap_come_first_until_they_have_their_part_and_then_the_dear() -> None:
    """What differs everywhere is found cheaply, and a size is not missed because another is frequent."""
    offers = [offered(1, "small", 1.0), offered(2, "large", 9.0), offered(3, "large", 4.0), offered(4, "small", 0.5)]
    few = [compared(10, stratum="small"), compared(11, stratum="small")]
    chosen = decide_mirror(POLICY, few, offers, 0)
    assert [item.offered.request_id for item in chosen] == [offers[3].request_id, offers[0].request_id]
    enough = [compared(10 + number, stratum="small") for number in range(10)]
    chosen = decide_mirror(POLICY, enough, offers, 0)
    assert [item.offered.request_id for item in chosen] == [offers[2].request_id, offers[1].request_id]
    assert "0 of 10 requests of large" in chosen[0].reason


def test_a_seed_is_taken_from_the_input_or_from_the_answer_and_else_nothing_is_compared() -> None:
    """Without one no two answers need be alike; where only the kind of output counts, none is needed."""
    own = offered(1, body=b'{"prompt":"x","seed":7}')
    assert seeded(own, POLICY) == own.body
    told = dataclasses.replace(offered(1, body=b'{"prompt":"x","seed":null}'), answer=b'{"seed":9}')
    body = seeded(told, POLICY)
    assert body is not None
    assert msgspec.json.decode(body) == {"prompt": "x", "seed": 9}
    none = offered(1, body=b'{"prompt":"x"}')
    assert seeded(none, POLICY) is None
    assert seeded(none, dataclasses.replace(POLICY, expect=Expect.ALIKE)) == none.body
    assert seeded(offered(1, body=b"[1]"), POLICY) is None


def said_of(pairs: list[Pair], policy: ShadowPolicy = POLICY, seconds: float = 10.0) -> Said:
    """What the shadow says after so many seconds."""
    return judge_shadow(policy, pairs, EPOCH + dt.timedelta(seconds=seconds), EPOCH).said


def test_what_a_person_expects_to_change_stops_nothing_and_a_missing_answer_always_does() -> None:
    """Retrained weights are judged by their kind of output, a change of everything by whether there is any."""
    moved = [compared(number, excess=50.0) for number in range(20)]
    assert said_of(moved) is Said.DIFFERS
    alike, changed = (dataclasses.replace(POLICY, expect=item) for item in (Expect.ALIKE, Expect.CHANGED))
    assert said_of(moved, alike) is said_of(moved, changed) is Said.SAME
    shifted = [compared(number, features=9.0) for number in range(20)]
    assert said_of(shifted, alike) is Said.DIFFERS
    gone = [
        dataclasses.replace(item, outcome=dataclasses.replace(item.outcome, found={"missing": 1.0}))
        for item in moved
        if item.outcome is not None
    ]
    assert said_of(gone, changed) is Said.DIFFERS
    bare = [
        dataclasses.replace(item, outcome=dataclasses.replace(item.outcome, features=((), ()), kind=""))
        for item in moved
        if item.outcome is not None
    ]
    assert said_of(bare, alike) is Said.INCONCLUSIVE


def shadowed(pairs: list[Pair], seconds: float, **changes: object) -> Stage:
    """Where a rollout in its shadow is after a look."""
    rollout = dataclasses.replace(rollout_of(Stage.SHADOW), policy=SHADOWED, **changes)
    sight = dataclasses.replace(sight_of(rollout), pairs=tuple(pairs))
    return recorded(sight, seconds).stage


def test_gates_lead_to_the_shadow_and_the_shadow_to_the_canary() -> None:
    """Enough requests that are the same; without a shadow the canary follows the gates."""
    gates = dataclasses.replace(rollout_of(Stage.GATES), policy=SHADOWED)
    assert recorded(sight_of(gates)).stage is Stage.SHADOW
    assert recorded(sight_of(rollout_of(Stage.GATES))).stage is Stage.CANARY
    assert shadowed([compared(number) for number in range(20)], 10.0) is Stage.CANARY
    assert shadowed([compared(number) for number in range(19)], 10.0) is Stage.SHADOW


def test_a_candidate_that_differs_is_stopped_before_any_traffic_with_the_reason() -> None:
    """Also one that is paused, and whoever has ordered its promotion."""
    bad = tuple(compared(number, excess=6.0) for number in range(12))
    rollout = dataclasses.replace(rollout_of(Stage.SHADOW), policy=SHADOWED, paused_by="ada")
    ended = recorded(dataclasses.replace(sight_of(rollout), pairs=bad))
    assert (ended.stage, ended.weight) == (Stage.ROLLED_BACK, 0.0)
    assert "stopped in shadow: 12 of 12 requests differ" in ended.reason
    assert ended.shadow is not None
    assert ended.shadow.spent_seconds == pytest.approx(24.0)
    assert shadowed(list(bad), 1.0, order=Order.PROMOTE, ordered_by="ada") is Stage.ROLLED_BACK


def test_a_shadow_without_a_verdict_is_held_once_time_or_budget_are_over() -> None:
    """Inconclusive is never pass; a person may promote all the same, and a pause holds everything."""
    few = [compared(number) for number in range(3)]
    assert shadowed(few, 3_700.0) is Stage.HELD
    assert shadowed([compared(1, seconds=150.0)], 1.0) is Stage.HELD
    assert shadowed(few, 3_700.0, paused_by="ada") is Stage.SHADOW
    assert shadowed(few, 1.0, order=Order.PROMOTE, ordered_by="ada") is Stage.PROMOTED
    assert shadowed(few, 1.0, order=Order.ABORT, ordered_by="ada") is Stage.ROLLED_BACK


def test_options_of_the_shadow_are_bounded_and_named() -> None:
    """On unless somebody says no."""
    assert policy_of(None).shadow.requests == 32
    assert policy_of(RolloutOptions(shadow_requests=0)).shadow.requests == 0
    chosen = policy_of(RolloutOptions(shadow_requests=40, shadow_budget_seconds=5, shadow_expect=Expect.ALIKE)).shadow
    assert (chosen.requests, chosen.budget_seconds, chosen.expect) == (40, 5, Expect.ALIKE)
    for wrong in (RolloutOptions(shadow_requests=3), RolloutOptions(shadow_budget_seconds=-1)):
        with pytest.raises(UsageError, match="shadow"):
            policy_of(wrong)
