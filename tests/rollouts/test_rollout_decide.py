"""What a rollout does next, whatever the world looks like; and which requests count for whom."""

import dataclasses
import datetime as dt
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conformance.fleet_values import DIGITS, replica_of, revision_of, worker_of
from tests.conformance.memory_fleet import EPOCH

from forestay.fleet.model import Fleet, PendingRoute, ReplicaReport, ReplicaState, Route
from forestay.fleet.routes import wrong_routes
from forestay.ids import BUCKETS, RequestId
from forestay.rollouts.decide import Record, Reroute, Sight, decide_rollout, routes_at
from forestay.rollouts.gates import check_start
from forestay.rollouts.model import (
    TERMINAL,
    TRANSITIONS,
    Begun,
    GateResult,
    GateVerdict,
    Order,
    Phase,
    Rollout,
    RolloutPolicy,
    Stage,
    begin,
)
from forestay.rollouts.observe import FinishedRequest, learn, observe, phase_of

OLD, NEW = revision_of("digits-1"), revision_of("digits-2")
PASSED = (GateResult("start", GateVerdict.PASS, "a replica is ready"),)
WEIGHTS = st.sampled_from([0.0, 0.01, 5.0, 12.34, 50.0, 95.0, 100.0])


def rollout_of(stage: Stage = Stage.CANARY, weight: float = 0.0, routed: float | None = None) -> Rollout:
    """A rollout somewhere on its way."""
    begun = begin("r1", DIGITS, (OLD.revision_id, NEW.revision_id), RolloutPolicy(), Begun(EPOCH, "human:k1", "a test"))
    return dataclasses.replace(begun, stage=stage, weight=weight, routed=weight if routed is None else routed)


def sight_of(rollout: Rollout, routes: tuple[Route, ...] | None = None, *, planned: bool = False) -> Sight:
    """What a look gives: by default the routes that were last confirmed, everything up, every gate passed."""
    actual = routes_at(rollout, rollout.routed) if routes is None else routes
    return Sight(rollout, actual, planned, candidate_up=True, control_up=True, gates=PASSED)


def recorded(sight: Sight, seconds: float = 1.0) -> Rollout:
    """The state that a look records."""
    actions = decide_rollout(sight, EPOCH + dt.timedelta(seconds=seconds))
    [found] = [item.rollout for item in actions if isinstance(item, Record)]
    return found


@given(WEIGHTS | st.floats(0.0, 100.0))
def test_shares_cover_every_request_once(weight: float) -> None:
    """Whatever the weight; and a request that the candidate had it keeps while its share grows."""
    rollout = rollout_of()
    revisions = {OLD.revision_id: OLD, NEW.revision_id: NEW}
    assert wrong_routes(DIGITS, routes_at(rollout, weight), revisions) == ""


@given(
    st.sampled_from(Stage), WEIGHTS, WEIGHTS, WEIGHTS, st.booleans(), st.booleans(), st.sampled_from(Order),
    st.floats(0.0, 40_000.0), st.sampled_from(GateVerdict),
)  # fmt: skip
def test_no_look_breaks_a_promise(  # noqa: PLR0917 - everything that a look may meet
    stage: Stage,
    weight: float,
    routed: float,
    actual: float,
    candidate_up: bool,
    planned: bool,
    order: Order,
    seconds: float,
    gate: GateVerdict,
) -> None:
    """An end is never left, a stage only by the table, a failed one gets nothing, others' routes are not touched."""
    rollout = dataclasses.replace(rollout_of(stage, weight, routed), order=order, ordered_by="ada")
    sight = Sight(
        rollout,
        routes_at(rollout, actual),
        planned,
        candidate_up=candidate_up,
        control_up=True,
        gates=(GateResult("start", gate, "x"),),
    )
    actions = decide_rollout(sight, EPOCH + dt.timedelta(seconds=seconds))
    after = next((item.rollout for item in actions if isinstance(item, Record)), rollout)
    assert after.stage is stage or after.stage in TRANSITIONS[stage] or (after.settled and after.stage is Stage.HELD)
    if after.stage in {Stage.ROLLED_BACK, Stage.HELD} and after.stage is not stage and not after.settled:
        assert after.weight == 0.0
    if stage in TERMINAL:
        assert after.weight == weight
    moves = [item for item in actions if isinstance(item, Reroute)]
    assert len(moves) <= 1
    known = {weight, routed}
    if {round(item, 2) for item in known}.isdisjoint({round(actual, 2)}):
        assert moves == []
    for move in moves:
        assert move.seen == sight.routes
        assert set(move.routes) == set(routes_at(after, after.weight))
    if actions and isinstance(actions[-1], Record):
        assert moves == []  # what is recorded comes before what is done


def test_looking_again_at_what_is_as_it_should_be_changes_nothing() -> None:
    """A settled rollout is left alone, also when its routes have been changed since."""
    done = dataclasses.replace(rollout_of(Stage.PROMOTED, 100.0), settled=True)
    assert decide_rollout(sight_of(done, routes_at(done, 0.0)), EPOCH) == []


def test_inconclusive_gates_are_waited_for_and_then_held() -> None:
    """They never pass, and a failed one ends it before any traffic."""
    waiting = dataclasses.replace(
        sight_of(rollout_of(Stage.GATES)), gates=(GateResult("start", GateVerdict.INCONCLUSIVE, "not yet"),)
    )
    assert recorded(waiting, 10.0).stage is Stage.GATES
    assert recorded(waiting, 901.0).stage is Stage.HELD
    failed = dataclasses.replace(waiting, gates=(*PASSED, GateResult("interface", GateVerdict.FAIL, "lost /edit")))
    ended = recorded(failed, 10.0)
    assert ended.stage is Stage.ROLLED_BACK
    assert "lost /edit" in ended.reason


def test_a_candidate_without_replicas_loses_its_traffic() -> None:
    """While the control has some: its callers would wait for nothing. With both gone, nobody is to blame."""
    serving = rollout_of(weight=10.0)
    gone = dataclasses.replace(sight_of(serving), candidate_up=False)
    noted = recorded(gone, 1.0)
    assert (noted.stage, noted.weight) == (Stage.CANARY, 10.0)
    ended = recorded(dataclasses.replace(gone, rollout=noted), 30.0)
    assert (ended.stage, ended.weight) == (Stage.ROLLED_BACK, 0.0)
    both = dataclasses.replace(gone, control_up=False)
    assert recorded(both, 1.0).missing_since is None


def test_an_abort_is_one_look_from_weight_zero() -> None:
    """Recorded and routed in the same run; it stands against a promotion."""
    aborted = dataclasses.replace(rollout_of(weight=25.0), order=Order.ABORT, ordered_by="ada")
    record, move = decide_rollout(sight_of(aborted), EPOCH)
    assert isinstance(record, Record)
    assert isinstance(move, Reroute)
    assert record.rollout.stage is Stage.ROLLED_BACK
    assert move.routes == (Route(DIGITS, OLD.revision_id, 0, BUCKETS),)


# Which requests count -----------------------------------------------------------------------------------------------
def fact_of(
    bucket: int = 0, began: float | None = 10.0, ended: float = 11.0, outcome: str = "succeeded"
) -> FinishedRequest:
    """A request with a given bucket; times in seconds after the beginning."""

    def at(seconds: float) -> dt.datetime:
        return EPOCH + dt.timedelta(seconds=seconds)

    started = None if began is None else at(began)
    work = {"x_pixels": 1024.0 * 1024.0}
    return FinishedRequest(RequestId(uuid.UUID(int=bucket)), "/edit", outcome, at(9.0), started, at(ended), 0.5, work)


PHASES = (
    Phase(0.0, EPOCH, EPOCH + dt.timedelta(seconds=8)),
    Phase(5.0, EPOCH + dt.timedelta(seconds=10), EPOCH + dt.timedelta(seconds=20)),
    Phase(10.0, EPOCH + dt.timedelta(seconds=22)),
)


@pytest.mark.parametrize(
    ("began", "ended", "weight"),
    [
        (5.0, 50.0, 0.0),
        (9.0, 50.0, None),
        (10.0, 50.0, 5.0),
        (21.0, 50.0, None),
        (30.0, 50.0, 10.0),
        (None, 15.0, None),
    ],
)
def test_a_request_counts_under_the_share_that_chose_its_revision(
    began: float | None, ended: float, weight: float | None
) -> None:
    """Between two shares it may have been either, and counts for none; one that never began must have seen one only."""
    phase = phase_of(fact_of(began=began, ended=ended), PHASES)
    assert (None if phase is None else phase.weight) == weight


def test_the_arm_is_that_of_the_bucket() -> None:
    """Also where the request never began: the revision that left it waiting is to blame."""
    phase = PHASES[1]
    inside, outside = observe(fact_of(499), phase), observe(fact_of(500, outcome="expired"), phase)
    assert inside is not None
    assert outside is not None
    assert (inside.candidate, outside.candidate) == (True, False)
    assert outside.readings["failed"] == 1.0
    assert "seconds" not in outside.readings
    assert inside.slices == ("endpoint /edit", "about 1024x1024 pixels")
    named = observe(dataclasses.replace(fact_of(499), tenant_id="acme", work={}), phase)
    assert named is not None
    assert named.slices == ("endpoint /edit", "tenant acme")
    assert observe(fact_of(outcome="cancelled"), phase) is None
    broken = observe(fact_of(outcome="broken_output"), phase)
    assert broken is not None
    assert (broken.readings["broken"], broken.readings["failed"], inside.readings["broken"]) == (1.0, 0.0, 0.0)


def test_what_was_learned_moves_the_cursor_and_counts_the_step() -> None:
    """Requests of an earlier share count as evidence, not towards the present step."""
    rollout = dataclasses.replace(rollout_of(weight=10.0), phases=PHASES)
    facts = [fact_of(1, began=12.0, ended=13.0), fact_of(2, began=23.0, ended=24.0), fact_of(9_000, 23.0, 25.0)]
    after = learn(rollout, facts, EPOCH + dt.timedelta(seconds=30))
    assert after.cursor.finished_at == facts[-1].finished_at
    assert (after.evidence.requests, after.step_requests) == ((1, 2), 1)
    assert after.last_seen_at == facts[1].finished_at
    assert after.requests_per_second > 0


def test_the_start_gate_waits_for_room_and_fails_on_a_broken_start() -> None:
    """Whoever waits for a worker is not broken; who fails to start says why."""

    def fleet(*replicas: ReplicaReport, seconds: float) -> Fleet:
        now = EPOCH + dt.timedelta(seconds=seconds)
        plan = PendingRoute(DIGITS, NEW.revision_id, EPOCH, EPOCH + dt.timedelta(days=1), held=True)
        worker = dataclasses.replace(worker_of(), seen_at=now)
        found = {item.replica_id: item for item in replicas}
        return Fleet(
            1, now, {}, {NEW.revision_id: NEW}, (), (), {worker.worker_id: worker}, found, {}, pending={DIGITS: plan}
        )

    def verdict(fleet: Fleet) -> GateResult:
        return check_start(rollout_of(Stage.GATES), fleet, fleet.now)

    late = NEW.spec.limits.startup_timeout_seconds + 1
    broken = dataclasses.replace(replica_of(NEW, state=ReplicaState.BACKOFF), detail="setup() raised ImportError")
    assert verdict(fleet(replica_of(NEW), seconds=1)).verdict is GateVerdict.PASS
    assert verdict(fleet(broken, seconds=1)).verdict is GateVerdict.INCONCLUSIVE
    assert verdict(fleet(seconds=late)).verdict is GateVerdict.INCONCLUSIVE
    told = verdict(fleet(broken, seconds=late))
    assert told.verdict is GateVerdict.FAIL
    assert "ImportError" in told.evidence
