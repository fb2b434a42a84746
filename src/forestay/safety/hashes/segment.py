"""An immutable part of the index: hashes in chunk tables, found exactly by the pigeonhole principle.

Multi-index hashing (Norouzi, Punjani, Fleet 2012, "Fast search in Hamming space with multi-index hashing"): the 256
bits are cut into chunks, each with a table from its value to rows. Two hashes that differ in at most `radius` bits
differ in at most t_i bits in some chunk i, whenever the (t_i + 1) add up to radius + 1. Which t_i, from -1 (do not
look) to 2, is chosen for each question from the lengths of the buckets that it would open (Qin and others 2018, "GPH:
Similarity search in Hamming space"), so that crowded buckets are passed by. Bits that go together in this bank are
dealt to different chunks when the tables are made. Where the buckets are so full that reading everything is cheaper,
everything is read.

A row is never changed; a removed one has threshold -1. Called by `index`.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Self

import numpy as np
import numpy.typing as npt

BITS = 256
WORDS = 4  # of 64 bits
MAX_RADIUS = 31
REMOVED = -1
Words = npt.NDArray[np.uint64]  # [rows, 4]
Numbers = npt.NDArray[np.int64]
_DEEPEST = 2  # bits that may differ inside one chunk
_CHUNKS = ((500_000, 16), (4_000_000, 15), (1 << 32, 13))  # up to so many rows: so many chunks
_SAMPLE = 16_384  # rows from which the dealing of bits is chosen
_CROWDED = 6  # a candidate fetched by its row costs as much as this many rows read in passing (measured)
_STEP = 65_536  # rows whose bits are dealt at once
_BLOCK = 16_384  # rows read in passing at once: they stay in the processor's cache


@dataclasses.dataclass(frozen=True, slots=True)
class Rows:
    """Hashes with what belongs to them, row by row: `keys` names each, `thresholds` is the distance that matches."""

    words: Words
    keys: Numbers
    thresholds: npt.NDArray[np.int8]

    def take(self, which: npt.NDArray[np.intp]) -> "Rows":
        """Return some of the rows."""
        return Rows(self.words[which], self.keys[which], self.thresholds[which])


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """Rows that match, in no order."""

    keys: Numbers
    distances: npt.NDArray[np.uint16]


class _Probes:
    """Which places of the tables a question opens: the value of each chunk with up to two bits turned."""

    def __init__(self, chunks: int) -> None:
        few, over = divmod(BITS, chunks)
        self.widths = [few + (number < over) for number in range(chunks)]
        self.starts = [sum(self.widths[:number]) for number in range(chunks)]
        self.sizes = [(1 << width) + 1 for width in self.widths]
        self.bases = [sum(self.sizes[:number]) for number in range(chunks)]
        turned: list[int] = []
        chunk_of: list[int] = []
        self.groups: list[int] = []  # where each (depth, chunk) begins
        for depth, (number, width) in itertools.product(range(_DEEPEST + 1), enumerate(self.widths)):
            self.groups.append(len(turned))
            masks = [sum(1 << bit for bit in bits) for bits in itertools.combinations(range(width), depth)]
            turned += masks
            chunk_of += [number] * len(masks)
        self.masks = np.array(turned, np.int64)
        self.chunk_of = np.array(chunk_of, np.intp)
        self.base_of = np.array(self.bases, np.int64)[self.chunk_of]
        self.group_sizes = np.diff([*self.groups, len(turned)])

    def value(self, words: Words, number: int) -> Words:
        """Return the value of a chunk in each row."""
        start, width = self.starts[number], self.widths[number]
        word, shift = divmod(start, 64)
        found = words[:, word] >> np.uint64(shift)
        if shift + width > 64:
            found |= words[:, word + 1] << np.uint64(64 - shift)
        return found & np.uint64((1 << width) - 1)

    def places(self, value: int) -> Numbers:
        """Return the places that a question opens, in all tables."""
        keys = [value >> start & ((1 << width) - 1) for start, width in zip(self.starts, self.widths, strict=True)]
        return self.base_of + (np.array(keys, np.int64)[self.chunk_of] ^ self.masks)


class Segment:
    """Rows with their tables."""

    def __init__(self, rows: Rows, order: npt.NDArray[np.intp], probes: _Probes) -> None:
        self._order = order  # bit i of a stored row is bit order[i] of the hash
        self._probes = probes
        self.rows = rows  # bits dealt anew
        count = len(rows.keys)
        self._offsets = np.zeros(sum(probes.sizes), np.uint32)
        self._postings = np.zeros(count * len(probes.widths), np.uint32)

    @classmethod
    def building(cls, rows: Rows) -> Iterator["Segment | None"]:
        """Make a segment in bounded steps: yields None after each, and the segment at the end.

        A step takes at most a second or two for ten million rows.
        """
        count = len(rows.keys)
        probes = _Probes(next(chunks for limit, chunks in _CHUNKS if count <= limit))
        order = _deal(rows.words, probes.widths)
        yield None
        words = np.empty_like(rows.words)
        for start in range(0, count, _STEP):
            words[start : start + _STEP] = _permuted(rows.words[start : start + _STEP], order)
            yield None
        made = cls(Rows(words, rows.keys, rows.thresholds), order, probes)
        for number in range(len(probes.widths)):
            made._tabulate(number)
            yield None
        yield made

    @classmethod
    def built(cls, rows: Rows) -> Self:
        """Make a segment at once."""
        *_, made = cls.building(rows)
        if not isinstance(made, cls):
            raise TypeError("the last step makes the segment")
        return made

    @property
    def size_bytes(self) -> int:
        """Return what the rows and their tables take."""
        held = (self.rows.words, self.rows.keys, self.rows.thresholds, self._offsets, self._postings)
        return sum(array.nbytes for array in held)

    def original(self, which: npt.NDArray[np.intp]) -> Rows:
        """Return some rows with their bits in the usual order."""
        back = np.empty_like(self._order)
        back[self._order] = np.arange(BITS)
        words = np.empty((len(which), WORDS), np.uint64)
        for start in range(0, len(which), _STEP):
            part = which[start : start + _STEP]
            words[start : start + _STEP] = _permuted(self.rows.words[part], back)
        return Rows(words, self.rows.keys[which], self.rows.thresholds[which])

    def find(self, value: int, radius: int) -> Found:
        """Return every row whose distance is at most `radius` (0 to 31) and at most its own threshold."""
        wanted = _permuted(words_of(value)[None, :], self._order)[0]
        places = self._probes.places(value_of(wanted))
        starts, ends = self._offsets[places].astype(np.int64), self._offsets[places + 1].astype(np.int64)
        lengths = ends - starts
        opened = self._chosen(lengths, radius)
        starts, lengths = starts[opened], lengths[opened]
        total = int(lengths.sum())
        if total * _CROWDED > len(self.rows.keys):
            return read_all(self.rows, wanted, radius)
        before = np.cumsum(lengths) - lengths
        candidates = self._postings[np.repeat(starts - before, lengths) + np.arange(total)]
        near = distances(self.rows.words[candidates], wanted)
        close = near <= radius
        which, first = np.unique(candidates[close], return_index=True)
        near = near[close][first]
        matching = near.astype(np.int16) <= self.rows.thresholds[which]
        return Found(self.rows.keys[which[matching]], near[matching])

    def row_of(self, key: int, value: int) -> int | None:
        """Return the row of a hash under a key, None when it is not there or removed."""
        wanted = _permuted(words_of(value)[None, :], self._order)
        place = self._probes.bases[0] + int(self._probes.value(wanted, 0)[0])
        bucket = self._postings[int(self._offsets[place]) : int(self._offsets[place + 1])]
        fits = (self.rows.keys[bucket] == key) & (self.rows.thresholds[bucket] != REMOVED)
        rows = bucket[fits & (self.rows.words[bucket] == wanted).all(axis=1)]
        return int(rows[0]) if len(rows) else None

    def _chosen(self, lengths: Numbers, radius: int) -> npt.NDArray[np.bool_]:
        """Choose how deep to look in each chunk, so that the fewest candidates come; exact by the pigeonhole.

        Depths of a chunk cost what their buckets hold, made monotone, so that the cheapest `radius + 1` of all (chunk,
        depth) pairs hold no depth without the ones before it.
        """
        chunks = len(self._probes.widths)
        costs = np.add.reduceat(lengths, self._probes.groups).reshape(_DEEPEST + 1, chunks)
        ranked = np.maximum.accumulate(costs, axis=0).reshape(-1)
        wanted = np.zeros(len(ranked), np.bool_)
        wanted[np.argsort(ranked, kind="stable")[: radius + 1]] = True
        return np.repeat(wanted, self._probes.group_sizes) & (lengths > 0)

    def _tabulate(self, number: int) -> None:
        """Fill the table of one chunk: rows sorted by its value, and where each value begins."""
        count, width = len(self.rows.keys), self._probes.widths[number]
        packed = self._probes.value(self.rows.words, number)
        ends = np.cumsum(np.bincount(packed.astype(np.int64), minlength=1 << width))
        base, start = self._probes.bases[number], number * count
        self._offsets[base] = start
        self._offsets[base + 1 : base + 1 + len(ends)] = ends + start
        packed <<= np.uint64(32)
        packed |= np.arange(count, dtype=np.uint64)
        packed.sort()
        packed &= np.uint64(0xFFFFFFFF)
        self._postings[start : start + count] = packed


def words_of(value: int) -> Words:
    """Return 256 bits as four words, the lowest first."""
    return np.frombuffer(value.to_bytes(BITS // 8, "little"), np.dtype("<u8")).astype(np.uint64)


def value_of(words: Words) -> int:
    """Return four words as one number."""
    return int.from_bytes(words.astype("<u8").tobytes(), "little")


def distances(words: Words, wanted: Words) -> npt.NDArray[np.uint16]:
    """Return in how many bits each row differs from the four wanted words."""
    counts = np.bitwise_count(words ^ wanted)
    return (counts[:, 0] + counts[:, 1]).astype(np.uint16) + (counts[:, 2] + counts[:, 3])


def read_all(rows: Rows, wanted: Words, radius: int) -> Found:
    """Return every row that matches by reading all of them; the second half of a row only where the first is near."""
    keys, found = [np.zeros(0, np.int64)], [np.zeros(0, np.uint16)]
    for start in range(0, len(rows.keys), _BLOCK):
        part = slice(start, start + _BLOCK)
        words = rows.words[part]
        counts = np.bitwise_count(words[:, :2] ^ wanted[:2])
        close = np.flatnonzero(counts[:, 0] + counts[:, 1] <= radius)
        if not len(close):
            continue
        near = distances(words[close], wanted)
        matching = near.astype(np.int16) <= np.minimum(rows.thresholds[part][close], radius)
        keys.append(rows.keys[part][close[matching]])
        found.append(near[matching])
    return Found(np.concatenate(keys), np.concatenate(found))


def _permuted(words: Words, order: npt.NDArray[np.intp]) -> Words:
    """Return rows whose bit i is bit order[i] of those given."""
    if not len(words):
        return words.copy()
    octets = np.ascontiguousarray(words.astype("<u8", copy=False)).view(np.uint8)
    bits = np.unpackbits(octets, axis=1, bitorder="little")
    packed = np.packbits(np.take(bits, order, axis=1), axis=1, bitorder="little")
    return packed.view(np.dtype("<u8")).astype(np.uint64, copy=False)


def _deal(words: Words, widths: list[int]) -> npt.NDArray[np.intp]:
    """Deal the bits to chunks so that those of one chunk have little to do with one another in a sample of this bank.

    Bits that vary most are dealt first, each to the chunk with room whose bits correlate least with it.
    """
    step = max(1, len(words) // _SAMPLE)
    octets = np.ascontiguousarray(words[::step][:_SAMPLE].astype("<u8")).view(np.uint8)
    bits = np.unpackbits(octets, axis=1, bitorder="little").astype(np.float32)
    bits -= bits.mean(axis=0)
    covariance = (bits.T @ bits) / max(1, len(bits))
    spread = np.sqrt(np.maximum(np.diag(covariance), 1e-9))
    related = (covariance / np.outer(spread, spread)) ** 2
    load = np.zeros((len(widths), BITS), np.float64)  # how much the bits of each chunk have to do with each bit
    dealt: list[list[int]] = [[] for _ in widths]
    for bit in np.argsort(-spread, kind="stable").tolist():
        crowding = [
            load[number, bit] + len(dealt[number]) * 1e-6 if len(dealt[number]) < width else np.inf
            for number, width in enumerate(widths)
        ]
        chosen = int(np.argmin(crowding))
        dealt[chosen].append(bit)
        load[chosen] += related[bit]
    return np.array(list(itertools.chain.from_iterable(dealt)), np.intp)
