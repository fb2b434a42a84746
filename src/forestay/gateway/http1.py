"""HTTP/1.1 as a client writes and reads it (RFC 9112): heads, and how an answer's body is framed.

It decides what is a well-formed answer and where its body ends, strictly: an answer that could be read in two ways is
refused. Redirects, cookies, compression and upgrades are not its concern. Pure. Called by `connections`.
"""

import functools
import re
from collections.abc import Mapping
from typing import Protocol

from forestay.values import hot_value

MAX_HEAD = 64 * 1024  # bytes of status line and headers
MAX_CHUNK_LINE = 4_096
MAX_TRAILERS = 16 * 1024
_BODILESS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # methods that announce no body where there is none
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [^\x00\r\n]*)?")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FORBIDDEN = re.compile(rb"[\x00\r\n]")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?")
_UPGRADED = 101
_REPEATED = 128  # bytes of a header line that is likely to come again


class Malformed(Exception):
    """What came is no HTTP/1.1 answer, or one that could be read in two ways."""


@hot_value
class Head:
    """Status and headers of an answer, and what they say of its body and its connection."""

    status: int
    headers: tuple[tuple[str, str], ...]  # lower-case names, in order
    length: int | None  # of the body in bytes; None: chunked, or until the connection ends
    chunked: bool
    keeps: bool  # the connection may be used again once the body was read

    def get(self, name: str) -> str | None:
        """Return the first value of a header (lower-case name)."""
        return next((value for known, value in self.headers if known == name), None)


def write_head(method: str, target: str, host: str, headers: Mapping[str, str], size: int) -> bytes:
    """Return the head of a request whose body has `size` bytes; ValueError for a header that would break out of it."""
    lines = [f"{method} {target} HTTP/1.1", f"host: {host}", *(f"{name}: {value}" for name, value in headers.items())]
    if size or method not in _BODILESS:
        lines.append(f"content-length: {size}")
    text = "\r\n".join(lines)
    if text.count("\n") != len(lines) - 1 or text.count("\r") != len(lines) - 1:
        raise ValueError("a line break stands in a header of the request")
    return f"{text}\r\n\r\n".encode("utf-8", "surrogateescape")


def read_head(data: bytes, method: str) -> Head:
    """Read a head without the empty line that ends it; raises Malformed."""
    first, *lines = data.split(b"\r\n")
    matched = _STATUS_LINE.fullmatch(first)
    if matched is None:
        raise Malformed("the status line is malformed")
    status = int(matched[2])
    headers = tuple([_known_line(line) if len(line) <= _REPEATED else _read_line(line) for line in lines])
    length, chunked, keeps = _framing(headers)
    if method == "HEAD" or status in {204, 304} or status < 200:
        length, chunked = 0, False
    elif length is None and not chunked:
        keeps = False  # the end of the connection is the end of the body
    return Head(status, headers, length, chunked, keeps and matched[1] == b"1" and status != _UPGRADED)


def _read_line(line: bytes) -> tuple[str, str]:
    name, colon, value = line.partition(b":")
    if not colon or _NAME.fullmatch(name) is None or _FORBIDDEN.search(value) is not None:
        raise Malformed("a header is malformed")
    return name.decode("ascii").lower(), value.strip(b" \t").decode("utf-8", "surrogateescape")


_known_line = functools.lru_cache(maxsize=1024)(_read_line)


def _framing(headers: tuple[tuple[str, str], ...]) -> tuple[int | None, bool, bool]:
    """Return length, whether chunked, and whether the connection goes on (RFC 9112, sections 6.3 and 9.3)."""
    length: int | None = None
    coding, keeps = "", True
    for name, value in headers:
        if name == "content-length":
            said = int(value) if value.isascii() and value.isdigit() and len(value) < 19 else None
            if said is None or length not in (None, said):
                raise Malformed("the length is malformed")
            length = said
        elif name == "transfer-encoding":
            coding = f"{coding},{value.lower()}"
        elif name == "connection":
            keeps = keeps and "close" not in value.lower()
    if not coding:
        return length, False, keeps
    # A length beside a coding is how answers are smuggled: the coding counts, and the connection ends.
    chunked = coding.rpartition(",")[2].strip() == "chunked"
    return None, chunked, keeps and length is None


class Body(Protocol):
    """Takes what comes after the head, and tells where the body ends."""

    ended: bool
    rest: bytes  # what came after its end: nothing, of an honest server

    def feed(self, data: bytes) -> bytes:
        """Take bytes as they come and return those that belong to the content; raises Malformed."""
        ...

    def ends_here(self) -> bool:
        """Tell whether the end of the connection is the end of the body."""
        ...


class SizedBody:
    """A body of known length."""

    def __init__(self, length: int) -> None:
        self._left = length
        self.ended = length == 0
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """Take bytes up to the length."""
        content, self.rest = (data, b"") if len(data) <= self._left else (data[: self._left], data[self._left :])
        self._left -= len(content)
        self.ended = self._left == 0
        return content

    def ends_here(self) -> bool:
        """Tell whether all has come."""
        return self.ended


class OpenBody:
    """A body that the end of the connection ends."""

    def __init__(self) -> None:
        self.ended = False
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """Take everything."""
        return data

    def ends_here(self) -> bool:
        """Tell that it does."""
        return True


class ChunkedBody:
    """A body in chunks (RFC 9112, section 7.1); extensions and trailers are read and dropped."""

    def __init__(self) -> None:
        self._kept = b""
        self._left = 0  # of the chunk that is being read, its closing line break included
        self._trailing = 0  # bytes of trailers so far; 0 before the last chunk
        self.ended = False
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """Take bytes and return the content among them."""
        data = self._kept + data if self._kept else data
        content: list[bytes] = []
        at = 0
        while not self.ended:
            if self._left:
                at = self._take(data, at, content)
                if self._left:
                    break
                continue
            end = data.find(b"\r\n", at)
            if end < 0:
                break
            self._line(data[at:end])
            at = end + 2
        self._kept = data[at:]
        if self.ended:
            self._kept, self.rest = b"", self._kept
        elif not self._left and len(self._kept) > MAX_CHUNK_LINE:
            raise Malformed("the line of a chunk is too long")
        return content[0] if len(content) == 1 else b"".join(content)

    def ends_here(self) -> bool:
        """Tell whether the last chunk has come."""
        return self.ended

    def _take(self, data: bytes, at: int, content: list[bytes]) -> int:
        """Take what has come of the present chunk, and its closing line break once both bytes of it are there."""
        inside = min(self._left - 2, len(data) - at)
        if inside > 0:
            content.append(data[at : at + inside])
            self._left -= inside
            at += inside
        if self._left == 2 and len(data) - at >= 2:
            if data[at : at + 2] != b"\r\n":
                raise Malformed("a chunk does not end where it says")
            self._left = 0
            at += 2
        return at

    def _line(self, line: bytes) -> None:
        if self._trailing:
            self._trailing += len(line) + 2
            self.ended = not line
            if self._trailing > MAX_TRAILERS:
                raise Malformed("the trailers are too long")
            return
        size = _SIZE.fullmatch(line)
        if size is None:
            raise Malformed("the size of a chunk is malformed")
        length = int(size[1], 16)
        if length:
            self._left = length + 2
        else:
            self._trailing = 1


def body_of(head: Head) -> Body:
    """Return the reader of an answer's body."""
    if head.chunked:
        return ChunkedBody()
    return OpenBody() if head.length is None else SizedBody(head.length)
