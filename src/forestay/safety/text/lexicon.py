"""Words and marker tokens that hint at a category: a signal among others, and part of the explanation.

A word decides nothing: how many words of each list a text has goes into the learned score, beside what the text
means. A marker decides: it is an opaque token that stands for content which nobody writes out. Both lists are ours and
lie in `data/`. Pure but for reading them once. Called by `model` and `detector`.
"""

import functools
import importlib.resources
import math
import re
import zlib
from collections.abc import Collection, Iterator, Mapping

import numpy as np
import numpy.typing as npt

from forestay.safety.taxonomy import Category
from forestay.safety.text.canonical import Views, views

_WORD = re.compile(r"[a-z0-9']+")
_WRITTEN = re.compile(r"[A-Za-z0-9']+")
_BETWEEN = re.compile(r"[\W_]+")
_MANY = 1.5  # of the logarithm of a count
_SCALE = 0.5  # beside vectors of length 2


@functools.cache
def _lists() -> tuple[tuple[str, ...], Mapping[int, tuple[int, ...]]]:
    """Return the names of the lists, and for the CRC-32 of a word the lists it is in."""
    names: list[str] = []
    where: dict[int, tuple[int, ...]] = {}
    for line in _lines("lexicon.txt"):
        name, _, rest = line.partition(":")
        for word in rest.split():
            key = int(word[1:], 16) if word.startswith("~") else zlib.crc32(word.encode())
            where[key] = (*where.get(key, ()), len(names))
        names.append(name)
    return tuple(names), where


def size() -> int:
    """Return how many numbers `counts` gives."""
    return 2 * len(_lists()[0]) + 3


def counts(folded: str) -> npt.NDArray[np.float32]:
    """Return `[size()] float32` for a folded text: of each list the logarithm of its count and its share, and marks."""
    names, where = _lists()
    found = np.zeros(len(names), dtype=np.float32)
    words = _WORD.findall(folded)
    for word in _phrases(words):
        for at in where.get(zlib.crc32(word.encode()), ()):
            found[at] += 1
    marks = (min(1.0, folded.count("!") / 5), min(1.0, folded.count("?")), math.log1p(len(words)) / 7)
    share = np.minimum(1.0, 5.0 * found / max(1, len(words)))
    logarithm = np.minimum(_MANY, np.log1p(found))
    return (_SCALE * np.concatenate([logarithm, share, np.array(marks)])).astype(np.float32)


def hints(folded: str) -> Mapping[str, int]:
    """Return how many words of each category's list a folded text has; the words themselves are not told."""
    names, where = _lists()
    found: dict[str, int] = {}
    for word in _phrases(_WORD.findall(folded)):
        for at in where.get(zlib.crc32(word.encode()), ()):
            if not names[at].startswith("="):
                found[names[at]] = found.get(names[at], 0) + 1
    return found


def listed_spans(text: str, categories: Collection[Category]) -> Iterator[tuple[int, int]]:
    """Yield where words, and runs of two and three, stand that are in the lists of these categories; as written."""
    names, where = _lists()
    found = list(_WRITTEN.finditer(text))
    for length in (3, 2, 1):
        for at in range(len(found) - length + 1):
            run = found[at : at + length]
            key = zlib.crc32("_".join(word[0].lower() for word in run).encode())
            if any(names[place] in categories for place in where.get(key, ())):
                yield run[0].start(), run[-1].end()


def _phrases(words: list[str]) -> Iterator[str]:
    """Return words, and runs of two and three of them joined by _."""
    yield from words
    for length in (2, 3):
        yield from map("_".join, zip(*(words[at:] for at in range(length)), strict=False))


@functools.cache
def default_markers() -> Mapping[str, Category]:
    """Return the markers of `data/markers.txt` and their categories."""
    found: dict[str, Category] = {}
    for line in _lines("markers.txt"):
        name, _, rest = line.partition(":")
        found.update({token: Category(name) for token in rest.split()})
    return found


class Markers:
    """Opaque tokens, found also when they are disguised: by their letters and digits, as written and as folded."""

    def __init__(self, tokens: Mapping[str, Category]) -> None:
        self._squeezed: dict[str, Category] = {}
        for token, category in tokens.items():
            self._squeezed |= {_squeezed(token): category, _squeezed(views(token).folded): category}

    def found(self, seen: Views) -> frozenset[Category]:
        """Return the categories whose markers a text holds, in either view."""
        texts = (_squeezed(seen.raw), _squeezed(seen.folded))
        return frozenset(category for token, category in self._squeezed.items() if any(token in text for text in texts))


def _squeezed(text: str) -> str:
    return _BETWEEN.sub("", text.lower())


def _lines(name: str) -> list[str]:
    text = importlib.resources.files("forestay.safety.text").joinpath("data", name).read_text("utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]
