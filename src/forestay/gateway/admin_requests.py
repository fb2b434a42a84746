"""Admin routes of requests and webhooks: look at one, list some, cancel, try a dead notice again."""

import dataclasses
import datetime as dt

from forestay.errors import UsageError
from forestay.gateway.admin_reading import Act, NotThere, Problem
from forestay.gateway.options import read_tags
from forestay.gateway.responses import CANCELLED_ANSWER, JSON_TYPE, Reply, json_reply
from forestay.ids import ModelId, RequestId, made_at
from forestay.queue.model import FINAL, Answer, Snapshot, State
from forestay.queue.store import Stored
from forestay.telemetry.fact_reader import Fact, RequestFacts
from forestay.telemetry.spans import Told, spans_of

_SKEW = dt.timedelta(seconds=5)  # clocks of two machines
_LONGEST_CALL = dt.timedelta(hours=2)  # of the direct lane, whose end only its fact tells
_WEBHOOK_TIME = dt.timedelta(hours=3)  # a notice is tried for about two and a half hours
_AFTER_END = dt.timedelta(minutes=5)  # attempts that were taken away may still report for a while
_NO_FACT = "no request {}; it is unknown, its facts are not written yet, or their time is over"
_SNAPSHOT = tuple(field.name for field in dataclasses.fields(Snapshot))
_WEBHOOK_STATES = ("pending", "delivered", "dead")


async def get_requests(act: Act) -> Reply:
    """List requests, newest first."""
    model = act.query("model")
    names = [name for name in (act.query("state") or "").split(",") if name]
    known = {state.value for state in State}
    if not set(names) <= known:
        raise UsageError("state", f"use some of {', '.join(sorted(known))}")
    states = [State(name) for name in names]
    model_id = ModelId(model) if model else None
    try:
        tags = read_tags([text for text in (act.query("tag") or "").split(",") if text])
    except ValueError as error:
        raise UsageError("tag", str(error)) from None
    found = await act.ports.admin.requests.newest(model_id, states, act.limit(50, 1_000), tags)
    return json_reply(200, {"requests": found})


async def get_request(act: Act) -> Reply:
    """Show where a request stands, its attempts and facts, and what its model wrote; a direct call by its fact."""
    request_id = act.request_id()
    snapshot = (await act.ports.queue.snapshots([request_id])).get(request_id)
    if snapshot is None:
        return await _by_fact(act, request_id)
    stored = await act.ports.queue.result(request_id) if snapshot.state in FINAL else None
    until = (stored.finished_at + _AFTER_END) if stored else act.ports.clock.now() + _AFTER_END
    facts = await act.ports.admin.facts.of_request(request_id, snapshot.submitted_at, until)
    logs = await act.ports.queue.logs(request_id, 0)
    return json_reply(
        200,
        {
            **_of_fact(facts.request or {"lane": "queue"}),
            **dataclasses.asdict(snapshot),
            "finished_at": stored.finished_at if stored else None,
            "status_code": stored.answer.status_code if stored else None,
            "fact": facts.request,
            "attempts": facts.attempts,
            "logs": [line for _, line in logs],
        },
    )


async def _by_fact(act: Act, request_id: RequestId) -> Reply:
    """Show a request that the queue does not know: a direct call, or one whose time there is over."""
    facts = await _facts_of(act, request_id, None)
    fact = facts.request
    if fact is None:
        raise NotThere(_NO_FACT.format(request_id))
    said = {name: fact.get(name) for name in (*_SNAPSHOT, "finished_at", "status_code")}
    known = {**said, "attempt": fact["attempts"], "order_at": fact["submitted_at"]}
    told: dict[str, object] = {"fact": fact, "attempts": facts.attempts, "logs": ()}
    return json_reply(200, {**_of_fact(fact), **known, **told})


def _of_fact(fact: Fact) -> dict[str, object]:
    """Return what a fact alone tells of a request; None for what is not known yet."""
    return {name: fact.get(name) for name in ("lane", "outcome", "worker_id", "started_at")}


async def get_result(act: Act) -> Reply:
    """Return the stored answer's body; its own status is in `x-forestay-status`."""
    stored = await _stored(act, act.request_id())
    content_type = stored.answer.headers.get("content-type", "application/json")
    kind = JSON_TYPE if content_type == "application/json" else (b"content-type", content_type.encode("latin-1"))
    return Reply(200, stored.answer.body, (kind, (b"x-forestay-status", b"%d" % stored.answer.status_code)))


async def get_trace(act: Act) -> Reply:
    """Return the spans of a request, of whatever lane; one that has not ended is shown as it stands."""
    request_id = act.request_id()
    snapshot = (await act.ports.queue.snapshots([request_id])).get(request_id)
    stored = await act.ports.queue.result(request_id) if snapshot is not None and snapshot.state in FINAL else None
    facts = await _facts_of(act, request_id, stored)
    request = facts.request or (None if snapshot is None else _so_far(snapshot, stored, act.ports.clock.now()))
    if request is None:
        raise NotThere(_NO_FACT.format(request_id))
    told = Told(request, facts.attempts, facts.deliveries, facts.verdicts)
    return json_reply(200, {"request_id": request_id, "ended": facts.request is not None, "spans": spans_of(told)})


async def _facts_of(act: Act, request_id: RequestId, stored: Stored | None) -> RequestFacts:
    """Read the facts of a request, of whatever lane, by the time that its id names; NotThere where it names none."""
    submitted_at = made_at(request_id)
    if submitted_at is None:
        raise NotThere(f"no request {request_id}")
    until = stored.finished_at + _WEBHOOK_TIME if stored else min(act.ports.clock.now(), submitted_at + _LONGEST_CALL)
    return await act.ports.admin.facts.of_request(request_id, submitted_at - _SKEW, until + _AFTER_END)


def _so_far(snapshot: Snapshot, stored: Stored | None, now: dt.datetime) -> dict[str, object]:
    """Return what is known of a request whose fact is not written yet, in a fact's words."""
    return {
        **dataclasses.asdict(snapshot),
        "lane": "queue",
        "attempts": snapshot.attempt,
        "finished_at": stored.finished_at if stored else now,
    }


async def post_cancel(act: Act) -> Reply:
    """Cancel a request in whatever state."""
    request_id = act.request_id()
    answer: Answer = CANCELLED_ANSWER
    before = await act.ports.queue.cancel(request_id, answer)
    if before is None:
        raise NotThere(f"no request {request_id}")
    if before in FINAL:
        raise Problem(409, f"request {request_id} has ended already: {before}", "final")
    await act.ports.wakeups.publish("forestay:changed", request_id.hex)
    await act.record("cancel_request", f"request:{request_id}", {"state_before": before.value}, "asked for")
    return json_reply(200, {"request_id": request_id, "state": State.CANCELLED, "state_before": before})


async def get_webhooks(act: Act) -> Reply:
    """List webhooks in one state, dead ones unless asked otherwise."""
    state = act.query("state") or "dead"
    if state not in _WEBHOOK_STATES:
        raise UsageError("state", f"use one of {', '.join(_WEBHOOK_STATES)}")
    return json_reply(200, {"webhooks": await act.ports.admin.webhooks.webhooks(state, act.limit(100, 1_000))})


async def post_webhook_retry(act: Act) -> Reply:
    """Make a dead webhook due now."""
    request_id = act.request_id()
    if not await act.ports.admin.webhooks.revive(request_id):
        raise Problem(409, f"the webhook of request {request_id} is not dead (or there is none)", "not_dead")
    await act.record("retry_webhook", f"webhook:{request_id}", {}, "asked for")
    await act.ports.wakeups.publish("forestay:webhooks", "")
    return json_reply(200, {"request_id": request_id, "state": "pending"})


def why_no_answer(request_id: RequestId, fact: Fact | None) -> str:
    """Say why there is no answer of a request that the queue does not know."""
    if fact is None:
        return f"no request {request_id}; it is unknown or its retention has ended"
    shown = f"`forestay request show {request_id}` has its fact"
    if fact.get("lane") == "queue":
        return f"the answer of request {request_id} is no longer kept; {shown}"
    return f"request {request_id} was a synchronous call: its answer went to its caller and was not stored; {shown}"


async def _stored(act: Act, request_id: RequestId) -> Stored:
    stored = await act.ports.queue.result(request_id)
    if stored is None:
        snapshot = (await act.ports.queue.snapshots([request_id])).get(request_id)
        if snapshot is None:
            raise NotThere(why_no_answer(request_id, (await _facts_of(act, request_id, None)).request))
        raise Problem(409, f"request {request_id} is {snapshot.state}; it has no result yet", "no_result")
    return stored
