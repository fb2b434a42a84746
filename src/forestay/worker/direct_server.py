"""Serves the direct lane inside the worker's event loop.

uvicorn, not granian: a full replica must be able to deny a websocket's handshake with 429, which needs the ASGI
extension for denials. Decides nothing else. Called by `worker/process.py`.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Generator
from typing import cast

import uvicorn

from forestay.processes import bind
from forestay.worker.direct import DirectLane

KEEP_ALIVE_SECONDS = 75  # longer than the gateway keeps an idle connection
MAX_HEADER_BYTES = 128 * 1024
MAX_FRAME_BYTES = 64 * 1024 * 1024


def listen(host: str, port: int) -> socket.socket:
    """Bind; UsageError says what to change when the port is taken."""
    return bind(host, port, what="FORESTAY_WORKER_PORT")


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave signals to the process."""
        yield


async def serve(lane: DirectLane, listener: socket.socket) -> None:
    """Serve until cancelled; what is in flight then is broken off."""
    config = uvicorn.Config(
        cast("Callable[..., object]", lane),
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        ws_max_size=MAX_FRAME_BYTES,
    )
    server = _Server(config)
    try:
        await server.serve(sockets=[listener])
    except asyncio.CancelledError:
        server.should_exit = True
        raise
    finally:
        # A cancelled `serve` leaves the loop watching the socket: closed under it, the next one of that number fails.
        for opened in server.servers if server.started else []:
            opened.close()
        listener.close()
