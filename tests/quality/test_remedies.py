"""What follows from findings: one bad replica goes alone, a bad reference drains nobody, what is held back returns."""

import dataclasses
import datetime as dt
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conformance.fleet_values import replica_of, revision_of, worker_of
from tests.conformance.memory_fleet import EPOCH

from forestay.fleet.model import Fleet, Placement, ReplicaState, Revision, Route
from forestay.fleet.spec_quality import CanaryInput, CanarySpec, QualitySpec
from forestay.ids import BUCKETS, ReplicaId, RevisionId, WorkerId
from forestay.quality.canary_store import SelfTested
from forestay.quality.remedies import (
    MOST_HELD,
    PAUSE,
    TRIAL,
    AskSelfTest,
    DrainReplica,
    GiveBack,
    Ground,
    LeaveRevision,
    LiftHold,
    Remedy,
    Suspicion,
    decide,
    drain_asked_for,
    given_back,
    is_last,
    is_leaving,
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


def spread(*counts: int, canaries: bool = True) -> Fleet:
    """Return a fleet with so many replicas of the routed revision on w0, w1 and so on, named w0-r0 and so on."""
    quality = QualitySpec(canaries=CanarySpec((CanaryInput("one", "{}"),))) if canaries else QualitySpec()
    revision = dataclasses.replace(NEW, spec=dataclasses.replace(NEW.spec, quality=quality))
    fleet = fleet_of(0, revisions=(revision,))
    replicas = [
        replica_of(NEW, f"w{place}", name=f"w{place}-r{number}")
        for place, count in enumerate(counts)
        for number in range(count)
    ]
    workers = [dataclasses.replace(worker_of(f"w{place}"), devices=max(1, count)) for place, count in enumerate(counts)]
    return dataclasses.replace(
        fleet,
        placements=tuple(
            Placement(worker.worker_id, NEW.revision_id, count, "")
            for worker, count in zip(workers, counts, strict=True)
        ),
        workers={item.worker_id: item for item in workers},
        replicas={item.replica_id: item for item in replicas},
    )


def after(fleet: Fleet, remedy: Remedy) -> Fleet:
    """Return the fleet once a drain is over, or what was taken away is wanted again."""
    if not isinstance(remedy, DrainReplica | GiveBack):
        return fleet
    hold = remedy.hold
    spot = (hold.worker_id, hold.revision_id)
    left, ending = (remedy.left, (hold.replica_id,)) if isinstance(remedy, DrainReplica) else (remedy.replicas, ())
    others = [item for item in fleet.placements if (item.worker_id, item.revision_id) != spot]
    gone = {
        name
        for name, item in fleet.replicas.items()
        if (item.worker_id, item.revision_id) == spot and (not left or name in ending)
    }
    return dataclasses.replace(
        fleet,
        placements=(*others, Placement(*spot, left, remedy.reason, ending)),
        replicas={name: item for name, item in fleet.replicas.items() if name not in gone},
    )


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


LAYOUTS = st.lists(st.integers(0, 4), min_size=1, max_size=5).filter(any)


@settings(deadline=None)  # on a busy machine one example may take long
@given(LAYOUTS, st.data(), st.booleans(), st.booleans())
def test_a_bad_reference_never_drains_a_pool(counts: list[int], data: st.DataObject, peers: bool, device: bool) -> None:
    """Whatever is suspected, however often it decides: some replica serves, and only a third is held back at a time."""
    fleet, holds, now, total = spread(*counts), list[Hold](), NOW, sum(counts)
    bad = data.draw(st.sets(st.sampled_from(sorted(fleet.replicas))))
    for _ in range(2 * total):
        suspicions = [suspicion(name, peers_healthy=peers, at=now, of_device=device) for name in sorted(bad)]
        found = decide(Ground(fleet, suspicions, holds), now)
        drained = [item for item in found if isinstance(item, DrainReplica)]
        assert len(drained) <= 1
        assert not any(isinstance(item, LiftHold) for item in found)
        for item in drained:
            fleet = after(fleet, item)
            holds.append(item.hold)
            again = [one for one in decide(Ground(fleet, suspicions, holds), now) if isinstance(one, DrainReplica)]
            assert again == []
        now += PAUSE
        assert fleet.replicas
        assert total - len(fleet.replicas) == sum(item.replicas for item in holds) <= max(1, MOST_HELD * total)


@settings(deadline=None)  # on a busy machine one example may take long
@given(LAYOUTS.filter(lambda counts: sum(counts) > 1), st.data())
def test_one_bad_replica_goes_alone_however_the_others_lie(counts: list[int], data: st.DataObject) -> None:
    """Also where two workers hold two each, or one worker holds all: its siblings serve on."""
    fleet = spread(*counts)
    bad = data.draw(st.sampled_from(sorted(fleet.replicas)))
    (found,) = decide(Ground(fleet, [suspicion(bad)], []), NOW)
    assert isinstance(found, DrainReplica)
    assert set(fleet.replicas) - set(after(fleet, found).replicas) == {bad}
    assert (found.hold.replica_id, found.hold.replicas) == (bad, 1)


@settings(deadline=None)  # on a busy machine one example may take long
@given(LAYOUTS, st.data())
def test_healthy_siblings_go_only_for_a_cause(counts: list[int], data: st.DataObject) -> None:
    """Where all on a worker go: another of them is ill too, or the device is at fault."""
    fleet = spread(*counts)
    bad = data.draw(st.sets(st.sampled_from(sorted(fleet.replicas)), min_size=1))
    device = data.draw(st.booleans())
    found = decide(Ground(fleet, [suspicion(name, of_device=device) for name in sorted(bad)], []), NOW)
    for item in found:
        assert isinstance(item, DrainReplica)
        here = {name for name, one in fleet.replicas.items() if one.worker_id == item.hold.worker_id}
        assert item.hold.alone or device or len(here) == 1 or len(here & bad) > 1


def test_a_device_at_fault_takes_all_that_run_on_its_worker() -> None:
    """Where enough serve elsewhere; where a brake holds that, the one replica goes alone."""
    (found,) = decide(Ground(spread(2, 2, 2), [suspicion("w0-r0", of_device=True)], []), NOW)
    assert isinstance(found, DrainReplica)
    assert (found.hold.alone, found.hold.replicas, found.left) == (False, 2, 0)
    assert "the device is at fault" in found.reason
    (found,) = decide(Ground(spread(2, 2), [suspicion("w0-r0", of_device=True)], []), NOW)
    assert isinstance(found, DrainReplica)
    assert (found.hold.alone, found.left) == (True, 1)


def test_a_fresh_replica_that_is_ill_too_takes_the_siblings_with_it() -> None:
    """Not one that could not be tested, and not where too few serve elsewhere."""
    alone = hold(replica_id=ReplicaId("w0-gone"), alone=True)
    spot, late = (WorkerId("w0"), NEW.revision_id), NOW - dt.timedelta(minutes=1)
    ill, untested = SelfTested(late, passed=False, differed=True), SelfTested(late, passed=False)
    (found,) = decide(Ground(spread(1, 3, 3), [], [alone], {spot: ill}), NOW)
    assert isinstance(found, DrainReplica)
    assert (found.hold.alone, found.hold.replicas, found.left) == (False, 1, 0)
    assert "a fresh replica on the worker draws otherwise too" in found.reason
    assert decide(Ground(spread(1, 3, 3), [], [alone], {spot: untested}), NOW) == []
    assert decide(Ground(spread(1, 2), [], [alone], {spot: ill}), NOW) == []
    wide = dataclasses.replace(found.hold, held_at=late + dt.timedelta(seconds=1))
    assert decide(Ground(after(spread(1, 3, 3), found), [], [alone, wide], {spot: ill}), NOW) == []


def test_what_comes_again_within_the_hour_is_no_matter_of_one_process() -> None:
    """The second replica that is ill on a worker takes its siblings with it, unless the worker began anew."""
    before = hold(held_at=NOW - dt.timedelta(minutes=50), lifted_at=NOW - dt.timedelta(minutes=30), given_back=True)
    ground = Ground(spread(2, 3, 3), [suspicion("w0-r1")], [], lifted=[before])
    (found,) = decide(ground, NOW)
    assert isinstance(found, DrainReplica)
    assert (found.hold.alone, found.hold.replicas) == (False, 2)
    assert f"was ill at {before.held_at:%H:%M} UTC" in found.reason
    fresh = dataclasses.replace(ground.fleet.workers[WorkerId("w0")], started_at=NOW - dt.timedelta(minutes=20))
    anew = dataclasses.replace(ground.fleet, workers={**ground.fleet.workers, fresh.worker_id: fresh})
    (found,) = decide(dataclasses.replace(ground, fleet=anew), NOW)
    assert isinstance(found, DrainReplica)
    assert found.hold.alone


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
    passed, failed = SelfTested(late, passed=True), SelfTested(late, passed=False, differed=True)
    assert kinds(decide(Ground(fleet, [], [hold()]), NOW)) == ["AskSelfTest"]
    assert kinds(decide(Ground(fleet, [], [hold()], {spot: failed}), NOW)) == []
    assert kinds(decide(Ground(fleet, [], [hold()], {spot: SelfTested(early, passed=True)}), NOW)) == ["AskSelfTest"]
    assert kinds(decide(Ground(fleet, [], [hold()], {spot: passed}), NOW)) == ["LiftHold"]


def test_one_that_is_held_back_alone_is_tested_at_once_and_without_canaries_let_go_in_the_end() -> None:
    """Its siblings serve on the device all the while, so nothing is gained by waiting."""
    alone = hold(replica_id=ReplicaId("w0-gone"), alone=True, held_at=NOW)
    soon = NOW + dt.timedelta(seconds=6)
    assert kinds(decide(Ground(spread(1, 2), [], [alone]), NOW)) == []
    assert kinds(decide(Ground(spread(1, 2), [], [alone]), soon)) == ["AskSelfTest"]
    assert kinds(decide(Ground(spread(1, 2, canaries=False), [], [alone]), soon)) == []
    (found,) = decide(Ground(spread(1, 2, canaries=False), [], [alone]), NOW + TRIAL)
    assert isinstance(found, LiftHold)
    assert "no canaries" in found.reason


def test_what_a_hold_took_away_is_wanted_again_once() -> None:
    """As many as before, where there is room, traffic, and nobody has placed it otherwise meanwhile."""
    whole = spread(2, 2)
    (drain,) = decide(Ground(whole, [suspicion("w0-r0")], []), NOW)
    assert isinstance(drain, DrainReplica)
    fleet, later = after(whole, drain), NOW + PAUSE
    over = dataclasses.replace(drain.hold, lifted_at=later)
    (back,) = decide(Ground(fleet, [], [], lifted=[over]), later)
    assert isinstance(back, GiveBack)
    assert back.replicas == 2
    noted = dataclasses.replace(over, given_back=True)
    assert decide(Ground(after(fleet, back), [], [], lifted=[noted]), later) == []
    assert "GiveBack" not in kinds(decide(Ground(fleet, [], [drain.hold], lifted=[over]), later)), "held back anew"
    assert decide(Ground(dataclasses.replace(fleet, routes=()), [], [], lifted=[over]), later) == []
    full = dataclasses.replace(fleet.workers[WorkerId("w0")], devices=1)
    taken = dataclasses.replace(fleet, workers={**fleet.workers, full.worker_id: full})
    assert decide(Ground(taken, [], [], lifted=[over]), later) == []
    placed = [dataclasses.replace(item, reason="a person's") for item in fleet.placements]
    assert decide(Ground(dataclasses.replace(fleet, placements=tuple(placed)), [], [], lifted=[over]), later) == []
    assert decide(Ground(fleet, [], [], lifted=[over]), later + dt.timedelta(minutes=11)) == []


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


@given(LAYOUTS, st.data())
def test_what_a_person_drained_stays_so_until_a_person_says_otherwise(counts: list[int], data: st.DataObject) -> None:
    """Whatever a self-test says, whoever serves besides, and however long it is: nothing is asked for or ended."""
    fleet = spread(*counts)
    replica = fleet.replicas[ReplicaId(data.draw(st.sampled_from(sorted(fleet.replicas))))]
    drain = drain_asked_for(replica, fleet, "person: stripes", NOW)
    on_worker = counts[int(replica.worker_id[1:])]
    assert (drain.left, drain.hold.alone, drain.hold.by_person) == (on_worker - 1, on_worker > 1, True)
    left = after(fleet, drain)
    spot = (replica.worker_id, replica.revision_id)
    passed = {spot: SelfTested(NOW + dt.timedelta(minutes=1), passed=data.draw(st.booleans()), differed=True)}
    later = NOW + data.draw(st.sampled_from([PAUSE, TRIAL, dt.timedelta(days=30)]))
    restarted = dataclasses.replace(fleet.workers[replica.worker_id], started_at=later)
    left = dataclasses.replace(left, now=later, workers={**left.workers, replica.worker_id: restarted})
    assert decide(Ground(left, [], [drain.hold], passed), later) == []
    (back,) = given_back([dataclasses.replace(drain.hold, lifted_at=later)], left, later)
    assert back.replicas == on_worker


def test_what_a_person_drained_is_over_with_its_revision_or_its_worker() -> None:
    """A worker that is away for a while is held back still."""
    asked = hold(finding_id="", held_at=NOW)
    no_worker = dataclasses.replace(fleet_of(2), workers={})
    assert decide(Ground(no_worker, [], [asked]), NOW + dt.timedelta(hours=1)) == []
    for fleet, later in ((no_worker, dt.timedelta(days=2)), (fleet_of(2, revisions=()), dt.timedelta())):
        (ended,) = decide(Ground(fleet, [], [asked]), NOW + later)
        assert isinstance(ended, LiftHold)


def test_the_last_that_serves_traffic_and_what_ends_already_are_told() -> None:
    """Before a person drains them."""
    one, two = fleet_of(1), fleet_of(2)
    assert is_last(one.replicas[ReplicaId("r0")], one)
    assert not is_last(two.replicas[ReplicaId("r0")], two)
    assert not is_last(one.replicas[ReplicaId("r0")], dataclasses.replace(one, routes=()))
    ending = dataclasses.replace(two, placements=(Placement(WorkerId("w0"), NEW.revision_id, 0, ""),))
    assert is_leaving(two.replicas[ReplicaId("r0")], ending)
    assert not is_leaving(two.replicas[ReplicaId("r1")], ending)
