"""The media store over Postgres (rows) and the object store (bytes); the port and its promises are in `store.py`.

Order of writes: row, then bytes, then the row again. A crash in between leaves a row that expires within a day, and
with it the bytes go. Time is the database's.
"""

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Sequence

from forestay.chance import Chance
from forestay.ids import RequestId, TenantId
from forestay.media.formats import content_type_of, safe_file_name
from forestay.media.postgres_uploads import PostgresUploadStore, item_from
from forestay.media.store import MediaItem, MediaState, peeked
from forestay.media.urls import MEDIA_ID_BYTES
from forestay.storage.objects import ObjectStore
from forestay.storage.postgres import Database, load_queries

_SQL = load_queries("forestay.media", "sql/media.sql")
_WRITER_BYTES = 9
QUARANTINE_SECONDS = 7 * 86400.0  # a withheld result is judged long before; after that no finish will release it


class PostgresMediaStore:
    """MediaStore over one database and one object store."""

    def __init__(self, database: Database, objects: ObjectStore, chance: Chance) -> None:
        self._database = database
        self._objects = objects
        self._chance = chance
        self._uploads = PostgresUploadStore(database, objects, chance)

    @property
    def uploads(self) -> PostgresUploadStore:
        """Return the store of pending uploads."""
        return self._uploads

    async def save(  # noqa: PLR0913 - the port's own shape
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
        """Store a file under a new unguessable id; see the port."""
        media_id = self._chance.token(MEDIA_ID_BYTES)
        object_key = f"media/{media_id}/{self._chance.token(_WRITER_BYTES)}"
        head, stream = await peeked(_as_stream(data))
        content_type = content_type_of(head, file_name=file_name, declared=content_type)
        name = safe_file_name(file_name, content_type)
        await self._database.execute(
            _SQL["announce"], media_id, object_key, tenant_id, request_id, attempt, name, content_type
        )
        arrived = False
        try:
            size = await self._objects.put(object_key, stream)
            row = await self._database.fetchrow(_SQL["arrived"], media_id, size, content_type, state, lifetime_seconds)
            arrived = row is not None
        finally:
            if not arrived:
                await self._drop(media_id, object_key)
        if row is None:  # only if someone deleted the row under our hands
            raise LookupError(f"media {media_id} vanished while it was being stored")
        return item_from(row)

    async def find(self, media_id: str) -> MediaItem | None:
        """Find a file that has arrived and not expired."""
        row = await self._database.fetchrow(_SQL["find"], media_id)
        return item_from(row) if row else None

    def open(self, item: MediaItem, start: int, end: int) -> AsyncIterator[bytes]:
        """Stream bytes [start, end) of a file."""
        return self._objects.stream(item.object_key, start, end)

    async def read(self, media_id: str) -> bytes | None:
        """Read a whole file; None when unknown, expired or gone."""
        item = await self.find(media_id)
        return await self._objects.get(item.object_key) if item else None

    async def release(self, media_ids: Sequence[str], owners: Sequence[RequestId]) -> None:
        """Let quarantined files of these requests be read."""
        await self._database.execute(_SQL["release"], list(media_ids), list(owners))

    async def of_request(self, request_id: RequestId, limit: int) -> Sequence[MediaItem]:
        """List the files that a request made."""
        return [item_from(row) for row in await self._database.fetch(_SQL["of_request"], request_id, limit)]

    async def withhold(self, media_ids: Sequence[str]) -> None:
        """Shut released files again."""
        await self._database.execute(_SQL["withhold"], list(media_ids))

    async def delete(self, media_ids: Sequence[str]) -> None:
        """Delete files at once."""
        if media_ids:
            rows = await self._database.fetch(_SQL["keys"], list(media_ids))
            await self._objects.delete([str(row["object_key"]) for row in rows])
            await self._database.execute(_SQL["delete_rows"], list(media_ids))

    async def delete_expired(self, limit: int) -> int:
        """Delete expired files and abandoned quarantine: bytes, then rows."""
        rows = await self._database.fetch(_SQL["expired"], limit, QUARANTINE_SECONDS)
        if rows:
            await self._objects.delete([str(row["object_key"]) for row in rows])
            await self._database.execute(_SQL["delete_rows"], [str(row["media_id"]) for row in rows])
        return len(rows)

    async def _drop(self, media_id: str, object_key: str) -> None:
        await self._objects.delete([object_key])
        await self._database.execute(_SQL["forget_announced"], media_id)


async def _as_stream(data: bytes | AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    if isinstance(data, bytes):
        yield data
        return
    async for chunk in data:
        yield chunk
