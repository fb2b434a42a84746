"""Which strings are English words, told by hashes: to undo spellings, never to judge. Pure but for one table.

The table holds CRC-32 of the whole words of BERT's vocabulary in their order, which is roughly that of frequency
(`google-research/bert`, Apache-2.0; Devlin et al. 2019): no list of words can be read from it. Splitting text without
spaces takes the likeliest words under Zipf's law (a word of rank r has cost log(r)). Called by `canonical`.
"""

import functools
import importlib.resources
import itertools
import math
import re
import zlib
from collections.abc import Iterator, Mapping

LONGEST = 20  # letters of a word
MAX_SPLIT = 400  # letters that are split into words at once
MAX_READINGS = 32  # of one word written with digits and signs
_SHORT = frozenset(re.findall("..", "amanasatbebydogohehiifinisitmemynoofohonorsotoupuswe")) | {"a", "i"}
_COMMON_RANK = 6_000  # a word of three letters counts up to this rank: rarer ones are mostly names and syllables
_READ_AS: Mapping[str, str] = {  # a sign that is not here separates letters and is dropped
    "0": "o",
    "1": "il",
    "2": "z",
    "3": "e",
    "4": "a",
    "5": "s",
    "6": "gb",
    "7": "tl",
    "8": "b",
    "9": "g",
    "@": "a",
    "$": "s",
    "!": "i",
    "|": "il",
    "+": "t",
    "(": "c",
    "<": "c",
    "[": "c",
    "{": "c",
    "#": "h",
    "&": "a",
    "^": "a",
    "*": "aeiou",
    "%": "x",
    "?": "aeiou",
}
_LONGER = re.compile(r"[a-z]{3,}")
MAX_COUNTED = 60  # words of a text that are looked up to tell whether it is English
_RUNS = re.compile(r"(.)\1{2,}")


@functools.cache
def _ranks() -> Mapping[int, int]:
    data = importlib.resources.files("forestay.safety.text").joinpath("data", "words.crc32").read_bytes()
    return {int.from_bytes(data[at : at + 4], "little"): at // 4 for at in range(0, len(data), 4)}


def rank(word: str) -> int | None:
    """Return how frequent a lower-case ASCII word is, 0 the most; None for what is no word."""
    if len(word) < 3:
        return _ranks().get(zlib.crc32(word.encode()), 5_000) if word in _SHORT else None
    found = _ranks().get(zlib.crc32(word.encode("ascii", "replace")))
    return found if found is None or len(word) > 3 or found < _COMMON_RANK else None


@functools.lru_cache(maxsize=16_384)
def known(word: str) -> bool:
    """Return whether a lower-case string is a word or an inflection of one."""
    if rank(word) is not None:
        return True
    if len(word) < 5:
        return False
    stems = [
        word.removesuffix(end)
        for end in ("s", "es", "ed", "d", "ing", "er", "r", "ly", "y", "n't", "'s")
        if word.endswith(end)
    ]
    return any(
        len(stem) >= 3
        and (
            rank(stem) is not None
            or rank(stem + "e") is not None
            or (stem[-1] == stem[-2] and rank(stem[:-1]) is not None)
        )
        for stem in stems
    )


def share(text: str) -> float:
    """Return which part of a lower-case text's words of three letters and more are known; 0 when it has none."""
    longer = _LONGER.findall(text)[:MAX_COUNTED]
    return sum(map(known, longer)) / len(longer) if longer else 0.0


@functools.lru_cache(maxsize=4_096)
def read(written: str) -> str | None:
    """Return the word that digits and signs among letters spell ("k1ll"); None when no reading is a word."""
    for reading in _readings(written):
        if known(reading):
            return reading
    return None


def literal(written: str) -> str:
    """Return the first reading of a string with digits and signs, word or not."""
    return next(_readings(written), written)


def _readings(written: str) -> Iterator[str]:
    choices = [(letter,) if letter.isalpha() else tuple(_READ_AS.get(letter, "")) or ("",) for letter in written]
    return ("".join(reading) for reading in itertools.islice(itertools.product(*choices), MAX_READINGS))


@functools.lru_cache(maxsize=4_096)
def mended(word: str) -> str | None:
    """Return the word that this one becomes by dropping repeats or by one swap of neighbours; None when none."""
    if len(word) < 4 or len(word) > LONGEST:
        return None
    for shorter in (_RUNS.sub(r"\1\1", word), _RUNS.sub(r"\1", word)):
        if shorter != word and known(shorter):
            return shorter
    swaps = (
        word[:at] + word[at + 1] + word[at] + word[at + 2 :] for at in range(len(word) - 1) if word[at] != word[at + 1]
    )
    ranked = [(found, swap) for swap in swaps if (found := rank(swap)) is not None]
    if ranked:
        return min(ranked)[1]
    return next((swap for swap in _swaps(word) if known(swap)), None) if len(word) >= 6 else None


def _swaps(word: str) -> Iterator[str]:
    return (
        word[:at] + word[at + 1] + word[at] + word[at + 2 :] for at in range(len(word) - 1) if word[at] != word[at + 1]
    )


@functools.lru_cache(maxsize=1_024)
def split(letters: str) -> str:
    """Return lower-case letters without spaces as their likeliest words; unchanged when too long or mostly no words."""
    if not letters.isascii() or len(letters) > MAX_SPLIT:
        return letters
    best: list[tuple[float, int]] = [(0.0, 0)]
    for end in range(1, len(letters) + 1):
        best.append(min(_ending(letters, end, best)))
    words: list[str] = []
    end = len(letters)
    while end:
        start = best[end][1]
        words.append(letters[start:end])
        end = start
    words.reverse()
    strange = sum(len(word) for word in words if len(word) == 1 and word not in {"a", "i"})
    return " ".join(words) if strange <= 0.2 * len(letters) else letters


def _ending(letters: str, end: int, best: list[tuple[float, int]]) -> Iterator[tuple[float, int]]:
    yield best[end - 1][0] + 16.0, end - 1  # a letter alone: dearer than any word
    for start in range(max(0, end - LONGEST), end):
        word = letters[start:end]
        found = rank(word) if word not in {"a", "i"} else 10
        if found is None and end - start >= 5 and known(word):
            found = 15_000
        if found is not None:
            yield best[start][0] + math.log(found + 10) + 2.0, start
