"""What a key may do, from where, and which of its headers count: at every surface of the gateway."""

import pytest
from tests.gateway.world import Reply, Socket, World, a_world, drive

from forestay.fleet.grants import Grant, Privilege, Verb
from forestay.fleet.keys import KeyRequest, Scope
from forestay.gateway.options import privilege_of
from forestay.ids import KeyId, TenantId
from forestay.storage.objects import ObjectStore
from forestay.telemetry.metrics import REFUSED

GOOD = {"prompt": "a"}
CONTROL = {
    "x-app-fal-can-disable-filter": "1",
    "x-app-fal-disable-fallback": "1",
    "x-fal-cdn-token": "t",
}
PLATFORMS_OWN = {
    "x-fal-caller-user-id": "someone else",
    "x-fal-request-id": "mine",
    "x-fal-endpoint": "/admin",
    "x-forestay-tenant": "other",
    "x-forestay-object-lifetime": "1",
    "x-forestay-auth": "forged",
    "x_app_fal_can_disable_filter": "1",
}


async def narrow(world: World, *verbs: Verb, models: tuple[str, ...] = ()) -> str:
    """A key with one grant."""
    return await world.issue(grants=(Grant(frozenset(models), frozenset(verbs)),))


@pytest.mark.threat("API5:2023")
async def test_a_verb_that_is_not_granted_is_refused_by_name(world: World) -> None:
    """403, after the key is proved, naming verb and model; each verb opens its own call and no other."""
    request_id = await world.submit()
    one = f"/queue/acme/echo/requests/{request_id}"
    calls = {
        Verb.SUBMIT: ("POST", "/queue/acme/echo", GOOD),
        Verb.RUN: ("POST", "/run/acme/echo", GOOD),
        Verb.READ: ("GET", f"{one}/status", None),
        Verb.CANCEL: ("PUT", f"{one}/cancel", None),
    }
    for granted in calls:
        key = await narrow(world, granted)
        for verb, (method, path, body) in sorted(calls.items(), key=lambda item: item[0] is Verb.CANCEL):
            reply = await world.call(method, path, body, key=key)
            assert (reply.status == 403) is (verb is not granted), (granted, verb, reply.body)
            if reply.status == 403:
                assert reply.field("detail").startswith(f"This key may not {verb} acme/echo")  # type: ignore[attr-defined]
    assert world.ports.metrics.value(REFUSED, "grant") == 12


async def test_result_and_status_stream_need_the_right_to_read(world: World) -> None:
    """All that tells of a request."""
    request_id = await world.submit()
    key = await narrow(world, Verb.SUBMIT)
    for rest in ("", "/response", "/status", "/status/stream"):
        reply = await world.call("GET", f"/queue/acme/echo/requests/{request_id}{rest}", key=key)
        assert reply.status == 403, rest


async def test_a_call_that_asks_for_events_needs_both_run_and_stream(world: World) -> None:
    """An endpoint of its own streams; any other may answer whole, so that a header opens nothing."""
    events = {"accept": "text/event-stream"}
    world.model.release.set()
    streams, runs = await narrow(world, Verb.STREAM), await narrow(world, Verb.RUN)
    both = await narrow(world, Verb.RUN, Verb.STREAM)
    assert (await world.call("POST", "/run/acme/echo/stream", GOOD, key=streams)).status == 200
    assert (await world.call("POST", "/run/acme/echo/stream", GOOD, key=runs)).status == 403
    assert (await world.call("POST", "/run/acme/echo", GOOD, events, key=streams)).status == 403
    assert (await world.call("POST", "/run/acme/echo", GOOD, events, key=runs)).status == 403
    assert (await world.call("POST", "/run/acme/echo", GOOD, events, key=both)).status == 200


async def test_a_realtime_session_needs_its_own_verb(world: World) -> None:
    """Refused in the handshake."""
    for verb, status in ((Verb.REALTIME, None), (Verb.RUN, 403)):
        headers = {"host": "gateway.test", "authorization": f"Key {await narrow(world, verb)}"}
        socket = Socket(world.gateway, "/run/acme/echo/realtime", headers)
        await socket.say(type="websocket.connect")
        await socket.say(type="websocket.disconnect", code=1000)
        await socket.run()
        first = await socket.hear()
        assert first.get("status") == status


async def test_patterns_of_models_open_what_they_name(world: World) -> None:
    """An owner's models, one model, and nothing else."""
    for models, status in ((("acme/*",), 200), (("acme/echo", "x/y"), 200), (("acme/open",), 403), (("x/*",), 403)):
        key = await narrow(world, models=models)
        assert (await world.call("POST", "/run/acme/echo", GOOD, key=key)).status == status, models


async def test_a_key_learns_nothing_about_models_that_it_has_no_grant_for(world: World) -> None:
    """A known one, a private one of others and one that does not exist are the same 403."""
    key = await world.issue("other", grants=(Grant(frozenset({"other/*"})),))
    details = set()
    for model in ("acme/echo", "acme/own", "acme/nothing"):
        reply = await world.call("POST", f"/queue/{model}", GOOD, key=key)
        details.add((reply.status, str(reply.field("detail")).replace(model, "MODEL")))
    assert details == {(403, "This key may not submit MODEL: it has no grant for that; ask whoever issued it")}


async def test_a_wrong_key_is_still_the_first_thing_said(world: World) -> None:
    """401 before 403: a stranger learns of no grant."""
    key = await narrow(world, Verb.READ)
    wrong = key[:-1] + ("0" if key[-1] != "0" else "1")
    assert (await world.call("POST", "/run/acme/echo", GOOD, key=wrong)).status == 401


async def test_a_key_without_grants_may_everything_as_before(world: World) -> None:
    """Keys made before grants existed."""
    request_id = await world.submit()
    assert (await world.call("POST", "/run/acme/echo", GOOD)).status == 200
    assert (await world.call("PUT", f"/queue/acme/echo/requests/{request_id}/cancel")).status == 202


async def from_address(world: World, key: str, client: str, *forwarded: str) -> Reply:
    """Call from an address, perhaps through proxies."""
    request = world.request("POST", "/run/acme/echo", GOOD, key=key)
    request.client, request.more_headers = client, [("x-forwarded-for", text) for text in forwarded]
    return await drive(world.gateway, request)


@pytest.mark.threat("API2:2023", "AML.T0012")
async def test_a_key_is_good_only_in_its_networks(world: World) -> None:
    """403 from elsewhere, counted, and nothing about the list; a header of the caller's own does not help."""
    key = await world.issue(networks=("10.1.0.0/16", "2001:db8::/32"))
    assert (await from_address(world, key, "10.1.2.3")).status == 200
    assert (await from_address(world, key, "2001:db8::7")).status == 200
    assert (await from_address(world, key, "::ffff:10.1.2.3")).status == 200
    for client in ("10.2.0.1", "::1", ""):
        reply = await from_address(world, key, client, "10.1.2.3")
        assert reply.status == 403
        assert b"10.1" not in reply.body
    assert world.ports.metrics.value(REFUSED, "network") == 3


async def test_the_networks_of_an_admin_key_count_too(world: World) -> None:
    """At the admin API as everywhere."""
    asked = KeyRequest(TenantId("acme"), "t", frozenset({Scope.ADMIN}), networks=("10.0.0.0/8",))
    issued = await world.keys.create(asked, actor="human:test")
    assert issued is not None
    reply = await world.call("GET", "/admin/tenants", key=issued.credential)
    assert reply.status == 403


async def test_a_trusted_proxy_says_who_called(objects: ObjectStore) -> None:
    """Only what the proxy itself appended counts."""
    async with a_world(objects, trusted_proxies="10.0.0.0/8, fd00::/8") as world:
        key = await world.issue(networks=("192.0.2.0/24",))
        assert (await from_address(world, key, "10.0.0.1", "192.0.2.9")).status == 200
        assert (await from_address(world, key, "10.0.0.1", "203.0.113.1, 192.0.2.9", "10.0.0.2")).status == 200
        assert (await from_address(world, key, "10.0.0.1", "192.0.2.9, 203.0.113.1")).status == 403
        assert (await from_address(world, key, "10.0.0.1")).status == 403
        assert (await from_address(world, key, "203.0.113.1", "192.0.2.9")).status == 403


async def headers_at_model(world: World, key: str) -> dict[str, str]:
    """Call with every control header and return what the model saw."""
    reply = await world.call("POST", "/run/acme/echo", GOOD, {**CONTROL, **PLATFORMS_OWN}, key=key)
    assert reply.status == 200, reply.body
    return world.model.calls[-1][1]


@pytest.mark.threat("API3:2023")
@pytest.mark.parametrize(
    ("privileges", "passed"),
    [
        ((), set()),
        ((Privilege.DISABLE_FILTER,), {"x-app-fal-can-disable-filter"}),
        ((Privilege.CONTROL_HEADERS,), set(CONTROL) - {"x-app-fal-can-disable-filter"}),
        (tuple(Privilege), set(CONTROL)),
    ],
)
async def test_a_control_header_passes_only_with_its_privilege(
    world: World, privileges: tuple[Privilege, ...], passed: set[str]
) -> None:
    """Else it is taken out without a word: chained calls send some of them by themselves."""
    key = await world.issue(privileges=frozenset(privileges))
    seen = await headers_at_model(world, key)
    assert set(CONTROL) & set(seen) == passed


async def test_what_the_platform_says_to_a_model_is_never_a_callers_word(world: World) -> None:
    """Not even with every privilege."""
    seen = await headers_at_model(world, await world.issue(privileges=frozenset(Privilege)))
    assert not {name: value for name, value in PLATFORMS_OWN.items() if seen.get(name) == value}


async def test_control_headers_of_a_submit_are_stripped_too(world: World) -> None:
    """They would reach the model with the attempt."""
    reply = await world.call("POST", "/queue/acme/echo", GOOD, {**CONTROL, **PLATFORMS_OWN})
    assert reply.status == 200
    assert not (await world.claim()).options.forward_headers
    key = await world.issue(privileges=frozenset({Privilege.DISABLE_FILTER}))
    await world.call("POST", "/queue/acme/echo", GOOD, {**CONTROL, **PLATFORMS_OWN}, key=key)
    assert (await world.claim()).options.forward_headers == {"x-app-fal-can-disable-filter": "1"}


async def test_nobody_on_a_public_model_has_no_privileges(world: World) -> None:
    """The owner pays for the calls of nobody, and lends them nothing."""
    reply = await world.call("POST", "/queue/acme/open", GOOD, CONTROL, key=None)
    assert reply.status == 200
    assert not (await world.claim(alias="open")).options.forward_headers


def test_every_header_of_fals_control_space_needs_a_privilege() -> None:
    """Also those that nobody has thought of yet."""
    assert privilege_of(b"x-app-fal-can-disable-filter") is Privilege.DISABLE_FILTER
    assert privilege_of(b"x-app-fal-new-thing") is Privilege.CONTROL_HEADERS
    assert privilege_of(b"accept") is None


async def test_a_rotated_key_and_its_successor_both_work_meanwhile(world: World) -> None:
    """The new one has the same rights; the old one ends with the overlap."""
    old = await narrow(world, Verb.RUN)
    issued = await world.keys.rotate(KeyId(old[:16]), 3600.0, actor="human:test")
    for key in (old, issued.credential):  # type: ignore[union-attr]
        assert (await world.call("POST", "/run/acme/echo", GOOD, key=key)).status == 200
        assert (await world.call("POST", "/queue/acme/echo", GOOD, key=key)).status == 403


async def test_without_a_pepper_no_key_is_issued(world: World) -> None:
    """Those that exist go on working; the message says what to set."""
    for path in ("/admin/keys", f"/admin/keys/{world.key[:16]}/rotate"):
        reply = await world.call("POST", path, {}, key=world.admin_key)
        assert reply.status == 409
        assert "FORESTAY_KEY_PEPPER" in str(reply.field("detail"))
    assert (await world.call("GET", "/admin/keys", key=world.admin_key)).status == 200
