"""Reads the directory of a zip archive strictly: what two readers could see differently is a flaw.

It decides that the archive begins with its first member and ends with its directory, that each member's own header says
what the directory says, and that no two members share bytes or names. What the members mean is the caller's. Rules:
PKWARE's APPNOTE 6.3.10; the directory itself is read by the standard library.
"""

import dataclasses
import io
import zipfile
import zlib
from typing import TYPE_CHECKING

from forestay.artefacts.findings import FlawKind, shown
from forestay.artefacts.source import BytesSource, PartSource, Source, broken

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_MEMBERS = 100_000
MAX_NAME_CHARS = 1024
MAX_UNPACKED_BYTES = 64 * 1024**3
MAX_RATIO = 200  # of sizes unpacked to packed, for more than the following
RATIO_FROM_BYTES = 64 * 1024 * 1024
_LOCAL, _END = b"PK\x03\x04", b"PK\x05\x06"
_END_BYTES, _COMMENT_BYTES = 22, 65_535
_GAP_BYTES = 24  # a data descriptor between two members


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """One member: where its packed bytes lie and what it unpacks to."""

    name: str
    start: int
    packed: int
    size: int
    method: int


def ends_as_zip(source: Source) -> bool:
    """Tell whether the last bytes are a zip's end of directory, whatever the file begins with."""
    tail = source.read(max(0, source.size - _END_BYTES - _COMMENT_BYTES), min(source.size, _END_BYTES + _COMMENT_BYTES))
    at = tail.rfind(_END)
    while at >= 0:
        comment = int.from_bytes(tail[at + 20 : at + 22], "little")
        if at + _END_BYTES <= len(tail) and at + _END_BYTES + comment == len(tail):
            return True
        at = tail.rfind(_END, 0, at)
    return False


def read_members(source: Source) -> list[Member]:
    """Return the members in the order of their bytes; Broken for whatever is not strict."""
    try:
        with zipfile.ZipFile(SourceFile(source)) as archive:
            listed, comment = archive.infolist(), archive.comment
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, EOFError, UnicodeError) as error:
        broken(FlawKind.HEADER, "directory", f"is no zip directory: {shown(str(error))}")
    if len(listed) > MAX_MEMBERS:
        broken(FlawKind.LIMIT, "directory", f"{len(listed)} members, at most {MAX_MEMBERS} are read")
    if comment or not ends_as_zip(source):
        broken(FlawKind.POLYGLOT, "end", "bytes stand behind the directory")
    members = sorted((_member(source, info) for info in listed), key=lambda member: member.start)
    _check_names(members)
    _check_places(source, members, listed)
    _check_sizes(members)
    return members


def open_member(source: Source, member: Member, limit: int) -> Source:
    """Return a member's bytes: a part of the file when stored, else unpacked, at most `limit` bytes of it."""
    if member.method == zipfile.ZIP_STORED:
        return PartSource(source, member.start, member.packed)
    packed = source.read(member.start, min(member.packed, limit))
    try:
        return BytesSource(zlib.decompressobj(-15).decompress(packed, limit))
    except zlib.error:
        broken(FlawKind.HEADER, shown(member.name), "cannot be unpacked")


def _member(source: Source, info: zipfile.ZipInfo) -> Member:
    where = f"member {shown(info.orig_filename)}"
    if info.flag_bits & 0x1 or info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        broken(FlawKind.ARCHIVE, where, "is encrypted, or packed by a method that is not read")
    local = source.read(info.header_offset, 30)
    name_bytes, extra_bytes = int.from_bytes(local[26:28], "little"), int.from_bytes(local[28:30], "little")
    raw_name = source.read(info.header_offset + 30, name_bytes)
    encoding = "utf-8" if int.from_bytes(local[6:8], "little") & 0x800 else "cp437"
    if local[:4] != _LOCAL or raw_name.decode(encoding, "replace") != info.orig_filename:
        broken(FlawKind.POLYGLOT, where, "its own header names something else than the directory")
    if int.from_bytes(local[8:10], "little") != info.compress_type:
        broken(FlawKind.POLYGLOT, where, "its own header and the directory differ on how it is packed")
    start = info.header_offset + 30 + name_bytes + extra_bytes
    if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
        broken(FlawKind.BOUNDS, where, "is stored but has two sizes")
    return Member(info.orig_filename, start, info.compress_size, info.file_size, info.compress_type)


def _check_names(members: list[Member]) -> None:
    seen: set[str] = set()
    for member in members:
        name, where = member.name, f"member {shown(member.name)}"
        if name in seen:
            broken(FlawKind.TWICE, where, "stands there twice")
        seen.add(name)
        parts = name.split("/")
        if len(name) > MAX_NAME_CHARS or not name.isprintable() or "\\" in name or ".." in parts or parts[0] == "":
            broken(FlawKind.NAME, where, "is no plain relative name")


def _check_places(source: Source, members: list[Member], listed: list[zipfile.ZipInfo]) -> None:
    if not members or min(info.header_offset for info in listed) != 0:
        broken(FlawKind.POLYGLOT, "byte 0", "other bytes stand before the first member")
    headers = sorted(info.header_offset for info in listed)
    for member, following in zip(members, [*headers[1:], None], strict=True):
        end = member.start + member.packed
        if following is not None and not end <= following <= end + _GAP_BYTES:
            what = "shares bytes with the next" if following < end else "is followed by bytes of no member"
            broken(FlawKind.BOUNDS, f"member {shown(member.name)}", what)
        if end > source.size:
            broken(FlawKind.BOUNDS, f"member {shown(member.name)}", "reaches beyond the file")


def _check_sizes(members: list[Member]) -> None:
    size, packed = sum(member.size for member in members), sum(member.packed for member in members)
    if size > MAX_UNPACKED_BYTES or (size > RATIO_FROM_BYTES and size > MAX_RATIO * max(packed, 1)):
        broken(FlawKind.LIMIT, "directory", f"{packed} bytes unpack to {size}")


class SourceFile(io.RawIOBase):
    """A Source as the standard library wants a file."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._at = 0

    def seekable(self) -> bool:
        """Say yes."""
        return True

    def readable(self) -> bool:
        """Say yes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move; OSError before the beginning."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._source.size}[whence]
        if base + offset < 0:
            raise OSError("before the beginning")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """Fill the buffer as far as there are bytes."""
        view = memoryview(buffer)
        length = min(len(view), max(0, self._source.size - self._at))
        view[:length] = self._source.read(self._at, length)
        self._at += length
        return length
