"""Reading a request's body within limits of size and patience.

413 beyond the size, before reading when the caller says its length; 408 when the next piece is late or the whole takes
ten times as long. Decides nothing about the content. Called by submit and the direct lane; uploads stream instead.
"""

import asyncio
import dataclasses
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from starlette.types import Message, Receive

from forestay.gateway.responses import Header, Reply, plain_error

_WHOLE_FACTOR = 10
_CLOSE: Header = (b"connection", b"close")  # what was not read would be taken for the next request


@dataclasses.dataclass(frozen=True, slots=True)
class Gone:
    """The caller left before its body was complete: there is nobody to answer."""


async def read_body(
    receive: Receive, headers: dict[bytes, bytes], *, max_bytes: int, timeout_seconds: float
) -> bytes | Reply | Gone:
    """Return the whole body, the refusal, or Gone."""
    declared = headers.get(b"content-length", b"0")
    if not declared.isdigit() or int(declared[:20]) > max_bytes:
        return _too_large(max_bytes)
    try:
        async with asyncio.timeout(timeout_seconds):
            message = await receive()
        if not message.get("more_body", False) and message["type"] == "http.request":
            body: bytes = message.get("body", b"")
            return body if len(body) <= max_bytes else _too_large(max_bytes)
        async with asyncio.timeout(timeout_seconds * _WHOLE_FACTOR):
            return await _read_on(receive, message, max_bytes, timeout_seconds)
    except TimeoutError:
        return plain_error(408, "The request body did not arrive in time", "slow_body", _CLOSE)


async def _read_on(receive: Receive, message: Message, max_bytes: int, timeout_seconds: float) -> bytes | Reply | Gone:
    pieces: list[bytes] = []
    size = 0
    while message["type"] == "http.request":
        piece: bytes = message.get("body", b"")
        size += len(piece)
        if size > max_bytes:
            return _too_large(max_bytes)
        pieces.append(piece)
        if not message.get("more_body", False):
            return b"".join(pieces)
        async with asyncio.timeout(timeout_seconds):
            message = await receive()
    return Gone()


async def wait_gone(receive: Receive) -> None:
    """Return once the caller has left; run beside the work, so that a lost caller is seen before the answer."""
    while True:
        message = await receive()
        if message["type"] in {"http.disconnect", "websocket.disconnect"}:
            return
        await asyncio.sleep(0)


def _too_large(max_bytes: int) -> Reply:
    detail = f"The request body is larger than the {max_bytes} bytes allowed here; upload media and send its URL"
    return plain_error(413, detail, "too_large", _CLOSE)


class CallerGone(Exception):
    """The caller left while its call was worked on."""


@dataclasses.dataclass(slots=True)
class Watch:
    """What a standing `receive()` has seen."""

    gone: bool = False


@asynccontextmanager
async def watching(receive: Receive, *, stop_work: bool) -> AsyncGenerator[Watch]:
    """Watch the caller while the body of the context works.

    With `stop_work` the work is cancelled when the caller leaves, and CallerGone is raised; else the flag says it.
    """
    watch = Watch()
    loop = asyncio.get_running_loop()
    scope = asyncio.timeout(None)

    async def stand_by() -> None:
        await wait_gone(receive)
        watch.gone = True
        if stop_work:
            scope.reschedule(loop.time())

    try:
        async with scope, asyncio.TaskGroup() as group:
            watcher = group.create_task(stand_by())
            try:
                yield watch
            finally:
                watcher.cancel()
    except TimeoutError:
        if scope.expired():
            raise CallerGone from None
        raise
    except BaseExceptionGroup as errors:  # a task group wraps even the one error of its body
        raise errors.exceptions[0] from None
