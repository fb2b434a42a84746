"""Ways to disguise a text, drawn with a seed. Their tables are not those that `canonical` was written with.

Look-alikes come from the whole of Unicode UTS #39 (`confusable-homoglyphs`), marks from four blocks, leet from a table
of its own. No bench by itself; `safety_disguise` measures with it.
"""

import base64
import random
import unicodedata
from collections.abc import Callable, Mapping

from confusable_homoglyphs import confusables

Trick = Callable[[str, random.Random], str]
_BLOCKS = ((0x300, 0x36F), (0x1AB0, 0x1ABD), (0x1DC4, 0x1DFF), (0x20D0, 0x20DC))
_LEET_PAIRS = "a 4@^,b 86,c (<,e 3\u20ac,g 96,h #,i 1!|,l 1|,o 0,s 5$,t 7+,z 2"
_LEET = {pair[0]: pair[2:] for pair in _LEET_PAIRS.split(",")}
_ALPHABETS = (0x1D41A, 0x1D44E, 0x1D4EA, 0x1D552, 0x1D5BA, 0x1D5EE, 0x1D622, 0x1D68A, 0xFF41, 0x24D0)
_SIGNS = (0x1F130, 0x1F150, 0x1F170)
_INVISIBLE = "\u200b\u200c\u200d\u2060\u00ad\ufeff\u200e\u200f\u2061\u2063"


def _each(change: Callable[[str, random.Random], str], share: float) -> Trick:
    def trick(text: str, chance: random.Random) -> str:
        return "".join(
            change(letter, chance) if letter.isascii() and letter.isalpha() and chance.random() < share else letter
            for letter in text
        )

    return trick


def _words(change: Callable[[str, random.Random], str], gap: str = " ") -> Trick:
    return lambda text, chance: gap.join(change(word, chance) for word in text.split())


def _alike(letter: str, chance: random.Random) -> str:
    found = confusables.is_confusable(letter, greedy=True, preferred_aliases=[])
    shapes = [one["c"] for one in found[0]["homoglyphs"]] if found else []
    single = [shape for shape in shapes if len(shape) == 1 and not shape.isascii()]
    return chance.choice(single) if single else letter


def _marked(letter: str, chance: random.Random) -> str:
    blocks = (chance.choice(_BLOCKS) for _ in range(chance.randint(1, 3)))
    return letter + "".join(chr(chance.randint(*block)) for block in blocks)


def _styled(letter: str, chance: random.Random) -> str:
    shape = chr(chance.choice(_ALPHABETS) + ord(letter.lower()) - 97)
    return shape if unicodedata.name(shape, "") else letter


def _swapped(word: str, chance: random.Random) -> str:
    if len(word) < 4 or not word.isalpha() or chance.random() > 0.6:
        return word
    at = chance.randint(0, len(word) - 2)
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def _emoji(text: str, chance: random.Random) -> str:
    flags = chance.random() < 0.5
    spelled = (
        (chr(0x1F1E6 + ord(one) - 97) + "\u200b" if flags else chr(chance.choice(_SIGNS) + ord(one) - 97))
        if "a" <= one <= "z"
        else one
        for one in text.lower()
    )
    return "".join(spelled)


def _selectors(letter: str, chance: random.Random) -> str:
    return letter + chr(chance.choice((chance.randint(0xFE00, 0xFE0F), chance.randint(0xE0100, 0xE01EF))))


def _smuggled(text: str, _: random.Random) -> str:
    data = text.encode()
    return "a nice day \U0001f600" + "".join(chr(0xFE00 + b) if b < 16 else chr(0xE0100 + b - 16) for b in data)


def _tags(text: str, _: random.Random) -> str:
    return "".join(chr(0xE0000 + ord(one)) if one.isascii() and one.isprintable() else one for one in text)


def _parted(word: str, chance: random.Random) -> str:
    return chance.choice((".", "-", "_", "*")).join(word) if word.isalpha() and len(word) > 2 else word


def _mixed(text: str, chance: random.Random) -> str:
    names = ("confusables", "marks", "styles", "invisible", "leet")
    return " ".join(TRICKS[chance.choice(names)](word, chance) for word in text.split())


TRICKS: Mapping[str, Trick] = {
    "confusables": _each(_alike, 0.5),
    "tags": _tags,
    "selectors": _each(_selectors, 0.6),
    "smuggled": _smuggled,
    "marks": _each(_marked, 0.8),
    "emoji": _emoji,
    "styles": _each(_styled, 1.0),
    "invisible": _each(lambda letter, chance: letter + chance.choice(_INVISIBLE), 0.7),
    "spaced": _words(lambda word, _: " ".join(word), "   "),
    "parted": _words(_parted),
    "leet": _each(lambda letter, chance: chance.choice(_LEET.get(letter.lower(), letter)), 0.6),
    "swapped": _words(_swapped),
    "reversed": lambda text, _: text[::-1],
    "base64": lambda text, _: base64.b64encode(text.encode()).decode(),
    "mixed": _mixed,
}
