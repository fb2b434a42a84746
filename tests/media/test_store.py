"""The media store over a real Postgres and a real folder: what is saved, found, expired, swept, and never mixed."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from forestay.chance import SeededChance
from forestay.clock import SystemClock
from forestay.errors import UsageError
from forestay.ids import TenantId, new_request_id
from forestay.media import retention
from forestay.media.postgres_store import PostgresMediaStore
from forestay.media.store import MediaItem, MediaState, PendingUpload, TooLarge, capped
from forestay.storage.objects import ObjectStore
from forestay.storage.postgres import Database

TENANT = TenantId("acme")
PNG = b"\x89PNG\r\n\x1a\n" + b"picture" * 100
CAP = 1_000_000


@pytest.fixture
def media(database: Database, objects: ObjectStore) -> PostgresMediaStore:
    """The store under test."""
    return PostgresMediaStore(database, objects, SeededChance(7))


async def stream(*pieces: bytes) -> AsyncIterator[bytes]:
    """Yield the pieces."""
    for piece in pieces:
        yield piece


async def save(
    media: PostgresMediaStore,
    data: bytes | AsyncIterator[bytes] = PNG,
    *,
    lifetime_seconds: int | None = 3600,
    state: MediaState = "released",
) -> MediaItem:
    """Save with what most tests do not care about."""
    return await media.save(
        data,
        tenant_id=TENANT,
        file_name="a picture.png",
        content_type="",
        request_id=None,
        attempt=None,
        lifetime_seconds=lifetime_seconds,
        state=state,
    )


async def begin(media: PostgresMediaStore) -> PendingUpload:
    """Announce an upload."""
    return await media.uploads.begin(
        tenant_id=TENANT, file_name="big.bin", content_type="application/octet-stream", lifetime_seconds=60
    )


async def keys(objects: ObjectStore) -> list[str]:
    """Every object there is."""
    return [found.key async for found in objects.list("")]


async def whole(media: PostgresMediaStore, item: MediaItem) -> bytes:
    """Read a file through `open`."""
    return b"".join([piece async for piece in media.open(item, 0, item.size_bytes)])


async def test_a_saved_file_is_found_and_read(media: PostgresMediaStore) -> None:
    """Bytes, size, type and name agree, streamed or not."""
    for data in (PNG, stream(PNG[:3], PNG[3:50], PNG[50:])):
        item = await save(media, data)
        assert (item.size_bytes, item.content_type, item.file_name) == (len(PNG), "image/png", "a_picture.png")
        assert await media.find(item.media_id) == item
        assert await media.read(item.media_id) == await whole(media, item) == PNG
        assert b"".join([piece async for piece in media.open(item, 5, 20)]) == PNG[5:20]


async def test_an_id_that_was_never_given_finds_nothing(media: PostgresMediaStore) -> None:
    """Nor does it raise."""
    assert await media.find("x" * 32) is None
    assert await media.read("x" * 32) is None


async def test_a_stream_that_breaks_leaves_nothing(media: PostgresMediaStore, objects: ObjectStore) -> None:
    """Neither bytes nor row, and the sender's own error comes out."""

    async def breaking() -> AsyncIterator[bytes]:
        yield b"x" * 100_000
        raise ConnectionResetError("the sender is gone")

    with pytest.raises(Exception, match="the sender is gone"):
        await save(media, breaking())
    assert await keys(objects) == []


async def test_a_stream_over_its_cap_is_refused_and_leaves_nothing(
    media: PostgresMediaStore, objects: ObjectStore
) -> None:
    """The cap speaks while streaming, as its own error."""
    with pytest.raises(TooLarge):
        await save(media, capped(stream(*[b"x" * 1000] * 30), 20_000))
    assert await keys(objects) == []


async def test_an_expired_file_is_gone_before_and_after_retention(
    media: PostgresMediaStore, objects: ObjectStore, database: Database
) -> None:
    """Expiry is felt at once; the loop then deletes bytes and row, and nothing else."""
    expired, kept, endless = await save(media), await save(media), await save(media, lifetime_seconds=None)
    await database.execute("UPDATE media SET expires_at = now() - interval '1 s' WHERE media_id = $1", expired.media_id)
    assert await media.find(expired.media_id) is None
    assert await retention.run_once(media) == 1
    assert sorted(await keys(objects)) == sorted([kept.object_key, endless.object_key])
    assert await retention.run_once(media) == 0
    assert await media.find(kept.media_id) == kept
    assert await media.find(endless.media_id) == endless


async def test_a_file_that_went_elsewhere_is_deleted_at_once(media: PostgresMediaStore, objects: ObjectStore) -> None:
    """Bytes and row, whatever its state; others stay, and asking again or for nothing is no error."""
    gone, held, kept = await save(media), await save(media, state="quarantine"), await save(media)
    for _ in range(2):
        await media.delete([gone.media_id, held.media_id, "unknown"])
    await media.delete([])
    assert await keys(objects) == [kept.object_key]
    assert await media.find(gone.media_id) is None
    assert await media.find(held.media_id) is None
    assert await media.find(kept.media_id) == kept


@pytest.mark.threat("API1:2023")
async def test_files_are_released_for_the_request_that_made_them_alone(media: PostgresMediaStore) -> None:
    """An answer that names a file which another request made opens nothing, also where that one was shut again."""
    now = SystemClock().now()
    ours, theirs = new_request_id(now, 0, SeededChance(1)), new_request_id(now, 0, SeededChance(2))
    saved = await media.save(
        PNG,
        tenant_id=TENANT,
        file_name="a.png",
        content_type="",
        request_id=theirs,
        attempt=1,
        lifetime_seconds=60,
        state="quarantine",
    )
    await media.release([saved.media_id], [theirs])
    await media.withhold([saved.media_id])
    await media.release([saved.media_id, "x" * 32], [ours])
    found = await media.find(saved.media_id)
    assert found is not None
    assert (found.state, found.request_id) == ("quarantine", theirs)
    await media.release([saved.media_id], [ours, theirs])
    again = await media.find(saved.media_id)
    assert again is not None
    assert again.state == "released"


async def test_quarantine_that_no_finish_released_ends(media: PostgresMediaStore, database: Database) -> None:
    """An attempt that lost its lease leaves files that nobody will ever release."""
    held = await save(media, lifetime_seconds=None, state="quarantine")
    assert await retention.run_once(media) == 0
    await database.execute("UPDATE media SET created_at = now() - interval '8 days'")
    assert await retention.run_once(media) == 1
    assert await media.find(held.media_id) is None


async def test_a_crash_between_row_and_bytes_is_cleaned_up(
    media: PostgresMediaStore, database: Database, objects: ObjectStore
) -> None:
    """The row is written first and ends within a day; until the bytes are in, it is no file."""
    await database.execute(
        "INSERT INTO media (media_id, object_key, tenant_id, file_name, content_type, size_bytes, state, expires_at)"
        " VALUES ('m', 'media/m/w', 'acme', 'a', 'b/c', -1, 'quarantine', now() - interval '1 s')"
    )
    await objects.put("media/m/w", b"half")
    assert await media.find("m") is None
    assert await retention.run_once(media) == 1
    assert await keys(objects) == []


async def test_a_whole_upload_becomes_a_released_file(media: PostgresMediaStore) -> None:
    """Under the announced id and name, typed by its bytes."""
    upload = await begin(media)
    assert await media.uploads.find(upload.upload_id) == upload
    item = await media.uploads.put_whole(upload, stream(PNG), CAP)
    assert item is not None
    assert (item.media_id, item.state, item.content_type) == (upload.media_id, "released", "image/png")
    assert await media.read(item.media_id) == PNG


async def test_repeating_an_upload_gives_the_same_file_and_never_another(media: PostgresMediaStore) -> None:
    """A retry after a lost answer succeeds; a URL that was used cannot be used to swap what others already read."""
    upload = await begin(media)
    first = await media.uploads.put_whole(upload, stream(PNG), CAP)
    assert await media.uploads.put_whole(upload, stream(PNG[:9], PNG[9:]), CAP) == first
    assert await media.uploads.put_whole(upload, stream(PNG[::-1]), CAP) is None
    assert await media.uploads.put_whole(upload, stream(PNG + b"x"), CAP) is None
    assert await media.read(upload.media_id) == PNG


async def test_two_writers_of_one_upload_never_mix(media: PostgresMediaStore, objects: ObjectStore) -> None:
    """Whoever is first is the file, whole; the other's bytes are gone."""
    upload = await begin(media)
    contents = [bytes([number]) * 50_000 for number in range(4)]
    items = await asyncio.gather(
        *[media.uploads.put_whole(upload, stream(content[:7], content[7:]), CAP) for content in contents]
    )
    published = {item for item in items if item is not None}
    assert len(published) == 1
    assert await media.read(upload.media_id) in contents
    assert await keys(objects) == [published.pop().object_key]


async def test_parts_in_any_order_become_one_file(media: PostgresMediaStore, objects: ObjectStore) -> None:
    """Joined by number; a part sent twice counts once, as sent last; completing twice gives the same file."""
    upload = await begin(media)
    uploads = media.uploads
    third = await uploads.put_part(upload, 3, stream(b"ccc"), CAP)
    await uploads.put_part(upload, 1, stream(b"wrong"), CAP)
    first = await uploads.put_part(upload, 1, stream(b"a" * 70_000), CAP)
    second = await uploads.put_part(upload, 2, stream(b"b"), CAP)
    assert len(await keys(objects)) == 3
    named = [(2, second.etag), (3, f'"{third.etag}"'), (1, first.etag)]
    item = await uploads.complete(upload, named, CAP)
    assert await media.read(item.media_id) == b"a" * 70_000 + b"b" + b"ccc"
    assert await uploads.complete(upload, named, CAP) == item


@pytest.mark.parametrize(
    ("named", "complaint"),
    [
        ([], "1 to 10000"),
        ([(1, "?1"), (2, "nonsense")], "part 2 has another etag"),
        ([(1, "?1"), (2, "?2"), (3, "x")], "part 3 was never uploaded"),
        ([(1, "?1"), (1, "?1")], "part 1 is named twice"),
        ([(1, "?1")], "part 2 was uploaded and is not named"),
    ],
)
async def test_completing_with_the_wrong_parts_names_the_fault(
    media: PostgresMediaStore, named: list[tuple[int, str]], complaint: str
) -> None:
    """And stores nothing."""
    upload = await begin(media)
    stored = {n: (await media.uploads.put_part(upload, n, stream(b"x"), CAP)).etag for n in (1, 2)}
    asked = [(number, stored[number] if etag.startswith("?") else etag) for number, etag in named]
    with pytest.raises(UsageError, match=complaint):
        await media.uploads.complete(upload, asked, CAP)
    assert await media.find(upload.media_id) is None


async def test_parts_together_may_not_exceed_the_cap(media: PostgresMediaStore, objects: ObjectStore) -> None:
    """Neither the one that crosses it nor any after; a part that is replaced counts once."""
    upload = await begin(media)
    await media.uploads.put_part(upload, 1, stream(b"x" * 600), 1000)
    await media.uploads.put_part(upload, 1, stream(b"x" * 700), 1000)
    with pytest.raises(TooLarge):
        await media.uploads.put_part(upload, 2, stream(b"x" * 301), 1000)
    await media.uploads.put_part(upload, 2, stream(b"x" * 300), 1000)
    with pytest.raises(TooLarge):
        await media.uploads.put_part(upload, 3, stream(b"x"), 1000)
    assert len(await keys(objects)) == 2


@pytest.mark.parametrize("number", [0, -1, 10_001])
async def test_a_part_number_out_of_range_is_refused(media: PostgresMediaStore, number: int) -> None:
    """At most 10,000 parts."""
    with pytest.raises(UsageError, match="outside"):
        await media.uploads.put_part(await begin(media), number, stream(b"x"), CAP)


async def test_abandoned_uploads_are_swept_and_published_files_stay(
    media: PostgresMediaStore, database: Database, objects: ObjectStore
) -> None:
    """Parts, half-written objects and rows go; the file that was published does not."""
    abandoned, done, fresh = await begin(media), await begin(media), await begin(media)
    await media.uploads.put_part(abandoned, 1, stream(b"x"), CAP)
    part = await media.uploads.put_part(done, 1, stream(PNG), CAP)
    item = await media.uploads.complete(done, [(1, part.etag)], CAP)
    await objects.put(f"media/{done.media_id}/leftover", b"of a crash")
    await media.uploads.put_part(fresh, 1, stream(b"y"), CAP)
    assert await media.uploads.sweep(100) == 0
    await database.execute(
        "UPDATE multipart_uploads SET created_at = now() - interval '2 days' WHERE upload_id = ANY ($1::text[])",
        [abandoned.upload_id, done.upload_id],
    )
    assert await media.uploads.sweep(100) == 2
    left = await keys(objects)
    assert item.object_key in left
    assert [key.split("/")[1] for key in left if key != item.object_key] == [fresh.upload_id]
    assert await media.uploads.find(abandoned.upload_id) is None
    assert await media.read(item.media_id) == PNG
