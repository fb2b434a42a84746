"""Bytes to look at: a file, a part of one (a member of a tar or zip), or bytes in memory, read in bounded pieces.

It decides that no reader ever takes more into memory than it asks for and never reads outside its file. Files are read
by position, not mapped: a file that shrinks meanwhile is an error here, not a crash. Used by every reader of a format.
"""

import os
import pathlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import NoReturn, Protocol

from forestay.artefacts.findings import Flaw, FlawKind

MAX_READ_BYTES = 128 * 1024 * 1024  # more than any header that a format allows
_BLOCK_BYTES = 256 * 1024


class Broken(Exception):
    """Reading cannot go on; carries the one flaw that says why. Never leaves this package."""

    def __init__(self, flaw: Flaw) -> None:
        super().__init__(flaw.what)
        self.flaw = flaw


def broken(kind: FlawKind, where: str, what: str) -> NoReturn:
    """Stop reading because of a flaw."""
    raise Broken(Flaw(kind, where, what))


class Source(Protocol):
    """Random access to `size` bytes."""

    @property
    def size(self) -> int:
        """Number of bytes."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes; Broken when they are not there."""
        ...


class BytesSource:
    """Bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size(self) -> int:
        """Number of bytes."""
        return len(self._data)

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes."""
        check_range(self.size, offset, length)
        return self._data[offset : offset + length]


class FileSource:
    """An open file, or the part of it that begins at `base`; small reads are served from one block in memory."""

    def __init__(self, descriptor: int, size: int, base: int = 0) -> None:
        self._descriptor = descriptor
        self._size = size
        self._base = base
        self._block = b""
        self._block_offset = 0

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes."""
        check_range(self._size, offset, length)
        start = offset - self._block_offset
        if start >= 0 and start + length <= len(self._block):
            return self._block[start : start + length]
        wanted = min(max(length, _BLOCK_BYTES), self._size - offset)
        data = _pread(self._descriptor, wanted, self._base + offset)
        if len(data) < length:
            broken(FlawKind.BOUNDS, f"byte {offset}", "the file became shorter while it was read")
        if length < _BLOCK_BYTES:
            self._block, self._block_offset = data, offset
        return data[:length]


class PartSource:
    """A part of another source."""

    def __init__(self, whole: Source, base: int, size: int) -> None:
        check_range(whole.size, base, 0)
        check_range(whole.size, base + size, 0)
        self._whole = whole
        self._base = base
        self._size = size

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes."""
        check_range(self._size, offset, length)
        return self._whole.read(self._base + offset, length)


@contextmanager
def open_file(path: pathlib.Path) -> Generator[FileSource]:
    """Open a plain file for reading, never through a link in its last part; OSError when it cannot be."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield FileSource(descriptor, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)


def head_of(source: Source, length: int) -> bytes:
    """Return the first bytes, fewer when the source is shorter."""
    return source.read(0, min(length, source.size))


def pieces_of(source: Source, piece_bytes: int = 1024 * 1024) -> Iterator[bytes]:
    """Return all bytes in pieces."""
    for offset in range(0, source.size, piece_bytes):
        yield source.read(offset, min(piece_bytes, source.size - offset))


def check_range(size: int, offset: int, length: int) -> None:
    """Stop when the range lies outside `size` bytes, or is more than anyone should ask for."""
    if offset < 0 or length < 0 or offset + length > size:
        broken(FlawKind.BOUNDS, f"byte {max(offset, 0)}", f"needs {length} bytes there, the file has {size}")
    if length > MAX_READ_BYTES:
        broken(FlawKind.LIMIT, f"byte {offset}", f"a single value of {length} bytes")


def _pread(descriptor: int, length: int, offset: int) -> bytes:
    data = os.pread(descriptor, length, offset)
    while len(data) < length:  # a signal or a slow file system may cut a read short; only an empty one is the end
        piece = os.pread(descriptor, length - len(data), offset + len(data))
        if not piece:
            break
        data += piece
    return data
