"""`hashes`: looking a 256-bit hash up in banks of one and ten million, beside reading every row with numpy.

Questions are stored hashes with about 24 bits turned, asked one at a time on one thread. A clustered bank holds
clusters of a thousand around a centre, about 24 bits off. Recall compares the keys found with those of a flat reading
of the same rows. A change is visible when the next question tells of it: the addition, then the removal, timed together
with the question.
"""

import gc
import time
from collections.abc import Callable

import numpy as np
import psutil
from tests.safety.hashes import banked

from bench.table import Row, median
from forestay.safety.hashes.index import HashIndex
from forestay.safety.hashes.segment import MAX_RADIUS, Rows, Words, read_all, value_of

SIZES = (("1M", 1_000_000, 4.0), ("10M", 10_000_000, 12.0))
BANKS: tuple[tuple[str, Callable[[int, np.random.Generator], Words]], ...] = (
    ("random", banked.random_words),
    ("clustered", banked.clustered_words),
)
QUESTIONS = 500  # a round
COMPARED = 30  # questions asked of the flat reading too
UPDATES = 1_000


def run(rounds: int) -> list[Row]:
    """Build each bank once and ask it in `rounds` rounds; a percentile is the median of the rounds'."""
    rows: list[Row] = []
    for size, count, target in SIZES:
        for kind, make in BANKS:
            rows += _bank(f"{kind} {size}", make(count, np.random.default_rng(count)), target, rounds)
            gc.collect()
    return rows


def _bank(name: str, words: Words, target: float, rounds: int) -> list[Row]:
    began = time.perf_counter()
    index = HashIndex(banked.rows_of(words))
    took = time.perf_counter() - began
    chance = np.random.default_rng(1)
    p99, p50, busy = [], [], []
    for _ in range(rounds):
        times, spent = _ask(index, _questions(words, QUESTIONS, chance))
        p99.append(1000 * float(np.percentile(times, 99)))
        p50.append(1000 * float(np.median(times)))
        busy.append(1000 * float(np.percentile(spent, 99)))
    recall, flat = _compare(index, banked.rows_of(words), _questions(words, COMPARED, chance))
    visible = _visible(index, chance)
    size, grown, resident = _net_zero(index, chance)
    return [
        Row(f"{name}: look-up p99", median(p99), "ms", target, "<=", f"built in {took:.1f} s"),
        Row(f"{name}: look-up p50", median(p50), "ms"),
        Row(f"{name}: look-up p99 in processor time", median(busy), "ms", note="without waits for a processor"),
        Row(f"{name}: every row read in numpy, p50", flat, "ms"),
        Row(f"{name}: recall", recall, "", 1.0, ">=", f"{COMPARED} questions"),
        Row(f"{name}: change visible, slowest", visible, "ms", 100.0, "<="),
        Row(f"{name}: memory", size, "bytes a hash", 130.0, "<="),
        Row(f"{name}: growth after {UPDATES} updates", grown, "bytes", 0.0, "<=", f"process {resident:+,} bytes"),
    ]


def _questions(words: Words, count: int, chance: np.random.Generator) -> list[int]:
    asked = words[chance.integers(0, len(words), count)] ^ banked.flips(count, chance)
    return [value_of(row) for row in asked]


def _ask(index: HashIndex, values: list[int]) -> tuple[list[float], list[float]]:
    """Return how long each question took, by the clock on the wall and by that of this thread."""
    times, spent = [], []
    for value in values:
        began, worked = time.perf_counter(), time.thread_time()
        index.find(value)
        times.append(time.perf_counter() - began)
        spent.append(time.thread_time() - worked)
    return times, spent


def _compare(index: HashIndex, rows: Rows, values: list[int]) -> tuple[float, float]:
    """Return the share of what the flat reading finds that the index finds (0 if it finds more), and flat p50 in ms."""
    found, wanted, times = 0, 0, []
    for value in values:
        asked = np.frombuffer(value.to_bytes(32, "little"), np.uint64)
        began = time.perf_counter()
        read_all(rows, asked, MAX_RADIUS)
        times.append(1000 * (time.perf_counter() - began))
        expected = set(banked.flat(rows, asked).keys.tolist())
        given = {match.key for match in index.find(value)}
        if not given <= expected:
            return 0.0, median(times)
        found, wanted = found + len(given & expected), wanted + len(expected)
    return found / wanted, median(times)


def _visible(index: HashIndex, chance: np.random.Generator) -> float:
    """Return the longest of a hundred times from a change to the answer that tells of it, in ms."""
    slowest = 0.0
    for number, words in enumerate(banked.random_words(100, chance)):
        key, value = -1 - number, value_of(words)
        began = time.perf_counter()
        index.add(key, value)
        if key not in {match.key for match in index.find(value)}:
            return float("inf")
        added = time.perf_counter()
        index.remove(key, value)
        if key in {match.key for match in index.find(value)}:
            return float("inf")
        slowest = max(slowest, added - began, time.perf_counter() - added)
    return 1000 * slowest


def _net_zero(index: HashIndex, chance: np.random.Generator) -> tuple[float, float, int]:
    """Return bytes a hash, how many bytes the index grew by over the updates, and the whole process."""
    values = [value_of(words) for words in banked.random_words(UPDATES, chance)]
    before, process = index.size_bytes, psutil.Process()
    resident = process.memory_info().rss
    for number, value in enumerate(values):
        index.add(-1 - number, value)
        index.remove(-1 - number, value)
        index.merge()
    grown = index.size_bytes - before
    return index.size_bytes / len(index), grown, process.memory_info().rss - resident
