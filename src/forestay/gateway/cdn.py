"""Sends stored media out: `GET /files/{media_id}/{name}`, with ranges and conditions, streamed from the object store.

The media id is the right to read. Only released files that have not expired exist here; everything else is the same
404. Files come from strangers, so that none may act in our name: types that carry scripts are downloads, and every
answer forbids sniffing and sandboxes what it holds. Mounted by `asgi` on the CDN surface.
"""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Sequence

from starlette.requests import Request
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from forestay.errors import Unavailable
from forestay.gateway.ports import GatewayPorts
from forestay.gateway.ranges import NotModified, Piece, Unsatisfiable, Version, Whole, http_date, select
from forestay.gateway.responses import Header, Reply, plain_error
from forestay.media.formats import shown_in_place
from forestay.media.store import MediaItem
from forestay.telemetry.metrics import DOWNLOADED_BYTES

YEAR_SECONDS = 365 * 86400
SEND_SECONDS = 60.0  # a reader slower than this for one piece is cut off
_SANDBOX = b"default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; sandbox"
_COMMON: tuple[Header, ...] = (
    (b"accept-ranges", b"bytes"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", _SANDBOX),
    (b"cross-origin-resource-policy", b"cross-origin"),
)


def routes(ports: GatewayPorts) -> list[BaseRoute]:
    """Return the route of the CDN surface."""

    async def download(request: Request) -> ASGIApp:
        media_id, name = request.path_params["media_id"], request.path_params["name"]
        item = await ports.media.find(media_id)
        if item is None or item.state != "released" or item.file_name != name:
            return plain_error(404, "File not found", "unknown_file", (b"cache-control", b"no-store"))
        return await _answer(ports, request, item)

    return [Route("/files/{media_id:str}/{name:str}", download, methods=["GET", "HEAD"])]


async def _answer(ports: GatewayPorts, request: Request, item: MediaItem) -> ASGIApp:
    version = Version(f'"{item.media_id}"', item.created_at, item.size_bytes)
    chosen = select(request.headers, version)
    shared = (*_COMMON, *_validators(version), _freshness(item, ports.clock.now()))
    match chosen:
        case NotModified():
            return _Empty(304, shared)
        case Unsatisfiable():
            return Reply(416, b"", ((b"content-range", f"bytes */{item.size_bytes}".encode()), *shared))
        case Whole():
            start, end, status, extra = 0, item.size_bytes, 200, ()
        case Piece():
            start, end, status = chosen.start, chosen.end, 206
            extra = ((b"content-range", f"bytes {start}-{end - 1}/{item.size_bytes}".encode()),)
    length: Header = (b"content-length", b"%d" % (end - start))
    headers = (*_description(item), length, *extra, *shared)
    if request.method == "HEAD" or start == end:
        return _Empty(status, headers)
    pieces = ports.media.open(item, start, end)
    first = await anext(pieces, b"")
    if not first:  # the row is there, its bytes are not: deleted this moment
        return plain_error(404, "File not found", "file_gone", (b"cache-control", b"no-store"))
    return _Stream(status, headers, first, pieces, ports)


def _description(item: MediaItem) -> tuple[Header, ...]:
    text = item.content_type.startswith("text/") or item.content_type == "application/json"
    content_type = f"{item.content_type}; charset=utf-8" if text else item.content_type
    way = "inline" if shown_in_place(item.content_type) else "attachment"
    return (
        (b"content-type", content_type.encode("latin-1", "replace")),
        (b"content-disposition", f'{way}; filename="{item.file_name}"'.encode()),
    )


def _validators(version: Version) -> tuple[Header, ...]:
    return ((b"etag", version.etag.encode()), (b"last-modified", http_date(version.modified_at).encode()))


def _freshness(item: MediaItem, now: dt.datetime) -> Header:
    left = YEAR_SECONDS if item.expires_at is None else int((item.expires_at - now).total_seconds())
    return (b"cache-control", b"public, max-age=%d, immutable" % max(0, min(left, YEAR_SECONDS)))


class _Empty:
    """An answer without a body whose headers may speak of one (HEAD, 304)."""

    def __init__(self, status_code: int, headers: Sequence[Header]) -> None:
        self._status_code = status_code
        self._headers = list(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        del scope, receive
        await send({"type": "http.response.start", "status": self._status_code, "headers": self._headers})
        await send({"type": "http.response.body", "body": b""})


class _Stream:
    """An answer whose body comes from the object store piece by piece."""

    def __init__(
        self,
        status_code: int,
        headers: Sequence[Header],
        first: bytes,
        rest: AsyncIterator[bytes],
        ports: GatewayPorts,
    ) -> None:
        self._start = {"type": "http.response.start", "status": status_code, "headers": list(headers)}
        self._first = first
        self._rest = rest
        self._ports = ports

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; a reader that stops reading, or bytes that stop coming, end the connection."""
        del scope, receive
        await send(self._start)
        piece = self._first
        while piece:
            try:
                async with asyncio.timeout(SEND_SECONDS):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            except TimeoutError:
                raise Unavailable("the reader of a file stopped reading") from None
            self._ports.metrics.add(DOWNLOADED_BYTES, amount=len(piece))
            piece = await anext(self._rest, b"")
        await send({"type": "http.response.body", "body": b""})
