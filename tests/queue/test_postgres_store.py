"""What finishing does beside the queue's own rows: media, webhooks, and what is not kept."""

import dataclasses
import datetime as dt
import json

import pytest
from tests.conformance.queue_harness import Harness, finish, offer, postgres_harness, submission

from forestay.ids import WorkerId
from forestay.media.urls import stored_url
from forestay.queue import answers
from forestay.queue.model import Lease, Options, State
from forestay.storage.objects import ObjectStore
from forestay.storage.postgres import Database, load_queries

ADD_MEDIA = """INSERT INTO media (media_id, object_key, tenant_id, request_id, attempt, file_name,
                                  content_type, size_bytes, state)
               VALUES ($1, 'media/' || $1, 'tenant-1', $2, $3, 'a.png', 'image/png', 1, 'quarantine')"""


async def _leased(harness: Harness, options: Options) -> Lease:
    await harness.store.submit([submission(harness, options=options)], {})
    [lease] = await harness.store.claim(WorkerId("w"), [offer()], 15)
    return lease


@pytest.mark.parametrize(("state", "after"), [(State.SUCCEEDED, "released"), (State.FAILED, "quarantine")])
async def test_media_of_the_finished_attempt_is_released_on_success_only(
    database: Database, objects: ObjectStore, state: State, after: str
) -> None:
    """What an earlier attempt left stays in quarantine, what the answer does not name, and everything of a failure."""
    this, unnamed, earlier = "t" * 32, "u" * 32, "e" * 32
    async with postgres_harness(database, objects) as harness:
        lease = await _leased(harness, Options())
        for media_id, attempt in ((this, lease.attempt), (unnamed, lease.attempt), (earlier, lease.attempt - 1)):
            await database.execute(ADD_MEDIA, media_id, lease.request_id, attempt)
        body = json.dumps([stored_url(this, "a.png"), stored_url(earlier, "a.png")]).encode()
        done = finish(lease, state)
        await harness.store.finish([dataclasses.replace(done, answer=dataclasses.replace(done.answer, body=body))])
    rows = await database.fetch("SELECT media_id, state FROM media")
    assert {row[0]: row[1] for row in rows} == {this: after, unnamed: "quarantine", earlier: "quarantine"}


async def test_a_withheld_answer_that_is_let_go_releases_the_files_that_it_names(
    database: Database, objects: ObjectStore
) -> None:
    """Whether it is published as it was, or as somebody wrote it anew."""
    for anew in (False, True):
        this, unnamed = f"t{anew:d}" * 16, f"u{anew:d}" * 16
        async with postgres_harness(database, objects) as harness:
            lease = await _leased(harness, Options())
            for media_id in (this, unnamed):
                await database.execute(ADD_MEDIA, media_id, lease.request_id, lease.attempt)
            done = finish(lease, State.WITHHELD)
            answer = dataclasses.replace(done.answer, body=stored_url(this, "a.png").encode())
            await harness.store.finish([dataclasses.replace(done, answer=answer)])
            assert await harness.store.withheld(lease.request_id, State.SUCCEEDED, answer if anew else None)
        rows = await database.fetch("SELECT media_id, state FROM media WHERE request_id = $1", lease.request_id)
        assert {row[0]: row[1] for row in rows} == {this: "released", unnamed: "quarantine"}


async def test_a_webhook_is_enqueued_once_for_whoever_asked(database: Database, objects: ObjectStore) -> None:
    """In the statement that ends the request, by finish or by cancel; a second end adds none."""
    async with postgres_harness(database, objects) as harness:
        lease = await _leased(harness, Options(webhook_url="https://example.com/hook"))
        await harness.store.finish([finish(lease)])
        await harness.store.finish([finish(lease)])
        await harness.store.finish([finish(await _leased(harness, Options()))])
        waiting = submission(harness, options=Options(webhook_url="https://example.com/hook"))
        await harness.store.submit([waiting], {})
        await harness.store.cancel(waiting.request_id, answers.cancelled())
    rows = await database.fetch("SELECT request_id, url FROM webhooks ORDER BY created_at")
    assert [tuple(row) for row in rows] == [
        (lease.request_id, "https://example.com/hook"),
        (waiting.request_id, "https://example.com/hook"),
    ]


async def test_what_shall_not_be_kept_is_gone_after_an_hour(database: Database, objects: ObjectStore) -> None:
    """With X-Fal-Store-IO: 0 the input is dropped at the end, the answer an hour later; its status remains."""
    async with postgres_harness(database, objects) as harness:
        lease = await _leased(harness, Options(store_io=False))
        await harness.store.finish([finish(lease)])
        assert await database.fetchval("SELECT input FROM finished_requests") is None
        long_ago = harness.now() - dt.timedelta(days=30)
        await harness.store.forget(long_ago)
        stored = await harness.store.result(lease.request_id)
        assert stored is not None
        assert stored.answer.body == finish(lease).answer.body
        await database.execute("UPDATE finished_requests SET finished_at = finished_at - interval '61 minutes'")
        await harness.store.forget(long_ago)
        stored = await harness.store.result(lease.request_id)
        assert stored is not None
        assert (stored.snapshot.state, stored.answer.status_code) == (State.SUCCEEDED, 410)


async def test_nothing_of_a_finished_request_stays_in_the_hot_tables(database: Database, objects: ObjectStore) -> None:
    """Its row and its input move out with the finish."""
    async with postgres_harness(database, objects) as harness:
        await harness.store.finish([finish(await _leased(harness, Options()))])
    assert await database.fetchval("SELECT count(*) FROM requests") == 0
    assert await database.fetchval("SELECT count(*) FROM request_inputs") == 0
    assert await database.fetchval("SELECT input FROM finished_requests") == b'{"prompt": "a seven"}'


async def test_counting_what_waits_reads_the_index_and_never_the_whole_queue(database: Database) -> None:
    """Placement counts many times a second in a flood: its count must not cost more the longer the queue is."""
    await database.execute(
        """INSERT INTO requests (request_id, tenant_id, key_id, model_id, endpoint, bucket, order_at, available_at,
                                 submitted_at, due_at)
           SELECT gen_random_uuid(), 't', 'k', 'acme/echo', '/', 0, now(), now(), now(), now()
           FROM generate_series(1, 3000)"""
    )
    await database.execute("ANALYZE requests")
    plan = await database.fetch(f"EXPLAIN {load_queries('forestay.queue', 'sql/queue.sql')['backlog']}")
    assert not [row[0] for row in plan if "Seq Scan" in row[0]]
