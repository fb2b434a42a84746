"""A CONNECT proxy for clients that cannot be told another host: `HTTPS_PROXY=http://this` (contract, section 3.2).

The unmodified Python client uploads to hosts that are constants of its code. This proxy tunnels fal's host names, and
our own, to our own TLS listener, and nothing else to anywhere: it can never be used to reach a third party. It sees no
plain text; it notes who its clients are, for keys that are good in some networks only. Run by the wiring beside the
gateway's listeners.
"""

import asyncio
import contextlib
import dataclasses
import re
import socket
from collections.abc import Callable, Collection

from forestay.gateway.caller_address import Tunnels
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import CONNECT_TUNNELS, Metrics

FAL_NAMES = frozenset({"fal.run", "queue.fal.run", "rest.fal.ai", "v3.fal.media"})
_LINE = re.compile(rb"CONNECT (\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253}):([0-9]{1,5}) HTTP/1\.[01]")
_REASONS = {200: "Connection Established", 400: "Bad Request", 403: "Forbidden", 405: "Method Not Allowed",
            408: "Request Timeout", 431: "Request Header Fields Too Large", 502: "Bad Gateway",
            503: "Service Unavailable"}  # fmt: skip
_log = logger("gateway")


@dataclasses.dataclass(frozen=True, slots=True)
class ProxyLimits:
    """Bounds of the proxy."""

    head_bytes: int = 8192
    head_seconds: float = 10.0
    connect_seconds: float = 5.0
    idle_seconds: float = 3900.0  # longer than the longest synchronous call
    connections: int = 512
    piece_bytes: int = 64 * 1024


@dataclasses.dataclass(frozen=True, slots=True)
class ProxyTarget:
    """Where tunnels lead: a TLS listener of ours, and the `host:port` names besides fal's that mean it."""

    tls_host: str
    tls_port: int
    own_names: Collection[str] = ()
    tunnels: Tunnels = dataclasses.field(default_factory=Tunnels)


async def serve_connect_proxy(
    listener: socket.socket,
    target: ProxyTarget,
    stop: asyncio.Event,
    on_ready: Callable[[int], None],
    metrics: Metrics,
    limits: ProxyLimits | None = None,
) -> None:
    """Serve on a bound socket until `stop` is set; calls `on_ready` with the port; open tunnels are cut at the end."""
    proxy = _Proxy(target, metrics, limits or ProxyLimits())
    server = await asyncio.start_server(proxy.serve, sock=listener, limit=proxy.limits.piece_bytes)
    try:
        on_ready(int(server.sockets[0].getsockname()[1]))
        await stop.wait()
    finally:
        server.close()
        await proxy.cut()


def allowed(host: str, port: int, own_names: Collection[str]) -> bool:
    """Tell whether `host:port` is one that is tunnelled."""
    name = host.lower().removesuffix(".")
    if port == 443 and (name in FAL_NAMES or name.endswith(".fal.run")):
        return True
    return f"{name}:{port}" in {own.lower() for own in own_names}


class _Proxy:
    """The connections of one listener."""

    def __init__(self, target: ProxyTarget, metrics: Metrics, limits: ProxyLimits) -> None:
        self.limits = limits
        self._target = target
        self._metrics = metrics
        self._open: set[asyncio.StreamWriter] = set()
        self._served = 0
        self._quiet = asyncio.Event()
        self._quiet.set()

    async def cut(self) -> None:
        """End every connection at once and wait until the last has been seen off."""
        for writer in tuple(self._open):
            writer.transport.abort()
        with contextlib.suppress(TimeoutError):  # the process is ending anyway
            async with asyncio.timeout(5.0):
                await self._quiet.wait()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client to its end; nothing that it does raises out of here."""
        self._open.add(writer)
        self._served += 1
        self._quiet.clear()
        try:
            status = await self._judge(reader)
            if status == 200:
                status = await self._tunnel(reader, writer)
            if status != 200:
                await self._answer(writer, status)
            self._metrics.add(CONNECT_TUNNELS, str(status))
        except (OSError, TimeoutError) as error:
            self._metrics.add(CONNECT_TUNNELS, "broken")
            _log.debug("connect_proxy.broken", reason=type(error).__name__)
        finally:
            self._open.discard(writer)
            await _closed(writer)
            self._served -= 1
            if not self._served:
                self._quiet.set()

    async def _judge(self, reader: asyncio.StreamReader) -> int:
        """Read the request's head and return the status that it deserves."""
        if self._served > self.limits.connections:
            return 503
        head = await self._head(reader)
        if isinstance(head, int):
            return head
        line = head.partition(b"\r\n")[0]
        match = _LINE.fullmatch(line)
        if match is None:
            return 400 if line.startswith(b"CONNECT ") else 405
        return 200 if allowed(match[1].decode(), int(match[2]), self._target.own_names) else 403

    async def _head(self, reader: asyncio.StreamReader) -> bytes | int:
        try:
            async with asyncio.timeout(self.limits.head_seconds):
                head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return 431
        except asyncio.IncompleteReadError:
            return 400
        except TimeoutError:
            return 408
        return head if len(head) <= self.limits.head_bytes else 431

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
        try:
            async with asyncio.timeout(self.limits.connect_seconds):
                far_reader, far_writer = await asyncio.open_connection(self._target.tls_host, self._target.tls_port)
        except (OSError, TimeoutError):
            return 502
        self._open.add(far_writer)
        own_port, origin = int(far_writer.get_extra_info("sockname")[1]), writer.get_extra_info("peername")
        self._target.tunnels.origins[own_port] = str(origin[0]) if origin else ""
        try:
            await self._answer(writer, 200)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pipe(reader, far_writer))
                group.create_task(self._pipe(far_reader, writer))
        except* OSError:  # includes time-outs: one side is gone or silent, so both ends close
            writer.transport.abort()
        finally:
            self._open.discard(far_writer)
            self._target.tunnels.origins.pop(own_port, None)
            await _closed(far_writer)
        return 200

    async def _pipe(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Pass bytes on until the source ends, then end the sink's direction alone: the other may still flow."""
        while True:
            async with asyncio.timeout(self.limits.idle_seconds):
                piece = await source.read(self.limits.piece_bytes)
            if not piece:
                break
            sink.write(piece)
            async with asyncio.timeout(self.limits.idle_seconds):
                await sink.drain()
        if sink.can_write_eof() and not sink.is_closing():
            sink.write_eof()

    async def _answer(self, writer: asyncio.StreamWriter, status: int) -> None:
        extra = "" if status == 200 else "Content-Length: 0\r\nConnection: close\r\n"
        writer.write(f"HTTP/1.1 {status} {_REASONS[status]}\r\n{extra}\r\n".encode())
        async with asyncio.timeout(self.limits.head_seconds):
            await writer.drain()


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError, TimeoutError):  # it is being given up: how it ends tells nothing
        async with asyncio.timeout(5.0):
            await writer.wait_closed()
