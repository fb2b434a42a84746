"""One behaviour suite for every adapter of the queue's port: Postgres, and the fake that other tests use."""

import asyncio
import dataclasses
import datetime as dt
from collections.abc import AsyncGenerator

import pytest
from tests.conformance.queue_harness import (
    MODEL,
    WORKER,
    Harness,
    finish,
    memory_harness,
    offer,
    postgres_harness,
    report,
    requeue,
    submission,
)

from forestay.ids import SHADOW_CANDIDATE_BUCKET, ModelId, ReplicaId, RequestId, TenantId, WorkerId, bucket_of
from forestay.queue import answers
from forestay.queue.model import Answer, Lease, LogLine, Options, Outcome, Priority, Shadow, State
from forestay.queue.pressure import EarlyEnd
from forestay.queue.store import Accepted, IdempotencyConflict, QueueFull, Running, Unfinished
from forestay.storage.objects import ObjectStore
from forestay.storage.postgres import Database

LEASE_SECONDS = 15.0


@pytest.fixture(params=["memory", "postgres"])
async def harness(request: pytest.FixtureRequest, database: Database, objects: ObjectStore) -> AsyncGenerator[Harness]:
    """Each adapter in turn."""
    if request.param == "memory":
        yield memory_harness()
        return
    async with postgres_harness(database, objects) as real:
        yield real


async def submit(harness: Harness, count: int = 1, options: Options | None = None) -> list[RequestId]:
    """Submit some requests."""
    items = [submission(harness, options=options, body=b'{"n": %d}' % n) for n in range(count)]
    results = await harness.store.submit(items, {})
    assert results == [Accepted(item.request_id) for item in items]
    return [item.request_id for item in items]


async def claim_one(harness: Harness, worker: WorkerId = WORKER, replica: str = "replica-1") -> Lease:
    """Claim the only request that can be claimed."""
    leases = await harness.store.claim(worker, [offer(replica=replica)], LEASE_SECONDS)
    assert len(leases) == 1
    return leases[0]


async def state_of(harness: Harness, request_id: RequestId) -> State:
    """Read a request's state."""
    return (await harness.store.snapshots([request_id]))[request_id].state


async def test_a_request_goes_from_submit_to_its_answer(harness: Harness) -> None:
    """The lease carries the caller's body; the finish publishes status, headers and body verbatim."""
    [request_id] = await submit(harness)
    lease = await claim_one(harness)
    assert (lease.request_id, lease.attempt, lease.body) == (request_id, 1, b'{"n": 0}')
    assert await state_of(harness, request_id) is State.LEASED
    fence = (request_id, 1)
    assert await harness.store.start([lease]) == {fence}
    assert await state_of(harness, request_id) is State.RUNNING
    assert await harness.store.checking([lease]) == {fence}
    assert await state_of(harness, request_id) is State.CHECKING
    assert await harness.store.result(request_id) is None
    item = finish(lease)
    assert await harness.store.finish([item]) == {fence}
    stored = await harness.store.result(request_id)
    assert stored is not None
    assert stored.answer == item.answer
    assert stored.snapshot.state is State.SUCCEEDED
    assert stored.snapshot.inference_seconds == pytest.approx(2.0)  # both ends by the clock of its worker
    assert await harness.store.owner_of(request_id) == "tenant-1"


async def test_options_reach_the_worker_as_the_caller_gave_them(harness: Harness) -> None:
    """Every option survives the way through the store."""
    options = Options(
        priority=Priority.LOW,
        start_deadline=harness.now() + dt.timedelta(seconds=50),
        total_deadline=harness.now() + dt.timedelta(seconds=90),
        hint="h",
        retry_config={"timeout": {"retries": 0}},
        webhook_url="https://example.com/hook",
        store_io=False,
        object_lifetime_seconds=60,
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        forward_headers={"x-app-fal-tag": "1"},
        features={"steps": 28.0, "pixels": 1048576.0},
    )
    await submit(harness, options=options)
    assert (await claim_one(harness)).options == options


async def test_the_lease_says_what_was_predicted_at_submit(harness: Harness) -> None:
    """With and without an idempotency key: the two ways into the queue keep the prediction alike."""
    plain = dataclasses.replace(submission(harness), predicted_seconds=4.5)
    keyed = dataclasses.replace(submission(harness, idempotency_key="k", body=b"2"), predicted_seconds=0.25)
    unsaid = submission(harness, body=b"3")
    await harness.store.submit([plain, keyed, unsaid], {})
    leases = await harness.store.claim(WORKER, [offer(3)], LEASE_SECONDS)
    said = {lease.request_id: lease.predicted_seconds for lease in leases}
    assert said == {plain.request_id: 4.5, keyed.request_id: 0.25, unsaid.request_id: 1.0}
    hinted = submission(harness, options=Options(hint="warm"), body=b"4")
    await harness.store.submit([dataclasses.replace(hinted, predicted_seconds=7.0)], {})
    [lease] = await harness.store.claim(WORKER, [offer(replica="replica-2", hints=["warm"])], LEASE_SECONDS)
    assert lease.predicted_seconds == 7.0


async def test_requests_are_claimed_in_order_and_only_once(harness: Harness) -> None:
    """Two claims share out the queue front to back without overlap."""
    ids = await submit(harness, 5)
    first = await harness.store.claim(WORKER, [offer(2)], LEASE_SECONDS)
    second = await harness.store.claim(WorkerId("worker-2"), [offer(5, replica="replica-2")], LEASE_SECONDS)
    assert [lease.request_id for lease in first] == ids[:2]
    assert [lease.request_id for lease in second] == ids[2:]


async def test_two_replicas_of_a_revision_share_its_queue(harness: Harness) -> None:
    """Each gets at most its own slots, and no request goes to both."""
    await submit(harness, 5)
    leases = await harness.store.claim(WORKER, [offer(2), offer(2, replica="replica-2")], LEASE_SECONDS)
    replicas = [lease.replica_id for lease in leases]
    assert sorted(replicas) == ["replica-1"] * 2 + ["replica-2"] * 2
    assert len({lease.request_id for lease in leases}) == 4


async def test_a_revision_gets_only_the_buckets_of_its_route(harness: Harness) -> None:
    """The ranges of two revisions split the queue without rest."""
    ids = await submit(harness, 30)
    low = await harness.store.claim(WORKER, [offer(30, buckets=((0, 3000), (7000, 8000)))], LEASE_SECONDS)
    rest = await harness.store.claim(WORKER, [offer(30, revision="b", buckets=((3000, 7000), (8000, 10000)))], 15)
    assert all(bucket_of(lease.request_id) < 3000 or 7000 <= bucket_of(lease.request_id) < 8000 for lease in low)
    assert {lease.request_id for lease in low + rest} == set(ids)
    assert await harness.store.claim(WORKER, [offer(3, buckets=())], LEASE_SECONDS) == []


async def test_low_priority_yields_but_never_beyond_the_starvation_bound(harness: Harness) -> None:
    """A low request goes after younger normal ones, but before those submitted the bound later."""
    low = submission(harness, options=Options(priority=Priority.LOW), age_seconds=70)
    normal = submission(harness, age_seconds=20)
    late = submission(harness)
    await harness.store.submit([late, low, normal], {})
    leases = await harness.store.claim(WORKER, [offer(3)], LEASE_SECONDS)
    assert [lease.request_id for lease in leases] == [normal.request_id, low.request_id, late.request_id]
    young = submission(harness, options=Options(priority=Priority.LOW), age_seconds=10)
    other = submission(harness)
    await harness.store.submit([young, other], {})
    leases = await harness.store.claim(WORKER, [offer(2)], LEASE_SECONDS)
    assert [lease.request_id for lease in leases] == [other.request_id, young.request_id]


async def test_a_replica_prefers_requests_with_its_hint(harness: Harness) -> None:
    """Among the front of the queue the hinted request is taken first; without a match any request will do."""
    plain = submission(harness)
    hinted = submission(harness, options=Options(hint="lora-7"))
    await harness.store.submit([plain, hinted], {})
    leases = await harness.store.claim(WORKER, [offer(1, hints=["lora-7"])], LEASE_SECONDS)
    assert [lease.request_id for lease in leases] == [hinted.request_id]
    leases = await harness.store.claim(WORKER, [offer(1, hints=["lora-7"])], LEASE_SECONDS)
    assert [lease.request_id for lease in leases] == [plain.request_id]


@pytest.mark.threat("ML09:2023")
@pytest.mark.parametrize("next_worker", [WORKER, "worker-2"])
async def test_a_stale_fence_changes_nothing(harness: Harness, next_worker: str) -> None:
    """After a rescue the old attempt can do nothing, whoever has the new one, and the new one can."""
    [request_id] = await submit(harness)
    old = await claim_one(harness)
    await harness.advance(LEASE_SECONDS + 1)
    assert await harness.store.rescue(10) == [(request_id, State.QUEUED)]
    new = await claim_one(harness, WorkerId(next_worker), "replica-2")
    assert new.attempt == 2
    fence = (old.request_id, old.attempt)
    assert await harness.store.renew(WORKER, [fence], LEASE_SECONDS) == []
    assert await harness.store.lost_to(WORKER, [fence]) == {fence}
    assert await harness.store.start([old]) == set()
    assert await harness.store.checking([old]) == set()
    assert await harness.store.finish([finish(old)]) == set()
    assert await harness.store.requeue([requeue(old)]) == set()
    assert await harness.store.finish([finish(new)]) == {(request_id, 2)}
    assert await harness.store.finish([finish(new)]) == set()


async def test_another_worker_cannot_use_a_lease(harness: Harness) -> None:
    """The fence names the worker too."""
    [request_id] = await submit(harness)
    lease = dataclasses.replace(await claim_one(harness), worker_id=WorkerId("thief"))
    assert await harness.store.finish([finish(lease)]) == set()
    assert await harness.store.renew(lease.worker_id, [(request_id, 1)], LEASE_SECONDS) == []


async def test_a_renewed_lease_is_not_rescued(harness: Harness) -> None:
    """Renewing moves the end of the lease by the database's clock."""
    [request_id] = await submit(harness)
    await claim_one(harness)
    await harness.advance(LEASE_SECONDS - 2)
    [held] = await harness.store.renew(WORKER, [(request_id, 1)], LEASE_SECONDS)
    assert (held.request_id, held.attempt) == (request_id, 1)
    await harness.advance(LEASE_SECONDS - 2)
    assert await harness.store.rescue(10) == []
    await harness.advance(3)
    assert await harness.store.rescue(10) == [(request_id, State.QUEUED)]


async def test_after_two_lost_leases_a_request_runs_alone(harness: Harness) -> None:
    """It is given only to an idle replica, which then gets nothing else."""
    [request_id] = await submit(harness)
    for _ in range(2):
        await claim_one(harness)
        await harness.advance(LEASE_SECONDS + 1)
        await harness.store.rescue(10)
    others = await submit(harness, 3)
    leases = await harness.store.claim(WORKER, [offer(1, idle=False)], LEASE_SECONDS)
    assert [lease.request_id for lease in leases] == others[:1]
    leases = await harness.store.claim(WORKER, [offer(2, replica="replica-2")], LEASE_SECONDS)
    assert [(lease.request_id, lease.lost_leases) for lease in leases] == [(request_id, 2)]


async def test_lost_leases_end_at_the_ceiling_and_are_no_poison(harness: Harness) -> None:
    """Ten lost workers fail the request as disconnected, not as quarantined."""
    [request_id] = await submit(harness)
    state = State.QUEUED
    for _ in range(10):
        await claim_one(harness)
        await harness.advance(LEASE_SECONDS + 1)
        [(_, state)] = await harness.store.rescue(10)
    assert state is State.FAILED
    stored = await harness.store.result(request_id)
    assert stored is not None
    assert stored.answer.error_type == "runner_disconnected"
    assert b"quarantined" not in stored.answer.body


async def test_crashing_two_replicas_quarantines_a_request(harness: Harness) -> None:
    """The second crash on another replica is the last; crashing the same replica twice counts once."""
    [request_id] = await submit(harness)
    for _ in range(2):
        lease = await claim_one(harness)
        assert await harness.store.requeue([requeue(lease, crashed=True)]) == {(request_id, lease.attempt)}
        assert await state_of(harness, request_id) is State.QUEUED
    lease = await claim_one(harness, replica="replica-2")
    assert lease.crashed_replicas == (ReplicaId("replica-1"),)
    assert await harness.store.requeue([requeue(lease, crashed=True)]) == {(request_id, 3)}
    stored = await harness.store.result(request_id)
    assert stored is not None
    assert (stored.snapshot.state, stored.answer.status_code) == (State.FAILED, 500)
    assert stored.answer.error_type == "runner_server_error"
    assert b"quarantined" in stored.answer.body


async def test_charged_retries_are_counted_and_free_ones_are_not(harness: Harness) -> None:
    """The next lease tells what was charged; ten charged attempts are the ceiling, free ones do not weigh."""
    [request_id] = await submit(harness)
    for _ in range(3):
        await harness.store.requeue([requeue(await claim_one(harness), "")])
    for _ in range(9):
        await harness.store.requeue([requeue(await claim_one(harness), "timeout")])
    lease = await claim_one(harness)
    assert lease.retries_used == {"timeout": 9}
    await harness.store.requeue([requeue(lease, "timeout")])
    assert await state_of(harness, request_id) is State.FAILED


async def test_a_request_given_back_waits_for_its_back_off(harness: Harness) -> None:
    """It is not claimed before the delay has passed."""
    await submit(harness)
    await harness.store.requeue([requeue(await claim_one(harness), delay_seconds=20)])
    assert await harness.store.claim(WORKER, [offer()], LEASE_SECONDS) == []
    await harness.advance(21)
    assert (await claim_one(harness)).attempt == 2


@pytest.mark.parametrize("steps", range(4))
async def test_cancel_takes_a_request_away_in_every_state(harness: Harness, steps: int) -> None:
    """The caller's answer is there at once; the worker's finish comes too late."""
    [request_id] = await submit(harness)
    before, lease = State.QUEUED, None
    if steps > 0:
        before, lease = State.LEASED, await claim_one(harness)
    if lease is not None and steps > 1:
        before = State.RUNNING
        await harness.store.start([lease])
    if lease is not None and steps > 2:
        before = State.CHECKING
        await harness.store.checking([lease])
    assert await harness.store.cancel(request_id, answers.cancelled()) is before
    stored = await harness.store.result(request_id)
    assert stored is not None
    assert (stored.snapshot.state, stored.answer.status_code) == (State.CANCELLED, 499)
    if lease is not None:
        assert await harness.store.lost_to(WORKER, [(request_id, 1)]) == {(request_id, 1)}
        assert await harness.store.finish([finish(lease)]) == set()
        await harness.store.abandon(lease, report(lease))
    assert await harness.store.cancel(request_id, answers.cancelled()) is State.CANCELLED
    assert await harness.store.claim(WORKER, [offer()], LEASE_SECONDS) == []


async def test_cancelling_an_unknown_request_finds_nothing(harness: Harness) -> None:
    """An id that was never submitted is unknown everywhere."""
    unknown = submission(harness).request_id
    assert await harness.store.cancel(unknown, answers.cancelled()) is None
    assert await harness.store.snapshots([unknown]) == {}
    assert await harness.store.result(unknown) is None
    assert await harness.store.owner_of(unknown) is None


async def test_a_start_deadline_ends_a_waiting_request_only(harness: Harness) -> None:
    """Past its time to start a request is neither claimed nor left waiting; one that runs goes on."""
    deadline = Options(start_deadline=harness.now() + dt.timedelta(seconds=5))
    [running] = await submit(harness, options=deadline)
    lease = await claim_one(harness)
    [waiting] = await submit(harness, options=deadline)
    await harness.advance(6)
    assert await harness.store.claim(WORKER, [offer()], LEASE_SECONDS) == []
    assert await harness.store.expire(10) == [waiting]
    stored = await harness.store.result(waiting)
    assert stored is not None
    assert (stored.snapshot.state, stored.answer.status_code) == (State.EXPIRED, 504)
    assert stored.answer.error_type == "request_timeout"
    assert stored.answer.headers["x-fal-request-timeout-type"] == "user"
    assert await harness.store.finish([finish(lease)]) == {(running, 1)}


async def test_a_total_deadline_ends_a_request_even_while_it_runs(harness: Harness) -> None:
    """The worker loses the lease."""
    [request_id] = await submit(harness, options=Options(total_deadline=harness.now() + dt.timedelta(seconds=5)))
    lease = await claim_one(harness)
    await harness.store.start([lease])
    await harness.advance(6)
    assert await harness.store.expire(10) == [request_id]
    assert await harness.store.finish([finish(lease)]) == set()
    assert await state_of(harness, request_id) is State.EXPIRED


async def test_the_same_idempotency_key_gives_the_same_request(harness: Harness) -> None:
    """A repeat gets the first one's id; another body under the key is a conflict; nothing is queued twice."""
    first = submission(harness, idempotency_key="k")
    repeat = submission(harness, idempotency_key="k")
    other = submission(harness, idempotency_key="k", body=b"{}")
    results = await harness.store.submit([first, repeat, other], {})
    assert results == [
        Accepted(first.request_id),
        Accepted(first.request_id, replayed=True),
        IdempotencyConflict(first.request_id),
    ]
    assert await harness.store.backlog() == {MODEL: 1}


async def test_an_undelivered_submit_is_adopted_by_one_identical_retry(harness: Harness) -> None:
    """The first identical submit within the window gets the lost one's id, the second a request of its own."""
    lost = submission(harness)
    await harness.store.submit([lost], {})
    await harness.store.mark_undelivered(lost.request_id, lost.key_id, lost.fingerprint)
    stranger = submission(harness, body=b'{"another": 1}')
    retries = [submission(harness), submission(harness)]
    results = await harness.store.submit([stranger, *retries], {})
    assert results == [
        Accepted(stranger.request_id),
        Accepted(lost.request_id, replayed=True),
        Accepted(retries[1].request_id),
    ]


async def test_an_undelivered_submit_is_not_adopted_after_its_window(harness: Harness) -> None:
    """A submit much later is the caller's new wish."""
    lost = submission(harness)
    await harness.store.submit([lost], {})
    await harness.store.mark_undelivered(lost.request_id, lost.key_id, lost.fingerprint)
    await harness.advance(61)
    later = submission(harness)
    assert await harness.store.submit([later], {}) == [Accepted(later.request_id)]


async def test_a_queue_limit_refuses_only_those_who_ask_for_it(harness: Harness) -> None:
    """With two waiting, a limit of two refuses and a limit of three lets one in, even within one batch."""
    await submit(harness, 2)
    items = [submission(harness, body=b'{"n": %d}' % n) for n in range(4)]
    limits = {items[0].request_id: 2, items[1].request_id: 3, items[2].request_id: 3}
    results = await harness.store.submit(items, limits)
    assert results == [
        QueueFull(2),
        Accepted(items[1].request_id),
        QueueFull(3),
        Accepted(items[3].request_id),
    ]


async def test_large_bodies_travel_whole(harness: Harness) -> None:
    """A body and an answer beyond the inline limit come back as they went in."""
    large = b'"' + b"x" * 200_000 + b'"'
    item = submission(harness, body=large)
    await harness.store.submit([item], {})
    lease = await claim_one(harness)
    assert lease.body == large
    await harness.store.finish([finish(lease, body=large)])
    stored = await harness.store.result(item.request_id)
    assert stored is not None
    assert stored.answer.body == large


async def test_a_withheld_output_is_resolved_once(harness: Harness) -> None:
    """It holds no lease, cannot be claimed, and is published by whoever resolves it, the first time."""
    [request_id] = await submit(harness)
    lease = await claim_one(harness)
    item = finish(lease)
    assert await harness.store.finish([dataclasses.replace(item, state=State.WITHHELD)]) == {(request_id, 1)}
    assert await state_of(harness, request_id) is State.WITHHELD
    await harness.advance(LEASE_SECONDS + 1)
    assert await harness.store.rescue(10) == []
    assert await harness.store.claim(WORKER, [offer()], LEASE_SECONDS) == []
    held = await harness.store.held_back(request_id)
    assert held is not None
    assert (held.answer.body, held.attempt, held.revision_id) == (item.answer.body, 1, lease.revision_id)
    assert not await harness.store.withheld(request_id, State.RUNNING, item.answer)
    assert await harness.store.withheld(request_id, State.SUCCEEDED, item.answer)
    assert await harness.store.held_back(request_id) is None
    assert not await harness.store.withheld(request_id, State.BLOCKED, item.answer)
    assert await state_of(harness, request_id) is State.SUCCEEDED


async def test_what_an_attempt_leaves_reaches_the_next_one(harness: Harness) -> None:
    """By a requeue as by a lost lease; a worker that lost its lease leaves nothing and reads nothing."""
    await submit(harness)
    first = await claim_one(harness)
    assert await harness.store.carried(first) is None
    assert await harness.store.carry(first, "job 1")
    await harness.store.requeue([requeue(first)])
    second = await claim_one(harness)
    assert await harness.store.carried(second) == "job 1"
    assert not await harness.store.carry(first, "stale")
    assert await harness.store.carried(first) is None
    await harness.advance(LEASE_SECONDS + 1)
    assert await harness.store.rescue(10)
    third = await claim_one(harness)
    assert await harness.store.carried(third) == "job 1"


@pytest.mark.parametrize("size", [10, 200_000])
async def test_a_released_output_has_the_models_own_status_headers_and_body(harness: Harness, size: int) -> None:
    """Whoever releases it need not know what the model said; it is released by that word alone, and once."""
    [request_id] = await submit(harness)
    lease = await claim_one(harness)
    answer = Answer(203, {"content-type": "image/png", "x-fal-billable-units": "3"}, b"x" * size, error_type="odd")
    item = dataclasses.replace(finish(lease), state=State.WITHHELD, answer=answer)
    await harness.store.finish([item])
    assert not await harness.store.withheld(request_id, State.BLOCKED, None)
    assert await harness.store.withheld(request_id, State.SUCCEEDED, None)
    assert not await harness.store.withheld(request_id, State.SUCCEEDED, None)
    stored = await harness.store.result(request_id)
    assert stored is not None
    assert (stored.snapshot.state, stored.answer) == (State.SUCCEEDED, answer)


async def test_positions_and_backlog_see_waiting_requests_only(harness: Harness) -> None:
    """A claimed request is no longer ahead of anybody."""
    ids = await submit(harness, 3)
    assert await harness.store.backlog() == {MODEL: 3}
    await claim_one(harness)
    snapshots = await harness.store.snapshots(ids)
    ahead = await harness.store.queued_ahead([MODEL])
    assert ahead == {MODEL: [snapshots[ids[1]].order_at, snapshots[ids[2]].order_at]}
    assert await harness.store.queued_ahead([MODEL], 1) == {MODEL: [snapshots[ids[1]].order_at]}
    assert await harness.store.backlog() == {MODEL: 2}


async def test_log_lines_come_back_in_order_and_only_the_new_ones(harness: Harness) -> None:
    """A reader gives the last position it has seen and gets what came after."""
    [request_id, other] = await submit(harness, 2)
    lines = [LogLine(request_id, 1, n, harness.now(), "STDOUT", f"line {n}") for n in range(3)]
    await harness.store.append_logs([lines[0], dataclasses.replace(lines[0], request_id=other), lines[1]])
    first = await harness.store.logs(request_id, 0)
    assert [line for _, line in first] == lines[:2]
    await harness.store.append_logs(lines[2:])
    assert [line for _, line in await harness.store.logs(request_id, first[-1][0])] == lines[2:]


async def test_what_is_old_is_forgotten_and_what_is_live_is_not(harness: Harness) -> None:
    """Retention drops finished requests by their submit time, with their logs; waiting ones stay."""
    [done, waiting] = await submit(harness, 2)
    lease = await claim_one(harness)
    await harness.store.append_logs([LogLine(done, 1, 0, harness.now(), "STDOUT", "hello")])
    await harness.store.finish([finish(lease)])
    await harness.store.forget(harness.now() - dt.timedelta(hours=1))
    assert await harness.store.result(done) is not None
    await harness.store.forget(harness.now() + dt.timedelta(hours=1))
    assert await harness.store.snapshots([done, waiting]) == {
        waiting: (await harness.store.snapshots([waiting]))[waiting]
    }
    assert await harness.store.logs(done, 0) == []


async def test_many_claimants_share_a_queue_without_overlap(harness: Harness) -> None:
    """Concurrent claims, each for a few slots, together take every request exactly once."""
    ids = await submit(harness, 60)
    claims = [
        harness.store.claim(WorkerId(f"worker-{n}"), [offer(10, replica=f"replica-{n}")], LEASE_SECONDS)
        for n in range(8)
    ]
    taken = [lease.request_id for leases in await asyncio.gather(*claims) for lease in leases]
    rest = await harness.store.claim(WORKER, [offer(60)], LEASE_SECONDS)
    assert sorted(taken + [lease.request_id for lease in rest]) == sorted(ids)


async def test_what_is_unfinished_and_what_runs_is_told_for_limits(harness: Harness) -> None:
    """A waiting request is unfinished, a claimed one runs too, a finished one is neither; each by its owner."""
    first, second, third = (
        dataclasses.replace(submission(harness), predicted_seconds=seconds) for seconds in (1.5, 2.5, 3.5)
    )
    await harness.store.submit([first, second, third], {})
    assert await harness.store.running() == []
    leases = await harness.store.claim(WORKER, [offer(slots=2)], LEASE_SECONDS)
    assert await harness.store.running() == [Running(first.tenant_id, first.key_id, first.model_id, 2)]
    await harness.store.finish([finish(leases[0])])
    assert [item.requests for item in await harness.store.running()] == [1]
    left = {item.request_id: item for item in (first, second, third) if item.request_id != leases[0].request_id}
    everybody: dict[str, object] = {"tenant_id": None, "key_id": None, "model_id": None}
    for field, stranger in (("tenant_id", "nobody"), ("key_id", "f" * 16), ("model_id", "no/model")):
        for name, expected in ((getattr(first, field), left), (stranger, {})):
            found = await harness.store.unfinished(**{**everybody, field: name})  # pyright: ignore[reportArgumentType]
            assert {item.request_id: item for item in found} == {
                request_id: Unfinished(request_id, item.model_id, item.predicted_seconds)
                for request_id, item in expected.items()
            }


async def test_a_deadline_waits_as_long_as_its_request_does(harness: Harness) -> None:
    """What must start by some moment and has not started."""
    await harness.store.submit([submission(harness)], {})
    assert not await harness.store.deadlines_wait()
    soon = Options(start_deadline=harness.now() + dt.timedelta(seconds=30))
    await harness.store.submit([submission(harness, options=soon)], {})
    assert await harness.store.deadlines_wait()
    await harness.store.claim(WORKER, [offer(2)], LEASE_SECONDS)
    assert not await harness.store.deadlines_wait()


async def test_pressure_says_what_waits_and_what_runs_for_whom(harness: Harness) -> None:
    """Work in predicted seconds per model, tenant and priority; what is past its deadline asks for nothing."""
    soon = Options(start_deadline=harness.now() + dt.timedelta(seconds=30))
    late = Options(start_deadline=harness.now() + dt.timedelta(seconds=3))
    items = [
        dataclasses.replace(submission(harness, age_seconds=5), predicted_seconds=7.0),
        dataclasses.replace(submission(harness), predicted_seconds=2.0),
        dataclasses.replace(submission(harness, options=soon), predicted_seconds=4.0),
        dataclasses.replace(submission(harness, options=soon), predicted_seconds=1.0),
        dataclasses.replace(submission(harness, options=late), predicted_seconds=50.0),
        dataclasses.replace(submission(harness, options=Options(priority=Priority.LOW)), predicted_seconds=3.0),
        dataclasses.replace(submission(harness, options=Options(priority=Priority.LOW), age_seconds=90)),
        dataclasses.replace(submission(harness), tenant_id=TenantId("other"), predicted_seconds=5.0),
        dataclasses.replace(submission(harness, model_id=ModelId("acme/tones")), predicted_seconds=9.0),
    ]
    await harness.store.submit(items, {})
    await harness.advance(4)
    await harness.store.claim(WORKER, [offer(1, model_id=ModelId("acme/tones"), revision="t")], LEASE_SECONDS)
    found = {(item.model_id, item.tenant_id, item.low): item for item in await harness.store.pressure()}
    mine = found[MODEL, TenantId("tenant-1"), False]
    assert (mine.waiting, mine.waiting_seconds, mine.held, mine.weight) == (5, 15.0, 0, 1.0)
    assert mine.squares == 49.0 + 4.0 + 16.0 + 1.0 + 1.0
    [due] = mine.due
    assert due.seconds == 5.0
    assert 20 < due.earliest <= due.latest <= 26  # the test itself takes some of the time
    low = found[MODEL, TenantId("tenant-1"), True]
    assert (low.waiting, low.waiting_seconds, low.due) == (1, 3.0, ())
    assert found[MODEL, TenantId("other"), False].waiting_seconds == 5.0
    held = found[ModelId("acme/tones"), TenantId("tenant-1"), False]
    assert (held.waiting, held.held, held.held_seconds) == (0, 1, 9.0)
    assert 0.0 <= held.held_elapsed_seconds < 60.0
    assert len(found) == 4


async def test_deadlines_are_told_in_groups_from_the_earliest_on(harness: Harness) -> None:
    """So that a request knows how much goes before it and how much it would push back."""
    for seconds in (300, 7, 8, 25):
        options = Options(start_deadline=harness.now() + dt.timedelta(seconds=seconds))
        await harness.store.submit([dataclasses.replace(submission(harness, options=options), predicted_seconds=2)], {})
    [mine] = await harness.store.pressure()
    assert [due.seconds for due in mine.due] == [4.0, 2.0, 2.0]
    left = [seconds for due in mine.due for seconds in (due.earliest, due.latest)]
    assert all(wanted - 3 < seconds <= wanted for seconds, wanted in zip(left, (7, 8, 25, 25, 300, 300), strict=True))


async def test_waiting_requests_are_read_with_their_deadlines(harness: Harness) -> None:
    """The most urgent first; held ones and other models' are not among them."""
    soon = harness.now() + dt.timedelta(seconds=30)
    urgent = submission(harness, options=Options(start_deadline=soon, total_deadline=soon + dt.timedelta(seconds=5)))
    plain, low = submission(harness), submission(harness, options=Options(priority=Priority.LOW))
    await harness.store.submit([low, plain, urgent, submission(harness, model_id=ModelId("acme/tones"))], {})
    found = await harness.store.queued(MODEL, 10)
    assert [item.waiting.request_id for item in found] == [urgent.request_id, plain.request_id, low.request_id]
    assert found[0].start_deadline == soon
    assert found[0].total_deadline == soon + dt.timedelta(seconds=5)
    assert [item.waiting.low for item in found] == [False, False, True]
    assert len(await harness.store.queued(MODEL, 2)) == 2
    await claim_one(harness)
    assert [item.waiting.request_id for item in await harness.store.queued(MODEL, 10)] == [
        plain.request_id,
        low.request_id,
    ]


async def test_a_request_is_ended_early_only_while_it_waits(harness: Harness) -> None:
    """One that was claimed meanwhile runs on; one that came back after another attempt is looked at again."""
    ids = await submit(harness, 3)
    lease = await claim_one(harness)
    ends = [
        EarlyEnd(request_id, attempt, State.EXPIRED, Outcome.EXPIRED, answers.expired_before_start())
        for request_id, attempt in ((ids[0], 0), (ids[1], 0), (ids[2], 1))
    ]
    assert await harness.store.end_early(ends) == [ids[1]]
    assert await state_of(harness, ids[1]) is State.EXPIRED
    assert await state_of(harness, ids[2]) is State.QUEUED
    stored = await harness.store.result(ids[1])
    assert stored is not None
    assert stored.answer.status_code == 504
    await harness.store.finish([finish(lease)])
    assert await state_of(harness, ids[0]) is State.SUCCEEDED
    assert await harness.store.end_early([]) == []


async def test_a_request_that_is_blocked_at_submit_is_final(harness: Harness) -> None:
    """Nobody can claim it, its result is the refusal, and storing it twice changes nothing."""
    item = submission(harness, options=Options(tags={"team": "films"}))
    refusal = Answer(422, {"content-type": "application/json"}, b'{"detail":[]}', "refused", "content_policy_violation")
    await harness.store.refuse(item, refusal)
    await harness.store.refuse(item, refusal)
    assert await harness.store.claim(WORKER, [offer()], LEASE_SECONDS) == []
    stored = await harness.store.result(item.request_id)
    assert stored is not None
    assert stored.answer == refusal
    assert (stored.snapshot.state, stored.snapshot.attempt) == (State.BLOCKED, 0)
    assert await harness.store.cancel(item.request_id, refusal) is State.BLOCKED


async def test_a_copy_of_a_rollout_is_claimed_only_by_whom_it_is_for(harness: Harness) -> None:
    """Traffic's buckets never take it."""
    copies = [submission(harness, options=Options(shadow=arm)) for arm in (Shadow.CANDIDATE, Shadow.CONTROL)]
    await harness.store.submit(copies, {})
    assert await harness.store.claim(WORKER, [offer()], LEASE_SECONDS) == []
    place = SHADOW_CANDIDATE_BUCKET
    only = dataclasses.replace(offer(slots=2), buckets=((place, place + 1),))
    [lease] = await harness.store.claim(WORKER, [only], LEASE_SECONDS)
    assert (lease.request_id, lease.options.shadow) == (copies[0].request_id, Shadow.CANDIDATE)
