"""The object store: whole objects by key, missing ones as values."""

from collections.abc import AsyncIterator

import pytest

from forestay.errors import UsageError
from forestay.storage.objects import ObjectStore, open_object_store


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, objects: ObjectStore) -> ObjectStore:
    """Each local kind in turn."""
    return objects if request.param == "file" else open_object_store("memory:///")


async def _pieces(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def test_an_object_comes_back_as_it_went_in(store: ObjectStore) -> None:
    """Bytes and streams alike; writing again replaces; an empty object is an object."""
    assert await store.put("a/b", b"hello") == 5
    assert await store.get("a/b") == b"hello"
    assert await store.put("a/b", _pieces(b"he", b"", b"y")) == 3
    assert await store.get("a/b") == b"hey"
    assert await store.size("a/b") == 3
    assert await store.put("empty", b"") == 0
    assert await store.get("empty") == b""


async def test_a_range_is_read_in_pieces(store: ObjectStore) -> None:
    """[start, end) of a large object, and nothing of an empty range."""
    data = bytes(range(256)) * 4_000
    await store.put("big", data)
    assert b"".join([piece async for piece in store.stream("big", 1_000, 900_000)]) == data[1_000:900_000]
    assert [piece async for piece in store.stream("big", 5, 5)] == []


async def test_what_is_missing_is_a_value(store: ObjectStore) -> None:
    """Reading gives None, streaming nothing, deleting no error."""
    assert await store.get("no") is None
    assert await store.size("no") is None
    assert [piece async for piece in store.stream("no", 0, 10)] == []
    await store.delete(["no"])


async def test_listing_sees_what_is_below_a_prefix(store: ObjectStore) -> None:
    """Deleted objects are gone from it."""
    for key in ("x/1", "x/2", "y/1"):
        await store.put(key, b"1")
    await store.delete(["x/2"])
    assert [(entry.key, entry.size_bytes) async for entry in store.list("x")] == [("x/1", 1)]


async def test_a_write_that_fails_midway_leaves_nothing(store: ObjectStore) -> None:
    """An object is there whole or not at all."""

    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        raise RuntimeError("gone")

    with pytest.raises(Exception, match="gone"):
        await store.put("half", broken())
    assert await store.get("half") is None


def test_an_unknown_kind_of_store_names_the_setting() -> None:
    """The message says which variable and which forms."""
    with pytest.raises(UsageError, match="FORESTAY_OBJECT_STORE"):
        open_object_store("ftp://somewhere")
