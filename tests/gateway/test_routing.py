"""Where a call goes: hosts, ports, prefixes, app ids, request URLs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.gateway.world import World, drive

from forestay.gateway import routing
from forestay.gateway.routing import AppPath, Operation, Surface, parse_app_path, parse_request_path
from forestay.ids import ModelId

ID = "01a2079d-e487-7000-b242-978af26781bb"


@pytest.mark.parametrize(
    ("path", "model_id", "endpoint"),
    [
        ("/o/a", "o/a", "/"),
        ("/o/a/", "o/a", "/"),
        ("/o/a/edit", "o/a", "/edit"),
        ("/o/a/v1/edit", "o/a", "/v1/edit"),
        ("/workflows/o/a", "workflows.o/a", "/"),
        ("/comfy/o/a/edit", "comfy.o/a", "/edit"),
        ("/12345-my-app", "12345/my-app", "/"),
        ("/12345-my-app/x", "12345-my-app/x", "/"),
    ],
)
def test_app_ids_are_read_as_the_clients_write_them(path: str, model_id: str, endpoint: str) -> None:
    """Owner, alias, path; two namespaces; the legacy form only without a slash."""
    assert parse_app_path(path) == AppPath(ModelId(model_id), endpoint)


@pytest.mark.parametrize(
    "path",
    ["/", "", "/one", "/o/a/../b", "/o/a/./b", "/o/a b", "/workflows", "/workflows/o", "/-/a", "/o/a/" + "x" * 300],
)
def test_what_is_no_app_id_is_none(path: str) -> None:
    """Nothing is guessed."""
    assert parse_app_path(path) is None


@pytest.mark.parametrize(
    ("rest", "operation"),
    [
        ("", Operation.RESULT),
        ("/", Operation.RESULT),
        ("/response", Operation.RESULT),
        ("/status", Operation.STATUS),
        ("/status/stream", Operation.STATUS_STREAM),
        ("/cancel", Operation.CANCEL),
    ],
)
@pytest.mark.parametrize("app", ["o/a", "o/a/edit", "workflows/o/a"])
def test_a_request_is_found_by_its_segment(app: str, rest: str, operation: Operation) -> None:
    """With or without the endpoint before it, as contract section 1.1 asks."""
    found = parse_request_path(f"/{app}/requests/{ID}{rest}")
    assert found is not None
    assert (str(found.request_id), found.operation) == (ID, operation)


@given(st.text(max_size=60))
def test_no_path_breaks_the_parsers(text: str) -> None:
    """Whatever is asked for is read or refused."""
    for parse in (parse_app_path, parse_request_path):
        parse(f"/{text}")


@pytest.mark.parametrize(
    ("host", "path", "surface", "left"),
    [
        ("fal.run", "/o/a", Surface.RUN, "/o/a"),
        ("FAL.run:443", "/o/a", Surface.RUN, "/o/a"),
        ("queue.fal.run", "/o/a", Surface.QUEUE, "/o/a"),
        ("rest.fal.ai", "/tokens/", Surface.REST, "/tokens/"),
        ("v3.fal.media", "/files/x", Surface.CDN, "/files/x"),
        ("anything.fal.run", "/o/a", Surface.RUN, "/o/a"),
        ("h:1", "/run/o/a", Surface.RUN, "/o/a"),
        ("h:1", "/queue/o/a", Surface.QUEUE, "/o/a"),
        ("h:1", "/rest/x", Surface.REST, "/x"),
        ("h:1", "/cdn/x", Surface.CDN, "/x"),
        ("h:1", "/running/x", Surface.ROOT, "/running/x"),
        ("", "/health", Surface.ROOT, "/health"),
    ],
)
def test_surfaces_by_host_and_prefix(host: str, path: str, surface: Surface, left: str) -> None:
    """The names of fal first, then the prefix, then our own root."""
    assert routing.surface_of(path, routing.read_host(host.encode()), 1, {}) == (surface, left)


def test_a_port_may_belong_to_one_surface() -> None:
    """No prefix is needed there."""
    assert routing.surface_of("/o/a", "h:9001", 9001, {9001: Surface.QUEUE}) == (Surface.QUEUE, "/o/a")


@pytest.mark.parametrize(
    ("server", "port"), [(("h", 9001), 9001), (("h", "9001"), 9001), (("/sock", None), 0), (None, 0)]
)
def test_the_port_is_read_as_either_server_writes_it(server: object, port: int) -> None:
    """A number from uvicorn, text from granian."""
    assert routing.port_of({"type": "http", "server": server}) == port


@pytest.mark.parametrize("host", ["evil.com/x", 'a"b', "a b", "é", "a:999999"])
def test_a_host_that_is_none_is_not_repeated(host: str) -> None:
    """What stands in our URLs can break out of nothing."""
    assert routing.read_host(host.encode("latin-1")) == ""


@pytest.mark.parametrize(
    ("headers", "scheme", "expected"),
    [
        ({"host": "h:1"}, "http", "http://h:1/queue/"),
        ({"host": "h:1"}, "https", "https://h:1/queue/"),
        ({"host": "h:1", "x-forwarded-proto": "https"}, "http", "https://h:1/queue/"),
        ({"host": "queue.fal.run"}, "https", "https://queue.fal.run/"),
    ],
)
async def test_urls_come_back_under_the_callers_base(
    world: World, headers: dict[str, str], scheme: str, expected: str
) -> None:
    """Never the bind address."""
    path = "/acme/echo" if headers["host"] == "queue.fal.run" else "/queue/acme/echo"
    request = world.request("POST", path, {"prompt": "a"}, headers)
    request.scheme = scheme
    reply = await drive(world.gateway, request)
    assert str(reply.field("status_url")).startswith(expected)


async def test_browsers_are_answered(world: World) -> None:
    """Preflights without a key, and CORS headers on answers and errors alike."""
    asked = {"origin": "https://app.test", "access-control-request-headers": "authorization, x-fal-queue-priority"}
    preflight = await world.call("OPTIONS", "/queue/acme/echo", headers=asked, key=None)
    assert preflight.status == 204
    assert preflight.headers["access-control-allow-headers"] == asked["access-control-request-headers"]
    assert "PUT" in preflight.headers["access-control-allow-methods"]
    for key in ("", None):
        reply = await world.call("POST", "/queue/acme/echo", {"prompt": "a"}, {"origin": "https://app.test"}, key=key)
        assert reply.headers["access-control-allow-origin"] == "*"
        assert "x-fal-request-id" in reply.headers["access-control-expose-headers"]


async def test_the_document_names_every_operation(world: World) -> None:
    """Served without a key, and every path of it is routed."""
    world.model.release.set()  # its stream shall end
    reply = await world.call("GET", "/openapi.json", key=None)
    assert reply.status == 200
    paths = reply.field("paths")
    assert isinstance(paths, dict)
    own = {path: found for path, found in paths.items() if not path.startswith(("/rest/", "/cdn/"))}
    for path, operations in own.items():
        for method in operations:
            filled = (
                path.replace("{request_id}", ID).replace("{owner}/{alias}", "acme/echo").replace("{endpoint}", "edit")
            )
            answered = await world.call(method.upper(), filled, {"prompt": "a"} if method == "post" else None)
            assert str(answered.status) in operations[method]["responses"], (method, path, answered.status)
