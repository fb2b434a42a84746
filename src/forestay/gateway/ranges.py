"""Conditional and range requests for immutable files (RFC 9110, sections 13 and 14). Pure. Called by `cdn`.

One range is honoured; several, and what cannot be read, are answered with the whole file, as the RFC allows.
"""

import dataclasses
import datetime as dt
import email.utils
import re
from collections.abc import Mapping

_ONE_RANGE = re.compile(r"bytes=\s*([0-9]{0,19})\s*-\s*([0-9]{0,19})\s*", re.IGNORECASE)


@dataclasses.dataclass(frozen=True, slots=True)
class Version:
    """What identifies the bytes."""

    etag: str  # strong, with its quotes
    modified_at: dt.datetime
    size_bytes: int


@dataclasses.dataclass(frozen=True, slots=True)
class Whole:
    """Answer 200."""


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """Answer 206 with bytes [start, end)."""

    start: int
    end: int


@dataclasses.dataclass(frozen=True, slots=True)
class Unsatisfiable:
    """Answer 416."""


@dataclasses.dataclass(frozen=True, slots=True)
class NotModified:
    """Answer 304."""


Selection = Whole | Piece | Unsatisfiable | NotModified


def select(headers: Mapping[str, str], version: Version) -> Selection:
    """Choose what to answer; `headers` by lower-case name."""
    if _unchanged(headers, version):
        return NotModified()
    text = headers.get("range")
    if text is None or not _range_applies(headers.get("if-range"), version):
        return Whole()
    match = _ONE_RANGE.fullmatch(text)
    if match is None or not (match[1] or match[2]):
        return Whole()
    return _one_range(match[1], match[2], version.size_bytes)


def http_date(moment: dt.datetime) -> str:
    """Return a moment in the form of Last-Modified."""
    return email.utils.format_datetime(moment.astimezone(dt.UTC).replace(microsecond=0), usegmt=True)


def _one_range(first: str, last: str, size: int) -> Selection:
    if not first:  # the last so many bytes
        count = min(int(last), size)
        return Piece(size - count, size) if count else Unsatisfiable()
    start = int(first)
    if last and int(last) < start:
        return Whole()  # not a range at all: ignored
    if start >= size:
        return Unsatisfiable()
    return Piece(start, min(int(last) + 1, size) if last else size)


def _unchanged(headers: Mapping[str, str], version: Version) -> bool:
    if (tags := headers.get("if-none-match")) is not None:
        known = {tag.strip().removeprefix("W/") for tag in tags.split(",")}
        return "*" in known or version.etag in known
    since = _date(headers.get("if-modified-since"))
    return since is not None and version.modified_at.replace(microsecond=0) <= since


def _range_applies(condition: str | None, version: Version) -> bool:
    if condition is None:
        return True
    if condition.startswith('"'):
        return condition == version.etag
    return _date(condition) == version.modified_at.replace(microsecond=0)


def _date(text: str | None) -> dt.datetime | None:
    if not text:
        return None
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
