"""A web on loopback that can misbehave, a resolver that can lie, and a canary that nobody may ever reach.

The guard under test sees public addresses; the sockets it makes lead to the scripted server instead. Whatever it dials
that is not on the short list of public addresses leads to the canary, which counts. Used by the tests and the bench.
"""

# ruff: noqa: S104 - the canary listens everywhere on purpose

import asyncio
import contextlib
import dataclasses
import pathlib
import socket
import ssl
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Literal, cast

from forestay.clock import SystemClock
from forestay.media.fetch import AddressInfo, Network
from forestay.tls import ensure_tls

PUBLIC_V4 = "93.184.215.14"
PUBLIC_V6 = "2606:4700::1111"
PUBLIC = frozenset({PUBLIC_V4, PUBLIC_V6, "8.8.8.8", "1.1.1.1", "64:ff9b::808:808"})

Then = Literal["close", "drip", "flood", "hang", "reset"]


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """What the server answers at one path: exactly these bytes, and what it does then."""

    sent: bytes
    then: Then = "close"


def page(status: str, *headers: str, body: bytes = b"", then: Then = "close") -> Page:
    """Write an answer; its length is told unless a header says it or something follows."""
    lines = [f"HTTP/1.1 {status}", *headers]
    told = any(line.lower().startswith(("content-length", "transfer-encoding")) for line in headers)
    if not told and then == "close":
        lines.append(f"Content-Length: {len(body)}")
    return Page("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body, then)


class Canary:
    """Listens on one port of every address of this machine; a connection or a packet is a failure of the guard."""

    def __init__(self) -> None:
        self._listeners: list[socket.socket] = []
        self.port = 0
        for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                self._listen(family, host, kind)

    def _listen(self, family: socket.AddressFamily, host: str, kind: socket.SocketKind) -> None:
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.settimeout(0.0)
        listener.bind((host, self.port))
        self.port = listener.getsockname()[1]
        if kind == socket.SOCK_STREAM:
            listener.listen(1024)
        self._listeners.append(listener)

    def packets(self) -> int:
        """Return how many connections and packets have come in since the last look."""
        seen = 0
        for listener in self._listeners:
            with contextlib.suppress(BlockingIOError):
                while True:
                    if listener.type == socket.SOCK_STREAM:
                        listener.accept()[0].close()
                    else:
                        listener.recv(1)
                    seen += 1
        return seen

    def close(self) -> None:
        """Stop listening."""
        for listener in self._listeners:
            listener.close()


@contextmanager
def listening_canary() -> Iterator[Canary]:
    """Listen while the context lasts."""
    canary = Canary()
    try:
        yield canary
    finally:
        canary.close()


class _Diverted(socket.socket):
    """A socket that the event loop takes for one to `info`, but that connects elsewhere."""

    def __init__(self, info: AddressInfo, to: tuple[str, int]) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_STREAM)
        self.settimeout(0.0)
        self._told = socket.AddressFamily(info[0])
        self._to = to

    @property
    def family(self) -> socket.AddressFamily:
        return self._told

    def connect(self, address: object, /) -> None:
        del address
        super().connect(self._to)


class LyingResolver:
    """Gives a name its listed answers, one a call, the last for ever; every other name is loopback."""

    def __init__(self, answers: Mapping[str, Sequence[Sequence[str]]]) -> None:
        self._answers = answers
        self.asked: list[str] = []

    async def resolve(self, host: str) -> Sequence[str]:
        """Answer."""
        turn = self.asked.count(host)
        self.asked.append(host)
        answers = self._answers.get(host)
        if answers is None and host.endswith(".example"):
            return [PUBLIC_V4]
        if answers is None:
            return ["127.0.0.1"]
        answer = answers[min(turn, len(answers) - 1)]
        if not answer:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return answer


class ScriptedWeb:
    """A server that answers each path as it is told."""

    def __init__(self, canary: Canary) -> None:
        self.pages: dict[str, Page] = {}
        self.seen: list[tuple[str, str]] = []  # path and Host header
        self.canary = canary
        self.port = 0
        self.tls_port = 0
        self._busy: set[asyncio.StreamWriter] = set()
        self._quiet = asyncio.Event()
        self._quiet.set()

    def network(
        self, answers: Mapping[str, Sequence[Sequence[str]]] | None = None, tls: ssl.SSLContext | None = None
    ) -> Network:
        """Return a way out that leads here, or to the canary."""
        return Network(LyingResolver(answers or {}), self._make_socket, tls)

    def _make_socket(self, info: AddressInfo) -> socket.socket:
        host, port = str(info[4][0]), cast("int", info[4][1])
        ours = self.tls_port if port in {443, self.tls_port} and self.tls_port else self.port
        to = ("127.0.0.1", ours if host in PUBLIC else self.canary.port)
        return _Diverted(info, to)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection, in whatever way the page wants."""
        self._busy.add(writer)
        self._quiet.clear()
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return  # the client left, which is what most pages are meant to make it do
        finally:
            writer.close()
            self._busy.discard(writer)
            if not self._busy:
                self._quiet.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            path = head.split(" ", 2)[1]
            host = next((line[5:].strip() for line in head.split("\r\n") if line.lower().startswith("host:")), "")
            self.seen.append((path, host))
            found = self.pages.get(path.partition("?")[0], page("200 OK", body=b"reached"))
            writer.write(found.sent)
            await writer.drain()
            if found.then == "reset":
                writer.transport.abort()
                return
            if found.then == "close":
                return
            if found.then == "hang":
                await reader.read()
                return
            await self._go_on(writer, found.then)

    async def _go_on(self, writer: asyncio.StreamWriter, then: Then) -> None:
        piece, pause = (b"x" * 65_536, 0.0) if then == "flood" else (b"x", 0.05)
        while not writer.is_closing():
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)

    async def cut(self) -> None:
        """Break every open connection off and see it off."""
        for writer in tuple(self._busy):
            writer.transport.abort()
        async with asyncio.timeout(10):
            await self._quiet.wait()


@asynccontextmanager
async def scripted_web(canary: Canary, tls: ssl.SSLContext | None = None) -> AsyncGenerator[ScriptedWeb]:
    """Serve while the context lasts; with `tls` on a second port too."""
    web = ScriptedWeb(canary)
    servers = [await asyncio.start_server(web.serve, "127.0.0.1", 0)]
    web.port = servers[0].sockets[0].getsockname()[1]
    if tls is not None:
        servers.append(await asyncio.start_server(web.serve, "127.0.0.1", 0, ssl=tls))
        web.tls_port = servers[1].sockets[0].getsockname()[1]
    try:
        yield web
    finally:
        await web.cut()
        for server in servers:
            server.close()
            await server.wait_closed()


def tls_contexts(folder: pathlib.Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return a server's side and a client's side of TLS with an authority of their own, for the names of the tests."""
    files = ensure_tls(folder, SystemClock().now(), ["files.example", "other.example"])
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(files.certificate, files.key)
    return server, ssl.create_default_context(cafile=str(files.ca))


def filled(text: str, web: ScriptedWeb) -> str:
    """Write the ports of this run into a URL or page: CANARY, WEB, TLS."""
    return text.replace("CANARY", str(web.canary.port)).replace("WEB", str(web.port)).replace("TLS", str(web.tls_port))


def filled_page(wanted: Page, web: ScriptedWeb) -> Page:
    """Write the same into a page; the canary's port gets six digits, so that a body keeps the length it tells."""
    canary = f"{web.canary.port:06d}".encode()
    return dataclasses.replace(
        wanted, sent=filled(wanted.sent.replace(b"CANARY", canary).decode("latin-1"), web).encode("latin-1")
    )
