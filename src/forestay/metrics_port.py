"""The small HTTP port of every process: `/metrics` for Prometheus and `/health` for whoever restarts processes.

It decides nothing; it must not weigh much either, so it speaks just enough HTTP/1.1 for a scraper: one GET a
connection, heads up to 8 KiB, five seconds. Called by the wiring of each process kind.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Callable

from forestay.telemetry.metrics import Metrics

_TIMEOUT_SECONDS = 5.0
_MAX_HEAD_BYTES = 8192
_TEXT = "text/plain; version=0.0.4; charset=utf-8"


@contextlib.asynccontextmanager
async def metrics_port(listener: socket.socket, metrics: Metrics, healthy: Callable[[], bool]) -> AsyncGenerator[None]:
    """Serve `/metrics` and `/health` on a bound socket while the block runs."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(_respond(head, metrics, healthy))
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, sock=listener, limit=_MAX_HEAD_BYTES)
    try:
        yield
    finally:
        server.close()


def _respond(head: bytes, metrics: Metrics, healthy: Callable[[], bool]) -> bytes:
    method, _, rest = head.partition(b" ")
    path = rest.split(b" ", 1)[0].split(b"?", 1)[0]
    if method not in (b"GET", b"HEAD"):
        status, body = "405 Method Not Allowed", b"only GET\n"
    elif path == b"/metrics":
        status, body = "200 OK", metrics.exposition()
    elif path == b"/health":
        status, body = ("200 OK", b"ok\n") if healthy() else ("503 Service Unavailable", b"stopping\n")
    else:
        status, body = "404 Not Found", b"there are /metrics and /health\n"
    shown = b"" if method == b"HEAD" else body
    lines = [
        f"HTTP/1.1 {status}",
        f"content-type: {_TEXT}",
        f"content-length: {len(body)}",
        "connection: close",
        "",
        "",
    ]
    return "\r\n".join(lines).encode() + shown
