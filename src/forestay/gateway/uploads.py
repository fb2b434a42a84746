"""Takes files in, in the shapes of both fal clients (contract, section 2.5), streamed into the object store.

REST surface: `POST /storage/auth/token`, `POST /storage/upload/initiate` and `/initiate-multipart`.
CDN surface:  `POST /files/upload` (whole), `POST /files/upload/multipart` (begin), and below a file's own URL
`PUT .../upload/{id}` (whole), `PUT .../multipart/{id}/{n}` (part), `POST .../multipart/{id}/complete`.

An upload id is unguessable, lasts a day and is itself the right to upload, as the JavaScript client sends no key with
its bytes; a key or token that does come along must be good and of the same tenant. Upload URLs are always on our own
origin, since the Python client sends its key along with them. Decides no content policy.
"""

import datetime as dt
from collections.abc import Awaitable, Callable

import msgspec
from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from forestay.errors import UsageError
from forestay.fleet.grants import Verb
from forestay.fleet.keys import Caller
from forestay.gateway import exchange
from forestay.gateway.auth import authenticate_entry, authenticate_upload, granted
from forestay.gateway.incoming import SenderGone, SenderSlow, declared_bytes, pieces, read_json
from forestay.gateway.lifecycle import lifetime_seconds
from forestay.gateway.ports import GatewayPorts
from forestay.gateway.responses import Reply, json_reply, plain_error
from forestay.gateway.signed_tokens import Claims, Use, sign_token
from forestay.media.formats import OCTET_STREAM
from forestay.media.store import MAX_PARTS, PendingUpload, TooLarge
from forestay.telemetry.metrics import UPLOADED_BYTES

TOKEN_SECONDS = 1800

Handler = Callable[[Request], Awaitable[Reply]]


class _Announced(msgspec.Struct):
    file_name: str = "upload.bin"
    content_type: str = OCTET_STREAM


class _Part(msgspec.Struct, rename="camel"):
    part_number: int
    etag: str


class _Parts(msgspec.Struct):
    parts: list[_Part]


def routes(ports: GatewayPorts) -> list[BaseRoute]:
    """Return the upload routes of the REST and CDN surfaces."""
    uploads = _Uploads(ports)
    file_path = "/files/{media_id:str}/{name:str}"
    return [
        Route("/storage/auth/token", _guarded(uploads.token), methods=["POST"]),
        Route("/storage/upload/initiate", _guarded(uploads.initiate), methods=["POST"]),
        Route("/storage/upload/initiate-multipart", _guarded(uploads.initiate_multipart), methods=["POST"]),
        Route("/files/upload", _guarded(uploads.whole), methods=["POST"]),
        Route("/files/upload/multipart", _guarded(uploads.begin_multipart), methods=["POST"]),
        Route(f"{file_path}/upload/{{upload_id:str}}", _guarded(uploads.put_whole), methods=["PUT"]),
        Route(f"{file_path}/multipart/{{upload_id:str}}/complete", _guarded(uploads.complete), methods=["POST"]),
        Route(f"{file_path}/multipart/{{upload_id:str}}/{{number:int}}", _guarded(uploads.put_part), methods=["PUT"]),
    ]


def _guarded(handler: Handler) -> Handler:
    """Turn what may go wrong with a body into its answer."""

    async def guarded(request: Request) -> Reply:
        try:
            return await handler(request)
        except TooLarge as error:
            return plain_error(413, str(error), "upload_too_large", (b"connection", b"close"))
        except UsageError as error:
            return plain_error(400, str(error), "bad_upload")
        except SenderSlow as error:
            return plain_error(408, str(error), "slow_upload", (b"connection", b"close"))
        except SenderGone:
            return plain_error(499, "The upload was broken off", "upload_broken_off")

    return guarded


class _Uploads:
    """The handlers, over one set of ports."""

    def __init__(self, ports: GatewayPorts) -> None:
        self._ports = ports
        self._uploads = ports.media.uploads
        self._max_bytes = ports.settings.gateway.max_upload_bytes
        self._piece_seconds = ports.settings.gateway.body_timeout_seconds

    async def token(self, request: Request) -> Reply:
        """Issue the short-lived token with which the Python client uploads; only a key gets one."""
        caller = granted(await authenticate_entry(request.scope, self._ports), self._ports, (Verb.UPLOAD,), None)
        if isinstance(caller, Reply):
            return caller
        now = self._ports.clock.now().replace(microsecond=0)
        expires_at = now + dt.timedelta(seconds=TOKEN_SECONDS)
        if caller.expires_at is not None:
            expires_at = min(expires_at, caller.expires_at.replace(microsecond=0))
        claims = Claims(caller.tenant_id, caller.key_id, frozenset({Use.UPLOAD}), (), expires_at)
        token = sign_token(claims, secret=self._ports.settings.secrets.token_key, now=now)
        bases = exchange.of(request.scope).bases
        answer = {"token": token, "token_type": "Bearer", "base_url": bases.cdn, "expires_at": expires_at.isoformat()}
        return json_reply(200, answer)

    async def initiate(self, request: Request) -> Reply:
        """Announce a file that comes whole: the JavaScript client, the Python client's fallback, the fal toolkit."""
        return await self._initiate(request, "upload")

    async def initiate_multipart(self, request: Request) -> Reply:
        """Announce a file that comes in parts: the JavaScript client, the fal toolkit."""
        return await self._initiate(request, "multipart")

    async def whole(self, request: Request) -> Reply:
        """Take a file in one call with a token: the Python client."""
        caller = await authenticate_upload(request.scope, self._ports)
        if isinstance(caller, Reply):
            return caller
        upload = await self._begin_from_headers(request, caller)
        return await self._store_whole(request, upload)

    async def begin_multipart(self, request: Request) -> Reply:
        """Announce a file that comes in parts with a token: the Python client."""
        caller = await authenticate_upload(request.scope, self._ports)
        if isinstance(caller, Reply):
            return caller
        upload = await self._begin_from_headers(request, caller)
        return json_reply(200, {"access_url": _file_url(request, upload), "uploadId": upload.upload_id})

    async def put_whole(self, request: Request) -> Reply:
        """Take the whole file of an announced upload."""
        upload = await self._announced(request)
        return upload if isinstance(upload, Reply) else await self._store_whole(request, upload)

    async def put_part(self, request: Request) -> Reply:
        """Take one part; the etag goes out as a header (Python) and as JSON (JavaScript)."""
        upload = await self._announced(request)
        if isinstance(upload, Reply):
            return upload
        number: int = request.path_params["number"]
        if not 1 <= number <= MAX_PARTS:
            return plain_error(400, f"part number {number} is outside 1..{MAX_PARTS}", "bad_upload")
        self._refuse_declared(request)
        body = pieces(request, self._piece_seconds)
        part = await self._uploads.put_part(upload, number, body, self._max_bytes)
        self._ports.metrics.add(UPLOADED_BYTES, "part", amount=part.size_bytes)
        etag = f'"{part.etag}"'
        return json_reply(200, {"partNumber": number, "etag": etag}, (b"etag", etag.encode()))

    async def complete(self, request: Request) -> Reply:
        """Join the parts."""
        upload = await self._announced(request)
        if isinstance(upload, Reply):
            return upload
        named = await read_json(request, _Parts, self._piece_seconds)
        asked = [(part.part_number, part.etag) for part in named.parts]
        await self._uploads.complete(upload, asked, self._max_bytes)
        url = _file_url(request, upload)
        return json_reply(200, {"access_url": url, "file_url": url})

    async def _initiate(self, request: Request, way: str) -> Reply:
        caller = await authenticate_upload(request.scope, self._ports)
        if isinstance(caller, Reply):
            return caller
        announced = await read_json(request, _Announced, self._piece_seconds)
        upload = await self._uploads.begin(
            tenant_id=caller.tenant_id,
            file_name=announced.file_name,
            content_type=announced.content_type,
            lifetime_seconds=self._lifetime(request),
        )
        url = _file_url(request, upload)
        return json_reply(200, {"upload_url": f"{url}/{way}/{upload.upload_id}", "file_url": url})

    async def _begin_from_headers(self, request: Request, caller: Caller) -> PendingUpload:
        self._refuse_declared(request)
        return await self._uploads.begin(
            tenant_id=caller.tenant_id,
            file_name=request.headers.get("x-fal-file-name", ""),
            content_type=request.headers.get("content-type", ""),
            lifetime_seconds=self._lifetime(request),
        )

    async def _store_whole(self, request: Request, upload: PendingUpload) -> Reply:
        self._refuse_declared(request)
        body = pieces(request, self._piece_seconds)
        item = await self._uploads.put_whole(upload, body, self._max_bytes)
        if item is None:
            return plain_error(403, "This upload URL was used for another file; begin a new upload", "upload_used")
        self._ports.metrics.add(UPLOADED_BYTES, "whole", amount=item.size_bytes)
        url = _file_url(request, upload)
        return json_reply(200, {"access_url": url, "file_url": url}, (b"etag", f'"{item.media_id}"'.encode()))

    async def _announced(self, request: Request) -> PendingUpload | Reply:
        """Find the upload that the path names; whoever also sends a key must be of its tenant."""
        upload = await self._uploads.find(request.path_params["upload_id"])
        named = (request.path_params["media_id"], request.path_params["name"])
        unknown = plain_error(404, "Unknown or expired upload; begin a new one", "unknown_upload")
        if upload is None or named != (upload.media_id, upload.file_name):
            return unknown
        if "authorization" not in request.headers:
            return upload
        caller = await authenticate_upload(request.scope, self._ports)
        if isinstance(caller, Reply):
            return caller
        return upload if caller.tenant_id == upload.tenant_id else unknown

    def _lifetime(self, request: Request) -> int:
        return lifetime_seconds(request.headers, self._ports.settings.gateway.upload_lifetime_seconds)

    def _refuse_declared(self, request: Request) -> None:
        """Refuse at once what says itself that it is too large."""
        if (declared_bytes(request) or 0) > self._max_bytes:
            raise TooLarge(self._max_bytes)


def _file_url(request: Request, upload: PendingUpload) -> str:
    return f"{exchange.of(request.scope).bases.media}{upload.media_id}/{upload.file_name}"
