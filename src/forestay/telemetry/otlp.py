"""The adapter to an OpenTelemetry collector: spans as OTLP over HTTP, in JSON (opentelemetry.io/docs/specs/otlp).

It decides how spans are written on the wire and which answers may be tried again (429, 502, 503, 504: the protocol's
own list). It keeps nothing: whoever sends keeps its place until `send` returns. Called by `trace_export`.
"""

import datetime as dt
from collections.abc import Mapping, Sequence

import aiohttp
import msgspec

from forestay import __version__
from forestay.errors import Refused, Unavailable, UsageError
from forestay.telemetry.spans import Span, Value

TIMEOUT_SECONDS = 10.0
_AGAIN = frozenset({429, 502, 503, 504})
_ERROR = 2  # STATUS_CODE_ERROR
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class Collector:
    """One collector; `endpoint` is its base URL, as OTEL_EXPORTER_OTLP_ENDPOINT would name it."""

    def __init__(self, endpoint: str, headers: Mapping[str, str]) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._headers = {**headers, "content-type": "application/json"}

    async def send_spans(self, spans: Sequence[Span], service: str) -> None:
        """Send spans; raises Unavailable when they should be sent again, Refused when that would not help."""
        url = f"{self._endpoint}/v1/traces"
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(
                    url, data=encode_spans(spans, service), headers=self._headers, allow_redirects=False
                ) as answer,
            ):
                status = answer.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unavailable(f"the collector at {url} does not answer ({type(error).__name__})") from None
        if status in _AGAIN:
            raise Unavailable(f"the collector at {url} answered {status}: it is tried again")
        if not 200 <= status < 300:
            raise Refused(f"the collector at {url} answered {status}; is it an OTLP/HTTP endpoint that takes JSON?")


def encode_spans(spans: Sequence[Span], service: str) -> bytes:
    """Return the body of an ExportTraceServiceRequest: ids in hex, times in nanoseconds as text."""
    return msgspec.json.encode({
        "resourceSpans": [{
            "resource": {"attributes": _attributes({"service.name": service, "service.version": __version__})},
            "scopeSpans": [{
                "scope": {"name": "forestay", "version": __version__},
                "spans": [_span(span) for span in spans],
            }],
        }]
    })  # fmt: skip


def parse_headers(text: str) -> dict[str, str]:
    """Read `name=value,name=value`; raises UsageError that does not repeat a value."""
    found: dict[str, str] = {}
    for piece in text.split(","):
        name, equals, value = piece.strip().partition("=")
        if name and equals:
            found[name.strip().lower()] = value.strip()
        elif piece.strip():
            raise UsageError("FORESTAY_OTLP_HEADERS", "has a piece without `=`; write name=value,name=value")
    return found


def _span(span: Span) -> dict[str, object]:
    written: dict[str, object] = {
        "traceId": span.trace_id,
        "spanId": span.span_id,
        "name": span.name,
        "kind": int(span.kind),
        "startTimeUnixNano": _nanoseconds(span.begins_at),
        "endTimeUnixNano": _nanoseconds(span.ends_at),
        "attributes": _attributes(span.attributes),
        "status": {"code": _ERROR} if span.failed else {},
    }
    if span.parent_id is not None:
        written["parentSpanId"] = span.parent_id
    return written


def _attributes(values: Mapping[str, Value]) -> list[dict[str, object]]:
    return [{"key": key, "value": _value(value)} for key, value in values.items()]


def _value(value: Value) -> dict[str, object]:
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, bool):
        return {"boolValue": value}
    return {"intValue": str(value)} if isinstance(value, int) else {"doubleValue": value}


def _nanoseconds(moment: dt.datetime) -> str:
    since = moment - _EPOCH
    return f"{(since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds}000"
