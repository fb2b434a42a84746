"""Serving one ASGI application on several listening sockets, plain and TLS, inside our own event loop.

It decides how granian is embedded (one embedded server per socket, on sockets that we bound, see decision 0004) and how
serving ends: no new connection, calls in flight finish within a limit. uvicorn does the same by flag, for debugging.
The application's lifespan runs once, here, not once a socket. Called by the gateway's wiring.
"""

import asyncio
import contextlib
import dataclasses
import os
import pathlib
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, MutableMapping, Sequence
from typing import Protocol, cast

from forestay.errors import Unavailable
from forestay.processes import BACKLOG

Message = MutableMapping[str, object]
Application = Callable[
    [MutableMapping[str, object], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]
_LIFESPAN_SECONDS = 30.0


@dataclasses.dataclass(frozen=True, slots=True)
class Certificate:
    """The files of a TLS listener."""

    certificate: pathlib.Path
    key: pathlib.Path


@dataclasses.dataclass(frozen=True, slots=True)
class Listener:
    """A bound, listening socket; with a certificate it speaks TLS."""

    listener: socket.socket
    tls: Certificate | None = None


class HttpServer(Protocol):
    """One server on one socket."""

    async def serve(self) -> None:
        """Serve until told to stop and calls in flight have ended; the socket is closed then."""
        ...

    def stop(self) -> None:
        """Accept nothing new."""
        ...


async def serve(
    application: Application, listeners: Sequence[Listener], stop: asyncio.Event, *, server: str, grace_seconds: float
) -> bool:
    """Serve until `stop`, then let calls in flight end; False when some were still running after `grace_seconds`.

    The sockets are closed when serving ends.
    """
    make = _granian if server == "granian" else _uvicorn
    servers = [make(application, listener) for listener in listeners]
    async with asyncio.TaskGroup() as tasks:
        serving = [tasks.create_task(one.serve()) for one in servers]
        stopped = tasks.create_task(stop.wait())
        await asyncio.wait([stopped, *serving], return_when=asyncio.FIRST_COMPLETED)
        for one in servers:
            one.stop()
        stopped.cancel()
        _, late = await asyncio.wait(serving, timeout=grace_seconds)
        for task in late:
            task.cancel()
    return not late


@contextlib.asynccontextmanager
async def lifespan(application: Application) -> AsyncGenerator[None]:
    """Run the application's lifespan around the block, once for all its listeners."""
    to_application: asyncio.Queue[Message] = asyncio.Queue(2)
    from_application: asyncio.Queue[Message] = asyncio.Queue(2)
    scope: MutableMapping[str, object] = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(_live(application, scope, to_application, from_application))
        await to_application.put({"type": "lifespan.startup"})
        await _expect(from_application, "lifespan.startup.complete")
        try:
            yield
        finally:
            await to_application.put({"type": "lifespan.shutdown"})
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(running), _LIFESPAN_SECONDS)
            running.cancel()


async def _live(
    application: Application,
    scope: MutableMapping[str, object],
    inbound: asyncio.Queue[Message],
    outbound: asyncio.Queue[Message],
) -> None:
    await application(scope, inbound.get, outbound.put)


async def _expect(messages: asyncio.Queue[Message], wanted: str) -> None:
    message = await asyncio.wait_for(messages.get(), _LIFESPAN_SECONDS)
    if message["type"] != wanted:
        raise Unavailable(f"the gateway could not start: {message.get('message', message['type'])}")


def _granian(application: Application, listener: Listener) -> HttpServer:
    """Embed granian on our own socket.

    Its embedded server knows how to bind, not how to take a bound socket; the one private step, replaced here, is
    where it makes its own.
    """
    from granian._granian import SocketHolder  # noqa: PLC0415 - the only way to hand over a bound socket
    from granian.constants import HTTPModes, Interfaces, SSLProtocols  # noqa: PLC0415 - one server is loaded, not both
    from granian.http import HTTP1Settings  # noqa: PLC0415
    from granian.server.embed import Server  # noqa: PLC0415

    holder = cast("Callable[[int, bool, int], object]", SocketHolder)

    class OnOurSocket(Server):
        def _init_shared_socket(self) -> None:
            self._ssp = None
            self._shd = holder(os.dup(listener.listener.fileno()), False, BACKLOG)  # noqa: FBT003 - (fd, is unix, backlog)

        def stop(self) -> None:
            self.interrupt_signal = True
            self.main_loop_interrupt.set()
            listener.listener.close()  # the supervisor may hold it too: then callers wait for the next gateway

    tls = listener.tls
    return OnOurSocket(
        application,
        interface=Interfaces.ASGINL,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=30_000),
        websockets=True,
        backlog=BACKLOG,
        log_enabled=False,
        ssl_cert=None if tls is None else tls.certificate,
        ssl_key=None if tls is None else tls.key,
        ssl_protocol_min=SSLProtocols.tls12,
    )


def _uvicorn(application: Application, listener: Listener) -> HttpServer:
    import uvicorn  # noqa: PLC0415 - one server is loaded, not both

    tls = listener.tls
    config = uvicorn.Config(
        cast("Callable[..., object]", application),
        lifespan="off",
        log_config=None,
        access_log=False,
        backlog=BACKLOG,
        server_header=False,
        ssl_certfile=None if tls is None else str(tls.certificate),
        ssl_keyfile=None if tls is None else str(tls.key),
    )

    class OnOurSocket(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(
            self,
        ) -> Generator[None]:  # signals are the process's own business
            yield

        async def serve(self, sockets: list[socket.socket] | None = None) -> None:
            await super().serve(sockets or [listener.listener])

        def stop(self) -> None:
            self.should_exit = True

    return OnOurSocket(config)
