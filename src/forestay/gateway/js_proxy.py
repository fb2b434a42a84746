"""The JavaScript client's proxy protocol: `/api/fal/proxy` with `x-fal-target-url` (contract, section 3.3).

The target must be one of fal's hosts, and the call is then answered by this same gateway as if it had come under that
host name: nothing ever leaves the process, so there is nothing to lure it to. The caller's own key is what counts; none
is added. Mounted by `asgi` at the root.
"""

import urllib.parse

from starlette.requests import Request
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Scope

from forestay.gateway import exchange
from forestay.gateway.ports import GatewayPorts
from forestay.gateway.responses import plain_error
from forestay.gateway.routing import ORIGIN_KEY, host_of, scope_scheme

PATH = "/api/fal/proxy"
TARGET_HEADER = b"x-fal-target-url"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_HOSTS = frozenset({"fal.run", "rest.fal.ai", "v3.fal.media"})
_MAX_TARGET = 8192


def routes(ports: GatewayPorts) -> list[BaseRoute]:
    """Return the proxy's route."""

    async def proxy(request: Request) -> ASGIApp:
        given = [value for name, value in request.scope["headers"] if name == TARGET_HEADER]
        if len(given) != 1:
            return plain_error(400, "Exactly one x-fal-target-url header is needed", "proxy_target")
        target = parse_target(given[0])
        if target is None:
            return plain_error(412, "x-fal-target-url must be an https URL of a fal host", "proxy_target")
        host = host_of(request.scope) or "localhost"
        origin = ports.settings.gateway.public_url or f"{scope_scheme(request.scope)}://{host}"
        request.scope.update(redirected(request.scope, target, origin))
        return exchange.of(request.scope).app

    return [Route(PATH, proxy, methods=list(METHODS)), Route(f"{PATH}/", proxy, methods=list(METHODS))]


def parse_target(value: bytes) -> urllib.parse.SplitResult | None:
    """Read the target; None unless it is `https://` one of fal's hosts, with no other port and no user name."""
    try:
        text = value.decode("ascii")
        parts = urllib.parse.urlsplit(text)
        port = parts.port
    except (UnicodeDecodeError, ValueError):
        return None
    readable = len(text) <= _MAX_TARGET and not any(char <= " " or char in "\\\x7f" for char in text)
    host = parts.hostname or ""
    known = host in _HOSTS or host.endswith(".fal.run")
    plain = parts.scheme == "https" and port in {None, 443} and "@" not in parts.netloc
    return parts if readable and known and plain else None


def redirected(scope: Scope, target: urllib.parse.SplitResult, origin: str) -> Scope:
    """Return the parts of the scope that make it a call of `target`, its answers' URLs under `origin`."""
    host = (target.hostname or "").encode()
    headers = [(name, value) for name, value in scope["headers"] if name not in {b"host", TARGET_HEADER}]
    raw_path = (target.path or "/").encode()
    return {
        "path": urllib.parse.unquote(target.path or "/"),
        "raw_path": raw_path,
        "query_string": target.query.encode(),
        "root_path": "",
        "headers": [(b"host", host), *headers],
        ORIGIN_KEY: origin,
    }
