"""Fetching from addresses that strangers name, without being led into our own network.

A name is resolved once, every address it gives is judged (`targets`), and exactly these addresses are dialled, with the
name kept for Host and TLS; the socket is judged once more when it is made, so that no path through the HTTP client can
dial what was not judged. Redirects are followed by hand, each judged anew. Bytes and time are capped; answers are not
decompressed. Callers: the worker (media in inputs), webhooks (the guarded connector).
"""

import asyncio
import dataclasses
import ipaddress
import socket
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from forestay.errors import Refused, Unavailable, UsageError
from forestay.media.targets import check_address, check_target, readable_host

REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PIECE_BYTES = 64 * 1024

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


def guarded_connector(
    resolver: Resolver, *, allow_private: bool, make_socket: MakeSocket = open_socket, limit: int = 32
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
    )


class Fetcher:
    """Fetches with one resolver and one policy."""

    def __init__(
        self,
        *,
        allow_private: bool = False,
        limits: FetchLimits | None = None,
        resolver: Resolver | None = None,
        make_socket: MakeSocket = open_socket,
    ) -> None:
        self._allow_private = allow_private
        self._limits = limits or FetchLimits()
        self._resolver = resolver or SystemResolver()
        self._make_socket = make_socket

    async def fetch(self, url: str) -> bytes:
        """Return the body of `url`.

        TargetRefused: an address that may not be called. UsageError: too large, too many redirects, a 4xx answer.
        Unavailable: no answer in time, a 5xx answer.
        """
        try:
            async with asyncio.timeout(self._limits.total_seconds), self._session() as session:
                return await self._follow(session, url)
        except TimeoutError:
            raise Unavailable(f"no whole answer from {_shown(url)} in {self._limits.total_seconds:g} s") from None
        except aiohttp.ClientError as error:
            raise Unavailable(f"{_shown(url)} does not answer: {type(error).__name__}") from error

    def _session(self) -> aiohttp.ClientSession:
        connector = guarded_connector(
            self._resolver, allow_private=self._allow_private, make_socket=self._make_socket, limit=4
        )
        return aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._limits.connect_seconds),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "forestay", "Accept-Encoding": "identity"},
            trust_env=False,
        )

    async def _follow(self, session: aiohttp.ClientSession, url: str) -> bytes:
        for _ in range(self._limits.max_redirects + 1):
            if reason := check_target(url, self._allow_private):
                raise TargetRefused(f"{_shown(url)}: {reason}")
            async with session.get(url, allow_redirects=False) as response:
                if response.status in REDIRECTS:
                    url = _next_url(url, response.headers)
                    continue
                _judge_status(response.status, url)
                return await self._read(response, url)
        raise UsageError("url", f"redirects more than {self._limits.max_redirects} times")

    async def _read(self, response: aiohttp.ClientResponse, url: str) -> bytes:
        limit = self._limits.max_bytes
        if (response.content_length or 0) > limit:
            raise UsageError("url", f"{_shown(url)} is larger than {limit} bytes")
        body = bytearray()
        async for piece in response.content.iter_chunked(_PIECE_BYTES):
            body += piece
            if len(body) > limit:
                raise UsageError("url", f"{_shown(url)} is larger than {limit} bytes")
        return bytes(body)


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
        results: list[ResolveResult] = []
        for text in found:
            address = ipaddress.ip_address(text)
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
        return results

    async def close(self) -> None:
        """Nothing is held."""


def _next_url(url: str, headers: Mapping[str, str]) -> str:
    location = headers.get("Location", "")
    if not location:
        raise UsageError("url", f"{_shown(url)} redirects without saying where")
    return urllib.parse.urljoin(url, location)


def _judge_status(status: int, url: str) -> None:
    if status >= 500:
        raise Unavailable(f"{_shown(url)} answered {status}")
    if status >= 300:
        raise UsageError("url", f"{_shown(url)} answered {status}")


def _shown(url: str) -> str:
    """Return scheme and host alone: paths and queries may carry secrets."""
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        return "the URL"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
