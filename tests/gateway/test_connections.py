"""Calls over kept connections: used again, opened anew, and what a broken one is called."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from forestay.gateway.connections import (
    BrokenOff,
    Connections,
    ConnectRefused,
    Disconnected,
    Origin,
    Response,
    Unusable,
    origin_of,
)

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Answers each request on a connection with the next of its answers; None closes the connection instead."""

    def __init__(self, *answers: bytes | None) -> None:
        self.answers = list(answers)
        self.opened = 0
        self.asked: list[bytes] = []
        self.closed = asyncio.Event()
        self.heard = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.opened += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length")), 0)
                self.asked.append(head + await reader.readexactly(size))
                self.heard.set()
                answer = self.answers.pop(0)
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            self.closed.set()


@asynccontextmanager
async def serving(server: Serve) -> AsyncIterator[tuple[Connections, Origin]]:
    """Run a server, and connections to it."""
    ended: list[asyncio.Event] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        over = asyncio.Event()
        ended.append(over)
        try:
            await server(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            over.set()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as listener:
        connections = Connections()
        port = listener.sockets[0].getsockname()[1]
        try:
            yield connections, origin_of(f"http://127.0.0.1:{port}/base/")
        finally:
            connections.close()
            for over in ended:
                await asyncio.wait_for(over.wait(), 5)


async def call(connections: Connections, origin: Origin, method: str = "POST", body: bytes = b"{}") -> Response:
    """Make one call."""
    return await connections.call(method, origin, "/run", {"x-a": "b"}, body)


async def read(connections: Connections, origin: Origin, method: str = "POST", body: bytes = b"{}") -> bytes:
    """Make one call and read it whole."""
    async with await call(connections, origin, method, body) as response:
        return await response.read()


async def test_one_connection_serves_call_after_call() -> None:
    """What was read whole leaves its connection to the next call; the request is what was meant."""
    server = Server(OK, OK, OK)
    async with serving(server) as (connections, origin):
        for _ in range(3):
            assert await read(connections, origin) == b"ok"
        assert server.opened == 1
        assert server.asked[0].startswith(b"POST /base/run HTTP/1.1\r\nhost: 127.0.0.1:")
        assert server.asked[0].endswith(b"x-a: b\r\ncontent-length: 2\r\n\r\n{}")


async def test_an_answer_may_come_byte_by_byte() -> None:
    """Head, interim answer and body mean the same however they come."""
    whole = b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n"
    whole += b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"

    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        for place in range(len(whole)):
            writer.write(whole[place : place + 1])
            await writer.drain()
            await asyncio.sleep(0)
        await reader.read()

    async with serving(slowly) as (connections, origin):
        assert await read(connections, origin) == b"ok"


async def test_a_large_answer_comes_in_pieces_and_its_server_waits_meanwhile() -> None:
    """More than what may wait is neither lost nor kept in memory."""
    body = bytes(range(256)) * 8_000
    server = Server(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body), OK)
    async with serving(server) as (connections, origin):
        async with await call(connections, origin) as response:
            pieces = [piece async for piece in response.pieces()]
        assert len(pieces) > 1
        assert b"".join(pieces) == body
        assert await read(connections, origin) == b"ok"
        assert server.opened == 1


async def test_a_large_request_is_sent_whole() -> None:
    """A body beyond what is written together with its head arrives too."""
    server = Server(OK)
    async with serving(server) as (connections, origin):
        assert await read(connections, origin, body=b"x" * 300_000) == b"ok"
        assert server.asked[0].endswith(b"x" * 300_000)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok and more",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
    ],
    ids=["it says so", "it says too much", "it is old"],
)
async def test_a_connection_that_cannot_be_trusted_is_not_used_again(answer: bytes) -> None:
    """What a server says beyond its answer is never taken for the answer to the next call."""
    server = Server(answer, OK)
    async with serving(server) as (connections, origin):
        assert await read(connections, origin) == b"ok"
        assert await read(connections, origin) == b"ok"
        assert server.opened == 2


@pytest.mark.threat("API10:2023")
async def test_an_answer_that_nobody_asked_for_ends_its_connection() -> None:
    """A server that speaks out of turn is not listened to."""
    spoken = asyncio.Event()

    async def eager(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(OK)
        await writer.drain()
        await spoken.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfake")
        await reader.read()

    async with serving(eager) as (connections, origin):
        assert await read(connections, origin) == b"ok"
        spoken.set()
        (line,) = connections.idle(origin)
        async with asyncio.timeout(5):
            assert await line.take() == b""
        assert line.over
        assert await read(connections, origin) == b"ok"


async def test_a_call_that_is_left_half_read_closes_its_connection() -> None:
    """Its server notices, and the next call gets another connection."""
    server = Server(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab", OK)
    async with serving(server) as (connections, origin):
        async with await call(connections, origin):
            pass
        await asyncio.wait_for(server.closed.wait(), 5)
        assert await read(connections, origin) == b"ok"
        assert server.opened == 2


async def test_a_call_that_is_cancelled_closes_its_connection() -> None:
    """A model behind it hears that nobody waits any more."""
    server = Server(b"")
    async with serving(server) as (connections, origin), asyncio.TaskGroup() as group:
        task = group.create_task(read(connections, origin))
        await asyncio.wait_for(server.heard.wait(), 5)
        task.cancel()
        await asyncio.wait_for(server.closed.wait(), 5)


async def test_a_server_that_closes_instead_of_answering_is_disconnected() -> None:
    """A call that changes something is not made twice."""
    server = Server(None, OK)
    async with serving(server) as (connections, origin):
        with pytest.raises(Disconnected):
            await read(connections, origin)
        assert len(server.asked) == 1


async def test_what_may_be_sent_twice_is_sent_again_once() -> None:
    """A reading call outlasts a connection that its server has just closed, but not two."""
    server = Server(None, OK, None, None, OK)
    async with serving(server) as (connections, origin):
        assert await read(connections, origin, "GET", b"") == b"ok"
        with pytest.raises(Disconnected):
            await read(connections, origin, "GET", b"")
        assert len(server.answers) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
    ],
    ids=["short", "chunk"],
)
async def test_a_body_that_breaks_off_is_told_apart(answer: bytes) -> None:
    """The head came, the rest did not."""
    server = Server(answer, None)

    async def then_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(server.answers[0] or b"")
        await writer.drain()

    async with serving(then_close) as (connections, origin):
        with pytest.raises(BrokenOff):
            await read(connections, origin)


@pytest.mark.parametrize(
    "answer",
    [b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 101 Switching Protocols\r\n\r\n", b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000],
)
async def test_what_is_no_answer_is_unusable(answer: bytes) -> None:
    """Another protocol, or a head without end."""
    async with serving(Server(answer)) as (connections, origin):
        with pytest.raises(Unusable):
            await read(connections, origin)


async def test_nobody_there_is_refused() -> None:
    """A server that does not listen has seen nothing of the call."""
    async with serving(Server()) as (connections, origin):
        pass
    with pytest.raises(ConnectRefused):
        await read(connections, origin)


async def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    """The oldest of ways still works."""

    async def until_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        await writer.drain()

    async with serving(until_close) as (connections, origin):
        assert await read(connections, origin) == b"all of it"


async def test_idle_connections_are_closed_and_their_servers_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas come and go; what is kept of one that is called no more is nothing."""
    monkeypatch.setattr("forestay.gateway.connections.KEEP_SECONDS", 0.01)
    server = Server(OK, OK)
    async with serving(server) as (connections, origin):
        assert await read(connections, origin) == b"ok"
        await asyncio.wait_for(server.closed.wait(), 5)
        assert not connections.idle(origin)
        assert await read(connections, origin) == b"ok"
        assert server.opened == 2


async def test_calls_beyond_the_most_connections_wait_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A place is free again however a call ended."""
    monkeypatch.setattr("forestay.gateway.connections.MAX_PER_ORIGIN", 1)
    server = Server(OK, None, OK)
    async with serving(server) as (connections, origin):
        assert await read(connections, origin) == b"ok"
        with pytest.raises(Disconnected):
            await read(connections, origin)
        first = await call(connections, origin)
        async with asyncio.TaskGroup() as group:
            second = group.create_task(call(connections, origin, "GET", b""))
            await asyncio.sleep(0)
            assert not second.done()
            server.answers.append(OK)
            async with first:
                assert await first.read() == b"ok"
            async with await second as response:
                assert await response.read() == b"ok"
