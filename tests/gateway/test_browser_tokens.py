"""Short-lived tokens for browsers: what they open, never more than their key, never longer than it."""

import asyncio
import datetime as dt
import json
from typing import cast

import pytest
from tests.gateway.world import TOKEN_KEY, Reply, Socket, World, drive

from forestay.fleet.grants import Grant, Privilege, Verb
from forestay.gateway.signed_tokens import verify_token
from forestay.gateway.tokens import MAX_SECONDS
from forestay.ids import KeyId

GOOD = {"prompt": "a"}


async def token(world: World, key: str = "", **body: object) -> str:
    """Fetch a token as a server does for its browser; by default for acme/echo."""
    reply = await world.call("POST", "/rest/tokens/", {"allowed_apps": ["acme/echo"], **body}, key=key)
    assert reply.status == 201, reply.body
    return cast("str", reply.json())


async def with_token(world: World, made: str, method: str, path: str, *, query: bool = False) -> Reply:
    """Call as a browser does: with the token as Bearer, or in the query where a browser can set no header."""
    if query:
        return await world.call(method, f"{path}?fal_jwt_token={made}", GOOD, key=None)
    return await world.call(method, path, GOOD, {"authorization": f"Bearer {made}"})


async def test_a_token_opens_its_uses_and_no_other(world: World) -> None:
    """By default what fal's clients need one for; the queue and uploads only when asked for."""
    world.model.release.set()
    calls = {
        "run": ("POST", "/run/acme/echo"),
        "queue": ("POST", "/queue/acme/echo"),
    }
    for uses, opened in (([], {"run"}), (["run"], {"run"}), (["queue"], {"queue"}), (["run", "queue"], set(calls))):
        made = await token(world, uses=uses)
        for name, (method, path) in calls.items():
            for query in (False, True):
                status = (await with_token(world, made, method, path, query=query)).status
                assert (status == 200) is (name in opened), (uses, name)
                assert status in {200, 401}
        assert (await with_token(world, made, "POST", "/run/acme/echo/stream")).status == (
            200 if "run" in opened else 401
        )


async def test_a_browser_follows_its_own_request_to_the_result(world: World) -> None:
    """Submit, status, status stream, cancel: all with the token, none with one for another app."""
    made, other = await token(world, uses=["queue"]), await token(world, uses=["queue"], allowed_apps=["acme/open"])
    submitted = await with_token(world, made, "POST", "/queue/acme/echo")
    one = f"/queue/acme/echo/requests/{submitted.field('request_id')}"
    assert (await with_token(world, made, "GET", f"{one}/status")).status == 202
    assert (await with_token(world, made, "GET", f"{one}/status", query=True)).status == 202
    assert (await with_token(world, made, "GET", one)).status == 400  # not finished yet
    assert (await with_token(world, other, "GET", f"{one}/status")).status == 401
    assert (await with_token(world, made, "PUT", f"{one}/cancel")).status == 202


async def test_a_token_sees_only_what_was_asked_with_its_own_key(world: World) -> None:
    """Another key's request of the same tenant does not exist for it."""
    other = await world.issue()
    submitted = await world.call("POST", "/queue/acme/echo", GOOD, key=other)
    path = f"/queue/acme/echo/requests/{submitted.field('request_id')}/status"
    assert (await world.call("GET", path)).status == 202  # the tenant's other key may look
    assert (await with_token(world, await token(world, uses=["queue"]), "GET", path)).status == 404


async def test_a_token_opens_no_more_than_its_key(world: World) -> None:
    """Asked for by name it is refused at once; what an alias leaves open is refused at use."""
    key = await world.issue(grants=(Grant(frozenset({"acme/echo"}), frozenset({Verb.RUN})),))
    refused = await world.call("POST", "/rest/tokens/", {"allowed_apps": ["acme/echo"], "uses": ["queue"]}, key=key)
    assert (refused.status, refused.field("detail")) == (
        403,
        "This key has no grant for a token that may queue acme/echo",
    )
    elsewhere = await world.call("POST", "/rest/tokens/", {"allowed_apps": ["acme/open"], "uses": ["run"]}, key=key)
    assert elsewhere.status == 403
    made = await token(world, key, allowed_apps=["echo", "open"], uses=["run", "queue"])
    assert (await with_token(world, made, "POST", "/run/acme/echo")).status == 200
    assert (await with_token(world, made, "POST", "/run/acme/open")).status == 403
    assert (await with_token(world, made, "POST", "/queue/acme/echo")).status == 403


async def test_a_token_is_good_only_where_its_key_is(world: World) -> None:
    """The key's networks bind the browser too."""
    key = await world.issue(networks=("127.0.0.0/8",))
    made = await token(world, key)
    assert (await with_token(world, made, "POST", "/run/acme/echo")).status == 200
    request = world.request("POST", "/run/acme/echo", GOOD, {"authorization": f"Bearer {made}"})
    request.client = "192.0.2.1"
    assert (await drive(world.gateway, request)).status == 403


async def test_a_tokens_life_is_capped_by_the_limit_and_by_its_key(world: World) -> None:
    """Never longer than an hour, never longer than the key."""
    now = world.ports.clock.now()
    key = await world.issue(expires_at=now + dt.timedelta(seconds=30))
    claims = verify_token(await token(world, key, token_expiration=600), secret=TOKEN_KEY, now=now)
    assert claims is not None
    assert claims.expires_at <= now + dt.timedelta(seconds=30)
    body = {"allowed_apps": ["echo"], "token_expiration": MAX_SECONDS + 1}
    assert (await world.call("POST", "/rest/tokens/", body)).status == 422


async def test_a_revoked_keys_tokens_end_with_it(world: World) -> None:
    """At the next look of the gateway, which comes each second."""
    made = await token(world)
    assert (await with_token(world, made, "POST", "/run/acme/echo")).status == 200
    await world.keys.revoke(KeyId(world.key[:16]), actor="human:test", reason="leaked")
    await world.ports.keys.refresh()
    assert (await with_token(world, made, "POST", "/run/acme/echo")).status == 401


async def test_a_tokens_privileges_are_its_keys(world: World) -> None:
    """A key that may turn filters off lends that to its browsers; another cannot."""
    said = {"x-app-fal-can-disable-filter": "1"}
    key = await world.issue(privileges=frozenset({Privilege.DISABLE_FILTER}))
    for one, passed in ((key, True), (world.key, False)):
        headers = {"authorization": f"Bearer {await token(world, one)}", **said}
        assert (await world.call("POST", "/run/acme/echo", GOOD, headers)).status == 200
        assert ("x-app-fal-can-disable-filter" in world.model.calls[-1][1]) is passed


@pytest.mark.parametrize("app", ["", "*", "a b", "/", "acme/*", "../x", "a/b?c", "é"])
async def test_what_names_no_app_is_refused(world: World, app: str) -> None:
    """With the field, and without a token."""
    reply = await world.call("POST", "/rest/tokens/", {"allowed_apps": [app]})
    assert reply.status == 422
    assert b"allowed_apps" in reply.body


async def test_a_token_fetches_no_token_and_no_admin_page(world: World) -> None:
    """Else it would never end."""
    headers = {"authorization": f"Bearer {await token(world, uses=['run', 'queue', 'realtime', 'upload'])}"}
    for method, path in (("POST", "/rest/tokens/"), ("GET", "/admin/fleet"), ("POST", "/rest/storage/auth/token")):
        assert (await world.call(method, path, {"allowed_apps": ["echo"]}, headers)).status == 401


async def test_an_open_session_ends_with_its_key(world: World) -> None:
    """Revocation ends a realtime session that is already open, whether it came with the key or with a token."""
    headers = {"host": "gateway.test"}
    socket = Socket(world.gateway, f"/run/acme/echo/realtime?fal_jwt_token={await token(world)}", headers)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(socket.run())
        assert (await socket.hear())["type"] == "websocket.accept"
        await socket.say(text="a")
        assert (await socket.hear())["text"] == "echo:a"
        await world.keys.revoke(KeyId(world.key[:16]), actor="human:test", reason="leaked")
        await world.ports.keys.refresh()
        frame = json.loads(cast("str", (await socket.hear())["text"]))
        assert (frame["type"], frame["error"]) == ("x-fal-error", "UNAUTHORIZED")
        assert (await socket.hear())["code"] == 1008
    assert world.gateway.direct.slots.totals()[1] == 0


async def test_an_open_session_ends_when_its_key_expires(world: World) -> None:
    """Not a rotation later."""
    key = await world.issue(expires_at=world.ports.clock.now() + dt.timedelta(seconds=0.4))
    headers = {"host": "gateway.test", "authorization": f"Key {key}"}
    socket = Socket(world.gateway, "/run/acme/echo/realtime", headers)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(socket.run())
        assert (await socket.hear())["type"] == "websocket.accept"
        assert "UNAUTHORIZED" in cast("str", (await socket.hear())["text"])
        assert (await socket.hear())["code"] == 1008
