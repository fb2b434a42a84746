"""Fetching from strangers: what is dialled, how far redirects lead, and the caps."""

import asyncio
import ipaddress
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from forestay.errors import Unavailable, UsageError
from forestay.media.fetch import AddressInfo, Fetcher, FetchLimits, Network, TargetRefused, guarded_connector
from forestay.media.targets import check_address


class FixedResolver:
    """Gives each name the addresses it was told, and remembers what it was asked."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.asked: list[str] = []

    async def resolve(self, host: str) -> Sequence[str]:
        """Return the fixed addresses."""
        self.asked.append(host)
        return self.addresses


class RecordingDialler:
    """Never connects; remembers every address for which a socket was made."""

    def __init__(self) -> None:
        self.dialled: list[str] = []

    def __call__(self, info: AddressInfo) -> socket.socket:
        """Note the address and refuse."""
        self.dialled.append(str(info[4][0]))
        raise OSError("not in this test")


@asynccontextmanager
async def serving(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncGenerator[int]:
    """A real server on loopback."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.ip_addresses().map(str), min_size=1, max_size=4), st.booleans())
def test_no_address_is_dialled_that_may_not_be_called(addresses: list[str], by_name: bool) -> None:
    """Whatever a resolver says or a URL spells, sockets are made for allowed addresses only."""
    dialler = RecordingDialler()
    host = "host.example"
    if not by_name:
        host = f"[{addresses[0]}]" if ":" in addresses[0] else addresses[0]
    fetcher = Fetcher(network=Network(FixedResolver(*addresses), dialler))
    with pytest.raises((TargetRefused, Unavailable)):
        asyncio.run(fetcher.fetch(f"http://{host}/x"))
    for address in dialler.dialled:
        assert check_address(ipaddress.ip_address(address), allow_private=False) is None


async def test_one_private_address_among_public_ones_refuses_the_name() -> None:
    """A name that answers both is a trick or a mistake; neither deserves a call."""
    dialler = RecordingDialler()
    fetcher = Fetcher(network=Network(FixedResolver("8.8.8.8", "127.0.0.1"), dialler))
    with pytest.raises(TargetRefused, match=r"127\.0\.0\.1"):
        await fetcher.fetch("https://rebind.example/")
    assert dialler.dialled == []


async def test_an_address_in_the_url_is_judged_when_its_socket_is_made() -> None:
    """The HTTP client asks no resolver for an address: the socket is the last guard, and the only one here."""
    dialler = RecordingDialler()
    connector = guarded_connector(FixedResolver(), allow_private=False, make_socket=dialler)
    async with aiohttp.ClientSession(connector=connector) as session:
        with pytest.raises(TargetRefused):
            await session.get("http://127.0.0.1:9/")
    assert dialler.dialled == []


async def test_the_resolved_address_is_dialled_under_the_callers_name() -> None:
    """The name is asked once and stays in the Host header: a second, different answer could not matter."""
    seen: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.headers["Host"])
        return web.Response(body=b"bytes")

    resolver = FixedResolver("127.0.0.1")
    async with serving(handler) as port:
        body = await Fetcher(allow_private=True, network=Network(resolver)).fetch(f"http://files.example:{port}/a")
    assert (body, seen, resolver.asked) == (b"bytes", [f"files.example:{port}"], ["files.example"])


async def test_a_redirect_to_a_private_address_is_refused() -> None:
    """Each hop is judged as if it had come first: only the first one is loopback by permission of its socket."""

    async def handler(_request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "http://169.254.169.254/latest/meta-data"})

    async with serving(handler) as port:
        with pytest.raises(TargetRefused, match=r"169\.254\.169\.254"):
            await Fetcher(allow_private=True, network=Network(FixedResolver("127.0.0.1"))).fetch(
                f"http://a.example:{port}/"
            )


async def test_redirects_are_followed_three_times_and_no_more() -> None:
    """A chain that ends in time is followed, an endless one is given up."""

    async def handler(request: web.Request) -> web.Response:
        left = int(request.path.strip("/"))
        if left == 0:
            return web.Response(body=b"end")
        return web.Response(status=307, headers={"Location": f"/{left - 1}"})

    fetcher = Fetcher(allow_private=True)
    async with serving(handler) as port:
        assert await fetcher.fetch(f"http://127.0.0.1:{port}/3") == b"end"
        with pytest.raises(UsageError, match="more than 3 times"):
            await fetcher.fetch(f"http://127.0.0.1:{port}/4")


@pytest.mark.threat("API10:2023")
@pytest.mark.parametrize("chunked", [True, False])
async def test_a_body_over_the_cap_is_refused(chunked: bool) -> None:
    """Whether it says its size or not."""

    async def handler(request: web.Request) -> web.StreamResponse:
        if not chunked:
            return web.Response(body=b"x" * 2000)
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(20):
            await response.write(b"x" * 100)
        return response

    fetcher = Fetcher(allow_private=True, limits=FetchLimits(max_bytes=1000))
    async with serving(handler) as port:
        with pytest.raises(UsageError, match="larger than 1000 bytes"):
            await fetcher.fetch(f"http://127.0.0.1:{port}/")


@pytest.mark.threat("API10:2023")
async def test_a_server_that_never_ends_is_given_up() -> None:
    """The time covers the whole fetch, not the silence between two pieces."""
    release = asyncio.Event()

    async def handler(_request: web.Request) -> web.Response:
        await release.wait()
        return web.Response()

    fetcher = Fetcher(allow_private=True, limits=FetchLimits(total_seconds=0.2))
    async with serving(handler) as port:
        with pytest.raises(Unavailable, match=r"in 0\.2 s"):
            await fetcher.fetch(f"http://127.0.0.1:{port}/secret-path")
        release.set()


@pytest.mark.parametrize(("status", "kind"), [(404, UsageError), (500, Unavailable), (503, Unavailable)])
async def test_an_error_answer_tells_whether_trying_again_may_help(status: int, kind: type[Exception]) -> None:
    """4xx is the caller's, 5xx may pass."""

    async def handler(_request: web.Request) -> web.Response:
        return web.Response(status=status)

    async with serving(handler) as port:
        with pytest.raises(kind):
            await Fetcher(allow_private=True).fetch(f"http://127.0.0.1:{port}/")


async def test_a_refused_connection_is_unavailable() -> None:
    """Nobody listens there now; somebody may later."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(Unavailable):
        await Fetcher(allow_private=True).fetch(f"http://127.0.0.1:{port}/")
