"""What follows from findings: one bad replica goes, a bad reference drains nobody, what is held back returns."""

import dataclasses
import datetime as dt
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conformance.fleet_values import replica_of, revision_of, worker_of
from tests.conformance.memory_fleet import EPOCH

from forestay.fleet.model import Fleet, Placement, ReplicaState, Revision, Route
from forestay.ids import BUCKETS, ReplicaId, RevisionId, WorkerId
from forestay.quality.remedies import (
    PAUSE,
    AskSelfTest,
    DrainReplica,
    Ground,
    LeaveRevision,
    LiftHold,
    Remedy,
    Suspicion,
    decide,
)
from forestay.quality.watch_store import Hold

NOW = EPOCH + dt.timedelta(hours=2)
NEW, OLD = revision_of("digits-2"), dataclasses.replace(revision_of("digits-1"), created_at=EPOCH)
BOTH = (dataclasses.replace(NEW, created_at=EPOCH + dt.timedelta(hours=1)), OLD)


def fleet_of(count: int, *, revisions: Sequence[Revision] = (NEW,), old: int = 0) -> Fleet:
    """Return a fleet with one replica of the routed revision on each worker."""
    replicas = [replica_of(NEW, f"w{number}", name=f"r{number}") for number in range(count)]
    replicas += [replica_of(OLD, f"o{number}", name=f"old{number}") for number in range(old)]
    workers = [worker_of(item.worker_id) for item in replicas]
    return Fleet(
        1, NOW, {}, {item.revision_id: item for item in revisions},
        (Route(NEW.model_id, NEW.revision_id, 0, BUCKETS),),
        tuple(Placement(item.worker_id, item.revision_id, 1, "") for item in replicas),
        {item.worker_id: item for item in workers}, {item.replica_id: item for item in replicas}, {},
    )  # fmt: skip


def suspicion(replica: str = "r0", **changed: object) -> Suspicion:
    """Return a sure suspicion of a replica beside healthy ones."""
    made = Suspicion(
        f"f-{replica}", NEW.model_id, NEW.revision_id, ReplicaId(replica), sure=True, peers_healthy=True, at=NOW,
        reason="black",
    )  # fmt: skip
    return dataclasses.replace(made, **changed)  # type: ignore[arg-type]


def hold(worker: str = "w0", **changed: object) -> Hold:
    """Return a hold of ten minutes ago."""
    made = Hold(WorkerId(worker), NEW.revision_id, NEW.model_id, ReplicaId("r0"), "f", "black",
                NOW - dt.timedelta(minutes=10))  # fmt: skip
    return dataclasses.replace(made, **changed)  # type: ignore[arg-type]


def test_one_bad_replica_beside_healthy_ones_is_drained_with_the_reason() -> None:
    """Its worker is held back, and the reason says what was found and who serves on."""
    (found,) = decide(Ground(fleet_of(3), [suspicion()], []), NOW)
    assert isinstance(found, DrainReplica)
    assert (found.hold.worker_id, found.hold.replica_id, found.hold.finding_id) == ("w0", "r0", "f-r0")
    assert "black; 2 other replicas" in found.reason


@pytest.mark.parametrize(
    ("count", "changed"),
    [
        (1, {}),  # the last one that serves
        (3, {"sure": False}),
        (3, {"peers_healthy": False}),
        (3, {"at": NOW - dt.timedelta(hours=1)}),
        (3, {"replica_id": ReplicaId("gone")}),
    ],
)
def test_nothing_is_drained_without_cause(count: int, changed: dict[str, object]) -> None:
    """The last replica, an unsure finding, suspects all around, an old finding, a replica that is gone."""
    assert decide(Ground(fleet_of(count), [dataclasses.replace(suspicion(), **changed)], []), NOW) == []  # type: ignore[arg-type]


def test_what_the_door_refused_is_not_asked_again_at_once() -> None:
    """Until its time has passed."""
    until = {"f-r0": NOW + dt.timedelta(minutes=1)}
    ground = Ground(fleet_of(3), [suspicion()], [], refused=until)
    assert decide(ground, NOW) == []
    assert decide(ground, NOW + dt.timedelta(minutes=2)) != []


@given(st.integers(1, 12), st.sets(st.integers(0, 11)), st.booleans())
def test_a_bad_reference_never_drains_a_pool(count: int, bad: set[int], peers: bool) -> None:
    """Whatever is suspected, however often it decides: some replica serves, and only a third is held back at a time."""
    fleet, holds, now = fleet_of(count), list[Hold](), NOW
    for _ in range(3 * count):
        suspicions = [suspicion(f"r{number}", peers_healthy=peers, at=now) for number in bad]
        found = decide(Ground(fleet, suspicions, holds), now)
        drained = [item for item in found if isinstance(item, DrainReplica)]
        assert len(drained) <= 1
        for item in drained:
            holds.append(item.hold)
            gone = {key for key, one in fleet.replicas.items() if one.worker_id == item.hold.worker_id}
            fleet = dataclasses.replace(
                fleet, replicas={key: one for key, one in fleet.replicas.items() if key not in gone}
            )
        now += PAUSE
        assert fleet.replicas
        assert len(holds) <= max(1, 0.34 * count)
        assert not any(isinstance(item, LiftHold) for item in found)


def test_a_broken_revision_is_left_for_the_one_that_stands_by() -> None:
    """All traffic goes back at once, with the reason; without a ready replica of an older one it stays."""
    whole = suspicion("", finding_id="f")
    (found,) = decide(Ground(fleet_of(2, revisions=BOTH, old=1), [whole], []), NOW)
    assert isinstance(found, LeaveRevision)
    assert found.routes == (Route(NEW.model_id, OLD.revision_id, 0, BUCKETS),)
    assert "stands by" in found.reason
    assert decide(Ground(fleet_of(2, revisions=BOTH), [whole], []), NOW) == []


def kinds(found: Sequence[Remedy]) -> list[str]:
    """Return what is done."""
    return [type(item).__name__ for item in found]


def test_what_is_held_back_returns_after_a_passed_self_test_alone() -> None:
    """It is asked for until there is one; one that failed, or is older than the hold, ends nothing."""
    fleet, spot = fleet_of(3), (WorkerId("w0"), NEW.revision_id)
    early, late = NOW - dt.timedelta(minutes=20), NOW - dt.timedelta(minutes=1)
    assert kinds(decide(Ground(fleet, [], [hold()]), NOW)) == ["AskSelfTest"]
    assert kinds(decide(Ground(fleet, [], [hold()], {spot: (late, False)}), NOW)) == []
    assert kinds(decide(Ground(fleet, [], [hold()], {spot: (early, True)}), NOW)) == ["AskSelfTest"]
    assert kinds(decide(Ground(fleet, [], [hold()], {spot: (late, True)}), NOW)) == ["LiftHold"]


def test_what_is_held_back_returns_where_nothing_else_serves() -> None:
    """Poor outputs that are alerted on beat none."""
    fleet = fleet_of(1)
    draining = {key: dataclasses.replace(item, state=ReplicaState.DRAINING) for key, item in fleet.replicas.items()}
    fleet = dataclasses.replace(fleet, replicas=draining)
    (found,) = decide(Ground(fleet, [], [hold()]), NOW)
    assert isinstance(found, LiftHold)
    assert "nothing else serves" in found.reason


def test_a_worker_that_began_anew_is_not_held_for_the_former() -> None:
    """The same name may be another machine."""
    fleet = fleet_of(2)
    fresh = dataclasses.replace(fleet.workers[WorkerId("w0")], started_at=NOW - dt.timedelta(minutes=1))
    fleet = dataclasses.replace(fleet, workers={**fleet.workers, fresh.worker_id: fresh})
    assert kinds(decide(Ground(fleet, [], [hold()]), NOW)) == ["LiftHold"]
    assert kinds(decide(Ground(fleet, [], [hold(revision_id=RevisionId("gone"))]), NOW)) == ["LiftHold"]
    assert AskSelfTest(hold(), "why").reason == "why"
