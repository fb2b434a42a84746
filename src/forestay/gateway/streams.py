"""Sending answers that come in pieces, as they come: server-sent events and relayed bodies.

Whoever calls watches the caller meanwhile (`bodies.watching`): when it leaves, the source is closed at once, which
cancels the work behind it. Media names inside events are rewritten line by line. Decides nothing about the content.
Called by the queue's status stream and the direct lane.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import cast

from starlette.types import Send

from forestay.errors import Unavailable
from forestay.gateway.exchange import Exchange
from forestay.gateway.responses import Header
from forestay.gateway.result import with_media_urls
from forestay.gateway.routing import Bases

EVENT_STREAM: Header = (b"content-type", b"text/event-stream; charset=utf-8")
SEND_SECONDS = 60.0  # a reader slower than this for one piece is cut off
MAX_LINE = 16 * 1024 * 1024  # a longer line is passed on unread
_STREAM_HEADERS: tuple[Header, ...] = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))


async def send_chunks(
    exchange: Exchange,
    chunks: AsyncIterator[bytes],
    send: Send,
    status_code: int,
    headers: tuple[Header, ...],
) -> None:
    """Send status and headers, then each piece at once; Unavailable when the reader stopped reading."""
    exchange.status_code = status_code
    stream = cast("AsyncGenerator[bytes]", chunks)
    async with aclosing(stream):
        await send({"type": "http.response.start", "status": status_code, "headers": [*headers, *_STREAM_HEADERS]})
        async for chunk in stream:
            if not exchange.sent_bytes and exchange.on_first_byte is not None:
                exchange.on_first_byte()
            exchange.sent_bytes += len(chunk)
            await send_piece(send, chunk, more=True)
        await send_piece(send, b"", more=False)


async def send_piece(send: Send, chunk: bytes, *, more: bool) -> None:
    """Send one piece; a reader that stopped reading is cut off."""
    try:
        async with asyncio.timeout(SEND_SECONDS):
            await send({"type": "http.response.body", "body": chunk, "more_body": more})
    except TimeoutError:
        raise Unavailable("the reader stopped reading") from None


async def rewrite_lines(chunks: AsyncIterator[bytes], bases: Bases) -> AsyncGenerator[bytes]:
    """Pass whole lines on as soon as they are complete, with media names as URLs; the rest waits for its end."""
    rest = b""
    async for chunk in chunks:
        rest += chunk
        end = rest.rfind(b"\n") + 1
        if end == 0 and len(rest) > MAX_LINE:
            end = len(rest)
        if end:
            yield with_media_urls(rest[:end], bases)
            rest = rest[end:]
    if rest:
        yield with_media_urls(rest, bases)
