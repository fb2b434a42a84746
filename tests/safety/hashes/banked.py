"""Banks of numbers to look things up in: random, clustered, and with bits that lean or go together."""

import numpy as np

from forestay.safety.hashes.segment import MAX_RADIUS, Found, Rows, Words, distances


def random_words(count: int, chance: np.random.Generator) -> Words:
    """Return independent fair bits."""
    return chance.integers(0, 1 << 64, (count, 4), np.uint64, endpoint=False)


def flips(count: int, chance: np.random.Generator) -> Words:
    """Return masks in which a bit is set with the odds 3/32: 24 of 256 on average."""
    first, second, third, either, other = (random_words(count, chance) for _ in range(5))
    return first & second & third & (either | other)


def clustered_words(count: int, chance: np.random.Generator, size: int = 1_000) -> Words:
    """Return clusters of about `size`: each a centre with about 24 bits flipped."""
    centres = random_words(max(1, count // size), chance)
    return centres[chance.integers(0, len(centres), count)] ^ flips(count, chance)


def crowded_words(count: int, chance: np.random.Generator) -> Words:
    """Return clusters of which the first holds about 40 of 100 rows."""
    centres = random_words(max(1, count // 1_000), chance)
    which = np.minimum(chance.pareto(0.8, count).astype(np.int64), len(centres) - 1)
    return centres[which] ^ flips(count, chance)


def leaning_words(count: int, chance: np.random.Generator) -> Words:
    """Return bits each with odds of its own, from 5 to 95 of 100."""
    odds = chance.uniform(0.05, 0.95, 256).astype(np.float32)
    parts = [
        np.packbits(chance.random((min(50_000, count - start), 256), np.float32) < odds, axis=1).view(np.uint64)
        for start in range(0, count, 50_000)
    ]
    return np.concatenate(parts)


def related_words(count: int, chance: np.random.Generator) -> Words:
    """Return bits that follow forty hidden causes, as those of real pictures follow one another."""
    causes = chance.normal(size=(40, 256)).astype(np.float32)
    parts: list[Words] = []
    for start in range(0, count, 50_000):
        many = min(50_000, count - start)
        shown = chance.normal(size=(many, 40)).astype(np.float32) @ causes
        shown += 3 * chance.normal(size=(many, 256)).astype(np.float32)
        parts.append(np.packbits(shown > 0, axis=1).view(np.uint64))
    return np.concatenate(parts)


def rows_of(words: Words, threshold: int = MAX_RADIUS) -> Rows:
    """Return rows with their number as key."""
    return Rows(words, np.arange(len(words), dtype=np.int64), np.full(len(words), threshold, np.int8))


def flat(rows: Rows, wanted: Words, radius: int = MAX_RADIUS) -> Found:
    """Read every row, without any of the index's own shortcuts."""
    near = distances(rows.words, wanted)
    which = np.flatnonzero(near.astype(np.int16) <= np.minimum(rows.thresholds, radius))
    return Found(rows.keys[which], near[which])
