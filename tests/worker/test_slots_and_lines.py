"""Slots, offers, lent blocks, and to whom a line belongs."""

import datetime as dt

from tests.conformance.fleet_values import revision_of, route_all
from tests.conformance.memory_fleet import ManualClock
from tests.conformance.memory_queue import MemoryQueueStore

from forestay.chance import SeededChance
from forestay.fleet.model import ReplicaState, Route
from forestay.ids import (
    BUCKETS,
    SHADOW_CANDIDATE_BUCKET,
    SHADOW_CONTROL_BUCKET,
    ReplicaId,
    RequestId,
    RevisionId,
    TenantId,
    WorkerId,
    new_request_id,
)
from forestay.settings import Worker
from forestay.telemetry.metrics import WORKER_LOG_LINES, Metrics
from forestay.worker.claiming import decide_offers
from forestay.worker.hosts.host import Description
from forestay.worker.logs import MAX_LINES_PER_ATTEMPT, LogBook
from forestay.worker.replica import Replica, Running
from forestay.worker.slot_blocks import Need, SlotBlocks

CHANCE = SeededChance(3)
NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)


def replica_of(slots: int = 4, clock: ManualClock | None = None) -> Replica:
    """Return a ready replica."""
    replica = Replica((ReplicaId("r1"), WorkerId("w1")), revision_of(), Worker(), clock or ManualClock())
    replica.state = ReplicaState.READY
    replica.description = Description(openapi=None, slots=slots, hints=("style-a",))
    return replica


def running(*, alone: bool = False, attempt: int = 1) -> Running:
    """Return a call."""
    return Running(new_request_id(NOW, 0, CHANCE), attempt, TenantId("acme"), alone=alone)


def test_a_replica_offers_its_free_slots_for_the_buckets_of_its_revision() -> None:
    """Routes of other revisions do not count; a revision without a share offers nothing."""
    replica = replica_of()
    replica.take(running())
    revision = replica.revision
    routes = [
        Route(revision.model_id, revision.revision_id, 0, 1000),
        Route(revision.model_id, RevisionId("digits-2"), 1000, 9000),
        Route(revision.model_id, revision.revision_id, 9000, BUCKETS),
    ]
    offer = decide_offers([replica], routes)[0]
    assert (offer.slots, offer.idle, offer.hints) == (3, False, ("style-a",))
    assert offer.buckets == ((0, 1000), (9000, BUCKETS))
    assert decide_offers([replica], routes[1:2]) == []


def test_a_candidate_that_is_held_takes_copies_alone_and_its_control_takes_them_beside_its_traffic() -> None:
    """Other revisions of the model, and models without a rollout, take none."""
    replica = replica_of()
    revision = replica.revision
    routes = route_all(revision).routes
    [control] = decide_offers([replica], routes, {revision.model_id: RevisionId("digits-9")})
    assert control.buckets == ((0, BUCKETS), (SHADOW_CONTROL_BUCKET, SHADOW_CONTROL_BUCKET + 1))
    [candidate] = decide_offers([replica], [], {revision.model_id: revision.revision_id})
    assert candidate.buckets == ((SHADOW_CANDIDATE_BUCKET, SHADOW_CANDIDATE_BUCKET + 1),)
    assert decide_offers([replica], [], {revision.model_id: RevisionId("digits-9")}) == []
    assert decide_offers([replica], routes, {})[0].buckets == ((0, BUCKETS),)


def test_nothing_is_offered_beside_a_request_that_runs_alone() -> None:
    """It has lost two leases: it may be what kills workers."""
    replica = replica_of()
    routes = route_all(replica.revision).routes
    call = running(alone=True)
    assert replica.take(call)
    assert decide_offers([replica], routes) == []
    replica.release(call)
    assert decide_offers([replica], routes)[0].slots == 4


def test_a_replica_that_is_not_ready_offers_nothing() -> None:
    """Setup, draining and stopped alike."""
    replica = replica_of()
    for state in ReplicaState:
        replica.state = state
        assert bool(decide_offers([replica], route_all(replica.revision).routes)) == (state is ReplicaState.READY)


async def test_a_block_that_is_not_renewed_ends_by_itself() -> None:
    """Asking again replaces; other gateways get the rest; time gives all back."""
    clock = ManualClock()
    replica = replica_of(8, clock)
    freed: list[int] = []
    blocks = SlotBlocks(clock, lambda: freed.append(replica.free_slots))
    assert blocks.ask(replica, "g1", Need(5, 10.0)).slots == 5
    assert blocks.ask(replica, "g2", Need(5, 10.0)).slots == 3
    assert replica.free_slots == 0
    assert blocks.ask(replica, "g1", Need(1, 20.0)).slots == 1
    assert replica.free_slots == 4
    clock.advance(11)
    assert blocks.ask(replica, "g3", Need(0, 1.0)).slots == 0
    assert replica.lent_slots == 1
    assert freed


async def test_a_line_without_a_name_belongs_to_the_only_running_request() -> None:
    """With two running it belongs to nobody; a made-up id belongs to nobody either."""
    clock = ManualClock()
    queue, metrics = MemoryQueueStore(clock), Metrics()
    book, replica = LogBook(queue, clock, metrics), replica_of()
    first, second = running(), running()
    book.take(replica, None, "STDOUT", "nobody runs")
    replica.take(first)
    book.take(replica, None, "STDOUT", "raw line")
    replica.take(second)
    book.take(replica, None, "STDOUT", "whose?")
    book.take(replica, str(second.request_id), "WEIRD", "named\0")
    book.take(replica, "not an id", "STDOUT", "forged")
    book.take(replica, str(new_request_id(NOW, 0, CHANCE)), "STDOUT", "of another replica")
    await book.ship()
    assert await lines(queue, first.request_id) == [("STDOUT", "raw line")]
    assert await lines(queue, second.request_id) == [("STDOUT", "named\\x00")]


async def test_a_flood_of_lines_is_cut_and_says_so() -> None:
    """10,000 lines of an attempt are kept, the rest is counted."""
    clock = ManualClock()
    queue, metrics = MemoryQueueStore(clock), Metrics()
    book, replica, call = LogBook(queue, clock, metrics), replica_of(), running()
    replica.take(call)
    for number in range(MAX_LINES_PER_ATTEMPT + 50):
        book.take(replica, None, "STDOUT", f"line {number}")
    await book.ship()
    assert metrics.value(WORKER_LOG_LINES, "kept") == MAX_LINES_PER_ATTEMPT + 1
    assert metrics.value(WORKER_LOG_LINES, "dropped") == 49


async def test_the_direct_lane_keeps_no_lines() -> None:
    """Its answer goes straight to the caller; there is no status to show them in."""
    clock = ManualClock()
    queue = MemoryQueueStore(clock)
    book, replica, call = LogBook(queue, clock, Metrics()), replica_of(), running(attempt=0)
    replica.take(call)
    book.take(replica, None, "STDOUT", "direct")
    await book.ship()
    assert await lines(queue, call.request_id) == []


async def lines(queue: MemoryQueueStore, request_id: RequestId) -> list[tuple[str, str]]:
    """Return the stored lines of a request."""
    return [(line.level, line.message) for _, line in await queue.logs(request_id, 0)]
