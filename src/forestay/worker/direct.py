"""The worker's own server: calls, streams and websockets that gateways hand over directly (decision 0002).

It decides who may come in (the proof of `FORESTAY_INTERNAL_KEY`) and whether there is a slot for it; a call waits a
quarter of a second for its turn, no longer, and is never retried. A call whose gateway goes away is cancelled at the
model; its slot stays taken until the model returns. Served by `worker/process.py`.
"""

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from typing import Protocol, assert_never, cast

import msgspec

from forestay.clock import Clock
from forestay.handshake import (
    AUTH_HEADER,
    CallVerifier,
    sign_reply,
)
from forestay.ids import RequestId, parse_request_id
from forestay.quality.probes import PROBE_HEADER, asks_adapters
from forestay.queue.model import Answer
from forestay.telemetry.logs import logger
from forestay.worker.answer_files import parsed_or_none
from forestay.worker.attempt import endpoint_of
from forestay.worker.conclude import ReplicaStep, allowed_headers, explain, replica_step
from forestay.worker.direct_caller import NOT_FOR_MODELS, running_of
from forestay.worker.direct_judging import POLICY_CLOSE, Called, DirectJudging, session_error
from forestay.worker.events import StreamTooLarge
from forestay.worker.hosts.host import Answered, CallRequest, CallResult, Host, ModelSocket, Stream, UpstreamFailed
from forestay.worker.inputs import Inputs
from forestay.worker.judging import plain_headers
from forestay.worker.mirroring import AnswerCopy, Mirror
from forestay.worker.replica import DIRECT_ATTEMPT, Replica, Running
from forestay.worker.said_before import SaidBefore
from forestay.worker.slot_blocks import Need, SlotBlocks

log = logger("worker")
Message = MutableMapping[str, object]
Scope = MutableMapping[str, object]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_BODY_BYTES = 64 * 1024 * 1024
BODY_SECONDS = 60.0
_WEBSOCKET_OWN = frozenset({"sec-websocket-key", "sec-websocket-version", "sec-websocket-extensions"})


class FindReplica(Protocol):
    """Finds a replica of this worker."""

    def __call__(self, replica_id: str) -> Replica | None:
        """Return it, None when there is none of that id."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class _Call:
    """One call that has come in and proved itself."""

    replica: Replica
    path: str  # the model's, with its query
    method: str
    headers: Mapping[str, str]
    request_id: RequestId
    proof: str
    receive: Receive
    send: Send
    running: Running
    body: bytes = b""  # what the caller sent


class DirectLane:
    """An ASGI application."""

    def __init__(
        self,
        find_replica: FindReplica,
        inputs: Inputs,
        internal_key: str,
        clock: Clock,
        blocks: SlotBlocks,
        judging: DirectJudging,
    ) -> None:
        self._judging = judging
        self._find_replica = find_replica
        self._inputs = inputs
        self._key = internal_key
        self._verifier = CallVerifier(internal_key)
        self._clock = clock
        self._blocks = blocks
        self.calls = 0  # in flight
        self.mirror: Mirror | None = None  # whoever offers answers to rollouts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection."""
        if scope["type"] not in {"http", "websocket"}:
            return
        raw = scope.get("raw_path") or str(scope["path"]).encode()
        path = cast("bytes", raw).decode("latin-1").partition("?")[0]
        if path == "/health":
            await _say(send, Answer(200, {"content-type": "application/json"}, b'{"status":"ready"}'), "")
            return
        headers = _headers(scope)
        method = "GET" if scope["type"] == "websocket" else str(scope["method"])
        now = self._clock.now().timestamp()
        nonce = self._verifier.check(headers.get(AUTH_HEADER.lower()), method=method, path=path, now_seconds=now)
        if nonce is None:
            await _refuse(scope, send, _plain(401, "no valid proof of FORESTAY_INTERNAL_KEY"), "")
            return
        self.calls += 1
        try:
            await self._dispatch(scope, path, (receive, send), sign_reply(self._key, nonce))
        finally:
            self.calls -= 1

    async def _dispatch(self, scope: Scope, path: str, channel: tuple[Receive, Send], proof: str) -> None:
        receive, send = channel
        kind, _, rest = path.removeprefix("/").partition("/")
        replica_id, _, inner = rest.partition("/")
        replica = self._find_replica(replica_id)
        if replica is None or kind not in {"direct", "slots"}:
            await _refuse(scope, send, _plain(404, "no such replica here", {"x-forestay-gone": "1"}), proof)
            return
        if kind == "slots":
            await self._lend(replica, receive, send, proof)
            return
        headers = _headers(scope)
        request_id = parse_request_id(headers.get("x-fal-request-id", ""))
        if request_id is None:
            await _refuse(scope, send, _plain(400, "x-fal-request-id is missing or no request id"), proof)
            return
        query = cast("bytes", scope.get("query_string") or b"").decode("latin-1")
        target = f"/{inner}?{query}" if query else f"/{inner}"
        method = str(scope.get("method", "GET"))
        running = running_of(headers, request_id, f"/{inner}")
        guarded = self._judging.guards(replica.revision.spec, running.tenant_id, request_id)
        running = dataclasses.replace(running, guarded=guarded)
        call = _Call(replica, target, method, headers, request_id, proof, receive, send, running)
        host = replica.host
        if host is None or not await replica.take_in_turn(running):
            await _refuse(scope, send, _plain(429, "no free slot", {"x-forestay-busy": "1"}), proof)
            return
        try:
            if scope["type"] == "websocket":
                await self._relay_socket(call, host)
            else:
                await self._relay_call(call, host)
        finally:
            replica.release(running)

    async def _lend(self, replica: Replica, receive: Receive, send: Send, proof: str) -> None:
        try:
            asked = msgspec.json.decode(await _body(receive), type=_Ask)
        except (msgspec.DecodeError, ConnectionError, TimeoutError):
            await _say(send, _plain(400, 'expected {"gateway": id, "slots": n, "seconds": s}'), proof)
            return
        need = Need(asked.slots, asked.seconds, asked.awaited, asked.returned)
        block = self._blocks.ask(replica, asked.gateway, need)
        left = max(0.0, block.ends_at - self._clock.monotonic()) if block.slots else 0.0
        body = json.dumps({"granted": block.slots, "seconds": left, "recalled": block.recalled}).encode()
        await _say(send, Answer(200, {"content-type": "application/json"}, body), proof)

    # Calls

    async def _relay_call(self, call: _Call, host: Host) -> None:
        try:
            body = await _body(call.receive)
        except (ConnectionError, TimeoutError):
            await _say(call.send, _plain(400, "the body did not arrive whole"), call.proof)
            return
        spec = call.replica.revision.spec
        endpoint = call.path.partition("?")[0]
        call = dataclasses.replace(call, body=body)
        prepared = await self._inputs.prepare(body, endpoint_of(spec, endpoint))
        if isinstance(prepared, bytes) and call.running.guarded:
            whole = body if call.method == "POST" and "?" not in call.path and body else None
            refused = await self._judging.call(call.replica, call.running, call.path, prepared, whole)
            prepared = refused or prepared
        if isinstance(prepared, Answer):
            await _say(call.send, prepared, call.proof)
            return
        request = CallRequest(
            request_id=call.request_id,
            attempt=DIRECT_ATTEMPT,
            endpoint=call.path,
            headers=_model_headers(call, endpoint),
            body=prepared,
            timeout_seconds=spec.limits.request_timeout_seconds,
            method=call.method,
        )
        gone = asyncio.Event()
        copy = self._copy_of(call)
        began = self._clock.monotonic()
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(self._watch_caller(call, host, endpoint, gone))
            await self._stream(call if copy is None else dataclasses.replace(call, send=copy.send), host, request, gone)
            watching.cancel()
        if copy is not None and self.mirror is not None:
            self.mirror.offer_direct(call.replica, call.running, body, copy, self._clock.monotonic() - began)

    def _copy_of(self, call: _Call) -> AnswerCopy | None:
        """Return what keeps a copy of the answer, where a rollout may mirror the call."""
        plain = call.method == "POST" and "?" not in call.path
        if self.mirror is None or not plain or not self.mirror.wants(call.replica, call.running, call.body):
            return None
        return AnswerCopy(call.send)

    async def _stream(self, call: _Call, host: Host, request: CallRequest, gone: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(request.timeout_seconds), host.stream(request) as opened:
                if not isinstance(opened, Stream):
                    await self._fail(call, opened, gone)
                    return
                if not gone.is_set():
                    await (self._pass_on_judged if call.running.guarded else self._pass_on)(call, opened, gone)
                if call.replica.revision.spec.quality.canaries.inputs and asks_adapters(parsed_or_none(call.body)):
                    call.replica.adapter_at = self._clock.now()
                await self._treat(call, replica_step(opened.status_code, opened.headers))
        except TimeoutError:  # the answer had begun: all that is left is to break it off
            call.replica.condemn(f"direct call {request.request_id} exceeded request_timeout")
            raise ConnectionError("the model took longer than its request_timeout") from None

    async def _pass_on(self, call: _Call, stream: Stream, gone: asyncio.Event) -> None:
        """Relay piece by piece. Once the caller is gone the connection to the model ends, and so does its stream."""
        call.replica.answered += 1
        call.replica.learn_hints(stream.headers.get("x-fal-runner-hints"))
        headers = {**allowed_headers(stream.headers), AUTH_HEADER.lower(): call.proof}
        await self._relay_pieces(call, stream, headers, gone)

    async def _relay_pieces(self, call: _Call, stream: Stream, headers: Mapping[str, str], gone: asyncio.Event) -> None:
        await call.send(_start(stream.status_code, headers))
        async for piece in stream.pieces:
            if gone.is_set():
                return
            await call.send({"type": "http.response.body", "body": piece, "more_body": True})
        await call.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pass_on_judged(self, call: _Call, stream: Stream, gone: asyncio.Event) -> None:
        """Relay what the guard lets go: events one by one, everything else as a whole."""
        call.replica.answered += 1
        call.replica.learn_hints(stream.headers.get("x-fal-runner-hints"))
        headers = {**allowed_headers(stream.headers), AUTH_HEADER.lower(): call.proof}
        kind = stream.headers.get("content-type", "")
        events = kind.startswith("text/event-stream")
        if not events and self._judging.passes(call.replica, call.running, call.path, kind):
            await self._relay_pieces(call, stream, headers, gone)
            return
        if not events or stream.status_code >= 400:
            answer = Answer(stream.status_code, allowed_headers(stream.headers), await _whole(stream.pieces))
            called = Called(call.body, call.path, stream.headers.get(PROBE_HEADER))
            answer = await self._judging.whole(call.replica, call.running, answer, called)
            if not gone.is_set():
                await _say(call.send, answer, call.proof)
            return
        judged = self._judging.judges(call.replica, call.running)
        await call.send(_start(stream.status_code, plain_headers(headers) if judged else headers))
        async for event in self._judging.events(call.replica, call.running, stream.pieces):
            if gone.is_set():
                return
            await call.send({"type": "http.response.body", "body": event, "more_body": True})
        await call.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _fail(self, call: _Call, result: CallResult, gone: asyncio.Event) -> None:
        if isinstance(result, Answered):
            answer, step = Answer(result.status_code, allowed_headers(result.headers), result.body), ReplicaStep.KEEP
        else:
            _, answer, _, step = explain(result)
        if call.running.guarded and isinstance(result, Answered | UpstreamFailed):
            answer = await self._judging.whole(call.replica, call.running, answer, Called(call.body, call.path))
        if not gone.is_set():
            await _say(call.send, answer, call.proof)
        await self._treat(call, step)

    async def _treat(self, call: _Call, step: ReplicaStep) -> None:
        match step:
            case ReplicaStep.KEEP:
                return
            case ReplicaStep.VERIFY:
                await call.replica.verify(f"direct call {call.request_id}")
            case ReplicaStep.DRAIN:
                call.replica.drain("the model asked to be stopped (x-fal-stop-runner)")
            case ReplicaStep.KILL:
                call.replica.condemn(f"direct call {call.request_id} exceeded request_timeout")
            case _:
                assert_never(step)

    async def _watch_caller(self, call: _Call, host: Host, endpoint: str, gone: asyncio.Event) -> None:
        """Keep a standing receive: a send after the caller has gone would succeed in silence."""
        while (await call.receive())["type"] != "http.disconnect":
            continue
        gone.set()
        await host.cancel(call.request_id, endpoint)

    # Websockets

    async def _relay_socket(self, call: _Call, host: Host) -> None:
        headers = {
            name: value
            for name, value in _model_headers(call, call.path.partition("?")[0]).items()
            if name not in _WEBSOCKET_OWN and name != "content-type"
        }
        await call.receive()  # websocket.connect
        async with host.websocket(call.path, headers) as model:
            if model is None:
                await call.send({"type": "websocket.close", "code": 1011, "reason": "the model refused the session"})
                return
            accept: Message = {
                "type": "websocket.accept",
                "subprotocol": model.subprotocol,
                "headers": [(AUTH_HEADER.lower().encode(), call.proof.encode())],
            }
            await call.send(accept)
            async with asyncio.TaskGroup() as group:
                ways = [
                    group.create_task(self._from_caller(call, model)),
                    group.create_task(self._from_model(call, model)),
                ]
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in ways:
                    way.cancel()

    async def _from_caller(self, call: _Call, model: ModelSocket) -> None:
        """Pass frames to the model until the caller closes; leaving the block then closes the model's side."""
        before = SaidBefore()
        while True:
            message = await call.receive()
            if message["type"] != "websocket.receive":
                return
            frame = message.get("bytes") if message.get("bytes") is not None else message.get("text")
            if call.running.guarded:
                sent = cast("str | bytes", frame)
                refused = await self._judging.frame_in(call.replica, call.running, call.path, sent, before)
                if refused is not None:
                    await self._end_session(call, refused)
                    return
            try:
                await model.send(cast("str | bytes", frame))
            except ConnectionError:
                return

    async def _from_model(self, call: _Call, model: ModelSocket) -> None:
        before = SaidBefore()
        while (frame := await model.receive()) is not None:
            if call.running.guarded:
                refused = await self._judging.frame_out(call.replica, call.running, frame, before)
                if refused is not None and not refused.body:
                    continue
                if refused is not None:
                    await self._end_session(call, refused)
                    return
            kind = "text" if isinstance(frame, str) else "bytes"
            await call.send({"type": "websocket.send", kind: frame})
        code = model.close_code if model.close_code not in {1005, 1006} else 1011
        await call.send({"type": "websocket.close", "code": code})

    async def _end_session(self, call: _Call, refused: Answer) -> None:
        """Tell the caller why the session ends, and end it."""
        await call.send({"type": "websocket.send", "text": session_error(refused)})
        await call.send({"type": "websocket.close", "code": POLICY_CLOSE})


class _Ask(msgspec.Struct):
    """The body of `POST /slots/{replica_id}`."""

    gateway: str
    slots: int
    seconds: float
    awaited: int = 0
    returned: int = 0


def _headers(scope: Scope) -> dict[str, str]:
    pairs = cast("list[tuple[bytes, bytes]]", scope["headers"])
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in pairs}


def _model_headers(call: _Call, endpoint: str) -> dict[str, str]:
    kept = {
        name: value
        for name, value in call.headers.items()
        if name not in NOT_FOR_MODELS and not name.startswith("x-forestay-")
    }
    return {**kept, "x-fal-request-id": str(call.request_id), "x-fal-endpoint": endpoint}


async def _body(receive: Receive) -> bytes:
    """Read the whole body; ConnectionError when the caller leaves or sends too much."""
    collected = bytearray()
    async with asyncio.timeout(BODY_SECONDS):
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise ConnectionError("the caller left")
            collected += cast("bytes", message.get("body") or b"")
            if len(collected) > MAX_BODY_BYTES:
                raise ConnectionError("the body is too large")
            if not message.get("more_body", False):
                return bytes(collected)


async def _whole(pieces: AsyncIterator[bytes]) -> bytes:
    """Read a whole answer; StreamTooLarge beyond what may be judged."""
    collected = bytearray()
    async for piece in pieces:
        collected += piece
        if len(collected) > MAX_BODY_BYTES:
            raise StreamTooLarge(f"the answer is larger than {MAX_BODY_BYTES} bytes")
    return bytes(collected)


def _plain(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(
        status, {"content-type": "application/json", **(headers or {})}, json.dumps({"detail": detail}).encode()
    )


def _start(status: int, headers: Mapping[str, str], kind: str = "http.response.start") -> Message:
    encoded = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers.items()]
    return {"type": kind, "status": status, "headers": encoded}


async def _say(send: Send, answer: Answer, proof: str) -> None:
    headers = {**answer.headers, "content-length": str(len(answer.body)), AUTH_HEADER.lower(): proof}
    await send(_start(answer.status_code, headers))
    await send({"type": "http.response.body", "body": answer.body, "more_body": False})


async def _refuse(scope: Scope, send: Send, answer: Answer, proof: str) -> None:
    """Answer before anything began; a websocket's handshake is denied with the same answer where the server can."""
    if scope["type"] == "http":
        await _say(send, answer, proof)
        return
    extensions = cast("Mapping[str, object]", scope.get("extensions") or {})
    if "websocket.http.response" not in extensions:
        await send({"type": "websocket.close", "code": 1013})
        return
    headers = {**answer.headers, AUTH_HEADER.lower(): proof}
    await send(_start(answer.status_code, headers, "websocket.http.response.start"))
    await send({"type": "websocket.http.response.body", "body": answer.body, "more_body": False})
