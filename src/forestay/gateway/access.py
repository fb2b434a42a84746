"""The way out of every answer: its id, what browsers may do with it, CORS, then one wide log line and the metrics.

People's sessions are cookies of this origin, and models and strangers write much of what it answers. So nothing is
sniffed, and whatever is not of our own root is sandboxed: a page among it runs no script, whoever opens it.

Log lines hold ids, route, status, times and sizes; never a body, a header, a query or a key. Polls are counted, not
logged. Decides nothing else. Called by `asgi`.
"""

import functools
from collections.abc import Sequence

from starlette.types import Message, Scope, Send

from forestay.gateway.cors import EXPOSE, ORIGIN
from forestay.gateway.exchange import Exchange
from forestay.gateway.inlet import Inlet
from forestay.gateway.ports import GatewayPorts
from forestay.gateway.responses import Header, Reply
from forestay.gateway.routing import Surface
from forestay.ids import new_request_id
from forestay.telemetry.logs import wide_line
from forestay.telemetry.metrics import HTTP_REQUESTS, HTTP_SECONDS, REFUSED

_ID = b"x-fal-request-id"
_LIMITS = frozenset({b"ratelimit", b"ratelimit-policy"})
_CSP = b"content-security-policy"
_NO_SNIFFING: Header = (b"x-content-type-options", b"nosniff")
_CLOSE: Header = (b"connection", b"close")
_SANDBOX: Header = (_CSP, b"default-src 'none'; sandbox")


class Outlet:
    """Sends one call's answer."""

    def __init__(self, exchange: Exchange, scope: Scope, inlet: Inlet, send: Send, ports: GatewayPorts) -> None:
        self._exchange = exchange
        self._inlet = inlet
        self._head = scope["method"] == "HEAD"
        self._send = send
        self._ports = ports
        self.started = False

    async def reply(self, reply: Reply) -> None:
        """Send a whole answer."""
        exchange = self._exchange
        exchange.status_code = reply.status_code
        body = reply.body
        exchange.sent_bytes = len(body)
        self.started = True
        headers = [*self._without_doubles(reply.headers), *self._own_headers(reply.headers)]
        await self._hear_out(headers)
        if reply.status_code not in {204, 304}:
            headers.append((b"content-length", b"%d" % len(body)))
        exchange.cause = exchange.cause or reply.why or reply.cause
        if reply.cause:
            self._ports.metrics.add(REFUSED, reply.cause)
        await self._send({"type": "http.response.start", "status": reply.status_code, "headers": headers})
        await self._send({"type": "http.response.body", "body": b"" if self._head else body})

    async def send(self, message: Message) -> None:
        """Pass a message of a handler that sends by itself; its first one gets our headers."""
        if message["type"] == "http.response.start":
            self.started = True
            self._exchange.status_code = message["status"]
            headers: list[Header] = list(self._without_doubles(message["headers"]))
            if not any(name == _ID for name, _ in headers):  # an answer of an inner call has them already
                headers.extend(self._own_headers(headers))
            await self._hear_out(headers)
            message = {**message, "headers": headers}
        await self._send(message)

    async def _hear_out(self, headers: list[Header]) -> None:
        """See to it that the body was read before the answer begins, or say that the connection ends."""
        if _CLOSE not in headers and not await self._inlet.hear_out():
            headers.append(_CLOSE)

    def _own_headers(self, said: Sequence[Header]) -> tuple[Header, ...]:
        """Return what every answer gets; `said` are its headers so far, of which ours are not said twice."""
        exchange, ports = self._exchange, self._ports
        if not exchange.request_id:
            exchange.request_id = str(new_request_id(ports.clock.now(), ports.settings.queue.cell, ports.chance))
        guards = _guards(tuple([name for name, _ in said]), foreign=exchange.surface is not Surface.ROOT)
        own = ((_ID, exchange.request_id.encode()), *exchange.limit_headers, *exchange.notices, *guards)
        return (*own, ORIGIN, EXPOSE) if b"origin" in exchange.headers else own

    def _without_doubles(self, headers: Sequence[Header]) -> Sequence[Header]:
        """Leave away what a model says of limits of its own, where the platform has something to say of them."""
        said = self._exchange.limit_headers
        return [item for item in headers if item[0] not in _LIMITS] if said else headers


@functools.lru_cache(maxsize=1024)
def _guards(said: tuple[bytes, ...], *, foreign: bool) -> tuple[Header, ...]:
    """Return what keeps browsers from trusting an answer, as far as its headers (`said`) leave that to us."""
    names = {name.lower() for name in said}
    sniffing = () if _NO_SNIFFING[0] in names else (_NO_SNIFFING,)
    return (*sniffing, _SANDBOX) if foreign and _CSP not in names else sniffing


def record(exchange: Exchange, scope: Scope, ports: GatewayPorts) -> float:
    """Write the call's log line and metrics; returns the seconds that it took."""
    seconds = ports.clock.monotonic() - exchange.started
    status = exchange.status_code
    ports.metrics.add(HTTP_REQUESTS, exchange.route, str(status))
    ports.metrics.observe(HTTP_SECONDS, seconds, exchange.route)
    if exchange.quiet and status < 500:
        return seconds
    fields = exchange.fields
    fields.update(
        route=exchange.route,
        method=scope.get("method", "WEBSOCKET"),
        status=status,
        seconds=round(seconds, 6),
        request_id=exchange.request_id,
        model_id=exchange.model_id,
        tenant_id=exchange.tenant_id,
        key_id=exchange.key_id,
        sent_bytes=exchange.sent_bytes,
    )
    wide_line("gateway", "gateway.call", ports.clock.now(), fields)
    return seconds
