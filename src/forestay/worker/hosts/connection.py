"""Speaks HTTP and websocket to a model's server, over a unix socket or TCP, and turns every ending into a value.

It decides nothing. Used by the hosts; the rest of the worker sees only `host.CallResult`. Bodies pass as bytes,
untouched (a model's NaN stays a NaN).
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiohttp
from multidict import CIMultiDict

from forestay.worker.hosts.host import Answered, Broken, CallRequest, CallResult, ModelSocket, Refused, Stream, TimedOut

MAX_ANSWER_BYTES = 256 * 1024 * 1024
MAX_FRAME_BYTES = 64 * 1024 * 1024
CONNECT_SECONDS = 5.0
_HOP_BY_HOP = frozenset(
    {
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "upgrade"),
        *("transfer-encoding", "content-length", "date", "server"),
    }
)


class ModelConnection:
    """A pool of connections to one model's server."""

    def __init__(self, base_url: str, *, socket_path: str | None = None, keep_alive_seconds: float = 60.0) -> None:
        self._base_url = base_url.rstrip("/")
        self._socket_path = socket_path
        self._keep_alive_seconds = keep_alive_seconds
        self._session: aiohttp.ClientSession | None = None

    async def call(self, request: CallRequest) -> CallResult:
        """Run one call to its end."""
        try:
            async with asyncio.timeout(request.timeout_seconds), self._open(request) as response:
                return await _whole(response)
        except TimeoutError:
            return TimedOut(request.timeout_seconds)
        except aiohttp.ClientConnectorError as error:
            return Refused(str(error))
        except (aiohttp.ClientError, ConnectionError, ValueError) as error:
            return Broken(f"{type(error).__name__}: {error}")

    @asynccontextmanager
    async def stream(self, request: CallRequest) -> AsyncGenerator[Stream | CallResult, None]:
        """Run one call, handing on pieces as they arrive; the call's time-out holds for the whole."""
        opened = self._open(request)
        try:
            async with asyncio.timeout(request.timeout_seconds):
                response = await opened.__aenter__()
        except TimeoutError:
            yield TimedOut(request.timeout_seconds)
            return
        except aiohttp.ClientConnectorError as error:
            yield Refused(str(error))
            return
        except (aiohttp.ClientError, ConnectionError, ValueError) as error:
            yield Broken(f"{type(error).__name__}: {error}")
            return
        try:
            yield Stream(response.status, _headers(response), _pieces(response))
        finally:
            response.close()  # not released: what the caller has not read must not reach the next call

    @asynccontextmanager
    async def websocket(self, path: str, headers: Mapping[str, str]) -> AsyncGenerator[ModelSocket | None, None]:
        """Open a websocket; None when the handshake is refused or nothing listens."""
        offered = [item.strip() for item in headers.get("sec-websocket-protocol", "").split(",") if item.strip()]
        kept = {name: value for name, value in headers.items() if not name.startswith("sec-websocket")}
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                socket = await self._opened().ws_connect(
                    self._base_url + path,
                    protocols=offered,
                    headers=kept,
                    max_msg_size=MAX_FRAME_BYTES,
                    autoping=True,
                )
        except (aiohttp.ClientError, ConnectionError, TimeoutError):
            yield None
            return
        try:
            yield _AiohttpSocket(socket)
        finally:
            await socket.close()

    async def status_of(
        self, method: str, path: str, *, headers: Mapping[str, str], timeout_seconds: float
    ) -> int | None:
        """Call `path` without a body and return the status, None when there was no answer in time."""
        try:
            async with (
                asyncio.timeout(timeout_seconds),
                self._opened().request(method, self._base_url + path, headers=headers) as response,
            ):
                return response.status
        except (aiohttp.ClientError, ConnectionError, TimeoutError):
            return None

    async def read_json(self, path: str, *, timeout_seconds: float, max_bytes: int) -> bytes | None:
        """GET a document; None when there is none."""
        try:
            async with asyncio.timeout(timeout_seconds), self._opened().get(self._base_url + path) as response:
                data = await response.content.read(max_bytes)
                return data if response.status == 200 and response.content.at_eof() else None
        except (aiohttp.ClientError, ConnectionError, TimeoutError):
            return None

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self, request: CallRequest) -> "aiohttp.client._RequestContextManager":  # pyright: ignore[reportPrivateUsage] - its only name
        headers = CIMultiDict({"Accept-Encoding": "identity", **request.headers})
        return self._opened().request(
            request.method,
            self._base_url + request.endpoint,
            data=request.body,
            headers=headers,
            allow_redirects=False,  # a 3xx is passed on verbatim
        )

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = (
                aiohttp.UnixConnector(self._socket_path, limit=0, keepalive_timeout=self._keep_alive_seconds)
                if self._socket_path
                else aiohttp.TCPConnector(limit=0, keepalive_timeout=self._keep_alive_seconds)
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("User-Agent",),
                max_line_size=65_536,
                max_field_size=65_536,
            )
        return self._session


class _AiohttpSocket:
    """ModelSocket over aiohttp."""

    def __init__(self, socket: "aiohttp.ClientWebSocketResponse") -> None:
        self._socket = socket

    @property
    def subprotocol(self) -> str | None:
        return self._socket.protocol

    @property
    def close_code(self) -> int:
        return self._socket.close_code or 1006

    async def receive(self) -> str | bytes | None:
        message = await self._socket.receive()
        if message.type is aiohttp.WSMsgType.TEXT or message.type is aiohttp.WSMsgType.BINARY:
            data: str | bytes = message.data
            return data
        return None

    async def send(self, frame: str | bytes) -> None:
        if isinstance(frame, str):
            await self._socket.send_str(frame)
        else:
            await self._socket.send_bytes(frame)


async def _whole(response: aiohttp.ClientResponse) -> Answered | Broken:
    collected = bytearray()
    async for piece in response.content.iter_any():
        collected += piece
        if len(collected) > MAX_ANSWER_BYTES:
            response.close()
            return Broken(f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
    return Answered(response.status, _headers(response), bytes(collected))


async def _pieces(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    try:
        async for piece in response.content.iter_any():
            yield piece
    except aiohttp.ClientError as error:
        raise ConnectionError(f"the model broke off its answer: {error}") from error


def _headers(response: aiohttp.ClientResponse) -> dict[str, str]:
    """Lower the names and read the bytes of values as latin-1, as HTTP means them: any byte then is one character."""
    return {
        name.lower(): value.encode("utf-8", "surrogateescape").decode("latin-1")
        for name, value in response.headers.items()
        if name.lower() not in _HOP_BY_HOP
    }
