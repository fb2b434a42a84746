"""Placement: the first rule, by table, by property and in a small simulated world."""

import dataclasses
import datetime as dt

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conformance.fleet_values import replica_of, revision_of, worker_of
from tests.conformance.memory_fleet import EPOCH

from forestay.capacity.placement import Rules, Waiting, decide_dead, decide_placement
from forestay.fleet.actions import Place
from forestay.fleet.model import (
    Fleet,
    PendingRoute,
    Placement,
    ReplicaReport,
    ReplicaState,
    Revision,
    Route,
    WorkerReport,
)
from forestay.fleet.spec import ResourceSpec
from forestay.ids import BUCKETS, ModelId, ReplicaId, WorkerId

LATER = EPOCH + dt.timedelta(minutes=5)


def model(name: str, *, devices: int = 1, memory_mb: int = 100, revision: str = "1") -> Revision:
    """A revision of a model of that name."""
    return revision_of(f"{name}-{revision}", ModelId(f"acme/{name}"), ResourceSpec("cpu", devices, memory_mb))


def fleet_of(
    revisions: list[Revision],
    workers: list[WorkerReport],
    replicas: list[ReplicaReport] | None = None,
    placements: list[Placement] | None = None,
    unrouted: set[str] | None = None,
) -> Fleet:
    """A fleet where each revision has all of its model's traffic; replicas are placed unless told otherwise."""
    replicas = replicas or []
    if placements is None:
        spots: dict[tuple[WorkerId, str], int] = {}
        for item in replicas:
            spots[item.worker_id, item.revision_id] = spots.get((item.worker_id, item.revision_id), 0) + 1
        placements = [
            Placement(worker_id, item.revision_id, count, "test")
            for (worker_id, name), count in spots.items()
            for item in revisions
            if item.revision_id == name
        ]
    return Fleet(
        version=1,
        now=LATER,
        models={},
        revisions={item.revision_id: item for item in revisions},
        routes=tuple(
            Route(item.model_id, item.revision_id, 0, BUCKETS)
            for item in revisions
            if item.revision_id not in (unrouted or set())
        ),
        placements=tuple(placements),
        workers={item.worker_id: dataclasses.replace(item, seen_at=LATER) for item in workers},
        replicas={item.replica_id: item for item in replicas},
        demand={},
    )


def waiting(*names: str, count: int = 1, seconds: float = 0.5) -> dict[ModelId, Waiting]:
    """A backlog of these models."""
    since = LATER - dt.timedelta(seconds=seconds)
    return {ModelId(f"acme/{name}"): Waiting(count, since) for name in names}


def said(actions: list[Place]) -> list[tuple[str, str, int]]:
    """The actions without their reasons."""
    return [(item.worker_id, item.revision_id, item.replicas) for item in actions]


def used(replica: ReplicaReport, seconds_ago: float) -> ReplicaReport:
    """The replica, last used so long ago."""
    return dataclasses.replace(replica, last_used_at=LATER - dt.timedelta(seconds=seconds_ago))


def test_a_wanted_model_is_loaded_where_there_is_room() -> None:
    """One replica, at once."""
    fleet = fleet_of([model("a")], [worker_of("w1"), worker_of("w2")])
    assert said(decide_placement(fleet, waiting("a"), LATER)) == [("w1", "a-1", 1)]


def test_a_direct_call_wants_a_model_too() -> None:
    """Demand counts for a while; then it does not."""
    fleet = dataclasses.replace(fleet_of([model("a")], [worker_of("w1")]), demand={ModelId("acme/a"): LATER})
    assert said(decide_placement(fleet, {}, LATER)) == [("w1", "a-1", 1)]
    much_later = LATER + dt.timedelta(seconds=Rules().demand_seconds + 1)
    awake = dataclasses.replace(worker_of("w1"), seen_at=much_later)
    fleet = dataclasses.replace(fleet, workers={WorkerId("w1"): awake})
    assert decide_placement(fleet, {}, much_later) == []


def test_nothing_is_loaded_that_nobody_wants() -> None:
    """An idle fleet stays as it is."""
    loaded = replica_of(model("a"), "w1")
    assert decide_placement(fleet_of([model("a"), model("b")], [worker_of("w1")], [loaded]), {}, LATER) == []


def test_the_tightest_fit_keeps_large_room_for_large_models() -> None:
    """A small model goes where the least is left over."""
    fleet = fleet_of([model("a")], [worker_of("w1", devices=4), worker_of("w2", devices=1)])
    assert said(decide_placement(fleet, waiting("a"), LATER)) == [("w2", "a-1", 1)]


def test_pools_and_memory_are_respected() -> None:
    """A worker of another pool or with too little memory is no room."""
    fleet = fleet_of([model("a", memory_mb=900)], [worker_of("w1", pool="gpu"), worker_of("w2", memory_mb=500)])
    assert decide_placement(fleet, waiting("a"), LATER) == []


def test_what_quality_holds_back_is_placed_elsewhere_or_nowhere() -> None:
    """Neither loaded nor grown on that worker, and nothing makes room for it there."""
    a, b = model("a"), model("b")
    rules = Rules(held=frozenset({(WorkerId("w1"), a.revision_id)}))
    alone = fleet_of([a, b], [worker_of("w1")])
    assert decide_placement(alone, waiting("a"), LATER, rules) == []
    assert said(decide_placement(alone, waiting("b"), LATER, rules)) == [("w1", "b-1", 1)]
    two = fleet_of([a], [worker_of("w1"), worker_of("w2")])
    assert said(decide_placement(two, waiting("a"), LATER, rules)) == [("w2", "a-1", 1)]
    kept = fleet_of([a], [worker_of("w1", devices=2)], [used(replica_of(a, "w1"), 90)])
    assert decide_placement(kept, waiting("a", count=9), LATER, rules) == []
    assert said(decide_placement(kept, waiting("a", count=9), LATER)) == [("w1", "a-1", 2)]
    taken = fleet_of([a, b], [worker_of("w1")], [used(replica_of(b, "w1"), 90)])
    assert decide_placement(taken, waiting("a"), LATER, rules) == []


def test_the_least_recently_used_makes_room() -> None:
    """It is drained first: the wanted model comes only when the room is free."""
    a, b, c = model("a"), model("b"), model("c")
    replicas = [used(replica_of(a, "w1", name="ra"), 20), used(replica_of(b, "w2", name="rb"), 90)]
    fleet = fleet_of([a, b, c], [worker_of("w1"), worker_of("w2")], replicas)
    assert said(decide_placement(fleet, waiting("c"), LATER)) == [("w2", "b-1", 0)]


def test_room_that_is_being_freed_is_waited_for() -> None:
    """A draining replica still takes its room; no second one is unloaded, and nothing is loaded on top."""
    a, b, c = model("a"), model("b"), model("c")
    replicas = [
        used(replica_of(a, "w1", name="ra"), 20),
        replica_of(b, "w2", name="rb", state=ReplicaState.DRAINING),
    ]
    placements = [
        Placement(WorkerId("w1"), a.revision_id, 1, "t"),
        Placement(WorkerId("w2"), b.revision_id, 0, "t"),
    ]
    fleet = fleet_of([a, b, c], [worker_of("w1"), worker_of("w2")], replicas, placements)
    assert decide_placement(fleet, waiting("c"), LATER) == []


def test_two_models_that_wait_do_not_count_on_the_same_room() -> None:
    """The second one makes room of its own."""
    a, b, c, d = (model(name) for name in "abcd")
    replicas = [
        used(replica_of(a, "w1", name="ra"), 60),
        replica_of(b, "w2", name="rb", state=ReplicaState.DRAINING),
    ]
    placements = [
        Placement(WorkerId("w1"), a.revision_id, 1, "t"),
        Placement(WorkerId("w2"), b.revision_id, 0, "t"),
    ]
    fleet = fleet_of([a, b, c, d], [worker_of("w1"), worker_of("w2")], replicas, placements)
    assert said(decide_placement(fleet, waiting("c", "d"), LATER)) == [("w1", "a-1", 0)]


def test_what_was_just_used_or_is_starting_stays() -> None:
    """The floor time holds off an eviction; a start is never interrupted."""
    a, b = model("a"), model("b")
    just = used(replica_of(a, "w1"), Rules().floor_seconds - 1)
    assert decide_placement(fleet_of([a, b], [worker_of("w1")], [just]), waiting("b"), LATER) == []
    starting = replica_of(a, "w1", state=ReplicaState.SETUP)
    assert decide_placement(fleet_of([a, b], [worker_of("w1")], [starting]), waiting("b"), LATER) == []


def test_a_model_that_is_waited_for_gives_way_after_a_longer_floor() -> None:
    """Two models that both have work share one device by turns, not by thrashing."""
    a, b = model("a"), model("b")
    ready = dataclasses.replace(used(replica_of(a, "w1"), 0), ready_at=LATER - dt.timedelta(seconds=10))
    fleet = fleet_of([a, b], [worker_of("w1")], [ready])
    assert decide_placement(fleet, waiting("a", "b"), LATER) == []
    ready = dataclasses.replace(ready, ready_at=LATER - dt.timedelta(seconds=31))
    fleet = fleet_of([a, b], [worker_of("w1")], [ready])
    assert said(decide_placement(fleet, waiting("a", "b"), LATER)) == [("w1", "a-1", 0)]


def test_who_has_waited_longest_is_loaded_first() -> None:
    """A small old backlog is not starved by a large new one."""
    fleet = fleet_of([model("a"), model("b")], [worker_of("w1")])
    backlog = {**waiting("a", count=500, seconds=1), **waiting("b", count=1, seconds=30)}
    assert said(decide_placement(fleet, backlog, LATER)) == [("w1", "b-1", 1)]


def test_more_replicas_come_while_requests_wait_and_room_is_left() -> None:
    """One at a time, on another worker, and only when those before it are up."""
    a = model("a")
    workers = [worker_of("w1", devices=2), worker_of("w2")]
    fleet = fleet_of([a], workers, [replica_of(a, "w1")])
    assert said(decide_placement(fleet, waiting("a", count=5), LATER)) == [("w2", "a-1", 1)]
    starting = [replica_of(a, "w1"), replica_of(a, "w2", name="r2", state=ReplicaState.SETUP)]
    assert decide_placement(fleet_of([a], workers, starting), waiting("a", count=5), LATER) == []


def test_one_waiting_request_alone_brings_no_second_replica_at_once() -> None:
    """It does when it has waited for a while."""
    a = model("a")
    fleet = fleet_of([a], [worker_of("w1", devices=2)], [replica_of(a, "w1")])
    assert decide_placement(fleet, waiting("a", seconds=0.1), LATER) == []
    assert said(decide_placement(fleet, waiting("a", seconds=3), LATER)) == [("w1", "a-1", 2)]


def test_a_surplus_replica_makes_room_for_a_model_without_any() -> None:
    """Growth is given back when another model is wanted."""
    a, b = model("a"), model("b")
    replicas = [used(replica_of(a, "w1", name=name), 40) for name in ("r1", "r2")]
    fleet = fleet_of([a, b], [worker_of("w1", devices=2)], replicas)
    assert said(decide_placement(fleet, waiting("b"), LATER)) == [("w1", "a-1", 1)]


def test_a_new_revision_takes_the_place_of_a_loaded_old_one() -> None:
    """Before the first caller has to wait; where there is no room, the old one goes."""
    old, new = model("a"), model("a", revision="2")
    loaded = [used(replica_of(old, "w1"), 20)]
    fleet = fleet_of([old, new], [worker_of("w1", devices=2)], loaded, unrouted={"a-1"})
    assert said(decide_placement(fleet, {}, LATER)) == [("w1", "a-2", 1)]
    fleet = fleet_of([old, new], [worker_of("w1")], loaded, unrouted={"a-1"})
    assert said(decide_placement(fleet, {}, LATER)) == [("w1", "a-1", 0)]


def test_an_old_revision_is_unloaded_when_long_unused() -> None:
    """Kept for a while, since going back must be quick."""
    old, new = model("a"), model("a", revision="2")
    workers = [worker_of("w1", devices=2)]
    for seconds, expected in ((500, []), (700, [("w1", "a-1", 0)])):
        loaded = [used(replica_of(old, "w1"), seconds), replica_of(new, "w1", name="r2")]
        loaded = [dataclasses.replace(loaded[0], ready_at=LATER - dt.timedelta(hours=1)), loaded[1]]
        fleet = fleet_of([old, new], workers, loaded, unrouted={"a-1"})
        assert said(decide_placement(fleet, {}, LATER)) == expected


def test_a_replica_that_fails_to_start_makes_room_first() -> None:
    """A crash loop does not hold a device that another model could use."""
    a, b, c = model("a"), model("b"), model("c")
    replicas = [
        used(replica_of(a, "w1", name="ra"), 200),
        replica_of(b, "w2", name="rb", state=ReplicaState.BACKOFF),
    ]
    fleet = fleet_of([a, b, c], [worker_of("w1"), worker_of("w2")], replicas)
    assert said(decide_placement(fleet, waiting("c"), LATER)) == [("w2", "b-1", 0)]


def test_a_dead_worker_holds_nothing() -> None:
    """Its models are placed elsewhere, and it is named for retirement."""
    a = model("a")
    fleet = fleet_of([a], [worker_of("w1"), worker_of("w2")], [replica_of(a, "w1")])
    lost = dataclasses.replace(fleet.workers[WorkerId("w1")], seen_at=LATER - dt.timedelta(seconds=46))
    fleet = dataclasses.replace(fleet, workers={**fleet.workers, WorkerId("w1"): lost})
    assert decide_dead(fleet, LATER) == ["w1"]
    assert said(decide_placement(fleet, waiting("a"), LATER)) == [("w2", "a-1", 1)]


def test_a_draining_worker_gets_nothing_new() -> None:
    """A worker on its way out is no room."""
    out = dataclasses.replace(worker_of("w1"), state="draining")
    assert decide_placement(fleet_of([model("a")], [out]), waiting("a"), LATER) == []


# A deploy that waits ------------------------------------------------------------------------------------------------
def plan_of(revision: Revision, *, seconds_ago: float = 0.0, given_up: bool = False) -> PendingRoute:
    """A deploy of this revision that waits since then, or was given up."""
    since = LATER - dt.timedelta(seconds=seconds_ago)
    until = since + dt.timedelta(seconds=600)
    return PendingRoute(revision.model_id, revision.revision_id, since, until, "slow" if given_up else "")


def planned(fleet: Fleet, plan: PendingRoute) -> Fleet:
    """The fleet with that plan."""
    return dataclasses.replace(fleet, pending={plan.model_id: plan})


def test_a_revision_that_a_deploy_waits_for_is_loaded_beside_the_one_that_serves() -> None:
    """Nobody has to call it first; one replica is enough to switch, so no second one comes."""
    old, new = model("a"), model("a", revision="2")
    workers, loaded = [worker_of("w1", devices=3)], [used(replica_of(old, "w1"), 20)]
    fleet = planned(fleet_of([old, new], workers, loaded, unrouted={"a-2"}), plan_of(new))
    assert said(decide_placement(fleet, {}, LATER)) == [("w1", "a-2", 1)]
    both = [*loaded, replica_of(new, "w1", name="r2")]
    fleet = planned(fleet_of([old, new], workers, both, unrouted={"a-2"}), plan_of(new))
    assert decide_placement(fleet, {}, LATER) == []


def test_a_deploy_makes_room_on_a_full_pool_but_not_at_the_cost_of_who_waits() -> None:
    """The least recently used goes; another model's queue keeps its replica; its own model's may go."""
    old, new, b = model("a"), model("a", revision="2"), model("b")
    mine, other = used(replica_of(old, "w1"), 40), used(replica_of(b, "w2", name="rb"), 90)
    fleet = fleet_of([old, new, b], [worker_of("w1"), worker_of("w2")], [mine, other], unrouted={"a-2"})
    fleet = planned(fleet, plan_of(new))
    assert said(decide_placement(fleet, {}, LATER)) == [("w2", "b-1", 0)]
    assert said(decide_placement(fleet, waiting("b"), LATER)) == [("w1", "a-1", 0)]


def test_a_deploy_takes_nothing_that_came_back_after_it() -> None:
    """A revision that does not start unsettles a full pool once, not until it is given up."""
    old, new = model("a"), model("a", revision="2")
    back = dataclasses.replace(used(replica_of(old, "w1"), 40), started_at=LATER - dt.timedelta(seconds=60))
    fleet = fleet_of([old, new], [worker_of("w1")], [back], unrouted={"a-2"})
    assert said(decide_placement(planned(fleet, plan_of(new)), {}, LATER)) == [("w1", "a-1", 0)]
    assert decide_placement(planned(fleet, plan_of(new, seconds_ago=90)), {}, LATER) == []


def test_a_failed_start_of_a_deploy_gives_the_place_back_to_who_is_called() -> None:
    """While nobody calls, it may try again; when someone does, the routed revision comes back."""
    old, new = model("a"), model("a", revision="2")
    failing = replica_of(new, "w1", state=ReplicaState.BACKOFF)
    fleet = fleet_of([old, new], [worker_of("w1")], [failing], unrouted={"a-2"})
    fleet = planned(fleet, plan_of(new, seconds_ago=90))
    assert decide_placement(fleet, {}, LATER) == []
    assert said(decide_placement(fleet, waiting("a"), LATER)) == [("w1", "a-2", 0)]


def test_a_deploy_that_waits_for_room_holds_up_nobody_elses_growth() -> None:
    """It has been promised nothing yet, so others may take what it could not use."""
    big, new, b = model("a", devices=2), model("a", devices=2, revision="2"), model("b")
    busy = replica_of(big, "w1", state=ReplicaState.SETUP)
    workers = [worker_of("w1", devices=2), worker_of("w2", devices=2)]
    fleet = fleet_of([big, new, b], workers, [busy, replica_of(b, "w2", name="rb")], unrouted={"a-2"})
    assert said(decide_placement(planned(fleet, plan_of(new)), waiting("b", count=9), LATER)) == [("w2", "b-1", 2)]


def test_a_given_up_deploy_is_unloaded_at_once() -> None:
    """It takes nothing from the others any more."""
    old, new = model("a"), model("a", revision="2")
    both = [used(replica_of(old, "w1"), 20), replica_of(new, "w1", name="r2", state=ReplicaState.SETUP)]
    fleet = fleet_of([old, new], [worker_of("w1", devices=2)], both, unrouted={"a-2"})
    assert said(decide_placement(planned(fleet, plan_of(new, given_up=True)), {}, LATER)) == [("w1", "a-2", 0)]


def test_after_a_switch_the_old_replicas_make_room_for_the_new_revisions_growth() -> None:
    """One at a time, and only while requests wait."""
    old, new = model("a"), model("a", revision="2")
    replicas = [used(replica_of(old, "w1", name="r1"), 10), replica_of(new, "w2", name="r2")]
    fleet = fleet_of([old, new], [worker_of("w1"), worker_of("w2")], replicas, unrouted={"a-1"})
    assert decide_placement(fleet, {}, LATER) == []
    assert said(decide_placement(fleet, waiting("a", count=9), LATER)) == [("w1", "a-1", 0)]


# Properties ---------------------------------------------------------------------------------------------------------
_STATES = st.sampled_from([ReplicaState.READY, ReplicaState.SETUP, ReplicaState.BACKOFF, ReplicaState.DRAINING])


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Fleet, dict[ModelId, Waiting]]:
    """A fleet that holds its limits, in any condition, with any backlog."""
    revisions = [
        model(name, devices=draw(st.integers(0, 3)), memory_mb=draw(st.integers(0, 400)), revision=number)
        for name in "abcd"
        for number in ("1", "2")[: draw(st.integers(1, 2))]
    ]
    unrouted = {item.revision_id for item in revisions if item.revision_id.endswith("-1")} - {
        item.revision_id for item in revisions if f"{item.revision_id[0]}-2" not in {r.revision_id for r in revisions}
    }
    workers, replicas, placements = list[WorkerReport](), list[ReplicaReport](), list[Placement]()
    for number in range(draw(st.integers(0, 3))):
        worker = worker_of(f"w{number}", devices=draw(st.integers(1, 4)), memory_mb=draw(st.integers(200, 800)))
        workers.append(dataclasses.replace(worker, state=draw(st.sampled_from(["ready", "ready", "draining"]))))
        devices, memory = worker.devices, worker.memory_mb
        for revision in revisions:
            resources = revision.spec.resources
            if draw(st.booleans()) or resources.devices > devices or resources.memory_mb > memory:
                continue
            devices, memory = devices - resources.devices, memory - resources.memory_mb
            if draw(st.booleans()):
                report = replica_of(revision, worker.worker_id, name=f"r{len(replicas)}", state=draw(_STATES))
                replicas.append(used(report, draw(st.integers(0, 1000))))
            placements.append(Placement(worker.worker_id, revision.revision_id, draw(st.integers(0, 1)), "t"))
    fleet = fleet_of(revisions, workers, replicas, placements, {str(item) for item in unrouted})
    plans = [plan_of(item, given_up=draw(st.booleans())) for item in revisions if item.revision_id in unrouted]
    fleet = dataclasses.replace(fleet, pending={item.model_id: item for item in plans if draw(st.booleans())})
    backlog = {
        item.model_id: Waiting(draw(st.integers(0, 20)), LATER - dt.timedelta(seconds=draw(st.integers(0, 60))))
        for item in revisions
        if draw(st.booleans())
    }
    return fleet, backlog


def applied(fleet: Fleet, actions: list[Place]) -> Fleet:
    """The fleet with the placements that the actions ask for."""
    wanted = {(item.worker_id, item.revision_id): item for item in fleet.placements}
    for item in actions:
        wanted[item.worker_id, item.revision_id] = Placement(item.worker_id, item.revision_id, item.replicas, "t")
    return dataclasses.replace(fleet, placements=tuple(wanted.values()))


def load_of(fleet: Fleet, worker: WorkerReport) -> tuple[int, int]:
    """Devices and memory taken when everything wanted and everything still running is counted."""
    devices = memory = 0
    for revision in fleet.revisions.values():
        held = sum((item.worker_id, item.revision_id) == (worker.worker_id, revision.revision_id)
                   for item in fleet.replicas.values())  # fmt: skip
        wanted = sum(item.replicas for item in fleet.placements
                     if (item.worker_id, item.revision_id) == (worker.worker_id, revision.revision_id))  # fmt: skip
        devices += max(held, wanted) * revision.spec.resources.devices
        memory += max(held, wanted) * revision.spec.resources.memory_mb
    return devices, memory


@settings(max_examples=150, deadline=None)
@given(worlds())
def test_placements_never_exceed_devices_or_memory(world: tuple[Fleet, dict[ModelId, Waiting]]) -> None:
    """Whatever still runs is counted too."""
    fleet, backlog = world
    after = applied(fleet, decide_placement(fleet, backlog, LATER))
    for worker in after.workers.values():
        devices, memory = load_of(after, worker)
        assert devices <= worker.devices
        assert memory <= worker.memory_mb


@settings(max_examples=150, deadline=None)
@given(worlds())
def test_deciding_on_its_own_output_changes_nothing(world: tuple[Fleet, dict[ModelId, Waiting]]) -> None:
    """The rule is idempotent: equal input never flaps."""
    fleet, backlog = world
    after = applied(fleet, decide_placement(fleet, backlog, LATER))
    assert decide_placement(after, backlog, LATER) == []


@settings(max_examples=150, deadline=None)
@given(worlds())
def test_a_wanted_model_with_room_is_placed_at_once(world: tuple[Fleet, dict[ModelId, Waiting]]) -> None:
    """Whatever waits the longest and fits somewhere as things are is placed by this very decision."""
    fleet, backlog = world
    live = [item for item in fleet.workers.values() if item.state == "ready"]
    placed = {item.revision_id for item in fleet.placements if item.replicas and fleet.workers[item.worker_id] in live}
    placed |= {
        item.revision_id
        for item in fleet.replicas.values()
        if fleet.workers[item.worker_id] in live and item.state is not ReplicaState.DRAINING
    }
    routed = {route.revision_id for route in fleet.routes}
    missing = [
        item
        for item in fleet.revisions.values()
        if item.revision_id in routed - placed and backlog.get(item.model_id, Waiting(0, LATER)).count
    ]
    if not missing:
        return
    first = min(missing, key=lambda item: (backlog[item.model_id].since, item.revision_id))
    resources = first.spec.resources
    has_room = any(
        load_of(fleet, worker)[0] + resources.devices <= worker.devices
        and load_of(fleet, worker)[1] + resources.memory_mb <= worker.memory_mb
        for worker in live
    )
    actions = decide_placement(fleet, backlog, LATER)
    assert not has_room or any(item.revision_id == first.revision_id and item.replicas == 1 for item in actions)


@settings(max_examples=100, deadline=None)
@given(worlds())
def test_what_is_starting_is_never_taken_away(world: tuple[Fleet, dict[ModelId, Waiting]]) -> None:
    """A decision to load is not undone before it could show its worth, unless its deploy was given up."""
    fleet, backlog = world
    starting = {
        (item.worker_id, item.revision_id) for item in fleet.replicas.values() if item.state is ReplicaState.SETUP
    }
    given_up = {plan.revision_id for plan in fleet.pending.values() if plan.given_up}
    before = {(item.worker_id, item.revision_id): item.replicas for item in fleet.placements}
    for item in decide_placement(fleet, backlog, LATER):
        spot = (item.worker_id, item.revision_id)
        assert spot not in starting or item.replicas >= before.get(spot, 0) or item.revision_id in given_up


# A small world ------------------------------------------------------------------------------------------------------
def test_two_models_with_endless_work_share_one_device_without_thrashing() -> None:
    """In ten minutes both run about half of the time, and changes stay few."""
    a, b = model("a"), model("b")
    fleet = fleet_of([a, b], [worker_of("w1")])
    now, changes, served = LATER, 0, {"a-1": 0, "b-1": 0}
    last: dict[str, dt.datetime] = {}
    up: dict[str, tuple[dt.datetime, dt.datetime]] = {}  # revision -> started, ready
    for second in range(600):
        now = LATER + dt.timedelta(seconds=second)
        wanted = {item.revision_id for item in fleet.placements if item.replicas}
        up = {name: times for name, times in up.items() if name in wanted}
        for name in wanted - set(up):
            up[name] = (now, now + dt.timedelta(seconds=3))
        replicas = {}
        for name, (started, ready) in up.items():
            revision = a if name == "a-1" else b
            state = ReplicaState.READY if now >= ready else ReplicaState.SETUP
            report = replica_of(revision, "w1", name=f"r-{name}", state=state)
            replicas[ReplicaId(f"r-{name}")] = dataclasses.replace(
                report, started_at=started, ready_at=ready if now >= ready else None, last_used_at=now
            )
            served[name] += state is ReplicaState.READY
        worker = dataclasses.replace(fleet.workers[WorkerId("w1")], seen_at=now)
        fleet = dataclasses.replace(fleet, replicas=replicas, workers={WorkerId("w1"): worker})
        oldest = now - dt.timedelta(seconds=20)
        last.update({name: now for name, times in up.items() if now >= times[1]})
        backlog = {item.model_id: Waiting(50, oldest, last.get(item.revision_id)) for item in (a, b)}
        actions = decide_placement(fleet, backlog, now)
        changes += len(actions)
        fleet = applied(fleet, actions)
    assert 2 * changes <= 600 / Rules().contested_floor_seconds * 5
    assert min(served.values()) > 0.35 * 600
