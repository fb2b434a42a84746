"""From placements to replicas: what is started, drained, and waited for."""

import dataclasses
import datetime as dt
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from tests.conformance.fleet_values import revision_of

from forestay.fleet.model import Placement, ReplicaState
from forestay.ids import ModelId, ReplicaId, RevisionId, WorkerId
from forestay.worker.reconcile import (
    PUT_OFF,
    BackOff,
    Drain,
    Failure,
    Observed,
    Situation,
    Start,
    Wait,
    decide,
    is_choice,
)

NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
REVISIONS = {RevisionId(f"{name}-1"): revision_of(f"{name}-1", ModelId(f"acme/{name}")) for name in "abc"}
STATES = [ReplicaState.SETUP, ReplicaState.READY, ReplicaState.DRAINING]


def placement(revision: str, replicas: int, *ending: str) -> Placement:
    """Return what is asked."""
    return Placement(
        WorkerId("w1"), RevisionId(revision), replicas, "wanted", tuple(ReplicaId(name) for name in ending)
    )


def seen(name: str, revision: str, state: ReplicaState = ReplicaState.READY, *, busy: bool = False) -> Observed:
    """Return what is."""
    return Observed(ReplicaId(name), RevisionId(revision), state, busy, 1, NOW)


def situation(placements: list[Placement], observed: list[Observed], devices: int = 4) -> Situation:
    """Put together."""
    return Situation(placements, observed, {}, {}, REVISIONS, devices, BackOff(30.0, 600.0))


def started(seen_now: Situation) -> list[str]:
    """Return the revisions that are started now, in order."""
    return [action.revision_id for action in decide(seen_now, NOW) if isinstance(action, Start)]


def test_what_is_missing_is_started_within_the_devices() -> None:
    """Three are asked for, two devices are there."""
    assert decide(situation([placement("a-1", 3)], [], devices=2), NOW) == [Start(RevisionId("a-1"), "wanted")] * 2


def test_what_nobody_asks_for_is_drained() -> None:
    """No placement, or placement 0."""
    made = decide(situation([placement("b-1", 0)], [seen("r1", "a-1"), seen("r2", "b-1")]), NOW)
    assert [action.replica_id for action in made if isinstance(action, Drain)] == ["r1", "r2"]


def test_an_idle_replica_goes_before_a_busy_one() -> None:
    """The surplus is taken where least is lost."""
    made = decide(situation([placement("a-1", 1)], [seen("r1", "a-1", busy=True), seen("r2", "a-1")]), NOW)
    assert made == [Drain(ReplicaId("r2"), "wanted")]


def test_one_that_shall_end_is_drained_though_it_is_busy_and_its_siblings_stay() -> None:
    """Where as many are asked for as before, a fresh one comes in its place, once there is room."""
    observed = [seen("r1", "a-1", busy=True), seen("r2", "a-1")]
    assert decide(situation([placement("a-1", 1, "r1")], observed), NOW) == [Drain(ReplicaId("r1"), "wanted")]
    made = decide(situation([placement("a-1", 2, "r1")], observed, devices=3), NOW)
    assert made == [Drain(ReplicaId("r1"), "wanted"), Start(RevisionId("a-1"), "wanted")]
    gone = decide(situation([placement("a-1", 1, "r1")], [seen("r2", "a-1")]), NOW)
    assert gone == []


def test_a_draining_replica_keeps_its_device_until_it_has_ended() -> None:
    """Its successor waits: two models would not fit at once."""
    observed = [seen("r1", "a-1", ReplicaState.DRAINING)]
    assert decide(situation([placement("b-1", 1)], observed, devices=1), NOW) == []


def test_an_unknown_revision_is_left_alone() -> None:
    """A placement may be read before its revision."""
    assert decide(situation([placement("zz-9", 1)], []), NOW) == []


def test_a_failed_start_waits_longer_each_time_up_to_the_cap() -> None:
    """30 s, 60 s, ... 600 s; at its time it is tried."""
    for count, seconds in ((1, 30), (2, 60), (50, 600)):
        failed = dataclasses.replace(
            situation([placement("a-1", 1)], []), failures={RevisionId("a-1"): Failure(count, NOW, "broken")}
        )
        made = decide(failed, NOW + dt.timedelta(seconds=seconds - 1))
        assert [type(action) for action in made] == [Wait]
        assert [type(action) for action in decide(failed, NOW + dt.timedelta(seconds=seconds))] == [Start]


def test_a_success_anywhere_ends_the_wait() -> None:
    """Another worker got it ready after our failure: try now."""
    failed = dataclasses.replace(
        situation([placement("a-1", 1)], []),
        failures={RevisionId("a-1"): Failure(5, NOW, "broken")},
        successes={RevisionId("a-1"): NOW + dt.timedelta(seconds=1)},
    )
    assert [type(action) for action in decide(failed, NOW + dt.timedelta(seconds=2))] == [Start]


def test_what_requests_wait_for_loads_first_and_the_rest_once_it_is_ready() -> None:
    """After a kill all models are to be loaded: the one that a caller waits for does not share the machine."""
    after_a_kill = situation([placement("a-1", 1), placement("b-1", 1), placement("c-1", 1)], [])
    assert [action.revision_id for action in decide(after_a_kill, NOW) if isinstance(action, Start)] == sorted(
        REVISIONS
    )
    wanted = dataclasses.replace(after_a_kill, waited_for=frozenset({REVISIONS[RevisionId("b-1")].model_id}))
    assert decide(wanted, NOW) == [Start(RevisionId("b-1"), "wanted")]
    loading = dataclasses.replace(wanted, observed=[seen("r1", "b-1", ReplicaState.SETUP)])
    assert decide(loading, NOW) == []
    ready = dataclasses.replace(wanted, observed=[seen("r1", "b-1")])
    assert started(ready) == ["a-1", "c-1"]


def test_a_load_that_takes_long_or_fails_holds_nobody_up() -> None:
    """Half a minute, or until its next try: others have callers of their own, and deploys time-outs."""
    placements = [placement("a-1", 1), placement("b-1", 1)]
    wanted = frozenset({REVISIONS[RevisionId("b-1")].model_id})
    loading = dataclasses.replace(situation(placements, [seen("r1", "b-1", ReplicaState.SETUP)]), waited_for=wanted)
    assert decide(loading, NOW + PUT_OFF) == [Start(RevisionId("a-1"), "wanted")]
    failed = {RevisionId("b-1"): Failure(1, NOW, "broken")}
    backing_off = dataclasses.replace(situation(placements, []), waited_for=wanted, failures=failed)
    assert [type(action) for action in decide(backing_off, NOW)] == [Wait, Start]


def test_who_waits_is_asked_only_where_it_matters() -> None:
    """One model to load, or none, is no choice; a second that loads already is one."""
    both = [placement("a-1", 1), placement("b-1", 1)]
    assert is_choice(situation(both, []), NOW)
    assert is_choice(situation(both, [], devices=1), NOW)  # the other one has to wait for a device
    assert is_choice(situation(both, [seen("r1", "a-1", ReplicaState.SETUP)]), NOW)
    assert not is_choice(situation(both, [seen("r1", "a-1")]), NOW)
    assert not is_choice(situation(both, [seen("r1", "a-1"), seen("r2", "b-1")]), NOW)


@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(REVISIONS)), st.integers(0, 3)), max_size=3, unique_by=lambda item: item[0]
    ),
    st.lists(st.tuples(st.sampled_from(sorted(REVISIONS)), st.sampled_from(STATES), st.booleans()), max_size=6),
    st.integers(1, 6),
    st.sets(st.sampled_from(["r0", "r1", "r2"])),
    st.sets(st.sampled_from(sorted(REVISIONS))),
)
def test_doing_what_was_decided_leaves_nothing_to_do_and_never_takes_too_many_devices(
    wanted: list[tuple[str, int]],
    present: list[tuple[str, ReplicaState, bool]],
    devices: int,
    ending: set[str],
    waited: set[str],
) -> None:
    """Idempotent; at most the devices; a replica that is asked for is never drained, one that shall end always."""
    placements = [placement(name, replicas, *sorted(ending)) for name, replicas in wanted]
    observed = [seen(f"r{number}", name, state, busy=busy) for number, (name, state, busy) in enumerate(present)]
    waited_for = frozenset({REVISIONS[RevisionId(name)].model_id for name in waited})
    first = decide(dataclasses.replace(situation(placements, observed, devices), waited_for=waited_for), NOW)
    after = [
        dataclasses.replace(item, state=ReplicaState.DRAINING) if _drained(item, first) else item for item in observed
    ]
    started = [action for action in first if isinstance(action, Start)]
    after += [seen(f"n{number}", action.revision_id, ReplicaState.SETUP) for number, action in enumerate(started)]
    again = dataclasses.replace(situation(placements, after, devices), waited_for=waited_for)
    assert decide(again, NOW) == []
    if started:
        assert len(after) <= devices
    for name, replicas in wanted:
        here = [item for item in observed if item.revision_id == name and item.state is not ReplicaState.DRAINING]
        live = [item for item in here if item.replica_id not in ending]
        assert all(_drained(item, first) for item in here if item.replica_id in ending)
        drained = [item for item in live if _drained(item, first)]
        assert len(live) - len(drained) >= min(replicas, len(live))


def _drained(item: Observed, actions: Sequence[object]) -> bool:
    return any(isinstance(action, Drain) and action.replica_id == item.replica_id for action in actions)
