"""Outputs for a caller's own bucket, with a real fal.App behind: they land there alone, or it is said why."""

import json
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio
from tests.media.s3 import Bucket, serving_bucket
from tests.worker.harness import APP, Harness, running_worker, spec_of

from forestay.fleet.spec import LimitSpec
from forestay.handshake import POLICY_HEADER
from forestay.media.urls import own_media_id
from forestay.queue.model import Options, Outcome, State
from forestay.queue.store import Stored
from forestay.settings import Delivery

pytestmark = pytest.mark.asyncio(loop_scope="module")
Loaded = tuple[Harness, str]
LIMITS = LimitSpec(max_multiplexing=2, request_timeout_seconds=20, startup_timeout_seconds=30)
OPEN = Delivery(allow_private_buckets=True, bucket_timeout_seconds=10.0, bucket_tries=1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def loaded() -> AsyncIterator[Loaded]:
    """A worker that may call buckets on loopback, with one replica of the probe app."""
    async with running_worker(delivery=OPEN) as harness:
        revision = await harness.deploy(spec_of(limits=LIMITS), {"app.py": APP})
        yield harness, (await harness.ready(revision))[0].replica_id


def policy_of(bucket: Bucket) -> str:
    """Write a policy for the bucket."""
    return json.dumps({"url": bucket.url, "fields": {"key": "out/${filename}", "policy": "signed"}})


async def queued(loaded: Loaded, policy: str) -> Stored:
    """Have a file made through the queue."""
    harness, _ = loaded
    return await harness.result(await harness.submit({"do": "file"}, options=Options(upload_policy=policy)))


async def direct(loaded: Loaded, policy: str) -> tuple[int, dict[str, object]]:
    """Have a file made by a direct call."""
    harness, replica_id = loaded
    path = f"/direct/{replica_id}/"
    headers = {**harness.proof("POST", path), POLICY_HEADER: policy}
    async with (
        aiohttp.ClientSession() as session,
        session.post(harness.address + path, json={"do": "file"}, headers=headers) as got,
    ):
        return got.status, await got.json()


async def test_a_queued_output_lands_in_the_callers_bucket_and_not_here(loaded: Loaded) -> None:
    """The answer holds the bucket's URL; our own copy is deleted."""
    async with serving_bucket() as bucket:
        stored = await queued(loaded, policy_of(bucket))
    assert stored.snapshot.state is State.SUCCEEDED
    (there,) = bucket.objects.values()
    assert there.data == b"twelve bytes"
    assert json.loads(stored.answer.body)["file"]["url"] == f"{bucket.url}/{there.key}"
    assert loaded[0].media.items == {}


async def test_a_queued_output_that_the_bucket_does_not_take_is_a_clear_failure(loaded: Loaded) -> None:
    """424, the caller's own fault, tried once; nothing is kept here in its stead."""
    async with serving_bucket() as bucket:
        bucket.answers = [403]
        stored = await queued(loaded, policy_of(bucket))
    assert stored.snapshot.state is State.FAILED
    assert (stored.answer.status_code, stored.answer.error_type) == (424, "upload_policy_failed")
    assert "answered 403" in str(json.loads(stored.answer.body)["detail"])
    assert b"forestay-media" not in stored.answer.body
    assert loaded[0].media.items == {}
    assert [outcome for key, _, outcome in loaded[0].queue.attempt_facts if key == stored.snapshot.request_id] == [
        Outcome.CALLER_ERROR
    ]


async def test_a_policy_that_may_no_longer_be_called_is_not(loaded: Loaded) -> None:
    """What was stored with the request is judged again before it is used."""
    stored = await queued(loaded, '{"url": "http://169.254.169.254/x", "fields": {"key": "${filename}"}}')
    assert stored.answer.status_code == 424
    assert "not a public address" in str(json.loads(stored.answer.body)["detail"])


async def test_the_file_of_a_direct_call_lands_in_the_callers_bucket(loaded: Loaded) -> None:
    """It goes there as it is made; the store here never sees it."""
    async with serving_bucket() as bucket:
        status, body = await direct(loaded, policy_of(bucket))
    (there,) = bucket.objects.values()
    assert (status, body["file"]["url"]) == (200, f"{bucket.url}/{there.key}")  # type: ignore[index]
    assert loaded[0].media.items == {}


async def test_a_direct_call_is_told_when_the_bucket_refuses(loaded: Loaded) -> None:
    """The model's own answer is fal's 424, and no other repository is tried."""
    async with serving_bucket() as bucket:
        bucket.answers = [403]
        status, body = await direct(loaded, policy_of(bucket))
    assert status == 424
    assert "answered 403" in str(body["detail"])
    assert loaded[0].media.items == {}


async def test_the_model_never_sees_the_policy(loaded: Loaded) -> None:
    """It is signed for the caller's bucket: a right of the caller that model code has no use for."""
    async with serving_bucket() as bucket:
        harness, replica_id = loaded
        path = f"/direct/{replica_id}/"
        headers = {**harness.proof("POST", path), POLICY_HEADER: policy_of(bucket)}
        async with (
            aiohttp.ClientSession() as session,
            session.post(harness.address + path, json={"text": "plain"}, headers=headers) as got,
        ):
            assert (got.status, (await got.json())["text"]) == (200, "plain")
        assert bucket.objects == {}


@pytest.mark.threat("API1:2023")
async def test_a_file_that_another_request_made_goes_nowhere(loaded: Loaded) -> None:
    """Whoever makes a model name it in an answer neither gets a copy nor has it deleted."""
    harness, _ = loaded
    stored = await harness.run({"do": "file"})
    named = json.loads(stored.answer.body)["file"]["url"]
    async with serving_bucket() as bucket:
        policy = policy_of(bucket)
        echoed = await harness.result(await harness.submit({"text": named}, options=Options(upload_policy=policy)))
    assert json.loads(echoed.answer.body)["text"] == named
    assert bucket.objects == {}
    assert await harness.media.find(own_media_id(named) or "") is not None
    await harness.media.delete([own_media_id(named) or ""])
