"""How a deploy takes a model's traffic: when it switches, when it waits, when it gives up."""

import dataclasses
import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conformance.fleet_values import DIGITS, deploy, place, register, replica_of, revision_of, worker_of
from tests.conformance.memory_fleet import EPOCH, ManualClock, MemoryFleetStore

from forestay.capacity.placement import decide_placement
from forestay.fleet.actions import Freeze, Origin, PlanRoute, SetRoutes, SettleRoute
from forestay.fleet.model import Fleet, PendingRoute, ReplicaReport, ReplicaState, Route, WorkerReport
from forestay.fleet.routes import HEARD_SECONDS
from forestay.ids import BUCKETS
from forestay.rollouts.loop import RolloutLoop
from forestay.rollouts.rolling import Strategy, decide_deploy, decide_settlements

OLD, NEW = revision_of("digits-1"), revision_of("digits-2")
HUMAN = {"origin": Origin.HUMAN, "actor": "human:k1"}
PATIENCE = NEW.spec.limits.startup_timeout_seconds


def fleet_of(
    *replicas: ReplicaReport,
    routed: bool = True,
    plan: PendingRoute | None = None,
    now: dt.datetime = EPOCH,
    worker: WorkerReport | None = None,
) -> Fleet:
    """A fleet of one model with two revisions, the older one routed."""
    return Fleet(
        version=1,
        now=now,
        models={},
        revisions={OLD.revision_id: OLD, NEW.revision_id: NEW},
        routes=(Route(DIGITS, OLD.revision_id, 0, BUCKETS),) if routed else (),
        placements=(),
        workers={(worker or worker_of()).worker_id: worker or dataclasses.replace(worker_of(), seen_at=now)},
        replicas={item.replica_id: item for item in replicas},
        demand={},
        pending={} if plan is None else {DIGITS: plan},
    )


def plan_of(seconds: float = PATIENCE) -> PendingRoute:
    """The plan that a rolling deploy makes."""
    return PendingRoute(DIGITS, NEW.revision_id, EPOCH, EPOCH + dt.timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("fleet", "strategy", "rolls"),
    [
        (fleet_of(replica_of(OLD)), None, True),
        (fleet_of(), None, False),
        (fleet_of(replica_of(OLD, state=ReplicaState.SETUP)), None, False),
        (fleet_of(replica_of(OLD), now=EPOCH + dt.timedelta(seconds=60), worker=worker_of()), None, False),
        (fleet_of(replica_of(OLD)), Strategy.RECREATE, False),
        (fleet_of(), Strategy.ROLLING, True),
        (fleet_of(routed=False), Strategy.ROLLING, False),
    ],
)
def test_a_deploy_rolls_while_the_model_serves(fleet: Fleet, strategy: Strategy | None, *, rolls: bool) -> None:
    """Without a word it waits where something is interrupted; the first deploy never waits."""
    assert isinstance(decide_deploy(fleet, NEW, strategy), PlanRoute if rolls else SetRoutes)


def test_deploying_what_is_routed_takes_the_plan_back() -> None:
    """Whoever deploys the old file again wants the old revision, now."""
    fleet = fleet_of(replica_of(OLD), plan=plan_of())
    assert isinstance(decide_deploy(fleet, OLD, Strategy.ROLLING), SetRoutes)


def test_the_route_moves_when_a_replica_of_the_new_revision_is_ready() -> None:
    """Not while it starts, and not because a worker that fell silent once said so."""
    ready = replica_of(NEW)
    assert decide_settlements(fleet_of(dataclasses.replace(ready, state=ReplicaState.SETUP), plan=plan_of())) == []
    [action] = decide_settlements(fleet_of(ready, plan=plan_of()))
    assert (action.switch, action.revision_id) == (True, NEW.revision_id)
    silent = EPOCH + dt.timedelta(seconds=HEARD_SECONDS + 1)
    assert decide_settlements(fleet_of(ready, plan=plan_of(), now=silent, worker=worker_of())) == []


def test_a_revision_that_does_not_start_is_given_up_and_says_why() -> None:
    """After its start-up time-out; the old revision keeps its route."""
    failing = dataclasses.replace(replica_of(NEW, state=ReplicaState.BACKOFF), detail="setup() raised ImportError")
    late = EPOCH + dt.timedelta(seconds=PATIENCE)
    [action] = decide_settlements(fleet_of(failing, plan=plan_of(), now=late))
    assert not action.switch
    assert "ImportError" in action.reason
    given_up = dataclasses.replace(plan_of(), given_up="x")
    assert decide_settlements(fleet_of(failing, plan=given_up, now=late)) == []


@given(
    st.sampled_from(ReplicaState),
    st.floats(0, 3 * PATIENCE),
    st.floats(1, PATIENCE),
    st.sampled_from([OLD, NEW]),
)
def test_nothing_but_a_ready_replica_moves_a_route(
    state: ReplicaState, age: float, patience: float, revision: object
) -> None:
    """Whatever the fleet looks like; and the same look gives the same answer."""
    now = EPOCH + dt.timedelta(seconds=age)
    replica = replica_of(OLD if revision is OLD else NEW, state=state)
    fleet = fleet_of(replica, plan=plan_of(patience), now=now)
    actions = decide_settlements(fleet)
    assert actions == decide_settlements(fleet)
    assert len(actions) <= 1
    up = revision is NEW and state is ReplicaState.READY
    assert [action.switch for action in actions] == ([True] if up else [False] if age >= patience else [])


# The loop -----------------------------------------------------------------------------------------------------------
class World:
    """A fleet store, the loop, and one worker whose replicas the test sets."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = MemoryFleetStore(self.clock)
        self.loop = RolloutLoop(self.store)

    async def report(self, *replicas: ReplicaReport, devices: int = 2) -> None:
        """Let the worker report."""
        await self.store.report(worker_of(devices=devices), list(replicas))

    async def deploy_both(self) -> None:
        """The old revision serves; the new one is planned."""
        await self.store.apply(deploy(OLD), **HUMAN)
        await self.report(replica_of(OLD))
        routing = decide_deploy(await self.store.load(), NEW, None)
        decided = await self.store.apply([register(NEW), routing], **HUMAN)
        assert [item.effect.value for item in decided] == ["applied", "applied"]

    async def routed(self) -> str | None:
        """The revision that has the traffic."""
        return (await self.store.load()).routed(DIGITS, 0)


async def test_a_planned_route_is_loaded_then_switched() -> None:
    """The old revision has the traffic until then; a second beat, or a second controller, changes nothing more."""
    world = World()
    await world.deploy_both()
    assert await world.loop.run_once() == 0
    assert await world.routed() == OLD.revision_id
    fleet = await world.store.load()
    [placed] = [item for item in decide_placement(fleet, {}, fleet.now) if item.revision_id == NEW.revision_id]
    assert (placed.worker_id, placed.replicas) == ("w1", 1)
    await world.report(replica_of(OLD), replica_of(NEW, name="r2"))
    assert await world.loop.run_once() == 1
    assert await world.routed() == NEW.revision_id
    assert await RolloutLoop(world.store).run_once() == 0
    assert (await world.store.load()).pending == {}


async def test_a_person_who_sets_routes_meanwhile_is_obeyed() -> None:
    """What was planned is dropped; the new revision takes nothing when it becomes ready."""
    world = World()
    await world.deploy_both()
    await world.store.apply([SetRoutes(DIGITS, (Route(DIGITS, OLD.revision_id, 0, BUCKETS),), "back")], **HUMAN)
    await world.report(replica_of(OLD), replica_of(NEW, name="r2"))
    assert await world.loop.run_once() == 0
    assert await world.routed() == OLD.revision_id


async def test_a_freeze_holds_the_switch_until_it_ends() -> None:
    """The plan is kept, also past its patience: the revision was ready in time."""
    world = World()
    await world.deploy_both()
    await world.store.apply([Freeze(frozen=True, reason="incident")], **HUMAN)
    await world.report(replica_of(OLD), replica_of(NEW, name="r2"))
    assert await world.loop.run_once() == 0
    world.clock.advance(PATIENCE + 1)
    await world.report(replica_of(OLD), replica_of(NEW, name="r2"))
    assert await world.loop.run_once() == 0
    await world.store.apply([Freeze(frozen=False, reason="over")], **HUMAN)
    assert await world.loop.run_once() == 1
    assert await world.routed() == NEW.revision_id


async def test_what_is_given_up_stays_to_be_seen_and_is_unloaded() -> None:
    """A later deploy starts anew."""
    world = World()
    await world.deploy_both()
    failing = dataclasses.replace(replica_of(NEW, name="r2", state=ReplicaState.BACKOFF), detail="boom")
    await world.store.apply([place("w1", NEW)], origin=Origin.CAPACITY, actor="loop:capacity")
    world.clock.advance(PATIENCE)
    await world.report(replica_of(OLD), failing)
    assert await world.loop.run_once() == 1
    fleet = await world.store.load()
    assert "boom" in fleet.pending[DIGITS].given_up
    assert await world.routed() == OLD.revision_id
    assert ("digits-2", 0) in [(item.revision_id, item.replicas) for item in decide_placement(fleet, {}, fleet.now)]
    assert await world.loop.run_once() == 0
    await world.store.apply([PlanRoute(DIGITS, NEW.revision_id, PATIENCE, "again")], **HUMAN)
    assert (await world.store.load()).pending[DIGITS].given_up == ""


async def test_planning_what_has_the_traffic_already_plans_nothing() -> None:
    """A second deploy that looked before the switch and arrives after it leaves no plan behind."""
    world = World()
    await world.store.apply(deploy(OLD), **HUMAN)
    [decided] = await world.store.apply([PlanRoute(DIGITS, OLD.revision_id, PATIENCE, "late")], **HUMAN)
    assert decided.why == "already so"
    assert (await world.store.load()).pending == {}


async def test_settling_what_is_not_planned_is_refused() -> None:
    """A loop that was asleep cannot move a route by an old look at the fleet."""
    world = World()
    await world.store.apply([*deploy(OLD), register(NEW)], **HUMAN)
    stale = SettleRoute(DIGITS, NEW.revision_id, switch=True, reason="old look")
    [decided] = await world.store.apply([stale], origin=Origin.ROLLOUT, actor="loop:rollout")
    assert decided.effect.value == "refused"
    assert await world.routed() == OLD.revision_id
