"""Slots: never more than granted, the hint first, the longest waiting first, blocks kept and given back."""

import asyncio
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conformance.memory_fleet import ManualClock
from tests.gateway.world import replica_of

from forestay.gateway.fleet_view import FleetView, LiveReplica
from forestay.gateway.slots import FIRST_BLOCK, Pool, Slots
from forestay.ids import RevisionId

REVISION = RevisionId("echo-1")


class Live:
    """A view of the fleet that holds what a test puts there."""

    def __init__(self, *replicas: LiveReplica) -> None:
        self.items = replicas

    def live(self, _revision_id: RevisionId) -> tuple[LiveReplica, ...]:
        """Return them."""
        return self.items

    def replicas(self) -> dict[str, LiveReplica]:
        """Return them by id."""
        return {item.report.replica_id: item for item in self.items}


def slots_of(*replicas: LiveReplica) -> tuple[Slots, ManualClock, Live]:
    """Slots over a clock that moves when told."""
    clock, live = ManualClock(), Live(*replicas)
    return Slots(cast("FleetView", live), clock), clock, live


def one(name: str = "r1", slots: int = 4, *, direct: bool = True) -> LiveReplica:
    """A replica."""
    return LiveReplica(replica_of("http://m" if direct else None, slots, name), "http://w")


def test_no_slot_is_free_before_a_block_is_leased() -> None:
    """A replica with its own URL is asked for a block first."""
    slots, _, _ = slots_of(one())
    assert slots.take(REVISION, None) is None
    pool = slots.askable(REVISION)
    assert pool is not None
    assert pool.wanted(0) == FIRST_BLOCK


@given(st.lists(st.booleans(), max_size=60), st.integers(0, 8))
def test_never_more_calls_than_granted(steps: list[bool], granted: int) -> None:
    """Whatever the order of takes and returns."""
    slots, _, _ = slots_of(one(slots=8))
    slots.grant(next(iter(slots.pools_of(REVISION))), granted, 10)
    slots_held: list[Pool] = []
    for take in steps:
        if take:
            pool = slots.take(REVISION, None)
            slots_held.extend([pool] if pool else [])
        elif slots_held:
            slots.give_back(slots_held.pop())
        assert len(slots_held) == slots.totals()[1] <= granted


def test_a_block_that_ran_out_gives_no_slots() -> None:
    """A gateway that could not renew stops calling."""
    slots, clock, _ = slots_of(one())
    slots.grant(next(iter(slots.pools_of(REVISION))), 4, 10)
    assert slots.take(REVISION, None) is not None
    clock.advance(11)
    assert slots.take(REVISION, None) is None


def test_the_callers_hint_wins_over_idleness() -> None:
    """A replica that is warm for the hint is taken though another is less used."""
    cold = LiveReplica(replica_of(None, 9, "cold"), "http://w")
    slots, _, _ = slots_of(LiveReplica(cold.report, cold.address), one("warm", 2, direct=False))
    assert {str(pool.replica.report.replica_id) for pool in slots.pools_of(REVISION)} == {"cold", "warm"}
    found = slots.take(REVISION, "nobody")
    assert found is not None
    assert found.replica.report.replica_id == "cold"


async def test_a_closed_replica_is_left_alone_for_a_while() -> None:
    """Busy or suspect: no calls until the time is over."""
    slots, clock, _ = slots_of(one(direct=False))
    pool = slots.take(REVISION, None)
    assert pool is not None
    slots.close(pool, 2.0)
    assert slots.take(REVISION, None) is None
    clock.advance(2.1)
    assert slots.take(REVISION, None) is not None


async def test_who_waited_longest_is_woken_first() -> None:
    """One slot back, one waiter woken, in order."""
    slots, _, _ = slots_of(one(slots=1, direct=False))
    pool = slots.take(REVISION, None)
    assert pool is not None
    woken: list[int] = []

    async def wait(number: int) -> None:
        await slots.wait(REVISION, 5.0)
        woken.append(number)

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        for number in range(2):
            group.create_task(wait(number))
            await asyncio.sleep(0)
        assert slots.waiting(REVISION) == 2
        slots.give_back(pool)
        await asyncio.sleep(0.01)
        assert woken == [0]
        slots.wake(REVISION)
    assert woken == [0, 1]
    assert slots.waiting(REVISION) == 0


def test_replicas_that_are_gone_and_unused_are_forgotten() -> None:
    """A pool in use is kept until its calls end."""
    slots, _, live = slots_of(one())
    slots.grant(next(iter(slots.pools_of(REVISION))), 4, 10)
    pool = slots.take(REVISION, None)
    assert pool is not None
    live.items = ()
    assert slots.leased() == [pool]
    slots.give_back(pool)
    assert slots.leased() == []


@pytest.mark.parametrize(("used", "waiting", "expected"), [(0, 0, 4), (4, 0, 8), (10, 10, 16)])
def test_blocks_grow_with_use_up_to_what_there_is(used: int, waiting: int, expected: int) -> None:
    """Doubled, at most all."""
    assert Pool(one(slots=16), used=used).wanted(waiting) == expected
