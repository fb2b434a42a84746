"""The small world: the platform's decisions under load, on a virtual clock."""

import pytest

from forestay.capacity.predict import cold_model
from forestay.chance import SeededChance
from forestay.ids import TenantId
from forestay.simulator.demand import Caller, backlog, bursts, diffusion, merged, steady
from forestay.simulator.policies import FairPolicy, FifoPolicy
from forestay.simulator.report import jain, overload, percentile, waits, worst_gap
from forestay.simulator.world import Change, Story, World

USUAL = {"steps": 30.0}
COST = diffusion(2.0, 0.2)
ASKED = ({"steps": 10.0}, {"steps": 30.0}, {"steps": 60.0})


def fair(slots: int) -> FairPolicy:
    """The platform's decisions, cold."""
    return FairPolicy(cold_model(USUAL, 2.0, ()), slots)


def crowd(seed: int, ratio: float, seconds: float, tenants: int = 3, slots: int = 4) -> list[Story]:
    """Offer `ratio` times what the slots can do, with limits of 15 and 30 seconds."""
    chance = SeededChance(seed)
    rate = slots * ratio / 2.2 / tenants
    callers = [Caller(f"t{n}", rate, ASKED, (15.0, 30.0)) for n in range(tenants)]
    arrivals = merged(*(steady(caller, COST, seconds, chance) for caller in callers))
    return World(fair(slots), slots).run(arrivals, seconds)


@pytest.mark.parametrize("seed", [1, 2])
def test_in_overload_slots_stay_busy_and_promises_are_kept(seed: int) -> None:
    """Three times what can be served: nearly all capacity goes to requests that start in time."""
    seen = overload(crowd(seed, 3.0, 400.0), 4, 400.0, warm_up=60.0)
    assert seen.goodput >= 0.95
    assert seen.in_time >= 0.98
    assert seen.wasted == 0.0


def test_nobody_is_refused_where_there_is_room() -> None:
    """At half of capacity admission stays out of the way."""
    stories = crowd(1, 0.5, 300.0)
    assert sum(bool(story.refused) for story in stories) <= len(stories) * 0.02


def test_fifo_without_admission_serves_only_those_who_have_left() -> None:
    """The contrast: in the same overload every start comes too late."""
    chance = SeededChance(1)
    arrivals = merged(steady(Caller("t", 6.0, ASKED, (15.0,)), COST, 400.0, chance))
    seen = overload(World(FifoPolicy(), 4).run(arrivals, 400.0), 4, 400.0, warm_up=100.0)
    assert seen.goodput < 0.05
    assert seen.wasted > 0.9


def test_a_tenant_that_floods_gets_no_more_than_its_share() -> None:
    """One sends many heavy requests, the other few light ones; both wait, and both get half."""
    chance = SeededChance(3)
    arrivals = merged(
        backlog(Caller("flood", 1.0, ({"steps": 100.0},)), diffusion(2.0, 0.0), 60, chance),
        backlog(Caller("light", 1.0, ({"steps": 10.0},)), diffusion(2.0, 0.0), 300, chance),
    )
    stories = World(fair(1), 1).run(arrivals, 300.0)
    gap, largest = worst_gap(stories, {TenantId("flood"): 1.0, TenantId("light"): 1.0}, until=290.0)
    assert gap <= largest
    assert percentile(waits(stories, TenantId("light")), 0.5) > 0.0


def test_lost_capacity_is_told_early_and_what_is_left_is_served() -> None:
    """Three of four slots go: some admitted requests are given up before their limit, none starts after it."""
    chance = SeededChance(5)
    arrivals = merged(steady(Caller("t", 2.5, ASKED, (25.0,)), COST, 200.0, chance))
    stories = World(fair(4), 4).run(arrivals, 200.0, [Change(100.0, 1)])
    told = [story for story in stories if story.shed]
    assert told
    assert all(story.started is None for story in told)
    assert all(story.in_time for story in stories if story.started is not None)


def test_the_same_seed_is_the_same_world() -> None:
    """Every number comes from the seed."""
    assert [s.started for s in crowd(7, 2.0, 60.0)] == [s.started for s in crowd(7, 2.0, 60.0)]


def test_bursts_come_at_once_and_as_many_as_a_steady_caller_sends() -> None:
    """The same average rate, in lumps."""
    caller = Caller("t", 2.0, ({},))
    found = list(bursts(caller, COST, 1000.0, SeededChance(1), every=50.0))
    assert len(found) == pytest.approx(2000, rel=0.05)
    assert len({item.at for item in found}) <= 20


def test_jains_index_tells_equality_from_favour() -> None:
    """One for equals; one over n when one has all."""
    assert jain([3.0, 3.0, 3.0]) == pytest.approx(1.0)
    assert jain([9.0, 0.0, 0.0]) == pytest.approx(1 / 3)
