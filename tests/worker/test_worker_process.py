"""A whole worker with a real fal.App behind it: what callers get, whatever the model does."""

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.quickest import quickest
from tests.worker.harness import APP, MODEL, TENANT, Harness, running_worker, spec_of, until

from forestay.fleet.model import ReplicaState, Revision
from forestay.fleet.spec import LimitSpec
from forestay.queue import answers
from forestay.queue.model import Options, Outcome, State
from forestay.telemetry import tracing
from forestay.telemetry.metrics import REPLICA_ENDS

pytestmark = pytest.mark.asyncio(loop_scope="module")
Loaded = tuple[Harness, Revision]
PNG = bytes.fromhex(  # one black pixel
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63606060000000040001f6173855"
    "0000000049454e44ae426082"
)
LIMITS = LimitSpec(
    max_multiplexing=2, request_timeout_seconds=2.0, startup_timeout_seconds=30, termination_grace_seconds=3
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def loaded() -> AsyncIterator[Loaded]:
    """One worker with one replica of the probe app for the whole module."""
    async with running_worker() as harness:
        revision = await harness.deploy(spec_of(limits=LIMITS, memory_mb=400), {"app.py": APP})
        await harness.ready(revision)
        yield harness, revision


async def test_a_request_is_answered_with_the_models_own_words(loaded: Loaded) -> None:
    """Status, headers and body come from the model; the model's hints become the replica's."""
    harness, revision = loaded
    stored = await harness.run({"text": "hi"})
    assert stored.snapshot.state is State.SUCCEEDED
    assert stored.answer.status_code == 200
    assert json.loads(stored.answer.body)["text"] == "hi"
    assert stored.answer.headers["content-type"] == "application/json"
    assert (await harness.ready(revision))[0].hints == ("probe", "b\u00e4r")


async def test_the_attempts_fact_says_what_was_predicted_and_from_what(loaded: Loaded) -> None:
    """Prediction and features travel in the report, beside what was measured: the predictor learns without a join."""
    harness, _ = loaded
    request_id = await harness.submit({"text": "hi"}, options=Options(features={"steps": 28.0}))
    await harness.result(request_id)
    work = harness.queue.attempt_work[request_id, 1]
    assert {"predicted_seconds": 1.0, "x_steps": 28.0}.items() <= work.items()
    assert work["output_bytes"] > 0


async def test_a_profile_runs_request_tells_the_most_memory_that_its_replica_held(loaded: Loaded) -> None:
    """Beside the features of its input; nobody else's request is watched."""
    harness, _ = loaded
    plain = await harness.submit({"text": "hi"})
    watched = await harness.submit({"text": "hi"}, options=Options(tags={"purpose": "profile"}))
    for request_id in (plain, watched):
        await harness.result(request_id)
    assert "peak_memory_bytes" not in harness.queue.attempt_work[plain, 1]
    assert 5e6 < harness.queue.attempt_work[watched, 1]["peak_memory_bytes"] < 4e9


async def test_a_model_goes_on_in_its_callers_trace(loaded: Loaded) -> None:
    """It is told the caller's trace, and as its parent the span that will be shown of its own work."""
    harness, _ = loaded
    caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    request_id = await harness.submit({}, "/traced", options=Options(traceparent=caller))
    told = json.loads((await harness.result(request_id)).answer.body)["text"]
    assert told == f"{caller[:36]}{tracing.span_id(request_id, tracing.model_span(1))}-01"


async def test_a_toolkit_file_lands_in_quarantine_under_our_own_url(loaded: Loaded) -> None:
    """The SDK's repository is replaced: bytes go to the media store with the request's tenant and attempt."""
    harness, _ = loaded
    request_id = await harness.submit({"do": "file"})
    stored = await harness.result(request_id)
    url = json.loads(stored.answer.body)["file"]["url"]
    assert url.startswith("forestay-media://")
    media_id = url.split("/")[2]
    assert harness.media.data[media_id] == b"twelve bytes"
    assert harness.media.items[media_id].state == "quarantine"
    assert harness.media.items[media_id].tenant_id == "acme"
    assert harness.media.attempts[media_id] == (request_id, 1)


async def test_lines_belong_to_the_request_that_wrote_them(loaded: Loaded) -> None:
    """Two requests at once: prints, log records and threads are told apart."""
    harness, _ = loaded
    ids = [await harness.submit({"do": "say", "text": name, "seconds": 0.3}) for name in ("first", "second")]
    for request_id, name in zip(ids, ("first", "second"), strict=True):
        await harness.result(request_id)
        lines = [(line.level, line.message) for _, line in await harness.queue.logs(request_id, 0)]
        assert lines == [
            ("STDOUT", f"{name} begins"),
            ("WARN", f"{name} warns"),
            ("STDERR", f"{name} in a thread"),
            ("STDOUT", f"{name} ends without a line end"),
        ]


async def test_garbage_on_the_descriptors_breaks_nothing(loaded: Loaded) -> None:
    """Bytes that are no text are given to the only running request and the answer is whole."""
    harness, _ = loaded
    request_id = await harness.submit({"do": "garbage"})
    assert (await harness.result(request_id)).snapshot.state is State.SUCCEEDED
    lines = [line.message for _, line in await harness.queue.logs(request_id, 0)]
    assert any("\\x80" in line for line in lines)
    assert (await harness.run({"text": "after"})).snapshot.state is State.SUCCEEDED


async def test_nan_passes_untouched(loaded: Loaded) -> None:
    """Bodies are bytes: what is no strict JSON is the caller's to read."""
    harness, _ = loaded
    stored = await harness.run({}, "/nan")
    assert stored.answer.body == b'{"number": NaN}'
    assert "x-fal-stop-runner" not in stored.answer.headers


async def test_a_callers_error_is_final(loaded: Loaded) -> None:
    """A 4xx of the model fails the request with the model's own body and a sentence for the status."""
    harness, _ = loaded
    stored = await harness.run({"do": "422"})
    assert stored.snapshot.state is State.FAILED
    assert (stored.answer.status_code, stored.snapshot.error) == (422, "no")
    assert harness.queue.attempt_facts[-1][2] is Outcome.CALLER_ERROR


async def test_words_that_sound_like_a_gpu_kill_no_replica(loaded: Loaded) -> None:
    """The SDK turns "Triton" in a message into 503; the replica proves itself healthy and stays."""
    harness, revision = loaded
    before = (await harness.run({"do": "seen"})).snapshot.replica_id
    options = Options(retry_config={"server_error": {"retries": 2}})
    stored = await harness.result(await harness.submit({"do": "triton"}, options=options))
    assert (stored.snapshot.state, stored.answer.status_code) == (State.FAILED, 503)
    assert stored.snapshot.attempt == 3
    assert (await harness.run({"do": "seen"})).snapshot.replica_id == before
    assert len(await harness.ready(revision)) == 1


async def test_an_own_media_url_in_an_input_becomes_a_data_uri(loaded: Loaded) -> None:
    """Declared media inputs are fetched for the model, our own without the network."""
    harness, _ = loaded
    item = await harness.media.save(
        PNG,
        tenant_id=TENANT,
        file_name="a.png",
        content_type="image/png",
        request_id=None,
        attempt=None,
        lifetime_seconds=None,
        state="released",
    )
    stored = await harness.run({"do": "seen", "image_url": f"http://gateway/cdn/files/{item.media_id}/a.png"})
    assert json.loads(stored.answer.body)["text"].startswith("data:image/png;base64,")


async def test_an_input_that_cannot_be_fetched_names_its_field(loaded: Loaded) -> None:
    """A private address is refused before anything is called; the model never sees the request."""
    harness, _ = loaded
    stored = await harness.run({"image_url": "http://127.0.0.1:9/x.png"})
    detail = json.loads(stored.answer.body)["detail"][0]
    assert (stored.answer.status_code, detail["type"]) == (422, "file_download_error")
    assert detail["loc"] == ["body", "image_url"]


async def test_a_cancel_reaches_the_running_model_within_a_second(loaded: Loaded) -> None:
    """The row is gone at once; the model hears of it by its /cancel endpoint, and its slot comes free."""
    harness, _ = loaded

    async def cancelled() -> float:
        request_id = await harness.submit({"do": "sleep", "seconds": 10})
        await until(lambda: _is(harness, request_id, State.RUNNING), "it runs")
        began = harness.clock.monotonic()
        await harness.queue.cancel(request_id, answers.cancelled())
        await harness.wakeups.publish("forestay:changed", request_id.hex)
        await until(lambda: _has_fact(harness, request_id, Outcome.CANCELLED), "the attempt ends as cancelled", 9)
        return harness.clock.monotonic() - began

    assert await quickest(cancelled, 1.0) < 1.0


async def test_a_cancel_is_noticed_without_wake_ups(loaded: Loaded) -> None:
    """When the wake-up is lost the poll finds it within half a second."""
    harness, _ = loaded
    request_id = await harness.submit({"do": "sleep", "seconds": 1.9})
    await until(lambda: _is(harness, request_id, State.RUNNING), "it runs")
    await harness.queue.cancel(request_id, answers.cancelled())
    await until(lambda: _has_fact(harness, request_id, Outcome.CANCELLED), "the attempt ends as cancelled", 1.2)


async def test_a_crash_is_tried_on_another_replica_and_then_quarantined(loaded: Loaded) -> None:
    """Two distinct replicas are lost to it, no more; the worker goes on."""
    harness, revision = loaded
    await harness.ready(revision)
    stored = await harness.run({"do": "crash"}, seconds=30)
    assert stored.snapshot.state is State.FAILED
    assert stored.answer.error_type == "runner_server_error"
    assert "quarantined" in (stored.answer.error or "")
    assert stored.snapshot.attempt == 2
    await harness.ready(revision)
    assert (await harness.run({"text": "after"})).snapshot.state is State.SUCCEEDED


async def test_a_hang_ends_the_replica_at_the_time_limit(loaded: Loaded) -> None:
    """request_timeout kills the replica; without retries the caller gets 504 request_timeout."""
    harness, revision = loaded
    before = (await harness.ready(revision))[0].replica_id
    request_id = await harness.submit({"do": "hang"}, options=Options(no_retry=True))
    stored = await harness.result(request_id, 20)
    assert (stored.answer.status_code, stored.answer.error_type) == (504, "request_timeout")
    await until(lambda: _other_ready(harness, revision, before), "another replica took its place", 20)

    async def counted() -> bool:
        return harness.metrics.value(REPLICA_ENDS, MODEL, "condemned") >= 1

    await until(counted, "its end is counted", 20)


async def test_too_much_memory_is_the_outcome_memory(loaded: Loaded) -> None:
    """The memory watch ends the process group and the fact says why."""
    harness, revision = loaded
    await harness.ready(revision)
    request_id = await harness.submit({"do": "memory"}, options=Options(no_retry=True))
    stored = await harness.result(request_id, 20)
    assert stored.answer.error_type == "runner_disconnected"
    assert [outcome for key, _, outcome in harness.queue.attempt_facts if key == request_id] == [Outcome.MEMORY]
    await harness.ready(revision)


async def test_a_replica_with_a_running_request_is_drained_not_killed(loaded: Loaded) -> None:
    """Placement 0 lets the running request end; handle_exit and teardown are called."""
    harness, revision = loaded
    await harness.ready(revision)
    request_id = await harness.submit({"do": "sleep", "seconds": 0.8})
    await until(lambda: _is(harness, request_id, State.RUNNING), "it runs")
    await harness.place(revision, 0)
    stored = await harness.result(request_id)
    assert (stored.snapshot.state, stored.snapshot.attempt) == (State.SUCCEEDED, 1)
    await until(lambda: _none(harness, revision), "the replica is gone")
    await harness.place(revision, 1)
    await harness.ready(revision)


async def _is(harness: Harness, request_id: object, state: State) -> bool:
    found = await harness.queue.snapshots([request_id])  # type: ignore[list-item]
    return any(item.state is state for item in found.values())


async def _has_fact(harness: Harness, request_id: object, outcome: Outcome) -> bool:
    return any(key == request_id and seen is outcome for key, _, seen in harness.queue.attempt_facts)


async def _other_ready(harness: Harness, revision: Revision, before: str) -> bool:
    return any(item.replica_id != before for item in await harness.replicas(revision, ReplicaState.READY))


async def _none(harness: Harness, revision: Revision) -> bool:
    return not await harness.replicas(revision)
