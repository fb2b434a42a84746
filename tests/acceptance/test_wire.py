"""The wire as a plain HTTP client sees it: shapes, statuses and headers of the contract, and what is ours beyond it."""

import http.client
import select
import time
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from tests.acceptance.conftest import Acceptance

ECHO = "/queue/forestay/echo"
FINAL_SECONDS = 30.0


def submit(client: httpx.Client, value: dict[str, Any], **headers: str) -> dict[str, Any]:
    """Submit to echo and return the accepted body."""
    answered = client.post(ECHO, json=value, headers={name.replace("_", "-"): text for name, text in headers.items()})
    assert answered.status_code == 200, answered.text
    return answered.json()


def finished(client: httpx.Client, request_id: str) -> dict[str, Any]:
    """Poll until the request is final; return its status object."""
    deadline = time.monotonic() + FINAL_SECONDS
    while True:
        answered = client.get(f"{ECHO}/requests/{request_id}/status", params={"logs": "1"})
        assert answered.status_code == (200 if answered.json()["status"] == "COMPLETED" else 202)
        if answered.status_code == 200:
            return answered.json()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_objects_have_the_keys_that_clients_insist_on(acceptance: Acceptance) -> None:
    """Submit and status carry ids, URLs, position and logs even when they are empty."""
    with acceptance.http() as client:
        accepted = submit(client, {"text": "hello"})
        request_id = accepted["request_id"]
        assert accepted["status"] == "IN_QUEUE"
        assert {"response_url", "status_url", "cancel_url", "queue_position"} <= accepted.keys()
        done = finished(client, request_id)
        assert {"request_id", "response_url", "status_url", "cancel_url", "logs", "metrics"} <= done.keys()
        assert done["metrics"]["inference_time"] >= 0
        quiet = client.get(f"{ECHO}/requests/{request_id}/status").json()
        assert quiet["logs"] is None


def test_the_urls_of_an_answer_lead_back_by_the_same_way(acceptance: Acceptance) -> None:
    """status_url, response_url and cancel_url work as they are, and `/response` is the result too."""
    with acceptance.http() as client:
        accepted = submit(client, {"text": "hello"})
        finished(client, accepted["request_id"])
        assert client.get(accepted["status_url"]).json()["status"] == "COMPLETED"
        assert client.get(accepted["response_url"]).json()["text"] == "hello"
        assert client.get(f"{ECHO}/requests/{accepted['request_id']}/response").json()["text"] == "hello"
        late = client.put(accepted["cancel_url"])
        assert (late.status_code, late.json()["status"]) == (400, "ALREADY_COMPLETED")


def test_a_result_asked_for_too_early_is_400(acceptance: Acceptance) -> None:
    """And the cancel of a request in progress is 202."""
    with acceptance.http() as client:
        accepted = submit(client, {"sleep_seconds": 10})
        early = client.get(accepted["response_url"])
        assert early.status_code == 400
        assert "progress" in early.json()["detail"]
        cancelled = client.put(accepted["cancel_url"])
        assert cancelled.status_code in {200, 202}
        done = finished(client, accepted["request_id"])
        assert done["error_type"] == "client_cancelled"
        assert client.get(accepted["response_url"]).status_code == 499


def test_every_answer_carries_the_request_id(acceptance: Acceptance) -> None:
    """Success or refusal, queue or not."""
    with acceptance.http() as client:
        for answered in (
            client.post(ECHO, json={}),
            client.post("/run/forestay/echo", json={}),
            client.post("/queue/forestay/nothing", json={}),
            client.post(ECHO, json={"sleep_seconds": "long"}),
        ):
            assert answered.headers.get("x-fal-request-id"), answered.request.url


def test_a_request_error_says_its_type_twice(acceptance: Acceptance) -> None:
    """In the body and in the header, with the one status that belongs to it."""
    with acceptance.http() as client:
        answered = client.post(ECHO, json={}, headers={"X-Fal-Request-Timeout": "soon"})
    assert answered.status_code == 400
    assert answered.json()["error_type"] == answered.headers["x-fal-error-type"] == "bad_request"


def test_an_idempotency_key_returns_the_first_request(acceptance: Acceptance) -> None:
    """The same key and content: the same id; other content: 422."""
    with acceptance.http() as client:
        first = submit(client, {"text": "once"}, Idempotency_Key="order-1")
        again = submit(client, {"text": "once"}, Idempotency_Key="order-1")
        other = client.post(ECHO, json={"text": "twice"}, headers={"Idempotency-Key": "order-1"})
    assert first["request_id"] == again["request_id"]
    assert other.status_code == 422


def test_two_equal_submits_without_a_key_are_two_requests(acceptance: Acceptance) -> None:
    """Somebody who wants two pictures gets two."""
    with acceptance.http() as client:
        assert submit(client, {"text": "same"})["request_id"] != submit(client, {"text": "same"})["request_id"]


def test_a_full_queue_is_refused_where_the_caller_asked_for_it(acceptance: Acceptance) -> None:
    """`fal_max_queue_length=0` with others waiting: 429."""
    with acceptance.http() as client:
        waiting = [submit(client, {"sleep_seconds": 10})["request_id"] for _ in range(12)]
        refused = client.post(f"{ECHO}?fal_max_queue_length=1", json={})
        for request_id in waiting:
            client.put(f"{ECHO}/requests/{request_id}/cancel")
        assert refused.status_code == 429


def test_a_total_deadline_ends_a_running_request(acceptance: Acceptance) -> None:
    """`X-Forestay-Deadline` counts from submit to finish, for a request that takes longer than anyone could foresee."""
    with acceptance.http() as client:
        finished(client, submit(client, {})["request_id"])  # loaded: what cannot start in time is refused at submit
        accepted = submit(client, {"fail": "hang"}, X_Forestay_Deadline="5")
        done = finished(client, accepted["request_id"])
        assert done["error_type"] == "request_timeout"
        assert client.get(accepted["response_url"]).status_code == 504


def test_a_total_deadline_that_cannot_be_met_is_refused_at_submit(acceptance: Acceptance) -> None:
    """A fifth of a second cannot hold eight pictures: 503 says so at once, with the id and a time to come back."""
    pictures = {"prompt": "a red seven", "num_inference_steps": 50, "num_images": 8}
    with acceptance.http() as client:
        answered = client.post("/queue/forestay/digits", json=pictures, headers={"X-Forestay-Deadline": "0.2"})
    assert answered.status_code == 503, answered.text
    assert {"x-fal-request-id", "retry-after"} <= set(answered.headers)


@pytest.mark.parametrize(
    ("wanted", "status", "content"),
    [("bytes=0-3", 206, b"hell"), ("bytes=-3", 206, b"llo"), ("bytes=3-", 206, b"lo"), ("bytes=99-", 416, None)],
)
def test_media_is_served_by_ranges(wanted: str, status: int, content: bytes | None, acceptance: Acceptance) -> None:
    """As a video player asks."""
    with acceptance.http() as client:
        begun = client.post(
            "/rest/storage/upload/initiate", json={"file_name": "a.txt", "content_type": "text/plain"}
        ).json()
        httpx.put(begun["upload_url"], content=b"hello", headers={"Content-Type": "text/plain"}).raise_for_status()
    answered = httpx.get(begun["file_url"], headers={"Range": wanted})
    assert answered.status_code == status
    if content is not None:
        assert answered.content == content
    assert answered.headers.get("accept-ranges") == "bytes" or status == 416


def test_a_refusal_costs_nobody_the_connection(acceptance: Acceptance) -> None:
    """Each body comes after its head has been refused; the same connection carries the next call all the same."""
    connection = http.client.HTTPConnection(urlsplit(acceptance.url).netloc, timeout=10.0)
    connection.connect()
    line = connection.sock
    for method, path in (("POST", ECHO), ("POST", "/run/forestay/echo"), ("GET", "/admin/keys"), ("PUT", "/none")) * 3:
        connection.putrequest(method, path)
        connection.putheader("Authorization", "Key nobody:nothing")
        connection.putheader("Content-Length", "2")
        connection.endheaders()
        select.select([line], [], [], 0.05)  # until it answers too early, or waits as it should
        connection.send(b"{}")
        answered = connection.getresponse()
        answered.read()
        assert answered.status in {401, 404}, (path, answered.status)
        assert connection.sock is line, path
    connection.close()


def test_a_browser_is_allowed_in(acceptance: Acceptance) -> None:
    """The preflight names method and headers; the answer itself may be read by the page."""
    with acceptance.http("") as client:
        asked = {
            "Origin": "https://app.example.com",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type,x-fal-queue-priority",
        }
        preflight = client.options(ECHO, headers=asked)
        assert preflight.status_code in {200, 204}
        assert preflight.headers["access-control-allow-origin"] in {"*", "https://app.example.com"}
        assert "authorization" in preflight.headers["access-control-allow-headers"].lower()
        refused = client.post(ECHO, json={}, headers={"Origin": "https://app.example.com"})
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] in {"*", "https://app.example.com"}


def test_the_platform_describes_itself(acceptance: Acceptance) -> None:
    """/openapi.json has every operation of the wire with the statuses that it can answer."""
    with acceptance.http("") as client:
        ours = client.get("/openapi.json")
    assert ours.status_code == 200
    assert ours.json()["openapi"].startswith("3.")
    submit_ = next(item for path, item in ours.json()["paths"].items() if path.startswith("/queue/"))
    assert {"200", "401", "404", "413", "422", "429"} <= submit_["post"]["responses"].keys()
