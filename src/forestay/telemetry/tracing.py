"""W3C trace context: read it, make it, pass it on (https://www.w3.org/TR/trace-context/).

A request keeps one trace id from the caller through the queue row into the model process. Decides only the header; an
exporter of spans reads the same ids from facts and logs. Called by the gateway (`adopt`) and the worker (`child`).
"""

import re

from forestay.chance import Chance

_SPAN = (1 << 64) - 1
_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")


def adopt(header: str | None, chance: Chance) -> str:
    """Return the caller's traceparent with a span of our own, or a fresh one when it is absent or malformed."""
    match = _TRACEPARENT.fullmatch(header) if header else None
    if match is None:
        drawn = chance.bits(192)
        return f"00-{drawn >> 64 or 1:032x}-{drawn & _SPAN or 1:016x}-00"
    return f"00-{match.group(1)}-{chance.bits(64) or 1:016x}-{match.group(3)}"


def child(traceparent: str | None, chance: Chance) -> str:
    """Return the traceparent of a span below `traceparent`."""
    return adopt(traceparent, chance)


def trace_id(traceparent: str | None) -> str | None:
    """Return the 32 hex digits that name the trace; None when there is none."""
    match = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    return match.group(1) if match else None
