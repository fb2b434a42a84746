"""Realtime sessions: frames both ways, closes, refusals."""

import asyncio
import datetime as dt
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest
from tests.gateway.world import TOKEN_KEY, Socket, World, replica_of

from forestay.gateway import realtime
from forestay.gateway.signed_tokens import Claims, Use, sign_token
from forestay.ids import KeyId, TenantId


@asynccontextmanager
async def session(world: World, query: str = "", key: str | None = "", code: int = 1000) -> AsyncIterator[Socket]:
    """Open a session; the caller leaves at the end of the block."""
    headers = {"host": "gateway.test"}
    if key is not None:
        headers["authorization"] = f"Key {key or world.key}"
    socket = Socket(world.gateway, f"/run/acme/echo/realtime{query}", headers)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(socket.run())
        yield socket
        await socket.say(type="websocket.disconnect", code=code)


def token(world: World, *apps: str) -> str:
    """A realtime token of the first tenant's key."""
    now = world.ports.clock.now()
    key_id = KeyId(world.key.partition(":")[0])
    claims = Claims(TenantId("acme"), key_id, frozenset({Use.REALTIME}), apps, now + dt.timedelta(seconds=60))
    return sign_token(claims, secret=TOKEN_KEY, now=now)


async def test_frames_pass_both_ways(world: World) -> None:
    """Binary and text, unread."""
    async with session(world) as socket:
        assert (await socket.hear())["type"] == "websocket.accept"
        await socket.say(bytes=b"\x81\xa1a\x01")
        assert (await socket.hear())["bytes"] == b"echo:\x81\xa1a\x01"
        await socket.say(text="garbage {")
        assert (await socket.hear())["text"] == "echo:garbage {"


async def test_the_models_close_reaches_the_caller(world: World) -> None:
    """1000 stays 1000, and the slot is free again."""
    async with session(world) as socket:
        await socket.hear()
        await socket.say(text="close")
        assert await socket.hear() == {"type": "websocket.close", "code": 1000}
    assert world.gateway.direct.slots.totals()[1] == 0


async def test_a_models_crash_is_an_error_frame(world: World) -> None:
    """Then a close that the Python client raises for."""
    async with session(world) as socket:
        await socket.hear()
        await socket.say(text="crash")
        frame = json.loads(cast("str", (await socket.hear())["text"]))
        assert (frame["type"], frame["error"]) == ("x-fal-error", "runner_disconnected")
        closed = await socket.hear()
        assert closed["code"] == realtime.INTERNAL
        assert closed["reason"] == "runner_disconnected"  # all that JavaScript's `onError` says of a close


async def test_an_oversized_frame_ends_the_session(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """1009, after an error frame."""
    monkeypatch.setattr(realtime, "MAX_FRAME", 10)
    async with session(world) as socket:
        await socket.hear()
        await socket.say(bytes=b"x" * 11)
        assert "FRAME_TOO_LARGE" in cast("str", (await socket.hear())["text"])
        assert (await socket.hear())["code"] == realtime.TOO_BIG


async def test_a_token_opens_the_app_that_it_names(world: World) -> None:
    """By alias alone, as the clients ask for it."""
    async with session(world, f"?fal_jwt_token={token(world, 'echo')}", key=None) as socket:
        assert (await socket.hear())["type"] == "websocket.accept"
        await socket.say(text="a")
        assert (await socket.hear())["text"] == "echo:a"


async def test_a_token_for_another_app_makes_the_client_fetch_a_new_one(world: World) -> None:
    """The frame that JavaScript understands, then a close."""
    async with session(world, f"?fal_jwt_token={token(world, 'other')}", key=None) as socket:
        assert (await socket.hear())["type"] == "websocket.accept"
        assert json.loads(cast("str", (await socket.hear())["text"])) == {"status": "error", "error": "Unauthorized"}
        assert (await socket.hear())["type"] == "websocket.close"


async def test_a_revoked_keys_token_opens_nothing(world: World) -> None:
    """A token lives no longer than its key."""
    made = token(world, "echo")
    await world.keys.revoke(KeyId(world.key.partition(":")[0]), actor="human:test", reason="test")
    async with session(world, f"?fal_jwt_token={made}", key=None) as socket:
        await socket.hear()
        assert "Unauthorized" in cast("str", (await socket.hear())["text"])


async def test_no_credential_is_a_401_handshake(world: World) -> None:
    """Refused before the session opens."""
    async with session(world, key=None) as socket:
        refused = await socket.hear()
        assert (refused["type"], refused["status"]) == ("websocket.http.response.start", 401)


@pytest.mark.parametrize("path", ["/run/acme/none/realtime", "/run/acme/echo/edit", "/queue/acme/echo/realtime", "/"])
async def test_what_is_no_realtime_endpoint_is_a_404_handshake(world: World, path: str) -> None:
    """Unknown apps, plain endpoints and other surfaces."""
    socket = Socket(world.gateway, path, {"host": "gateway.test", "authorization": f"Key {world.key}"})
    async with asyncio.timeout(5):
        await socket.run()
        assert (await socket.hear())["status"] == 404


async def test_a_dead_model_is_an_error_frame(world: World) -> None:
    """The session opened, so the failure is told inside it."""
    await world.set_replica(replica_of("http://127.0.0.1:1"))
    async with session(world) as socket:
        await socket.hear()
        assert "runner_connection_refused" in cast("str", (await socket.hear())["text"])


async def test_a_session_leaves_a_fact(world: World) -> None:
    """Lane realtime, with the time it held its slot."""
    async with session(world) as socket:
        await socket.hear()
        await socket.say(text="close")
        await socket.hear()
    await world.gateway.direct.facts.flush()
    (fact,) = world.facts.kept
    assert (fact.lane, fact.outcome) == ("realtime", "succeeded")
    assert fact.device_seconds > 0


@pytest.mark.parametrize(("code", "outcome"), [(1000, "succeeded"), (1005, "succeeded"), (1006, "cancelled")])
async def test_a_caller_s_own_close_is_no_failure_of_the_model(world: World, code: int, outcome: str) -> None:
    """In good order it is a success, else the caller left; neither counts against the model, nor closes its slot."""
    async with session(world, code=code) as socket:
        await socket.hear()
        await socket.say(text="a")
        await socket.hear()
    await world.gateway.direct.facts.flush()
    (fact,) = world.facts.kept
    assert (fact.outcome, fact.cause) == (outcome, None if outcome == "succeeded" else "caller")
