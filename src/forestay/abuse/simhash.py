"""Prompts as 64 bits: near prompts get near bits, and the bits do not give the prompt away.

Simhash (Charikar 2002, "Similarity estimation techniques from rounding algorithms"; Manku, Jain, Das Sarma 2007,
"Detecting near-duplicates for web crawling") over the distinct words of the folded text. A word weighs as the sum of
its letter trigrams, so that a misspelt word moves few bits, and word order counts for nothing. Features are hashed
with the deployment's key: whoever steals facts cannot try prompts against them. Pure; decides nothing. Called by the
gateway's call facts and by the bench.
"""

import hashlib
import re
import unicodedata
from collections import OrderedDict
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

BITS = 64
MAX_CHARS = 4_096  # of a prompt that are looked at
MAX_WORDS = 512
_CACHED_WORDS = 20_000
_CHUNK = re.compile(r"[^\s,;:()\[\]{}\"<>.?!]+(?:[.?!]+[^\s,;:()\[\]{}\"<>.?!]+)*")
_WORD = re.compile(r"[^\W_]+")
_SPACED = re.compile(r"(?<![^\W_])[^\W_](?:[\s.\-_*|/]{1,3}[^\W_](?![^\W_])){2,}")
_SEPARATORS = re.compile(r"[\s.\-_*|/]+")
_INSIDE = re.compile(r"(?<=[^\W\d_])[.\-_*|'\u2019](?=[^\W\d_])")
# Letters that look alike across scripts (a small part of Unicode UTS #39, confusables.txt), and digits written for
# letters; both only ever map to what a reader would read.
_ALIKE = str.maketrans("аеорсухіјѕԁһԛԝνοαερικτυ", "aeopcyxijsdhqwvoaepiktu")
_LEET = str.maketrans("013457@$!|", "oieastasil")
_Vector = npt.NDArray[np.int16]


def fold(text: str) -> str:
    """Return the text as a reader sees it: compatibility forms, case, marks and invisible characters folded away."""
    shown = unicodedata.normalize("NFKD", text[:MAX_CHARS]).casefold()
    if not shown.isascii():
        shown = "".join(char for char in shown if unicodedata.category(char) not in {"Mn", "Cf", "Co", "Cn"})
        shown = shown.translate(_ALIKE)
    return _INSIDE.sub("", _SPACED.sub(lambda found: _SEPARATORS.sub("", found[0]), shown))


def words_of(text: str) -> list[str]:
    """Return the distinct words of the folded text in order, digits inside a word read as letters."""
    found: dict[str, None] = {}
    for chunk in _CHUNK.findall(fold(text))[:MAX_WORDS]:
        if chunk.isalpha():
            found[chunk] = None
            continue
        mixed = any(char.isalpha() for char in chunk)
        found.update(dict.fromkeys(_WORD.findall(chunk.translate(_LEET) if mixed else chunk)))
    return list(found)


class PromptHasher:
    """Hashes prompts under one key. Not safe for threads at once."""

    def __init__(self, key: bytes) -> None:
        self._key = hashlib.blake2b(key, digest_size=32).digest()
        self._vectors: OrderedDict[str, _Vector] = OrderedDict()

    def hash(self, text: str) -> int | None:
        """Return 64 bits for the text, None when it has no words."""
        return self.of_words(words_of(text))

    def of_words(self, words: Iterable[str]) -> int | None:
        """Return 64 bits for distinct words, None when there are none."""
        vectors = [self.vector(word) for word in words]
        if not vectors:
            return None
        return bits_of(np.add.reduce(vectors, dtype=np.int32))

    def vector(self, word: str) -> _Vector:
        """Return what a word adds: the sum of its trigrams' signs, `[64] int16`."""
        vector = self._vectors.get(word)
        if vector is None:
            marked = f"_{word[:64]}_"
            grams = [marked[start : start + 3] for start in range(max(1, len(marked) - 2))]
            digests = b"".join(
                hashlib.blake2b(gram.encode("utf-8", "surrogatepass"), digest_size=8, key=self._key).digest()
                for gram in grams
            )
            bits = np.unpackbits(np.frombuffer(digests, dtype=np.uint8)).reshape(len(grams), BITS)
            vector = (bits.sum(axis=0, dtype=np.int16) * 2 - len(grams)).astype(np.int16)
            self._vectors[word] = vector
            if len(self._vectors) > _CACHED_WORDS:
                self._vectors.popitem(last=False)
        return vector


def bits_of(total: npt.NDArray[np.int32]) -> int:
    """Return the signs of 64 sums as a number; a sum of zero counts as negative."""
    return int.from_bytes(np.packbits(total > 0).tobytes())


def distance(one: int, other: int) -> int:
    """Return in how many of the 64 bits two hashes differ."""
    return (one ^ other).bit_count()
