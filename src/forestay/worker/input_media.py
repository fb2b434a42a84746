"""Where in the body that a model gets there is media: what has to be looked at, and what nobody can look at.

Pure. It reads the body as it leaves `inputs`, when the files that the spec declares are data: URIs of clean copies, and
finds what came another way too: data: URIs and files of ours in other fields, base64 without a head, JSON inside
strings, fields of the query. What is neither media nor text is unread, unless the spec declares the field as `weights`
(checked as such) or `file`. A foreign URL is unread where the model can fetch it, since what it names then is not what
was looked at now; a model without a network reads nothing from it. Called by `input_judging`.
"""

import base64
import binascii
import dataclasses
import re
from collections.abc import Mapping
from typing import cast
from urllib.parse import parse_qsl

from forestay.fleet.spec import EndpointSpec, HostKind, HostSpec
from forestay.media.formats import OCTET_STREAM, SNIFF_BYTES, content_type_of
from forestay.media.urls import own_media_id
from forestay.safety.leaves import Leaf, LeafKind, Path, TooMuch, leaves_of, parsed, unpacked, where_of

MAX_NESTED = 3  # JSON in a string, in a string, in a string
_URL = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]*://\S+\s*")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{32,}={0,2}")
_SURE = 256  # characters of base64 without a word of text in it: nobody writes that as a prompt
_TEXT_HEADS = ("text/", "application/json")
_MEDIA = ("image/", "video/", "audio/")
_WEAK = frozenset(
    {"image/bmp", "audio/mpeg", "audio/aac"}
)  # named by so few bits that short words would be taken for them
_QUERY: Path = ("query",)


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """The media of an input."""

    files: tuple[Leaf, ...] = ()
    unread: tuple[str, ...] = ()  # places that hold what nobody can look at


@dataclasses.dataclass(frozen=True, slots=True)
class Reader:
    """What a model does with its input, as its spec says."""

    kinds: Mapping[str, str]  # declared field -> image | video | audio | weights | file | any
    fetches: bool  # it can reach the network

    @staticmethod
    def of(host: HostSpec, endpoint: EndpointSpec) -> "Reader":
        """Read a spec."""
        kinds = {field: endpoint.media_kinds.get(field, "any") for field in endpoint.media_inputs}
        return Reader(kinds, fetches=host.kind is not HostKind.FAL_APP or host.network == "full")


def media_of_body(body: bytes, query: str, reader: Reader) -> Found:
    """Return the media of a call; a body that is no JSON is one file."""
    named: dict[str, list[str]] = {}
    for name, value in parse_qsl(query):
        named.setdefault(name, []).append(value)
    asked = {name: values[0] if len(values) == 1 else values for name, values in named.items()}
    of_query = media_of(asked, reader, _QUERY) if asked else Found()
    if not body.strip():
        return of_query
    try:
        of_body = media_of(parsed(body), reader)
    except TooMuch:
        of_body = Found(unread=("body",))
    except ValueError:
        of_body = Found((Leaf((), LeafKind.BYTES, data=body),))
    return Found((*of_body.files, *of_query.files), (*of_body.unread, *of_query.unread))


def files_of(body: bytes, reader: Reader) -> list[tuple[str, str]]:
    """Return the data: URIs in fields that the spec declares as `file`, with their places: any kind of file."""
    named = [name for name, kind in reader.kinds.items() if kind == "file"]
    try:
        value = parsed(body) if named else None
        fields = cast("Mapping[str, object]", value) if isinstance(value, dict) else dict[str, object]()
        found = leaves_of({name: fields.get(name) for name in named})
    except ValueError:
        return []
    return [(leaf.where, leaf.text) for leaf in found if leaf.kind is LeafKind.DATA]


def media_of(value: object, reader: Reader, at: Path = (), nested: int = 0) -> Found:
    """Return the media of a parsed value; the same file in two places is looked at once."""
    try:
        leaves = leaves_of(value)
    except TooMuch:
        return Found(unread=(where_of(at),))
    files: list[Leaf] = []
    unread: list[str] = []
    seen: set[str] = set()
    for found in leaves:
        leaf = dataclasses.replace(found, path=(*at, *found.path))
        if leaf.text and leaf.text in seen:
            continue
        seen.add(leaf.text)
        inner = _nested(leaf, reader, nested)
        if inner is not None:
            files += inner.files
            unread += inner.unread
            continue
        match _need(leaf, reader):
            case None:
                continue
            case Leaf() as file:
                files.append(file)
            case where:
                unread.append(where)
    return Found(tuple(files), tuple(unread))


def _nested(leaf: Leaf, reader: Reader, nested: int) -> Found | None:
    """Look into a string that spells JSON; None when it spells none."""
    if leaf.kind is not LeafKind.TEXT or leaf.text.lstrip()[:1] not in {"{", "["}:
        return None
    try:
        value = parsed(leaf.text.encode("utf-8", "surrogatepass"))
    except TooMuch:
        return Found(unread=(leaf.where,))
    except ValueError:
        return None
    if nested == MAX_NESTED:
        return Found(unread=(leaf.where,))
    return media_of(value, reader, leaf.path, nested + 1)


def _need(leaf: Leaf, reader: Reader) -> Leaf | str | None:
    """Return the leaf to open, the place that nobody can look at, or None where there is no media."""
    match leaf.kind:
        case LeafKind.BYTES | LeafKind.STORED:
            return leaf
        case LeafKind.DATA:
            return _data(leaf, reader)
        case _ if _URL.fullmatch(leaf.text):
            if not reader.fetches:
                return None
            return leaf if own_media_id(leaf.text.strip()) is not None else leaf.where
        case _:
            return _packed(leaf)


def _data(leaf: Leaf, reader: Reader) -> Leaf | str | None:
    kind = reader.kinds.get(str(leaf.path[0])) if leaf.path else None
    if kind == "weights":
        return None
    head = leaf.text.strip()[5:].partition(",")[0].lower()
    said = head.partition(";")[0]
    if kind != "file" and said and not said.startswith(_TEXT_HEADS):
        return leaf
    return leaf if _is_media(_head_of(leaf.text)) else None


def _packed(leaf: Leaf) -> Leaf | str | None:
    """Find media in base64 that stands alone, with or without line ends."""
    bare = leaf.text.strip()
    packed = bare if " " in bare else "".join(bare.split())
    if not _BASE64.fullmatch(packed):
        return None
    data = _decoded(packed)
    if data is None:
        return None
    if _is_media(data[:SNIFF_BYTES], sure=len(packed) >= _SURE):
        return Leaf(leaf.path, LeafKind.BYTES, data=data)
    return leaf.where if packed == bare and len(packed) >= _SURE and _is_binary(data) else None


def _head_of(uri: str) -> bytes:
    """Return the first bytes of a data: URI without unpacking all of it."""
    head, comma, payload = uri.strip()[5:].partition(",")
    try:
        return unpacked(f"data:{head}{comma}{payload[:1024]}")[:SNIFF_BYTES]
    except ValueError:
        return b""


def _decoded(text: str) -> bytes | None:
    plain = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except binascii.Error:
        return None


def _is_media(head: bytes, *, sure: bool = True) -> bool:
    kind = content_type_of(head) if head else OCTET_STREAM
    return kind.startswith(_MEDIA) and (sure or kind not in _WEAK)


def _is_binary(data: bytes) -> bool:
    """Tell bytes from text; base64 of a text was read as text already."""
    said = data[:96].decode("utf-8", "replace")[:-1]
    return "\ufffd" in said or not all(letter.isprintable() or letter.isspace() for letter in said)
