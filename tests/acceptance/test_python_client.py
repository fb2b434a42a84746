"""The unmodified, published Python client against real processes, in the three ways of pointing it at us.

`hosts` sets fal's own host variables and a CA file; `proxy` changes no host at all and goes through the CONNECT proxy.
"""

import dataclasses
import json

import httpx
import pytest
from tests.acceptance.conftest import Acceptance

from forestay.demo.receiver import is_genuine

MODES = ["hosts", "proxy"]


@pytest.mark.parametrize("mode", MODES)
def test_a_submitted_request_is_polled_to_its_result(mode: str, acceptance: Acceptance) -> None:
    """submit, status, iter_events, get."""
    program = """
    handle = fal_client.submit("forestay/echo", {"text": "hello", "sleep_seconds": 0.5})
    first = type(handle.status()).__name__
    seen = [type(update).__name__ for update in handle.iter_events(with_logs=True)]
    answer({"first": first, "seen": seen, "result": handle.get(), "id": handle.request_id})
    """
    said = acceptance.python(program, mode)
    assert said["first"] in {"Queued", "InProgress"}
    assert said["seen"][-1] == "Completed"
    assert said["result"]["text"] == "hello"
    assert said["result"]["request_id"] == said["id"]


def test_the_asynchronous_client_does_the_same(acceptance: Acceptance) -> None:
    """AsyncClient: submit, events, get, subscribe, run, stream."""
    program = """
    async def main():
        handle = await fal_client.submit_async("forestay/echo", {"text": "one"})
        seen = [type(update).__name__ async for update in handle.iter_events()]
        one = await handle.get()
        two = await fal_client.subscribe_async("forestay/echo", {"text": "two"})
        three = await fal_client.run_async("forestay/echo", {"text": "three"})
        events = [event async for event in fal_client.stream_async("forestay/echo", {"text": "four", "events": 3})]
        return {"seen": seen, "texts": [one["text"], two["text"], three["text"]], "events": events}

    answer(asyncio.run(main()))
    """
    said = acceptance.python(program)
    assert said["seen"][-1] == "Completed"
    assert said["texts"] == ["one", "two", "three"]
    assert [event["number"] for event in said["events"]] == [1, 2, 3]


@pytest.mark.parametrize("mode", MODES)
def test_subscribe_brings_the_log_lines_of_its_own_request(mode: str, acceptance: Acceptance) -> None:
    """Two subscribers at once on one replica: each sees its own lines and no other's."""
    program = """
    import threading

    found = {}

    def subscribe(count):
        lines = []
        def note(update):
            if isinstance(update, (fal_client.InProgress, fal_client.Completed)) and update.logs:
                lines[:] = [line["message"] for line in update.logs]
        fal_client.subscribe(
            "forestay/echo", {"log_lines": count, "sleep_seconds": 0.5}, with_logs=True, on_queue_update=note
        )
        found[count] = [line for line in lines if line.startswith("echo line")]

    threads = [threading.Thread(target=subscribe, args=(count,)) for count in (3, 5)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    answer({str(count): lines for count, lines in found.items()})
    """
    said = acceptance.python(program, mode)
    assert said["3"] == [f"echo line {number}/3" for number in (1, 2, 3)]
    assert said["5"] == [f"echo line {number}/5" for number in (1, 2, 3, 4, 5)]


@pytest.mark.parametrize("mode", MODES)
def test_run_answers_on_the_same_connection(mode: str, acceptance: Acceptance) -> None:
    """The synchronous call."""
    said = acceptance.python('answer(fal_client.run("forestay/echo", {"text": "at once"}))', mode)
    assert said["text"] == "at once"


@pytest.mark.parametrize("mode", MODES)
def test_a_stream_arrives_event_by_event(mode: str, acceptance: Acceptance) -> None:
    """Events come as they are made, not all at the end."""
    program = """
    start, times = time.monotonic(), []
    for event in fal_client.stream("forestay/echo", {"events": 4, "interval_seconds": 0.4}):
        times.append(time.monotonic() - start)
    answer({"times": times, "last": event})
    """
    said = acceptance.python(program, mode)
    assert len(said["times"]) == 4
    assert said["times"][-1] - said["times"][0] > 0.8
    assert said["last"]["last"] is True


def test_cancel_reaches_a_running_model_within_a_second(acceptance: Acceptance) -> None:
    """The status is final within a second, and the model itself has stopped."""
    program = """
    handle = fal_client.submit("forestay/echo", {"sleep_seconds": 20})
    running(handle)
    start = time.monotonic()
    handle.cancel()
    while not isinstance(status := handle.status(with_logs=True), fal_client.Completed):
        time.sleep(0.02)
    seconds = time.monotonic() - start
    error = error_of(handle.get)
    stopped = []
    for _ in range(100):
        stopped = [line["message"] for line in handle.status(with_logs=True).logs or []]
        if any("outcome=cancelled" in line for line in stopped):
            break
        time.sleep(0.05)
    answer({"seconds": seconds, "error": error, "logs": stopped, "again": error_of(handle.cancel)})
    """
    said = acceptance.python(program)
    assert said["seconds"] < 1.0
    assert said["error"]["status"] == 499
    assert said["error"]["type"] == "client_cancelled"
    assert any("outcome=cancelled" in line for line in said["logs"])
    assert said["again"]["status"] == 400  # ALREADY_COMPLETED


def test_a_client_side_time_limit_cancels_the_request(acceptance: Acceptance) -> None:
    """`client_timeout` makes the client give up and cancel by itself."""
    program = """
    ids = []
    for _ in range(100):
        try:
            fal_client.subscribe("forestay/echo", {"sleep_seconds": 20}, client_timeout=2, on_enqueue=ids.append)
        except fal_client.FalClientTimeoutError:
            break
        except fal_client.FalClientHTTPError as error:
            if error.status_code != 503:  # what others left in the queue may leave no time to start
                raise
            time.sleep(0.2)
    for _ in range(100):
        status = fal_client.status("forestay/echo", ids[0])
        if isinstance(status, fal_client.Completed):
            break
        time.sleep(0.05)
    answer({"status": type(status).__name__})
    """
    assert acceptance.python(program)["status"] == "Completed"


@pytest.mark.parametrize(
    ("failure", "status"),
    [("422", 422), ("500", 500), ("504", 504), ("503", 503)],
)
def test_the_models_own_error_is_replayed(failure: str, status: int, acceptance: Acceptance) -> None:
    """Status and detail of the model's answer reach the caller; `no retry` keeps 503 and 504 to one attempt."""
    program = """
    handle = fal_client.submit(
        "forestay/echo", {"fail": ARGUMENTS["fail"]}, headers={"X-Fal-No-Retry": "1"}
    )
    answer(error_of(handle.get))
    """
    said = acceptance.python(program, fail=failure)
    assert said["status"] == status


@pytest.mark.parametrize("failure", ["crash", "exit"])
def test_a_model_that_dies_fails_the_request_and_nothing_else(failure: str, acceptance: Acceptance) -> None:
    """The caller gets an error of the platform's; the next request is served."""
    program = """
    handle = fal_client.submit(
        "forestay/echo", {"fail": ARGUMENTS["fail"]}, headers={"X-Fal-No-Retry": "1"}
    )
    error = error_of(handle.get)
    answer({"error": error, "next": fal_client.subscribe("forestay/echo", {"text": "still here"})["text"]})
    """
    said = acceptance.python(program, fail=failure)
    assert 500 <= said["error"]["status"] <= 503
    assert said["error"]["type"]
    assert said["next"] == "still here"


def replicas_lost(acceptance: Acceptance) -> float:
    """Return how many replicas of the echo ended without being asked to, by the workers' own count."""
    lost, urls = 0.0, acceptance.platform.ready["metrics_urls"]
    assert isinstance(urls, dict)
    for name, url in urls.items():
        if name.startswith("worker"):
            lines = httpx.get(url, trust_env=False).raise_for_status().text.splitlines()
            ends = [
                line for line in lines if line.startswith("forestay_replica_ends_total{") and "forestay/echo" in line
            ]
            lost += sum(float(line.rpartition(" ")[2]) for line in ends if 'cause="drained"' not in line)
    return lost


def test_words_in_an_exception_do_not_kill_a_replica(acceptance: Acceptance) -> None:
    """The SDK turns "Triton" into 503; the replica's device is fine, so it stays and serves the next call."""
    program = """
    fal_client.run("forestay/echo", {"text": "loaded"})
    handle = fal_client.submit("forestay/echo", {"fail": "triton"}, headers={"X-Fal-No-Retry": "1"})
    error = error_of(handle.get)
    answer({"error": error, "next": fal_client.run("forestay/echo", {"text": "still here"})["text"]})
    """
    before = replicas_lost(acceptance)
    said = acceptance.python(program)
    assert said["error"]["status"] >= 500
    assert said["next"] == "still here"
    assert replicas_lost(acceptance) == before


def test_a_deadline_to_start_that_cannot_be_kept_is_refused_at_submit(acceptance: Acceptance) -> None:
    """Behind a model that is busy for longer than the deadline, the caller is told at once and nothing is queued."""
    program = """
    busy = [fal_client.submit("forestay/echo", {"sleep_seconds": 4}) for _ in range(16)]
    error = error_of(lambda: fal_client.submit("forestay/echo", {"text": "late"}, start_timeout=1.5))
    [handle.cancel() for handle in busy if not isinstance(handle.status(), fal_client.Completed)]
    answer(error)
    """
    said = acceptance.python(program)
    assert (said["status"], said["type"]) == (503, "runner_scheduling_failure")


@pytest.mark.parametrize("mode", MODES)
def test_realtime_answers_each_message(mode: str, acceptance: Acceptance) -> None:
    """Messages over a WebSocket; by token through the proxy, by key where tokens would go to fal's own host."""
    program = """
    with fal_client.realtime("forestay/echo", use_jwt=ARGUMENTS["jwt"]) as connection:
        texts = []
        for number in range(3):
            connection.send({"text": f"message {number}"})
            texts.append(connection.recv()["text"])
    answer(texts)
    """
    said = acceptance.python(program, mode, jwt=mode == "proxy")
    assert said == ["message 0", "message 1", "message 2"]


def test_an_upload_comes_back_byte_for_byte(acceptance: Acceptance) -> None:
    """upload(), then a plain GET and a range of it."""
    program = """
    import httpx

    data = bytes(range(256)) * 400
    url = fal_client.upload(data, "application/octet-stream", "bytes.bin")
    whole = httpx.get(url)
    part = httpx.get(url, headers={"Range": "bytes=256-511"})
    answer({
        "url": url, "same": whole.content == data, "status": part.status_code, "part": part.content == data[256:512],
        "range": part.headers.get("content-range"),
    })
    """
    said = acceptance.python(program, "proxy")
    assert said["url"].startswith("https://v3.fal.media/files/")
    assert said["url"].endswith("/bytes.bin")
    assert said["same"]
    assert (said["status"], said["part"], said["range"]) == (206, True, "bytes 256-511/102400")


def test_a_large_file_goes_up_in_parts(acceptance: Acceptance) -> None:
    """Above fal's threshold of 100 MB the client uploads 10 MB parts, ten at a time."""
    program = """
    import hashlib, httpx, os, pathlib, tempfile

    path = pathlib.Path(tempfile.mkdtemp()) / "large.bin"
    path.write_bytes(os.urandom(1024 * 1024) * 101)
    url = fal_client.upload_file(path)
    digest = hashlib.sha256()
    with httpx.stream("GET", url, timeout=60) as answered:
        for piece in answered.iter_bytes():
            digest.update(piece)
    same = digest.hexdigest() == hashlib.sha256(path.read_bytes()).hexdigest()
    path.unlink()
    answer(same)
    """
    assert acceptance.python(program, "proxy") is True


def test_an_uploaded_picture_is_edited(acceptance: Acceptance) -> None:
    """The whole journey of a picture: drawn, uploaded, redrawn by the real diffusion model."""
    program = """
    import httpx

    first = fal_client.subscribe("forestay/digits", {"prompt": "a red seven", "seed": 7, "num_inference_steps": 4})
    picture = httpx.get(first["images"][0]["url"]).content
    url = fal_client.upload(picture, "image/png", "seven.png")
    edited = fal_client.subscribe(
        "forestay/digits", {"prompt": "a blue seven", "seed": 7, "image_url": url, "num_inference_steps": 6},
        path="/edit",
    )
    again = httpx.get(edited["images"][0]["url"]).content
    answer({"png": again[:4].hex(), "changed": again != picture})
    """
    said = acceptance.python(program, "proxy")
    assert said == {"png": "89504e47", "changed": True}


def test_a_webhook_arrives_signed(acceptance: Acceptance) -> None:
    """The notice carries the result and verifies against our JWKS; a failed request's says ERROR."""
    program = """
    good = fal_client.submit("forestay/echo", {"text": "tell me"}, webhook_url=ARGUMENTS["hook"])
    bad = fal_client.submit("forestay/echo", {"fail": "422"}, webhook_url=ARGUMENTS["hook"])
    answer([good.request_id, bad.request_id])
    """
    good, bad = acceptance.python(program, hook=acceptance.receiver.url)
    told = acceptance.receiver.wait_for({good, bad})
    done, failed = json.loads(told[good].body), json.loads(told[bad].body)
    assert (done["status"], done["payload"]["text"]) == ("OK", "tell me")
    assert (failed["status"], failed["error"]) == ("ERROR", "Invalid status code: 422")
    keys = acceptance.webhook_keys()
    assert is_genuine(told[good], keys)
    assert is_genuine(told[bad], keys)
    assert not is_genuine(dataclasses.replace(told[good], body=b"{}"), keys)


def test_low_priority_and_hints_are_accepted(acceptance: Acceptance) -> None:
    """`priority=` and `hint=` reach the platform and change nothing that a caller must handle."""
    program = """
    handle = fal_client.submit("forestay/echo", {"text": "patient"}, priority="low", hint="echo")
    answer(handle.get()["text"])
    """
    assert acceptance.python(program) == "patient"


def test_a_wrong_key_is_refused_by_name(acceptance: Acceptance) -> None:
    """401 with a sentence."""
    program = """
    client = fal_client.SyncClient(key="0000:1111")
    answer(error_of(lambda: client.submit("forestay/echo", {"text": "hello"})))
    """
    assert acceptance.python(program)["status"] == 401
