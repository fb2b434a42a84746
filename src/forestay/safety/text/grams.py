"""Pieces of a text as numbers of buckets: feature hashing, so that no vocabulary is stored or shipped.

Runs of 3 to 5 characters and of 1 to 2 words are hashed into fixed tables (Weinberger et al. 2009, "Feature Hashing for
Large Scale Multitask Learning"); each kind counts once and has length 1 together. Pure, numpy only. Called by `model`
and by the training tool, which must see the very same numbers.
"""

import dataclasses
import re
import zlib

import numpy as np
import numpy.typing as npt

CHARACTER_BUCKETS = 2**16
WORD_BUCKETS = 2**15
BUCKETS = CHARACTER_BUCKETS + WORD_BUCKETS
MAX_CHARS = 8_000  # of a text that are cut into pieces
_PRIME = np.uint32(0x01000193)  # FNV's
_MIX = np.uint32(0x85EBCA6B)  # a constant of MurmurHash3's finaliser
_WORD = re.compile(r"\w+")


@dataclasses.dataclass(frozen=True, slots=True)
class Grams:
    """Which buckets a text falls into, `[n] int64`, and how much each weighs, `[n] float32`."""

    buckets: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]


def grams_of(text: str) -> Grams:
    """Return the buckets of a lower-case text without lone surrogates."""
    text = text[:MAX_CHARS]
    characters = np.unique(_characters(f" {' '.join(text.split())} ")) % CHARACTER_BUCKETS
    words = np.unique(_words(text)) % WORD_BUCKETS
    characters, words = np.unique(characters), np.unique(words) + CHARACTER_BUCKETS
    weights = np.concatenate([_even(len(characters)), _even(len(words))])
    return Grams(np.concatenate([characters, words]).astype(np.int64), weights)


def _even(count: int) -> npt.NDArray[np.float32]:
    return np.full(count, 1.0 / max(count, 1) ** 0.5, dtype=np.float32)


def _characters(text: str) -> npt.NDArray[np.uint32]:
    points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    found: list[npt.NDArray[np.uint32]] = []
    for length in (3, 4, 5):
        count = len(points) - length + 1
        if count < 1:
            break
        hashed = np.full(count, length, dtype=np.uint32)
        for at in range(length):
            hashed = (hashed ^ points[at : at + count]) * _PRIME
        found.append(_mixed(hashed))
    return np.concatenate(found) if found else np.zeros(0, dtype=np.uint32)


def _words(text: str) -> npt.NDArray[np.uint32]:
    single = np.array([zlib.crc32(word.encode()) for word in _WORD.findall(text)], dtype=np.uint32)
    pairs = single[:-1] * np.uint32(31) + single[1:]
    return np.concatenate([_mixed(single), _mixed(pairs)])


def _mixed(hashed: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    hashed = (hashed ^ (hashed >> np.uint32(15))) * _MIX
    return hashed ^ (hashed >> np.uint32(13))
