"""Which of a request's fields are prompts, and what a request is beside them: for the hashes that call facts keep.

Text fields come from the model's own schema: strings that are no choice, no format and no URL. A model that says
nothing of itself is read by the usual names. Pure; nothing leaves it but text for hashing and a digest. Called off the
request path, by `call_notes`.
"""

import hashlib
import re
from collections import deque
from collections.abc import Iterator, Mapping
from typing import cast

MAX_CHARS = 8_192
MAX_DEPTH = 6
MAX_NODES = 2_000
USUAL_NAMES = frozenset({"prompt", "negative_prompt", "text", "input", "lyrics", "caption", "instruction", "query"})
_NO_TEXT = re.compile(r"(^|_)(url|urls|uri|id|ids|hash|sha256|format|mode|type|token|key)$", re.IGNORECASE)
_LINK = re.compile(r"(https?|data|forestay-media):", re.IGNORECASE)
_UNSHAPED = frozenset({"seed"})  # drawn anew for every picture


def text_fields(openapi: Mapping[str, object] | None, endpoint: str) -> frozenset[str]:
    """Return the names of an endpoint's text fields, by its schema; the usual names without one."""
    paths = _mapping(_mapping(openapi).get("paths"))
    operation = _mapping(_mapping(paths.get(endpoint)).get("post"))
    content = _mapping(_mapping(operation.get("requestBody")).get("content"))
    schema = _mapping(content.get("application/json")).get("schema")
    if schema is None:
        return USUAL_NAMES
    components = _mapping(_mapping(_mapping(openapi).get("components")).get("schemas"))
    return frozenset(_texts(_mapping(schema), components, 0)) or USUAL_NAMES


def text_and_shape(value: object, fields: frozenset[str], key: bytes) -> tuple[str, int]:
    """Return the text of a request's prompt fields, joined, at most MAX_CHARS, and 63 bits for all else that it asks.

    All else: numbers, switches and choices; seeds and links aside.
    """
    texts: list[str] = []
    said: list[str] = []
    for name, leaf in _leaves(value):
        if isinstance(leaf, str) and _LINK.match(leaf):
            continue
        if name in fields:
            texts += [leaf] if isinstance(leaf, str) else []
        elif name not in _UNSHAPED and isinstance(leaf, str | int | float | bool):
            said.append(f"{name}={str(leaf)[:64]}")
    return "\n".join(texts)[:MAX_CHARS], digest_of("\n".join(sorted(said)), key) if said else 0


def digest_of(text: str, key: bytes) -> int:
    """Return 63 bits for a text, under a key."""
    raw = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, key=key[:64]).digest()
    return int.from_bytes(raw) >> 1


def _texts(schema: Mapping[str, object], components: Mapping[str, object], depth: int) -> Iterator[str]:
    if depth > MAX_DEPTH:
        return
    schema = _resolved(schema, components)
    for union in ("anyOf", "oneOf", "allOf"):
        for part in _list(schema.get(union)):
            yield from _texts(_mapping(part), components, depth + 1)
    yield from _texts(_mapping(schema.get("items")), components, depth + 1) if "items" in schema else ()
    for name, node in _mapping(schema.get("properties")).items():
        if _is_text(name, _mapping(node), components, 0):
            yield name
        else:
            yield from _texts(_mapping(node), components, depth + 1)


def _is_text(name: str, node: Mapping[str, object], components: Mapping[str, object], depth: int) -> bool:
    node = _resolved(node, components)
    if _NO_TEXT.search(name) or depth > MAX_DEPTH:
        return False
    if node.get("type") == "string":
        return not any(word in node for word in ("enum", "const", "format", "contentMediaType"))
    if node.get("type") == "array":
        return _is_text(name, _mapping(node.get("items")), components, depth + 1)
    parts = [*_list(node.get("anyOf")), *_list(node.get("oneOf")), *_list(node.get("allOf"))]
    return any(_is_text(name, _mapping(part), components, depth + 1) for part in parts)


def _resolved(node: Mapping[str, object], components: Mapping[str, object]) -> Mapping[str, object]:
    reference = node.get("$ref")
    if not isinstance(reference, str):
        return node
    return _mapping(components.get(reference.rpartition("/")[2]))


def _leaves(value: object) -> Iterator[tuple[str, object]]:
    """Yield leaves with the name of the nearest field above, breadth first, at most MAX_NODES."""
    waiting: deque[tuple[str, object, int]] = deque([("", value, 0)])
    for _ in range(MAX_NODES):
        if not waiting:
            return
        name, node, depth = waiting.popleft()
        if isinstance(node, dict) and depth < MAX_DEPTH:
            items = cast("dict[object, object]", node).items()
            waiting += [(str(field), inner, depth + 1) for field, inner in items]
        elif isinstance(node, list) and depth < MAX_DEPTH:
            waiting += [(name, inner, depth + 1) for inner in cast("list[object]", node)]
        else:
            yield name, node


def _mapping(value: object) -> Mapping[str, object]:
    return cast("Mapping[str, object]", value) if isinstance(value, Mapping) else {}


def _list(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else []
