"""The object store: bytes by key, in a folder or in S3, GCS or Azure, through obstore.

Keys are made of the words that the callers own (`media/...`, `inputs/...`, `results/...`, `bundles/...`). A missing
object is an expected outcome (None); a store that does not answer raises `Unavailable`.
"""

import dataclasses
import datetime as dt
from collections.abc import AsyncIterable, AsyncIterator, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, MemoryStore, from_url
from obstore.store import ObjectStore as Backend

from forestay.errors import Unavailable, UsageError

_CHUNK_BYTES = 256 * 1024


@dataclasses.dataclass(frozen=True, slots=True)
class StoredObject:
    """What a listing says of one object."""

    key: str
    size_bytes: int
    modified_at: dt.datetime


class ObjectStore(Protocol):
    """Bytes by key."""

    async def put(self, key: str, data: bytes | AsyncIterable[bytes]) -> int:
        """Write an object whole or not at all, replacing what was there; returns its size in bytes."""
        ...

    async def get(self, key: str) -> bytes | None:
        """Read an object whole; None when there is none."""
        ...

    async def size(self, key: str) -> int | None:
        """Return an object's size in bytes; None when there is none."""
        ...

    def stream(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        """Read bytes [start, end) in pieces; an object that is missing yields nothing."""
        ...

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; one that is missing already is no error."""
        ...

    def list(self, prefix: str) -> AsyncIterator[StoredObject]:
        """List the objects below `prefix` (a folder of keys), in no order."""
        ...


class ObstoreObjects:
    """Any store that obstore speaks to."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def put(self, key: str, data: bytes | AsyncIterable[bytes]) -> int:
        """Write an object whole or not at all; returns its size in bytes."""
        with _silent_store(key):
            if isinstance(data, bytes):
                await obstore.put_async(self._backend, key, data)
                return len(data)
            counted = _Counted(data)
            await obstore.put_async(self._backend, key, counted.pieces())
            return counted.size_bytes

    async def get(self, key: str) -> bytes | None:
        """Read an object whole; None when there is none."""
        with _silent_store(key):
            try:
                result = await obstore.get_async(self._backend, key)
                return bytes(await result.bytes_async())
            except FileNotFoundError:
                return None

    async def size(self, key: str) -> int | None:
        """Return an object's size in bytes; None when there is none."""
        with _silent_store(key):
            try:
                return (await obstore.head_async(self._backend, key))["size"]
            except FileNotFoundError:
                return None

    async def stream(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        """Read bytes [start, end) in pieces of at most a quarter of a megabyte or so."""
        if end <= start:
            return
        with _silent_store(key):
            try:
                result = await obstore.get_async(self._backend, key, options={"range": (start, end)})
            except FileNotFoundError:
                return
            async for piece in result.stream(min_chunk_size=_CHUNK_BYTES):
                yield bytes(piece)

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; one that is missing already is no error."""
        for key in keys:
            with _silent_store(key):
                try:
                    await obstore.delete_async(self._backend, key)
                except FileNotFoundError:
                    continue

    async def list(self, prefix: str) -> AsyncIterator[StoredObject]:
        """List the objects below `prefix`."""
        with _silent_store(prefix):
            async for chunk in obstore.list(self._backend, prefix or None):  # pyright: ignore[reportUnknownMemberType] - an overload for arrow
                for meta in chunk:
                    yield StoredObject(meta["path"], meta["size"], meta["last_modified"])


class _Counted:
    """Counts the bytes that pass."""

    def __init__(self, source: AsyncIterable[bytes]) -> None:
        self._source = source
        self.size_bytes = 0

    async def pieces(self) -> AsyncIterator[bytes]:
        async for piece in self._source:
            self.size_bytes += len(piece)
            yield piece


def open_object_store(url: str) -> ObjectStore:
    """Open the store at `url`: file:///folder, memory:///, s3://bucket/prefix, gs://, az://."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        folder = Path(unquote(parts.path))
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Empty folders go with their last object: media have one each, and retention would leave millions behind.
        return ObstoreObjects(LocalStore(folder, automatic_cleanup=True, mkdir=True))
    if parts.scheme == "memory":
        return ObstoreObjects(MemoryStore())
    if parts.scheme not in {"s3", "s3a", "gs", "az", "azure", "abfs", "abfss"}:
        raise UsageError("FORESTAY_OBJECT_STORE", f"{url!r} is none of file:///folder, memory:///, s3://, gs://, az://")
    return ObstoreObjects(from_url(url))


@contextmanager
def _silent_store(key: str) -> Generator[None]:
    """Turn what a silent store raises into Unavailable; the caller's own errors in a streamed body pass as they are."""
    try:
        yield
    except (BaseError, OSError) as error:
        raise Unavailable(f"the object store failed for {key!r}: {type(error).__name__}: {error}") from error
