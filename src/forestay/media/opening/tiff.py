"""Walks the directories of a TIFF (TIFF 6.0) before anything is decoded; its pages are then written anew.

Refused: chains of directories that loop or are longer than the limit, pages over the limits of size, strips and tiles
that lie outside the file, overlap into more bytes than the file has, or do not match the page, rare compressions, the
64-bit variant. Every tag that is not needed to decode stays behind, since the pages are written anew.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from forestay.media.limits import DecodeLimits
from forestay.media.opening.refusal import (
    Refusal,
    View,
    Walked,
    broken,
    check_size,
    check_total,
    unsupported,
)

SIGNATURES = (b"II*\0", b"MM\0*")
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}  # bytes of one value, by type
_WHOLE = {1, 3, 4}  # types that are whole numbers
_COMPRESSIONS = {1: "none", 5: "LZW", 7: "JPEG", 8: "deflate", 32773: "PackBits", 32946: "deflate"}
_MAX_ENTRIES = 256
_MAX_VALUES = 1_000_000


@dataclasses.dataclass(frozen=True, slots=True)
class _Reader:
    view: View
    big: bool

    def number(self, start: int, size: int) -> int:
        """Read an unsigned number; outside the file the page is broken."""
        if start + size > len(self.view):
            raise broken("a directory points outside the file")
        return int.from_bytes(self.view[start : start + size], "big" if self.big else "little")


def walk(view: View, limits: DecodeLimits) -> Walked:
    """Return what the file holds; Refusal otherwise."""
    reader = _Reader(view, bytes(view[:2]) == b"MM")
    seen: set[int] = set()
    sizes: list[tuple[int, int]] = []
    orientation = 1
    at = reader.number(4, 4)
    while at:
        if at in seen:
            raise broken("the directories form a loop")
        seen.add(at)
        if len(seen) > limits.max_pages:
            message = f"more than {limits.max_pages} pages"
            raise Refusal("too_heavy", message, "max_pages", allowed=limits.max_pages, given=len(seen))
        tags, at = _directory(reader, at)
        sizes.append(_page(tags, len(view), limits))
        orientation = orientation if len(sizes) > 1 else _one(tags, 274, 1)
        check_total(sum(width * height for width, height in sizes), limits, "pages")
    if not sizes:
        raise broken("there is no page")
    width, height = sizes[0]
    return Walked("image", "image/tiff", "TIFF", (), width, height, len(sizes), min(max(orientation, 1), 8))


def _directory(reader: _Reader, at: int) -> tuple[Mapping[int, Sequence[int]], int]:
    """Read the whole numbers of one directory, and where the next one is."""
    count = reader.number(at, 2)
    if not 1 <= count <= _MAX_ENTRIES:
        raise broken(f"a directory of {count} entries")
    tags: dict[int, Sequence[int]] = {}
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, values = reader.number(entry, 2), reader.number(entry + 2, 2), reader.number(entry + 4, 4)
        size = _SIZES.get(kind, 1)
        start = entry + 8 if size * values <= 4 else reader.number(entry + 8, 4)
        if start + size * values > len(reader.view):
            raise broken(f"tag {tag} points outside the file")
        if kind in _WHOLE and tag in _NEEDED:
            if values > _MAX_VALUES:
                raise broken(f"tag {tag} has {values} values")
            tags[tag] = [reader.number(start + size * index, size) for index in range(values)]
    return tags, reader.number(at + 2 + 12 * count, 4)


_NEEDED = frozenset({256, 257, 258, 259, 273, 274, 277, 278, 279, 284, 322, 323, 324, 325})


def _page(tags: Mapping[int, Sequence[int]], file_bytes: int, limits: DecodeLimits) -> tuple[int, int]:
    width, height = _one(tags, 256, 0), _one(tags, 257, 0)
    check_size(width, height, limits)
    compression = _one(tags, 259, 1)
    if compression not in _COMPRESSIONS:
        raise unsupported(f"TIFF in compression {compression} is not opened")
    samples, bits = _one(tags, 277, 1), tags.get(258, [1])
    if not 1 <= samples <= 8 or any(not 1 <= depth <= 64 for depth in bits):
        raise unsupported(f"TIFF of {samples} samples with {bits[:8]} bits is not opened")
    planes = samples if _one(tags, 284, 1) == 2 else 1
    if 322 in tags:
        wide, high = _one(tags, 322, 0), _one(tags, 323, 0)
        if not wide or not high:
            raise broken("a tile has no size")
        check_size(wide, high, limits)
        parts, offsets, counts = -(-width // wide) * -(-height // high), tags.get(324, []), tags.get(325, [])
    else:
        rows = min(_one(tags, 278, height) or height, height)
        parts, offsets, counts = -(-height // rows), tags.get(273, []), tags.get(279, [])
    _check_parts(parts * planes, offsets, counts, file_bytes)
    row_bytes = -(-width * sum((list(bits) * samples)[:samples]) // 8)
    if compression == 1 and sum(counts) < row_bytes * height:
        raise broken("an uncompressed page has fewer bytes than it needs")
    return width, height


def _check_parts(parts: int, offsets: Sequence[int], counts: Sequence[int], file_bytes: int) -> None:
    if len(offsets) != parts or len(counts) != parts:
        raise broken(f"the page needs {parts} strips or tiles and has {len(offsets)}")
    if any(start + count > file_bytes for start, count in zip(offsets, counts, strict=True)):
        raise broken("a strip or tile lies outside the file")
    if sum(counts) > file_bytes:
        raise broken("strips or tiles overlap into more bytes than the file has")


def _one(tags: Mapping[int, Sequence[int]], tag: int, default: int) -> int:
    values = tags.get(tag)
    return values[0] if values else default
