"""CORS: browsers may call from anywhere; the key or token in the call, not its origin, is what opens.

`*` gives nothing away: a browser neither sends the admin API's cookie nor shows an answer to a page of another origin
unless we allow credentials, which we never do (https://fetch.spec.whatwg.org/#http-cors-protocol). Called by `asgi`.
"""

from forestay.gateway.exchange import Exchange
from forestay.gateway.responses import Header, Reply

ORIGIN: Header = (b"access-control-allow-origin", b"*")
_EXPOSED = (
    "*, x-fal-request-id, x-fal-served-from, x-fal-error-type, x-fal-needs-retry, etag, content-range, "
    "retry-after, ratelimit, ratelimit-policy"
)
EXPOSE: Header = (b"access-control-expose-headers", _EXPOSED.encode())
_METHODS: Header = (b"access-control-allow-methods", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
_AGE: Header = (b"access-control-max-age", b"7200")
_MAX_ASKED = 2_048


def preflight(exchange: Exchange) -> Reply:
    """Answer OPTIONS: every method, and whichever headers the browser asks for."""
    exchange.route, exchange.quiet = "preflight", True
    asked = exchange.headers.get(b"access-control-request-headers", b"")
    allowed = asked if 0 < len(asked) <= _MAX_ASKED else b"*, authorization, content-type"
    vary: Header = (b"vary", b"access-control-request-headers")
    return Reply(204, b"", (_METHODS, (b"access-control-allow-headers", allowed), _AGE, vary))
