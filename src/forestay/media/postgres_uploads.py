"""Pending uploads over Postgres and the object store: whole files and files in parts.

Every writer writes to an object key of its own and a row names the winner, so that a client which repeats a call whose
answer was lost, or sends one part twice at once, can never mix the bytes of two calls. What a crash leaves behind lies
under the upload's or the media's own prefix, and `sweep` removes it when the upload's time is over.
"""

import hashlib
from collections.abc import AsyncGenerator, AsyncIterable, Mapping, Sequence
from typing import cast

import asyncpg

from forestay.chance import Chance
from forestay.errors import UsageError
from forestay.ids import TenantId
from forestay.media.formats import content_type_of, safe_file_name
from forestay.media.store import MAX_PARTS, MediaItem, Part, PendingUpload, TooLarge, capped, peeked
from forestay.media.urls import MEDIA_ID_BYTES
from forestay.storage.objects import ObjectStore
from forestay.storage.postgres import Database, load_queries

UPLOAD_SECONDS = 86400.0  # an announced upload that is not complete by then is swept away
REPEAT_SECONDS = 600.0  # how long after completion a repeated call is still answered
_UPLOAD_ID_BYTES = 32
_WRITER_BYTES = 9
_SQL = load_queries("forestay.media", "sql/uploads.sql")
_MEDIA_SQL = load_queries("forestay.media", "sql/media.sql")


class PostgresUploadStore:
    """UploadStore over one database and one object store."""

    def __init__(self, database: Database, objects: ObjectStore, chance: Chance) -> None:
        self._database = database
        self._objects = objects
        self._chance = chance

    async def begin(
        self, *, tenant_id: TenantId, file_name: str, content_type: str, lifetime_seconds: int | None
    ) -> PendingUpload:
        """Announce an upload; its file name is made safe here, since URLs carry it from now on."""
        content_type = content_type_of(b"", file_name=file_name, declared=content_type)
        row = await self._database.fetchrow(
            _SQL["begin"],
            self._chance.token(_UPLOAD_ID_BYTES),
            self._chance.token(MEDIA_ID_BYTES),
            tenant_id,
            safe_file_name(file_name, content_type),
            content_type,
            lifetime_seconds,
        )
        if row is None:
            raise LookupError("an announced upload was not stored")
        return _upload_from(row)

    async def find(self, upload_id: str) -> PendingUpload | None:
        """Find an announced upload that is still in time."""
        row = await self._database.fetchrow(_SQL["find"], upload_id, UPLOAD_SECONDS)
        return _upload_from(row) if row else None

    async def put_whole(self, upload: PendingUpload, data: AsyncIterable[bytes], max_bytes: int) -> MediaItem | None:
        """Store the file in one go; the same bytes again give the same item, other bytes give None."""
        published = await self._published(upload)
        if published is None:
            published = await self._publish(upload, capped(data, max_bytes))
            return published or await self._published(upload)  # another call of the same upload was quicker
        return published if await self._same_bytes(published, capped(data, max_bytes)) else None

    async def put_part(
        self, upload: PendingUpload, part_number: int, data: AsyncIterable[bytes], max_bytes: int
    ) -> Part:
        """Store one part under a key of its own, then record it."""
        if not 1 <= part_number <= MAX_PARTS:
            raise UsageError("partNumber", f"{part_number} is outside 1..{MAX_PARTS}")
        others = cast("int", await self._database.fetchval(_SQL["size_without"], upload.upload_id, part_number))
        if others >= max_bytes:
            raise TooLarge(max_bytes)
        etag = self._chance.token(_WRITER_BYTES)
        key = _part_key(upload.upload_id, part_number, etag)
        recorded = False
        try:
            size = await self._objects.put(key, capped(data, max_bytes - others))
            former = cast(
                "str | None",
                await self._database.fetchval(_SQL["put_part"], upload.upload_id, part_number, etag, size),
            )
            recorded = True
        finally:
            if not recorded:
                await self._objects.delete([key])
        if former is not None:
            await self._objects.delete([_part_key(upload.upload_id, part_number, former)])
        return Part(part_number, etag, size)

    async def complete(self, upload: PendingUpload, parts: Sequence[tuple[int, str]], max_bytes: int) -> MediaItem:
        """Join the parts into one object, streamed; the first to finish publishes."""
        published = await self._published(upload)
        if published is not None:
            return published
        rows = await self._database.fetch(_SQL["parts"], upload.upload_id)
        stored = {int(row["part_number"]): Part(row["part_number"], row["etag"], row["size_bytes"]) for row in rows}
        chosen = choose_parts(stored, parts)
        if sum(part.size_bytes for part in chosen) > max_bytes:
            raise TooLarge(max_bytes)
        published = await self._publish(upload, self._joined(upload.upload_id, chosen))
        published = published or await self._published(upload)
        if published is None:
            raise UsageError("upload", "was deleted while it was being completed; begin a new upload")
        return published

    async def sweep(self, limit: int) -> int:
        """Delete uploads past their time: bytes no row names, then rows."""
        rows = await self._database.fetch(_SQL["stale"], limit, UPLOAD_SECONDS, REPEAT_SECONDS)
        media_ids = [str(row["media_id"]) for row in rows]
        kept = {str(row["object_key"]) for row in await self._database.fetch(_SQL["published_keys"], media_ids)}
        for row in rows:
            for prefix in (f"uploads/{row['upload_id']}/", f"media/{row['media_id']}/"):
                keys = [found.key async for found in self._objects.list(prefix) if found.key not in kept]
                if keys:
                    await self._objects.delete(keys)
        if rows:
            await self._database.execute(_SQL["delete_uploads"], [str(row["upload_id"]) for row in rows])
        return len(rows)

    async def _published(self, upload: PendingUpload) -> MediaItem | None:
        row = await self._database.fetchrow(_MEDIA_SQL["find"], upload.media_id)
        return item_from(row) if row else None

    async def _publish(self, upload: PendingUpload, data: AsyncIterable[bytes]) -> MediaItem | None:
        """Write the bytes under a key of this call's own and try to become the file; None: another was quicker."""
        key = f"media/{upload.media_id}/{self._chance.token(_WRITER_BYTES)}"
        head, stream = await peeked(data)
        content_type = content_type_of(head, file_name=upload.file_name, declared=upload.content_type)
        row: asyncpg.Record | None = None
        try:
            size = await self._objects.put(key, stream)
            row = await self._database.fetchrow(
                _MEDIA_SQL["publish_upload"],
                upload.media_id,
                key,
                upload.tenant_id,
                upload.file_name,
                content_type,
                size,
                upload.lifetime_seconds,
            )
        finally:
            if row is None:
                await self._objects.delete([key])
        await self._database.execute(_SQL["mark_completed"], upload.upload_id)
        return item_from(row) if row else None

    async def _joined(self, upload_id: str, parts: Sequence[Part]) -> AsyncGenerator[bytes, None]:
        for part in parts:
            key = _part_key(upload_id, part.part_number, part.etag)
            async for chunk in self._objects.stream(key, 0, part.size_bytes):
                yield chunk

    async def _same_bytes(self, item: MediaItem, data: AsyncIterable[bytes]) -> bool:
        given, held, size = hashlib.sha256(), hashlib.sha256(), 0
        async for chunk in data:
            given.update(chunk)
            size += len(chunk)
        if size != item.size_bytes:
            return False
        async for chunk in self._objects.stream(item.object_key, 0, item.size_bytes):
            held.update(chunk)
        return given.digest() == held.digest()


def choose_parts(stored: Mapping[int, Part], asked: Sequence[tuple[int, str]]) -> list[Part]:
    """Return the parts to join, in order of number; UsageError names the one that is missing, doubled or changed."""
    if not 1 <= len(asked) <= MAX_PARTS:
        raise UsageError("parts", f"must hold 1 to {MAX_PARTS} parts")
    chosen: dict[int, Part] = {}
    for number, etag in asked:
        part = stored.get(number)
        if part is None:
            raise UsageError("parts", f"part {number} was never uploaded")
        if number in chosen:
            raise UsageError("parts", f"part {number} is named twice")
        if part.etag != etag.strip().removeprefix("W/").strip('"'):
            raise UsageError("parts", f"part {number} has another etag; upload it again")
        chosen[number] = part
    if missing := stored.keys() - chosen.keys():
        raise UsageError("parts", f"part {min(missing)} was uploaded and is not named")
    return [chosen[number] for number in sorted(chosen)]


def item_from(row: asyncpg.Record) -> MediaItem:
    """Read a row of `media`."""
    return MediaItem(
        media_id=row["media_id"],
        object_key=row["object_key"],
        tenant_id=TenantId(row["tenant_id"]),
        file_name=row["file_name"],
        content_type=row["content_type"],
        size_bytes=row["size_bytes"],
        state=row["state"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        request_id=row.get("request_id"),
    )


def _part_key(upload_id: str, part_number: int, etag: str) -> str:
    return f"uploads/{upload_id}/{part_number}/{etag}"


def _upload_from(row: asyncpg.Record) -> PendingUpload:
    return PendingUpload(
        upload_id=row["upload_id"],
        media_id=row["media_id"],
        tenant_id=TenantId(row["tenant_id"]),
        file_name=row["file_name"],
        content_type=row["content_type"],
        lifetime_seconds=row["lifetime_seconds"],
        created_at=row["created_at"],
    )
