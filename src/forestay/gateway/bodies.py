"""Reading a request's body within limits of size and patience.

413 beyond the size, before reading when the caller says its length; 408 when the next piece is late or the whole takes
ten times as long. Decides nothing about the content. Called by submit and the direct lane; uploads stream instead.
"""

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from starlette.types import Receive

from forestay.gateway.responses import Header, Reply, plain_error
from forestay.telemetry.logs import logger

_WHOLE_FACTOR = 10
LOOK_AFTER_SECONDS = 0.1
Result = TypeVar("Result")
_LOG = logger("gateway")
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
    expected = int(declared)
    pieces: list[bytes] = []
    size = 0
    loop = asyncio.get_running_loop()
    last = loop.time() + timeout_seconds * _WHOLE_FACTOR
    try:
        async with asyncio.timeout(timeout_seconds) as patience:
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    return Gone()
                piece: bytes = message.get("body", b"")
                size += len(piece)
                if size > max_bytes:
                    return _too_large(max_bytes)
                if not message.get("more_body", False) or 0 < expected == size:  # all that was declared is here
                    return b"".join((*pieces, piece)) if pieces else piece
                pieces.append(piece)
                patience.reschedule(min(last, loop.time() + timeout_seconds))
    except TimeoutError:
        return plain_error(408, "The request body did not arrive in time", "slow_body", _CLOSE)


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
async def stop_when_caller_leaves(receive: Receive) -> AsyncGenerator[None]:
    """Watch the caller while the body of the context works; when it leaves, cancel the work and raise CallerGone."""
    loop = asyncio.get_running_loop()
    scope = asyncio.timeout(None)

    async def stand_by() -> None:
        await wait_gone(receive)
        scope.reschedule(loop.time())

    try:
        async with scope, asyncio.TaskGroup() as group:
            watcher = group.create_task(stand_by())
            try:
                yield
            finally:
                watcher.cancel()
    except TimeoutError:
        if scope.expired():
            raise CallerGone from None
        raise
    except BaseExceptionGroup as errors:  # a task group wraps even the one error of its body
        raise errors.exceptions[0] from None


class Sentinels:
    """Watches callers, with watchers that belong to the gateway's own task group: a group a call would cost more.

    `stop_when_gone` looks at longer calls only: most end before `LOOK_AFTER_SECONDS` and need no watcher.
    """

    def __init__(self) -> None:
        self._group: asyncio.TaskGroup | None = None

    @asynccontextmanager
    async def on_duty(self) -> AsyncGenerator[None]:
        """Own the watchers while the block runs."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            yield
            self._group = None

    def watch(self, receive: Receive) -> "Watching":
        """Watch the caller while the block runs, and only note whether it left: `with sentinels.watch(...) as seen`."""
        if self._group is None:
            raise RuntimeError("sentinels watch only while they are on duty")
        return Watching(self._group, receive)

    async def stop_when_gone(self, receive: Receive, work: Callable[[asyncio.Timeout], Awaitable[Result]]) -> Result:
        """Do the work; when the caller leaves before it is done, cancel it and raise CallerGone.

        The work gets the scope and may set its own limit by `reschedule`; when that passes, TimeoutError is raised.
        """
        scope = asyncio.timeout(None)
        watch = Watch()
        watchers: list[asyncio.Task[None]] = []

        def look() -> None:
            if self._group is not None:
                watchers.append(self._group.create_task(_stand_by(receive, scope, watch)))

        timer = asyncio.get_running_loop().call_later(LOOK_AFTER_SECONDS, look)
        try:
            async with scope:
                return await work(scope)
        except TimeoutError:
            if watch.gone:
                raise CallerGone from None
            raise
        finally:
            timer.cancel()
            for watcher in watchers:
                watcher.cancel()


class Watching:
    """A standing `receive()` beside a block of work."""

    def __init__(self, group: asyncio.TaskGroup, receive: Receive) -> None:
        self._group = group
        self._receive = receive
        self._watch = Watch()

    def __enter__(self) -> Watch:
        """Begin to watch."""
        self._task = self._group.create_task(_note_gone(self._receive, self._watch))
        return self._watch

    def __exit__(self, *_: object) -> None:
        """Watch no more."""
        self._task.cancel()


async def _note_gone(receive: Receive, watch: Watch) -> None:
    """Note that the caller has left. Raises nothing: the watchers of all calls share a group."""
    try:
        await wait_gone(receive)
    except Exception as error:  # noqa: BLE001 - a broken connection is a caller that left
        _LOG.info("gateway.caller_lost", reason=str(error))
    watch.gone = True


async def _stand_by(receive: Receive, scope: asyncio.Timeout, watch: Watch) -> None:
    """Wait until the caller has left, then end the scope. Raises nothing: the watchers of all calls share a group."""
    try:
        await wait_gone(receive)
    except Exception as error:  # noqa: BLE001 - a broken connection is a caller that left
        _LOG.info("gateway.caller_lost", reason=str(error))
    watch.gone = True
    try:
        scope.reschedule(asyncio.get_running_loop().time())
    except RuntimeError as error:  # the work has ended, or its limit passed, this very moment
        _LOG.debug("gateway.caller_left_late", reason=str(error))
