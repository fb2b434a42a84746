"""Bad input against the real server: each gets a precise 4xx, nothing is queued, nothing dies.

After the last test of this file the platform runs the same processes as before, its queue is empty, and it holds no
request that no answer has accepted: a bad call that was queued and has ended would be seen.
"""

import asyncio
import dataclasses
import json
import os
import socket
import ssl
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import httpx
import pytest
import websockets.sync.client
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tests.acceptance.conftest import Acceptance
from websockets.exceptions import WebSocketException

from forestay.storage.children import wait_until

ECHO = "/queue/forestay/echo"
EXAMPLES = 60


ACCEPTED: set[str] = set()  # ids that an answer in this file gave to its caller


@pytest.fixture(scope="module", autouse=True)
def unharmed(acceptance: Acceptance) -> Iterator[None]:
    """Look before and after: the same processes, and no request that no answer has accepted, waiting or finished.

    What random input makes into a good request is accepted and may still run for a moment.
    """
    before, known = acceptance.platform.pids, asyncio.run(stored(acceptance.database_url))
    yield
    assert acceptance.platform.pids == before
    assert asyncio.run(stored(acceptance.database_url)) - known == ACCEPTED
    wait_until(lambda: asyncio.run(queued(acceptance.database_url)) == 0, 30.0)
    assert asyncio.run(queued(acceptance.database_url)) == 0
    with watched(acceptance) as client:
        answered = client.post("/run/forestay/echo", json={"text": "still here"})
    assert (answered.status_code, answered.json()["text"]) == (200, "still here")


def watched(acceptance: Acceptance) -> httpx.Client:
    """Return a client that notes which requests the platform says it has accepted."""
    client = acceptance.http()
    client.event_hooks["response"].append(_note_accepted)
    return client


def _note_accepted(response: httpx.Response) -> None:
    if response.request.method != "POST" or response.status_code != 200:
        return
    if "json" in response.headers.get("content-type", ""):
        told = json.loads(response.read())
        if isinstance(told, dict) and told.get("status") == "IN_QUEUE":
            ACCEPTED.add(str(told["request_id"]))


async def stored(database_url: str) -> set[str]:
    """List the requests that the platform has taken in, live and finished."""
    connection = await asyncpg.connect(database_url, timeout=10)
    try:
        rows = await connection.fetch("SELECT request_id FROM requests UNION SELECT request_id FROM finished_requests")
    finally:
        await connection.close()
    return {str(row[0]) for row in rows}


async def queued(database_url: str) -> int:
    """Count the requests that are not finished."""
    connection = await asyncpg.connect(database_url, timeout=10)
    try:
        return int(await connection.fetchval("SELECT count(*) FROM requests"))
    finally:
        await connection.close()


@dataclasses.dataclass(frozen=True, slots=True)
class Bad:
    """A bad call and the statuses that answer it."""

    name: str
    statuses: tuple[int, ...]
    method: str = "POST"
    path: str = ECHO
    body: bytes = b'{"text": "hello"}'
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    key: str | None = None
    raw_key: bytes = b""
    says: str = ""


UNKNOWN_ID = "0199d1f0-0000-7000-8000-000000000000"
BAD = [
    Bad("unknown alias", (404,), path="/queue/forestay/nothing", says="forestay/nothing"),
    Bad("unknown owner", (404,), path="/queue/nobody/echo", says="nobody/echo"),
    Bad("unknown endpoint", (404,), path="/queue/forestay/echo/nothing"),
    Bad("unknown endpoint, synchronous", (404,), path="/run/forestay/echo/nothing"),
    Bad("one segment only", (404,), path="/queue/forestay"),
    Bad("path climbing", (400, 404), path="/queue/forestay/echo/..%2f..%2fadmin"),
    Bad("unknown request", (404,), "GET", f"{ECHO}/requests/{UNKNOWN_ID}/status"),
    Bad("a request id that is none", (404,), "GET", f"{ECHO}/requests/seven/status"),
    Bad("cancel of an unknown request", (404,), "PUT", f"{ECHO}/requests/{UNKNOWN_ID}/cancel"),
    Bad("wrong method", (404, 405), "DELETE"),
    Bad("no JSON", (400, 422), body=b"{"),
    Bad("no object", (422,), body=b"[1, 2]"),
    Bad("not UTF-8", (400, 422), body=b'{"text": "\xff\xfe"}'),
    Bad("NaN", (400, 422), body=b'{"sleep_seconds": NaN}'),
    Bad("nested beyond reason", (400, 422), body=b'{"text":' * 20_000 + b"1" + b"}" * 20_000),
    Bad("wrong type", (422,), body=b'{"sleep_seconds": "long"}', says="sleep_seconds"),
    Bad("out of range", (422,), body=b'{"sleep_seconds": -1}', says="sleep_seconds"),
    Bad("missing field", (422,), path="/queue/forestay/digits", body=b"{}", says="prompt"),
    Bad("a number that no double holds", (422,), body=b'{"sleep_seconds": 1e999}'),
    Bad("body over the limit", (413,), body=b'{"text": "' + b"x" * (11 * 1024 * 1024) + b'"}'),
    Bad("no key", (401,), key=""),
    Bad("wrong secret", (401,), key="0000:1111"),
    Bad("a key that is none", (401,), raw_key=b"\xff\xfe:\xc3\x28"),
    Bad("API key where ADMIN is asked", (401, 403), "GET", "/admin/fleet"),
    Bad("start deadline that is no number", (400,), headers={"X-Fal-Request-Timeout": "soon"}),
    Bad("start deadline below the least", (400,), headers={"X-Fal-Request-Timeout": "-3"}),
    Bad("total deadline that is no number", (400,), headers={"X-Forestay-Deadline": "later"}),
    Bad("unknown priority", (400, 422), headers={"X-Fal-Queue-Priority": "urgent"}),
    Bad("webhook with another scheme", (400, 422), path=f"{ECHO}?fal_webhook=ftp%3A%2F%2Fexample.com%2F"),
    Bad("webhook that is no URL", (400, 422), path=f"{ECHO}?fal_webhook=over%20there"),
    Bad("queue length that is no number", (400, 422), path=f"{ECHO}?fal_max_queue_length=few"),
    Bad("headers over the limit", (400, 431), headers={"X-Long": "x" * 60_000}),
    Bad("an upload of nothing known", (400, 401, 404, 405), "PUT", "/cdn/files/nothing/there"),
    Bad("proxy target elsewhere", (400, 403, 412), "POST", "/api/fal/proxy", headers={"x-fal-target-url": "https://example.com/"}),
    Bad("proxy without a target", (400, 412), "POST", "/api/fal/proxy"),
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_bad_input_is_answered_precisely(bad: Bad, acceptance: Acceptance) -> None:
    """A 4xx from the table, JSON with a detail, no stack trace, and the name of what was wrong."""
    with acceptance.http("" if bad.raw_key else bad.key) as client:
        headers: dict[str, str | bytes] = {"Content-Type": "application/json", **bad.headers}
        if bad.raw_key:
            headers["Authorization"] = b"Key " + bad.raw_key
        raw = [(name.encode(), text if isinstance(text, bytes) else text.encode()) for name, text in headers.items()]
        answered = client.request(bad.method, bad.path, content=bad.body, headers=raw)
    assert answered.status_code in bad.statuses, answered.text[:500]
    assert "Traceback" not in answered.text
    assert bad.says in answered.text
    if answered.status_code not in {400, 431} or answered.headers.get("content-type", "").startswith(
        "application/json"
    ):
        assert isinstance(answered.json(), dict)


@pytest.mark.threat("API1:2023")
def test_another_tenants_request_looks_as_if_it_never_existed(acceptance: Acceptance) -> None:
    """Status, result and cancel with a stranger's key: 404, with the body of an unknown id."""
    stranger = acceptance.new_key("stranger")
    with watched(acceptance) as client:
        request_id = client.post(ECHO, json={"text": "mine"}).json()["request_id"]
    with acceptance.http(stranger) as client:
        path = f"{ECHO}/requests/{request_id}"
        answers = [client.get(f"{path}/status"), client.get(path), client.put(f"{path}/cancel")]
        unknown = client.get(f"{ECHO}/requests/{UNKNOWN_ID}/status")
    assert [answered.status_code for answered in answers] == [404, 404, 404]
    assert answers[0].content == unknown.content
    with watched(acceptance) as client:
        assert client.get(f"{ECHO}/requests/{request_id}/status").status_code in {200, 202}


@pytest.mark.threat("API2:2023", "AML.T0012")
def test_a_revoked_key_is_felt_within_two_seconds(acceptance: Acceptance) -> None:
    """It works, it is revoked, and soon it does not work."""
    key = acceptance.new_key("short-lived")
    with acceptance.http(key) as client:
        assert client.post("/run/forestay/echo", json={}).status_code == 200
        acceptance.revoke(key)

        def refused() -> bool:
            return client.post("/run/forestay/echo", json={}).status_code == 401

        acceptance.wait_until(refused, seconds=3.0)


def test_a_body_that_stalls_is_answered_408_and_hurts_nobody(acceptance: Acceptance) -> None:
    """Slow clients are told so after the time-out, while others are served."""
    host, port = address(acceptance.url)
    head = f"POST {ECHO} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Key {acceptance.api_key}\r\n"
    head += "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    slow = [socket.create_connection((host, port), timeout=15) for _ in range(8)]
    try:
        for connection in slow:
            connection.sendall(head.encode())
        with watched(acceptance) as client:
            assert client.post("/run/forestay/echo", json={"text": "quick"}).status_code == 200
        assert all(b" 408 " in connection.recv(4096)[:40] for connection in slow)
    finally:
        for connection in slow:
            connection.close()


@pytest.mark.threat("API4:2023", "AML.T0029")
def test_many_half_open_requests_do_not_keep_others_out(acceptance: Acceptance) -> None:
    """Two hundred connections that never finish their headers, and one that does."""
    host, port = address(acceptance.url)
    half = [socket.create_connection((host, port), timeout=5) for _ in range(200)]
    try:
        for connection in half:
            connection.sendall(b"POST /queue/forestay/echo HTTP/1.1\r\nHost: a\r\nX-Slow: ")
        with watched(acceptance) as client:
            assert client.post("/run/forestay/echo", json={"text": "quick"}).json()["text"] == "quick"
    finally:
        for connection in half:
            connection.close()


@pytest.mark.parametrize(
    "noise",
    [
        b"\x00" * 64,
        b"\xff" * 4096,
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01" + b"\x01" * 100,
        b"\r\n" * 500,
    ],
    ids=["zeros", "ones", "version", "TLS to plain", "blank lines"],
)
def test_noise_on_the_wire_is_dropped(noise: bytes, acceptance: Acceptance) -> None:
    """Bytes that are no HTTP end their own connection only, on the plain, the TLS and the proxy port."""
    for url in (acceptance.url, acceptance.tls_url, acceptance.proxy_url):
        with socket.create_connection(address(url), timeout=10) as connection:
            connection.sendall(noise)
            connection.shutdown(socket.SHUT_WR)
            try:
                said = connection.recv(4096)
            except ConnectionResetError:
                continue
            assert b"Traceback" not in said
            assert b" 200 " not in said[:20]


def test_the_connect_proxy_reaches_nothing_but_fal(acceptance: Acceptance) -> None:
    """CONNECT to another host is refused: this is no open proxy."""
    for target in ("example.com:443", "127.0.0.1:22", "169.254.169.254:80", "fal.run:22"):
        with socket.create_connection(address(acceptance.proxy_url), timeout=10) as connection:
            connection.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
            status = connection.recv(4096).split(b" ", 2)[1]
            assert status.startswith(b"4"), (target, status)


@pytest.mark.parametrize(
    "frames",
    [["not msgpack"], [b"\xc1\xc1\xc1"], [b"\x00" * 1000], [b"\x81\xa4text\xc0"], [os.urandom(64), "{}", b""]],
    ids=["text", "reserved byte", "zeros", "null text", "mixed"],
)
def test_garbage_in_a_realtime_session_ends_that_session_only(
    frames: list[str | bytes], acceptance: Acceptance
) -> None:
    """Whatever is said, the server answers or closes; another session works."""
    address_ = acceptance.url.replace("http://", "ws://") + "/run/forestay/echo/realtime"
    headers = {"Authorization": f"Key {acceptance.api_key}"}
    with websockets.sync.client.connect(address_, additional_headers=headers, open_timeout=20) as session:
        try:
            for frame in frames:
                session.send(frame)
            session.recv(timeout=2)
        except (TimeoutError, WebSocketException):
            pass
    with websockets.sync.client.connect(address_, additional_headers=headers, open_timeout=20) as session:
        session.send(b"\x81\xa4text\xa5hello")
        assert b"hello" in session.recv(timeout=10)  # type: ignore[operator]


@pytest.mark.parametrize("query", ["", "?fal_jwt_token=nonsense", "?fal_jwt_token=eyJhbGciOiJub25lIn0.e30."])
def test_a_realtime_session_without_a_good_token_is_refused(query: str, acceptance: Acceptance) -> None:
    """No key and no token, or a bad one: not opened, or closed with no word but the refusal (contract, section 2.3)."""
    heard: list[str | bytes] = []

    def talk() -> None:
        address_ = acceptance.url.replace("http://", "ws://") + f"/run/forestay/echo/realtime{query}"
        with websockets.sync.client.connect(address_, open_timeout=20) as session:
            session.send(b"\x81\xa4text\xa5hello")
            heard.append(session.recv(timeout=5))  # the refusal may come before the close
            heard.append(session.recv(timeout=5))

    with pytest.raises(WebSocketException):
        talk()
    assert all(isinstance(frame, str) and json.loads(frame)["error"] == "Unauthorized" for frame in heard), heard


TOKEN = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_.~", min_size=1, max_size=12)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(field=st.sampled_from(["sleep_seconds", "log_lines", "fail", "image"]), value=ANYTHING)
def test_any_value_is_answered_by_the_model_or_refused_by_name(
    field: str, value: object, acceptance: Acceptance
) -> None:
    """Whatever stands in a field, the answer is the model's or a 422; never a 5xx of ours."""
    assume(field == "image" or isinstance(value, list | dict))  # a scalar may be accepted, and then it sleeps or fails
    with watched(acceptance) as client:
        body = json.dumps({field: value}).encode()  # infinities too, as many a client would send them
        answered = client.post("/run/forestay/echo", content=body, headers={"Content-Type": "application/json"})
    assert answered.status_code in {200, 422}, answered.text[:300]


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"]),
    surface=st.sampled_from(["", "/queue", "/run", "/rest", "/cdn", "/admin", "/api/fal/proxy"]),
    segments=st.lists(
        TOKEN | st.sampled_from(["forestay", "requests", "storage", "files", "..", "%00", "%2e%2e"]), max_size=6
    ),
    body=st.binary(max_size=200),
)
def test_any_path_is_answered_below_500(
    method: str, surface: str, segments: list[str], body: bytes, acceptance: Acceptance
) -> None:
    """No path, method and body makes the gateway fail."""
    with watched(acceptance) as client:
        answered = client.request(method, f"{surface}/{'/'.join(segments)}", content=body)
    assert answered.status_code < 500, (answered.status_code, answered.text[:300])
    assert "Traceback" not in answered.text


def test_tls_with_an_unknown_authority_is_refused_by_the_client(acceptance: Acceptance) -> None:
    """Our certificate is trusted by nobody who was not told to; with the CA file it verifies by name."""
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{acceptance.tls_url}/health", trust_env=False)
    context = ssl.create_default_context(cafile=str(Path(acceptance.ca_file)))
    assert httpx.get(f"{acceptance.tls_url}/health", verify=context, trust_env=False).status_code == 200


def address(url: str) -> tuple[str, int]:
    """Return host and port of a URL."""
    parts = urllib.parse.urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def test_the_error_of_a_refused_submit_is_json_with_a_request_id(acceptance: Acceptance) -> None:
    """Every answer of ours carries x-fal-request-id, the refusals too."""
    with watched(acceptance) as client:
        answered = client.post(ECHO, json={"sleep_seconds": "long"})
    assert answered.headers["x-fal-request-id"]
    assert json.loads(answered.content)["detail"][0]["loc"] == ["body", "sleep_seconds"]
