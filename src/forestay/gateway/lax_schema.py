"""JSON Schema as pydantic reads it: a model's own schema, loosened where pydantic's lax mode accepts more.

pydantic takes "42" for an integer, "true" or 1 for a boolean, a timestamp for a date-time, doubles in a set. A gateway
that checked the schema to the letter would refuse what the model accepts, so every node is loosened first; what is
left over is refused by both. The files of fal's toolkit (`File`, `Image`, `Video`, `Audio`) take a URL in place of the
object that their schema names. Loosened nodes carry `MARK`, so that an error can name the declared type. Pure; called
by `validation`. Rules read off pydantic 2 (https://docs.pydantic.dev/latest/concepts/conversion_table/) and held to it
by a property test.
"""

from collections.abc import Callable, Mapping
from typing import cast

MARK = "x-forestay-declared"
Node = dict[str, object]
_MAX_DEPTH = 64

_SPACE = r"[\s\x1c-\x1f\x85]*"
INTEGER_TEXT = rf"^{_SPACE}[+-]?[0-9_]+(\.[0_]*)?{_SPACE}$"
NUMBER_TEXT = (
    rf"^{_SPACE}[+-]?([0-9_]+\.?[0-9_]*([eE][+-]?[0-9_]+)?|\.[0-9_]+([eE][+-]?[0-9_]+)?"
    rf"|[iI][nN][fF]([iI][nN][iI][tT][yY])?|[nN][aA][nN]){_SPACE}$"
)
BOOLEAN_TEXT = (
    r"^([01]|[tT]|[fF]|[yY]|[nN]|[tT][rR][uU][eE]|[fF][aA][lL][sS][eE]|[yY][eE][sS]|[nN][oO]|[oO][nN]|[oO][fF][fF])$"
)
URL_TEXT = r"^([hH][tT][tT][pP][sS]?|[dD][aA][tT][aA]):"

_FILE_FIELDS = frozenset({"url", "content_type", "file_name", "file_size"})  # those of fal.toolkit.File
_TIME_FORMATS = frozenset({"date-time", "date", "time", "duration", "time-delta"})
_KEPT_AS_MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_KEPT_AS_LISTS = frozenset({"allOf", "anyOf", "prefixItems"})
_KEPT_AS_SCHEMAS = frozenset({"items", "additionalProperties", "contains"})
_DROPPED = frozenset(
    {"uniqueItems", "propertyNames", "discriminator", "example", "examples", "default", "format", "oneOf"}
)
_LEAF_LIMITS = (
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
)


def relax(schema: object, depth: int = 0) -> object:
    """Return `schema` loosened to what pydantic's lax mode accepts; beyond 64 levels everything is accepted."""
    if not isinstance(schema, dict):
        return schema
    node = cast("Node", schema)
    if depth > _MAX_DEPTH or "not" in node or "if" in node:
        return True  # loosening below a negation would tighten; pydantic itself emits neither
    relaxed = {key: _relax_value(key, value, depth) for key, value in node.items() if key not in _DROPPED}
    if "oneOf" in node:
        relaxed["anyOf"] = _each(node["oneOf"], depth)
    _loosen_nullable(node, relaxed)
    _loosen_leaf(node, relaxed)
    if node.get("type") == "object" and _is_file(node):
        relaxed.update({"type": ["object", "string"], "pattern": URL_TEXT, MARK: "object"})
    if "array" in _types(relaxed) and node.get("uniqueItems"):
        relaxed.pop("maxItems", None)  # a set drops doubles before it counts
    if "enum" in relaxed or "const" in relaxed:
        _loosen_choice(relaxed)
    return relaxed


def _loosen_leaf(node: Node, relaxed: Node) -> None:
    types = _types(relaxed)
    if MARK in relaxed:
        return  # folded, and loosened already
    if len(set(types) - {"null"}) > 1:
        for key in ("type", *_LEAF_LIMITS):
            relaxed.pop(key, None)  # readings of several types overlap; pydantic emits anyOf instead
        return
    for declared in _LOOSEN.keys() & set(types):
        _LOOSEN[declared](node, relaxed, types)


def _is_file(node: Node) -> bool:
    """Tell whether a node is a file of fal's toolkit, whose validator makes an object of a URL first."""
    fields = node.get("properties")
    return isinstance(fields, dict) and cast("Node", fields).keys() >= _FILE_FIELDS


def _relax_value(key: str, value: object, depth: int) -> object:
    if key in _KEPT_AS_MAPS and isinstance(value, dict):
        return {name: relax(child, depth + 1) for name, child in cast("Node", value).items()}
    if key in _KEPT_AS_LISTS:
        return _each(value, depth)
    if key in _KEPT_AS_SCHEMAS:
        return relax(value, depth + 1)
    if key == "$ref" and isinstance(value, str) and not value.startswith("#"):
        return "#/x-forestay-anything"  # what lies elsewhere is not fetched, so it cannot be checked
    return value


def _each(value: object, depth: int) -> object:
    return [relax(child, depth + 1) for child in cast("list[object]", value)] if isinstance(value, list) else value


def _types(node: Node) -> list[str]:
    declared = node.get("type")
    if isinstance(declared, str):
        return [declared]
    return [str(item) for item in cast("list[object]", declared)] if isinstance(declared, list) else []


def _loosen_nullable(node: Node, relaxed: Node) -> None:
    """`nullable` of OpenAPI 3.0; and `Optional[leaf]`, folded into one node so that its errors read as pydantic's."""
    if node.get("nullable") is True and "type" in relaxed:
        relaxed["type"] = [*_types(relaxed), "null"]
    branches = relaxed.get("anyOf")
    if not isinstance(branches, list) or len(cast("list[object]", branches)) != 2 or "type" in relaxed:
        return
    others = [branch for branch in cast("list[object]", branches) if branch != {"type": "null"}]
    if len(others) != 1 or not isinstance(others[0], dict):
        return
    leaf = cast("Node", others[0])
    own = relaxed.keys() - {"title", "description", "anyOf"}
    if "type" not in leaf or not {"enum", "const", *own}.isdisjoint(leaf):
        return
    del relaxed["anyOf"]
    relaxed.update({key: value for key, value in leaf.items() if key != "title"})
    relaxed["type"] = [*_types(leaf), "null"]


def _loosen_integer(_node: Node, relaxed: Node, types: list[str]) -> None:
    relaxed[MARK] = "integer"
    relaxed["type"] = _union(types, "string", "boolean")
    relaxed["pattern"] = INTEGER_TEXT
    _drop_text_limits(relaxed)


def _loosen_number(_node: Node, relaxed: Node, types: list[str]) -> None:
    relaxed[MARK] = "number"
    relaxed["type"] = _union(types, "string", "boolean")
    relaxed["pattern"] = NUMBER_TEXT
    relaxed.pop("multipleOf", None)  # pydantic allows for rounding
    _drop_text_limits(relaxed)


def _loosen_boolean(_node: Node, relaxed: Node, types: list[str]) -> None:
    relaxed[MARK] = "boolean"
    relaxed["type"] = _union(types, "number", "string")
    relaxed.update({"pattern": BOOLEAN_TEXT, "minimum": 0, "maximum": 1, "multipleOf": 1})
    _drop_text_limits(relaxed)


def _loosen_string(node: Node, relaxed: Node, types: list[str]) -> None:
    if node.get("format") in _TIME_FORMATS:
        relaxed["type"] = _union(types, "number")
    if "format" in node:
        _drop_text_limits(relaxed)  # the parsed value is measured, not its text
        relaxed.pop("pattern", None)


def _drop_text_limits(relaxed: Node) -> None:
    relaxed.pop("minLength", None)
    relaxed.pop("maxLength", None)


def _loosen_choice(relaxed: Node) -> None:
    """A choice of strings is exact in lax mode; one of numbers also takes their texts."""
    choices = relaxed.get("enum", [relaxed.get("const")])
    if not isinstance(choices, list) or all(
        isinstance(item, str) or item is None for item in cast("list[object]", choices)
    ):
        relaxed.pop("minLength", None)
        return
    for key in ("enum", "const", "type", *_LEAF_LIMITS):
        relaxed.pop(key, None)


def _union(types: list[str], *more: str) -> list[str]:
    kept = [name for name in types if not (name == "integer" and "number" in more)]
    return [*kept, *(name for name in more if name not in kept)]


_LOOSEN: Mapping[str, Callable[[Node, Node, list[str]], None]] = {
    "integer": _loosen_integer,
    "number": _loosen_number,
    "boolean": _loosen_boolean,
    "string": _loosen_string,
}
