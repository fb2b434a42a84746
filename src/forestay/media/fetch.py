"""Fetching from addresses that strangers name, without being led into our own network.

A URL is called in the form in which it was judged (`targets`). A name is resolved once, every address it gives is
judged, and exactly these addresses are dialled, with the name kept for Host and TLS; the socket is judged once more
when it is made, so that no path through the HTTP client can dial what was not judged. Redirects are followed by hand,
each judged anew, never from https down to http. Bytes and time are capped; only whole answers in the plain encoding are
taken, so there is nothing to unpack. Callers: the worker (media in inputs, files for a caller's own bucket), webhooks
(the guarded connector).
"""

import asyncio
import dataclasses
import ipaddress
import re
import socket
import ssl
import urllib.parse
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

import aiohttp
import yarl
from aiohttp.abc import AbstractResolver, ResolveResult

from forestay.errors import Refused, Unavailable, UsageError
from forestay.media.targets import Target, check_address, read_target, readable_host

REDIRECTS = frozenset({301, 302, 303, 307, 308})
WHOLE = frozenset({200, 203})  # RFC 9110: all others have no body, or only a part of one
MAX_ADDRESSES = 64  # a name with more is no media server's
_DIALLED = 4  # of the addresses of a name, as many are tried
_PIECE_BYTES = 64 * 1024
# Relative to Python's `urljoin`, absolute to browsers: a scheme without its slashes, or more than two of them.
_READ_TWO_WAYS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?!//[^/\\])|[/\\]{3}|/\\|\\")

AddressInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[object, ...]]
MakeSocket = Callable[[AddressInfo], socket.socket]


class Resolver(Protocol):
    """Turns a name into addresses."""

    async def resolve(self, host: str) -> Sequence[str]:
        """Return the addresses of `host` as text; OSError when it has none."""
        ...


class SystemResolver:
    """The operating system's resolver."""

    async def resolve(self, host: str) -> Sequence[str]:
        """Return the addresses of `host`, IPv4 and IPv6."""
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class TargetRefused(Refused):
    """The address is not one that we call on someone else's word; trying again will not help."""


class TooManyBytes(UsageError):
    """A body is over its cap."""

    def __init__(self, shown: str, max_bytes: int) -> None:
        super().__init__("url", f"{shown} is larger than {max_bytes} bytes")
        self.max_bytes = max_bytes


@dataclasses.dataclass(frozen=True, slots=True)
class FetchLimits:
    """Caps on one fetch, all redirects together."""

    max_bytes: int = 64 * 1024 * 1024
    total_seconds: float = 60.0
    connect_seconds: float = 5.0
    max_redirects: int = 3


def open_socket(info: AddressInfo) -> socket.socket:
    """Make the socket for one address."""
    made = socket.socket(info[0], info[1], info[2])
    made.settimeout(0.0)  # non-blocking, as the event loop wants it
    return made


@dataclasses.dataclass(frozen=True, slots=True)
class Network:
    """The way out: who resolves names, who makes sockets, which certificates count."""

    resolver: Resolver = dataclasses.field(default_factory=SystemResolver)
    make_socket: MakeSocket = open_socket
    tls: ssl.SSLContext | None = None  # None: the system's authorities


def guarded_connector(
    resolver: Resolver,
    *,
    allow_private: bool,
    make_socket: MakeSocket = open_socket,
    limit: int = 32,
    tls: ssl.SSLContext | None = None,
) -> aiohttp.TCPConnector:
    """Return a connector that dials judged addresses only; TargetRefused comes out of the request otherwise."""

    def judged_socket(info: AddressInfo) -> socket.socket:
        reason = check_address(ipaddress.ip_address(str(info[4][0])), allow_private)
        if reason is not None:
            raise TargetRefused(reason)
        return make_socket(info)

    return aiohttp.TCPConnector(
        resolver=_GuardedResolver(resolver, allow_private=allow_private),
        use_dns_cache=False,
        limit=limit,
        socket_factory=judged_socket,
        ssl=tls or True,
    )


@asynccontextmanager
async def guarded_session(
    network: Network, *, allow_private: bool, connect_seconds: float, limit: int = 4
) -> AsyncGenerator[aiohttp.ClientSession]:
    """Open a session that keeps nothing and adds nothing: no cookies, no proxy of the environment, no unpacking."""
    connector = guarded_connector(
        network.resolver,
        allow_private=allow_private,
        make_socket=network.make_socket,
        limit=limit,
        tls=network.tls,
    )
    async with aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_seconds),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "forestay", "Accept-Encoding": "identity"},
        trust_env=False,
    ) as session:
        yield session


class Fetcher:
    """Fetches with one policy."""

    def __init__(
        self, *, allow_private: bool = False, limits: FetchLimits | None = None, network: Network | None = None
    ) -> None:
        self._allow_private = allow_private
        self._limits = limits or FetchLimits()
        self._network = network or Network()

    async def fetch(self, url: str) -> bytes:
        """Return the body of `url`; for what is known to be small, since it is held in memory. Errors as below."""
        body = bytearray()
        await self.fetch_into(url, body.extend)
        return bytes(body)

    async def fetch_into(self, url: str, write: Callable[[bytes], object], max_bytes: int | None = None) -> int:
        """Pass the body of `url` on piece by piece (64 KiB at most) and return its size in bytes.

        `max_bytes` narrows the cap. TargetRefused: an address that may not be called. UsageError: too large
        (TooManyBytes), too many redirects, a 4xx answer. Unavailable: no answer in time, a 5xx answer.
        """
        cap = self._limits.max_bytes if max_bytes is None else min(max_bytes, self._limits.max_bytes)
        limits = self._limits
        try:
            async with (
                asyncio.timeout(limits.total_seconds),
                guarded_session(
                    self._network, allow_private=self._allow_private, connect_seconds=limits.connect_seconds
                ) as session,
            ):
                return await self._follow(session, url, write, cap)
        except TimeoutError:
            raise Unavailable(f"no whole answer from {shown(url)} in {limits.total_seconds:g} s") from None
        except (aiohttp.ClientError, ValueError) as error:  # ValueError: of headers that aiohttp cannot read
            raise Unavailable(f"{shown(url)} does not answer: {type(error).__name__}") from error

    async def _follow(
        self, session: aiohttp.ClientSession, url: str, write: Callable[[bytes], object], cap: int
    ) -> int:
        before: Target | None = None
        for _ in range(self._limits.max_redirects + 1):
            target = self._judged(url, before)
            async with session.get(yarl.URL(target.url, encoded=True), allow_redirects=False) as response:
                if response.status in REDIRECTS:
                    url, before = _next_url(target, response), target
                    continue
                _judge_answer(response, url)
                return await _pass_on(response, url, write, cap)
        raise UsageError("url", f"redirects more than {self._limits.max_redirects} times")

    def _judged(self, url: str, before: Target | None) -> Target:
        target = read_target(url, self._allow_private)
        if isinstance(target, str):
            raise TargetRefused(f"{shown(url)}: {target}")
        if before is not None and before.scheme == "https" and target.scheme != "https":
            raise TargetRefused(f"{shown(before.url)} redirects from https down to http")
        return target


class _GuardedResolver(AbstractResolver):
    """Resolves once, judges every address, and refuses the name if any of them may not be called."""

    def __init__(self, resolver: Resolver, *, allow_private: bool) -> None:
        self._resolver = resolver
        self._allow_private = allow_private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        read = readable_host(host)
        if read is None:
            raise TargetRefused(f"{host!r} is not a host name or address")
        found = await self._resolver.resolve(read) if isinstance(read, str) else [str(read)]
        if len(found) > MAX_ADDRESSES:
            raise TargetRefused(f"{host} has more than {MAX_ADDRESSES} addresses")
        results: list[ResolveResult] = []
        for text in found:
            address = _address(host, text)
            if reason := check_address(address, self._allow_private):
                raise TargetRefused(f"{host}: {reason}")
            kind = socket.AF_INET if address.version == 4 else socket.AF_INET6
            if family in {socket.AF_UNSPEC, kind}:
                results.append(
                    ResolveResult(
                        hostname=host, host=str(address), port=port, family=kind, proto=0, flags=socket.AI_NUMERICHOST
                    )
                )
        if not results:
            raise OSError(f"{host} has no address")
        return results[:_DIALLED]

    async def close(self) -> None:
        """Nothing is held."""


def _address(host: str, text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise TargetRefused(f"{host} resolves to {text[:60]!r}, which is no address") from None


def _next_url(target: Target, response: aiohttp.ClientResponse) -> str:
    places = response.headers.getall("Location", [])
    if len(places) != 1 or not places[0]:
        raise UsageError("url", f"{shown(target.url)} redirects without saying where")
    location = places[0]
    if _READ_TWO_WAYS.match(location):
        raise TargetRefused(f"{shown(target.url)} redirects to what may be read in two ways")
    try:
        return urllib.parse.urljoin(target.url, location)
    except ValueError:
        raise TargetRefused(f"{shown(target.url)} redirects to what is no URL") from None


def _judge_answer(response: aiohttp.ClientResponse, url: str) -> None:
    if response.status >= 500:
        raise Unavailable(f"{shown(url)} answered {response.status}")
    if response.status not in WHOLE:
        raise UsageError("url", f"{shown(url)} answered {response.status}")
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        raise UsageError("url", f"{shown(url)} sends the file compressed ({encoding[:20]!r}), which is not unpacked")


async def _pass_on(response: aiohttp.ClientResponse, url: str, write: Callable[[bytes], object], cap: int) -> int:
    if (response.content_length or 0) > cap:
        raise TooManyBytes(shown(url), cap)
    size = 0
    async for piece in response.content.iter_chunked(_PIECE_BYTES):
        size += len(piece)
        if size > cap:
            raise TooManyBytes(shown(url), cap)
        write(piece)
    return size


def shown(url: str) -> str:
    """Return scheme and host alone: paths and queries may carry secrets."""
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        return "the URL"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"[:300]
