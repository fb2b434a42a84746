"""The exact index of 256-bit hashes: every hash within 31 bits of a question is found, and a change counts at once.

Three parts answer together: a main segment, a recent one, and a buffer that is read through. What is added goes into
the buffer; what is removed is marked where it lies. A merge makes a new segment in bounded steps, on another thread if
wished, while the parts that it replaces go on answering; nothing is ever rebuilt before a change is seen. Decides when
a merge is due and of which parts. It knows nothing of banks: `banks` says what keys mean.

All methods belong to one thread, apart from `Merge.steps`.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from forestay.errors import UsageError
from forestay.safety.hashes.segment import MAX_RADIUS, REMOVED, WORDS, Found, Rows, Segment, read_all, words_of

BUFFER_ROWS = 16_384  # read through in less than a millisecond
_SHARE = 8  # the recent part goes into the main one when it, or what is removed there, is more than an eighth of it


@dataclasses.dataclass(frozen=True, slots=True)
class Match:
    """An entry near a question: its key, and in how many bits it differs."""

    key: int
    distance: int


class Merge:
    """A merge under way: `steps` makes the new segment from what lived when it began."""

    def __init__(self, parts: list[Segment], buffered: Rows, *, whole: bool) -> None:
        self.parts = parts
        self.buffered = buffered
        self.whole = whole  # of all parts, not of the recent one alone
        self.living = [_living(part.rows) for part in parts]
        self.living_buffered = _living(buffered)
        self.made: Segment | None = None

    def steps(self) -> Iterator[None]:
        """Make the segment; it may be stopped after any step, and run on any thread."""
        taken: list[Rows] = []
        for part, living in zip(self.parts, self.living, strict=True):
            taken.append(part.original(living))
            yield
        rows = _joined([*taken, self.buffered.take(self.living_buffered)])
        if len(rows.keys):
            for made in Segment.building(rows):
                self.made = made
                yield

    def thresholds(self) -> npt.NDArray[np.int8]:
        """Return the thresholds as they are now: what was removed meanwhile stays removed."""
        parts = [part.rows.thresholds[living] for part, living in zip(self.parts, self.living, strict=True)]
        return np.concatenate([*parts, self.buffered.thresholds[self.living_buffered]])


class HashIndex:
    """Hashes under keys, each with the distance up to which it matches."""

    def __init__(self, rows: Rows | None = None, *, buffer_rows: int = BUFFER_ROWS) -> None:
        """Start empty, or with rows, which are taken over; that takes about two seconds for each million."""
        self._buffer_rows = buffer_rows
        self._main = Segment.built(rows) if rows is not None and len(rows.keys) > buffer_rows else None
        self._recent: Segment | None = None
        self._merge: Merge | None = None
        self._buffer = _empty(buffer_rows)
        self._buffered = 0
        self._count = 0 if rows is None else int((rows.thresholds != REMOVED).sum())
        if rows is not None and self._main is None:
            self._buffered = len(rows.keys)
            _copy(rows, self._buffer)

    def __len__(self) -> int:
        return self._count

    @property
    def size_bytes(self) -> int:
        """Return what hashes, tables and buffer take in memory."""
        parts = sum(part.size_bytes for part in self._segments())
        return parts + _size(self._buffer) + (0 if self._merge is None else _size(self._merge.buffered))

    def add(self, key: int, value: int, threshold: int = MAX_RADIUS) -> None:
        """Add a hash under a key; found from now on. Adding it again sets its threshold, 0 to 31 bits."""
        if not 0 <= threshold <= MAX_RADIUS:
            raise UsageError("threshold", f"must be 0 to {MAX_RADIUS} bits, not {threshold}")
        self.remove(key, value)
        if self._buffered == len(self._buffer.keys):
            grown = _empty(2 * self._buffered)
            _copy(self._buffer, grown)
            self._buffer = grown
        self._buffer.words[self._buffered] = words_of(value)
        self._buffer.keys[self._buffered] = key
        self._buffer.thresholds[self._buffered] = threshold
        self._buffered += 1
        self._count += 1

    def remove(self, key: int, value: int) -> bool:
        """Remove a hash from under a key; False when it is not there."""
        wanted = words_of(value)
        row = _row_of(self._written(), key, wanted)
        if row is not None:
            self._buffered -= 1
            last = self._buffered
            for array in (self._buffer.words, self._buffer.keys, self._buffer.thresholds):
                array[row] = array[last]
            self._count -= 1
            return True
        if self._merge is not None:
            row = _row_of(self._merge.buffered, key, wanted)
            if row is not None:
                self._merge.buffered.thresholds[row] = REMOVED
                self._count -= 1
                return True
        for part in self._segments():
            row = part.row_of(key, value)
            if row is not None:
                part.rows.thresholds[row] = REMOVED
                self._count -= 1
                return True
        return False

    def find(self, value: int, radius: int = MAX_RADIUS) -> list[Match]:
        """Return every entry within `radius` bits (0 to 31) and within its own threshold, the nearest first."""
        if not 0 <= radius <= MAX_RADIUS:
            raise UsageError("radius", f"must be 0 to {MAX_RADIUS} bits, not {radius}")
        wanted = words_of(value)
        found: list[Found] = [part.find(value, radius) for part in self._segments()]
        found.append(read_all(self._written(), wanted, radius))
        if self._merge is not None:
            found.append(read_all(self._merge.buffered, wanted, radius))
        pairs = [
            (int(distance), int(key))
            for part in found
            for distance, key in zip(part.distances.tolist(), part.keys.tolist(), strict=True)
        ]
        return [Match(key, distance) for distance, key in sorted(pairs)]

    def begin_merge(self) -> Merge | None:
        """Begin a merge if one is due; None when none is, or one is under way."""
        if self._merge is not None or not (self._buffered >= self._buffer_rows or self._worn()):
            return None
        recent = self._buffered + (0 if self._recent is None else len(self._recent.rows.keys))
        whole = self._main is None or recent * _SHARE > len(self._main.rows.keys) or self._worn()
        parts = self._segments() if whole else [part for part in (self._recent,) if part is not None]
        self._merge = Merge(parts, _snapshot(self._written()), whole=whole)
        self._buffered = 0
        if len(self._buffer.keys) > self._buffer_rows:
            self._buffer = _empty(self._buffer_rows)
        return self._merge

    def finish_merge(self, merge: Merge) -> None:
        """Put the new segment in the place of those that it was made from."""
        if merge is not self._merge:
            raise ValueError("this merge is not the one under way")
        if merge.made is not None:
            merge.made.rows.thresholds[:] = merge.thresholds()
        if merge.whole:
            self._main, self._recent = merge.made, None
        else:
            self._recent = merge.made
        self._merge = None

    def merge(self) -> None:
        """Merge at once whatever is due."""
        while (merge := self.begin_merge()) is not None:
            for _ in merge.steps():
                pass
            self.finish_merge(merge)

    def _segments(self) -> list[Segment]:
        return [part for part in (self._main, self._recent) if part is not None]

    def _written(self) -> Rows:
        """Return the part of the buffer that holds rows."""
        end = self._buffered
        return Rows(self._buffer.words[:end], self._buffer.keys[:end], self._buffer.thresholds[:end])

    def _worn(self) -> bool:
        """Tell whether too many rows of the segments are removed ones."""
        held = sum(len(part.rows.keys) for part in self._segments())
        removed = held - (self._count - self._buffered)
        return removed > max(self._buffer_rows, held // _SHARE)


def _living(rows: Rows) -> npt.NDArray[np.intp]:
    return np.flatnonzero(rows.thresholds != REMOVED)


def _row_of(rows: Rows, key: int, wanted: npt.NDArray[np.uint64]) -> int | None:
    found = np.flatnonzero((rows.keys == key) & (rows.thresholds != REMOVED))
    found = found[(rows.words[found] == wanted).all(axis=1)]
    return int(found[0]) if len(found) else None


def _empty(count: int) -> Rows:
    return Rows(np.zeros((count, WORDS), np.uint64), np.zeros(count, np.int64), np.full(count, REMOVED, np.int8))


def _copy(source: Rows, target: Rows) -> None:
    end = len(source.keys)
    target.words[:end], target.keys[:end], target.thresholds[:end] = source.words, source.keys, source.thresholds


def _snapshot(rows: Rows) -> Rows:
    return Rows(rows.words.copy(), rows.keys.copy(), rows.thresholds.copy())


def _joined(parts: list[Rows]) -> Rows:
    return Rows(
        np.concatenate([part.words for part in parts]),
        np.concatenate([part.keys for part in parts]),
        np.concatenate([part.thresholds for part in parts]),
    )


def _size(rows: Rows) -> int:
    return rows.words.nbytes + rows.keys.nbytes + rows.thresholds.nbytes
