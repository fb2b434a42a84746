"""Every string of a model's input or output that carries text, wherever it stands. Pure and bounded.

Walks any JSON value: prompts and negative prompts, lists, turns of a conversation, keys that are sentences, JSON
inside strings, text in data URIs, addresses that read as a sentence. The turns of a list are also given as one text,
so that what is said in pieces is seen whole. Other addresses and binary content are left to others. What a limit cuts
off is Trouble.UNREADABLE for its place: nothing is skipped in silence. Decides nothing. Called by the gateway's guard
and the worker's.
"""

import base64
import binascii
import dataclasses
import json
import re
import string
import urllib.parse
from collections.abc import Mapping
from typing import cast

from forestay.safety.model import Text, Trouble, Unscored
from forestay.safety.text import words

DETECTOR = "text-fields@1"
_ADDRESS = re.compile(r"(?:https?|wss?|s3|gs|blob|file)://[^\s]+", re.IGNORECASE)
_HOST = re.compile(r"(?:[^/?#]*[.:][^/?#]*|localhost)(?=[/?#]|$)", re.IGNORECASE)
_ENDING = re.compile(r"\.[a-z0-9]{2,5}$", re.IGNORECASE)  # of a file's name
_WORDS = re.compile(r"[^\W\d_]+")
SENTENCE_WORDS = 4  # English words from which on an address reads as a sentence
ADDRESS_CHARS = 2_000  # of one that are looked at for words
ADDRESS = ":address"  # ends the place of a text that is what an address says
_NAME = re.compile(r"[\w.\-/:\[\]]{1,64}")
_BASE64 = string.ascii_letters.encode() + b"0123456789+/_-=%"
_LINE = 32  # letters of base64 in a line, at least: shorter runs between spaces are words
_BLOB = re.compile(r"[A-Za-z0-9+/_-]{256,}={0,2}")
_HEAD = 128  # characters of a blob that tell text from media
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
        elif isinstance(value, dict):
            for key, inner in cast("Mapping[object, object]", value).items():
                self._pair(str(key), inner, where, depth)
        elif isinstance(value, (list, tuple)):
            items = cast("list[object]", value)
            for at, item in enumerate(items[: self._limits.values]):
                self.any(item, f"{where}[{at}]", depth + 1)
            self._turns(items, where)

    def _pair(self, key: str, value: object, where: str, depth: int) -> None:
        place = f"{where}.{key}" if where else key
        if not _NAME.fullmatch(key):  # a sentence for a key
            place = f"{where}.<key>" if where else "<key>"
            self._add(key, place)
        self.any(value, place, depth + 1)

    def _turns(self, items: list[object], where: str) -> None:
        said = [text for item in items[: self._limits.texts] if (text := _said(item))]
        if len(said) > 1:
            self._add(" ".join(said), f"{where}[*]")

    def _string(self, text: str, where: str, depth: int) -> None:
        bare = text.strip()
        if not bare:
            return
        if _ADDRESS.fullmatch(bare):
            if said := said_by_address(bare):
                self._add(said, f"{where}{ADDRESS}")
            return
        if bare[:5].lower() == "data:":
            inside = _data_text(bare)
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


def _said(item: object, *, parts: bool = True) -> str:
    """Return what a turn says: a string, or the text of an object that looks like a turn, or of its parts."""
    if isinstance(item, str):
        return "" if _ADDRESS.fullmatch(item.strip()) or item[:5].lower() == "data:" else item
    if not isinstance(item, dict):
        return ""
    for name in _TURN:
        inner = cast("Mapping[object, object]", item).get(name)
        if isinstance(inner, str) and inner:
            return inner
        if isinstance(inner, list) and parts:
            return " ".join(text for part in cast("list[object]", inner) if (text := _said(part, parts=False)))
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


def _json(text: str) -> object | None:
    """Return a string, list or object that a string spells; None when it is no such JSON."""
    try:
        parsed = cast("object", json.loads(text))
    except (ValueError, RecursionError):
        return None
    return cast("object", parsed) if isinstance(parsed, (str, list, dict)) and parsed != text else None


def _data_text(uri: str) -> str | None:
    """Return what a data URI says (RFC 2397), whatever it calls itself; None for media, which is judged elsewhere."""
    head, _, body = uri[5:].partition(",")
    packed = head.rstrip().lower().endswith(";base64") and _is_base64(body)  # else it says words
    says_text = not head or head.lower().startswith(("text/", "application/json", ";"))
    if packed and not says_text and _is_binary("".join(urllib.parse.unquote(body[: 2 * _HEAD]).split())):
        return None
    plain = urllib.parse.unquote(body)
    if not packed:
        return plain
    try:
        return base64.b64decode(plain, validate=False).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return plain


def _is_base64(body: str) -> bool:
    left = body.encode("ascii", "replace").translate(None, _BASE64)  # quicker than a pattern, for bodies of megabytes
    return not left or (not left.strip() and all(len(line) >= _LINE for line in body.split()[:-1]))


def is_packed(text: str) -> bool:
    """Tell whether a string is base64 of something that is no text: no words to judge, but maybe a picture."""
    bare = text.strip()
    return _BLOB.fullmatch(bare) is not None and _is_binary(bare)


def _is_binary(blob: str) -> bool:
    head = blob[:_HEAD].replace("-", "+").replace("_", "/")
    try:
        data = base64.b64decode(head, validate=True)
    except (binascii.Error, ValueError):
        return False
    said = data[:-3].decode("utf-8", "replace")  # a letter may be cut at the end
    return "\ufffd" in said[:-1] or not all(letter.isprintable() or letter.isspace() for letter in said)
