"""Calls to servers of our own network over connections that are kept: plain HTTP/1.1, or TLS where the URL says so.

It decides which connection a call gets, when one is opened, used again or given up, and how a broken one shows. How
requests and answers look is `http1`'s. A general client costs a call several times as much, which in the direct lane
was a third of the whole. Called by `upstream`.
"""

import asyncio
import dataclasses
import functools
import ssl
from collections.abc import AsyncGenerator, Mapping
from types import TracebackType
from typing import Self, cast

from yarl import URL

from forestay.gateway.http1 import MAX_HEAD, Body, Head, Malformed, body_of, read_head, write_head

CONNECT_SECONDS = 5.0
KEEP_SECONDS = 30.0
MAX_PER_ORIGIN = 1_024
MAX_WAITING_BYTES = 256 * 1024  # of an answer that nobody has taken yet; then its server waits
_WHOLE_BYTES = 64 * 1024  # a body up to this size is written together with its head
_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})  # may be sent twice (RFC 9110, section 9.2.2)


class CallError(Exception):
    """A call that was not answered whole."""


class ConnectTimedOut(CallError):
    """Nobody accepted the connection in time: the server has seen nothing."""


class ConnectRefused(CallError):
    """The connection could not be opened: the server has seen nothing."""


class Disconnected(CallError):
    """The server closed the connection instead of answering."""


class Unusable(CallError):
    """The connection broke, or what came over it was no answer."""


class BrokenOff(CallError):
    """The answer's body did not come whole."""


@dataclasses.dataclass(frozen=True, slots=True)
class Origin:
    """A server, as its URL names it."""

    host: str
    port: int
    tls: bool
    shown: str  # the Host header
    path: str  # what stands before every call's own path, without a closing slash


@functools.lru_cache(maxsize=1024)
def origin_of(url: str) -> Origin:
    """Read the URL of a server; ValueError when it names none."""
    parsed = URL(url, encoded=True)
    if parsed.host is None or parsed.port is None or parsed.scheme not in {"http", "https"}:
        raise ValueError("an http or https URL with a host was expected")
    shown = parsed.host_port_subcomponent or parsed.host
    return Origin(parsed.host, parsed.port, parsed.scheme == "https", shown, parsed.raw_path.rstrip("/"))


class _Line(asyncio.Protocol):
    """One connection: keeps what comes until it is taken."""

    def __init__(self, loop: asyncio.AbstractEventLoop, origin: Origin) -> None:
        self._loop = loop
        self.origin = origin
        self._data = b""
        self._waiter: asyncio.Future[None] | None = None
        self._paused = False
        self.used = False  # a call is on it
        self.over = False  # nothing more will come
        self.error: Exception | None = None
        self.idle_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if not self.used:
            self.give_up()  # an answer that nobody asked for: it would be taken for the next call's
            return
        self._data = self._data + data if self._data else data
        if len(self._data) > MAX_WAITING_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        self.over = True
        self._wake()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.over, self.error = True, exc
        self._wake()

    @property
    def usable(self) -> bool:
        """Tell whether another call may be made: the server is there, and has said nothing that nobody has read."""
        return not self.over and not self._data

    def write(self, head: bytes, body: bytes) -> None:
        """Send a request."""
        if len(body) <= _WHOLE_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)

    async def take(self) -> bytes:
        """Return what has come, at least a byte; nothing once nothing more will come."""
        if not self._data and not self.over:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        data, self._data = self._data, b""
        if self._paused and not self.over:
            self._paused = False
            self._transport.resume_reading()
        return data

    def give_up(self) -> None:
        """Close at once."""
        self.over = True
        self._transport.abort()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Response:
    """An answer whose head has come; `async with` gives its connection back, or closes what was not read to its end."""

    def __init__(self, on: tuple["Connections", asyncio.Semaphore, _Line], head: Head, rest: bytes) -> None:
        self._pool, self._room, self._line = on
        self._body: Body = body_of(head)
        self._rest = rest
        self._released = False
        self.head = head
        self.status = head.status

    @property
    def content_length(self) -> int | None:
        """Return the size of the body, None when it is not known before its end."""
        return self.head.length

    async def read(self) -> bytes:
        """Return the rest of the body; raises BrokenOff."""
        first = await self._next()
        if self._body.ended or not first:
            return first
        pieces = [first]
        while piece := await self._next():
            pieces.append(piece)
        return b"".join(pieces)

    async def pieces(self) -> AsyncGenerator[bytes]:
        """Yield the body as it comes; raises BrokenOff."""
        while piece := await self._next():
            yield piece

    async def _next(self) -> bytes:
        """Return the next content, nothing at the end."""
        body, line = self._body, self._line
        while not body.ended:
            data, self._rest = self._rest, b""
            if not data:
                data = await line.take()
            if not data:
                if body.ends_here() and line.error is None:
                    body.ended = True
                    return b""
                raise BrokenOff("the connection ended within the body")
            try:
                content = body.feed(data)
            except Malformed as error:
                raise BrokenOff(str(error)) from None
            if content:
                return content
        return b""

    def release(self) -> None:
        """Be done with it: the connection serves the next call if the body was read whole, else it is closed."""
        if not self._released:
            self._released = True
            whole = self._body.ended and not self._body.rest and not self._rest
            self._room.release()
            self._pool.take_back(self._line, again=whole and self.head.keeps)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Connections:
    """The connections of one process, by origin; all on the loop that opened them."""

    def __init__(self) -> None:
        self._idle: dict[Origin, list[_Line]] = {}
        self._rooms: dict[Origin, asyncio.Semaphore] = {}
        self._all: set[_Line] = set()
        self._sweeping = False
        self._tls: ssl.SSLContext | None = None

    async def call(self, method: str, origin: Origin, target: str, headers: Mapping[str, str], body: bytes) -> Response:
        """Make a call and return its answer once the head is there; raises a CallError.

        `target` is path and query as they are sent. Where the connection breaks, what may be sent twice is, once.
        """
        room = self._rooms.get(origin)
        if room is None:
            room = self._rooms[origin] = asyncio.Semaphore(MAX_PER_ORIGIN)
        head = write_head(method, origin.path + target, origin.shown, headers, len(body))
        await room.acquire()
        tries = 2 if method in _SAFE else 1
        while True:
            tries -= 1
            line: _Line | None = None
            try:
                line = self._kept(origin) or await self._open(origin)
                line.used = True
                line.write(head, body)
                found, rest = await _answer(line, method)
                return Response((self, room, line), found, rest)
            except BaseException as error:
                if line is not None:
                    self._drop(line)
                if tries and isinstance(error, Disconnected | Unusable):
                    continue
                room.release()
                raise

    def take_back(self, line: _Line, *, again: bool) -> None:
        """Keep a connection for the next call, or close it."""
        line.used = False
        if not again or not line.usable:
            self._drop(line)
            return
        loop = asyncio.get_running_loop()
        line.idle_since = loop.time()
        self._idle.setdefault(line.origin, []).append(line)
        if not self._sweeping:
            self._sweeping = True
            loop.call_later(KEEP_SECONDS, self._sweep)

    def close(self) -> None:
        """Close every connection."""
        self._idle.clear()
        for line in list(self._all):
            self._drop(line)

    def idle(self, origin: Origin) -> tuple[_Line, ...]:
        """Return the connections that wait for a call, for tests."""
        return tuple(self._idle.get(origin, ()))

    def _kept(self, origin: Origin) -> _Line | None:
        """Return the connection that was used last, if it still stands."""
        idle = self._idle.get(origin)
        while idle:
            line = idle.pop()
            if not line.over:
                return line
            self._drop(line)
        return None

    async def _open(self, origin: Origin) -> _Line:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, line = await loop.create_connection(
                    lambda: _Line(loop, origin),
                    origin.host,
                    origin.port,
                    ssl=self._context() if origin.tls else None,
                )
        except TimeoutError:
            raise ConnectTimedOut(f"no connection within {CONNECT_SECONDS:g} s") from None
        except (OSError, ValueError) as error:  # ValueError: a certificate of another name
            raise ConnectRefused(str(error)) from None
        self._all.add(line)
        return line

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls

    def _drop(self, line: _Line) -> None:
        self._all.discard(line)
        line.give_up()

    def _sweep(self) -> None:
        """Close what has been idle for too long, or was closed by its server; again while anything is kept."""
        loop = asyncio.get_running_loop()
        oldest = loop.time() - KEEP_SECONDS
        for origin, lines in list(self._idle.items()):
            for line in [line for line in lines if line.over or line.idle_since <= oldest]:
                lines.remove(line)
                self._drop(line)
            if not lines:
                del self._idle[origin]
        known = {line.origin for line in self._all}  # replicas come and go: what is left of the others is forgotten
        self._rooms = {origin: room for origin, room in self._rooms.items() if origin in known}
        self._sweeping = bool(self._idle)
        if self._sweeping:
            loop.call_later(KEEP_SECONDS, self._sweep)


async def _answer(line: _Line, method: str) -> tuple[Head, bytes]:
    """Return the head of the answer and what came with it of the body; interim answers are skipped."""
    data = b""
    while True:
        end = data.find(b"\r\n\r\n")
        if end < 0:
            more = await _more(line, data)
            data = data + more if data else more
            continue
        try:
            head = read_head(data[:end], method)
        except Malformed as error:
            raise Unusable(str(error)) from None
        data = data[end + 4 :]
        if head.status >= 200:
            return head, data
        if head.status == 101:
            raise Unusable("the server changed to another protocol, which nobody asked for")


async def _more(line: _Line, data: bytes) -> bytes:
    """Return more of a head that is not whole yet."""
    if len(data) > MAX_HEAD:
        raise Unusable("the head of the answer is too long")
    more = await line.take()
    if more:
        return more
    if line.error is not None or data:
        raise Unusable("the connection broke before the answer")
    raise Disconnected("the server closed the connection before it answered")
