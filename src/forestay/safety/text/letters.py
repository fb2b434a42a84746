"""Which ASCII letter a character stands for, however it is dressed. Pure but for one table, read on first use.

Three sources, in this order: the look-alikes of Unicode UTS #39 (`data/confusables.txt`), compatibility forms (NFKD),
and the character's own name ("NEGATIVE SQUARED LATIN CAPITAL LETTER K" stands for k). It decides nothing about words:
what a letter means beside its neighbours is `canonical`'s business.
"""

import functools
import importlib.resources
import re
import unicodedata
from collections.abc import Mapping

_NAMED = re.compile(
    r"(?:LATIN|REGIONAL INDICATOR SYMBOL|TAG|MODIFIER LETTER)\b.*?"
    r"\b(?:LETTER|CAPITAL|SMALL|SYMBOL)\b.*?\b([A-Z]{1,2})(?: WITH .*)?$"
)
_SCRIPTS_WITH_MARKS = ("LATIN", "CYRILLIC", "GREEK", "COPTIC")
# Pictures that people use for a letter inside a word; ours. Everything else with a letter in it has it in its name.
_PICTURES = {
    "a": "\u2206\u039b\u20b3",
    "b": "\u0e3f",
    "c": "\u00a2\u20a1",
    "e": "\u20ac\u03a3\u2211",
    "h": "\u2653",
    "i": "\u2757\u2755\u2139\u00a1",
    "k": "\u20ad",
    "l": "\u00a3",
    "m": "\u303d\u264f\u264d\u24c2",
    "n": "\u20a6",
    "o": "\u2b55\u26aa\u26ab\U0001f534\U0001f535\U0001f7e0\u25cb\u25cf",
    "p": "\u20b1",
    "s": "\U0001f4b2\u222b\u00a7",
    "t": "\u2795\u271d\u2020\u20ae",
    "u": "\u00b5",
    "w": "\u20a9",
    "x": "\u274c\u2716\u2717\u274e",
    "y": "\u00a5",
}
_DRAWN = {picture: letter for letter, pictures in _PICTURES.items() for picture in pictures}


@functools.cache
def _confusables() -> Mapping[str, str]:
    table: dict[str, str] = {}
    text = importlib.resources.files("forestay.safety.text").joinpath("data", "confusables.txt").read_text("utf-8")
    for line in text.splitlines():
        if not line.startswith("#"):
            ascii_form, *points = line.split()
            table.update({chr(int(point, 16)): ascii_form for point in points})
    return table


@functools.lru_cache(maxsize=16_384)
def script(character: str) -> str:
    """Return the first word of the character's Unicode name ("CYRILLIC"); LATIN for ASCII letters, "" for no letter."""
    if character.isascii():
        return "LATIN" if character.isalpha() else ""
    if not character.isalpha():
        return ""
    return unicodedata.name(character, "").split(" ", 1)[0]


@functools.lru_cache(maxsize=16_384)
def stands_for(character: str) -> str:
    """Return the lower-case ASCII that a character looks like; 1 for what may be i, l or 1; empty when nothing."""
    if character.isascii():
        return character.lower()
    found = _confusables().get(character)
    if found:
        return found
    bare = "".join(part for part in unicodedata.normalize("NFKD", character) if not unicodedata.combining(part))
    if bare and bare != character:
        parts = [stands_for(part) for part in bare]
        if all(parts):
            return "".join(parts)
    if character in _DRAWN:
        return _DRAWN[character]
    named = _NAMED.search(unicodedata.name(character, ""))
    return named[1].lower() if named else ""


def is_picture(token: str) -> bool:
    """Return whether this is one picture, which stands for a letter only beside letters."""
    return token in _DRAWN


def takes_stacks(character: str) -> bool:
    """Return whether combining marks on this character are decoration: true of scripts that write them composed."""
    return not character.isalpha() or script(character) in _SCRIPTS_WITH_MARKS
