"""Bad input: each gets a precise answer, nothing is queued, nothing breaks."""

import asyncio
import json
import string
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.gateway.world import World, a_world, drive

from forestay.storage.objects import ObjectStore

UNKNOWN = "01a2079d-e487-7000-b242-978af26781bb"
GOOD = {"prompt": "a"}


@pytest.fixture
async def patient(objects: ObjectStore) -> AsyncIterator[World]:
    """A gateway with small limits and little patience."""
    async with a_world(objects, max_body_bytes=1000, max_header_bytes=2000, body_timeout_seconds=0.05) as made:
        yield made


async def nothing_queued(world: World) -> bool:
    """Tell whether the queue is empty."""
    return await world.queue.backlog() == {}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/queue/acme/none", 404),
        ("POST", "/queue/none/echo", 404),
        ("POST", "/queue/acme/echo/nowhere", 404),
        ("POST", "/queue/acme/echo/%2e%2e/%2e%2e/etc", 404),
        ("POST", "/queue/acme/echo/../../admin", 404),
        ("POST", "/queue/justone", 404),
        ("POST", "/queue/", 404),
        ("POST", "/queue", 404),
        ("GET", "/queue/acme/echo", 405),
        ("POST", f"/queue/acme/echo/requests/{UNKNOWN}/status", 405),
        ("GET", f"/queue/acme/echo/requests/{UNKNOWN}/cancel", 405),
        ("GET", f"/queue/acme/echo/requests/{UNKNOWN}", 404),
        ("GET", f"/queue/acme/echo/requests/{UNKNOWN}/status", 404),
        ("GET", f"/queue/acme/echo/requests/{UNKNOWN}/status/stream", 404),
        ("PUT", f"/queue/acme/echo/requests/{UNKNOWN}/cancel", 404),
        ("GET", f"/queue/acme/echo/requests/{UNKNOWN}/nonsense", 404),
        ("GET", "/queue/acme/echo/requests/not-a-uuid/status", 404),
        ("GET", "/queue/acme/echo/requests/00000000-0000-4000-8000-000000000000", 404),
        ("GET", "/queue/x/requests/" + UNKNOWN, 404),
        ("POST", "/run/acme/none", 404),
        ("POST", "/run/acme/echo/nowhere", 404),
        ("GET", "/nowhere", 404),
        ("POST", "/health", 405),
        ("POST", "/cdn/nowhere", 404),
        ("GET", "/rest/nowhere", 404),
        ("GET", "/", 404),
    ],
)
async def test_unknown_paths_and_methods(world: World, method: str, path: str, status: int) -> None:
    """Each has its own status, an id, and JSON."""
    reply = await world.call(method, path, GOOD if method == "POST" else None)
    assert reply.status == status, reply.body
    assert reply.headers["x-fal-request-id"]
    assert reply.headers["content-type"] == "application/json"
    assert await nothing_queued(world)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": ""}, 401),
        ({"authorization": "Key"}, 401),
        ({"authorization": "Key "}, 401),
        ({"authorization": "Key a:b"}, 401),
        ({"authorization": "Basic YTpi"}, 401),
        ({"authorization": "Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.x"}, 401),
        ({"authorization": "Key " + "0" * 16 + ":" + "0" * 64}, 401),
        ({"authorization": "Key \xff\xfe:\xff"}, 401),
    ],
)
@pytest.mark.parametrize("path", ["/queue/acme/echo", "/queue/acme/none", "/run/acme/echo", "/run/acme/none"])
async def test_bad_credentials_are_401_whatever_they_ask_for(
    world: World, headers: Mapping[str, str], status: int, path: str
) -> None:
    """A stranger learns nothing about which models exist."""
    reply = await world.call("POST", path, GOOD, headers, key=None)
    assert reply.status == status
    assert reply.headers["www-authenticate"] == "Key"
    assert await nothing_queued(world)


@pytest.mark.threat("API8:2023")
@pytest.mark.parametrize("lane", ["run", "queue"])
async def test_a_token_among_more_fields_than_anybody_sends_is_401(world: World, lane: str) -> None:
    """Not a defect's 500, which a stranger could cause and an operator would be woken for."""
    query = "&".join(["fal_jwt_token=x", *(f"f{number}=1" for number in range(60))])
    reply = await world.call("POST", f"/{lane}/acme/echo?{query}", GOOD, key=None)
    assert reply.status == 401
    assert await nothing_queued(world)


@pytest.mark.threat("API5:2023")
async def test_a_key_without_the_scope_is_403(world: World) -> None:
    """An ADMIN key calls no models."""
    reply = await world.call("POST", "/queue/acme/echo", GOOD, key=world.admin_key)
    assert reply.status == 403


async def test_a_bearer_key_is_a_key(world: World) -> None:
    """`Bearer id:secret` opens what `Key id:secret` opens."""
    reply = await world.call("POST", "/queue/acme/echo", GOOD, {"authorization": f"Bearer {world.key}"})
    assert reply.status == 200


async def test_a_private_model_of_someone_else_is_401(world: World) -> None:
    """As fal answers; its owner may call it."""
    reply = await world.call("POST", "/queue/acme/own", GOOD, key=world.other_key)
    assert (reply.status, reply.json()) == (401, {"detail": 'Cannot access application "acme/own"'})
    assert (await world.call("POST", "/queue/acme/own", GOOD)).status == 200


@pytest.mark.threat("API3:2023")
@pytest.mark.parametrize(
    ("raw", "kind"),
    [(b"{", "json_invalid"), (b"", "missing"), (b"[]", "model_attributes_type"), (b'{"steps":1}', "missing")],
)
@pytest.mark.parametrize("lane", ["queue", "run"])
async def test_bodies_that_the_model_would_refuse_are_422(world: World, lane: str, raw: bytes, kind: str) -> None:
    """In pydantic's shape, before anything is queued or called."""
    reply = await world.call("POST", f"/{lane}/acme/echo", raw=raw)
    assert reply.status == 422
    assert cast("list[dict[str, object]]", reply.field("detail"))[0]["type"] == kind
    assert await nothing_queued(world)
    assert world.model.calls == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-fal-request-timeout", "0.1"),
        ("x-fal-request-timeout", "abc"),
        ("x-fal-request-timeout", "nan"),
        ("x-fal-request-timeout", "inf"),
        ("x-fal-request-timeout", "-1"),
        ("x-fal-request-timeout", "1e300"),
        ("x-forestay-deadline", "0"),
        ("x-fal-queue-priority", "urgent"),
        ("x-fal-runner-hint", "\x01"),
        ("x-fal-runner-hint", "h" * 300),
        ("idempotency-key", ""),
        ("idempotency-key", "k" * 256),
        ("x-fal-object-lifecycle-preference", "{"),
        ("x-fal-object-lifecycle-preference", "[]"),
        ("x-fal-object-lifecycle-preference", '{"expiration_duration_seconds":0}'),
        ("x-fal-object-lifecycle-preference", '{"expiration_duration_seconds":"1"}'),
        ("x-fal-object-lifecycle-preference", "[" * 3000),
        ("x-fal-object-lifecycle-preference", '{"initial_acl":{"default":"forbid"}}'),
        ("x-fal-object-lifecycle-preference", '{"initial_acl":{"rules":[{"user":"u","decision":"hide"}]}}'),
        ("x-fal-object-lifecycle-preference", '{"initial_acl":"forbid"}'),
    ],
)
async def test_headers_that_cannot_be_honoured_are_400(world: World, name: str, value: str) -> None:
    """Flat error with its type, naming the header or the field."""
    reply = await world.call("POST", "/queue/acme/echo", GOOD, {name: value})
    assert (reply.status, reply.field("error_type")) == (400, "bad_request")
    assert reply.headers["x-fal-error-type"] == "bad_request"
    assert name in str(reply.field("detail")).lower()
    assert await nothing_queued(world)


@pytest.mark.threat("API7:2023", "AML.T0049")
@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1/x",
        "http://localhost/x",
        "http://169.254.169.254/latest",
        "http://[::1]/",
        "http://2130706433/",
        "file:///etc/passwd",
        "nonsense",
        "http://user:pw@example.com/",
        "http://10.0.0.1/",
        "",
    ],
)
async def test_a_webhook_to_a_private_address_is_refused(world: World, target: str) -> None:
    """400 before anything is queued."""
    reply = await world.call("POST", f"/queue/acme/echo?fal_webhook={target}", GOOD)
    assert (reply.status, reply.field("error_type")) == (400, "bad_request")
    assert await nothing_queued(world)


@pytest.mark.parametrize("value", ["-1", "x", "1.5", "99999999999", ""])
async def test_a_queue_limit_must_be_a_whole_number(world: World, value: str) -> None:
    """400 naming the field."""
    reply = await world.call("POST", f"/queue/acme/echo?fal_max_queue_length={value}", GOOD)
    assert reply.status == 400
    assert "fal_max_queue_length" in str(reply.field("detail"))


async def test_a_body_over_the_limit_is_413(patient: World) -> None:
    """By its declared length, and by its real one."""
    large = b'{"prompt":"' + b"x" * 1000 + b'"}'
    declared = await patient.call("POST", "/queue/acme/echo", raw=large, headers={"content-length": str(len(large))})
    assert declared.status == 413
    request = patient.request("POST", "/queue/acme/echo")
    request.pieces = [large[:500], large[500:]]
    assert (await drive(patient.gateway, request)).status == 413
    assert await nothing_queued(patient)


@pytest.mark.parametrize("length", ["-1", "abc", "9" * 40])
async def test_an_absurd_length_is_413(patient: World, length: str) -> None:
    """Never believed, never crashed on."""
    reply = await patient.call("POST", "/queue/acme/echo", GOOD, {"content-length": length})
    assert reply.status == 413


async def test_headers_over_the_limit_are_431(patient: World) -> None:
    """In one large header or many."""
    assert (await patient.call("GET", "/health", headers={"x": "y" * 3000})).status == 431
    many = {f"x-{n}": "y" * 20 for n in range(200)}
    assert (await patient.call("POST", "/queue/acme/echo", GOOD, many)).status == 431


async def test_a_body_that_does_not_come_is_408(patient: World) -> None:
    """A slow sender is answered and let go."""
    request = patient.request("POST", "/queue/acme/echo")
    request.pieces = []
    async with asyncio.timeout(5):
        reply = await drive(patient.gateway, request)
    assert (reply.status, reply.headers["connection"]) == (408, "close")
    assert await nothing_queued(patient)


async def test_a_sender_that_leaves_in_the_middle_is_forgotten(world: World) -> None:
    """Nobody is answered, nothing is queued."""
    request = world.request("POST", "/queue/acme/echo")
    request.pieces = []
    request.gone.set()
    assert (await drive(world.gateway, request)).status == 0
    assert await nothing_queued(world)


TEXT = st.text(alphabet=st.characters(min_codepoint=0, max_codepoint=255), max_size=60)
NAMES = st.sampled_from(
    [
        "x-fal-request-timeout",
        "x-forestay-deadline",
        "x-fal-queue-priority",
        "x-fal-runner-hint",
        "x-fal-no-retry",
        "x-fal-retry-config",
        "x-fal-store-io",
        "x-fal-object-lifecycle-preference",
        "idempotency-key",
        "traceparent",
        "host",
        "content-type",
        "content-length",
        "accept",
        "origin",
        "x-forwarded-proto",
        "x-app-fal-anything",
        "access-control-request-headers",
    ]
)
PATHS = st.sampled_from(["/queue/acme/echo", "/run/acme/echo", "/queue/acme/open"]) | st.text(
    alphabet=string.printable, max_size=40
).map(lambda text: "/" + text)


@pytest.fixture
def fuzzed(objects: ObjectStore) -> Iterator[tuple[asyncio.Runner, World]]:
    """One gateway and its loop, for many examples."""
    with asyncio.Runner() as runner:
        context = a_world(objects, body_timeout_seconds=0.2, run_timeout_seconds=0.2)
        world = runner.run(context.__aenter__())
        try:
            yield runner, world
        finally:
            runner.run(context.__aexit__(None, None, None))


@pytest.mark.threat("API8:2023")
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"]),
    path=PATHS,
    headers=st.dictionaries(NAMES, TEXT, max_size=5),
    raw=st.binary(max_size=50) | st.just(json.dumps(GOOD).encode()),
    query=TEXT,
)
def test_no_input_is_ever_our_500(
    fuzzed: tuple[asyncio.Runner, World],
    method: str,
    path: str,
    headers: Mapping[str, str],
    raw: bytes,
    query: str,
) -> None:
    """Whatever comes is answered, with an id, and never by a defect of ours."""
    runner, world = fuzzed

    async def once() -> None:
        async with asyncio.timeout(10):
            for key in ("", None):
                reply = await world.call(method, f"{path}?{query}", headers=headers, raw=raw, key=key)
                assert reply.headers.get("x-fal-error-type") != "internal_error", reply.body
                assert reply.headers["x-fal-request-id"]

    runner.run(once())
