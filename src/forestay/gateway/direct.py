"""The direct lane: synchronous calls and streams, from the caller to a live replica in one hop or two.

Guards as for a submit, then a slot, then the call, relayed as it comes. No queue and no retry (contract, section 2.1),
but a replica that refused the connection cannot have seen the call, so the next one is tried. A model that is loaded
nowhere is wanted at once and waited for. A caller that leaves cancels the work. Called by `asgi` for the run surface.
"""

import asyncio
import dataclasses
import functools
import re
from urllib.parse import quote, urlencode

from starlette.types import Receive, Scope, Send

from forestay.fleet.grants import Verb
from forestay.gateway.bodies import CallerGone, Gone, read_body
from forestay.gateway.connections import CallError, Response
from forestay.gateway.content import Refused, Rewritten
from forestay.gateway.exchange import Exchange, Said
from forestay.gateway.guards import Target, admit, context_of
from forestay.gateway.lanes import DirectParts, Work, acquire, for_workers, start_deadline
from forestay.gateway.ledger import Ledger, files_told
from forestay.gateway.limits import Reservation
from forestay.gateway.options import Choices, is_clean, note_tags, parse_choices, query_fields
from forestay.gateway.refused_inputs import keep_refused, submission_of
from forestay.gateway.responses import Reply, request_error
from forestay.gateway.result import caller_headers, served_from, with_media_urls
from forestay.gateway.slots import BUSY_SECONDS, SUSPECT_SECONDS, Pool
from forestay.gateway.streams import rewrite_lines, send_chunks
from forestay.gateway.upstream import Busy, Call, Failed, failure_of
from forestay.handshake import FILES_HEADER, LIFETIME_HEADER, POLICY_HEADER, PREDICTED_HEADER, RISK_HEADER
from forestay.ids import ReplicaId
from forestay.queue.model import ErrorType
from forestay.telemetry import tracing
from forestay.telemetry.logs import logger

MAX_REFUSALS = 3
CONTENT_REFUSAL = "content_policy_violation"  # fal's word for it in a model's 422
MAX_WHOLE = 64 * 1024 * 1024  # a JSON answer is read whole (its media names become URLs) up to this size
_OWN_QUERY = ("fal_jwt_token", "fal_webhook", "fal_max_queue_length")
_QUERY_SAFE = "/?:@!$&'()*+,;=-._~%"
_PLAIN_QUERY = re.compile(rb"[A-Za-z0-9/?:@!$&'()*+,;=._~%-]*")
_ERROR_TYPES = {kind.value: kind for kind in ErrorType}
_EVENTS = b"text/event-stream"
_LOG = logger("gateway")


class DirectRoutes:
    """Handlers of the run surface."""

    def __init__(self, parts: DirectParts) -> None:
        self._parts = parts
        self._ports = parts.ports

    async def __call__(self, exchange: Exchange, scope: Scope, receive: Receive, send: Send) -> Reply | None:
        """Answer one call; None when the answer has been sent already, or nobody is left to read one."""
        exchange.route = "run"
        work = await self._prepare(exchange, scope, receive)
        if not isinstance(work, Work):
            return work
        exchange.route = "stream" if work.lane == "stream" else "run"
        reservation = await self._parts.limits.reserve(work.target, work.predicted_seconds, direct=True)
        if isinstance(reservation, Reply):
            return reservation
        exchange.limit_headers = reservation.headers
        judged = await self._judged(exchange, work, reservation)
        if isinstance(judged, Reply):
            return judged
        work = judged
        if exchange.risk:
            headers = {**work.call.headers, RISK_HEADER: f"{exchange.risk:.4f}"}
            work = dataclasses.replace(work, call=dataclasses.replace(work.call, headers=headers))
        return await self._run(exchange, Ledger(self._parts, work, reservation), work, receive, send)

    async def _judged(self, exchange: Exchange, work: Work, reservation: Reservation) -> Reply | Work:
        """Judge the input, and put in other words what the policy wants so; one that is refused costs nothing."""
        try:
            refused = await self._parts.content.check(exchange, work.target, work.call.body, work.call.query)
            if isinstance(refused, Refused) and refused.answer is not None:
                await keep_refused(self._ports, work.target, submission_of(work), refused)
        except BaseException:
            self._parts.limits.give_back(reservation, whole=True)
            raise
        if refused is None:
            return work
        if isinstance(refused, Rewritten):
            return dataclasses.replace(work, call=dataclasses.replace(work.call, body=refused.body))
        self._parts.limits.give_back(reservation, whole=True)
        return refused.reply

    async def _prepare(self, exchange: Exchange, scope: Scope, receive: Receive) -> Work | Reply | None:
        """Pass the guards: app, caller, endpoint, options, body, schema, prediction."""
        parts, headers, method = self._parts, exchange.headers, scope["method"]
        target = await admit(self._ports, parts.fleet, parts.contracts, exchange, scope, verbs_of(exchange))
        if isinstance(target, Reply):
            return target
        choices = parse_choices(headers, scope["query_string"], context_of(self._ports, target, headers))
        if isinstance(choices, Reply):
            return choices
        note_tags(exchange, choices)
        gateway = self._ports.settings.gateway
        body = await read_body(
            receive, headers, max_bytes=gateway.max_body_bytes, timeout_seconds=gateway.body_timeout_seconds
        )
        if isinstance(body, Gone):
            return None
        if isinstance(body, Reply):
            return body
        foretold = parts.predictions.of(target, body if method == "POST" else None)
        if isinstance(foretold, Reply):
            return foretold
        exchange.said = Said(target.revision, target.endpoint, body, foretold.seconds)
        stream = Verb.STREAM in verbs_of(exchange)
        sent = {**model_headers(target, choices, headers), PREDICTED_HEADER: f"{foretold.seconds:.6g}"}
        if method == "POST" and body and parts.contracts.of(target.revision).takes_json(target.endpoint):
            sent["content-type"] = "application/json"  # as it was read here; `curl --data` calls it a form
        call = Call(method, target.endpoint, own_query(scope), sent, body)
        return Work(target, call, choices, "stream" if stream else "direct", foretold.seconds, foretold.features)

    async def _run(self, exchange: Exchange, ledger: Ledger, work: Work, receive: Receive, send: Send) -> Reply | None:
        exchange.on_first_byte = ledger.first_byte
        try:
            attempt = functools.partial(self._attempt, exchange, work, ledger, send)
            answered = await self._parts.sentinels.stop_when_gone(receive, attempt)
            if isinstance(answered, Reply):
                exchange.status_code = answered.status_code
        except CallerGone:
            exchange.status_code = 499
            ledger.end(499, ErrorType.CLIENT_DISCONNECTED)
            await self._tell_model(work, ledger)
            return None
        except TimeoutError:
            late = Failed(ErrorType.REQUEST_TIMEOUT, f"the model did not finish within {self._patience(work):g} s")
            return _failed_reply(exchange, work, ledger, late)
        except Failed as error:
            return _failed_reply(exchange, work, ledger, error)
        finally:
            ledger.files = exchange.files
            ledger.end(exchange.status_code or 500, ledger.error_type)
        return answered

    def _patience(self, work: Work) -> float:
        """Return for how many seconds a model may work on one call."""
        limit = work.target.revision.spec.limits.request_timeout_seconds
        return min(limit, self._ports.settings.gateway.run_timeout_seconds)

    async def _attempt(
        self, exchange: Exchange, work: Work, ledger: Ledger, send: Send, scope: asyncio.Timeout
    ) -> Reply | None:
        """Find a slot and call; a replica that cannot have seen the call is no attempt.

        A worker without a free slot (queued requests have them) sends the call back into the line, until its deadline.
        """
        deadline, refusals = start_deadline(self._ports, work), 0
        loop, patience = asyncio.get_running_loop(), self._patience(work)
        while refusals < MAX_REFUSALS:
            pool = await acquire(self._parts, work, deadline)
            if isinstance(pool, Reply):
                ledger.error_type = _error_type_of(pool)
                return pool
            ledger.start(pool)
            scope.reschedule(loop.time() + patience)
            try:
                return await self._call(exchange, work, pool, send)
            except Busy:
                ledger.turned_away()
                self._parts.slots.close(pool, BUSY_SECONDS)
            except Failed as error:
                self._parts.slots.close(pool, SUSPECT_SECONDS)
                if not error.untouched:
                    raise
                ledger.error_type = error.kind
                refusals += 1
            finally:
                self._parts.slots.give_back(pool)
            scope.reschedule(None)
        kind = ledger.error_type or ErrorType.RUNNER_SCHEDULING_FAILURE
        return request_error(kind, f"{work.target.model.model_id}: no replica took the call")

    async def _call(self, exchange: Exchange, work: Work, pool: Pool, send: Send) -> Reply | None:
        try:
            async with await self._parts.upstream.call(pool.replica, work.call) as response:
                if pool.replica.report.direct_url is None:  # a worker's word; a model's own is none
                    exchange.files = files_told(response.head.get(FILES_HEADER))
                return await self._relay(exchange, response, send, pool.replica.report.replica_id)
        except (CallError, OSError) as error:
            raise failure_of(error) from None

    async def _relay(self, exchange: Exchange, response: Response, send: Send, replica_id: ReplicaId) -> Reply | None:
        """Pass the answer on: JSON whole, everything else as it comes."""
        headers = (*caller_headers(response.head.headers, response.status), *served_from(replica_id))
        kind = response.head.get("content-type") or ""
        length = response.content_length
        if kind.startswith("text/event-stream"):
            chunks = rewrite_lines(response.pieces(), exchange.bases)
            await send_chunks(exchange, chunks, send, response.status, headers)
            return None
        if (length is not None and length <= MAX_WHOLE) or (length is None and "json" in kind):
            body = await _read_whole(response)
            if response.status == 422 and CONTENT_REFUSAL.encode() in body:  # the model's own refusal of a prompt
                exchange.cause = CONTENT_REFUSAL
            return Reply(response.status, with_media_urls(body, exchange.bases), headers)
        await send_chunks(exchange, response.pieces(), send, response.status, headers)
        return None

    async def _tell_model(self, work: Work, ledger: Ledger) -> None:
        """A model whose server we speak to ourselves learns that the caller left, if it has an endpoint for that."""
        pool, endpoint = ledger.pool, work.target.endpoint
        if pool is None or not pool.in_blocks:
            return  # the worker sees the broken connection and cancels
        if not self._parts.contracts.of(work.target.revision).offers_cancel(endpoint):
            return
        try:
            await self._parts.upstream.cancel(pool.replica, endpoint, str(work.target.request_id))
        except (Failed, TimeoutError, CallError) as error:
            _LOG.info("gateway.cancel_not_heard", request_id=str(work.target.request_id), reason=str(error))


def verbs_of(exchange: Exchange) -> tuple[Verb, ...]:
    """Return what a call does: an endpoint of its own streams; any other that is asked for events may answer whole."""
    if exchange.path.rstrip("/").endswith("/stream"):
        return (Verb.STREAM,)
    asked = exchange.headers.get(b"accept") == _EVENTS
    return (Verb.RUN, Verb.STREAM) if asked else (Verb.RUN,)


def own_query(scope: Scope) -> str:
    """Return the query string for the model: without the fields that are meant for the platform."""
    raw: bytes = scope["query_string"]
    if not raw or not any(name.encode() in raw for name in _OWN_QUERY):
        return raw.decode("ascii") if _PLAIN_QUERY.fullmatch(raw) else quote(raw, safe=_QUERY_SAFE)
    kept = {name: value for name, value in query_fields(raw).items() if name not in _OWN_QUERY}
    return urlencode(kept)


def model_headers(target: Target, choices: Choices, headers: dict[bytes, bytes]) -> dict[str, str]:
    """Return what the model is told beside the body (contract, section 1.5)."""
    sent = dict(choices.options.forward_headers)
    sent["x-fal-request-id"] = str(target.request_id)
    sent["x-fal-endpoint"] = target.endpoint
    sent |= for_workers(target, choices)
    lifetime = choices.options.object_lifetime_seconds
    if lifetime is not None:
        sent[LIFETIME_HEADER] = str(lifetime)
    policy = choices.options.upload_policy
    if policy is not None:
        sent[POLICY_HEADER] = policy
    sent["traceparent"] = tracing.for_model(choices.options.traceparent, target.request_id, 1)
    sent["accept-encoding"] = "identity"
    content_type = headers.get(b"content-type")
    if content_type is not None and is_clean(content_type):
        sent["content-type"] = content_type.decode("latin-1")
    return sent


async def _read_whole(response: Response) -> bytes:
    if response.content_length is not None:
        return await response.read()
    pieces: list[bytes] = []
    size = 0
    async for piece in response.pieces():
        size += len(piece)
        if size > MAX_WHOLE:
            raise Failed(ErrorType.RUNNER_INCOMPLETE_RESPONSE, f"the answer is larger than {MAX_WHOLE} bytes")
        pieces.append(piece)
    return b"".join(pieces)


def _failed_reply(exchange: Exchange, work: Work, ledger: Ledger, error: Failed) -> Reply:
    """Answer in fal's words; once the answer has begun, only breaking it off tells the caller."""
    reply = request_error(error.kind, f"{work.target.model.model_id}: {error}")
    ledger.end(reply.status_code, error.kind)
    if exchange.status_code:
        raise error
    return reply


def _error_type_of(reply: Reply) -> ErrorType | None:
    return _ERROR_TYPES.get(reply.cause)
