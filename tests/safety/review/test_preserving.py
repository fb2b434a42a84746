"""What the law asks for, with the platform's own stores: a matched case is blocked, preserved, told, and kept.

Marker hashes and opaque tokens only: nothing real is matched here.
"""

import json

from tests.delivery.test_review_export import PRIVATE, Receiver
from tests.gateway.world import serving
from tests.safety.review.test_carry import Ground, ground_of

from forestay.chance import SystemChance
from forestay.clock import SystemClock
from forestay.delivery.signing import Signed, SigningKeys
from forestay.ids import BUCKETS, KeyId, ModelId, ReplicaId, RequestId, RevisionId, TenantId, WorkerId, new_request_id
from forestay.media.store import MediaItem
from forestay.queue.model import Answer, AttemptReport, Finish, Outcome, State, Submission
from forestay.queue.postgres_store import PostgresQueueStore, open_queue_store
from forestay.queue.store import Offer
from forestay.safety.hashes import report_loop
from forestay.safety.hashes.postgres_reports import PostgresReports
from forestay.safety.hashes.report import CaseState, NewCase, ReportPolicy, case_id_of
from forestay.safety.review import loop
from forestay.safety.review.events import PostgresReviewEvents
from forestay.safety.review.preserving import ACTOR, RequestWithholder, SealedKeeper
from forestay.settings import Queue
from forestay.storage.objects import ObjectStore
from forestay.storage.postgres import Database
from forestay.telemetry.metrics import Metrics

MARKER = b"MARKER-7F3A" * 10


async def withheld(queue: PostgresQueueStore) -> RequestId:
    """A request whose output waits for people."""
    now = SystemClock().now()
    request_id = new_request_id(now, 0, SystemChance())
    who = (TenantId("acme"), KeyId("k"), ModelId("acme/film"))
    await queue.submit([Submission(request_id, *who, "/", b"{}", now)], {})
    offer = Offer(ReplicaId("r"), RevisionId("v"), ModelId("acme/film"), ((0, BUCKETS),), 1, idle=True)
    [lease] = await queue.claim(WorkerId("w"), [offer], 15.0)
    report = AttemptReport(Outcome.SUCCEEDED, now, now, now, 0.1)
    assert await queue.finish([Finish(lease, State.WITHHELD, Answer(200, {}, b"{}"), report)])
    return request_id


async def a_file(ground: Ground, request_id: RequestId) -> MediaItem:
    """A file that the request made, and that somebody could read."""
    return await ground.ground.media.save(
        MARKER, tenant_id=TenantId("acme"), file_name="a.bin", content_type="application/octet-stream",
        request_id=request_id, attempt=1, lifetime_seconds=None, state="released",
    )  # fmt: skip


def ports_of(ground: Ground, database: Database, policy: ReportPolicy) -> report_loop.ReportPorts:
    """The loop's ports, as the controller puts them together."""
    keys = SigningKeys([PRIVATE])
    return report_loop.ReportPorts(
        reports=PostgresReports(database, SystemClock()),
        withholder=RequestWithholder(ground.queue, ground.ground.media, ground.ground.wakeups),
        keeper=SealedKeeper(ground.desk.sealed, ground.ground.media),
        sign=lambda case, at, body: keys.headers(Signed(case.opened.case_id, ACTOR, at, body)),
        policy=policy,
        clock=SystemClock(),
        chance=SystemChance(),
        metrics=Metrics(),
        allow_private=True,
    )


async def test_a_matched_case_is_blocked_preserved_under_seal_told_and_kept(
    database: Database, objects: ObjectStore
) -> None:
    """The output ends blocked, its files are shut and copied under seal, the receiver is told, retention spares it."""
    receiver = Receiver()
    async with (
        serving(receiver.handle) as url,
        open_queue_store(database, objects, Queue(), SystemChance(), 100) as queue,
    ):
        ground = await ground_of(database, objects, queue)
        request_id = await withheld(queue)
        file = await a_file(ground, request_id)
        name = case_id_of(str(request_id), "images[0]", 7)
        case = NewCase(name, 7, "marker-7f3a", "minors", 3, str(request_id), "acme", "images[0]", SystemClock().now())
        ports = ports_of(ground, database, ReportPolicy(url, attach_media=True, base_seconds=0.0))
        assert await ports.reports.open(case)
        await report_loop.run_once(ports)
        [kept] = await ports.reports.cases(None, 10)
        assert kept.case.state is CaseState.REPORTED, kept.problem
        stored = await queue.result(request_id)
        assert stored is not None
        assert (stored.snapshot.state, stored.answer.status_code) == (State.BLOCKED, 422)
        shut = await ground.ground.media.find(file.media_id)
        assert shut is not None
        assert shut.state == "quarantine"
        [(headers, body)] = receiver.told
        assert json.loads(body)["sealed_id"] == kept.case.sealed_id
        signed = Signed(name, ACTOR, int(headers["x-fal-webhook-timestamp"]), body)
        PRIVATE.public_key().verify(bytes.fromhex(headers["x-fal-webhook-signature"]), signed.message())
        await ground.ground.media.delete([file.media_id])
        await database.execute("UPDATE sealed SET sealed_at = now() - interval '9 years'")
        assert await loop.forget_once(ground.desk, PostgresReviewEvents(database), 1.0) == 0
        assert await ports.keeper.read(kept.case.sealed_id) == MARKER
        reads = await ground.desk.sealed.readings(None, 0, 10)
        assert {(one.actor, one.how) for one in reads} == {(ACTOR, "report")}


async def test_a_case_waits_for_its_request_to_end(database: Database, objects: ObjectStore) -> None:
    """The guard has blocked it, but the worker has not said so yet: nothing is preserved or told before."""
    async with open_queue_store(database, objects, Queue(), SystemChance(), 100) as queue:
        ground = await ground_of(database, objects, queue)
        now = SystemClock().now()
        request_id = new_request_id(now, 0, SystemChance())
        who = (TenantId("acme"), KeyId("k"), ModelId("acme/film"))
        await queue.submit([Submission(request_id, *who, "/", b"{}", now)], {})
        ports = ports_of(ground, database, ReportPolicy())
        case = NewCase("case_1", 7, "marker-7f3a", "minors", 3, str(request_id), "acme", "images[0]", now)
        await ports.reports.open(case)
        await report_loop.run_once(ports)
        [kept] = await ports.reports.cases(None, 10)
        assert (kept.case.state, "has not ended" in kept.problem) == (CaseState.MATCHED, True)
