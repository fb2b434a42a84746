"""The spans of one request, made from its facts: what waited where, for how long, and what came of it. Pure.

It decides which spans there are and how they hang together: caller -> request -> queue, attempt (inputs, model,
checks), judgements, store, webhook. Ids are derived (`tracing`), so making them twice gives the same. Called by the
exporter and by the admin API, for `forestay request trace`.
"""

import dataclasses
import datetime as dt
import enum
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, cast

import msgspec

from forestay.ids import RequestId, made_at
from forestay.telemetry import tracing
from forestay.telemetry.causes import SUCCEEDED

Fact = Mapping[str, object]
Value = str | int | float
_REQUEST_FIELDS = (
    *("model_id", "endpoint", "tenant_id", "lane", "state", "outcome", "cause", "status_code", "error_type"),
    *("attempts", "revision_id", "traffic"),
)
_ATTEMPT_FIELDS = ("attempt", "outcome", "cause", "revision_id", "replica_id", "worker_id", "device", "device_seconds")
_DIRECT_FIELDS = ("replica_id", "worker_id", "device_seconds")
_WEBHOOK_FIELDS = ("outcome", "tries", "status_code")
_NAMES = {
    name: f"forestay.{name.removesuffix('_id')}"
    for name in (*_REQUEST_FIELDS, *_ATTEMPT_FIELDS, *_DIRECT_FIELDS, *_WEBHOOK_FIELDS)
}
_PLAIN_KINDS = (str, int, float)
_ENDED = ("delivered", "allow", "flag", SUCCEEDED)


class Kind(enum.IntEnum):
    """OpenTelemetry's kinds of spans, by their numbers on the wire."""

    INTERNAL = 1
    SERVER = 2
    CLIENT = 3
    PRODUCER = 4
    CONSUMER = 5


class Span(msgspec.Struct, frozen=True, gc=False):
    """One stretch of work or of waiting."""

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    kind: Kind
    begins_at: dt.datetime
    ends_at: dt.datetime
    attributes: Mapping[str, Value] = msgspec.field(default_factory=dict[str, Value])
    failed: bool = False


_NOTHING: Mapping[str, Value] = {}


class _Said(NamedTuple):
    """What is said of a span beside its times and its place."""

    name: str = ""  # empty: the name that its id is derived from
    kind: Kind = Kind.INTERNAL
    attributes: Mapping[str, Value] = _NOTHING
    failed: bool = False


_PLAIN = _Said()


@dataclasses.dataclass(frozen=True, slots=True)
class Told:
    """Everything that was recorded of one request."""

    request: Fact  # of one that has not ended: what is known, ending now
    attempts: Sequence[Fact] = ()
    deliveries: Sequence[Fact] = ()
    verdicts: Sequence[Fact] = ()  # at, seconds, point, verdict


def spans_of(told: Told) -> list[Span]:
    """Return the spans of a request, parents before children, in the order in which they began."""
    maker = _Maker(told.request)
    tried = [span for fact in told.attempts for span in maker.attempt(fact)]
    found = [maker.root(), *(tried if told.attempts else maker.direct())]
    found += [*maker.judgements(told.verdicts), *maker.stored(), *maker.webhooks(told.deliveries)]
    return [found[0], *sorted(found[1:], key=lambda span: (span.begins_at, -span.ends_at.timestamp()))]


def late_spans(told: Told) -> list[Span]:
    """Return only the spans of the attempts and webhooks, for a request whose other spans are out already."""
    maker = _Maker(told.request)
    return [*(span for fact in told.attempts for span in maker.attempt(fact)), *maker.webhooks(told.deliveries)]


class _Maker:
    """Makes spans of one request."""

    def __init__(self, request: Fact) -> None:
        self._request = request
        own = request["request_id"]
        self._id = RequestId(own if isinstance(own, uuid.UUID) else uuid.UUID(str(own)))
        text = request.get("traceparent")
        self._context = tracing.read(text if isinstance(text, str) else None)
        self._trace_id = self._id.hex if self._context is None else self._context.trace_id
        self._root = tracing.span_id(self._id, tracing.REQUEST)

    def root(self) -> Span:
        """Return the span of the request, which is there whatever else is known of it."""
        caller, fact = None if self._context is None else self._context.span_id, self._request
        attributes = {"forestay.request_id": str(self._id), **_attributes(fact, _REQUEST_FIELDS)}
        failed = fact.get("cause") not in (None, "", "caller")
        parent = None if caller == self._root else caller
        said = _Said(kind=Kind.SERVER, attributes=attributes, failed=failed)
        span = self._span(tracing.REQUEST, parent, fact, ("submitted_at", "finished_at"), said)
        if span is not None:
            return span
        at = made_at(self._id) or dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
        return Span(self._trace_id, self._root, parent, tracing.REQUEST, Kind.SERVER, at, at, attributes, failed)

    def direct(self) -> Iterator[Span]:
        """The direct lane knows one attempt at most, told by the request's own fact."""
        fact = self._request
        if fact.get("lane") == "queue":
            return
        yield from _some(self._span("wait", self._root, fact, ("submitted_at", "started_at")))
        first, began = fact.get("first_byte_at"), fact.get("started_at")
        attributes = _attributes(fact, _DIRECT_FIELDS)
        if first is not None and began is not None:
            attributes["forestay.first_byte_seconds"] = (moment(first) - moment(began)).total_seconds()
        said = _Said("model", Kind.CLIENT, attributes, _failed(fact))
        yield from _some(self._span(tracing.model_span(1), self._root, fact, ("started_at", "answered_at"), said))

    def attempt(self, fact: Fact) -> Iterator[Span]:
        number = cast("int", fact["attempt"])
        queued = "queued_at" if fact.get("queued_at") is not None else "submitted_at"
        yield from _some(self._span(f"queue {number}", self._root, fact, (queued, "leased_at"), _Said("queue")))
        begins = "leased_at" if fact.get("leased_at") is not None else "started_at"
        ends = "checked_at" if fact.get("checked_at") is not None else "finished_at"
        failed = _failed(fact)
        said = _Said(kind=Kind.CONSUMER, attributes=_attributes(fact, _ATTEMPT_FIELDS), failed=failed)
        span = self._span(f"attempt {number}", self._root, fact, (begins, ends), said)
        if span is None:
            return
        yield span
        parent = span.span_id
        yield from _some(self._span(f"inputs {number}", parent, fact, (begins, "started_at"), _Said("inputs")))
        model = _Said("model", Kind.CLIENT, failed=failed)
        yield from _some(self._span(tracing.model_span(number), parent, fact, ("started_at", "finished_at"), model))
        yield from _some(self._span(f"check {number}", parent, fact, ("finished_at", "checked_at"), _Said("check")))

    def judgements(self, verdicts: Sequence[Fact]) -> Iterator[Span]:
        for number, fact in enumerate(verdicts):
            ended = moment(fact["at"])
            began = ended - dt.timedelta(seconds=cast("float", fact["seconds"]))
            name, verdict = f"judge {fact['point']}", str(fact["verdict"])
            said = _Said(name, Kind.INTERNAL, {"forestay.verdict": verdict}, verdict == "inconclusive")
            told = {"from": began, "to": ended}
            yield from _some(self._span(f"{name} {number}", self._root, told, ("from", "to"), said))

    def stored(self) -> Iterator[Span]:
        fact = self._request
        begins = "checked_at" if fact.get("checked_at") is not None else "answered_at"
        if fact.get("lane") == "queue":
            yield from _some(self._span("store", self._root, fact, (begins, "finished_at")))

    def webhooks(self, deliveries: Sequence[Fact]) -> Iterator[Span]:
        for number, fact in enumerate(deliveries):
            attributes = _attributes(fact, _WEBHOOK_FIELDS)
            said = _Said("webhook", Kind.PRODUCER, attributes, fact["outcome"] != "delivered")
            times = ("request_finished_at", "finished_at")
            yield from _some(self._span(f"webhook {number}", self._root, fact, times, said))

    def _span(
        self, own: str, parent: str | None, fact: Fact, times: tuple[str, str], said: _Said = _PLAIN
    ) -> Span | None:
        """Make a span between two moments of a fact; None where one of them was not reached. Clocks may disagree."""
        first, last = fact.get(times[0]), fact.get(times[1])
        if first is None or last is None:
            return None
        began, ended = moment(first), moment(last)
        ended = max(ended, began)
        own_id = self._root if own == tracing.REQUEST else tracing.span_id(self._id, own)
        name, kind, attributes, failed = said
        return Span(self._trace_id, own_id, parent, name or own, kind, began, ended, attributes, failed)


def moment(value: object) -> dt.datetime:
    """Return a moment, which facts read as JSON hold as text."""
    return value if isinstance(value, dt.datetime) else dt.datetime.fromisoformat(str(value))


def _some(span: Span | None) -> tuple[Span, ...]:
    return () if span is None else (span,)


def _failed(fact: Fact) -> bool:
    return fact.get("outcome") not in (*_ENDED, "caller_error", "cancelled")


def _attributes(fact: Fact, names: Sequence[str]) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for name in names:
        value = fact.get(name)
        if isinstance(value, _PLAIN_KINDS) and value != "":
            found[_NAMES[name]] = value
    return found
