"""Every string of a model's input or output that carries text, wherever it stands. Pure and bounded.

Walks any value of JSON or MessagePack: prompts and negative prompts, lists, turns of a conversation, keys and
addresses that spell sentences, JSON inside strings, text in data URIs, in bytes and in lists of their numbers. The
turns of a list are also given as one text, so that what is said in pieces is seen whole. Addresses and binary content
are left to others. What a limit cuts off is Trouble.UNREADABLE for its place: nothing is skipped in silence. Decides
nothing. Called by the gateway's guard and the worker's.
"""

import dataclasses
import functools
import json
import re
import urllib.parse
from collections.abc import Mapping
from typing import cast

import msgspec

from forestay.safety.model import Text, Trouble, Unscored
from forestay.safety.text import words
from forestay.safety.text.blobs import is_packed, said_by, sentence_in, text_in, words_in

DETECTOR = "text-fields@1"
_ADDRESS = re.compile(r"(?:https?|wss?|s3|gs|blob|file)://[^\s]+", re.IGNORECASE)
_HOST = re.compile(r"(?:[^/?#]*[.:][^/?#]*|localhost)(?=[/?#]|$)", re.IGNORECASE)
_ENDING = re.compile(r"\.[a-z0-9]{2,5}$", re.IGNORECASE)  # of a file's name
_WORDS = re.compile(r"[^\W\d_]+")
SENTENCE_WORDS = 4  # English words from which on an address reads as a sentence
ADDRESS_CHARS = 2_000  # of one that are looked at for words
ADDRESS = ":address"  # ends the place of a text that is what an address says
_NAME = re.compile(r"[A-Za-z0-9_.\-/:\[\]]{1,64}|[\w.\-]{1,12}")
KEY = "<key>"  # the name of a field that is a sentence
_FEW_NUMBERS = 12  # of a list: fewer spell no sentence
_MAX_SAID = 4  # levels of lists and objects within one turn
_TURN = ("content", "text", "prompt", "message", "value")


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """How much of a value is read."""

    texts: int = 256
    chars: int = 100_000  # of all texts together
    each_chars: int = 20_000  # of one; a longer one comes in parts
    depth: int = 32
    values: int = 20_000  # of any kind


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """The texts of a value, and the places that could not be read."""

    texts: tuple[Text, ...]
    unread: tuple[Unscored, ...]


DEFAULT_LIMITS = Limits()


def texts_of(value: object, limits: Limits = DEFAULT_LIMITS) -> Found:
    """Return every text of a JSON value with its place ("messages[1].content"); never raises."""
    walk = _Walk(limits)
    walk.any(value, "", 0)
    return Found(tuple(walk.texts), tuple(walk.unread.values()))


class _Walk:
    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._chars = 0
        self._values = 0
        self._names: set[str] = set()
        self.texts: list[Text] = []
        self.unread: dict[str, Unscored] = {}

    def any(self, value: object, where: str, depth: int) -> None:
        self._values += 1
        if depth > self._limits.depth or self._values > self._limits.values:
            if isinstance(value, (str, list, tuple, dict)):
                self._cut(where)
            return
        if isinstance(value, str):
            self._string(value, where, depth)
        elif isinstance(value, (bytes, bytearray)):
            self._bytes(bytes(value), where, depth)
        elif isinstance(value, msgspec.msgpack.Ext):
            self._bytes(bytes(value.data), where, depth)
        elif isinstance(value, dict):
            for key, inner in cast("Mapping[object, object]", value).items():
                self._pair(str(key), inner, where, depth)
        elif isinstance(value, (list, tuple)):
            items = cast("list[object]", value)
            for at, item in enumerate(items[: self._limits.values]):
                self.any(item, f"{where}[{at}]", depth + 1)
            self._turns(items, where)
            self._numbers(items, where)

    def _pair(self, key: str, value: object, where: str, depth: int) -> None:
        name = named(key)
        place = f"{where}.{name}" if where else name
        if name != key and key not in self._names:  # once, wherever else it stands
            self._names.add(key)
            self._add(_sentence_of_name(key) or key, place)
        self.any(value, place, depth + 1)

    def _turns(self, items: list[object], where: str) -> None:
        said = [text for item in items[: self._limits.values] if (text := _said(item, _MAX_SAID))]
        if len(said) > 1:
            self._add(" ".join(said), f"{where}[*]")

    def _numbers(self, items: list[object], where: str) -> None:
        """Read a list of numbers that are the letters of a text."""
        if len(items) < _FEW_NUMBERS or not all(type(item) is int and 8 < item < 0x2000 for item in items):
            return
        said = "".join(chr(cast("int", item)) for item in items)
        if sentence_in(said):
            self._add(said, f"{where}[*]")

    def _bytes(self, data: bytes, where: str, depth: int) -> None:
        text = text_in(data)
        if text is not None:
            self._string(text, where, depth)
        elif said := words_in(data):
            self._add(said, where)

    def _string(self, text: str, where: str, depth: int) -> None:
        bare = text.strip()
        if not bare:
            return
        if _ADDRESS.fullmatch(bare):
            if said := said_by_address(bare):
                self._add(said, f"{where}{ADDRESS}")
            return
        if bare[:5].lower() == "data:":
            inside = said_by(bare)
            if inside is not None:
                self._add(inside, where)
            return
        if bare[0] in '{["' and (parsed := _json(bare)) is not None:
            self.any(parsed, f"{where}:json", depth + 1)
            return
        if not is_packed(bare):
            self._add(text, where)

    def _add(self, text: str, where: str) -> None:
        size = self._limits.each_chars
        for start in range(0, len(text), size):
            part = text[start : start + size]
            if len(self.texts) >= self._limits.texts or self._chars + len(part) > self._limits.chars:
                self._cut(where)
                return
            self._chars += len(part)
            self.texts.append(Text(where, part))

    def _cut(self, where: str) -> None:
        if len(self.unread) < self._limits.texts:
            self.unread.setdefault(where, Unscored(DETECTOR, where, Trouble.UNREADABLE))


def named(key: str) -> str:
    """Return how a key is called in places, which refusals and records tell: one that says something is `<key>`."""
    return key if _NAME.fullmatch(key) and not _sentence_of_name(key) else KEY


def _said(item: object, levels: int) -> str:
    """Return what a turn of a conversation says: a string, a list of parts, or an object that looks like a turn."""
    if isinstance(item, str):
        media = item[:5].lower() == "data:" and said_by(item) is None
        return "" if media or _ADDRESS.fullmatch(item.strip()) else item
    if not levels:
        return ""
    if isinstance(item, list):
        return " ".join(text for part in cast("list[object]", item) if (text := _said(part, levels - 1)))
    if isinstance(item, dict):
        turn = cast("Mapping[object, object]", item)
        return next((text for name in _TURN if (text := _said(turn.get(name), levels - 1))), "")
    return ""


def said_by_address(address: str) -> str:
    """Return what an address says to whoever reads it as words; empty where it is no sentence.

    A model that takes `https://a-sentence-like-this` for its prompt reads the sentence. The host counts where it is one
    itself, or cannot be a host; the ending of a file's name does not.
    """
    rest = address.partition("://")[2][:ADDRESS_CHARS]
    host = _HOST.match(rest)
    if host is not None and _known(host[0]) < SENTENCE_WORDS:
        rest = rest[host.end() :]
    path, _, query = rest.partition("?")
    plain = urllib.parse.unquote_plus(f"{_ENDING.sub('', path)} {query}")
    return " ".join(_WORDS.findall(plain)) if _known(plain) >= SENTENCE_WORDS else ""


def _known(text: str) -> int:
    """Count the English words of a text."""
    return sum(words.known(word) for word in _WORDS.findall(text.lower()) if word.isascii())


_sentence_of_name = functools.lru_cache(maxsize=4_096)(sentence_in)  # names come again with every call


def _json(text: str) -> object | None:
    """Return a string, list or object that a string spells; None when it is no such JSON."""
    try:
        parsed = cast("object", json.loads(text, object_pairs_hook=every_pair))
    except (ValueError, RecursionError):
        return None
    return cast("object", parsed) if isinstance(parsed, (str, list, dict)) and parsed != text else None


def every_pair(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Make an object of names and values, for a parser; a name that stands twice keeps all its values."""
    found: dict[str, object] = {}
    for name, value in pairs:
        found[name] = [found[name], value] if name in found else value
    return found
