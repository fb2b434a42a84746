"""W3C trace context: read it, make it, pass it on (https://www.w3.org/TR/trace-context/). Pure.

A request keeps one trace from its caller through the queue's row into the model's process. Spans are made from facts
afterwards (`spans`), so their ids are derived from the request's id: what a model is told as its parent is the id that
the exported span will have, and nothing is recorded on the way. A request without a context gets a trace whose id is
its own. Called by the gateway (`accept`) and the worker (`for_model`).
"""

import hashlib
import re
from typing import NamedTuple

from forestay.ids import RequestId

REQUEST = "request"
SAMPLED = 0x01
_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
_RATIO_BITS = 56  # the random part of a trace id: W3C Trace Context, level 2


class Context(NamedTuple):
    """A traceparent, read."""

    trace_id: str  # 32 hex digits
    span_id: str  # 16 hex digits: who called
    flags: int

    @property
    def sampled(self) -> bool:
        """Tell whether whoever began the trace wants it recorded."""
        return bool(self.flags & SAMPLED)

    def __str__(self) -> str:
        """Write it as a header."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"


def read(traceparent: str | None) -> Context | None:
    """Read a header; None when it is absent or malformed."""
    match = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    return None if match is None else Context(match[1], match[2], int(match[3], 16))


def accept(header: str | None, request_id: RequestId, ratio: float) -> str:
    """Return the caller's context as it is, or a fresh one; `ratio` is the share of fresh ones that is recorded."""
    context = None if header is None else read(header)
    return str(context or _fresh(request_id, ratio))


def for_model(traceparent: str | None, request_id: RequestId, attempt: int) -> str:
    """Return what a model is told: the trace, and the span of its own attempt as the parent."""
    trace = traceparent if traceparent and _TRACEPARENT.fullmatch(traceparent) else str(_fresh(request_id, 0.0))
    return f"{trace[:36]}{span_id(request_id, model_span(attempt))}{trace[52:]}"  # the second of four parts is replaced


def span_id(request_id: RequestId, name: str) -> str:
    """Return the id of one of a request's spans: the same wherever it is asked for."""
    digest = hashlib.blake2b(name.encode(), digest_size=8, key=request_id.bytes).hexdigest()
    return digest if digest.strip("0") else "0" * 15 + "1"


def model_span(attempt: int) -> str:
    """Return the name by which the span of a model's work is derived."""
    return f"model {attempt}"


def trace_id(traceparent: str | None) -> str | None:
    """Return the 32 hex digits that name the trace; None when there is none."""
    context = read(traceparent)
    return None if context is None else context.trace_id


def _fresh(request_id: RequestId, ratio: float) -> Context:
    drawn = request_id.int & ((1 << _RATIO_BITS) - 1)
    return Context(request_id.hex, span_id(request_id, REQUEST), SAMPLED if drawn < ratio * (1 << _RATIO_BITS) else 0)
