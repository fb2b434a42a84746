"""What an answer consists of: every text, link, data URI and stored file in it, with the place where it stands.

Pure. Decides what kind each leaf is, not what follows. A file may also stand in a string without a word about it
(base64 alone, as `b64_json` of other APIs has it) or in the middle of a text (`inside`), where a link by which media is
shown stands for a file too. Bounded: an answer with more leaves or more depth than may be looked at is TooMuch, never
half looked at. Called by the worker for outputs, pieces of streams and frames.
"""

import base64
import binascii
import dataclasses
import enum
import json
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import cast

import msgspec

from forestay.media.urls import SCHEME, own_media_id
from forestay.safety.text.blobs import is_data_uri, is_media, is_packed, unpacked_head
from forestay.safety.text.fields import ADDRESS, every_pair, named

MAX_LEAVES = 5_000
MAX_DEPTH = 32
Path = tuple[str | int, ...]
_ONE_ALPHABET = bytes.maketrans(b"-_", b"+/")
_LINK = re.compile(r"\s*https?://\S+\s*", re.IGNORECASE)
_INSIDE = re.compile(r"data:(?:[\w.+-]+/[\w.+-]+)?(?:;[\w.+=-]+)*;base64,[A-Za-z0-9+/_=%-]+", re.IGNORECASE)
_RUN = re.compile(r"[A-Za-z0-9+/_-]{256,}={0,2}")
_FEW_NUMBERS = 64  # of a list: fewer are no picture
_MEDIA_ENDING = (
    "png|jpe?g|jpe|webp|gif|avif|heic|bmp|tiff?|svg|mp4|m4v|mov|webm|mkv|avi|mp3|wav|flac|ogg|oga|ogv|m4a|aac|opus"
)
_SHOWN = re.compile(  # Markdown's and HTML's way of showing media, or a link that ends like a file of media
    rf"""!\[[^\]]{{0,500}}\]\(\s*<?(https?://[^\s)>]+)|\b(?:src|srcset|poster)\s*=\s*["']?(https?://[^\s"'>]+)"""
    rf"""|(https?://[^\s"'<>()\[\]]{{1,2000}}?\.(?:{_MEDIA_ENDING})(?!\.?[\w/-])(?:\?[^\s"'<>()\[\]]*[\w/=&%-])?)""",
    re.IGNORECASE,
)
_STEP = re.compile(r"\[(\d+)\]|([^.\[\]]+)")


class LeafKind(enum.StrEnum):
    """What a leaf is."""

    TEXT = "text"
    STORED = "stored"  # a file of ours, by its stored name
    DATA = "data"  # a data: URI
    PACKED = "packed"  # base64 of a file, and nothing beside it
    LINK = "link"  # a URL of somebody else
    BYTES = "bytes"  # in a frame that is not JSON


@dataclasses.dataclass(frozen=True, slots=True)
class Leaf:
    """One string or run of bytes."""

    path: Path
    kind: LeafKind
    text: str = ""
    data: bytes = b""

    @property
    def where(self) -> str:
        """Return its place in one word: `images[0].url`."""
        return where_of(self.path)


class TooMuch(ValueError):
    """More than may be looked at."""


def leaves_of(value: object) -> list[Leaf]:
    """Return every string and run of bytes of a value, in order; TooMuch beyond MAX_LEAVES or MAX_DEPTH."""
    found: list[Leaf] = []
    waiting: list[tuple[Path, object]] = [((), value)]
    looked = 0
    while waiting:
        path, node = waiting.pop()
        looked += 1
        if len(path) > MAX_DEPTH or looked > MAX_LEAVES:
            raise TooMuch(f"an answer deeper than {MAX_DEPTH} or with more than {MAX_LEAVES} parts")
        if isinstance(node, str):
            found.append(Leaf(path, kind_of(node), node))
        elif isinstance(node, bytes | bytearray | msgspec.msgpack.Ext):
            data = node.data if isinstance(node, msgspec.msgpack.Ext) else node
            found.append(Leaf(path, LeafKind.BYTES, data=bytes(data)))
        elif isinstance(node, Mapping):
            items = list(cast("Mapping[object, object]", node).items())
            waiting += [((*path, str(name)), inner) for name, inner in reversed(items)]
        elif isinstance(node, list | tuple):
            inner = list(cast("Sequence[object]", node))
            if (data := _numbered(inner)) is not None:
                found.append(Leaf(path, LeafKind.BYTES, data=data))
            waiting += [((*path, place), inner[place]) for place in reversed(range(len(inner)))]
    return found


def _numbered(items: list[object]) -> bytes | None:
    """Return the media whose bytes a list gives as numbers; None where it gives none."""
    if len(items) < _FEW_NUMBERS or not all(type(item) is int and 0 <= item < 256 for item in items):
        return None
    data = bytes(cast("list[int]", items))
    return data if is_media(data) else None


def inside(leaf: Leaf) -> list[Leaf]:
    """Return the files that stand in the middle of a text: data: URIs, base64 of media, and links that show media."""
    if leaf.kind is not LeafKind.TEXT:
        return []
    named = [Leaf(leaf.path, LeafKind.DATA, uri) for uri in _INSIDE.findall(leaf.text)]
    runs = _RUN.findall(_INSIDE.sub(" ", leaf.text))
    named += [Leaf(leaf.path, LeafKind.PACKED, run) for run in runs if is_media(unpacked_head(run) or b"")]
    shown = dict.fromkeys(match[match.lastindex or 0] for match in _SHOWN.finditer(leaf.text))
    return named + [Leaf(leaf.path, LeafKind.LINK, link) for link in shown]


def parsed(body: bytes) -> object:
    """Parse JSON so that nothing hides: a name that stands twice in an object keeps all its values. ValueError if none.

    Readers differ in which of the two they take; whoever judges must see both.
    """
    try:
        return cast("object", json.loads(body, object_pairs_hook=every_pair))
    except RecursionError:
        raise TooMuch("JSON nested too deep") from None


def kind_of(text: str) -> LeafKind:
    """Return what a string is."""
    if text.lstrip().startswith(SCHEME) and own_media_id(text.strip()) is not None:
        return LeafKind.STORED
    if is_data_uri(text):
        return LeafKind.DATA
    if is_packed(text):
        return LeafKind.PACKED
    return LeafKind.LINK if _LINK.fullmatch(text) else LeafKind.TEXT


def where_of(path: Path) -> str:
    """Write a path in one word, without what names of fields say; the empty path is the whole answer."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{named(part)}" for part in path)
    return text.removeprefix(".") or "body"


def path_of(where: str) -> list[str | int]:
    """Read back what `where_of` wrote, for the `loc` of an error; names with dots and brackets come apart.

    What an address says is said by its field.
    """
    return [int(number) if number else name for number, name in _STEP.findall(where.removesuffix(ADDRESS))]


def unpacked(uri: str) -> bytes:
    """Return the bytes of a data: URI (RFC 2397); ValueError when it holds none."""
    head, comma, payload = uri.strip()[5:].partition(",")
    if not comma:
        raise ValueError("the data: URI holds no comma")
    raw = urllib.parse.unquote_to_bytes(payload)
    if not head.rstrip().lower().endswith(";base64"):
        return raw
    return unpacked_bare(raw)


def unpacked_bare(text: str | bytes) -> bytes:
    """Return the bytes that base64 stands for, in either alphabet; ValueError when it is none."""
    raw = text.encode("ascii", "replace") if isinstance(text, str) else text
    packed = b"".join(raw.split()).rstrip(b"=").translate(_ONE_ALPHABET)
    try:
        return base64.b64decode(packed + b"=" * (-len(packed) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(f"the data: URI, or the base64 alone, is not valid: {error}") from None


def with_links(value: object, links: Mapping[Path, Mapping[str, str]]) -> object:
    """Return the value with other links, alone or in the middle of a text, at some places."""
    texts: dict[Path, str] = {}
    for leaf in leaves_of(value):
        if leaf.path in links:
            text = leaf.text.strip() if leaf.kind is LeafKind.LINK else leaf.text
            for link in sorted(links[leaf.path], key=len, reverse=True):  # one may begin like another
                text = text.replace(link, links[leaf.path][link])
            texts[leaf.path] = text
    return replaced(value, texts)


def replaced(value: object, texts: Mapping[Path, str], path: Path = ()) -> object:
    """Return the value with other strings at some places."""
    if path in texts:
        return texts[path]
    if isinstance(value, dict):
        items = cast("dict[object, object]", value).items()
        return {name: replaced(inner, texts, (*path, str(name))) for name, inner in items}
    if isinstance(value, list):
        inner = cast("list[object]", value)
        return [replaced(node, texts, (*path, place)) for place, node in enumerate(inner)]
    return value
