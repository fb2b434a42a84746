"""Wake-ups: short messages between processes that may be lost, over Valkey pub/sub or inside one process.

A wake-up only saves waiting: every receiver polls as well, so a lost message costs latency and nothing else. `publish`
therefore never raises; what could not be sent is counted in `lost`. Gateways, workers and the controller call it.
"""

# The client's signatures are partly untyped: this adapter is where types begin.
# pyright: reportUnknownMemberType=false

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from typing import Protocol, cast

from valkey.asyncio import Valkey
from valkey.asyncio.client import PubSub
from valkey.exceptions import ValkeyError

_TIMEOUT_SECONDS = 2.0
_FIRST_RETRY_SECONDS = 0.05
_LAST_RETRY_SECONDS = 2.0
_LOCAL_BACKLOG = 1_000
_LOST = (ValkeyError, OSError, TimeoutError)


class Wakeups(Protocol):
    """Publish and subscribe; messages may be lost, never delayed on purpose."""

    @property
    def lost(self) -> int:
        """Return how many messages could not be sent since the start."""
        ...

    async def publish(self, channel: str, message: str) -> None:
        """Send to whoever listens now; never raises."""
        ...

    def subscribe(self, *channels: str) -> AbstractAsyncContextManager[AsyncIterator[tuple[str, str]]]:
        """Listen while the context lasts; the iterator yields (channel, message) and reconnects by itself."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class ValkeyWakeups:
    """Wake-ups over a Valkey server."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = _client(url)
        self.lost = 0

    async def publish(self, channel: str, message: str) -> None:
        """Send to whoever listens now; never raises."""
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                await self._client.publish(channel, message)
        except _LOST:
            self.lost += 1

    @asynccontextmanager
    async def subscribe(self, *channels: str) -> AsyncGenerator[AsyncIterator[tuple[str, str]]]:
        """Listen while the context lasts; the subscription stands before the context is entered, if Valkey is up."""
        client = Valkey.from_url(self._url, decode_responses=True, socket_connect_timeout=_TIMEOUT_SECONDS)
        try:
            first = await _try_subscribe(client, channels)
            async with aclosing(_listen(client, channels, first)) as messages:
                yield messages
        finally:
            with suppress(*_LOST):  # closing a broken connection: there is nothing left to lose
                await client.aclose()

    async def close(self) -> None:
        """Let go of the connections."""
        with suppress(*_LOST):  # closing a broken connection: there is nothing left to lose
            await self._client.aclose()


def _client(url: str) -> Valkey:
    return Valkey.from_url(
        url, decode_responses=True, socket_timeout=_TIMEOUT_SECONDS, socket_connect_timeout=_TIMEOUT_SECONDS
    )


async def _try_subscribe(client: Valkey, channels: tuple[str, ...]) -> PubSub | None:
    """Subscribe and wait for the confirmations; None when Valkey does not answer."""
    pubsub = client.pubsub()
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            await pubsub.subscribe(*channels)
            for _ in channels:
                await pubsub.get_message(timeout=None)
    except _LOST:
        with suppress(*_LOST):  # it never stood
            await pubsub.aclose()
        return None
    return pubsub


async def _listen(
    client: Valkey, channels: tuple[str, ...], pubsub: PubSub | None
) -> AsyncGenerator[tuple[str, str], None]:
    delay_seconds = _FIRST_RETRY_SECONDS
    try:
        while True:
            if pubsub is None:
                await asyncio.sleep(delay_seconds)
                delay_seconds = min(delay_seconds * 2, _LAST_RETRY_SECONDS)
                pubsub = await _try_subscribe(client, channels)
                continue
            try:
                message = cast("dict[str, str] | None", await pubsub.get_message(timeout=None))
            except _LOST:
                with suppress(*_LOST):  # broken already
                    await pubsub.aclose()
                pubsub = None
                continue
            delay_seconds = _FIRST_RETRY_SECONDS
            if message is not None and message["type"] == "message":
                yield message["channel"], message["data"]
    finally:
        if pubsub is not None:
            with suppress(*_LOST):  # the client is closed right after
                await pubsub.aclose()


class LocalWakeups:
    """Wake-ups inside one process: for tests and for running without Valkey."""

    def __init__(self) -> None:
        self._queues: list[tuple[frozenset[str], asyncio.Queue[tuple[str, str]]]] = []
        self.lost = 0

    async def publish(self, channel: str, message: str) -> None:
        """Hand the message to every listener of this process; a listener far behind loses it."""
        for channels, queue in self._queues:
            if channel not in channels:
                continue
            try:
                queue.put_nowait((channel, message))
            except asyncio.QueueFull:
                self.lost += 1

    @asynccontextmanager
    async def subscribe(self, *channels: str) -> AsyncGenerator[AsyncIterator[tuple[str, str]]]:
        """Listen while the context lasts."""
        queue: asyncio.Queue[tuple[str, str]] = asyncio.Queue(_LOCAL_BACKLOG)
        entry = (frozenset(channels), queue)
        self._queues.append(entry)
        try:
            async with aclosing(_drain(queue)) as messages:
                yield messages
        finally:
            self._queues.remove(entry)

    async def close(self) -> None:
        """Nothing to let go of."""


async def _drain(queue: asyncio.Queue[tuple[str, str]]) -> AsyncGenerator[tuple[str, str], None]:
    while True:
        yield await queue.get()


async def connect_wakeups(url: str) -> Wakeups:
    """Make wake-ups for `url` (valkey://, unix://); an empty one gives wake-ups inside this process only.

    A Valkey that does not answer now is no error: wake-ups may be lost, and the connection is made when it is back.
    """
    return ValkeyWakeups(url) if url else LocalWakeups()
