"""Whose turn a slot is: neither queued requests nor direct calls starve, and none is left idle that somebody wants."""

import asyncio
import dataclasses
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conformance.memory_fleet import ManualClock
from tests.worker.test_slots_and_lines import replica_of, running

from forestay.fleet.model import ReplicaState, Route
from forestay.gateway.fleet_view import FleetView, LiveReplica
from forestay.gateway.slots import LEASE_SECONDS, Pool, Slots
from forestay.ids import BUCKETS, RevisionId, WorkerId
from forestay.settings import Settings
from forestay.telemetry.metrics import Metrics
from forestay.worker.attempt import AttemptParts
from forestay.worker.claiming import Claimer, Situation, decide_offers
from forestay.worker.replica import Running
from forestay.worker.slot_blocks import Need, SlotBlocks
from forestay.worker.turns import PROBE_SECONDS, WANT_SECONDS, Lane, Share, Turns, decide_grant, may_take

shares = st.builds(
    lambda total, queued, direct, queue_wants, direct_wants, odd_to: Share(
        total, min(queued, total), min(direct, total - min(queued, total)), queue_wants, direct_wants, odd_to
    ),
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(0, 9),
    st.booleans(),
    st.booleans(),
    st.sampled_from(Lane),
)


@given(shares)
def test_a_free_slot_is_always_somebodys_turn(share: Share) -> None:
    """What nobody may take would be idle; what both may take is there for both."""
    free = share.total - share.queued - share.direct
    turns = {lane: may_take(share, lane) for lane in Lane}
    assert all(0 <= count <= free for count in turns.values())
    wanting = [lane for lane in Lane if share.wants(lane)]
    if len(wanting) == 2:
        assert sum(turns.values()) >= free
    for lane in Lane:
        if not share.wants(lane.other):
            assert turns[lane] == free


@given(shares, st.sampled_from(Lane))
def test_a_lane_beyond_its_half_gets_nothing_while_the_other_wants(share: Share, lane: Lane) -> None:
    """However the slots are held: who waits is within its half, or it is its turn with the odd one."""
    if share.wants(lane.other) and share.held(lane) >= share.allowed(lane):
        assert may_take(share, lane) == 0


@given(shares, st.integers(0, 9), st.integers(-2, 40), st.integers(0, 40))
def test_a_grant_holds_what_fits_and_recalls_what_is_beyond_the_half(
    share: Share, former: int, wanted: int, awaited: int
) -> None:
    """A block that is held is never cut, and without a queue that wants nothing is recalled."""
    room = share.total - share.queued - share.direct
    former = min(former, room)
    grant = decide_grant(share, former, wanted, awaited)
    assert 0 <= grant.recalled <= grant.slots <= max(0, min(wanted, room))
    assert grant.slots >= min(former, wanted, room)
    if not share.queue_wants:
        assert grant == dataclasses.replace(grant, slots=max(0, min(wanted, room)), recalled=0)
    else:
        assert grant.slots - grant.recalled <= max(0, min(awaited, share.total // 2 - share.direct))


def test_who_asked_and_fell_silent_wants_no_more() -> None:
    """A direct caller that left does not keep a slot from the queue; another one that asks does."""
    clock = ManualClock()
    turns = Turns(clock)
    turns.want_direct("g1", more=True)
    turns.want_direct("g2", more=False)
    assert turns.direct_wants
    turns.want_direct("g1", more=False)
    assert not turns.direct_wants
    turns.want_direct("g1", more=True)
    clock.advance(WANT_SECONDS + 0.1)
    assert not turns.direct_wants


def test_a_wake_up_during_a_claim_is_not_forgotten() -> None:
    """The claim that was on its way may have missed what it told of."""
    turns = Turns(ManualClock())
    turns.offer(1)
    turns.want_queue()
    turns.claimed(all_filled=False)
    assert turns.queue_wants
    turns.offer(1)
    turns.claimed(all_filled=False)
    assert not turns.queue_wants


def test_a_queue_that_could_not_be_asked_is_taken_for_one_that_waits() -> None:
    """Without any wake-up the queue gets a look within seconds, though direct calls hold every slot."""
    clock = ManualClock()
    turns = Turns(clock)
    turns.probe()
    assert not turns.queue_wants
    clock.advance(PROBE_SECONDS)
    turns.probe()
    assert turns.queue_wants


# A small world: one replica, one gateway, both lanes with endless work, on virtual time -------------------------------
class World:
    """A worker's replica behind its own server (`in_blocks`) or behind the worker, and what runs on it."""

    def __init__(self, slots: int, *, in_blocks: bool) -> None:
        self.clock = ManualClock()
        self.replica = replica_of(slots, self.clock)
        self.blocks = SlotBlocks(self.clock, lambda: None)
        report = self.replica.report(0)
        url = "http://m" if in_blocks else None
        live = LiveReplica(dataclasses.replace(report, direct_url=url, slots=slots), "http://w")
        self.gateway = Slots(cast("FleetView", _One(live)), self.clock)
        self.revision_id = RevisionId(report.revision_id)
        self.routes = [Route(report.model_id, report.revision_id, 0, BUCKETS)]
        self.queued: list[Running] = []
        self.direct: list[Pool | Running] = []
        self.history: list[Lane] = []
        self.queue_backlog = self.direct_backlog = 0

    def step(self) -> None:
        """Let each lane take what it may, then check that nothing runs beside what there is."""
        self._claim()
        self._call()
        held = len(self.queued) + len(self.direct)
        assert held <= self.replica.description.slots
        assert len(self.queued) + self.replica.share().direct <= self.replica.description.slots

    def _claim(self) -> None:
        offers = decide_offers([self.replica], self.routes)
        self.replica.turns.probe()
        if not offers:
            return
        self.replica.turns.offer(offers[0].slots)
        got = min(offers[0].slots, self.queue_backlog)
        for _ in range(got):
            call = running()
            assert self.replica.take(call)
            self.queued.append(call)
            self.history.append(Lane.QUEUE)
            self.queue_backlog -= 1
        self.replica.turns.claimed(all_filled=got == offers[0].slots)

    def _call(self) -> None:
        while self.direct_backlog and self._call_once():
            self.history.append(Lane.DIRECT)
            self.direct_backlog -= 1

    def _call_once(self) -> bool:
        (pool,) = self.gateway.pools_of(self.revision_id)
        if not pool.in_blocks:
            call = running(attempt=0)
            taken = self.replica.take(call)
            self.replica.turns.want_direct("", more=self.direct_backlog > taken)
            self.direct += [call] if taken else []
            return taken
        found = self.gateway.take(self.revision_id, None)
        if found is None:
            self._ask(pool, self.direct_backlog)
            found = self.gateway.take(self.revision_id, None)
        self.direct += [found] if found else []
        return found is not None

    def _ask(self, pool: Pool, waiting: int) -> None:
        need = Need(pool.wanted(waiting), LEASE_SECONDS, pool.used + waiting, pool.returned)
        block = self.blocks.ask(self.replica, "g", need)
        pool.returned = 0
        self.gateway.grant(pool, block.slots, block.ends_at - self.clock.monotonic(), block.recalled)

    def renew(self) -> None:
        """The gateway's keeper passes by: it tells of what came back, and renews."""
        (pool,) = self.gateway.pools_of(self.revision_id)
        self.gateway.return_unused(pool)
        if pool.in_blocks and (pool.returned or pool.granted):
            self._ask(pool, self.direct_backlog)

    def end(self, lane: Lane) -> None:
        """The oldest call of a lane ends."""
        if lane is Lane.QUEUE:
            self.replica.release(self.queued.pop(0))
            return
        call = self.direct.pop(0)
        if isinstance(call, Running):
            self.replica.release(call)
            return
        self.gateway.give_back(call)
        self.renew()


class _One:
    """A fleet of one live replica."""

    def __init__(self, replica: LiveReplica) -> None:
        self._replicas = (replica,)

    def live(self, _revision_id: RevisionId) -> tuple[LiveReplica, ...]:
        """Return it."""
        return self._replicas


@pytest.mark.parametrize("in_blocks", [True, False])
async def test_with_one_slot_turns_alternate(*, in_blocks: bool) -> None:
    """Both have endless work: no lane has two turns in a row."""
    world = World(1, in_blocks=in_blocks)
    world.queue_backlog = world.direct_backlog = 100
    world.replica.turns.want_queue()
    for _ in range(40):
        world.step()
        world.end(world.history[-1])
        world.clock.advance(0.05)
    assert len(world.history) == 40
    assert all(before is not after for before, after in zip(world.history[1:], world.history[2:], strict=False))


@pytest.mark.parametrize("in_blocks", [True, False])
@pytest.mark.parametrize("first", list(Lane))
@pytest.mark.parametrize("slots", [1, 2, 3, 4, 7])
async def test_a_lane_that_has_everything_gives_half_back_as_its_calls_end(
    slots: int, first: Lane, *, in_blocks: bool
) -> None:
    """It used all slots while it was alone; when the other lane comes, each ending call counts for it."""
    world = World(slots, in_blocks=in_blocks)
    mine = "queue_backlog" if first is Lane.QUEUE else "direct_backlog"
    other = "direct_backlog" if first is Lane.QUEUE else "queue_backlog"
    setattr(world, mine, 1000)
    world.step()
    world.step()
    held = world.queued if first is Lane.QUEUE else world.direct
    assert len(held) == slots
    setattr(world, other, 1000)
    world.replica.turns.want_queue()
    for _ in range(2 * slots + 2):
        world.step()
        world.renew()
        world.clock.advance(0.05)
        longest = first if held else first.other
        world.end(longest)
        world.step()
    rest = world.direct if first is Lane.QUEUE else world.queued
    assert len(rest) >= slots // 2
    assert len(held) + len(rest) == slots


@pytest.mark.parametrize("in_blocks", [True, False])
async def test_a_lane_that_leaves_gives_everything_to_the_other(*, in_blocks: bool) -> None:
    """Within moments: the direct lane's wish runs out, the queue's ends with a claim that comes back short."""
    world = World(4, in_blocks=in_blocks)
    world.queue_backlog = world.direct_backlog = 100
    world.replica.turns.want_queue()
    for _ in range(4):
        world.step()
    world.queue_backlog = 0
    while world.queued:
        world.end(Lane.QUEUE)
        world.step()
        world.renew()
    for _ in range(4):
        world.step()
    assert len(world.direct) == 4
    world.direct_backlog, world.queue_backlog = 0, 100
    world.replica.turns.want_queue()
    while world.direct:
        world.end(Lane.DIRECT)
        world.clock.advance(0.3)
        world.step()
    for _ in range(3):
        world.renew()
    world.clock.advance(WANT_SECONDS + 0.1)
    world.step()
    assert len(world.queued) == 4


@given(st.integers(1, 5), st.booleans(), st.lists(st.integers(0, 9), min_size=20, max_size=120))
async def test_whatever_happens_no_slot_is_used_twice_and_nobody_waits_for_ever(
    slots: int, in_blocks: bool, choices: list[int]
) -> None:
    """Random ends and arrivals: never more runs than there are slots, and both lanes are served in the end."""
    world = World(slots, in_blocks=in_blocks)
    world.queue_backlog = world.direct_backlog = 1000
    world.replica.turns.want_queue()
    for choice in choices:
        world.step()
        if choice < 4 and world.queued:
            world.end(Lane.QUEUE)
        elif choice < 8 and world.direct:
            world.end(Lane.DIRECT)
        else:
            world.renew()
        world.clock.advance(0.05)
    for _ in range(2 * slots + 2):
        world.step()
        world.renew()
        world.end(Lane.QUEUE if len(world.queued) >= len(world.direct) else Lane.DIRECT)
        world.clock.advance(0.05)
        world.step()
    assert {Lane.QUEUE, Lane.DIRECT} == set(world.history)


async def test_a_direct_call_waits_a_moment_for_its_turn() -> None:
    """The slot that a queued request leaves is its own at once; without one it is told to look elsewhere."""
    replica = replica_of(1)
    queued, direct = running(), running(attempt=0)
    assert replica.take(queued)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        waiting = group.create_task(replica.take_in_turn(direct))
        await asyncio.sleep(0)
        replica.turns.want_queue()
        replica.release(queued)
        assert await waiting
    assert not await replica.take_in_turn(running(attempt=0))


async def test_a_draining_replica_lends_nothing_more_and_recalls_what_it_lent() -> None:
    """Its end waits for the calls that run, not for those that would come."""
    replica = replica_of(4)
    blocks = SlotBlocks(ManualClock(), lambda: None)
    assert blocks.ask(replica, "g", Need(2, 10.0)).slots == 2
    replica.drain("test")
    assert replica.state is ReplicaState.DRAINING
    block = blocks.ask(replica, "g", Need(4, 10.0, awaited=4))
    assert (block.slots, block.recalled) == (2, 2)
    assert blocks.ask(replica, "g", Need(2, 10.0, returned=2)).slots == 0


async def test_where_no_queued_request_can_come_any_more_direct_calls_have_every_turn() -> None:
    """A rollback takes the traffic from a revision whose only slot was the queue's turn: who waits there gets it."""
    clock = ManualClock()
    replica = replica_of(1, clock)
    replica.turns.want_queue()
    replica.turns.took(Lane.DIRECT, 1, 1)
    assert replica.open_slots(Lane.DIRECT) == 0
    metrics, settings, keeper = Metrics(), Settings(), SimpleNamespace(keep=lambda _fences: None)
    parts = cast("AttemptParts", SimpleNamespace(clock=clock, metrics=metrics, settings=settings, keeper=keeper))
    situation = Situation(lambda: [replica], list, dict)
    claimer = Claimer(WorkerId("w1"), situation, parts)
    async with asyncio.TaskGroup() as group:
        group.create_task(claimer.run(group))
        await asyncio.sleep(0)
        assert replica.open_slots(Lane.DIRECT) == 1
        claimer.stop()
