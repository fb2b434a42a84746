"""Serving one application on several of our own sockets, by both servers."""

import asyncio
import datetime as dt
import pathlib
import ssl

import aiohttp
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from forestay.errors import UsageError
from forestay.processes import address_of, bind
from forestay.servers import Certificate, Listener, lifespan, serve
from forestay.tls import ensure_tls

SERVERS = pytest.mark.parametrize("server", ["granian", "uvicorn"])


def application(entered: asyncio.Event, leave: asyncio.Event) -> Starlette:
    """Answers at once, slowly, and over a websocket."""

    async def quick(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.url.scheme)

    async def slow(_: Request) -> PlainTextResponse:
        entered.set()
        await leave.wait()
        return PlainTextResponse("finished")

    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_bytes(await websocket.receive_bytes())
        await websocket.close()

    return Starlette(routes=[Route("/", quick), Route("/slow", slow), WebSocketRoute("/echo", echo)])


@SERVERS
async def test_plain_tls_and_websockets_are_served_by_one_process(tmp_path: pathlib.Path, server: str) -> None:
    """Two sockets, one application."""
    files = ensure_tls(tmp_path, dt.datetime.now(dt.UTC))  # noqa: TID251 - judged by the machine's own clock
    plain, secured = bind("127.0.0.1", 0, what="a"), bind("127.0.0.1", 0, what="b")
    listeners = [Listener(plain), Listener(secured, Certificate(files.certificate, files.key))]
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        app = application(asyncio.Event(), asyncio.Event())
        serving = tasks.create_task(serve(app, listeners, stop, server=server, grace_seconds=5))
        trust = ssl.create_default_context(cafile=str(files.ca))
        async with aiohttp.ClientSession() as client:
            async with client.get(f"http://{address_of(plain)}/") as answer:
                assert await answer.text() == "http"
            async with client.get(f"https://{address_of(secured)}/", ssl=trust) as answer:
                assert await answer.text() == "https"
            async with client.ws_connect(f"wss://{address_of(secured)}/echo", ssl=trust) as websocket:
                await websocket.send_bytes(b"frame")
                assert (await websocket.receive()).data == b"frame"
        stop.set()
        assert await serving


@SERVERS
async def test_a_call_in_flight_finishes_after_the_stop(server: str) -> None:
    """Stopping accepts nothing new and cuts nothing."""
    listener = bind("127.0.0.1", 0, what="a")
    stop, entered, leave = asyncio.Event(), asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        app = application(entered, leave)
        serving = tasks.create_task(serve(app, [Listener(listener)], stop, server=server, grace_seconds=10))
        async with aiohttp.ClientSession() as client:
            call = tasks.create_task(client.get(f"http://{address_of(listener)}/slow"))
            await entered.wait()
            stop.set()
            await asyncio.sleep(0)
            leave.set()
            assert await (await call).text() == "finished"
        assert await serving


async def test_a_call_that_does_not_end_is_cut_after_the_grace() -> None:
    """The end of the process waits no longer than said."""
    listener = bind("127.0.0.1", 0, what="a")
    stop, entered = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        app = application(entered, asyncio.Event())
        serving = tasks.create_task(serve(app, [Listener(listener)], stop, server="granian", grace_seconds=0.2))
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1)) as client:
            call = tasks.create_task(_swallow(client, f"http://{address_of(listener)}/slow"))
            await entered.wait()
            stop.set()
            assert not await serving
            await call


async def _swallow(client: aiohttp.ClientSession, url: str) -> None:
    try:
        async with client.get(url) as answer:
            await answer.read()
    except (aiohttp.ClientError, TimeoutError):
        return


async def test_the_lifespan_runs_once_around_all_listeners() -> None:
    """Start-up is complete before the block, shutdown after it."""
    said: list[str] = []

    async def app(scope, receive, send) -> None:  # noqa: ANN001 - the ASGI signature
        assert scope["type"] == "lifespan"
        assert (await receive())["type"] == "lifespan.startup"
        said.append("up")
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        said.append("down")
        await send({"type": "lifespan.shutdown.complete"})

    async with lifespan(app):
        said.append("serving")
    assert said == ["up", "serving", "down"]


def test_a_port_in_use_is_refused_with_the_setting_to_change() -> None:
    """Two platforms cannot share a port in silence."""
    taken = bind("127.0.0.1", 0, what="--port")
    with pytest.raises(UsageError, match=r"--port: cannot listen on 127\.0\.0\.1:\d+: Address already in use"):
        bind("127.0.0.1", taken.getsockname()[1], what="--port")
    taken.close()
