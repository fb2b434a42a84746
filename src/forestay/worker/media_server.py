"""Takes the files that one model process makes: `POST /media` on a unix socket, bytes in, a stored URL out.

It decides who may: only peers of the replica's own process session, only for a request that runs on the replica, only
within the size cap. Files are stored in quarantine; the finish of the attempt releases them. A direct call has none,
so its files are released as they come: nobody knows their names before the answer passes us. Where the caller named a
bucket of their own, they go there instead. One per replica; the fal_app host opens and closes it.
"""

import asyncio
import json
import os
import pathlib
import socket
import struct
import sys
import urllib.parse
from collections.abc import AsyncIterator, Callable
from typing import cast

from aiohttp import web

from forestay.errors import ForestayError, Unavailable
from forestay.ids import RequestId, parse_request_id
from forestay.media.bucket import UploadFailed
from forestay.media.formats import OCTET_STREAM
from forestay.media.store import MediaStore, TooLarge, capped
from forestay.telemetry.logs import logger
from forestay.worker.bucket_outputs import FAILED_DEPENDENCY, BucketOutputs
from forestay.worker.replica import Running

log = logger("worker")
_PIECE_BYTES = 256 * 1024
MAX_LIFETIME_SECONDS = 10 * 365 * 86_400

FindOwner = Callable[[RequestId | None], Running | None]  # which running call a file belongs to


class MediaServer:
    """The socket of one replica."""

    def __init__(self, media: MediaStore, outputs: BucketOutputs, find_owner: FindOwner, max_bytes: int) -> None:
        self._media = media
        self._outputs = outputs
        self._find_owner = find_owner
        self._max_bytes = max_bytes
        self._session_id = 0
        self._runner: web.AppRunner | None = None

    async def open(self, path: pathlib.Path, uid: int | None) -> None:
        """Listen; the socket belongs to `uid` alone."""
        app = web.Application(client_max_size=0)
        app.router.add_post("/media", self._take)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(path)).start()
        await asyncio.to_thread(path.chmod, 0o600)
        if uid is not None:
            await asyncio.to_thread(os.chown, path, uid, uid)

    def admit(self, session_id: int) -> None:
        """Accept peers of this process session only."""
        self._session_id = session_id

    async def close(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _take(self, request: web.Request) -> web.Response:
        if not self._is_ours(request):
            return _answer(403, "this socket belongs to another process")
        named = request.headers.get("X-Fal-Request-Id", "")
        owner = self._find_owner(parse_request_id(named) if named else None)
        if owner is None:
            return _answer(409, "no request of this id runs here, so there is no one to keep the file for")
        try:
            return web.json_response({"url": await self._keep(owner, request)})
        except ForestayError as error:
            return _refused(error)

    async def _keep(self, owner: Running, request: web.Request) -> str:
        """Store the file where it belongs and return its URL."""
        file_name = urllib.parse.unquote(request.headers.get("X-Fal-File-Name", "file"))
        content_type = request.headers.get("Content-Type", OCTET_STREAM)
        pieces = capped(_pieces(request), self._max_bytes)
        if owner.upload_policy is not None and not owner.attempt and not owner.guarded:
            return await self._outputs.take(owner.upload_policy, pieces, file_name, content_type)
        item = await self._media.save(
            pieces,
            tenant_id=owner.tenant_id,
            file_name=file_name,
            content_type=content_type,
            request_id=owner.request_id,
            attempt=owner.attempt,
            lifetime_seconds=_lifetime(request.headers.get("X-Fal-Object-Lifecycle-Preference"))
            or owner.object_lifetime_seconds,
            # A direct call has no finish that could release: its files are on their way to the caller already, unless
            # they must be judged first.
            state="quarantine" if owner.attempt or owner.guarded else "released",
        )
        return item.url

    def _is_ours(self, request: web.Request) -> bool:
        if not self._session_id:
            return False
        if not sys.platform.startswith("linux"):
            return True  # there the folder's mode alone keeps others out
        transport = request.transport
        peer = cast("socket.socket | None", transport.get_extra_info("socket")) if transport is not None else None
        if peer is None:
            return False
        pid, _, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
        try:
            return os.getsid(pid) == self._session_id
        except ProcessLookupError:
            return False


async def _pieces(request: web.Request) -> AsyncIterator[bytes]:
    async for piece in request.content.iter_chunked(_PIECE_BYTES):
        yield piece


def _lifetime(header: str | None) -> int | None:
    """Read `{"expiration_duration_seconds": N}`; anything else means that nothing was asked for."""
    if not header or len(header) > 4_096:
        return None
    try:
        parsed: object = json.loads(header)
    except ValueError:
        return None
    wanted = cast("dict[str, object]", parsed).get("expiration_duration_seconds") if isinstance(parsed, dict) else None
    if isinstance(wanted, str) and wanted.isascii() and wanted.isdigit() and len(wanted) < 12:
        wanted = int(wanted)
    if isinstance(wanted, bool) or not isinstance(wanted, int | float) or not 0 < wanted <= MAX_LIFETIME_SECONDS:
        return None
    return int(wanted)


def _refused(error: ForestayError) -> web.Response:
    """Say why a file was not kept."""
    if isinstance(error, TooLarge):
        return _answer(413, error.message)
    if isinstance(error, UploadFailed):
        return _answer(FAILED_DEPENDENCY, f"The output could not be stored: {error}")
    if isinstance(error, Unavailable):
        log.warning("media.save_failed", reason=str(error))
        return _answer(503, "the media store does not answer now")
    return _answer(400, str(error))


def _answer(status: int, detail: str) -> web.Response:
    return web.json_response({"detail": detail}, status=status)
