"""Realtime: a websocket from the caller to the model, relayed frame by frame (contract, section 2.3).

A caller without the right to call is told before or, when it came with a token, in a frame that makes the JavaScript
client fetch a new one. Everything after that which is not the model's own is a text frame `x-fal-error`. Decides close
codes and limits; the frames' content is the model's business. Called by `asgi` for websockets.
"""

import asyncio
from collections.abc import Coroutine

import aiohttp
import msgspec
from starlette.types import Message, Receive, Scope, Send

from forestay.fleet.grants import Verb
from forestay.gateway.auth import PUBLIC_KEY
from forestay.gateway.bodies import CallerGone
from forestay.gateway.exchange import Exchange
from forestay.gateway.guards import Target, admit, context_of
from forestay.gateway.lanes import UNSEEN, DirectParts, Work, acquire, for_workers, start_deadline
from forestay.gateway.ledger import Ledger
from forestay.gateway.options import Choices, parse_choices
from forestay.gateway.responses import Reply, bad_request, unknown_path
from forestay.gateway.slots import BUSY_SECONDS, SUSPECT_SECONDS, Pool
from forestay.gateway.upstream import Busy, Call, Failed
from forestay.queue.model import ErrorType

NORMAL, GOING_AWAY, POLICY, TOO_BIG, INTERNAL, TRY_LATER = 1000, 1001, 1008, 1009, 1011, 1013
MAX_FRAME = 16 * 1024 * 1024
SEND_SECONDS = 60.0
_ENDED = frozenset({1000, 1001, 1005})  # the caller has what it wanted
_TOKEN = b"fal_jwt_token="
_SENDABLE = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013})
_TOO_BIG_KIND = "FRAME_TOO_LARGE"


class KeyEnded(Exception):
    """The key that opened a session stands no longer."""


class RealtimeRoutes:
    """Handler of websockets."""

    def __init__(self, parts: DirectParts) -> None:
        self._parts = parts

    async def __call__(self, exchange: Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one session from its handshake to its close."""
        exchange.route = "realtime"
        await receive()  # websocket.connect
        work = await self._prepare(exchange, scope)
        if isinstance(work, Reply):
            await deny(exchange, work, scope, send)
            return
        reservation = await self._parts.limits.reserve(work.target, work.predicted_seconds, direct=True)
        if isinstance(reservation, Reply):
            await deny(exchange, reservation, scope, send)
            return
        ledger = Ledger(self._parts, work, reservation)
        try:
            await send({"type": "websocket.accept"})
            exchange.status_code = 101
            await self._serve(work, ledger, receive, send)
        except CallerGone:
            ledger.end(499, ErrorType.CLIENT_DISCONNECTED)
        finally:
            ledger.end(exchange.status_code, ledger.error_type)

    async def _prepare(self, exchange: Exchange, scope: Scope) -> Work | Reply:
        parts, ports, headers = self._parts, self._parts.ports, exchange.headers
        target = await admit(ports, parts.fleet, parts.contracts, exchange, scope, (Verb.REALTIME,))
        if isinstance(target, Reply):
            return target
        if not parts.contracts.of(target.revision).is_realtime(target.endpoint):
            return unknown_path(target.endpoint)
        choices = parse_choices(headers, b"", context_of(ports, target, headers))
        if isinstance(choices, Reply):
            return choices
        if choices.options.upload_policy is not None:
            return bad_request("X-App-Fal-Upload-Policy cannot be used in a realtime session; call or submit instead")
        sent = _headers(target, choices)
        return Work(target, Call("GET", target.endpoint, "", sent, b""), choices, "realtime")

    async def _serve(self, work: Work, ledger: Ledger, receive: Receive, send: Send) -> None:
        """Get a slot and relay; the caller hears of every failure in a frame. A busy worker is asked again."""
        deadline = start_deadline(self._parts.ports, work)
        while True:
            pool = await acquire(self._parts, work, deadline)
            if isinstance(pool, Reply):
                ledger.error_type = ErrorType(pool.cause)
                if ledger.error_type is ErrorType.BAD_REQUEST:
                    await fail(send, pool.cause, UNSEEN, POLICY)
                else:
                    await fail(send, pool.cause, "no replica became free in time", TRY_LATER)
                return
            ledger.start(pool)
            try:
                await self._session(work, pool, ledger, (receive, send))
            except Busy:
                ledger.turned_away()
                self._parts.slots.close(pool, BUSY_SECONDS)
            else:
                return
            finally:
                self._parts.slots.give_back(pool)

    async def _session(self, work: Work, pool: Pool, ledger: Ledger, channel: tuple[Receive, Send]) -> None:
        """Relay one session on a taken slot; raises Busy when the worker has none, before anything was relayed."""
        receive, send = channel
        limit = min(
            work.target.revision.spec.limits.request_timeout_seconds,
            self._parts.ports.settings.gateway.run_timeout_seconds,
        )
        try:
            opened = self._parts.upstream.websocket(pool.replica, work.call.endpoint, "", work.call.headers)
            async with opened as model, asyncio.timeout(limit):
                await relay(model, receive, send, self._until_ended(work))
        except KeyEnded:
            await fail(send, "UNAUTHORIZED", "the key that opened this session was revoked or has expired", POLICY)
        except Failed as error:
            self._parts.slots.close(pool, SUSPECT_SECONDS)
            ledger.error_type = error.kind
            await fail(send, error.kind.value, str(error), INTERNAL)
        except TimeoutError:
            await fail(send, "TIMEOUT", f"sessions end after {limit:g} s", NORMAL)

    async def _until_ended(self, work: Work) -> None:
        """Watch the key through a session: a revocation ends it within two seconds. Raises KeyEnded."""
        key_id = work.target.caller.key_id
        if key_id == PUBLIC_KEY:
            await asyncio.Event().wait()
        await self._parts.ports.keys.until_ended(key_id)
        raise KeyEnded


async def relay(
    model: aiohttp.ClientWebSocketResponse, receive: Receive, send: Send, guard: Coroutine[object, object, None]
) -> None:
    """Pass frames both ways until one side closes; the close travels on. Raises CallerGone, Failed, or as `guard`."""
    try:
        async with asyncio.TaskGroup() as group:
            up = group.create_task(_caller_to_model(model, receive, send))
            down = group.create_task(_model_to_caller(model, send))
            watch = group.create_task(guard)
            await asyncio.wait([up, down, watch], return_when=asyncio.FIRST_COMPLETED)
            for task in (up, down, watch):
                task.cancel()
    except BaseExceptionGroup as errors:  # both may fail at once; the first tells
        raise errors.exceptions[0] from None


async def _caller_to_model(model: aiohttp.ClientWebSocketResponse, receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] != "websocket.receive":
            await model.close(code=_close_code(message))
            if message.get("code") in _ENDED:
                return
            raise CallerGone
        data, text = message.get("bytes"), message.get("text")
        size = len(data) if data is not None else len(text or "")
        if size > MAX_FRAME:
            await fail(send, _TOO_BIG_KIND, f"a frame may have at most {MAX_FRAME} bytes", TOO_BIG)
            return
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await (model.send_bytes(data) if data is not None else model.send_str(text or ""))
        except (ConnectionError, TimeoutError, aiohttp.ClientError):
            raise Failed(ErrorType.RUNNER_DISCONNECTED, "the model closed the connection") from None


async def _model_to_caller(model: aiohttp.ClientWebSocketResponse, send: Send) -> None:
    while True:
        frame = await model.receive()
        match frame.type:
            case aiohttp.WSMsgType.BINARY:
                await _send(send, {"type": "websocket.send", "bytes": frame.data})
            case aiohttp.WSMsgType.TEXT:
                await _send(send, {"type": "websocket.send", "text": frame.data})
            case aiohttp.WSMsgType.CLOSING:  # we are closing, because the caller did: its side tells how it ended
                await asyncio.Event().wait()
            case aiohttp.WSMsgType.CLOSE | aiohttp.WSMsgType.CLOSED:
                await _closed(model, send)
                return
            case aiohttp.WSMsgType.ERROR:
                raise Failed(ErrorType.RUNNER_DISCONNECTED, "the connection to the model broke")
            case _:
                continue


async def _closed(model: aiohttp.ClientWebSocketResponse, send: Send) -> None:
    code = model.close_code
    if code is None or code == 1006:
        raise Failed(ErrorType.RUNNER_DISCONNECTED, "the model closed the connection")
    await _send(send, {"type": "websocket.close", "code": code if _may_send(code) else INTERNAL})


async def deny(exchange: Exchange, reply: Reply, scope: Scope, send: Send) -> None:
    """Refuse a handshake: as an HTTP answer where the server can, else by closing."""
    exchange.status_code, exchange.cause = reply.status_code, reply.why or reply.cause
    if reply.status_code == 401 and _TOKEN in scope["query_string"]:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": '{"status":"error","error":"Unauthorized"}'})
        await send({"type": "websocket.close", "code": POLICY, "reason": "Unauthorized"})
        return
    if "websocket.http.response" in (scope.get("extensions") or {}):
        identity = (b"x-fal-request-id", exchange.request_id.encode())
        headers = [*reply.headers, identity, (b"content-length", b"%d" % len(reply.body))]
        await send({"type": "websocket.http.response.start", "status": reply.status_code, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": reply.body})
        return
    await send({"type": "websocket.close", "code": POLICY})


async def fail(send: Send, kind: str, reason: str, code: int) -> None:
    """Tell the caller in fal's error frame, then close."""
    frame = msgspec.json.encode({"type": "x-fal-error", "error": kind, "reason": reason}).decode()
    await _send(send, {"type": "websocket.send", "text": frame})
    await _send(send, {"type": "websocket.close", "code": code, "reason": kind})


async def _send(send: Send, message: Message) -> None:
    """Send one message; a caller that does not read, or is gone, ends the session."""
    try:
        async with asyncio.timeout(SEND_SECONDS):
            await send(message)
    except (OSError, RuntimeError, TimeoutError):
        raise CallerGone from None


def _headers(target: Target, choices: Choices) -> dict[str, str]:
    sent = dict(choices.options.forward_headers)
    sent["x-fal-request-id"] = str(target.request_id)
    sent["x-fal-endpoint"] = target.endpoint
    return sent | for_workers(target, choices)


def _close_code(message: Message) -> int:
    code = message.get("code")
    return code if isinstance(code, int) and _may_send(code) else NORMAL


def _may_send(code: int) -> bool:
    """Tell whether RFC 6455 allows this code on the wire."""
    return code in _SENDABLE or 3000 <= code <= 4999
