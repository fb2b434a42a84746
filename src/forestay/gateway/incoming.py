"""Request bodies as they come: streamed with a time-out between pieces, or small JSON read whole.

Decides when a sender is too slow or too large. Called by `uploads` and `tokens`.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import TypeVar

import msgspec
from starlette.requests import Request

from forestay.errors import ForestayError, UsageError

MAX_JSON = 2 * 1024 * 1024  # 10,000 parts with their etags fit
_T = TypeVar("_T")


class SenderGone(ForestayError):
    """The sender closed the connection before its body ended; nobody is left to answer."""


class SenderSlow(ForestayError):
    """The sender let too much time pass between two pieces: 408."""


async def pieces(request: Request, timeout_seconds: float) -> AsyncGenerator[bytes, None]:
    """Yield the body piece by piece; SenderSlow or SenderGone when it does not come whole."""
    while True:
        try:
            async with asyncio.timeout(timeout_seconds):
                message = await request.receive()
        except TimeoutError:
            raise SenderSlow(f"no piece of the body in {timeout_seconds:g} s") from None
        if message["type"] == "http.disconnect":
            raise SenderGone("the connection closed before the body ended")
        piece: bytes = message.get("body", b"")
        if piece:
            yield piece
        if not message.get("more_body", False):
            return


def declared_bytes(request: Request) -> int | None:
    """Return the Content-Length, None when absent or not a number."""
    text = request.headers.get("content-length", "")
    return int(text[:19]) if text.isascii() and text.isdigit() else None


async def read_json(request: Request, kind: type[_T], timeout_seconds: float) -> _T:
    """Read a small JSON body of the given shape; UsageError says what is wrong with it."""
    if (declared_bytes(request) or 0) > MAX_JSON:
        raise UsageError("body", f"is larger than {MAX_JSON} bytes")
    body = bytearray()
    async for piece in pieces(request, timeout_seconds):
        body += piece
        if len(body) > MAX_JSON:
            raise UsageError("body", f"is larger than {MAX_JSON} bytes")
    try:
        return msgspec.json.decode(bytes(body) or b"{}", type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UsageError("body", str(error)) from None
