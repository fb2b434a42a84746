"""The queue surface: submit, status, status stream, result, cancel (contract, sections 1.2 to 1.4).

Each handler reads as its policy: guards first, in the order of the architecture's rulings (authentication, the app,
its endpoint, options, body, schema), then the act. Another tenant's request is unknown here. Called by `asgi`.
"""

import asyncio
import dataclasses

from starlette.types import Receive, Scope, Send

from forestay.capacity.view import Foretold
from forestay.errors import Unavailable
from forestay.fleet.grants import Verb
from forestay.fleet.keys import Caller
from forestay.gateway.admission import AdmissionDesk
from forestay.gateway.auth import PUBLIC_KEY, authenticate_asked, public_caller, shows_credential
from forestay.gateway.board import StatusBoard, Watched
from forestay.gateway.bodies import Gone, Sentinels, read_body, stop_when_caller_leaves
from forestay.gateway.content import ContentGate, Refused, Rewritten
from forestay.gateway.exchange import Exchange, Said
from forestay.gateway.fleet_view import FleetView
from forestay.gateway.guards import Target, admit, context_of
from forestay.gateway.limits import LimitGate, Reservation
from forestay.gateway.options import Choices, fingerprint, note_tags, parse_choices, query_fields
from forestay.gateway.ports import GatewayPorts
from forestay.gateway.prediction import Predictions
from forestay.gateway.protocol import FieldError, SubmitAnswer
from forestay.gateway.refused_inputs import keep_refused
from forestay.gateway.responses import (
    ALREADY_COMPLETED,
    CANCEL_REQUESTED,
    CANCELLED_ANSWER,
    Reply,
    field_errors,
    json_reply,
    method_not_allowed,
    not_ready,
    queue_full,
    unknown_path,
    unknown_request,
)
from forestay.gateway.result import replay
from forestay.gateway.routing import (
    Operation,
    RequestPath,
    has_request_segment,
    parse_app_path,
    parse_request_path,
    request_url,
)
from forestay.gateway.status import answer, events, poll, wants_logs
from forestay.gateway.streams import EVENT_STREAM, send_chunks
from forestay.gateway.submit import QueueWaker, commit, record_undelivered
from forestay.gateway.validation import Contracts
from forestay.ids import ModelId, RequestId
from forestay.queue.model import FINAL, LogLine, Snapshot, State, Submission
from forestay.queue.store import Accepted, IdempotencyConflict, QueueFull, Stored
from forestay.telemetry.logs import logger

RESULT_PATIENCE_SECONDS = 10.0  # a restart of the database takes about two
RESULT_PAUSE_SECONDS = 0.25
MAX_LINES = 50  # that say what the content policy rewrote in one request
_LOG = logger("gateway")


@dataclasses.dataclass(frozen=True, slots=True)
class QueueParts:
    """What the queue's routes share with the rest of the gateway."""

    ports: GatewayPorts
    fleet: FleetView
    contracts: Contracts
    board: StatusBoard
    waker: QueueWaker
    sentinels: Sentinels
    predictions: Predictions
    limits: LimitGate
    admission: AdmissionDesk
    content: ContentGate


class QueueRoutes:
    """Handlers of the queue surface."""

    def __init__(self, parts: QueueParts) -> None:
        self._parts = parts
        self._ports = parts.ports

    async def __call__(self, exchange: Exchange, scope: Scope, receive: Receive, send: Send) -> Reply | None:
        """Answer one call; None when the answer has been sent already, or nobody is left to read one."""
        path = exchange.path
        if not has_request_segment(path):
            exchange.route = "submit"
            if scope["method"] != "POST":
                return method_not_allowed("POST")
            return await self._submit(exchange, scope, receive)
        parsed = parse_request_path(path)
        if parsed is None:
            return unknown_request() if parse_app_path(path.partition("/requests/")[0]) else unknown_path(path)
        exchange.route, exchange.model_id = parsed.operation.value, parsed.app
        exchange.request_id = parsed.text
        allowed = ("PUT",) if parsed.operation is Operation.CANCEL else ("GET", "HEAD")
        if scope["method"] not in allowed:
            return method_not_allowed(", ".join(allowed))
        caller = await self._caller_of(parsed, scope)
        if isinstance(caller, Reply):
            return caller
        exchange.tenant_id, exchange.key_id = caller.tenant_id, caller.key_id
        return await self._about(exchange, scope, receive, send, (parsed, caller))

    async def _about(
        self, exchange: Exchange, scope: Scope, receive: Receive, send: Send, asked: tuple[RequestPath, Caller]
    ) -> Reply | None:
        parsed, caller = asked
        if parsed.operation is Operation.RESULT:
            return await self._result(exchange, parsed, caller)
        watched = await self._find(parsed, caller)
        if watched is None or watched.snapshot is None:
            return unknown_request()
        if parsed.operation is Operation.CANCEL:
            return await self._cancel(parsed.request_id)
        logs = wants_logs(query_fields(scope["query_string"]))
        if parsed.operation is Operation.STATUS_STREAM:
            if scope["method"] == "HEAD":  # nothing to wait for: no event would be sent
                return Reply(200, b"", (EVENT_STREAM,))
            stream = events(self._parts.board, watched, exchange.bases, logs=logs)
            async with stop_when_caller_leaves(receive):
                await send_chunks(exchange, stream, send, 200, (EVENT_STREAM,))
            return None
        return await self._status(exchange, watched, logs=logs)

    async def _submit(self, exchange: Exchange, scope: Scope, receive: Receive) -> Reply | None:
        prepared = await self._prepare(exchange, scope, receive)
        if prepared is None or isinstance(prepared, Reply):
            return prepared
        target, choices, submission = prepared
        reservation = await self._parts.limits.reserve(target, submission.predicted_seconds, direct=False)
        if isinstance(reservation, Reply):
            return reservation
        exchange.limit_headers = reservation.headers
        refused = await self._admitted(target, submission, reservation)
        if refused is not None:
            return refused
        judged = await self._judged(exchange, target, submission, reservation)
        if isinstance(judged, Reply):
            return judged
        submission, rewritten = judged
        if exchange.risk:
            submission = dataclasses.replace(
                submission, options=dataclasses.replace(submission.options, risk=exchange.risk)
            )
        outcome, present = await self._commit(submission, choices.max_queue_length, receive, reservation)
        if rewritten is not None and isinstance(outcome, Accepted) and not outcome.replayed:
            await self._tell_rewritten(submission, rewritten)
        return await self._submitted(exchange, submission, outcome, present=present)

    async def _tell_rewritten(self, submission: Submission, rewritten: Rewritten) -> None:
        """Leave the difference among the request's log lines, where its caller and operators find it."""
        now = self._ports.clock.now()
        lines = [
            LogLine(submission.request_id, 0, number, now, "INFO", f"the content policy rewrote {line}", "FORESTAY")
            for number, line in enumerate(rewritten.lines()[:MAX_LINES])
        ]
        try:
            await self._ports.queue.append_logs(lines)
        except Unavailable as error:  # the answer's header has said it
            _LOG.warning("gateway.rewriting_not_logged", request_id=str(submission.request_id), reason=str(error))

    async def _admitted(self, target: Target, submission: Submission, reservation: Reservation) -> Reply | None:
        """Ask whether it can start in time; a refusal, or a failure to say, gives the reservation back."""
        try:
            refused = await self._parts.admission.check(target, submission)
        except BaseException:
            self._parts.limits.give_back(reservation, whole=True)
            raise
        if refused is not None:
            self._parts.limits.give_back(reservation, whole=True)
        return refused

    async def _judged(
        self, exchange: Exchange, target: Target, submission: Submission, reservation: Reservation
    ) -> Reply | tuple[Submission, Rewritten | None]:
        """Judge the input, and put in other words what the policy wants so; one that is blocked is stored as such."""
        try:
            refused = await self._parts.content.check(exchange, target, submission.body)
            if isinstance(refused, Refused) and refused.answer is not None:
                await self._ports.queue.refuse(submission, refused.answer)
                await keep_refused(self._ports, target, submission, refused)
        except BaseException:
            self._parts.limits.give_back(reservation, whole=True)
            raise
        if refused is None:
            return submission, None
        if isinstance(refused, Rewritten):
            return dataclasses.replace(submission, body=refused.body), refused
        self._parts.limits.give_back(reservation, whole=True)
        return refused.reply

    async def _prepare(
        self, exchange: Exchange, scope: Scope, receive: Receive
    ) -> tuple[Target, Choices, Submission] | Reply | None:
        """Pass the guards before the limits: app, caller, endpoint, options, body, schema. None: nobody is left."""
        target = await admit(self._ports, self._parts.fleet, self._parts.contracts, exchange, scope, (Verb.SUBMIT,))
        if isinstance(target, Reply):
            return target
        ports, headers = self._ports, exchange.headers
        choices = parse_choices(headers, scope["query_string"], context_of(ports, target, headers))
        if isinstance(choices, Reply):
            return choices
        note_tags(exchange, choices)
        gateway = ports.settings.gateway
        body = await read_body(
            receive, headers, max_bytes=gateway.max_body_bytes, timeout_seconds=gateway.body_timeout_seconds
        )
        if isinstance(body, Gone):
            return None
        if isinstance(body, Reply):
            return body
        foretold = self._parts.predictions.of(target, body)
        if isinstance(foretold, Reply):
            return foretold
        exchange.said = Said(target.revision, target.endpoint, body, foretold.seconds)
        said = (headers, scope["query_string"])
        print_ = fingerprint(target.caller.key_id, target.model.model_id, target.endpoint, body, said)
        return target, choices, _submission(target, body, choices, print_, foretold)

    async def _commit(
        self, submission: Submission, max_queue_length: int | None, receive: Receive, reservation: Reservation
    ) -> tuple[Accepted | IdempotencyConflict | QueueFull, bool]:
        """Commit, and let the reservation stand only when that made a request of its own."""
        limits = self._parts.limits
        try:
            with self._parts.sentinels.watch(receive) as watch:
                outcome = await commit(self._ports, submission, max_queue_length)
                await asyncio.sleep(0)  # a disconnect that has arrived is seen now
        except BaseException:
            limits.give_back(reservation, whole=True)
            raise
        if isinstance(outcome, Accepted) and not outcome.replayed:
            limits.confirm(reservation)
        else:
            limits.give_back(reservation, whole=True)
        return outcome, not watch.gone

    async def _submitted(
        self,
        exchange: Exchange,
        submission: Submission,
        outcome: Accepted | IdempotencyConflict | QueueFull,
        *,
        present: bool,
    ) -> Reply | None:
        match outcome:
            case Accepted():
                if not outcome.replayed:
                    self._parts.waker.add(submission.model_id)
                    self._parts.board.prime(_snapshot(submission))
                if outcome.replayed:
                    exchange.request_id, exchange.call_id = str(outcome.request_id), outcome.request_id
                exchange.fields["replayed"] = outcome.replayed
                if not present:
                    exchange.status_code = 499
                    await record_undelivered(self._ports, submission, outcome.request_id)
                    return None
                return self._submit_answer(exchange, submission.model_id)
            case IdempotencyConflict():
                message = f"This Idempotency-Key was used for a different submit, request {outcome.request_id}"
                return field_errors(
                    [FieldError(["header", "idempotency-key"], message, "idempotency_conflict")], "idempotency"
                )
            case QueueFull():
                return queue_full(outcome.length)

    def _submit_answer(self, exchange: Exchange, model_id: ModelId) -> Reply:
        text = exchange.request_id
        url = request_url(exchange.bases, model_id, text)
        position = self._parts.board.queue_length(model_id)
        wire = SubmitAnswer(text, url, f"{url}/status", f"{url}/cancel", position, gateway_request_id=text)
        return json_reply(200, wire)

    async def _status(self, exchange: Exchange, watched: Watched, *, logs: bool) -> Reply:
        exchange.quiet = True
        if logs or not watched.final:
            hold_seconds = self._ports.settings.gateway.status_hold_seconds
            exchange.held_seconds = await poll(self._parts.board, watched, hold_seconds, logs=logs)
        snapshot = watched.snapshot
        if snapshot is None:
            return unknown_request()
        return answer(watched, snapshot, exchange.bases, logs=logs, metrics=self._ports.metrics)

    async def _result(self, exchange: Exchange, parsed: RequestPath, caller: Caller) -> Reply:
        stored = await self._stored(parsed.request_id)
        if stored is None:
            watched = await self._find(parsed, caller)
            if watched is None:
                return unknown_request()
            if not watched.final:
                return not_ready()
            stored = await self._stored(parsed.request_id)  # finished between the two reads
        if stored is None or not _may_see(stored.snapshot, parsed.app, caller):
            return unknown_request()
        exchange.fields["state"] = stored.snapshot.state.value
        by_model = stored.snapshot.state in {State.SUCCEEDED, State.FAILED}
        reply = replay(stored.answer, exchange.bases, stored.snapshot.replica_id if by_model else None)
        exchange.told = True
        return reply

    async def _stored(self, request_id: RequestId) -> Stored | None:
        """Read a result, outlasting a short absence of the database: clients take any error here for the model's."""
        clock = self._ports.clock
        deadline = clock.monotonic() + RESULT_PATIENCE_SECONDS
        while True:
            try:
                return await self._ports.queue.result(request_id)
            except Unavailable:
                if clock.monotonic() >= deadline:
                    raise
            await clock.sleep(RESULT_PAUSE_SECONDS)

    async def _cancel(self, request_id: RequestId) -> Reply:
        before = await self._ports.queue.cancel(request_id, CANCELLED_ANSWER)
        if before is None:
            return unknown_request()
        if before in FINAL:
            return ALREADY_COMPLETED
        self._parts.board.changed([request_id])
        await self._ports.wakeups.publish("forestay:changed", request_id.hex)
        return CANCEL_REQUESTED

    async def _find(self, parsed: RequestPath, caller: Caller) -> Watched | None:
        """Return the request if it is this caller's and of the app in the URL."""
        watched = await self._parts.board.find(parsed.request_id)
        if watched is None or watched.snapshot is None or not _may_see(watched.snapshot, parsed.app, caller):
            return None
        return watched

    async def _caller_of(self, parsed: RequestPath, scope: Scope) -> Caller | Reply:
        """Prove the caller; nobody may ask about requests of public models made by nobody."""
        model = None if shows_credential(scope) else self._parts.fleet.model(parsed.app)
        if model is not None and model.visibility == "public":
            return public_caller(model)
        verb = Verb.CANCEL if parsed.operation is Operation.CANCEL else Verb.READ
        caller = await authenticate_asked(scope, self._ports, (verb,), parsed.app)
        refused = self._ports.standings.refuse_reading(caller) if isinstance(caller, Caller) else None
        return refused or caller


def _submission(target: Target, body: bytes, choices: Choices, print_: bytes, foretold: Foretold) -> Submission:
    options = choices.options
    if foretold.features:
        options = dataclasses.replace(options, features=foretold.features)
    return Submission(
        request_id=target.request_id,
        tenant_id=target.caller.tenant_id,
        key_id=target.caller.key_id,
        model_id=target.model.model_id,
        endpoint=target.endpoint,
        body=body,
        submitted_at=target.now,
        options=options,
        idempotency_key=choices.idempotency_key,
        fingerprint=print_,
        predicted_seconds=foretold.seconds,
    )


def _snapshot(submission: Submission) -> Snapshot:
    """Return the status that a just committed request has."""
    return Snapshot(
        request_id=submission.request_id,
        tenant_id=submission.tenant_id,
        key_id=submission.key_id,
        model_id=submission.model_id,
        endpoint=submission.endpoint,
        state=State.QUEUED,
        attempt=0,
        submitted_at=submission.submitted_at,
        order_at=submission.submitted_at,
    )


def _may_see(snapshot: Snapshot, app: ModelId, caller: Caller) -> bool:
    """Tell whether this caller may know of this request under this app's URL."""
    if snapshot.tenant_id != caller.tenant_id or snapshot.model_id != app:
        return False
    if caller.key_id == PUBLIC_KEY or caller.narrowed is not None:  # a token sees what was asked with its own key
        return snapshot.key_id == caller.key_id
    return True
