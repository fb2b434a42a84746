"""The port of media: saving, finding, reading and deleting files that models made or callers uploaded.

Bytes lie in the object store under `media/{media_id}/{writer}`, what is known of them in a row. The row is written
before the bytes and ends by itself if they never arrive, so a crash leaves nothing that no one would ever delete.
Decides no content policy: a worker saves as `quarantine`, and finishing the request releases. Callers: worker (save,
read), gateway (uploads, downloads), controller (`delete_expired`).
"""

import dataclasses
import datetime as dt
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Sequence
from typing import Literal, Protocol

from forestay.errors import UsageError
from forestay.ids import RequestId, TenantId
from forestay.media.formats import SNIFF_BYTES
from forestay.media.urls import stored_url

MediaState = Literal["quarantine", "released"]
MAX_PARTS = 10_000


class TooLarge(UsageError):
    """A file or part is over its cap; answered 413."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__("file", f"is larger than the {max_bytes} bytes allowed here (FORESTAY_MAX_UPLOAD)")
        self.max_bytes = max_bytes


@dataclasses.dataclass(frozen=True, slots=True)
class MediaItem:
    """One stored file."""

    media_id: str
    object_key: str  # where its bytes lie
    tenant_id: TenantId
    file_name: str  # safe in URLs and headers
    content_type: str
    size_bytes: int
    state: MediaState
    created_at: dt.datetime
    expires_at: dt.datetime | None  # None: kept until deleted
    request_id: RequestId | None = None  # that made it; none of an upload

    @property
    def url(self) -> str:
        """Return the form that stored results use."""
        return stored_url(self.media_id, self.file_name)


@dataclasses.dataclass(frozen=True, slots=True)
class PendingUpload:
    """The right, for a limited time, to upload one file in one go or in parts."""

    upload_id: str  # unguessable: whoever holds it may upload
    media_id: str
    tenant_id: TenantId
    file_name: str
    content_type: str
    lifetime_seconds: int | None
    created_at: dt.datetime


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """One part of a multipart upload; numbers start at 1."""

    part_number: int
    etag: str
    size_bytes: int


class UploadStore(Protocol):
    """Uploads that have been announced and are not complete."""

    async def begin(
        self, *, tenant_id: TenantId, file_name: str, content_type: str, lifetime_seconds: int | None
    ) -> PendingUpload:
        """Announce an upload."""
        ...

    async def find(self, upload_id: str) -> PendingUpload | None:
        """Find an announced upload; None when unknown or past its time."""
        ...

    async def put_whole(self, upload: PendingUpload, data: AsyncIterable[bytes], max_bytes: int) -> MediaItem | None:
        """Store the file in one go; TooLarge beyond `max_bytes`.

        Sending the same bytes again gives the same item (a retry after a lost answer); other bytes give None.
        """
        ...

    async def put_part(
        self, upload: PendingUpload, part_number: int, data: AsyncIterable[bytes], max_bytes: int
    ) -> Part:
        """Store a part, replacing one of the same number; TooLarge when all parts together exceed `max_bytes`."""
        ...

    async def complete(self, upload: PendingUpload, parts: Sequence[tuple[int, str]], max_bytes: int) -> MediaItem:
        """Join the parts, given as (number, etag) in any order; UsageError names the part that does not fit.

        Completing again gives the same item.
        """
        ...

    async def sweep(self, limit: int) -> int:
        """Delete uploads past their time, with their parts; returns how many."""
        ...


class MediaStore(Protocol):
    """All media."""

    @property
    def uploads(self) -> UploadStore:
        """Return the store of pending uploads."""
        ...

    async def save(  # noqa: PLR0913 - one flat call, named throughout, read more easily than a value built for it
        self,
        data: bytes | AsyncIterable[bytes],
        *,
        tenant_id: TenantId,
        file_name: str,
        content_type: str,
        request_id: RequestId | None,
        attempt: int | None,
        lifetime_seconds: int | None,
        state: MediaState,
    ) -> MediaItem:
        """Store a file under a new unguessable id; bytes and size count once, streamed. None lives until deleted."""
        ...

    async def find(self, media_id: str) -> MediaItem | None:
        """Find a released or quarantined file; None when unknown, unfinished or expired."""
        ...

    def open(self, item: MediaItem, start: int, end: int) -> AsyncIterator[bytes]:
        """Stream bytes [start, end) of a file."""
        ...

    async def read(self, media_id: str) -> bytes | None:
        """Read a whole file; None when `find` would give None or its bytes are gone."""
        ...

    async def release(self, media_ids: Sequence[str], owners: Sequence[RequestId]) -> None:
        """Let quarantined files of these requests be read; a finish does it by itself.

        Other ids are no error and stay as they are: whoever names a file in an answer did not make it by that.
        """
        ...

    async def of_request(self, request_id: RequestId, limit: int) -> Sequence[MediaItem]:
        """List the files that a request made, released or not, at most `limit`."""
        ...

    async def withhold(self, media_ids: Sequence[str]) -> None:
        """Shut released files again: nobody may read them; unknown ids are no error."""
        ...

    async def delete(self, media_ids: Sequence[str]) -> None:
        """Delete files at once, whatever their state: bytes, then rows; unknown ids are no error."""
        ...

    async def delete_expired(self, limit: int) -> int:
        """Delete expired files and quarantine that no finish released: bytes, then rows; returns how many."""
        ...


async def capped(data: AsyncIterable[bytes], max_bytes: int) -> AsyncGenerator[bytes, None]:
    """Pass `data` on; raises TooLarge as soon as it exceeds `max_bytes`."""
    seen = 0
    async for chunk in data:
        seen += len(chunk)
        if seen > max_bytes:
            raise TooLarge(max_bytes)
        yield chunk


async def peeked(data: AsyncIterable[bytes]) -> tuple[bytes, AsyncGenerator[bytes, None]]:
    """Return the first bytes of a stream (at least `SNIFF_BYTES` unless it is shorter) and the whole stream again."""
    stream = aiter(data)
    first: list[bytes] = []
    size = 0
    async for chunk in stream:
        first.append(chunk)
        size += len(chunk)
        if size >= SNIFF_BYTES:
            break
    head = b"".join(first)

    async def whole() -> AsyncGenerator[bytes, None]:
        if head:
            yield head
        async for chunk in stream:
            yield chunk

    return head[:SNIFF_BYTES], whole()
