"""Outputs that a worker stops: each has its item and its sealed copy, and items follow their requests."""

import dataclasses
from collections.abc import Mapping, Sequence

from tests.conformance.memory_queue import MemoryQueueStore
from tests.safety.doubles import POLICY, guard_world
from tests.safety.review.test_carry import ground_of
from tests.worker.harness import spec_of

from forestay.chance import SystemChance
from forestay.clock import SystemClock
from forestay.ids import BUCKETS, KeyId, ModelId, ReplicaId, RevisionId, TenantId, WorkerId, new_request_id
from forestay.queue.listing import ListedRequest
from forestay.queue.model import Answer, AttemptReport, Finish, Lease, Options, State, Submission
from forestay.queue.model import Outcome as Ending
from forestay.queue.postgres_store import open_queue_store
from forestay.queue.store import Offer
from forestay.safety.decide import Judgement
from forestay.safety.policy import Action, ReviewRules
from forestay.safety.records import Point
from forestay.safety.review import loop
from forestay.safety.review.kept import KeptOutput, unpacked
from forestay.safety.review.model import item_id_of
from forestay.safety.review.sealed import Reader
from forestay.safety.taxonomy import Category
from forestay.settings import Queue
from forestay.storage.objects import ObjectStore
from forestay.storage.postgres import Database
from forestay.verdicts import Verdict
from forestay.worker.stopped import StoppedContent

BLOCKED = Judgement(Verdict.BLOCK, Action.BLOCK, Category.VIOLENCE, "text", "a score")
UNSURE = Judgement(Verdict.INCONCLUSIVE, Action.REVIEW, None, "text", "nobody could tell")
ANSWER = Answer(200, {"content-type": "application/json"}, b'{"text": "MARKER-52D1"}')


async def leased(queue: MemoryQueueStore, **options: object) -> Lease:
    """A request that a worker holds."""
    now = SystemClock().now()
    submission = Submission(
        new_request_id(now, 0, SystemChance()), TenantId("acme"), KeyId("k1"), ModelId("acme/echo"), "/", b"{}", now,
        Options(**options),  # type: ignore[arg-type]
    )  # fmt: skip
    await queue.submit([submission], {})
    offer = Offer(ReplicaId("r"), RevisionId("v"), ModelId("acme/echo"), ((0, BUCKETS),), 1, idle=True)
    [lease] = await queue.claim(WorkerId("w"), [offer], 15.0)
    return lease


async def test_a_stopped_output_has_its_item_with_the_key_that_asked_and_a_sealed_copy(
    database: Database, objects: ObjectStore
) -> None:
    """Blocked ones only where the policy keeps them, withheld ones always; a later attempt replaces an earlier one."""
    async with open_queue_store(database, objects, Queue(), SystemChance(), 100) as real:
        ground = await ground_of(database, objects, real)
        queue, world = MemoryQueueStore(SystemClock()), await guard_world()
        told = StoppedContent(ground.desk.opener, queue, world.guard)
        lease, spec = await leased(queue), spec_of(policy="strict")
        await told.tell(lease, spec, ANSWER, ("m1",), BLOCKED)
        assert await ground.desk.reviews.find(str(lease.request_id)) is None
        world.store.put("strict", POLICY + "review: {keep_refused: true}\n")
        await world.policies.refresh()
        await told.tell(lease, spec, ANSWER, ("m1",), BLOCKED)
        again = dataclasses.replace(lease, attempt=2)
        await told.tell(again, spec, dataclasses.replace(ANSWER, body=b'{"n": 2}'), ("m2",), UNSURE)
        found = await ground.desk.reviews.find(str(lease.request_id))
        assert found is not None
        opened = found.item.opened
        assert (opened.key_id, opened.attempt, opened.verdict, found.needs) == ("k1", 2, Verdict.INCONCLUSIVE, 1)
        data = await ground.desk.sealed.read(opened.sealed_id, Reader("human:ann", "text", "a test"))
        assert data is not None
        kept = unpacked(data, KeptOutput)
        assert (kept.body, kept.media_ids) == (b'{"n": 2}', ["m2"])
        private = await leased(queue, store_io=False)
        await told.tell(private, spec, ANSWER, (), BLOCKED)
        found = await ground.desk.reviews.find(str(private.request_id))
        assert found is not None
        assert found.item.opened.sealed_id == ""


class Listing:
    """The withheld requests of a queue, as the admin API lists them."""

    def __init__(self, queue: MemoryQueueStore, ids: Sequence[Lease]) -> None:
        self._queue = queue
        self._leases = ids

    async def newest(
        self, model_id: ModelId | None, states: Sequence[State], limit: int, tags: Mapping[str, str]
    ) -> list[ListedRequest]:
        """List those that are in one of the states."""
        del model_id, limit, tags
        found = await self._queue.snapshots([lease.request_id for lease in self._leases])
        return [
            ListedRequest(
                one.request_id, one.tenant_id, one.key_id, one.model_id, one.endpoint, one.state, one.attempt,
                one.submitted_at, one.revision_id, one.replica_id, None, None,
            )
            for one in found.values()
            if one.state in states
        ]  # fmt: skip


async def test_items_follow_what_becomes_of_their_requests(database: Database, objects: ObjectStore) -> None:
    """A withheld output without an item gets one, which takes two; it lapses when the request ends without us."""
    async with open_queue_store(database, objects, Queue(), SystemChance(), 100) as real:
        ground = await ground_of(database, objects, real)
        queue = MemoryQueueStore(SystemClock())
        lease = await leased(queue)
        await queue.start([lease])
        await queue.checking([lease])
        now = SystemClock().now()
        report = AttemptReport(Ending.SUCCEEDED, now, now, now, 0.1)
        assert await queue.finish([Finish(lease, State.WITHHELD, ANSWER, report)])
        listing = Listing(queue, [lease])
        assert await loop.mend_once(ground.desk, listing, queue) == 1
        assert await loop.mend_once(ground.desk, listing, queue) == 0
        item_id = item_id_of(lease.request_id, Point.OUTPUT)
        found = await ground.desk.reviews.find(item_id)
        assert found is not None
        assert found.needs == 2
        await queue.cancel(lease.request_id, ANSWER)
        assert await loop.mend_once(ground.desk, listing, queue) == 1
        found = await ground.desk.reviews.find(item_id)
        assert found is not None
        assert found.item.decided is not None
        assert found.item.decided.outcome == "lapsed"


async def test_a_tenants_own_policy_makes_reviews_stricter_and_never_laxer() -> None:
    """The stricter of both counts; what is kept is the model's policy's word."""
    world = await guard_world()
    world.store.put("strict", POLICY + "review: {keep_refused: true, two_people: [hate]}\n")
    world.store.put("own", POLICY + "review: {release_needs: 2, two_people: [sexual]}\n")
    world.store.tenants[TenantId("acme")] = "own"
    await world.policies.refresh()
    request_id = new_request_id(SystemClock().now(), 0, SystemChance())
    policy = world.guard.policy_of("strict", TenantId("acme"), request_id)
    assert policy is not None
    assert policy.policy_id == "strict"
    both = frozenset({Category.HATE, Category.SEXUAL})
    assert policy.review == ReviewRules(release_needs=2, two_people=both, keep_refused=True)
    other = world.guard.policy_of("strict", TenantId("other"), request_id)
    assert other is not None
    assert other.review.release_needs == 1
